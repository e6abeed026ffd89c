//! The only way to start a worker: named, owned, and its end is an event, even a panic.

use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::core::event::{Event, Worker};
use crate::system::channel::{Receiver, Sender};
use crate::system::thread;

type Work = Box<dyn FnOnce() -> Result<(), String> + Send>;

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
        self.start(name, worker, Box::new(work))
    }

    /// Boxed, so that it is compiled once and not for every worker.
    fn start(&mut self, name: &'static str, worker: Worker, work: Work) -> std::io::Result<()> {
        let (inbox, mourner) = (self.inbox.clone(), self.inbox.clone());
        let last_words = move |panic| {
            // The dispatcher is gone only when the process leaves.
            let _ = mourner.send(Event::WorkerExited(worker, Err(panic)));
        };
        let handle = thread::spawn(name, last_words, move || {
            let result = work();
            let _ = inbox.send(Event::WorkerExited(worker, result));
        })?;
        self.running.push((worker, handle));
        Ok(())
    }

    /// Takes back a worker that said its goodbye. One that failed may never end.
    pub fn release(&mut self, worker: Worker, result: &Result<(), String>) {
        if let Some(index) = self.running.iter().position(|(other, _)| *other == worker) {
            let (_, handle) = self.running.swap_remove(index);
            if result.is_ok() {
                let _ = handle.join();
            }
        }
    }

    /// Nobody waits for it any more. Its end is an event all the same.
    pub fn abandon(&mut self, worker: Worker) {
        self.running.retain(|(other, _)| *other != worker);
    }

    /// Waits for those already told to stop; says who did not make it.
    pub fn join_all(&mut self, inbox: &Receiver<Event>, limit: Duration) {
        let deadline = Instant::now() + limit;
        while self.running.iter().any(|(worker, _)| must_end(*worker)) {
            match inbox.recv_deadline(deadline) {
                Ok(Event::WorkerExited(worker, result)) => self.release(worker, &result),
                Ok(_) => {}
                Err(_) => break,
            }
        }
        for (worker, _) in self.running.iter().filter(|(worker, _)| must_end(*worker)) {
            warn!("left behind: {worker:?}");
        }
    }
}

/// Workers that hold something outside the process worth ending well.
fn must_end(worker: Worker) -> bool {
    match worker {
        Worker::Socket(_)
        | Worker::Installer(_)
        | Worker::Archive(_)
        | Worker::Shell(_)
        | Worker::Script(_)
        | Worker::Uploads(_)
        | Worker::Identify
        | Worker::Control
        | Worker::Extension(_)
        | Worker::Hook(_) => true,
        Worker::SendFile(_)
        | Worker::Download(_)
        | Worker::Heartbeat
        | Worker::Signals
        | Worker::AlarmFiles
        | Worker::Errand(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::event::Errand;
    use crate::system::channel;

    /// The hook stays with the process, so the real test runs in one of its own.
    #[test]
    fn a_panic_is_an_event_and_the_thread_stays_parked() {
        let name = "workers::spawn::tests::in_a_process_of_its_own";
        let status = std::process::Command::new(std::env::current_exe().expect("test binary"))
            .args(["--exact", name, "--ignored", "--nocapture"])
            .stdout(std::process::Stdio::null())
            .status()
            .expect("test binary");
        assert_eq!(status.code(), Some(42));
    }

    #[test]
    #[ignore = "run by a_panic_is_an_event_and_the_thread_stays_parked"]
    fn in_a_process_of_its_own() {
        thread::contain_panics();
        let (sender, inbox) = channel::bounded(4);
        let mut crew = Crew::new(sender);
        let worker = Worker::Errand(Errand::Interface);
        crew.spawn("test", worker, || panic!("on purpose {}", 7))
            .expect("thread");
        let event = inbox.recv_timeout(Duration::from_secs(10));
        let Ok(Event::WorkerExited(gone, result)) = event else {
            std::process::exit(1);
        };
        let told = result
            .as_ref()
            .is_err_and(|text| text.contains("on purpose 7"));
        crew.release(gone, &result);
        let fine = gone == worker && told && crew.running.is_empty();
        std::process::exit(if fine { 42 } else { 2 });
    }
}
