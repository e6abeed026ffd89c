//! From a host name to a connected [`Stream`]: names, TCP, proxy and TLS, each under its
//! own deadline. The socket and the downloads use the same code.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine as _;
use nix::poll::PollFlags;
use nix::sys::socket::{setsockopt, sockopt};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};

use super::stream::Stream;
use super::waker::{Waker, Woken};
use super::{channel, thread, tls};
use crate::config::{LinkTimeouts, Proxy};

/// Unacknowledged data, or unanswered keepalives, this old end a connection.
const TCP_PATIENCE: Duration = Duration::from_secs(60);
/// A proxy's answer to CONNECT is a few hundred bytes.
const MAX_PROXY_HEAD: usize = 8 * 1024;

/// Which step failed, and how, in words.
#[derive(Debug)]
pub struct DialError {
    /// Name resolution or TCP failed: there may be no network.
    pub network: bool,
    pub text: String,
}

impl DialError {
    fn network(text: String) -> Self {
        Self {
            network: true,
            text,
        }
    }

    fn protocol(text: String) -> Self {
        Self {
            network: false,
            text,
        }
    }
}

impl fmt::Display for DialError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// How to reach other machines.
#[derive(Clone, Debug)]
pub struct Dialer {
    pub tls: Arc<ClientConfig>,
    pub proxy: Option<Proxy>,
    pub timeouts: LinkTimeouts,
    /// Expected in the certificate instead of the host.
    pub server_name: Option<String>,
}

impl Dialer {
    /// Connects; `connect_limit` shortens the TCP deadline, `ends` that of every step.
    ///
    /// # Errors
    /// The first step that failed or ran out of time.
    pub fn dial(
        &self,
        host: &str,
        port: u16,
        secure: bool,
        connect_limit: Option<Duration>,
        ends: Option<Instant>,
        waker: &Waker,
    ) -> Result<Stream, DialError> {
        let within = |limit: Duration| {
            ends.map_or(limit, |ends| {
                limit.min(ends.saturating_duration_since(Instant::now()))
            })
        };
        let proxy = self
            .proxy
            .as_ref()
            .filter(|proxy| !proxy.bypassed_for(host));
        let (first_host, first_port) =
            proxy.map_or((host, port), |proxy| (&proxy.host, proxy.port));
        let addresses = resolve(first_host, first_port, within(self.timeouts.dns))?;
        let limit = connect_limit.map_or(self.timeouts.connect, |limit| {
            limit.min(self.timeouts.connect)
        });
        let tcp = connect_any(&addresses, first_host, within(limit))?;
        tune(&tcp).map_err(|error| DialError::network(format!("{first_host}: {error}")))?;
        let mut stream = Stream::Plain(tcp);
        if let Some(proxy) = proxy {
            let deadline = Instant::now() + within(self.timeouts.upgrade);
            tunnel(&mut stream, proxy, host, port, deadline, waker)?;
        }
        match stream {
            Stream::Plain(tcp) if secure => {
                let deadline = Instant::now() + within(self.timeouts.tls);
                self.secure(tcp, host, deadline, waker)
            }
            stream => Ok(stream),
        }
    }

    fn secure(
        &self,
        tcp: TcpStream,
        host: &str,
        deadline: Instant,
        waker: &Waker,
    ) -> Result<Stream, DialError> {
        let name = self.server_name.as_deref().unwrap_or(host);
        let name = ServerName::try_from(name.to_owned()).map_err(|_| {
            DialError::protocol(format!("TLS: {name:?} is no name a certificate can have"))
        })?;
        let connection = ClientConnection::new(self.tls.clone(), name)
            .map_err(|error| DialError::protocol(tls::explain(&error)))?;
        let mut stream = Stream::Tls(Box::new(StreamOwned::new(connection, tcp)));
        handshake(&mut stream, deadline, waker).map_err(|error| {
            let cause = error
                .get_ref()
                .and_then(|inner| inner.downcast_ref::<rustls::Error>());
            DialError::protocol(match (cause, error.kind()) {
                (Some(cause), _) => tls::explain(cause),
                (None, io::ErrorKind::TimedOut) => format!("TLS with {host} took too long"),
                (None, _) => format!("TLS with {host}: {error}"),
            })
        })?;
        Ok(stream)
    }
}

fn handshake(stream: &mut Stream, deadline: Instant, waker: &Waker) -> io::Result<()> {
    loop {
        let Stream::Tls(tls) = &mut *stream else {
            return Ok(());
        };
        if !tls.conn.is_handshaking() && !tls.conn.wants_write() {
            return Ok(());
        }
        match tls.conn.complete_io(&mut tls.sock) {
            Ok(_) => continue,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
        // Asked only now: a socket takes output at once, and would not let us sleep.
        let events = if tls.conn.wants_write() {
            PollFlags::POLLOUT
        } else {
            PollFlags::POLLIN
        };
        match stream.wait(events, Some(deadline), waker)? {
            Woken::Ready => {}
            Woken::Knocked => return Err(io::ErrorKind::Interrupted.into()),
            Woken::DeadlinePassed => return Err(io::ErrorKind::TimedOut.into()),
        }
    }
}

/// Looks a name up on a thread of its own: the system resolver cannot be interrupted.
///
/// # Errors
/// It has no address, or none was found in time.
pub fn resolve(host: &str, port: u16, limit: Duration) -> Result<Vec<SocketAddr>, DialError> {
    if let Ok(ip) = host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(ip, port)]);
    }
    let (sender, receiver) = channel::bounded(1);
    let name = host.to_owned();
    let lookup = move || {
        let found = (name.as_str(), port)
            .to_socket_addrs()
            .map(Iterator::collect::<Vec<_>>);
        // Nobody listens any more after the deadline.
        let _ = sender.send(found);
    };
    let abandoned = |_| {};
    thread::spawn("dns", abandoned, lookup).map_err(|error| {
        DialError::network(format!("{host}: no thread for the name lookup: {error}"))
    })?;
    match receiver.recv_timeout(limit) {
        Ok(Ok(addresses)) if !addresses.is_empty() => Ok(addresses),
        Ok(Ok(_)) => Err(DialError::network(format!(
            "{host}: the name has no address"
        ))),
        Ok(Err(error)) => Err(DialError::network(format!("{host}: {error}"))),
        Err(_) => Err(DialError::network(format!(
            "{host}: name lookup took longer than {limit:?}"
        ))),
    }
}

/// Tries the addresses in turn; each gets an equal share of what is left.
///
/// # Errors
/// That of the last one.
pub fn connect_any(
    addresses: &[SocketAddr],
    host: &str,
    limit: Duration,
) -> Result<TcpStream, DialError> {
    let deadline = Instant::now() + limit;
    let mut last = None;
    for (index, address) in addresses.iter().enumerate() {
        let left = deadline.saturating_duration_since(Instant::now());
        let shares = u32::try_from(addresses.len() - index).unwrap_or(u32::MAX);
        let share = (left / shares).max(Duration::from_millis(10));
        match TcpStream::connect_timeout(address, share) {
            Ok(tcp) => return Ok(tcp),
            Err(error) => last = Some(format!("{host} ({address}): {error}")),
        }
    }
    Err(DialError::network(
        last.unwrap_or_else(|| format!("{host}: no address")),
    ))
}

/// Small messages at once; dead peers noticed by the kernel too.
fn tune(tcp: &TcpStream) -> io::Result<()> {
    tcp.set_nodelay(true)?;
    tcp.set_nonblocking(true)?;
    setsockopt(tcp, sockopt::KeepAlive, &true)?;
    let patience = u32::try_from(TCP_PATIENCE.as_millis()).unwrap_or(u32::MAX);
    setsockopt(tcp, sockopt::TcpUserTimeout, &patience)?;
    // First probe late: heartbeats do the work while the link is up.
    setsockopt(tcp, sockopt::TcpKeepIdle, &300)?;
    setsockopt(tcp, sockopt::TcpKeepInterval, &20)?;
    setsockopt(tcp, sockopt::TcpKeepCount, &3)?;
    Ok(())
}

/// Asks the proxy for a tunnel (RFC 9110 §9.3.6).
fn tunnel(
    stream: &mut Stream,
    proxy: &Proxy,
    host: &str,
    port: u16,
    deadline: Instant,
    waker: &Waker,
) -> Result<(), DialError> {
    let problem =
        |text: String| DialError::protocol(format!("proxy {}:{}: {text}", proxy.host, proxy.port));
    let host = if host.contains(':') {
        format!("[{host}]")
    } else {
        host.to_owned()
    };
    let mut request = format!("CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n");
    if let Some(userinfo) = &proxy.userinfo {
        let token = base64::engine::general_purpose::STANDARD.encode(userinfo.expose());
        request.push_str(&format!("Proxy-Authorization: Basic {token}\r\n"));
    }
    request.push_str("\r\n");
    stream
        .send_all(request.as_bytes(), deadline, waker)
        .map_err(|error| problem(error.to_string()))?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        // One byte at a time: what follows the head belongs to the tunnel.
        let mut byte = [0];
        match stream.receive(&mut byte, deadline, waker) {
            Ok(1) if head.len() < MAX_PROXY_HEAD => head.push(byte[0]),
            Ok(_) => return Err(problem("no HTTP answer to CONNECT".to_owned())),
            Err(error) => return Err(problem(error.to_string())),
        }
    }
    let head = String::from_utf8_lossy(&head);
    let status = head.split_whitespace().nth(1).unwrap_or_default();
    match status {
        _ if status.len() == 3 && status.starts_with('2') => Ok(()),
        "407" => Err(problem(
            "wants other credentials (407); see NERVES_HUB_PROXY".to_owned(),
        )),
        _ => Err(problem(format!(
            "refused CONNECT: {:?}",
            head.lines().next().unwrap_or_default()
        ))),
    }
}

impl Proxy {
    /// `no_proxy` names this host, one of its parents, or `*`.
    pub fn bypassed_for(&self, host: &str) -> bool {
        self.no_proxy.iter().any(|entry| {
            let entry = entry.trim_start_matches('.');
            entry == "*"
                || host.eq_ignore_ascii_case(entry)
                || host.len().checked_sub(entry.len() + 1).is_some_and(|dot| {
                    host.is_char_boundary(dot)
                        && host[dot..].starts_with('.')
                        && host[dot + 1..].eq_ignore_ascii_case(entry)
                })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_proxy_covers_hosts_and_their_parents() {
        let proxy = |entry: &str| Proxy {
            host: "p".into(),
            port: 1,
            userinfo: None,
            no_proxy: vec![entry.into()],
        };
        for (entry, host, expected) in [
            ("example.com", "example.com", true),
            ("example.com", "hub.example.com", true),
            (".example.com", "hub.EXAMPLE.com", true),
            ("example.com", "badexample.com", false),
            ("*", "anything", true),
            ("127.0.0.1", "127.0.0.1", true),
            ("hub.example.com", "example.com", false),
        ] {
            assert_eq!(proxy(entry).bypassed_for(host), expected, "{entry} {host}");
        }
    }
}
