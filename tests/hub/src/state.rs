//! What the threads of one hub share: transcript, books, live connections, settings. One
//! mutex, one condition variable.

use crate::auth::Credentials;
use crate::books::Book;
use crate::conn::Command;
use crate::frame::Frame;
use crate::gate::{Gate, GateFn};
use crate::transcript::{Dir, Entry, Transcript};
use crate::wake::Waker;
use crossbeam_channel::Sender;
use rustls::pki_types::CertificateDer;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::TcpStream;
use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant, SystemTime};

/// What TLS negotiated.
#[derive(Debug, Clone)]
pub struct TlsInfo {
    /// `TLSv1_2` or `TLSv1_3`.
    pub version: String,
    pub alpn: Option<String>,
    pub server_name: Option<String>,
    /// Common name of the client certificate, good or not.
    pub client_cn: Option<String>,
    pub resumed: bool,
    pub(crate) client_chain: Vec<CertificateDer<'static>>,
}

/// One upgrade request and what became of it.
#[derive(Debug, Clone)]
pub struct Upgrade {
    /// Counts from 1; also the number of the connection if it was let in.
    pub id: u64,
    pub t: Duration,
    pub path: String,
    pub query: String,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub tls: Option<TlsInfo>,
    /// 101, the status it was refused with, or 0 when it got no answer.
    pub status: u16,
    pub identifier: Option<String>,
}

impl Upgrade {
    /// The first header of that (lower-case) name.
    pub fn header(&self, name: &str) -> Option<&str> {
        crate::http::header(&self.headers, name)
    }
}

/// What the server does by itself; may be changed at any time.
#[derive(Debug, Clone)]
pub struct Behaviour {
    pub answer_heartbeats: bool,
    pub fwup_keys: Vec<String>,
    pub archive_keys: Vec<String>,
    /// Names a device may attach.
    pub extensions: Vec<String>,
    /// Payload of `extensions:get`; `None` for servers that never send it.
    pub advertise: Option<Value>,
    /// Send an extension its first request when it is attached.
    pub drive_extensions: bool,
    pub join_response: Value,
    pub refused_joins: BTreeMap<String, Value>,
    pub silent_joins: BTreeSet<String>,
    /// Sent on each join.
    pub archive: Option<Value>,
    pub connecting_code: Option<String>,
    /// An `update` payload offered to each device that runs another firmware.
    pub deployment: Option<Value>,
    /// Silence after which a connection is closed with 1002.
    pub idle_timeout: Duration,
}

impl Default for Behaviour {
    fn default() -> Behaviour {
        let known = [
            "geo",
            "health",
            "local_shell",
            "logging",
            "network_identity",
        ];
        Behaviour {
            answer_heartbeats: true,
            fwup_keys: vec![],
            archive_keys: vec![],
            extensions: known.map(str::to_owned).to_vec(),
            advertise: Some(json!({})),
            drive_extensions: false,
            join_response: json!({}),
            refused_joins: BTreeMap::new(),
            silent_joins: BTreeSet::new(),
            archive: None,
            connecting_code: None,
            deployment: None,
            idle_timeout: Duration::from_secs(180),
        }
    }
}

/// A live connection as the rest of the hub sees it.
#[derive(Debug)]
pub struct Link {
    pub identifier: String,
    pub commands: Sender<Command>,
    pub waker: Waker,
    pub topics: Vec<String>,
}

impl Link {
    pub fn command(&self, command: Command) {
        // The connection may be ending just now.
        let _ = self.commands.send(command);
        self.waker.wake();
    }
}

#[derive(Default)]
pub struct State {
    pub transcript: Transcript,
    /// How far each kind of expectation has read.
    pub cursors: BTreeMap<(String, String), usize>,
    pub upgrades: Vec<Upgrade>,
    pub links: BTreeMap<u64, Link>,
    pub books: BTreeMap<String, Book>,
    pub behaviour: Behaviour,
    pub gate: Gate,
    pub gate_queue: VecDeque<Gate>,
    pub gate_fn: Option<GateFn>,
    /// Connections that are not links yet (or hang), to be cut when the hub stops.
    pub pending: BTreeMap<u64, TcpStream>,
    pub tcp_connections: u64,
    pub stopping: bool,
    /// Threads that serve connections.
    pub threads: usize,
    pub clock_offset: i64,
}

impl State {
    pub fn book(&mut self, identifier: &str) -> &mut Book {
        self.books
            .entry(identifier.into())
            .or_insert_with(|| Book::new(identifier))
    }
}

/// Shared by all threads of a hub.
pub struct Shared {
    pub started: Instant,
    pub credentials: Credentials,
    pub client_ca: Option<CertificateDer<'static>>,
    /// Print each entry as it happens.
    pub echo: bool,
    state: Mutex<State>,
    changed: Condvar,
}

impl Shared {
    pub fn new(
        credentials: Credentials,
        client_ca: Option<CertificateDer<'static>>,
        behaviour: Behaviour,
        echo: bool,
    ) -> Shared {
        Shared {
            started: Instant::now(),
            credentials,
            client_ca,
            echo,
            state: Mutex::new(State {
                behaviour,
                ..State::default()
            }),
            changed: Condvar::new(),
        }
    }

    /// A test that panicked while it held the lock must not hide its own message.
    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.state
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Changes the state and wakes everyone who waits.
    pub fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let result = change(&mut self.lock());
        self.changed.notify_all();
        result
    }

    /// Waits until `check` finds something; `None` at the deadline (`None`: for ever).
    pub fn wait<T>(
        &self,
        limit: Option<Duration>,
        mut check: impl FnMut(&mut State) -> Option<T>,
    ) -> Option<T> {
        let deadline = limit.map(|limit| Instant::now() + limit);
        let mut state = self.lock();
        loop {
            if let Some(found) = check(&mut state) {
                return Some(found);
            }
            let left = match deadline {
                None => Duration::from_secs(3600),
                Some(deadline) => deadline.checked_duration_since(Instant::now())?,
            };
            state = match self.changed.wait_timeout(state, left) {
                Ok((state, _)) => state,
                Err(poisoned) => poisoned.into_inner().0,
            };
        }
    }

    pub fn note(&self, conn: u64, text: impl Into<String>) {
        self.record(conn, Dir::Note, None, text.into());
    }

    pub fn record(&self, conn: u64, dir: Dir, frame: Option<Frame>, note: String) {
        let entry = Entry {
            t: self.started.elapsed(),
            conn,
            dir,
            frame,
            note,
        };
        if self.echo {
            println!("{entry}");
        }
        self.change(|state| state.transcript.entries.push(entry));
    }

    /// The hub's clock in Unix milliseconds.
    pub fn now_ms(&self) -> i64 {
        let since = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        since.as_millis() as i64 + self.lock().clock_offset * 1000
    }
}
