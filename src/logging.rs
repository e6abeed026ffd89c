//! Log lines: where they go, and what stands before the text there.
//!
//! Standard error has UTC times and levels; what adds times itself (systemd's journal,
//! syslog, the kernel's log) gets priorities instead.

use std::fmt::{self, Arguments};
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use env_logger::{Builder, Target};
use log::{Level, LevelFilter, Record};

use crate::config::LogTarget;
use crate::system::time;

/// Libraries whose own log would show signed URLs or handshakes.
const QUIET: [&str; 4] = ["ureq", "ureq_proto", "tungstenite", "rustls"];
const SYSLOG: &str = "/dev/log";
const KMSG: &str = "/dev/kmsg";
/// Syslog's facility for daemons.
const DAEMON: u8 = 3 << 3;

/// Who hears each line, too: on the thread that says it, and so without ever waiting.
pub type Tap = fn(&Record);
static TAP: OnceLock<Tap> = OnceLock::new();

/// Has `tap` hear each line from now on; the first one stays.
pub fn tap(tap: Tap) {
    let _ = TAP.set(tap);
}

/// Starts logging with an env_logger filter. Where `target` cannot be used, lines go to
/// standard error.
pub fn start(filter: &str, target: LogTarget) {
    let mut builder = Builder::new();
    builder.parse_filters(filter);
    for library in QUIET {
        builder.filter_module(library, LevelFilter::Warn);
    }
    let (target, problem) = match target {
        LogTarget::Stderr | LogTarget::Journal => (target, None),
        LogTarget::Syslog => pipe(&mut builder, target, Syslog::open(SYSLOG)),
        LogTarget::Kmsg => pipe(&mut builder, target, open_kmsg(Path::new(KMSG))),
    };
    builder.format(move |out, record| {
        if let Some(tap) = TAP.get() {
            tap(record);
        }
        write_line(target, out, record.level(), record.args())
    });
    // Only tests start it twice.
    let _ = builder.try_init();
    if let Some(problem) = problem {
        error!("{problem}; logging to standard error");
    }
}

fn write_line(
    target: LogTarget,
    out: &mut dyn Write,
    level: Level,
    text: &Arguments,
) -> io::Result<()> {
    let urgency = priority(level);
    match target {
        LogTarget::Stderr => {
            let now = time::iso8601(time::unix_now());
            write!(out, "{now} {level:<5} ")?;
        }
        LogTarget::Journal => write!(out, "<{urgency}>")?,
        LogTarget::Syslog => {
            let pid = std::process::id();
            write!(out, "<{}>nerveshub-agent[{pid}]: ", DAEMON | urgency)?;
        }
        LogTarget::Kmsg => write!(out, "<{}>nerveshub-agent: ", DAEMON | urgency)?,
    }
    // Formatting fails only because writing has.
    fmt::write(&mut OneLine(out), *text).map_err(|_| io::ErrorKind::WriteZero)?;
    match target {
        // A datagram has an end of its own.
        LogTarget::Syslog => Ok(()),
        LogTarget::Stderr | LogTarget::Journal | LogTarget::Kmsg => out.write_all(b"\n"),
    }
}

/// Whoever's text it is: it forges no line, and orders nothing of the terminal that shows it.
struct OneLine<'a>(&'a mut dyn Write);

impl fmt::Write for OneLine<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut gap = "";
        for piece in text.split(char::is_control) {
            for part in [gap, piece] {
                self.0.write_all(part.as_bytes()).map_err(|_| fmt::Error)?;
            }
            gap = " ";
        }
        Ok(())
    }
}

fn pipe(
    builder: &mut Builder,
    target: LogTarget,
    opened: Result<impl Write + Send + 'static, String>,
) -> (LogTarget, Option<String>) {
    match opened {
        Ok(pipe) => {
            builder.target(Target::Pipe(Box::new(pipe)));
            (target, None)
        }
        Err(problem) => (LogTarget::Stderr, Some(problem)),
    }
}

/// As syslog counts.
fn priority(level: Level) -> u8 {
    match level {
        Level::Error => 3,
        Level::Warn => 4,
        Level::Info => 6,
        Level::Debug | Level::Trace => 7,
    }
}

fn open_kmsg(path: &Path) -> Result<File, String> {
    let opened = OpenOptions::new().write(true).open(path);
    opened.map_err(|error| format!("NERVES_HUB_LOG_TARGET: {}: {error}", path.display()))
}

/// One datagram for each line. Never blocks, and finds a daemon that was started again.
struct Syslog {
    socket: UnixDatagram,
    path: PathBuf,
}

impl Syslog {
    fn open(path: impl Into<PathBuf>) -> Result<Self, String> {
        let path = path.into();
        let opened = UnixDatagram::unbound().and_then(|socket| {
            socket.set_nonblocking(true)?;
            socket.connect(&path)?;
            Ok(socket)
        });
        match opened {
            Ok(socket) => Ok(Self { socket, path }),
            Err(error) => Err(format!(
                "NERVES_HUB_LOG_TARGET: {}: {error}",
                path.display()
            )),
        }
    }
}

impl Write for Syslog {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let is_sent = self.socket.send(line).is_ok();
        if !is_sent && self.socket.connect(&self.path).is_ok() {
            let _ = self.socket.send(line);
        }
        // A line that nobody takes is lost: waiting would stop the agent.
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_target_gets_lines_it_understands() {
        let line = |target, level| {
            let mut out = Vec::new();
            write_line(target, &mut out, level, &format_args!("hello")).unwrap();
            String::from_utf8(out).unwrap()
        };
        let stderr = line(LogTarget::Stderr, Level::Warn);
        assert!(stderr.ends_with("Z WARN  hello\n"), "{stderr}");
        assert_eq!(line(LogTarget::Journal, Level::Warn), "<4>hello\n");
        let pid = std::process::id();
        let expected = format!("<27>nerveshub-agent[{pid}]: hello");
        assert_eq!(line(LogTarget::Syslog, Level::Error), expected);
        for (level, priority) in [
            (Level::Error, 27),
            (Level::Warn, 28),
            (Level::Info, 30),
            (Level::Debug, 31),
            (Level::Trace, 31),
        ] {
            let expected = format!("<{priority}>nerveshub-agent: hello\n");
            assert_eq!(line(LogTarget::Kmsg, level), expected);
        }
    }

    #[test]
    fn text_of_others_neither_ends_a_line_nor_orders_a_terminal() {
        let text = "a\x1b[2Jb\r\n<0>c\u{9b}d\te\0";
        for target in [
            LogTarget::Stderr,
            LogTarget::Journal,
            LogTarget::Syslog,
            LogTarget::Kmsg,
        ] {
            let mut out = Vec::new();
            write_line(target, &mut out, Level::Info, &format_args!("{text}é")).unwrap();
            let line = String::from_utf8(out).unwrap();
            let line = line.strip_suffix('\n').unwrap_or(&line);
            assert!(line.ends_with("a [2Jb  <0>c d e é"), "{line:?}");
        }
    }

    #[test]
    fn the_kernel_s_log_gets_a_write_a_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("kmsg");
        let problem = open_kmsg(&path).unwrap_err();
        assert!(problem.starts_with("NERVES_HUB_LOG_TARGET: "), "{problem}");
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let reader = OpenOptions::new().read(true).write(true).open(&path);
        let mut log = open_kmsg(&path).unwrap();
        log.write_all(b"<30>one\n").unwrap();
        let mut buffer = [0; 100];
        let length = io::Read::read(&mut reader.unwrap(), &mut buffer).unwrap();
        assert_eq!(&buffer[..length], b"<30>one\n");
    }

    #[test]
    fn syslog_gets_a_datagram_a_line_also_after_its_restart_and_may_be_away() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        assert!(Syslog::open(&path).is_err());
        let daemon = || {
            // What the last one left behind.
            let _ = std::fs::remove_file(&path);
            let socket = UnixDatagram::bind(&path).unwrap();
            let timeout = std::time::Duration::from_secs(10);
            socket.set_read_timeout(Some(timeout)).unwrap();
            socket
        };
        let first = daemon();
        let mut log = Syslog::open(&path).unwrap();
        let heard = |socket: &UnixDatagram| {
            let mut buffer = [0; 100];
            let length = socket.recv(&mut buffer).unwrap();
            String::from_utf8(buffer[..length].to_vec()).unwrap()
        };
        log.write_all(b"<30>one").unwrap();
        log.write_all(b"<30>two").unwrap();
        assert_eq!(
            (heard(&first), heard(&first)),
            ("<30>one".into(), "<30>two".into())
        );
        drop(first);
        log.write_all(b"<30>lost").unwrap();
        let second = daemon();
        log.write_all(b"<30>three").unwrap();
        assert_eq!(heard(&second), "<30>three");
        // Nobody reads: nobody waits.
        for _ in 0..10_000 {
            log.write_all(b"<30>four").unwrap();
        }
    }
}
