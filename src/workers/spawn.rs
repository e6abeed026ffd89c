//! The only way to start a worker: named, owned, joined, and its end is an event.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;

use crate::core::event::{Event, Worker};

/// Virtual size only; pages are used as the stack grows.
const STACK: usize = 512 * 1024;

/// The running workers.
pub struct Crew {
    inbox: Sender<Event>,
    running: Vec<(Worker, JoinHandle<()>)>,
}

impl Crew {
    pub fn new(inbox: Sender<Event>) -> Self {
        Self {
            inbox,
            running: Vec::new(),
        }
    }

    pub fn inbox(&self) -> Sender<Event> {
        self.inbox.clone()
    }

    /// Starts `work` on a thread called `name` (≤ 15 bytes, as `ps -T` shows). Its return,
    /// error or panic arrives as [`Event::WorkerExited`].
    ///
    /// # Errors
    /// The system has no thread left.
    pub fn spawn(
        &mut self,
        name: &'static str,
        worker: Worker,
        work: impl FnOnce() -> Result<(), String> + Send + 'static,
    ) -> std::io::Result<()> {
        debug_assert!(name.len() <= 15, "{name}");
        let inbox = self.inbox.clone();
        let handle = Builder::new()
            .name(name.to_owned())
            .stack_size(STACK)
            .spawn(move || {
                let result = catch_unwind(AssertUnwindSafe(work))
                    .unwrap_or_else(|panic| Err(panic_text(&*panic)));
                // The dispatcher is gone only when the process leaves.
                let _ = inbox.send(Event::WorkerExited(worker, result));
            })?;
        self.running.push((worker, handle));
        Ok(())
    }

    /// Takes back a worker that said its goodbye.
    pub fn join(&mut self, worker: Worker) {
        if let Some(index) = self.running.iter().position(|(other, _)| *other == worker) {
            let (_, handle) = self.running.swap_remove(index);
            // Its panic, if any, has become the event's error already.
            let _ = handle.join();
        }
    }

    /// Waits for those already told to stop; says who did not make it.
    pub fn join_all(&mut self, inbox: &crossbeam_channel::Receiver<Event>, limit: Duration) {
        let deadline = Instant::now() + limit;
        while self.running.iter().any(|(worker, _)| must_end(*worker)) {
            match inbox.recv_deadline(deadline) {
                Ok(Event::WorkerExited(worker, _)) => self.join(worker),
                Ok(_) => {}
                Err(_) => break,
            }
        }
        for (worker, _) in self.running.iter().filter(|(worker, _)| must_end(*worker)) {
            log::warn!("left behind: {worker:?}");
        }
    }
}

/// Workers that hold something outside the process worth ending well.
fn must_end(worker: Worker) -> bool {
    match worker {
        Worker::Socket(_) | Worker::Fwup(_) => true,
        Worker::Download(_) | Worker::Heartbeat | Worker::Signals | Worker::OneShot(_) => false,
    }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("panicked: {}", text.unwrap_or("no message"))
}
