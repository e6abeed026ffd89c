//! The control socket's worker: its start, its end, and what goes to its clients.

use super::Agent;
use crate::core::event::{ClientId, Worker};
use crate::system::channel::{Sender, TrySendError, bounded};
use crate::system::waker::Waker;
use crate::wire::control::Outgoing;
use crate::workers::control::{self, Command};

/// The control thread.
pub(super) struct Running {
    commands: Sender<Command>,
    waker: Waker,
    /// Something did not fit into its queue.
    has_lost: bool,
}

impl Agent {
    pub(super) fn start_control(&mut self, identifier: String) {
        let Some(settings) = self.config.control.clone() else {
            return;
        };
        let waker = match Waker::new() {
            Ok(waker) => waker,
            Err(error) => return error!("no descriptor for the control socket: {error}"),
        };
        let (commands, queue) = bounded(control::QUEUE);
        self.control = Some(Running {
            commands,
            waker: waker.clone(),
            has_lost: false,
        });
        let inbox = self.crew.inbox();
        self.spawn("control", Worker::Control, move || {
            control::run(&settings, &identifier, &queue, &waker, &inbox)
        });
    }

    /// A thread that does not keep up has its clients start over, so that none waits for an
    /// answer that was lost.
    pub(super) fn tell(&mut self, client: ClientId, said: Box<Outgoing>) {
        let Some(control) = &mut self.control else {
            return;
        };
        if control.has_lost {
            control.has_lost = control.commands.try_send(Command::DropAll).is_err();
        }
        match control.commands.try_send(Command::Tell(client, said)) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => control.has_lost = true,
            // It ended; the core hears of it.
            Err(TrySendError::Disconnected(_)) => {}
        }
        control.waker.wake();
    }

    /// Has the thread close the socket and end.
    pub(super) fn close_control(&mut self) {
        if let Some(Running {
            commands, waker, ..
        }) = self.control.take()
        {
            drop(commands);
            waker.wake();
        }
    }
}
