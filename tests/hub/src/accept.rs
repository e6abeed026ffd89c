//! From an accepted TCP connection to a device link, or to a refusal: gate, TLS, upgrade
//! request, credentials.

use crate::auth;
use crate::conn;
use crate::frame::Vsn;
use crate::gate::{DateHeader, Gate, Refusal};
use crate::http::{self, Request};
use crate::net::{self, Stream};
use crate::state::{Shared, State, Upgrade};
use crate::tls;
use rustls::ServerConfig;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;
use tungstenite::handshake::derive_accept_key;

const SHARED_SECRET_PATH: &str = "/device-socket/websocket";
const CERTIFICATE_PATH: &str = "/socket/websocket";
/// A client that stops in the middle of a handshake is dropped after this.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(30);

/// Serves one connection to its end; runs in a thread of its own.
pub fn serve(shared: &Arc<Shared>, config: Option<Arc<ServerConfig>>, tcp: TcpStream) {
    let key = shared.change(|state| {
        state.tcp_connections += 1;
        let key = state.tcp_connections;
        if let Ok(copy) = tcp.try_clone() {
            state.pending.insert(key, copy);
        }
        key
    });
    let result = handshake(shared, config, tcp);
    shared.change(|state| state.pending.remove(&key));
    match result {
        Ok(Some((stream, rest, upgrade, vsn))) => conn::run(shared, stream, rest, upgrade, vsn),
        Ok(None) => {}
        Err(error) => shared.note(0, format!("connection {key} ended early: {error}")),
    }
}

type Admitted = (Stream, Vec<u8>, Upgrade, Vsn);

fn handshake(
    shared: &Arc<Shared>,
    config: Option<Arc<ServerConfig>>,
    tcp: TcpStream,
) -> io::Result<Option<Admitted>> {
    tcp.set_read_timeout(Some(HANDSHAKE_TIMEOUT))?;
    // A client that only probes the port and closes must not use up a gate.
    if !has_spoken(&tcp)? || !passes_early_gate(shared, &tcp) {
        return Ok(None);
    }
    let mut stream = Stream::accept(tcp, config)?;
    let Some((request, rest)) = http::read_request(&mut stream)? else {
        return Ok(None);
    };
    let upgrade = register(shared, &stream, &request);
    let verdict = match shared.change(|state| take_gate(state, &upgrade)) {
        Gate::Accept => admit(shared, &upgrade, &request),
        Gate::AcceptAs(identifier) => vsn_of(&request).map(|vsn| (identifier, vsn)),
        Gate::Refuse(refusal) => Err(refusal),
        Gate::Redirect { status, location } => {
            Err(Refusal::status(status).header("location", &location))
        }
        Gate::CloseUpgrade => return Ok(None),
        Gate::Garbage(bytes) => return stream.write_all(&bytes).map(|()| None),
        Gate::HangUpgrade | Gate::HangTcp | Gate::HangTls | Gate::Reset => {
            shared.note(upgrade.id, "upgrade left hanging");
            hang(shared, None);
            return Ok(None);
        }
    };
    match verdict {
        Ok((identifier, vsn)) => accept(shared, stream, rest, upgrade, identifier, vsn).map(Some),
        Err(refusal) => refuse(shared, stream, &upgrade, &refusal).map(|()| None),
    }
}

/// Waits for the first byte; `false` when the client closes without one.
fn has_spoken(tcp: &TcpStream) -> io::Result<bool> {
    loop {
        match tcp.peek(&mut [0]) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result.map(|count| count > 0),
        }
    }
}

/// `false`: the connection has met its fate already.
fn passes_early_gate(shared: &Shared, tcp: &TcpStream) -> bool {
    match shared.change(take_early_gate) {
        None => return true,
        Some(Gate::Reset) => {
            shared.note(0, "reset at TCP level");
            net::reset_on_close(tcp);
        }
        Some(gate) => {
            shared.note(0, format!("left hanging: {gate:?}"));
            hang(shared, Some(tcp).filter(|_| gate == Gate::HangTls));
        }
    }
    false
}

fn take_early_gate(state: &mut State) -> Option<Gate> {
    if state.gate_queue.front().is_some_and(Gate::is_early) {
        return state.gate_queue.pop_front();
    }
    (state.gate_queue.is_empty() && state.gate.is_early()).then(|| state.gate.clone())
}

fn take_gate(state: &mut State, upgrade: &Upgrade) -> Gate {
    if let Some(gate) = state.gate_queue.pop_front() {
        return gate;
    }
    match &state.gate_fn {
        Some(decide) => decide(upgrade),
        None => state.gate.clone(),
    }
}

/// Waits until the hub stops or the hanging connections are released; reads meanwhile if told
/// to, so that the client's bytes are acknowledged and consumed.
fn hang(shared: &Shared, reading: Option<&TcpStream>) {
    if let Some(mut tcp) = reading {
        let _ = tcp.set_read_timeout(None);
        while matches!(tcp.read(&mut [0; 1024]), Ok(1..)) {}
    }
    shared.wait(None, |state| state.stopping.then_some(()));
}

fn register(shared: &Shared, stream: &Stream, request: &Request) -> Upgrade {
    let t = shared.started.elapsed();
    shared.change(|state| {
        let upgrade = Upgrade {
            id: state.upgrades.len() as u64 + 1,
            t,
            path: request.path.clone(),
            query: request.query.clone(),
            headers: request.headers.clone(),
            tls: stream.tls_info(),
            status: 0,
            identifier: None,
        };
        state.upgrades.push(upgrade.clone());
        upgrade
    })
}

fn vsn_of(request: &Request) -> Result<Vsn, Refusal> {
    match request.query_value("vsn") {
        Some(vsn) if vsn.starts_with("3.0.") => Ok(Vsn::MsgPack),
        Some(vsn) if vsn.starts_with("2.0.") => Ok(Vsn::Json),
        _ => Err(Refusal::status(403)),
    }
}

fn admit(shared: &Shared, upgrade: &Upgrade, request: &Request) -> Result<(String, Vsn), Refusal> {
    if request
        .header("upgrade")
        .is_none_or(|value| !value.eq_ignore_ascii_case("websocket"))
        || request.header("sec-websocket-version") != Some("13")
        || request.header("sec-websocket-key").is_none()
    {
        return Err(Refusal::status(if request.path.ends_with("/websocket") {
            400
        } else {
            404
        }));
    }
    let identifier = match upgrade.path.as_str() {
        SHARED_SECRET_PATH => shared_secret(shared, request),
        CERTIFICATE_PATH => certificate(shared, upgrade),
        _ => return Err(Refusal::status(404)),
    };
    match identifier {
        Ok(identifier) => Ok((identifier, vsn_of(request)?)),
        Err(None) => {
            let reason = "no certificate pair or shared secrets connection settings were provided";
            Err(Refusal::status(401).reason(reason))
        }
        Err(Some(why)) => {
            shared.note(upgrade.id, format!("credentials refused: {why}"));
            Err(Refusal::status(401))
        }
    }
}

/// `Err(None)`: there are no credentials at all.
fn shared_secret(shared: &Shared, request: &Request) -> Result<String, Option<String>> {
    if !request
        .headers
        .iter()
        .any(|(name, _)| name.starts_with("x-"))
    {
        return Err(None);
    }
    let header = |name: &str| {
        request
            .header(name)
            .ok_or_else(|| Some(format!("no {name} header")))
    };
    let headers = auth::Headers {
        alg: header("x-nh-alg")?,
        key: header("x-nh-key")?,
        time: header("x-nh-time")?,
        signature: header("x-nh-signature")?,
    };
    auth::verify(headers, &shared.credentials, shared.now_ms()).map_err(Some)
}

fn certificate(shared: &Shared, upgrade: &Upgrade) -> Result<String, Option<String>> {
    let tls = upgrade
        .tls
        .as_ref()
        .filter(|tls| !tls.client_chain.is_empty())
        .ok_or(None)?;
    let ca = shared
        .client_ca
        .as_ref()
        .ok_or_else(|| Some("no client CA here".to_owned()))?;
    tls::check_client(ca, &tls.client_chain, shared.now_ms() / 1000).map_err(Some)?;
    tls.client_cn
        .clone()
        .ok_or_else(|| Some("client certificate without a name".into()))
}

fn accept(
    shared: &Shared,
    mut stream: Stream,
    rest: Vec<u8>,
    mut upgrade: Upgrade,
    identifier: String,
    vsn: Vsn,
) -> io::Result<Admitted> {
    let key = derive_accept_key(upgrade.header("sec-websocket-key").unwrap_or("").as_bytes());
    let head = format!(
        "{}connection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-accept: {key}\r\n\r\n",
        http::status_line(101)
    );
    upgrade.identifier = Some(identifier);
    // First the log, so that whoever has the answer finds it there.
    finish(shared, &mut upgrade, 101);
    stream.write_all(head.as_bytes())?;
    stream.flush()?;
    Ok((stream, rest, upgrade, vsn))
}

fn refuse(
    shared: &Shared,
    mut stream: Stream,
    upgrade: &Upgrade,
    refusal: &Refusal,
) -> io::Result<()> {
    let mut headers = refusal.headers.clone();
    match &refusal.date {
        DateHeader::Server => {
            headers.push(("date".into(), http::date(shared.now_ms() / 1000)));
        }
        DateHeader::Exact(date) => headers.push(("date".into(), date.clone())),
        DateHeader::None => {}
    }
    shared.note(
        upgrade.id,
        format!("{} refused with {}", upgrade.path, refusal.status),
    );
    finish(shared, &mut upgrade.clone(), refusal.status);
    http::respond(
        &mut stream,
        refusal.status,
        &headers,
        refusal.body.as_bytes(),
    )?;
    stream.notify_close();
    Ok(())
}

fn finish(shared: &Shared, upgrade: &mut Upgrade, status: u16) {
    upgrade.status = status;
    shared.change(|state| {
        let slot = &mut state.upgrades[upgrade.id as usize - 1];
        slot.status = status;
        slot.identifier = upgrade.identifier.clone();
    });
}
