//! One device connection after the upgrade: a thread that owns the WebSocket, feeds frames to
//! the session, and carries out what tests command.

use crate::frame::{Frame, Vsn};
use crate::net::{self, Stream};
use crate::session::Session;
use crate::state::{Link, Shared, State, Upgrade};
use crate::transcript::Dir;
use crate::wake::{self, Sleeper, Woken};
use crossbeam_channel::{Receiver, Sender, unbounded};
use nix::poll::PollFlags;
use serde_json::Value;
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tungstenite::protocol::frame::coding::CloseCode;
use tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tungstenite::{Error, Message, WebSocket};

/// How long a peer may take to answer a close frame.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// What a test, or another connection, wants of this one.
#[derive(Debug)]
pub enum Command {
    /// To the topic, without refs.
    Broadcast(String, String, Value),
    /// To the topic, with its join_ref.
    Push(String, String, Value),
    /// An `update` payload: sent, or held until the firmware is validated.
    Offer(Value),
    /// An exact frame.
    Frame(Frame),
    /// An exact message.
    Raw(Message),
    Crash(String),
    Close(u16, String),
    /// End without a close frame: with a reset, or with a FIN.
    Drop {
        reset: bool,
    },
    /// Acknowledged once nothing is read or written any more.
    Freeze(Sender<()>),
    Unfreeze,
}

struct Connection<'a> {
    shared: &'a Arc<Shared>,
    id: u64,
    identifier: String,
    vsn: Vsn,
    socket: WebSocket<Stream>,
    session: Session,
    commands: Receiver<Command>,
    frozen: bool,
    closing: Option<Instant>,
    last_heard: Instant,
    /// Output waits for the socket to take more.
    blocked: bool,
}

/// The connection is over; the text goes to the transcript.
struct End(String);

type Step = Result<(), End>;

/// Runs the connection to its end.
pub fn run(shared: &Arc<Shared>, stream: Stream, rest: Vec<u8>, upgrade: Upgrade, vsn: Vsn) {
    let identifier = upgrade.identifier.clone().unwrap_or_default();
    let (Ok((waker, sleeper)), Ok(())) = (wake::pair(), stream.tcp().set_nonblocking(true)) else {
        return shared.note(upgrade.id, "no file descriptors left");
    };
    let (commands, inbox) = unbounded();
    let link = Link {
        identifier: identifier.clone(),
        commands,
        waker,
        topics: vec![],
    };
    shared.note(
        upgrade.id,
        format!("{identifier} connected at {}", upgrade.path),
    );
    let admitted = shared.change(|state| enter(state, upgrade.id, link));
    let config = WebSocketConfig::default()
        .max_message_size(None)
        .max_frame_size(None);
    let mut connection = Connection {
        shared,
        id: upgrade.id,
        identifier,
        vsn,
        socket: WebSocket::from_partially_read(stream, rest, Role::Server, Some(config)),
        session: Session::default(),
        commands: inbox,
        frozen: false,
        closing: None,
        last_heard: Instant::now(),
        blocked: false,
    };
    if admitted {
        let Err(End(why)) = connection.serve(&sleeper);
        shared.note(connection.id, format!("{} {why}", connection.identifier));
    }
    connection.forget();
}

/// Makes the link known; `false` when the hub is stopping.
fn enter(state: &mut State, id: u64, link: Link) -> bool {
    // The same identity again: the older connection has to go.
    for old in state
        .links
        .values()
        .filter(|old| old.identifier == link.identifier)
    {
        old.command(Command::Close(1001, String::new()));
    }
    state.book(&link.identifier).conn = Some(id);
    state.links.insert(id, link);
    !state.stopping
}

impl Connection<'_> {
    fn serve(&mut self, sleeper: &Sleeper) -> Result<std::convert::Infallible, End> {
        loop {
            while let Ok(command) = self.commands.try_recv() {
                self.on_command(command)?;
            }
            if !self.frozen {
                self.read_all()?;
                self.flush()?;
            }
            self.sleep(sleeper)?;
        }
    }

    fn sleep(&mut self, sleeper: &Sleeper) -> Step {
        let idle = self.shared.lock().behaviour.idle_timeout;
        let (since, limit) = match self.closing {
            Some(since) => (since, CLOSE_TIMEOUT),
            None => (self.last_heard, idle),
        };
        let mut events = PollFlags::POLLIN;
        events.set(PollFlags::POLLOUT, self.blocked);
        let tcp = self.socket.get_ref().tcp();
        let fd = (!self.frozen).then(|| (tcp.as_fd(), events));
        let left = (!self.frozen).then(|| limit.saturating_sub(since.elapsed()));
        match sleeper.sleep(fd, left).map_err(ended)? {
            Woken::Timeout if self.closing.is_some() => Err(End("never answered the close".into())),
            Woken::Timeout if self.last_heard.elapsed() >= idle => self.close(1002, ""),
            _ => Ok(()),
        }
    }

    fn read_all(&mut self) -> Step {
        loop {
            match self.socket.read() {
                Ok(message) => self.on_message(message)?,
                Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(Error::Io(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(Error::ConnectionClosed) => {
                    self.socket.get_mut().notify_close();
                    return Err(End("closed".into()));
                }
                Err(error) => return Err(End(format!("gone: {error}"))),
            }
        }
    }

    fn on_message(&mut self, message: Message) -> Step {
        self.last_heard = Instant::now();
        match message {
            Message::Close(frame) => {
                let code = frame.map_or(1005, |frame| u16::from(frame.code));
                let who = if self.closing.is_some() {
                    "answered the close"
                } else {
                    "closes"
                };
                self.note(format!("device {who}: {code}"));
                self.closing.get_or_insert_with(Instant::now);
                Ok(())
            }
            Message::Text(_) | Message::Binary(_) => match Frame::decode(&message, self.vsn) {
                Ok(frame) => self.on_frame(frame),
                Err(why) => {
                    self.note(format!("undecodable message, socket crashed: {why}"));
                    self.close(1011, "")
                }
            },
            _ => Ok(()),
        }
    }

    fn on_frame(&mut self, frame: Frame) -> Step {
        self.shared
            .record(self.id, Dir::Device, Some(frame.clone()), String::new());
        let outcome = self.shared.change(|state| {
            let behaviour = state.behaviour.clone();
            self.session
                .on_frame(&frame, state.book(&self.identifier), &behaviour)
        });
        self.publish_topics();
        outcome.notes.into_iter().for_each(|note| self.note(note));
        outcome
            .frames
            .into_iter()
            .try_for_each(|frame| self.send(frame))
    }

    fn on_command(&mut self, command: Command) -> Step {
        match command {
            Command::Broadcast(topic, event, payload) => {
                self.send(Frame::broadcast(&topic, &event, payload))
            }
            Command::Push(topic, event, payload) => {
                let join_ref = self.session.join_ref(&topic).map(str::to_owned);
                let frame = Frame {
                    join_ref,
                    ..Frame::broadcast(&topic, &event, payload)
                };
                self.send(frame)
            }
            Command::Offer(update) => self.offer(update),
            Command::Frame(frame) => self.send(frame),
            Command::Raw(message) => {
                self.note(format!("raw message of {} bytes sent", message.len()));
                self.write(message)
            }
            Command::Crash(topic) => {
                let frame = self.session.crash(&topic);
                self.publish_topics();
                frame.map_or(Ok(()), |frame| self.send(frame))
            }
            Command::Close(code, reason) => self.close(code, &reason),
            Command::Drop { reset } => self.drop_tcp(reset),
            Command::Freeze(done) => {
                self.freeze(true);
                let _ = done.send(());
                Ok(())
            }
            Command::Unfreeze => {
                self.freeze(false);
                Ok(())
            }
        }
    }

    fn offer(&mut self, update: Value) -> Step {
        let frames = self
            .shared
            .change(|state| crate::session::offer(state.book(&self.identifier), update));
        frames.into_iter().try_for_each(|frame| self.send(frame))
    }

    fn drop_tcp(&mut self, reset: bool) -> Step {
        if reset {
            net::reset_on_close(self.socket.get_ref().tcp());
        }
        Err(End("dropped by the hub without a close frame".into()))
    }

    fn freeze(&mut self, frozen: bool) {
        self.frozen = frozen;
        self.last_heard = Instant::now();
        self.note(if frozen { "frozen" } else { "thawed" });
    }

    fn close(&mut self, code: u16, reason: &str) -> Step {
        if self.closing.is_some() {
            return Ok(());
        }
        if self.frozen {
            return Err(End("ended while frozen".into()));
        }
        self.note(format!("hub closes: {code}"));
        self.closing = Some(Instant::now());
        let frame = CloseFrame {
            code: CloseCode::from(code),
            reason: reason.into(),
        };
        self.accept(|socket| socket.close(Some(frame)))
    }

    fn send(&mut self, frame: Frame) -> Step {
        if self.closing.is_some() {
            return Ok(());
        }
        let message = frame.encode(self.vsn);
        self.shared
            .record(self.id, Dir::Server, Some(frame), String::new());
        self.write(message)
    }

    fn write(&mut self, message: Message) -> Step {
        self.accept(|socket| socket.write(message))
    }

    fn flush(&mut self) -> Step {
        self.blocked = false;
        self.accept(WebSocket::flush)
    }

    /// Output the socket does not take yet stays queued.
    fn accept(&mut self, action: impl FnOnce(&mut WebSocket<Stream>) -> Result<(), Error>) -> Step {
        match action(&mut self.socket) {
            Ok(()) => Ok(()),
            Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                self.blocked = true;
                Ok(())
            }
            Err(Error::ConnectionClosed | Error::Protocol(_)) => Ok(()),
            Err(error) => Err(End(format!("gone: {error}"))),
        }
    }

    fn publish_topics(&self) {
        let topics = self.session.topics();
        self.shared.change(|state| {
            if let Some(link) = state.links.get_mut(&self.id) {
                link.topics = topics;
            }
        });
    }

    fn note(&self, text: impl Into<String>) {
        self.shared.note(self.id, text);
    }

    fn forget(self) {
        let Connection {
            shared,
            id,
            identifier,
            socket,
            ..
        } = self;
        drop(socket);
        shared.change(|state| {
            state.links.remove(&id);
            let book = state.book(&identifier);
            if book.conn == Some(id) {
                book.conn = None;
            }
        });
    }
}

fn ended(error: io::Error) -> End {
    End(format!("gone: {error}"))
}
