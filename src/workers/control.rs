//! Thread `control`: the control socket and its clients. Sleeps in `poll(2)` on all of them
//! and a waker; wakes only for them, and for those that owe it something.
//!
//! Owns lines and their bounds: a client's nonsense is answered here, what makes sense is an
//! event for the core. Nobody is ever waited for: a client that does not read is dropped.

mod client;
mod door;
#[cfg(test)]
mod tests;

use std::io;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::socket::{getsockopt, sockopt};

use crate::config::ControlSettings;
use crate::core::event::{ClientId, ControlEvent, Event};
use crate::system::channel::{Receiver, Sender, TryRecvError};
use crate::system::waker::{Waker, timeout_until};
use crate::wire::control::{self, Code, Outgoing};
use client::{Client, Said};
use door::Door;

/// Connections at the same time.
const MAX_CLIENTS: usize = 16;
/// Messages on their way from the dispatcher.
pub const QUEUE: usize = 256;
/// Strangers let in before clients have their turn.
const ACCEPT_AT_ONCE: usize = 16;
/// Wait when the system has no descriptor left for another client.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);

/// To the control thread. Dropping the sender closes the socket.
#[derive(Debug)]
pub enum Command {
    Tell(ClientId, Box<Outgoing>),
    /// Something could not be said: all start over.
    DropAll,
}

/// Serves until the dispatcher drops its end.
///
/// # Errors
/// `poll(2)` failed. A socket that cannot be had is an error in the log: updates matter more.
pub fn run(
    settings: &ControlSettings,
    identifier: &str,
    commands: &Receiver<Command>,
    waker: &Waker,
    inbox: &Sender<Event>,
) -> Result<(), String> {
    let door = match Door::open(settings) {
        Ok(door) => door,
        Err(reason) => {
            error!(
                "control socket {}: {reason}; going on without it (see NERVES_HUB_CONTROL_SOCKET)",
                settings.path.display()
            );
            return Ok(());
        }
    };
    info!("control socket {} is open", settings.path.display());
    let mut server = Server {
        door,
        hello: control::hello(crate::USER_AGENT, identifier),
        clients: Vec::new(),
        last_client: 0,
        accept_after: None,
        inbox,
    };
    server.serve(commands, waker)
}

struct Server<'a> {
    door: Door,
    hello: String,
    clients: Vec<Client>,
    last_client: u64,
    accept_after: Option<Instant>,
    inbox: &'a Sender<Event>,
}

impl Server<'_> {
    fn serve(&mut self, commands: &Receiver<Command>, waker: &Waker) -> Result<(), String> {
        loop {
            // Knocks first, then the queue: a command after this is another knock.
            waker.reset();
            if !self.obey(commands) {
                return Ok(());
            }
            self.take_turns();
            self.sleep(waker)
                .map_err(|error| format!("poll: {error}"))?;
        }
    }

    /// False when the dispatcher dropped its end.
    fn obey(&mut self, commands: &Receiver<Command>) -> bool {
        loop {
            match commands.try_recv() {
                Ok(Command::Tell(id, said)) => {
                    if let Some(client) = self.clients.iter_mut().find(|client| client.id == id) {
                        client.tell(&said);
                    }
                }
                Ok(Command::DropAll) => {
                    warn!("control socket: more to say than can be said; all are dropped");
                    self.clients.iter_mut().for_each(Client::give_up);
                }
                Err(TryRecvError::Empty) => return true,
                Err(TryRecvError::Disconnected) => return false,
            }
        }
    }

    /// Passes on what clients have said, sends what they are to hear, and lets go of those
    /// that are done.
    fn take_turns(&mut self) {
        let now = Instant::now();
        for client in &mut self.clients {
            while let Some(said) = client.next() {
                let event = match said {
                    Said::Event(event) => event,
                    Said::Nonsense(answer) => {
                        client.send(&answer.line());
                        continue;
                    }
                };
                // The dispatcher is gone only when the process leaves.
                let _ = self.inbox.send(Event::Control(client.id, event));
            }
            client.flush(now);
        }
        let inbox = self.inbox;
        self.clients.retain(|client| {
            let stays = client.stays(now);
            if !stays {
                debug!("control client {} left", client.id.0);
                if client.is_known {
                    let _ = inbox.send(Event::Control(client.id, ControlEvent::Left));
                }
            }
            stays
        });
    }

    fn sleep(&mut self, waker: &Waker) -> io::Result<()> {
        let now = Instant::now();
        self.accept_after = self.accept_after.filter(|at| *at > now);
        let listens = self.accept_after.is_none();
        let deadlines = self.clients.iter().filter_map(Client::deadline);
        let deadline = deadlines.chain(self.accept_after).min();
        let mut fds = vec![PollFd::new(waker.as_fd(), PollFlags::POLLIN)];
        fds.extend(
            self.clients
                .iter()
                .map(|client| PollFd::new(client.stream.as_fd(), client.interest())),
        );
        if listens {
            fds.push(PollFd::new(self.door.as_fd(), PollFlags::POLLIN));
        }
        match poll(&mut fds, timeout_until(deadline)) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        let ready: Vec<PollFlags> = fds
            .iter()
            .map(|fd| fd.revents().unwrap_or(PollFlags::empty()))
            .collect();
        drop(fds);
        for (client, ready) in self.clients.iter_mut().zip(&ready[1..]) {
            client.on_ready(*ready);
        }
        if listens && ready.last().is_some_and(|ready| !ready.is_empty()) {
            self.accept();
        }
        Ok(())
    }

    fn accept(&mut self) {
        for _ in 0..ACCEPT_AT_ONCE {
            match self.door.accept() {
                Ok(stream) => self.admit(stream),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    debug!("control socket: {error}");
                    self.accept_after = Some(Instant::now() + ACCEPT_PAUSE);
                    return;
                }
            }
        }
    }

    fn admit(&mut self, stream: std::os::unix::net::UnixStream) {
        let peer = getsockopt(&stream, sockopt::PeerCredentials).ok();
        let (uid, pid) = peer.map_or((u32::MAX, 0), |peer| (peer.uid(), peer.pid()));
        if self.clients.len() >= MAX_CLIENTS {
            debug!("control client of uid {uid}, pid {pid} refused: {MAX_CLIENTS} are here");
            let text = format!("{MAX_CLIENTS} clients are connected already");
            let answer = Outgoing::nonsense(Code::Busy, text).line();
            // Whether it is read is not our business.
            let _ = io::Write::write(&mut &stream, answer.as_bytes());
            return;
        }
        self.last_client += 1;
        let id = ClientId(self.last_client);
        debug!("control client {}: uid {uid}, pid {pid}", id.0);
        let mut client = Client::new(id, stream, Instant::now());
        client.send(&self.hello);
        self.clients.push(client);
    }
}
