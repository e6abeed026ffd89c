//! The extension on a thread of its own: what it is told, and what it says.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::system::channel::{Receiver, bounded};

use serde_json::json;

use super::*;
use crate::core::event::{Event, ExtensionEvent, ExtensionId};
use crate::extensions::link::Handle;

struct Play {
    handle: Handle,
    inbox: Receiver<Event>,
    end: Receiver<Result<(), String>>,
    root: tempfile::TempDir,
}

impl Play {
    fn begin(prepare: impl FnOnce(&mut Health)) -> Self {
        let root = plain();
        let mut health = health(settings());
        health.machine = machine(root.path());
        prepare(&mut health);
        let (sender, inbox) = bounded(64);
        let (mut link, handle) = Link::new(ExtensionId(0), sender);
        let (tell, end) = bounded(1);
        std::thread::spawn(move || tell.send(health.run(&mut link)));
        let play = Self {
            handle,
            inbox,
            end,
            root,
        };
        let version = "0.0.1".to_owned();
        assert!(play.handle.say(Word::Attached { version }));
        play
    }

    fn said(&self, event: &str, alarms: Alarms) {
        let (event, payload) = (event.to_owned(), json!({}));
        assert!(self.handle.say(Word::Said {
            event,
            payload,
            alarms
        }));
    }

    fn asked(&self, what: &str, params: Value) {
        let word = Word::Asked {
            question: 7,
            what: what.to_owned(),
            params,
            alarms: Vec::new(),
        };
        assert!(self.handle.say(word));
    }

    /// The next thing it says, but that it is idle.
    fn next(&self) -> ExtensionEvent {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.inbox.recv_deadline(deadline).expect("an event") {
                Event::Extension(_, ExtensionEvent::Idle) => {}
                Event::Extension(_, event) => return event,
                event => panic!("{event:?}"),
            }
        }
    }

    fn pushed(&self) -> Value {
        match self.next() {
            ExtensionEvent::Push { event, mut payload } if event == "report" => {
                payload["value"].take()
            }
            event => panic!("{event:?}"),
        }
    }

    fn alarm(&self) -> (String, Option<String>) {
        match self.next() {
            ExtensionEvent::Alarm { name, description } => (name, description),
            event => panic!("{event:?}"),
        }
    }

    fn answer(&self) -> Result<Value, String> {
        match self.next() {
            ExtensionEvent::Answer {
                question: 7,
                answer,
            } => answer,
            event => panic!("{event:?}"),
        }
    }
}

#[test]
fn a_check_is_answered_with_a_report_and_nothing_else_is_said() {
    let play = Play::begin(|_| {});
    play.said("unheard-of", Vec::new());
    assert!(play.handle.say(Word::Away));
    let hot = ("Hot".to_owned(), "81 C".to_owned());
    play.said("check", vec![hot]);
    let report = play.pushed();
    assert_eq!(report["alarms"], json!({"Hot": "81 C"}));
    assert_eq!(report["metrics"]["mem_size_mb"], 2000);
    let mut parts: Vec<&String> = report.as_object().unwrap().keys().collect();
    parts.sort();
    assert_eq!(
        parts,
        [
            "alarms",
            "checks",
            "connectivity",
            "metadata",
            "metrics",
            "timestamp"
        ]
    );
    play.handle.end();
    assert_eq!(play.end.recv_timeout(PATIENCE).expect("its end"), Ok(()));
    let rest: Vec<Event> = play.inbox.try_iter().collect();
    assert!(
        rest.iter()
            .all(|event| matches!(event, Event::Extension(_, ExtensionEvent::Idle))),
        "{rest:?}"
    );
}

#[test]
fn clients_get_the_very_report_have_it_sent_and_set_values() {
    let play = Play::begin(|_| {});
    play.asked("set", json!({"metrics": {"rpm": 7}}));
    assert_eq!(play.answer(), Ok(json!({"metrics": {"rpm": 7}})));
    play.asked("set", json!({"metrics": {"rpm": "fast"}}));
    assert_eq!(play.answer(), Err("metrics rpm is not a number".to_owned()));
    play.asked("report", json!({}));
    let mut answered = play.answer().unwrap();
    assert_eq!(answered["metrics"]["rpm"], 7);
    play.asked("send", json!({}));
    let mut pushed = play.pushed();
    assert_eq!(play.answer(), Ok(json!({"sent": true})));
    for report in [&mut answered, &mut pushed] {
        report["timestamp"].take();
    }
    assert_eq!(answered, pushed);
    play.asked("dance", json!({}));
    assert!(play.answer().unwrap_err().contains("dance"));
}

#[test]
fn nothing_is_sent_while_the_hub_does_not_take_it_and_clients_are_told() {
    let play = Play::begin(|_| {});
    assert!(play.handle.say(Word::Away));
    play.asked("send", json!({}));
    let refusal = Err("the hub does not take reports now".to_owned());
    assert_eq!(play.answer(), refusal);
    play.asked("report", json!({}));
    assert_eq!(play.answer().unwrap()["metrics"]["mem_size_mb"], 2000);
    let version = "0.0.1".to_owned();
    assert!(play.handle.say(Word::Attached { version }));
    play.asked("send", json!({}));
    play.pushed();
    assert_eq!(play.answer(), Ok(json!({"sent": true})));
}

#[test]
fn a_part_that_fails_is_an_alarm_until_a_report_without_it() {
    let play = Play::begin(|_| {});
    let hidden = play.root.path().join("proc/hidden");
    let meminfo = play.root.path().join("proc/meminfo");
    fs::rename(&meminfo, &hidden).unwrap();
    let why = "memory: /proc/meminfo does not exist";
    play.said("check", Vec::new());
    let report = play.pushed();
    assert_eq!(failure(&report), Some(why));
    assert_eq!(report["metrics"]["load_1min"], 0.15);
    let raised = (FAILED.to_owned(), Some(why.to_owned()));
    assert_eq!(play.alarm(), raised);
    // The agent names it now; once more, and it is still told once.
    play.said("check", vec![(FAILED.to_owned(), why.to_owned())]);
    assert_eq!(failure(&play.pushed()), Some(why));
    fs::rename(&hidden, &meminfo).unwrap();
    play.said("check", vec![(FAILED.to_owned(), why.to_owned())]);
    assert_eq!(failure(&play.pushed()), None);
    assert_eq!(play.alarm(), (FAILED.to_owned(), None));
}

#[test]
fn a_disk_that_fills_up_is_an_alarm_without_being_asked_until_it_is_well_below() {
    static USED: AtomicU64 = AtomicU64::new(899);
    let play = Play::begin(|health| {
        health.machine.usage = |_| Ok(used(USED.load(Ordering::SeqCst)));
        health.look_every = Duration::from_millis(1);
    });
    play.said("check", Vec::new());
    assert_eq!(play.pushed()["alarms"], json!({}));
    USED.store(900, Ordering::SeqCst);
    let name = "DiskAlmostFull:/".to_owned();
    assert_eq!(
        play.alarm(),
        (name.clone(), Some("/ is 90 % full".to_owned()))
    );
    USED.store(881, Ordering::SeqCst);
    play.said("check", Vec::new());
    assert_eq!(
        play.pushed()["alarms"],
        json!({"DiskAlmostFull:/": "/ is 90 % full"})
    );
    USED.store(880, Ordering::SeqCst);
    assert_eq!(play.alarm(), (name, None));
}

#[test]
fn which_disks_raise_an_alarm() {
    let full = |settings: HealthSettings| {
        let root = plain();
        let mut health = health(settings);
        health.machine = machine(root.path());
        health.machine.usage = |path| {
            Ok(Usage {
                is_read_only: path == "/",
                ..used(1000)
            })
        };
        let report = report(&mut health);
        let alarms = report["alarms"].as_object().unwrap();
        alarms.keys().cloned().collect::<Vec<_>>().join(" ")
    };
    let disks = || ["/", "/data"].map(str::to_owned).to_vec();
    let with = |ignore: &[&str], limit: u64| HealthSettings {
        disks: disks(),
        disk_alarm: limit,
        disk_ignore: ignore.iter().map(|word| (*word).to_owned()).collect(),
        ..settings()
    };
    assert_eq!(full(with(&["read-only"], 90)), "DiskAlmostFull:/data");
    assert_eq!(
        full(with(&["none"], 100)),
        "DiskAlmostFull:/ DiskAlmostFull:/data"
    );
    assert_eq!(full(with(&["read-only", "/data"], 90)), "");
    assert_eq!(full(with(&["none"], 0)), "");
}

#[test]
fn it_ends_although_a_program_hangs() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path().join("hang");
    put(
        folder.path(),
        "hang",
        "#!/bin/sh\ntouch \"$0.begun\"\nsleep 600\n",
    );
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(&at, fs::Permissions::from_mode(0o755)).unwrap();
    let play = Play::begin(|health| {
        let site = Arc::get_mut(&mut health.site).unwrap();
        site.settings.health.folder = Some(folder.path().to_owned());
    });
    play.said("check", Vec::new());
    let end = Instant::now() + PATIENCE;
    while !folder.path().join("hang.begun").exists() {
        assert!(Instant::now() < end, "not run");
        std::thread::yield_now();
    }
    play.handle.end();
    let begin = Instant::now();
    assert_eq!(play.end.recv_timeout(PATIENCE).expect("its end"), Ok(()));
    assert!(begin.elapsed() < PROGRAM, "{:?}", begin.elapsed());
    assert!(
        !play
            .inbox
            .try_iter()
            .any(|event| matches!(event, Event::Extension(_, ExtensionEvent::Push { .. })))
    );
}
