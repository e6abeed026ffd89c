//! The kernel's log: a record with each read, each with a number of its own.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::libc;
use nix::time::{ClockId, clock_gettime};

use super::line::Line;
use super::retry::Retry;
use super::ring::Intake;
use super::sources::Source;
use super::syslog::source;
use crate::config::extensions::Severity;

/// Longest record; shorter buffers are refused.
const RECORD: usize = 8 * 1024;
/// Records read at a time.
const TURN: usize = 256;

pub struct Kmsg {
    path: PathBuf,
    file: Option<File>,
    /// Of the next record.
    expected: Option<u64>,
    retry: Retry,
    due: Option<Instant>,
}

impl Kmsg {
    /// From the next record on.
    pub fn new(path: PathBuf, now: Instant) -> Self {
        let mut kmsg = Self {
            path,
            file: None,
            expected: None,
            retry: Retry::default(),
            due: None,
        };
        kmsg.open(now);
        kmsg
    }

    fn open(&mut self, now: Instant) {
        self.due = None;
        let mut options = OpenOptions::new();
        options.read(true).custom_flags(libc::O_NONBLOCK);
        match options.open(&self.path) {
            Ok(mut file) => {
                // Anything but the kernel's device has no old records.
                let _ = file.seek(SeekFrom::End(0));
                self.retry.begin(now);
                (self.file, self.expected) = (Some(file), None);
            }
            Err(error) => self.fail(now, &error.to_string()),
        }
    }

    fn fail(&mut self, now: Instant, reason: &str) {
        self.file = None;
        let due = self.retry.again(now);
        self.due = Some(due);
        let (path, delay) = (self.path.display(), due - now);
        warn!("log source {path}: {reason}; tried again in {delay:?}");
    }

    fn on_record(&mut self, record: &str, uptime: Duration, intake: &Intake) {
        let Some((prefix, message)) = record.split_once(';') else {
            return;
        };
        let mut fields = prefix.split(',');
        let mut number = || fields.next()?.parse::<u64>().ok();
        let (Some(priority), Some(sequence), Some(micros)) = (number(), number(), number()) else {
            return;
        };
        let missing = self
            .expected
            .map_or(0, |next| sequence.saturating_sub(next));
        if missing > 0 {
            intake.lost(missing);
        }
        self.expected = Some(sequence + 1);
        // The kernel's own are of facility 0; the agent may log here, too.
        if priority >= 8 && message.starts_with("nerveshub-agent: ") {
            return;
        }
        let level = Severity::of_priority((priority & 7) as u32);
        let mut meta = source("kmsg");
        if priority < 8 {
            meta.push(("application".into(), "kernel".into()));
        }
        if let Some(mut line) = Line::new(level, message, meta) {
            let age = uptime.saturating_sub(Duration::from_micros(micros));
            line.at = line.at.checked_sub(age).unwrap_or(line.at);
            intake.put(line);
        }
    }
}

impl Source for Kmsg {
    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.file.as_ref().map(AsFd::as_fd)
    }

    fn due(&self) -> Option<Instant> {
        self.due
    }

    fn turn(&mut self, now: Instant, intake: &Intake) {
        if self.due.is_some_and(|due| due <= now) {
            self.open(now);
        }
        // What the kernel counts record times by.
        let uptime = clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(Duration::ZERO, Duration::from);
        let mut buffer = [0; RECORD];
        for _ in 0..TURN {
            let Some(file) = &mut self.file else {
                return;
            };
            match file.read(&mut buffer) {
                Ok(0) => return self.fail(now, "it ended"),
                Ok(length) => {
                    let records = String::from_utf8_lossy(&buffer[..length]);
                    // Behind a record, indented, are its device's names.
                    for record in records.lines().filter(|line| !line.starts_with(' ')) {
                        self.on_record(record, uptime, intake);
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // Overrun: the next record's number tells by how many.
                Err(error) if error.raw_os_error() == Some(libc::EPIPE) => {}
                Err(error) => return self.fail(now, &error.to_string()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    use nix::sys::stat::Mode;
    use nix::unistd::mkfifo;

    #[test]
    fn records_have_levels_times_and_gaps() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("kmsg");
        mkfifo(&path, Mode::S_IRWXU).unwrap();
        let mut kernel = OpenOptions::new()
            .read(true)
            .write(true)
            .open(&path)
            .unwrap();
        let (now, intake) = (Instant::now(), Intake::new(Severity::DEBUG, 100));
        let mut kmsg = Kmsg::new(path, now);
        let uptime = Duration::from(clock_gettime(ClockId::CLOCK_MONOTONIC).unwrap());
        let ago = |seconds| (uptime - Duration::from_secs(seconds)).as_micros();
        let said = [
            format!(
                "6,100,{},-;usb 1-1: useful\n SUBSYSTEM=usb\n DEVICE=+usb:1-1\n",
                ago(2)
            ),
            format!("3,101,{},-,caller=T1;EXT4-fs error\n", ago(1)),
            "30,102,1,-;nerveshub-agent: pushed\n30,103,1,-;app: said\nnonsense\n1,x;y\n"
                .to_owned(),
            "4,110,1,-;seven are missing\n".to_owned(),
        ];
        for record in &said {
            kernel.write_all(record.as_bytes()).unwrap();
            kmsg.turn(now, &intake);
        }
        let lines = intake.take(100, usize::MAX);
        let shown: Vec<_> = lines
            .iter()
            .map(|line| (line.level.name(), &*line.message))
            .collect();
        assert_eq!(
            shown,
            [
                ("info", "usb 1-1: useful"),
                ("error", "EXT4-fs error"),
                ("info", "app: said"),
                ("warning", "6 log lines were dropped"),
                ("warning", "seven are missing"),
            ]
        );
        let apart = (lines[1].at - lines[0].at).as_millis();
        assert!((900..1100).contains(&apart), "{apart}");
        assert!(now - lines[0].at >= Duration::from_millis(1900));
        assert_eq!(lines[0].meta[1].1, "kernel");
        assert_eq!(lines[2].meta.len(), 1);
    }

    #[test]
    fn one_that_is_not_there_is_tried_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("kmsg");
        let (now, intake) = (Instant::now(), Intake::new(Severity::DEBUG, 100));
        let mut kmsg = Kmsg::new(path.clone(), now);
        let due = kmsg.due().expect("another try");
        assert_eq!(due, now + Duration::from_secs(1));
        mkfifo(&path, Mode::S_IRWXU).unwrap();
        let mut kernel = OpenOptions::new()
            .read(true)
            .write(true)
            .open(&path)
            .unwrap();
        kmsg.turn(now, &intake);
        assert!(kmsg.descriptor().is_none(), "too early");
        kmsg.turn(due, &intake);
        assert!(kmsg.due().is_none() && kmsg.descriptor().is_some());
        kernel.write_all(b"6,1,1,-;there\n").unwrap();
        kmsg.turn(due, &intake);
        assert_eq!(intake.take(9, usize::MAX).len(), 1);
        // The writer is gone: so is what was read from.
        drop(kernel);
        kmsg.turn(due, &intake);
        assert!(kmsg.descriptor().is_none() && kmsg.due().is_some());
    }
}
