//! A CONNECT proxy that logs what it is asked for, with optional Basic authentication.

use crate::http;
use crate::net::Listener;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

/// One request to the proxy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connect {
    pub method: String,
    /// `HOST:PORT` as asked for.
    pub target: String,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    /// 200, 407, … or 502 when the target does not answer.
    pub status: u16,
}

#[derive(Default)]
struct State {
    log: Vec<Connect>,
    tunnels: Vec<TcpStream>,
    refuse: Option<u16>,
}

struct Shared {
    credentials: Option<String>,
    hosts: BTreeMap<String, SocketAddr>,
    state: Mutex<State>,
    changed: Condvar,
}

/// Settings of a proxy.
#[derive(Debug, Default)]
pub struct Builder {
    credentials: Option<String>,
    hosts: BTreeMap<String, SocketAddr>,
}

impl Builder {
    /// Demands Basic authentication.
    pub fn basic(mut self, user: &str, password: &str) -> Builder {
        self.credentials = Some(format!(
            "Basic {}",
            STANDARD.encode(format!("{user}:{password}"))
        ));
        self
    }

    /// Connects `HOST:PORT` to `address`, so that tests may use names that do not exist.
    pub fn map(mut self, target: &str, address: SocketAddr) -> Builder {
        self.hosts.insert(target.into(), address);
        self
    }

    pub fn start(self) -> Proxy {
        let shared = Arc::new(Shared {
            credentials: self.credentials,
            hosts: self.hosts,
            state: Mutex::default(),
            changed: Condvar::new(),
        });
        let serving = shared.clone();
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let listener = Listener::start("proxy-accept", any, move |tcp| {
            let shared = serving.clone();
            let thread = thread::Builder::new().name("proxy-conn".into());
            // A tunnel that breaks is closed on both sides; there is nothing to report.
            let _ = thread.spawn(move || shared.serve(tcp));
        });
        Proxy {
            shared,
            listener: Some(listener.expect("proxy listens")),
        }
    }
}

/// A running proxy; stops when dropped.
pub struct Proxy {
    shared: Arc<Shared>,
    listener: Option<Listener>,
}

impl Proxy {
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// A proxy without authentication.
    pub fn start() -> Proxy {
        Builder::default().start()
    }

    pub fn address(&self) -> SocketAddr {
        self.listener.as_ref().expect("only taken on drop").address
    }

    /// `http://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address())
    }

    /// `http://USER:PASSWORD@127.0.0.1:PORT`.
    pub fn url_with(&self, user: &str, password: &str) -> String {
        format!("http://{user}:{password}@{}", self.address())
    }

    /// Answers every request with this status from now on; `None` ends it.
    pub fn refuse(&self, status: Option<u16>) {
        self.shared.lock().refuse = status;
    }

    /// Cuts every tunnel.
    pub fn cut(&self) {
        for tcp in self.shared.lock().tunnels.drain(..) {
            let _ = tcp.shutdown(Shutdown::Both);
        }
    }

    /// Every request so far.
    pub fn connects(&self) -> Vec<Connect> {
        self.shared.lock().log.clone()
    }

    /// Waits for so many requests; panics with what came after 10 s.
    pub fn expect_connects(&self, count: usize) -> Vec<Connect> {
        let deadline = Instant::now() + Duration::from_secs(10);
        let mut state = self.shared.lock();
        while state.log.len() < count {
            let Some(left) = deadline.checked_duration_since(Instant::now()) else {
                panic!("proxy: fewer than {count} requests:\n{:#?}", state.log);
            };
            state = match self.shared.changed.wait_timeout(state, left) {
                Ok((state, _)) => state,
                Err(poisoned) => poisoned.into_inner().0,
            };
        }
        state.log.clone()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        drop(self.listener.take());
        self.cut();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn serve(&self, mut client: TcpStream) -> io::Result<()> {
        let Some((head, rest)) = http::read_request(&mut client)? else {
            return Ok(());
        };
        let target = match head.method.as_str() {
            "CONNECT" => self.connect(&head),
            _ => Err(405),
        };
        let status = target.as_ref().map_or_else(|status| *status, |_| 200);
        self.lock().log.push(Connect {
            method: head.method.clone(),
            target: head.path.clone(),
            headers: head.headers.clone(),
            status,
        });
        self.changed.notify_all();
        let Ok(mut server) = target else {
            let challenge = (
                "proxy-authenticate".to_owned(),
                "Basic realm=\"devhub\"".to_owned(),
            );
            let headers = if status == 407 {
                vec![challenge]
            } else {
                vec![]
            };
            return http::respond(&mut client, status, &headers, b"");
        };
        client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n")?;
        server.write_all(&rest)?;
        let copies = [client.try_clone()?, server.try_clone()?];
        self.lock().tunnels.extend(copies);
        tunnel(client, server)
    }

    fn connect(&self, head: &http::Request) -> Result<TcpStream, u16> {
        if let Some(status) = self.lock().refuse {
            return Err(status);
        }
        if self.credentials.is_some()
            && head.header("proxy-authorization") != self.credentials.as_deref()
        {
            return Err(407);
        }
        let stream = match self.hosts.get(&head.path) {
            Some(address) => TcpStream::connect(address),
            None => TcpStream::connect(&head.path),
        };
        let stream = stream.map_err(|_| 502u16)?;
        stream.set_nodelay(true).map_err(|_| 502u16)?;
        Ok(stream)
    }
}

fn tunnel(client: TcpStream, server: TcpStream) -> io::Result<()> {
    let (from, to) = (server.try_clone()?, client.try_clone()?);
    let back = thread::Builder::new()
        .name("proxy-back".into())
        .spawn(move || copy(from, to))?;
    copy(client, server);
    // The other direction ends with its own connection.
    let _ = back.join();
    Ok(())
}

fn copy(mut from: TcpStream, mut to: TcpStream) {
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        if to.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
    let _ = from.shutdown(Shutdown::Read);
}
