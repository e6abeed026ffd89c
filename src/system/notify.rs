//! Signs of life for a supervisor, as systemd takes them (sd_notify).
//!
//! Never blocks: a supervisor that does not read misses something.

use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::{Duration, Instant};

use crate::config::ServiceSettings;

/// Where to say it, and how often at least.
pub struct Notifier {
    peer: Option<(UnixDatagram, SocketAddr)>,
    every: Option<Duration>,
    due: Instant,
    status: String,
}

impl Notifier {
    pub fn new(settings: &ServiceSettings) -> Self {
        let peer = settings.notify.as_ref().and_then(|name| {
            let address = match name.as_bytes() {
                [b'@', name @ ..] => SocketAddr::from_abstract_name(name),
                _ => SocketAddr::from_pathname(name),
            };
            let opened = UnixDatagram::unbound().and_then(|socket| {
                socket.set_nonblocking(true)?;
                Ok((socket, address?))
            });
            opened
                .inspect_err(|error| warn!("NOTIFY_SOCKET {name:?}: {error}"))
                .ok()
        });
        Self {
            every: settings
                .watchdog
                .filter(|_| peer.is_some())
                .map(|time| time / 2),
            peer,
            due: Instant::now(),
            status: String::new(),
        }
    }

    pub fn is_wanted(&self) -> bool {
        self.peer.is_some()
    }

    /// Such as `READY=1`.
    pub fn tell(&self, text: &str) {
        if let Some((socket, address)) = &self.peer
            && let Err(error) = socket.send_to_addr(text.as_bytes(), address)
        {
            debug!("NOTIFY_SOCKET: {error}");
        }
    }

    /// What `systemctl status` shows; said once until it changes.
    pub fn status(&mut self, text: String) {
        if self.status != text {
            self.tell(&format!("STATUS={text}"));
            self.status = text;
        }
    }

    /// When the next sign of life is due.
    pub fn next(&self) -> Option<Instant> {
        self.every.map(|_| self.due)
    }

    /// Called by whose death is to be noticed.
    pub fn beat(&mut self, now: Instant) {
        if let Some(every) = self.every.filter(|_| now >= self.due) {
            self.tell("WATCHDOG=1");
            self.due = now + every;
        }
    }
}
