//! A connected byte stream, plain or TLS, that never blocks in read or write: waiting is
//! explicit, with a deadline and a waker.

use std::io::{self, Read, Write};
use std::net::{IpAddr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Instant;

use nix::libc;
use nix::poll::PollFlags;
use nix::sys::socket::setsockopt;
use nix::{setsockopt_impl, sockopt_impl};
use rustls::{ClientConnection, StreamOwned};

use super::waker::{self, Waker, Woken};

sockopt_impl!(
    /// How much the kernel takes ahead of what it sends.
    NotSentLowWater,
    SetOnly,
    libc::IPPROTO_TCP,
    libc::TCP_NOTSENT_LOWAT,
    u32
);

/// TCP, or TLS on TCP. Reads and writes answer `WouldBlock` instead of waiting.
pub enum Stream {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Stream {
    fn tcp(&self) -> &TcpStream {
        match self {
            Self::Plain(tcp) => tcp,
            Self::Tls(tls) => &tls.sock,
        }
    }

    /// The kernel takes no more than so many bytes ahead of what it can send, instead of
    /// megabytes that everything after them waits for.
    ///
    /// # Errors
    /// Kernels before 3.12.
    pub fn keep_little_unsent(&self, bytes: u32) -> io::Result<()> {
        Ok(setsockopt(self.tcp(), NotSentLowWater, &bytes)?)
    }

    /// Our address on the connection.
    pub fn local_ip(&self) -> Option<IpAddr> {
        self.tcp().local_addr().ok().map(|address| address.ip())
    }

    /// Sleeps until the socket is ready for `events`.
    ///
    /// # Errors
    /// See [`waker::wait`].
    pub fn wait(
        &self,
        events: PollFlags,
        deadline: Option<Instant>,
        waker: &Waker,
    ) -> io::Result<Woken> {
        waker::wait(self.tcp().as_fd(), events, deadline, waker)
    }

    /// Runs a non-blocking step until it is through, sleeping in between.
    ///
    /// # Errors
    /// The step's own; `TimedOut` at the deadline; `Interrupted` when knocked at.
    pub fn drive<T>(
        &mut self,
        events: PollFlags,
        deadline: Instant,
        waker: &Waker,
        mut step: impl FnMut(&mut Self) -> io::Result<T>,
    ) -> io::Result<T> {
        loop {
            match step(self) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                done => return done,
            }
            match self.wait(events, Some(deadline), waker)? {
                Woken::Ready => {}
                Woken::Knocked => return Err(io::ErrorKind::Interrupted.into()),
                Woken::DeadlinePassed => return Err(io::ErrorKind::TimedOut.into()),
            }
        }
    }

    /// Sends all of `bytes`.
    ///
    /// # Errors
    /// See [`Stream::drive`].
    pub fn send_all(
        &mut self,
        mut bytes: &[u8],
        deadline: Instant,
        waker: &Waker,
    ) -> io::Result<()> {
        while !bytes.is_empty() {
            let count = self.drive(PollFlags::POLLOUT, deadline, waker, |stream| {
                stream.write(bytes)
            })?;
            if count == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            bytes = &bytes[count..];
        }
        self.drive(PollFlags::POLLOUT, deadline, waker, Self::flush)
    }

    /// Receives something into `buffer`; 0 at the end of the stream.
    ///
    /// # Errors
    /// See [`Stream::drive`].
    pub fn receive(
        &mut self,
        buffer: &mut [u8],
        deadline: Instant,
        waker: &Waker,
    ) -> io::Result<usize> {
        self.drive(PollFlags::POLLIN, deadline, waker, |stream| {
            stream.read(buffer)
        })
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(tcp) => tcp.read(buffer),
            Self::Tls(tls) => tls.read(buffer),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(tcp) => tcp.write(bytes),
            Self::Tls(tls) => tls.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(tcp) => tcp.flush(),
            Self::Tls(tls) => tls.flush(),
        }
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.tcp().as_fd()
    }
}
