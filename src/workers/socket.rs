//! Thread `socket`: one connection attempt and the WebSocket it becomes. Sleeps in
//! `poll(2)` on the socket and a waker; nothing here has a polling timeout.

mod upgrade;

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::poll::PollFlags;
use tungstenite::protocol::frame::CloseFrame;
use tungstenite::protocol::frame::coding::CloseCode;
use tungstenite::protocol::{Message, WebSocket};

use crate::config::{Secret, Serializer};
use crate::core::effect::Attempt;
use crate::core::event::{ConnId, Event, SocketEvent};
use crate::system::channel::{Receiver, Sender, TryRecvError};
use crate::system::dial::Dialer;
use crate::system::interface;
use crate::system::stream::Stream;
use crate::system::waker::{Waker, Woken};
use crate::wire::frame_limit::FrameLimit;
use crate::wire::phoenix::{self, Encoded};
use crate::wire::{Inbound, Push, clip};

/// Frames above this are skipped.
const MAX_MESSAGE: usize = 1024 * 1024;
/// Messages waiting for the socket; more means that the socket is stuck. Room for the
/// answers to everything that may wait for the dispatcher.
pub const QUEUE: usize = 1024;
/// With so many waiting, nothing more is read that would have to be answered, too.
const BACKLOG: usize = 64;
/// Messages read before what waits to be sent has its turn.
const READS: usize = 64;
/// Bytes that may wait in the kernel before it takes no more.
const LOW_WATER: u32 = 16 * 1024;
/// Outgoing bytes may wait this long for the kernel to take them.
const WRITE_PATIENCE: Duration = Duration::from_secs(30);
/// A goodbye may take this long.
const CLOSE_PATIENCE: Duration = Duration::from_millis(500);

type Socket = WebSocket<FrameLimit<Stream>>;

/// To the socket thread. Dropping the sender closes the connection.
#[derive(Debug)]
pub enum Command {
    /// In a box, for the queue has room for many.
    Send(Box<Push>),
}

/// How to be recognised by the hub.
#[derive(Clone, Debug)]
pub enum Login {
    SharedSecret {
        key: String,
        secret: Secret,
        identifier: String,
    },
    /// Done by TLS.
    Certificate,
}

/// Everything a connection needs besides the attempt itself.
#[derive(Clone, Debug)]
pub struct Context {
    pub dialer: Arc<Dialer>,
    pub login: Login,
    pub serializer: Serializer,
}

/// Runs one attempt to its end.
///
/// # Errors
/// None; failures are [`SocketEvent`]s.
pub fn run(
    conn: ConnId,
    attempt: &Attempt,
    context: &Context,
    commands: &Receiver<Command>,
    waker: &Waker,
    inbox: &Sender<Event>,
) -> Result<(), String> {
    let tell = |event| {
        // The dispatcher is gone only when the process leaves.
        let _ = inbox.send(Event::Socket(conn, event));
    };
    match upgrade::open(attempt, context, waker) {
        Err(failure) => tell(SocketEvent::ConnectFailed(failure)),
        Ok(socket) => {
            if let Err(error) = socket.get_ref().get_ref().keep_little_unsent(LOW_WATER) {
                debug!("TCP_NOTSENT_LOWAT: {error}");
            }
            let local = socket.get_ref().get_ref().local_ip();
            tell(SocketEvent::Opened {
                local,
                interface: local.and_then(interface::holding),
            });
            let mut link = OpenSocket {
                socket,
                serializer: context.serializer,
                stuck_since: None,
                receipts: Vec::new(),
            };
            let reason = link.serve(commands, waker, &tell);
            tell(SocketEvent::Closed(reason));
        }
    }
    Ok(())
}

struct OpenSocket {
    socket: Socket,
    serializer: Serializer,
    stuck_since: Option<Instant>,
    /// Pushes whose senders wait to hear that the kernel takes more.
    receipts: Vec<u64>,
}

impl OpenSocket {
    /// Serves until the connection ends; returns why.
    fn serve(
        &mut self,
        commands: &Receiver<Command>,
        waker: &Waker,
        tell: &impl Fn(SocketEvent),
    ) -> String {
        loop {
            // Knocks first, then the queue: a command after this is another knock.
            waker.reset();
            let goodbye = match self.send_queued(commands) {
                Ok(goodbye) => goodbye,
                Err(reason) => return reason,
            };
            if goodbye {
                return self.say_goodbye(waker);
            }
            let is_all = match self.receive(commands, tell) {
                Ok(is_all) => is_all,
                Err(reason) => {
                    // The library has queued the answer to a close.
                    let _ = self.socket.flush();
                    return reason;
                }
            };
            if let Err(reason) = self.flush() {
                return reason;
            }
            if let Err(reason) = self.acknowledge(waker, tell) {
                return reason;
            }
            // What has not been read may be in the library's buffer, of which poll knows nothing.
            if (is_all || self.stuck_since.is_some())
                && let Err(reason) = self.sleep(is_all, waker)
            {
                return reason;
            }
        }
    }

    /// True when the dispatcher dropped its end. Stops while the kernel takes no more, so
    /// that waiting messages stay in the bounded queue.
    fn send_queued(&mut self, commands: &Receiver<Command>) -> Result<bool, String> {
        while self.stuck_since.is_none() {
            match commands.try_recv() {
                Ok(Command::Send(push)) => self.send(&push)?,
                Err(TryRecvError::Empty) => return Ok(false),
                Err(TryRecvError::Disconnected) => return Ok(true),
            }
        }
        Ok(false)
    }

    fn send(&mut self, push: &Push) -> Result<(), String> {
        let encoded = push
            .encode(self.serializer)
            .map_err(|error| format!("cannot encode: {error}"))?;
        if log::log_enabled!(log::Level::Trace) {
            log::trace!("to hub: {encoded:?}");
        }
        let message = match encoded {
            Encoded::Text(text) => Message::text(text),
            Encoded::Binary(bytes) => Message::binary(bytes),
        };
        if push.body.wants_receipt() {
            self.receipts.push(push.reference);
        }
        match self.socket.write(message) {
            Ok(()) => self.flush(),
            Err(tungstenite::Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                self.stuck_since.get_or_insert_with(Instant::now);
                Ok(())
            }
            Err(error) => Err(error.to_string()),
        }
    }

    fn flush(&mut self) -> Result<(), String> {
        match self.socket.flush() {
            Ok(()) => self.stuck_since = None,
            Err(tungstenite::Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                self.stuck_since.get_or_insert_with(Instant::now);
            }
            Err(error) => return Err(error.to_string()),
        }
        Ok(())
    }

    /// False when it stopped for what waits to be sent.
    fn receive(
        &mut self,
        commands: &Receiver<Command>,
        tell: &impl Fn(SocketEvent),
    ) -> Result<bool, String> {
        for _ in 0..READS {
            if commands.waiting() >= BACKLOG {
                break;
            }
            let message = self.socket.read();
            let skipped = self.socket.get_mut().take_skipped();
            if skipped > 0 {
                warn!("{skipped} message(s) above {MAX_MESSAGE} bytes from the hub skipped");
            }
            match message {
                Ok(message) => understand(message, tell)?,
                Err(tungstenite::Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Ok(true);
                }
                Err(error) => return Err(error.to_string()),
            }
        }
        Ok(false)
    }

    /// Tells senders that what they sent has left, as far as one can tell: the kernel has
    /// passed on all but the little that [`LOW_WATER`] allows. A flood therefore waits with
    /// its source, and what comes after it, a heartbeat above all, does not wait behind it.
    fn acknowledge(&mut self, waker: &Waker, tell: &impl Fn(SocketEvent)) -> Result<(), String> {
        if self.receipts.is_empty() || self.stuck_since.is_some() {
            return Ok(());
        }
        let stream = self.socket.get_ref().get_ref();
        let now = Some(Instant::now());
        match stream.wait(PollFlags::POLLOUT, now, waker) {
            Ok(Woken::Ready) => {
                for reference in self.receipts.drain(..) {
                    tell(SocketEvent::Sent(reference));
                }
                Ok(())
            }
            Ok(Woken::Knocked | Woken::DeadlinePassed) => Ok(()),
            Err(error) => Err(error.to_string()),
        }
    }

    fn sleep(&mut self, reads: bool, waker: &Waker) -> Result<(), String> {
        let mut events = PollFlags::empty();
        events.set(PollFlags::POLLIN, reads);
        let deadline = self.stuck_since.map(|since| since + WRITE_PATIENCE);
        if deadline.is_some() || !self.receipts.is_empty() {
            events |= PollFlags::POLLOUT;
        }
        match self
            .socket
            .get_ref()
            .get_ref()
            .wait(events, deadline, waker)
        {
            Ok(Woken::Ready | Woken::Knocked) => Ok(()),
            Ok(Woken::DeadlinePassed) => Err("the kernel took no data for too long".to_owned()),
            Err(error) => Err(error.to_string()),
        }
    }

    fn say_goodbye(&mut self, waker: &Waker) -> String {
        let deadline = Instant::now() + CLOSE_PATIENCE;
        let frame = CloseFrame {
            code: CloseCode::Normal,
            reason: "".into(),
        };
        let mut step = self
            .socket
            .close(Some(frame))
            .and_then(|()| self.socket.flush());
        loop {
            match step {
                // However much the hub has to say.
                Ok(()) if Instant::now() >= deadline => break,
                Ok(()) => step = self.socket.read().map(|_| ()),
                Err(tungstenite::Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                    let events = PollFlags::POLLIN;
                    match self
                        .socket
                        .get_ref()
                        .get_ref()
                        .wait(events, Some(deadline), waker)
                    {
                        Ok(Woken::Ready) => step = self.socket.read().map(|_| ()),
                        _ => break,
                    }
                }
                Err(_) => break,
            }
        }
        "closed by this device".to_owned()
    }
}

fn understand(message: Message, tell: &impl Fn(SocketEvent)) -> Result<(), String> {
    let frame = match &message {
        Message::Text(text) => phoenix::decode_json(text),
        Message::Binary(bytes) => phoenix::decode_msgpack(bytes),
        Message::Close(frame) => {
            return Err(match frame {
                Some(frame) => format!(
                    "the hub closed with {} {}",
                    u16::from(frame.code),
                    clip(&frame.reason)
                ),
                None => "the hub closed without a code".to_owned(),
            });
        }
        Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => return Ok(()),
    };
    match frame.and_then(Inbound::parse) {
        Ok(inbound) => {
            log::trace!("from hub: {inbound:?}");
            tell(SocketEvent::Received(inbound));
        }
        Err(error) => debug!("ignored: {error}"),
    }
    Ok(())
}
