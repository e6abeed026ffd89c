//! Thread `socket`: one connection attempt and the WebSocket it becomes. Sleeps in
//! `poll(2)` on the socket and a waker; nothing here has a polling timeout.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, TryRecvError};
use nix::poll::PollFlags;
use tungstenite::handshake::client::{ClientHandshake, Request, Response, generate_key};
use tungstenite::handshake::{HandshakeError, MidHandshake};
use tungstenite::protocol::frame::CloseFrame;
use tungstenite::protocol::frame::coding::CloseCode;
use tungstenite::protocol::{Message, WebSocket, WebSocketConfig};

use crate::auth::shared_secret;
use crate::config::{Secret, Serializer};
use crate::core::effect::Attempt;
use crate::core::event::{ConnId, ConnectFailure, Event, SocketEvent};
use crate::system::dial::Dialer;
use crate::system::stream::Stream;
use crate::system::waker::{Waker, Woken};
use crate::system::{interface, time};
use crate::wire::frame_limit::FrameLimit;
use crate::wire::phoenix::{self, Encoded};
use crate::wire::{Inbound, Push};

/// Frames above this are skipped.
const MAX_MESSAGE: usize = 1024 * 1024;
/// Messages waiting for the socket; more means that the socket is stuck.
pub const QUEUE: usize = 256;
/// Outgoing bytes may wait this long for the kernel to take them.
const WRITE_PATIENCE: Duration = Duration::from_secs(30);
/// A goodbye may take this long.
const CLOSE_PATIENCE: Duration = Duration::from_millis(500);
/// TCP's deadline while the network has not been seen (PROTOCOL §1).
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);

type Socket = WebSocket<FrameLimit<Stream>>;

/// To the socket thread. Dropping the sender closes the connection.
#[derive(Debug)]
pub enum Command {
    Send(Push),
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
    match open(attempt, context, waker) {
        Err(failure) => tell(SocketEvent::ConnectFailed(failure)),
        Ok(socket) => {
            let local = socket.get_ref().get_ref().local_ip();
            tell(SocketEvent::Opened {
                local,
                interface: local.and_then(interface::holding),
            });
            let mut link = OpenSocket {
                socket,
                serializer: context.serializer,
                stuck_since: None,
            };
            let reason = link.serve(commands, waker, &tell);
            tell(SocketEvent::Closed(reason));
        }
    }
    Ok(())
}

fn open(attempt: &Attempt, context: &Context, waker: &Waker) -> Result<Socket, ConnectFailure> {
    let endpoint = &attempt.endpoint;
    let limit = attempt.probing.then_some(PROBE_TIMEOUT);
    let dialed = context
        .dialer
        .dial(&endpoint.host, endpoint.port, endpoint.secure, limit, waker);
    let stream = dialed.map_err(|error| match error.network {
        true => ConnectFailure::Network(error.text),
        false => ConnectFailure::Protocol(error.text),
    })?;
    let request = upgrade_request(attempt, &context.login).map_err(ConnectFailure::Protocol)?;
    let deadline = Instant::now() + context.dialer.timeouts.upgrade;
    upgrade(stream, request, deadline, waker)
}

fn upgrade_request(attempt: &Attempt, login: &Login) -> Result<Request, String> {
    let endpoint = &attempt.endpoint;
    let scheme = if endpoint.secure { "wss" } else { "ws" };
    let authority = endpoint.authority();
    let mut headers = vec![
        ("Host", authority.clone()),
        ("Connection", "Upgrade".to_owned()),
        ("Upgrade", "websocket".to_owned()),
        ("Sec-WebSocket-Version", "13".to_owned()),
        ("Sec-WebSocket-Key", generate_key()),
        ("User-Agent", crate::USER_AGENT.to_owned()),
    ];
    if let (
        true,
        Login::SharedSecret {
            key,
            secret,
            identifier,
        },
    ) = (attempt.send_credentials, login)
    {
        let seconds = attempt.signing_time.unwrap_or_else(time::unix_now);
        let signed = shared_secret::sign(key, secret, identifier, seconds);
        headers.push(("x-nh-alg", signed.algorithm.to_owned()));
        headers.push(("x-nh-key", signed.key));
        headers.push(("x-nh-time", signed.time));
        headers.push(("x-nh-signature", signed.signature.expose().to_owned()));
    }
    let url = format!("{scheme}://{authority}{}", endpoint.path);
    let mut request = Request::builder().uri(url);
    for (name, value) in headers {
        request = request.header(name, value);
    }
    request
        .body(())
        .map_err(|error| format!("upgrade request: {error}"))
}

fn upgrade(
    stream: Stream,
    request: Request,
    deadline: Instant,
    waker: &Waker,
) -> Result<Socket, ConnectFailure> {
    let config = WebSocketConfig::default()
        .read_buffer_size(8 * 1024)
        .write_buffer_size(0)
        .max_write_buffer_size(2 * MAX_MESSAGE)
        .max_message_size(Some(MAX_MESSAGE))
        .max_frame_size(Some(MAX_MESSAGE));
    let protocol = |text: String| ConnectFailure::Protocol(format!("WebSocket upgrade: {text}"));
    let limited = FrameLimit::new(stream, MAX_MESSAGE as u64);
    let mut step = ClientHandshake::start(limited, request, Some(config))
        .map_err(|error| protocol(error.to_string()))?
        .handshake();
    loop {
        match step {
            Ok((socket, _)) => return Ok(socket),
            Err(HandshakeError::Interrupted(waiting)) => {
                let woken = wait_for_answer(&waiting, deadline, waker);
                step = match woken {
                    Ok(Woken::Ready) => waiting.handshake(),
                    Ok(Woken::Knocked) => return Err(protocol("given up".to_owned())),
                    Ok(Woken::DeadlinePassed) => {
                        return Err(protocol("no answer in time".to_owned()));
                    }
                    Err(error) => return Err(protocol(error.to_string())),
                };
            }
            Err(HandshakeError::Failure(tungstenite::Error::Http(response))) => {
                return Err(refusal(&response));
            }
            Err(HandshakeError::Failure(error)) => return Err(protocol(error.to_string())),
        }
    }
}

fn wait_for_answer(
    waiting: &MidHandshake<ClientHandshake<FrameLimit<Stream>>>,
    deadline: Instant,
    waker: &Waker,
) -> io::Result<Woken> {
    waiting
        .get_ref()
        .get_ref()
        .get_ref()
        .wait(PollFlags::POLLIN, Some(deadline), waker)
}

fn refusal(response: &Response) -> ConnectFailure {
    let header = |name: &str| {
        response
            .headers()
            .get(name)
            .and_then(|value| value.to_str().ok())
            .map(str::to_owned)
    };
    let status = response.status().as_u16();
    if let (300..=399, Some(location)) = (status, header("location")) {
        return ConnectFailure::Redirected(location);
    }
    let body = response.body().as_deref().map(String::from_utf8_lossy);
    let body = body.map(|text| {
        text.lines()
            .next()
            .unwrap_or_default()
            .chars()
            .take(200)
            .collect::<String>()
    });
    ConnectFailure::Refused {
        status,
        reason: header("nh-connection-error-reason")
            .or(body)
            .filter(|text| !text.trim().is_empty()),
        date: header("date").and_then(|text| parse_date(&text)),
    }
}

fn parse_date(text: &str) -> Option<u64> {
    let date = httpdate::parse_http_date(text).ok()?;
    date.duration_since(std::time::UNIX_EPOCH)
        .ok()
        .map(|since| since.as_secs())
}

struct OpenSocket {
    socket: Socket,
    serializer: Serializer,
    stuck_since: Option<Instant>,
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
            if let Err(reason) = self.receive(tell) {
                // The library has queued the answer to a close.
                let _ = self.socket.flush();
                return reason;
            }
            if let Err(reason) = self.flush() {
                return reason;
            }
            if let Err(reason) = self.sleep(waker) {
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

    fn receive(&mut self, tell: &impl Fn(SocketEvent)) -> Result<(), String> {
        loop {
            let message = self.socket.read();
            let skipped = self.socket.get_mut().take_skipped();
            if skipped > 0 {
                log::warn!("{skipped} message(s) above {MAX_MESSAGE} bytes from the hub skipped");
            }
            match message {
                Ok(message) => understand(message, tell)?,
                Err(tungstenite::Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Ok(());
                }
                Err(error) => return Err(error.to_string()),
            }
        }
    }

    fn sleep(&mut self, waker: &Waker) -> Result<(), String> {
        let mut events = PollFlags::POLLIN;
        let deadline = self.stuck_since.map(|since| since + WRITE_PATIENCE);
        if deadline.is_some() {
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
                    frame.reason
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
        Err(error) => log::debug!("ignored: {error}"),
    }
    Ok(())
}
