//! Programs as extensions: real ones, small shell scripts.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use serde_json::json;

use super::describe::understand;
use super::listener::{BURST, PACE};
use super::*;
use crate::core::event::{Event, ExtensionEvent, ExtensionId};
use crate::extensions::link::Handle;
use crate::system::channel::{Receiver, bounded};

const PATIENCE: Duration = Duration::from_secs(20);

fn put(folder: &Path, name: &str, text: &str, mode: u32) -> PathBuf {
    let path = folder.join(name);
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    path
}

fn describing(text: &str) -> String {
    format!("#!/bin/sh\necho '{text}'\n")
}

#[test]
fn descriptions_are_understood_or_refused_with_a_reason() {
    let is = |text: &str, name: &str, versions: &[&str]| {
        let versions: Vec<String> = versions.iter().map(|text| (*text).to_owned()).collect();
        assert_eq!(understand(text.as_bytes()), Ok((name.to_owned(), versions)));
    };
    is(
        r#"{"name":"tide_7","version":"0.0.1"}"#,
        "tide_7",
        &["0.0.1"],
    );
    is(r#"{"name":"a","version":["2","1"]}"#, "a", &["2", "1"]);
    for (text, reason) in [
        ("", "printed no JSON"),
        ("[]", "\"name\""),
        (r#"{"name":"Tide","version":"1"}"#, "\"name\""),
        (r#"{"name":"a:b","version":"1"}"#, "\"name\""),
        (r#"{"name":"local_shell","version":"1"}"#, "another name"),
        (r#"{"name":"a"}"#, "\"version\""),
        (r#"{"name":"a","version":[]}"#, "\"version\""),
    ] {
        let refused = understand(text.as_bytes()).unwrap_err();
        assert!(refused.contains(reason), "{text}: {refused}");
    }
}

#[test]
fn programs_are_found_in_order_and_what_is_none_is_left_out() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    put(
        at,
        "b",
        &describing(r#"{"name":"second","version":"1"}"#),
        0o755,
    );
    put(
        at,
        "a",
        &describing(r#"{"name":"first","version":"1"}"#),
        0o755,
    );
    put(
        at,
        "c",
        &describing(r#"{"name":"first","version":"2"}"#),
        0o755,
    );
    put(
        at,
        "d",
        &describing(r#"{"name":"anyones","version":"1"}"#),
        0o757,
    );
    put(
        at,
        "e",
        &describing(r#"{"name":"text","version":"1"}"#),
        0o644,
    );
    put(at, "f", "#!/bin/sh\nexit 3\n", 0o755);
    let found = find(at);
    let names: Vec<&str> = found.iter().map(|program| program.name.as_str()).collect();
    assert_eq!(names, ["first", "second"]);
    assert_eq!(find(&at.join("missing")), []);
    fs::set_permissions(at, fs::Permissions::from_mode(0o777)).unwrap();
    assert_eq!(find(at), []);
}

/// A runner on a thread of its own, attached.
struct Play {
    _folder: tempfile::TempDir,
    handle: Handle,
    inbox: Receiver<Event>,
    end: Receiver<Result<(), String>>,
}

impl Play {
    fn begin(script: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = put(folder.path(), "x", &format!("#!/bin/sh\n{script}\n"), 0o755);
        let program = Program {
            path,
            name: "tide".to_owned(),
            versions: vec!["1".to_owned()],
        };
        let (sender, inbox) = bounded(64);
        let (mut link, handle) = Link::new(ExtensionId(0), sender);
        let (tell, end) = bounded(1);
        let mut runner = Runner {
            program,
            identifier: "device-1".to_owned(),
        };
        std::thread::spawn(move || tell.send(runner.run(&mut link)));
        let version = "1".to_owned();
        assert!(handle.say(Word::Attached { version }));
        Self {
            _folder: folder,
            handle,
            inbox,
            end,
        }
    }

    fn says(&self, event: &str) {
        assert!(self.handle.say(Word::Said {
            event: event.to_owned(),
            payload: json!({"n": 7}),
            alarms: Vec::new(),
        }));
    }

    fn push(&self) -> (String, Value) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let event = self.inbox.recv_deadline(deadline).expect("a push");
            if let Event::Extension(_, ExtensionEvent::Push { event, payload }) = event {
                return (event, payload);
            }
        }
    }

    fn ended(&self) -> Result<(), String> {
        self.end.recv_timeout(PATIENCE).expect("its end")
    }
}

/// Says what it is told, as the payload of "heard".
const ECHO: &str = r#"while read -r line; do echo "{\"event\":\"heard\",\"payload\":$line}"; done"#;

#[test]
fn it_hears_what_the_hub_says_and_is_heard() {
    let play = Play::begin(ECHO);
    let heard = |play: &Play| {
        let (event, payload) = play.push();
        assert_eq!(event, "heard");
        payload
    };
    // Told at its start, and then that it is attached: in whichever order they came.
    let mut status = heard(&play);
    while status["status"] != "attached" {
        status = heard(&play);
    }
    assert_eq!(status["version"], "1");
    play.says("tide:request");
    let mut said = heard(&play);
    while said.get("status").is_some() {
        said = heard(&play);
    }
    assert_eq!(said, json!({"event": "tide:request", "payload": {"n": 7}}));
    play.handle.end();
    assert_eq!(play.ended(), Ok(()));
}

#[test]
fn babble_is_not_sent_and_long_lines_are_left_out() {
    let play = Play::begin(
        "echo hello; echo '{\"event\":1}'; echo '{\"event\":\"x\",\"payload\":[]}'\n\
         head -c 100000 /dev/zero | tr '\\0' x; echo\n\
         echo '{\"event\":\"fine\"}'; cat > /dev/null",
    );
    assert_eq!(play.push(), ("fine".to_owned(), json!({})));
}

#[test]
fn all_it_has_started_dies_with_it() {
    let play = Play::begin(
        "trap '' TERM; sleep 600 & echo \"{\\\"event\\\":\\\"pids\\\",\\\"payload\\\":\
         {\\\"own\\\":$$,\\\"child\\\":$!}}\"; wait; wait",
    );
    let (_, pids) = play.push();
    play.handle.end();
    assert_eq!(play.ended(), Ok(()));
    for name in ["own", "child"] {
        let pid = pids[name].as_i64().unwrap();
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"));
        assert!(
            stat.is_err() || stat.is_ok_and(|stat| stat.contains(") Z ")),
            "{name}"
        );
    }
}

#[test]
fn one_that_ends_is_started_again() {
    let play = Play::begin("echo \"{\\\"event\\\":\\\"pid\\\",\\\"payload\\\":{\\\"pid\\\":$$}}\"");
    let (first, second) = (play.push(), play.push());
    assert_ne!(first, second);
}

#[test]
fn what_the_hub_says_before_it_runs_is_not_lost() {
    // The first run hears nothing and ends; the second one stays.
    let play = Play::begin(&format!(
        "if mkdir \"$0.ran\"; then exec <&-; echo '{{\"event\":\"first\"}}'; exit; fi\n{ECHO}"
    ));
    assert_eq!(play.push().0, "first");
    play.says("early");
    let deadline = Instant::now() + PATIENCE;
    loop {
        let (_, payload) = play.push();
        if payload["event"] == "early" {
            return;
        }
        assert!(Instant::now() < deadline);
    }
}

#[test]
fn one_that_cannot_be_started_is_tried_again() {
    let play = Play::begin("exit");
    let path = play._folder.path().join("x");
    fs::remove_file(&path).unwrap();
    let text = "#!/bin/sh\necho '{\"event\":\"back\"}'; cat > /dev/null\n";
    let new = put(play._folder.path(), "new", text, 0o755);
    fs::rename(new, path).unwrap();
    assert_eq!(play.push().0, "back");
}

#[test]
fn what_an_ended_run_had_to_say_is_not_the_next_one_s() {
    let play = Play::begin("while :; do echo '{\"event\":\"x\"}'; done");
    for _ in 0..BURST {
        play.push();
    }
    play.handle.end();
    assert_eq!(play.ended(), Ok(()));
    // The listener may be about to say one more thing.
    while play.inbox.recv_timeout(3 * PACE).is_ok() {}
    let quiet = play.inbox.recv_timeout(5 * PACE);
    assert!(quiet.is_err(), "{quiet:?}");
}

#[test]
fn one_that_does_not_listen_is_given_up() {
    let play = Play::begin("exec sleep 600");
    let long = "x".repeat(60_000);
    let deadline = Instant::now() + PATIENCE;
    while play.end.is_empty() {
        assert!(Instant::now() < deadline, "still told things");
        // A full queue is the framework's business.
        let _ = play.handle.say(Word::Said {
            event: long.clone(),
            payload: json!({}),
            alarms: Vec::new(),
        });
        std::thread::yield_now();
        while play.inbox.try_recv().is_ok() {}
    }
    assert_eq!(
        play.ended(),
        Err("it does not read what it is told".to_owned())
    );
}

#[test]
fn one_that_talks_too_much_waits() {
    let play = Play::begin("while :; do echo '{\"event\":\"x\"}'; done");
    let begin = Instant::now();
    for _ in 0..BURST + 10 {
        play.push();
    }
    assert!(begin.elapsed() >= PACE * 9, "{:?}", begin.elapsed());
    play.handle.end();
    assert_eq!(play.ended(), Ok(()));
}
