//! The firmware store: GET, HEAD and ranges over HTTP or HTTPS, with faults on demand and a
//! log of every request.

mod faults;
mod reply;
mod serve;

pub use faults::{Fault, When};

use crate::builder::Tls;
use crate::certs::Identity;
use crate::net::Listener;
use crate::tls::{TlsOptions, server_config};
use std::collections::BTreeMap;
use std::io;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

/// One request and what was answered so far.
#[derive(Debug, Clone)]
pub struct Request {
    /// Since the store started.
    pub t: Duration,
    pub method: String,
    pub path: String,
    pub query: String,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    /// Counts the requests for this path from 1.
    pub nth: u32,
    /// 0 until it is answered.
    pub status: u16,
    /// Body bytes sent so far.
    pub sent: u64,
    /// The answer is complete, cut or broken off.
    pub done: bool,
}

impl Request {
    /// The first header of that (lower-case) name.
    pub fn header(&self, name: &str) -> Option<&str> {
        crate::http::header(&self.headers, name)
    }

    pub fn range(&self) -> Option<&str> {
        self.header("range")
    }
}

/// A file on offer.
#[derive(Debug, Clone)]
pub(crate) struct File {
    pub data: Arc<Vec<u8>>,
    pub etag: String,
}

#[derive(Default)]
pub(crate) struct State {
    files: BTreeMap<String, File>,
    faults: BTreeMap<String, Vec<(When, Fault)>>,
    requests: Vec<Request>,
    sockets: BTreeMap<usize, TcpStream>,
    /// Grows with each [`Store::release`].
    releases: u64,
    stopping: bool,
}

pub(crate) struct Shared {
    started: Instant,
    state: Mutex<State>,
    changed: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let result = change(&mut self.lock());
        self.changed.notify_all();
        result
    }

    fn wait<T>(
        &self,
        limit: Duration,
        mut check: impl FnMut(&mut State) -> Option<T>,
    ) -> Option<T> {
        let deadline = Instant::now() + limit;
        let mut state = self.lock();
        loop {
            if let Some(found) = check(&mut state) {
                return Some(found);
            }
            let left = deadline.checked_duration_since(Instant::now())?;
            state = match self.changed.wait_timeout(state, left) {
                Ok((state, _)) => state,
                Err(poisoned) => poisoned.into_inner().0,
            };
        }
    }
}

/// Settings of a store.
#[derive(Debug)]
pub struct Builder {
    listen: SocketAddr,
    tls: Option<(Tls, Identity)>,
    host: Option<String>,
}

impl Default for Builder {
    fn default() -> Builder {
        Builder {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            tls: None,
            host: None,
        }
    }
}

impl Builder {
    pub fn listen(mut self, address: SocketAddr) -> Builder {
        self.listen = address;
        self
    }

    pub fn tls(mut self, mode: Tls, identity: Identity) -> Builder {
        self.tls = Some((mode, identity)).filter(|_| mode != Tls::Plain);
        self
    }

    /// Host name in URLs.
    pub fn host(mut self, host: &str) -> Builder {
        self.host = Some(host.into());
        self
    }

    pub fn start(self) -> Store {
        self.try_start()
            .unwrap_or_else(|error| panic!("store does not start: {error}"))
    }

    pub fn try_start(self) -> io::Result<Store> {
        let secure = self.tls.is_some();
        let config = self.tls.and_then(|(mode, identity)| {
            server_config(&TlsOptions {
                mode,
                alpn: vec!["http/1.1".into()],
                identity,
                client_ca: None,
                reject_in_handshake: false,
            })
        });
        let shared = Arc::new(Shared {
            started: Instant::now(),
            state: Mutex::default(),
            changed: Condvar::new(),
        });
        let serving = shared.clone();
        let listener = Listener::start("store-accept", self.listen, move |tcp| {
            let (shared, config) = (serving.clone(), config.clone());
            let thread = thread::Builder::new().name("store-conn".into());
            // Without a thread the connection is simply closed.
            let _ = thread.spawn(move || serve::serve(&shared, config, tcp));
        })?;
        let host = self.host.unwrap_or_else(|| match secure {
            true => "localhost".into(),
            false => listener.address.ip().to_string(),
        });
        let scheme = if secure { "https" } else { "http" };
        let url = format!("{scheme}://{host}:{}", listener.address.port());
        Ok(Store {
            shared,
            url,
            listener: Some(listener),
        })
    }
}

/// A running store; stops when dropped.
pub struct Store {
    shared: Arc<Shared>,
    url: String,
    listener: Option<Listener>,
}

impl Store {
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// Base URL without a final slash.
    pub fn url(&self) -> String {
        self.url.clone()
    }

    pub fn address(&self) -> SocketAddr {
        self.listener.as_ref().expect("only taken on drop").address
    }

    /// Serves `data` at `path`; the ETag follows the contents.
    pub fn put(&self, path: &str, data: Vec<u8>) {
        let etag = format!("\"{}\"", &crate::firmware::checksum(&data)[..16]);
        let file = File {
            data: Arc::new(data),
            etag,
        };
        self.shared
            .change(|state| state.files.insert(path.into(), file));
    }

    pub fn remove(&self, path: &str) {
        self.shared.change(|state| state.files.remove(path));
    }

    /// Adds a fault to requests for `path`; several faults may meet in one answer.
    pub fn fault(&self, path: &str, when: When, fault: Fault) {
        self.shared.change(|state| {
            state
                .faults
                .entry(path.into())
                .or_default()
                .push((when, fault))
        });
    }

    /// Takes all faults of `path` away.
    pub fn clear_faults(&self, path: &str) {
        self.shared.change(|state| state.faults.remove(path));
    }

    /// Lets every answer on its way that stalls or hangs, or is about to, carry on.
    pub fn release(&self) {
        self.shared.change(|state| state.releases += 1);
    }

    /// All requests so far.
    pub fn requests(&self) -> Vec<Request> {
        self.shared.lock().requests.clone()
    }

    /// All requests for one path so far.
    pub fn requests_for(&self, path: &str) -> Vec<Request> {
        self.requests()
            .into_iter()
            .filter(|request| request.path == path)
            .collect()
    }

    /// Waits until `check` holds for the requests; panics with all of them after 10 s.
    pub fn wait(&self, what: &str, check: impl Fn(&[Request]) -> bool) {
        let limit = Duration::from_secs(10);
        let met = self
            .shared
            .wait(limit, |state| check(&state.requests).then_some(()));
        if met.is_none() {
            panic!(
                "store: waited in vain for {what}; requests:\n{:#?}",
                self.requests()
            );
        }
    }

    /// Waits for the `nth` request (from 1) for `path`.
    pub fn expect_request(&self, path: &str, nth: u32) -> Request {
        let is_it = |request: &Request| request.path == path && request.nth == nth;
        self.wait(&format!("request {nth} for {path}"), |all| {
            all.iter().any(is_it)
        });
        self.requests().into_iter().find(is_it).expect("just seen")
    }

    /// Waits until the answer to the `nth` request for `path` has ended.
    pub fn expect_done(&self, path: &str, nth: u32) -> Request {
        let is_it = |r: &Request| r.path == path && r.nth == nth && r.done;
        self.wait(&format!("the end of request {nth} for {path}"), |all| {
            all.iter().any(is_it)
        });
        self.requests().into_iter().find(is_it).expect("just seen")
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        drop(self.listener.take());
        self.shared.change(|state| {
            state.stopping = true;
            for tcp in state.sockets.values() {
                let _ = tcp.shutdown(Shutdown::Both);
            }
        });
    }
}
