//! One client of the control socket: its lines in, its lines out, and when it has to go.
//! Memory is bounded by `MAX_LINE` one way and `MAX_OUTPUT` the other.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use nix::poll::PollFlags;

use crate::core::event::{ClientId, ControlEvent, QuestionId};
use crate::wire::control::{self, Code, Incoming, MAX_LINE, Outgoing};

/// Bytes waiting for a client; more means that it does not read.
const MAX_OUTPUT: usize = 64 * 1024;
/// Requests of one client that are not answered yet; further ones wait in its socket.
const MAX_UNANSWERED: u32 = 8;
/// A client that has nothing to say makes room for others.
pub(super) const FIRST_LINE: Duration = Duration::from_secs(30);
/// Bytes may wait this long for a client to take some.
pub(super) const WRITE_PATIENCE: Duration = Duration::from_secs(30);
const READ_AT_ONCE: usize = 4096;

pub(super) struct Client {
    pub id: ClientId,
    pub stream: UnixStream,
    /// The core has heard of it.
    pub is_known: bool,
    input: Vec<u8>,
    output: Vec<u8>,
    unanswered: u32,
    state: State,
    /// For its first line.
    patience: Option<Instant>,
    stuck_since: Option<Instant>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Open,
    /// It says no more; what it asked for is answered still.
    Finishing,
    Gone,
}

/// A line of a client.
pub(super) enum Said {
    Event(ControlEvent),
    /// And what to say to that.
    Nonsense(Outgoing),
}

impl Client {
    pub fn new(id: ClientId, stream: UnixStream, now: Instant) -> Self {
        Self {
            id,
            stream,
            is_known: false,
            input: Vec::new(),
            output: Vec::new(),
            unanswered: 0,
            state: State::Open,
            patience: Some(now + FIRST_LINE),
            stuck_since: None,
        }
    }

    /// What to wait for. Its end is always noticed.
    pub fn interest(&self) -> PollFlags {
        let mut events = PollFlags::empty();
        if self.may_read() {
            events |= PollFlags::POLLIN;
        }
        if !self.output.is_empty() {
            events |= PollFlags::POLLOUT;
        }
        events
    }

    fn may_read(&self) -> bool {
        self.state == State::Open && self.unanswered < MAX_UNANSWERED
    }

    pub fn deadline(&self) -> Option<Instant> {
        let stuck = self.stuck_since.map(|since| since + WRITE_PATIENCE);
        self.patience.into_iter().chain(stuck).min()
    }

    pub fn stays(&self, now: Instant) -> bool {
        let is_done = self.unanswered == 0 && self.output.is_empty();
        match self.state {
            State::Gone => false,
            State::Finishing if is_done => false,
            State::Open | State::Finishing => self.deadline().is_none_or(|at| at > now),
        }
    }

    pub fn give_up(&mut self) {
        self.state = State::Gone;
    }

    pub fn on_ready(&mut self, ready: PollFlags) {
        if self.may_read() && ready.contains(PollFlags::POLLIN) {
            self.read();
        } else if ready.intersects(PollFlags::POLLHUP | PollFlags::POLLERR | PollFlags::POLLNVAL) {
            self.give_up();
        }
    }

    fn read(&mut self) {
        let mut bytes = [0; READ_AT_ONCE];
        match self.stream.read(&mut bytes) {
            Ok(0) => {
                self.state = State::Finishing;
                // A last line without its end is a line.
                if !self.input.is_empty() {
                    self.input.push(b'\n');
                }
            }
            Ok(count) => self.input.extend_from_slice(&bytes[..count]),
            Err(error)
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            Err(_) => self.give_up(),
        }
    }

    /// The next line, when it is whole and its turn has come.
    pub fn next(&mut self) -> Option<Said> {
        loop {
            if self.unanswered >= MAX_UNANSWERED || self.state == State::Gone {
                return None;
            }
            let end = self.input.iter().position(|byte| *byte == b'\n');
            let Some(end) = end.filter(|end| *end <= MAX_LINE) else {
                return self.check_length();
            };
            let said = match self.input[..end].trim_ascii() {
                [] => None,
                line => Some(control::parse(line)),
            };
            self.input.drain(..=end);
            if self.input.is_empty() {
                self.input = Vec::new();
            }
            if let Some(said) = said {
                self.patience = None;
                return Some(self.sort(said));
            }
        }
    }

    /// Where such a line ends is not looked for: its client has to go.
    fn check_length(&mut self) -> Option<Said> {
        if self.input.len() <= MAX_LINE {
            return None;
        }
        self.input = Vec::new();
        self.state = State::Finishing;
        let text = format!("a line has {MAX_LINE} bytes at most");
        Some(Said::Nonsense(Outgoing::nonsense(Code::BadRequest, text)))
    }

    fn sort(&mut self, said: Result<Incoming, Outgoing>) -> Said {
        let event = match said {
            Err(answer) => return Said::Nonsense(answer),
            Ok(Incoming::Request(request)) => ControlEvent::Asked(request),
            Ok(Incoming::Verdict { question, text }) => ControlEvent::Answered {
                question: QuestionId(question),
                text,
            },
        };
        self.is_known = true;
        self.unanswered += 1;
        Said::Event(event)
    }

    /// From the core.
    pub fn tell(&mut self, said: &Outgoing) {
        if said.is_answer() {
            self.unanswered = self.unanswered.saturating_sub(1);
        }
        self.send(&said.line());
    }

    pub fn send(&mut self, line: &str) {
        if self.output.len() + line.len() > MAX_OUTPUT {
            // In a burst, what came first has not been tried yet.
            self.flush(Instant::now());
        }
        if self.output.len() + line.len() > MAX_OUTPUT {
            warn!("control client {} does not read: dropped", self.id.0);
            return self.give_up();
        }
        self.output.extend_from_slice(line.as_bytes());
    }

    /// Writes what the kernel takes.
    pub fn flush(&mut self, now: Instant) {
        while self.state != State::Gone && !self.output.is_empty() {
            match self.stream.write(&self.output) {
                Ok(0) => self.give_up(),
                Ok(count) => {
                    self.output.drain(..count);
                    self.stuck_since = None;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.stuck_since.get_or_insert(now);
                    return;
                }
                Err(_) => self.give_up(),
            }
        }
        self.output = Vec::new();
    }
}
