//! HTTP downloads by ureq over the agent's own [`Dialer`]: same proxy, trust and
//! deadlines as the socket; cancellable at every wait.

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, poll};
use ureq::Error;
use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, LazyBuffers, NextTimeout, Transport,
};

use super::dial::Dialer;
use super::stream::Stream;
use super::waker::{Waker, timeout_until};

/// Redirects followed for one request.
const MAX_REDIRECTS: u32 = 5;
/// One read from the network, and one chunk for the installer.
const INPUT_BUFFER: usize = 64 * 1024;
const OUTPUT_BUFFER: usize = 8 * 1024;

/// Stops a download (and the installer it feeds) from another thread.
#[derive(Clone, Debug)]
pub struct Cancel {
    flag: Arc<AtomicBool>,
    pub waker: Waker,
}

impl Cancel {
    /// # Errors
    /// No file descriptor left.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            flag: Arc::new(AtomicBool::new(false)),
            waker: Waker::new()?,
        })
    }

    /// All sleepers wake and stay awake.
    pub fn cancel(&self) {
        self.flag.store(true, Ordering::SeqCst);
        self.waker.wake();
    }

    pub fn is_cancelled(&self) -> bool {
        self.flag.load(Ordering::SeqCst)
    }

    /// Until then, or until it is cancelled.
    pub fn sleep_until(&self, end: Instant) {
        while !self.is_cancelled() && Instant::now() < end {
            let mut fds = [PollFd::new(self.waker.as_fd(), PollFlags::POLLIN)];
            // A signal or a knock: the condition above tells.
            let _ = poll(&mut fds, timeout_until(Some(end)));
        }
    }
}

/// How long a client waits for its servers.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// For each byte or piece of work.
    pub idle: Duration,
    /// For everything.
    pub ends: Instant,
}

/// A client for one download.
///
/// Statuses are answers, not errors; redirects are followed; nothing is retried and no
/// connection is kept.
pub fn client(
    dialer: Arc<Dialer>,
    limits: Limits,
    allow_insecure: bool,
    cancel: Cancel,
) -> ureq::Agent {
    let config = Config::builder()
        .http_status_as_error(false)
        .max_redirects(MAX_REDIRECTS)
        .max_idle_connections(0)
        .input_buffer_size(INPUT_BUFFER)
        .output_buffer_size(OUTPUT_BUFFER)
        .proxy(None)
        .user_agent(crate::USER_AGENT)
        .build();
    let connector = Dial {
        dialer,
        limits,
        allow_insecure,
        cancel,
    };
    ureq::Agent::with_parts(config, connector, NoLookup)
}

/// A URL without its query, for messages: the query is a credential.
pub fn without_query(url: &str) -> &str {
    url.split(['?', '#']).next().unwrap_or_default()
}

/// An error in words. ureq names the URL in some; its query must not get into a log.
pub fn explain(error: &Error) -> String {
    match error {
        Error::BadUri(_) => "the URL is not usable".to_owned(),
        Error::TooManyRedirects => "too many redirects".to_owned(),
        Error::RedirectFailed => "redirect without a usable location".to_owned(),
        Error::Io(error) => error.to_string(),
        // Some quote what the server sent, such as a location.
        Error::Protocol(error) => {
            let text = error.to_string();
            let cause = text.split(": ").next().unwrap_or_default();
            format!("not proper HTTP: {cause}")
        }
        other => other.to_string(),
    }
}

#[derive(Debug)]
struct Dial {
    dialer: Arc<Dialer>,
    limits: Limits,
    allow_insecure: bool,
    cancel: Cancel,
}

impl Connector<()> for Dial {
    type Out = Wire;

    fn connect(&self, details: &ConnectionDetails, _: Option<()>) -> Result<Option<Wire>, Error> {
        let host = details
            .uri
            .host()
            .unwrap_or_default()
            .trim_matches(['[', ']']);
        let secure = details.needs_tls();
        if !secure && !self.allow_insecure && !is_loopback(host) {
            let text =
                format!("plain http to {host} refused; NERVES_HUB_ALLOW_INSECURE=1 allows it");
            return Err(Error::Io(io::Error::new(
                io::ErrorKind::PermissionDenied,
                text,
            )));
        }
        let ends = self.limits.ends;
        if Instant::now() >= ends {
            return Err(Error::Io(io::ErrorKind::TimedOut.into()));
        }
        let port = details
            .uri
            .port_u16()
            .unwrap_or(if secure { 443 } else { 80 });
        let stream = self
            .dialer
            .dial(host, port, secure, None, Some(ends), &self.cancel.waker)
            .map_err(|error| Error::Io(io::Error::other(error.text)))?;
        let buffers = LazyBuffers::new(INPUT_BUFFER, OUTPUT_BUFFER);
        Ok(Some(Wire {
            stream,
            buffers,
            limits: self.limits,
            cancel: self.cancel.clone(),
        }))
    }
}

/// Traffic to this machine itself leaves no wire to listen on.
fn is_loopback(host: &str) -> bool {
    host == "localhost"
        || host
            .parse::<std::net::IpAddr>()
            .is_ok_and(|ip| ip.is_loopback())
}

/// ureq's view of a [`Stream`].
struct Wire {
    stream: Stream,
    buffers: LazyBuffers,
    limits: Limits,
    cancel: Cancel,
}

impl fmt::Debug for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Wire")
    }
}

impl Wire {
    fn deadline(&self) -> Result<Instant, Error> {
        if self.cancel.is_cancelled() {
            return Err(Error::Io(io::ErrorKind::Interrupted.into()));
        }
        let now = Instant::now();
        if now >= self.limits.ends {
            return Err(Error::Io(io::ErrorKind::TimedOut.into()));
        }
        Ok(self.limits.ends.min(now + self.limits.idle))
    }

    fn explain(&self, error: io::Error) -> Error {
        Error::Io(match error.kind() {
            io::ErrorKind::TimedOut => {
                let text = format!("no data for {} s", self.limits.idle.as_secs_f64());
                io::Error::new(io::ErrorKind::TimedOut, text)
            }
            // ureq would take these for the end of a body without a length, and half a file
            // would count as a whole one.
            io::ErrorKind::UnexpectedEof => {
                io::Error::other("the connection was cut (no TLS close_notify)")
            }
            io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionAborted => {
                io::Error::other(error)
            }
            _ => error,
        })
    }
}

impl Transport for Wire {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, _: NextTimeout) -> Result<(), Error> {
        let deadline = self.deadline()?;
        let output = &self.buffers.output()[..amount];
        let sent = self.stream.send_all(output, deadline, &self.cancel.waker);
        sent.map_err(|error| self.explain(error))
    }

    fn await_input(&mut self, _: NextTimeout) -> Result<bool, Error> {
        let deadline = self.deadline()?;
        let input = self.buffers.input_append_buf();
        let received = self.stream.receive(input, deadline, &self.cancel.waker);
        let count = received.map_err(|error| self.explain(error))?;
        self.buffers.input_appended(count);
        Ok(count > 0)
    }

    fn is_open(&mut self) -> bool {
        false
    }

    fn is_tls(&self) -> bool {
        matches!(self.stream, Stream::Tls(_))
    }
}

/// The dialer looks names up itself, perhaps at the proxy.
#[derive(Debug)]
struct NoLookup;

impl Resolver for NoLookup {
    fn resolve(&self, _: &Uri, _: &Config, _: NextTimeout) -> Result<ResolvedSocketAddrs, Error> {
        let mut addresses = self.empty();
        addresses.push(SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)));
        Ok(addresses)
    }
}
