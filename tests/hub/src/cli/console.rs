//! `hub console`: this terminal becomes the device's. Raw mode, which is left whatever ends
//! the command.

use super::escape::Escape;
use super::remote::{encode, unreachable};
use super::text;
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::pty::Winsize;
use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};
use serde_json::{Value as Json, json};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGWINCH};
use signal_hook::iterator::Signals;
use std::io::{self, IsTerminal, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixStream;
use std::thread;

nix::ioctl_read_bad!(get_window_size, libc::TIOCGWINSZ, Winsize);

/// Milliseconds without output after which a command whose input has ended is done.
const QUIET: u16 = 2000;

/// Puts this terminal on a device's shell until the person leaves.
pub fn run(control: &str, device: &str, local_shell: bool) -> Result<(), String> {
    let mut tcp = TcpStream::connect(control).map_err(|error| unreachable(control, &error))?;
    let (rows, cols) = size();
    let body = json!({"local_shell": local_shell, "rows": rows, "cols": cols}).to_string();
    let head = format!(
        "POST /devices/{}/console HTTP/1.1\r\nhost: {control}\r\ncontent-length: {}\r\n\r\n",
        encode(device),
        body.len()
    );
    tcp.write_all(format!("{head}{body}").as_bytes())
        .map_err(text)?;
    tcp.set_nodelay(true).map_err(text)?;
    let rest = read_head(&mut tcp)?;
    let what = if local_shell {
        "local shell"
    } else {
        "console"
    };
    eprintln!("[{what} of {device}; leave with Ctrl-], or ~. on a line of its own]");
    let signals = watch_signals().map_err(text)?;
    let raw = Raw::enter().map_err(text)?;
    let result = Session {
        tcp,
        signals,
        escape: Escape::default(),
        typed: vec![],
        received: rest,
    }
    .serve();
    drop(raw);
    eprintln!("\r\n[left {device}]");
    result.map_err(text)
}

/// Skips the answer's head; what came behind it, or why there is no terminal.
fn read_head(tcp: &mut TcpStream) -> Result<Vec<u8>, String> {
    let mut answer = vec![];
    let mut buffer = [0; 4096];
    let end = loop {
        if let Some(at) = answer.windows(4).position(|window| window == b"\r\n\r\n") {
            break at + 4;
        }
        match tcp.read(&mut buffer).map_err(text)? {
            0 => return Err("the hub gave no answer".into()),
            count => answer.extend_from_slice(&buffer[..count]),
        }
    };
    if answer.get(9..12) == Some(b"200") {
        return Ok(answer.split_off(end));
    }
    let mut body = answer.split_off(end);
    tcp.read_to_end(&mut body).map_err(text)?;
    let body: Json = serde_json::from_slice(&body).unwrap_or_default();
    Err(body["error"].as_str().unwrap_or("refused").to_owned())
}

/// Rows and columns of this terminal; what a terminal mostly has when there is none.
fn size() -> (u16, u16) {
    let mut size = Winsize {
        ws_row: 0,
        ws_col: 0,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    // SAFETY: the structure is the one the request fills in.
    let got = unsafe { get_window_size(io::stdin().as_raw_fd(), &raw mut size) };
    match got.is_ok() && size.ws_row > 0 && size.ws_col > 0 {
        true => (size.ws_row, size.ws_col),
        false => (24, 80),
    }
}

/// A byte comes for each signal.
fn watch_signals() -> io::Result<UnixStream> {
    let (mut writer, reader) = UnixStream::pair()?;
    let mut signals = Signals::new([SIGWINCH, SIGTERM, SIGHUP, SIGINT])?;
    thread::spawn(move || {
        for signal in signals.forever() {
            let byte = if signal == SIGWINCH { b'w' } else { b'q' };
            if writer.write_all(&[byte]).is_err() {
                return;
            }
        }
    });
    Ok(reader)
}

/// Raw mode; dropping it restores what was.
struct Raw(Option<Termios>);

impl Raw {
    fn enter() -> io::Result<Raw> {
        let stdin = io::stdin();
        if !stdin.is_terminal() {
            return Ok(Raw(None));
        }
        let before = tcgetattr(&stdin)?;
        let mut raw = before.clone();
        cfmakeraw(&mut raw);
        tcsetattr(&stdin, SetArg::TCSADRAIN, &raw)?;
        Ok(Raw(Some(before)))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            let _ = tcsetattr(io::stdin(), SetArg::TCSADRAIN, before);
        }
    }
}

struct Session {
    tcp: TcpStream,
    signals: UnixStream,
    escape: Escape,
    /// Typed bytes that are no whole character yet.
    typed: Vec<u8>,
    /// Received bytes that are no whole line yet.
    received: Vec<u8>,
}

impl Session {
    fn serve(mut self) -> io::Result<()> {
        let stdin = io::stdin();
        let mut typing = true;
        self.show()?;
        loop {
            let mut fds = vec![
                PollFd::new(self.tcp.as_fd(), PollFlags::POLLIN),
                PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
            ];
            if typing {
                fds.push(PollFd::new(stdin.as_fd(), PollFlags::POLLIN));
            }
            let patience = match typing {
                true => PollTimeout::NONE,
                false => PollTimeout::from(QUIET),
            };
            let count = match poll(&mut fds, patience) {
                Err(nix::errno::Errno::EINTR) => continue,
                count => count?,
            };
            let ready: Vec<bool> = fds.iter().map(|fd| fd.any() == Some(true)).collect();
            if count == 0 || (ready[0] && !self.receive()?) || (ready[1] && !self.on_signal()?) {
                return Ok(());
            }
            if ready.get(2) == Some(&true) {
                match self.type_keys(&stdin)? {
                    Typing::On => {}
                    Typing::Over => typing = false,
                    Typing::Leave => {
                        let _ = self.tcp.shutdown(Shutdown::Both);
                        return Ok(());
                    }
                }
            }
        }
    }

    fn type_keys(&mut self, stdin: &io::Stdin) -> io::Result<Typing> {
        let mut buffer = [0; 4096];
        // Past the buffer of `Stdin`, which poll knows nothing of.
        let count = nix::unistd::read(stdin, &mut buffer)?;
        if count == 0 {
            return Ok(Typing::Over);
        }
        let (bytes, leave) = self.escape.feed(&buffer[..count]);
        self.typed.extend(bytes);
        let whole = match std::str::from_utf8(&self.typed) {
            Ok(_) => self.typed.len(),
            Err(error) if error.error_len().is_none() => error.valid_up_to(),
            Err(_) => self.typed.len(),
        };
        let rest = self.typed.split_off(whole);
        let keys = std::mem::replace(&mut self.typed, rest);
        if !keys.is_empty() {
            self.send(&json!({"data": String::from_utf8_lossy(&keys)}))?;
        }
        Ok(if leave { Typing::Leave } else { Typing::On })
    }

    /// False when it is time to go.
    fn on_signal(&mut self) -> io::Result<bool> {
        let mut bytes = [0; 64];
        let count = self.signals.read(&mut bytes)?;
        if count == 0 || bytes[..count].contains(&b'q') {
            return Ok(false);
        }
        let (rows, cols) = size();
        self.send(&json!({"rows": rows, "cols": cols}))?;
        Ok(true)
    }

    fn send(&mut self, line: &Json) -> io::Result<()> {
        self.tcp.write_all(format!("{line}\n").as_bytes())
    }

    /// False when the hub has gone.
    fn receive(&mut self) -> io::Result<bool> {
        let mut buffer = [0; 16 * 1024];
        let count = self.tcp.read(&mut buffer)?;
        self.received.extend_from_slice(&buffer[..count]);
        self.show()?;
        Ok(count > 0)
    }

    fn show(&mut self) -> io::Result<()> {
        let mut out = io::stdout();
        while let Some(end) = self.received.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.received.drain(..=end).collect();
            let line: Json = serde_json::from_slice(&line).unwrap_or_default();
            if let Some(data) = line["data"].as_str() {
                out.write_all(data.as_bytes())?;
            }
            if let Some(note) = line["note"].as_str() {
                write!(out, "\r\n[hub: {note}]\r\n")?;
            }
        }
        out.flush()
    }
}

enum Typing {
    On,
    /// Nothing more comes from there.
    Over,
    Leave,
}
