//! Streams and listeners: a TCP stream with or without TLS, and an accept loop that can be
//! stopped.

use crate::wake::{self, Waker, Woken};
use nix::poll::PollFlags;
use nix::sys::socket::{setsockopt, sockopt};
use rustls::{HandshakeKind, ServerConfig, ServerConnection, StreamOwned};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use crate::state::TlsInfo;

/// A connection as the server sees it.
#[derive(Debug)]
pub enum Stream {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ServerConnection, TcpStream>>),
}

impl Stream {
    /// Does the TLS handshake (blocking, under the socket's read timeout).
    pub fn accept(mut tcp: TcpStream, config: Option<Arc<ServerConfig>>) -> io::Result<Stream> {
        let Some(config) = config else {
            return Ok(Stream::Plain(tcp));
        };
        let mut connection = ServerConnection::new(config).map_err(io::Error::other)?;
        while connection.is_handshaking() {
            connection.complete_io(&mut tcp)?;
        }
        Ok(Stream::Tls(Box::new(StreamOwned::new(connection, tcp))))
    }

    pub fn tcp(&self) -> &TcpStream {
        match self {
            Stream::Plain(tcp) => tcp,
            Stream::Tls(tls) => &tls.sock,
        }
    }

    /// What was negotiated; `None` on a plain stream.
    pub fn tls_info(&self) -> Option<TlsInfo> {
        let Stream::Tls(tls) = self else { return None };
        let chain = tls.conn.peer_certificates().unwrap_or_default().to_vec();
        Some(TlsInfo {
            version: format!(
                "{:?}",
                tls.conn.protocol_version().expect("handshake is done")
            ),
            alpn: tls
                .conn
                .alpn_protocol()
                .map(|name| String::from_utf8_lossy(name).into_owned()),
            server_name: tls.conn.server_name().map(str::to_owned),
            client_cn: chain.first().and_then(|leaf| crate::der::common_name(leaf)),
            resumed: tls.conn.handshake_kind() == Some(HandshakeKind::Resumed),
            client_chain: chain,
        })
    }

    /// Says goodbye at the TLS level; errors do not matter any more.
    pub fn notify_close(&mut self) {
        if let Stream::Tls(tls) = self {
            tls.conn.send_close_notify();
            let _ = tls.conn.complete_io(&mut tls.sock);
        }
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Plain(tcp) => tcp.read(buffer),
            Stream::Tls(tls) => tls.read(buffer),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Plain(tcp) => tcp.write(buffer),
            Stream::Tls(tls) => tls.write(buffer),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Stream::Plain(tcp) => tcp.flush(),
            Stream::Tls(tls) => tls.flush(),
        }
    }
}

/// Makes the coming close a reset: no FIN, unsent data lost.
pub fn reset_on_close(tcp: &TcpStream) {
    let linger = nix::libc::linger {
        l_onoff: 1,
        l_linger: 0,
    };
    let _ = setsockopt(tcp, sockopt::Linger, &linger);
}

/// Port 0 is any free one that the kernel gives to no client and no other hub gets, in this
/// process or another: one that is stopped and started again finds it free.
fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    if address.port() == 0 {
        while let Some(port) = ports::next() {
            if let Ok(socket) = TcpListener::bind(SocketAddr::new(address.ip(), port)) {
                return Ok(socket);
            }
        }
    }
    TcpListener::bind(address)
}

/// Ports by the block. A block is a process's from its lock to the process's end, and each
/// port in it is used once.
mod ports {
    use std::fs::{self, File};
    use std::sync::Mutex;

    use nix::fcntl::{Flock, FlockArg};

    const FIRST: u16 = 10_000;
    const BLOCK: u16 = 100;
    const BLOCKS: u16 = 200;

    struct Blocks {
        locked: Vec<Flock<File>>,
        /// The next port, and the end of its block.
        next: u16,
        end: u16,
    }

    static OURS: Mutex<Blocks> = Mutex::new(Blocks {
        locked: Vec::new(),
        next: 0,
        end: 0,
    });

    pub fn next() -> Option<u16> {
        let mut ours = OURS.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if ours.next == ours.end {
            let (index, lock) = free_block()?;
            ours.locked.push(lock);
            ours.next = FIRST + index * BLOCK;
            ours.end = ours.next + BLOCK;
        }
        ours.next += 1;
        Some(ours.next - 1)
    }

    fn free_block() -> Option<(u16, Flock<File>)> {
        let folder = std::env::temp_dir().join("devhub-ports");
        fs::create_dir_all(&folder).ok()?;
        let begin = (std::process::id() % u32::from(BLOCKS)) as u16;
        (0..BLOCKS).find_map(|step| {
            let index = (begin + step) % BLOCKS;
            let file = File::create(folder.join(index.to_string())).ok()?;
            let lock = Flock::lock(file, FlockArg::LockExclusiveNonblock).ok()?;
            Some((index, lock))
        })
    }
}

/// An accept loop in a thread of its own.
#[derive(Debug)]
pub struct Listener {
    pub address: SocketAddr,
    waker: Waker,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Listener {
    /// Binds `address` and calls `on_connection` (quickly: it must hand over to a thread) for
    /// each connection.
    pub fn start(
        name: &str,
        address: SocketAddr,
        on_connection: impl Fn(TcpStream) + Send + 'static,
    ) -> io::Result<Listener> {
        let socket = bind(address)?;
        socket.set_nonblocking(true)?;
        let address = socket.local_addr()?;
        let (waker, sleeper) = wake::pair()?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = thread::Builder::new().name(name.into()).spawn(move || {
            while !stopped.load(Ordering::SeqCst) {
                let ready = sleeper.sleep(Some((socket.as_fd(), PollFlags::POLLIN)), None);
                if !matches!(ready, Ok(Woken::Ready)) {
                    continue;
                }
                if let Ok((tcp, _)) = socket.accept() {
                    // Linux does not inherit the flag, other systems do.
                    let _ = tcp.set_nonblocking(false);
                    let _ = tcp.set_nodelay(true);
                    on_connection(tcp);
                }
            }
        })?;
        Ok(Listener {
            address,
            waker,
            stop,
            thread: Some(thread),
        })
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        self.waker.wake();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
