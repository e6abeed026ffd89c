//! The extension as the core sees it: words in, pushes out, over real files and programs.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::thread::JoinHandle;
use std::time::Duration;

use crate::system::channel::{Receiver, bounded};
use log::Level;
use serde_json::json;

use super::*;
use crate::config::ExtensionSettings;
use crate::config::extensions::LoggingSettings;
use crate::core::event::{Event, ExtensionEvent, ExtensionId};
use crate::extensions::link::Handle;

const PATIENCE: Duration = Duration::from_secs(20);

/// The extension at work, and the core's end of its link.
struct Bench {
    inbox: Receiver<Event>,
    handle: Handle,
    intake: Arc<Intake>,
    thread: Option<JoinHandle<Result<(), String>>>,
    pushes: usize,
}

impl Bench {
    fn new(sources: &[LogSource], buffer: usize, folder: &Path) -> Self {
        let settings = LoggingSettings {
            sources: sources.to_vec(),
            level: Severity::DEBUG,
            buffer,
            syslog_file: folder.join("messages"),
        };
        let intake = Arc::new(Intake::new(settings.level, buffer));
        let site = Site {
            settings: ExtensionSettings {
                logging: settings,
                ..ExtensionSettings::default()
            },
            data_path: folder.to_owned(),
            ..Site::default()
        };
        let mut extension = Logging::new(Arc::new(site), Arc::clone(&intake));
        extension.places.kmsg = folder.join("kmsg");
        let journalctl = folder.join("journalctl").display().to_string();
        extension.places.journalctl = journalctl.leak();
        let (sender, inbox) = bounded(256);
        let (mut link, handle) = Link::new(ExtensionId(0), sender);
        let thread = std::thread::spawn(move || extension.run(&mut link));
        let mut bench = Self {
            inbox,
            handle,
            intake,
            thread: Some(thread),
            pushes: 0,
        };
        // Once it listens, its sources are open.
        assert!(bench.ask("status", json!({})).is_err());
        bench
    }

    fn attach(&self, version: &str) {
        let version = version.to_owned();
        assert!(self.handle.say(Word::Attached { version }));
    }

    fn receive(&self) -> ExtensionEvent {
        match self.inbox.recv_timeout(PATIENCE).expect("an event") {
            Event::Extension(_, event) => event,
            other => panic!("{other:?}"),
        }
    }

    fn ask(&mut self, what: &str, params: Value) -> Result<Value, String> {
        let what = what.to_owned();
        let (question, alarms) = (7, vec![]);
        assert!(self.handle.say(Word::Asked {
            question,
            what,
            params,
            alarms
        }));
        loop {
            match self.receive() {
                ExtensionEvent::Answer { answer, .. } => return answer,
                ExtensionEvent::Idle => {}
                other => panic!("{other:?}"),
            }
        }
    }

    /// The lines of the next push.
    fn push(&mut self) -> Vec<Value> {
        loop {
            match self.receive() {
                ExtensionEvent::Push { event, mut payload } => {
                    assert_eq!(event, "send");
                    self.pushes += 1;
                    return match payload["lines"].take() {
                        Value::Array(lines) => lines,
                        _ => vec![payload],
                    };
                }
                ExtensionEvent::Idle => {}
                other => panic!("{other:?}"),
            }
        }
    }

    /// The messages of the next so many lines.
    fn messages(&mut self, count: usize) -> Vec<String> {
        let mut messages = Vec::new();
        while messages.len() < count {
            let lines = self.push();
            messages.extend(lines.iter().map(|line| text(&line["message"])));
        }
        messages
    }

    fn end(&mut self) {
        self.handle.end();
        let thread = self.thread.take().expect("once");
        let deadline = Instant::now() + PATIENCE;
        while !thread.is_finished() {
            assert!(Instant::now() < deadline, "it does not end");
            // It may still have something to say.
            let _ = self.inbox.recv_timeout(Duration::from_millis(5));
        }
        assert_eq!(thread.join().expect("no panic"), Ok(()));
    }
}

fn text(value: &Value) -> String {
    value.as_str().expect("a text").to_owned()
}

fn append(path: &Path, text: &str) {
    let mut options = OpenOptions::new();
    let mut file = options.create(true).append(true).open(path).unwrap();
    file.write_all(text.as_bytes()).unwrap();
}

fn program(path: &Path, text: &str) {
    fs::write(path, format!("#!/bin/sh\n{text}\n")).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

#[test]
fn a_clients_line_waits_until_it_is_wanted() {
    let folder = folder();
    let mut bench = Bench::new(&[], 10, folder.path());
    let queued = Ok(json!({"queued": true}));
    let meta = json!({"door": "left", "count": 3, "time": "0"});
    let line = json!({"level": "warn", "message": "open", "meta": meta});
    assert_eq!(bench.ask("line", line), queued);
    assert_eq!(bench.ask("line", json!({"message": "again"})), queued);
    let before = unix_micros();
    bench.attach("0.0.1");
    let line = bench.push().remove(0);
    assert_eq!(
        (text(&line["level"]), text(&line["message"])),
        ("warning".into(), "open".into())
    );
    let meta = line["meta"].as_object().unwrap();
    assert!(meta.values().all(Value::is_string), "{meta:?}");
    assert_eq!(
        (text(&meta["door"]), text(&meta["count"])),
        ("left".into(), "3".into())
    );
    let time: i64 = text(&meta["time"]).parse().unwrap();
    assert!(
        (before - 10_000_000..before).contains(&time),
        "{time}, {before}"
    );
    assert_eq!(bench.messages(1), ["again"]);
    for (bad, part) in [
        (json!({}), "\"message\""),
        (json!({"message": ""}), "\"message\""),
        (json!({"message": "x", "level": "loud"}), "\"loud\""),
        (json!({"message": "x", "level": 3}), "\"level\""),
        (json!({"message": "x", "meta": []}), "\"meta\""),
    ] {
        let error = bench.ask("line", bad).unwrap_err();
        assert!(error.contains(part), "{error}");
    }
    bench.end();
}

#[test]
fn batches_hold_what_has_gathered() {
    let folder = folder();
    let mut bench = Bench::new(&[], 1000, folder.path());
    for number in 0..150 {
        let line = json!({"message": number.to_string()});
        bench.ask("line", line).unwrap();
    }
    bench.attach("0.1.0");
    assert_eq!(bench.push().len(), 100);
    let begun = Instant::now();
    assert_eq!(bench.push().len(), 50);
    assert!(begun.elapsed() > Duration::from_millis(900));
    bench.end();
}

#[test]
fn lines_are_held_while_the_hub_is_away() {
    let folder = folder();
    let mut bench = Bench::new(&[], 10, folder.path());
    bench.attach("0.0.1");
    bench.ask("line", json!({"message": "one"})).unwrap();
    assert_eq!(bench.messages(1), ["one"]);
    assert!(bench.handle.say(Word::Away));
    for message in ["two", "three"] {
        // Nothing may be pushed before the answer.
        bench.ask("line", json!({ "message": message })).unwrap();
    }
    bench.attach("0.0.1");
    assert_eq!(bench.messages(2), ["two", "three"]);
    bench.end();
}

#[test]
fn a_file_is_followed_wherever_it_goes() {
    let folder = folder();
    let path = folder.path().join("messages");
    append(&path, "of the past\nbegun before");
    let mut bench = Bench::new(&[LogSource::Syslog], 100, folder.path());
    bench.attach("0.0.1");
    append(&path, " the start\nJan  2 03:04:05 box app[3]: one\ntw");
    assert_eq!(bench.messages(1), ["one"]);
    append(&path, "o\n");
    assert_eq!(bench.messages(1), ["two"]);
    // Renamed; its writer has not heard of it yet, nor when the new one is there.
    let old = folder.path().join("messages.0");
    fs::rename(&path, &old).unwrap();
    append(&old, "three\n");
    assert_eq!(bench.messages(1), ["three"]);
    File::create(&path).unwrap();
    append(&old, "four\nwithout end");
    assert_eq!(bench.messages(1), ["four"]);
    append(&path, "five\n");
    assert_eq!(bench.messages(2), ["without end", "five"]);
    // Copied and emptied.
    fs::copy(&path, &old).unwrap();
    let emptied = OpenOptions::new().write(true).open(&path).unwrap();
    emptied.set_len(0).unwrap();
    append(&path, "6\n");
    assert_eq!(bench.messages(1), ["6"]);
    // Removed, and made again.
    fs::remove_file(&path).unwrap();
    append(&path, "seven\n");
    assert_eq!(bench.messages(1), ["seven"]);
    // Replaced at once.
    let next = folder.path().join("next");
    append(&next, "eight\n");
    fs::rename(&next, &path).unwrap();
    assert_eq!(bench.messages(1), ["eight"]);
    bench.end();
}

#[test]
fn a_file_may_come_later_and_its_folder_too() {
    let folder = folder();
    let late = folder.path().join("late");
    let mut bench = Bench::new(&[LogSource::Syslog], 100, &late);
    bench.attach("0.0.1");
    fs::create_dir(&late).unwrap();
    append(&late.join("messages"), "there\n");
    assert_eq!(bench.messages(1), ["there"]);
    fs::rename(&late, folder.path().join("elsewhere")).unwrap();
    fs::create_dir(&late).unwrap();
    append(&late.join("messages"), "another\n");
    assert_eq!(bench.messages(1), ["another"]);
    bench.end();
}

#[test]
fn nothing_wakes_a_follower_but_its_file() {
    let folder = folder();
    let path = folder.path().join("messages");
    let (now, intake) = (Instant::now(), Intake::new(Severity::DEBUG, 9));
    let mut follower = Follower::new(path.clone(), syslog::line, now);
    assert_eq!(follower.due(), None, "no file");
    append(&path, "here\n");
    follower.turn(now, &intake);
    assert_eq!(follower.due(), None, "a file");
    fs::remove_file(&path).unwrap();
    follower.turn(now, &intake);
    assert_eq!(follower.due(), None, "a file without a name");
    assert_eq!(intake.take(9, usize::MAX).len(), 1);
    // What the kernel does not tell of is looked at.
    std::os::unix::fs::symlink(folder.path().join("target"), &path).unwrap();
    follower.turn(now, &intake);
    assert_eq!(follower.due(), Some(now + Duration::from_secs(1)));
    let none = Follower::new(folder.path().join("no/messages"), syslog::line, now);
    assert_eq!(none.due(), Some(now + Duration::from_secs(1)));
}

#[test]
fn the_journal_is_read_and_its_reader_ends_with_us() {
    let folder = folder();
    let (pid, arguments) = (folder.path().join("pid"), folder.path().join("arguments"));
    let script = format!(
        "echo \"$@\" > {}\n\
         echo '{{\"MESSAGE\":\"up\",\"PRIORITY\":\"4\",\"_SYSTEMD_UNIT\":\"a.service\",\"_PID\":\"7\"}}'\n\
         echo '{{\"MESSAGE\":[104,195,164,255,0],\"PRIORITY\":\"3\"}}'\n\
         echo $$ > {}\nsleep 1000",
        arguments.display(),
        pid.display()
    );
    program(&folder.path().join("journalctl"), &script);
    let mut bench = Bench::new(&[LogSource::Journald], 100, folder.path());
    bench.attach("0.0.1");
    let first = bench.push().remove(0);
    assert_eq!(text(&first["level"]), "warning");
    assert_eq!(text(&first["meta"]["unit"]), "a.service");
    assert_eq!(bench.messages(1), ["hä\u{fffd}\0"]);
    let arguments = fs::read_to_string(arguments).unwrap();
    assert!(arguments.starts_with("-o json -f -n 0 "), "{arguments}");
    let deadline = Instant::now() + PATIENCE;
    let pid = loop {
        match fs::read_to_string(&pid).map(|pid| pid.trim().parse::<u32>()) {
            Ok(Ok(pid)) => break pid,
            _ => assert!(Instant::now() < deadline, "no pid"),
        }
    };
    let is_there = || Path::new(&format!("/proc/{pid}")).exists();
    assert!(is_there());
    bench.end();
    assert!(!is_there());
}

#[test]
fn a_command_that_ends_is_run_again() {
    let folder = folder();
    let count = folder.path().join("count");
    let text = format!(
        "echo x >> {0}; echo \"<4>run $(wc -l < {0})\"; printf end",
        count.display()
    );
    let mut bench = Bench::new(&[LogSource::Command(text)], 100, folder.path());
    let begun = Instant::now();
    bench.attach("0.0.1");
    assert_eq!(bench.messages(4), ["run 1", "end", "run 2", "end"]);
    assert!(begun.elapsed() > Duration::from_millis(900));
    bench.end();
}

#[test]
fn what_sending_causes_to_be_said_is_not_sent() {
    let folder = folder();
    let mut bench = Bench::new(&[LogSource::Agent], 100, folder.path());
    bench.attach("0.0.1");
    let intake = Arc::clone(&bench.intake);
    let say = |level, target: &str, said: &str| {
        own::hear(
            &intake,
            &log::Record::builder()
                .level(level)
                .target(target)
                .args(format_args!("{said}"))
                .build(),
        );
    };
    // As if everybody on the way said something of each push.
    let chatter = || {
        say(
            Level::Debug,
            "nerveshub_agent::workers::socket",
            "a frame left",
        );
        say(Level::Debug, "nerveshub_agent::agent::extensions", "a push");
        say(Level::Debug, "nerveshub_agent::extensions::link", "a push");
        say(
            Level::Warn,
            "nerveshub_agent::core::extensions",
            "logging pushes a lot",
        );
        say(Level::Trace, "nerveshub_agent::wire", "a frame");
    };
    say(Level::Info, "nerveshub_agent::core::link", "first");
    chatter();
    say(Level::Debug, "nerveshub_agent::core::update", "second");
    let mut messages = bench.messages(1);
    chatter();
    messages.extend(bench.messages(1));
    chatter();
    assert_eq!(messages, ["first", "second"]);
    assert_eq!(bench.intake.take(9, usize::MAX), []);
    bench.end();
}

/// Lines `0`, `1`, … in order, each there or counted by a notice in its place.
#[derive(Default)]
struct Roll {
    next: u64,
    seen: u64,
    dropped: u64,
}

impl Roll {
    fn call(&mut self, line: &Value) {
        let message = text(&line["message"]);
        match message.split_once(' ') {
            Some((count, "log lines were dropped" | "log line was dropped")) => {
                let count: u64 = count.parse().unwrap();
                self.next += count;
                self.dropped += count;
            }
            _ => {
                let number: u64 = message.trim_start_matches('x').parse().unwrap();
                assert_eq!(number, self.next, "after {} lines", self.seen);
                self.next += 1;
                self.seen += 1;
            }
        }
    }
}

#[test]
fn of_a_flood_what_fits_arrives_in_order_and_the_rest_is_counted() {
    const LINES: u64 = 30_000;
    let folder = folder();
    let path = folder.path().join("messages");
    let mut bench = Bench::new(&[LogSource::Syslog], 60, folder.path());
    bench.attach("0.1.0");
    let mut roll = Roll::default();
    let writer = std::thread::spawn(move || {
        let mut file = File::create(path).unwrap();
        for thousand in 0..LINES / 1000 {
            let numbers = thousand * 1000..(thousand + 1) * 1000;
            let lines = numbers.map(|number| format!("{number:x>100}\n"));
            file.write_all(lines.collect::<String>().as_bytes())
                .unwrap();
        }
    });
    while roll.next < LINES {
        for line in bench.push() {
            roll.call(&line);
        }
        assert!(bench.intake.bytes() <= 256 * 1024);
    }
    writer.join().unwrap();
    assert_eq!((roll.next, roll.seen + roll.dropped), (LINES, LINES));
    assert!(roll.dropped > LINES / 2 && roll.seen >= 60, "{}", roll.seen);
    bench.end();
}

/// `cargo test --release --lib ten_seconds -- --ignored --nocapture`
#[test]
#[ignore = "20 s; measures the whole process"]
fn ten_seconds_of_ten_thousand_lines_a_second() {
    const LINES: u64 = 100_000;
    let own = |name: &str| -> u64 {
        let status = fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    };
    let ticks = || -> u64 {
        let stat = fs::read_to_string("/proc/self/stat").unwrap();
        let fields: Vec<_> = stat.split_whitespace().collect();
        fields[13].parse::<u64>().unwrap() + fields[14].parse::<u64>().unwrap()
    };
    let folder = folder();
    let generator = format!(
        "exec python3 -c '\n\
         import time\n\
         begun = time.monotonic()\n\
         for n in range({LINES}):\n\
         \x20   print(str(n).rjust(100, \"x\"), flush=n % 100 == 99)\n\
         \x20   late = begun + n / 10000 - time.monotonic()\n\
         \x20   if n % 100 == 99 and late > 0: time.sleep(late)\n\
         time.sleep(1000)'"
    );
    for version in ["0.1.0", "0.0.1"] {
        let mut bench = Bench::new(
            &[LogSource::Command(generator.clone())],
            1000,
            folder.path(),
        );
        bench.attach(version);
        let (mut roll, mut bytes) = (Roll::default(), 0);
        let (begun, rss, cpu) = (Instant::now(), own("VmRSS:"), ticks());
        let mut most = rss;
        let done = |roll: &Roll| match version {
            "0.1.0" => roll.next == LINES,
            // Its thousand lines would take minutes.
            _ => begun.elapsed() > Duration::from_secs(15),
        };
        while !done(&roll) {
            for line in bench.push() {
                roll.call(&line);
            }
            bytes = bytes.max(bench.intake.bytes());
            most = most.max(own("VmRSS:"));
        }
        let (took, cpu) = (begun.elapsed(), ticks() - cpu);
        eprintln!(
            "{version}: {} lines sent in {} pushes, {} dropped in {took:?}; ring {bytes} bytes, \
             RSS +{} KiB, CPU {} ms",
            roll.seen,
            bench.pushes,
            roll.dropped,
            most - rss,
            cpu * 10
        );
        assert!(bytes <= 256 * 1024);
        assert!(most - rss < 2048, "{} KiB", most - rss);
        assert!(bench.pushes as u64 <= 10 + took.as_secs() * 5 + 5);
        bench.end();
    }
}
