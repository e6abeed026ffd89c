//! From an endpoint to an open WebSocket, or the reason why not (PROTOCOL §1).

use std::io;
use std::time::{Duration, Instant};

use nix::poll::PollFlags;
use tungstenite::handshake::client::{ClientHandshake, Request, Response, generate_key};
use tungstenite::handshake::{HandshakeError, MidHandshake};
use tungstenite::protocol::WebSocketConfig;

use super::{Context, Login, MAX_MESSAGE, Socket};
use crate::auth::shared_secret;
use crate::core::effect::Attempt;
use crate::core::event::ConnectFailure;
use crate::system::stream::Stream;
use crate::system::time;
use crate::system::waker::{Waker, Woken};
use crate::wire::clip;
use crate::wire::frame_limit::FrameLimit;

/// TCP's deadline while the network has not been seen.
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);

/// Connects and upgrades.
///
/// # Errors
/// The step that failed, or the hub's refusal.
pub(super) fn open(
    attempt: &Attempt,
    context: &Context,
    waker: &Waker,
) -> Result<Socket, ConnectFailure> {
    let endpoint = &attempt.endpoint;
    let limit = attempt.probing.then_some(PROBE_TIMEOUT);
    let dialed = context.dialer.dial(
        &endpoint.host,
        endpoint.port,
        endpoint.secure,
        limit,
        None,
        waker,
    );
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
    let body = body.map(|text| clip(text.lines().next().unwrap_or_default()));
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
