//! Threads `console` and `local-shell`: one live shell each, on a terminal of its own.
//!
//! Sleeps in `poll(2)` on the terminal, the shell's end and a waker. Bounds on every side:
//! output is read only when the last was taken, keys wait while the program reads none.
//! Decides nothing: when there is a shell is the core's business.

mod account;
mod pty;
mod session;
#[cfg(test)]
mod tests;
mod text;

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::signal::kill;
use nix::sys::termios::{FlushArg, tcflush};
use nix::unistd::{Pid, tcgetpgrp};

use crate::config::ShellSettings;
use crate::core::event::{Event, ShellEnd, ShellEvent, ShellId};
use crate::system::channel::{Receiver, Sender, TryRecvError};
use crate::system::waker::{Waker, timeout_until};
use crate::wire::WindowSize;
use pty::Pty;
use text::Decoder;

/// Orders waiting for the thread.
pub const QUEUE: usize = 256;
/// Bytes of keys that wait while the program reads none; more are dropped.
pub const BACKLOG: usize = 64 * 1024;
/// One read of the terminal.
const READ: usize = 4096;
/// Text that waits for its turn, above which nothing is read: a read may treble it, so no
/// push is larger than 16 KiB.
const WAITING: usize = 4096;
/// What a shell left in its terminal is read to here, even if its children go on.
const LAST_WORDS: usize = 64 * 1024;
const CTRL_C: u8 = 3;
/// How often kernels that tell no process's end are asked for it.
const LOOK: Duration = Duration::from_millis(500);

/// To the thread. Dropping the sender ends the shell.
#[derive(Debug)]
pub enum Order {
    Input(Vec<u8>),
    Resize(WindowSize),
    Signal(i32),
    More { pace: Duration },
}

/// Whom shells run as.
///
/// # Errors
/// None can be started: there is no such user, or the agent may not become it.
pub fn user(settings: &ShellSettings) -> Result<String, String> {
    account::Account::find(settings).map(|account| account.name)
}

/// Starts a shell and serves it to its end, which is the last event.
///
/// # Errors
/// None; failures are in [`ShellEnd`].
pub fn run(
    id: ShellId,
    settings: &ShellSettings,
    size: WindowSize,
    orders: &Receiver<Order>,
    waker: &Waker,
    inbox: &Sender<Event>,
) -> Result<(), String> {
    let tell = |event| {
        // The dispatcher is gone only when the process leaves.
        let _ = inbox.send(Event::Shell(id, event));
    };
    let end = match Pty::start(settings, size) {
        Err(reason) => ShellEnd::NotStarted(reason),
        Ok(pty) => {
            let (pid, program) = (pty.pid(), pty.program.clone());
            tell(ShellEvent::Started { pid, program });
            let mut shell = Shell::new(pty, orders, waker);
            let served = shell.serve(&tell);
            if let Err(error) = served {
                error!("{}: {error}", id.kind.name());
            }
            shell.end()
        }
    };
    tell(ShellEvent::Ended(end));
    Ok(())
}

struct Shell<'a> {
    pty: Pty,
    orders: &'a Receiver<Order>,
    waker: &'a Waker,
    /// Keys the terminal has not taken.
    input: VecDeque<u8>,
    decoder: Decoder,
    /// Output whose turn has not come.
    text: String,
    /// More may be said, from then on.
    may_speak: Option<Instant>,
    spoke: Instant,
    /// The program has ended; so many bytes were read since.
    last_words: Option<usize>,
    /// Nothing more is to be read.
    silent: bool,
}

impl<'a> Shell<'a> {
    fn new(pty: Pty, orders: &'a Receiver<Order>, waker: &'a Waker) -> Self {
        let now = Instant::now();
        Self {
            pty,
            orders,
            waker,
            input: VecDeque::new(),
            decoder: Decoder::default(),
            text: String::new(),
            may_speak: Some(now),
            spoke: now,
            last_words: None,
            silent: false,
        }
    }

    /// Until the program has ended and its last words were taken, or the end is ordered.
    fn serve(&mut self, tell: &impl Fn(ShellEvent)) -> io::Result<()> {
        loop {
            // Knocks first, then the queue: an order after this is another knock.
            self.waker.reset();
            if !self.take_orders() {
                return Ok(());
            }
            self.write_input();
            if self.last_words.is_none() && self.pty.has_ended() {
                self.last_words = Some(0);
            }
            self.read_output();
            self.speak(tell);
            if self.silent && self.text.is_empty() {
                return Ok(());
            }
            self.sleep()?;
        }
    }

    /// False when the end is ordered.
    fn take_orders(&mut self) -> bool {
        loop {
            match self.orders.try_recv() {
                Ok(Order::Input(keys)) => self.take_keys(&keys),
                Ok(Order::Resize(size)) => self.pty.resize(size),
                Ok(Order::Signal(signal)) => self.signal(signal),
                Ok(Order::More { pace }) => self.may_speak = Some(self.spoke + pace),
                Err(TryRecvError::Empty) => return true,
                Err(TryRecvError::Disconnected) => return false,
            }
        }
    }

    fn take_keys(&mut self, keys: &[u8]) {
        if keys == [CTRL_C] && !self.input.is_empty() {
            self.drop_keys();
        }
        let room = BACKLOG - self.input.len();
        if keys.len() > room {
            warn!(
                "the shell reads no keys; {} bytes dropped",
                keys.len() - room
            );
        }
        self.input.extend(keys.iter().take(room));
    }

    /// Everything typed that nobody has read: a Ctrl-C behind it would wait as it does, and
    /// a shell would run it afterwards.
    fn drop_keys(&mut self) {
        self.input.clear();
        let _ = tcflush(&self.pty.master, FlushArg::TCOFLUSH);
        let _ = tcflush(&self.pty.slave, FlushArg::TCIFLUSH);
    }

    fn write_input(&mut self) {
        while !self.input.is_empty() {
            let (keys, _) = self.input.as_slices();
            match self.pty.master.write(keys) {
                Ok(0) => return,
                Ok(count) => drop(self.input.drain(..count)),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                // A terminal that is gone takes no keys; that it is gone shows elsewhere.
                Err(_) => self.input.clear(),
            }
        }
    }

    /// To the program, and to what it runs in the foreground.
    fn signal(&self, number: i32) {
        let Ok(signal) = nix::sys::signal::Signal::try_from(number) else {
            return warn!("signal {number} cannot be sent");
        };
        let shell = Pid::from_raw(self.pty.pid());
        if let Ok(group) = tcgetpgrp(&self.pty.master)
            && group != shell
            && group.as_raw() > 1
        {
            let _ = nix::sys::signal::killpg(group, signal);
        }
        if let Err(error) = kill(shell, signal) {
            warn!("signal {number} to process {shell}: {error}");
        }
    }

    fn has_room(&self) -> bool {
        !self.silent && self.text.len() <= WAITING
    }

    fn read_output(&mut self) {
        let mut buffer = [0; READ];
        while self.has_room() {
            let count = match self.pty.master.read(&mut buffer) {
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.silent = self.last_words.is_some();
                    break;
                }
                Err(_) => 0,
            };
            self.decoder.decode(&buffer[..count], &mut self.text);
            self.last_words = self.last_words.map(|words| words + count);
            self.silent = count == 0 || self.last_words.is_some_and(|words| words >= LAST_WORDS);
        }
        if self.silent {
            self.decoder.end(&mut self.text);
        }
    }

    fn speak(&mut self, tell: &impl Fn(ShellEvent)) {
        let now = Instant::now();
        if !self.text.is_empty() && self.may_speak.is_some_and(|at| at <= now) {
            self.may_speak = None;
            self.spoke = now;
            tell(ShellEvent::Output(std::mem::take(&mut self.text)));
        }
    }

    fn sleep(&self) -> io::Result<()> {
        let mut events = PollFlags::empty();
        events.set(PollFlags::POLLIN, self.has_room());
        events.set(PollFlags::POLLOUT, !self.input.is_empty());
        let mut fds = vec![PollFd::new(self.waker.as_fd(), PollFlags::POLLIN)];
        if !events.is_empty() {
            fds.push(PollFd::new(self.pty.as_fd(), events));
        }
        let mut deadline = self.may_speak.filter(|_| !self.text.is_empty());
        if self.last_words.is_none() {
            match &self.pty.exit {
                Some(exit) => fds.push(PollFd::new(exit.as_fd(), PollFlags::POLLIN)),
                None => {
                    let look = Instant::now() + LOOK;
                    deadline = Some(deadline.map_or(look, |at| at.min(look)));
                }
            }
        }
        match poll(&mut fds, timeout_until(deadline)) {
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Nobody listens any more: what is still said is read and dropped.
    fn end(mut self) -> ShellEnd {
        let Pty { child, master, .. } = &mut self.pty;
        session::end(child, || {
            let mut buffer = [0; READ];
            let mut left = LAST_WORDS / READ;
            while left > 0 && master.read(&mut buffer).is_ok_and(|count| count > 0) {
                left -= 1;
            }
        })
    }
}
