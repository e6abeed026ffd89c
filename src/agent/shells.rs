//! Shells: their threads' start, and the orders to them. At most one of each kind.

use super::Agent;
use crate::core::effect::ShellOrder;
use crate::core::event::{Event, ShellId, Worker};
use crate::system::channel::{Sender, bounded};
use crate::system::waker::Waker;
use crate::wire::WindowSize;
use crate::workers::shell::{self, Order};

/// Places in a shell's queue that keys cannot take.
const RESERVED: usize = 8;

/// A live shell's thread.
pub(super) struct Handle {
    id: ShellId,
    orders: Sender<Order>,
    waker: Waker,
}

impl Agent {
    pub(super) fn shell(&mut self, id: ShellId, order: ShellOrder) {
        match order {
            ShellOrder::Start(size) => self.start_shell(id, size),
            ShellOrder::Input(keys) => {
                let mut keys = keys.into_bytes();
                keys.truncate(shell::BACKLOG);
                self.order_shell(id, Order::Input(keys));
            }
            ShellOrder::Resize(size) => self.order_shell(id, Order::Resize(size)),
            ShellOrder::Signal(signal) => self.order_shell(id, Order::Signal(signal)),
            ShellOrder::More { pace } => self.order_shell(id, Order::More { pace }),
            ShellOrder::End => self.end_shell(id),
        }
    }

    fn start_shell(&mut self, id: ShellId, size: WindowSize) {
        let waker = match Waker::new() {
            Ok(waker) => waker,
            Err(error) => {
                let lost = Err(format!("no descriptor for the shell: {error}"));
                let event = Event::WorkerExited(Worker::Shell(id), lost);
                return self.own.push_back(event);
            }
        };
        let (orders, queue) = bounded(shell::QUEUE);
        self.shells.push(Handle {
            id,
            orders,
            waker: waker.clone(),
        });
        let (settings, inbox) = (self.config.shells.clone(), self.crew.inbox());
        self.spawn(id.kind.name(), Worker::Shell(id), move || {
            shell::run(id, &settings, size, &queue, &waker, &inbox)
        });
    }

    fn order_shell(&mut self, id: ShellId, order: Order) {
        let Some(handle) = self.shells.iter().find(|handle| handle.id == id) else {
            return;
        };
        let may_wait = matches!(order, Order::More { .. });
        if !may_wait && handle.orders.waiting() >= shell::QUEUE - RESERVED {
            return warn!("{}: too much at once; keys dropped", id.kind.name());
        }
        // A thread that has ended has told so.
        let _ = handle.orders.try_send(order);
        handle.waker.wake();
    }

    fn end_shell(&mut self, id: ShellId) {
        let found = self.shells.iter().position(|handle| handle.id == id);
        if let Some(index) = found {
            let Handle { orders, waker, .. } = self.shells.swap_remove(index);
            drop(orders);
            waker.wake();
        }
    }

    pub(super) fn forget_shell(&mut self, id: ShellId) {
        self.shells.retain(|handle| handle.id != id);
    }

    pub(super) fn end_shells(&mut self) {
        while let Some(handle) = self.shells.first() {
            self.end_shell(handle.id);
        }
    }
}
