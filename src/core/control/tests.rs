//! Clients of the control socket against the core in virtual time.

use std::time::Duration;

use serde_json::{Value, json};

use super::decider::MAX_QUESTIONS;
use super::*;
use crate::config::UpdatePolicy;
use crate::core::event::{
    ConnId, Event, InstallEvent, ShellEnd, ShellEvent, ShellId, ShellKind, Signal, SocketEvent,
    Worker,
};
use crate::core::tests::{Bench, SECOND, setup};
use crate::core::{Setup, link};
use crate::wire::control::{Incoming, parse};
use crate::wire::verdict::Question;
use crate::wire::{ConsoleEvent, DeviceEvent, Inbound, Stage, WindowSize};

pub(in crate::core) const APP: ClientId = ClientId(1);
pub(in crate::core) const OTHER: ClientId = ClientId(2);

impl Bench {
    /// One line of a client.
    pub(in crate::core) fn says(&mut self, client: ClientId, line: &str) {
        let event = match parse(line.as_bytes()).expect("a line that makes sense") {
            Incoming::Request(request) => ControlEvent::Asked(request),
            Incoming::Verdict { question, text } => ControlEvent::Answered {
                question: QuestionId(question),
                text,
            },
        };
        self.event(Event::Control(client, event));
    }

    pub(in crate::core) fn leaves(&mut self, client: ClientId) {
        self.event(Event::Control(client, ControlEvent::Left));
    }

    /// What a client was told since the last look, as it reads it.
    pub(in crate::core) fn heard(&mut self, client: ClientId) -> Vec<Value> {
        let mut heard = Vec::new();
        self.effects.retain(|effect| match effect {
            Effect::Tell(to, said) if *to == client => {
                heard.push(serde_json::from_str(&said.line()).expect("JSON"));
                false
            }
            _ => true,
        });
        heard
    }

    /// One line, one answer.
    pub(in crate::core) fn asks(&mut self, client: ClientId, line: &str) -> Value {
        self.heard(client);
        self.says(client, line);
        let mut heard = self.heard(client);
        heard.retain(|said| said.get("event").is_none());
        assert_eq!(heard.len(), 1, "{line}: {heard:?}");
        heard.remove(0)
    }

    pub(in crate::core) fn result(&mut self, line: &str) -> Value {
        self.asks(APP, line)["result"].clone()
    }

    /// The code of a refusal.
    pub(in crate::core) fn code(&mut self, line: &str) -> String {
        let answer = self.asks(APP, line);
        answer["error"]["code"]
            .as_str()
            .expect("a refusal")
            .to_owned()
    }

    /// The names of the events a client heard of since the last look.
    pub(in crate::core) fn events(&mut self, client: ClientId) -> Vec<String> {
        let heard = self.heard(client);
        let names = heard.iter().filter_map(|said| said["event"].as_str());
        names.map(str::to_owned).collect()
    }

    fn alarm_names(&mut self) -> Vec<String> {
        let alarms = self.result(r#"{"method":"alarms"}"#);
        alarms
            .as_object()
            .expect("an object")
            .keys()
            .cloned()
            .collect()
    }
}

fn unvalidated() -> Setup {
    Setup {
        firmware_validated: false,
        ..setup()
    }
}

#[test]
fn the_status_follows_the_state() {
    let mut bench = Bench::new(setup());
    let report = bench.result(r#"{"id":1,"method":"status"}"#);
    assert_eq!(report["identifier"], "device");
    assert_eq!(report["connection"]["state"], "connecting");
    assert_eq!(report["firmware"]["uuid"], "running");
    assert_eq!(report["firmware"]["validated"], true);
    assert_eq!(report["update"]["state"], "idle");
    let refused = "no route to the hub";
    bench.socket(SocketEvent::ConnectFailed(
        crate::core::event::ConnectFailure::Network(refused.into()),
    ));
    let connection = bench.result(r#"{"method":"status"}"#)["connection"].clone();
    assert_eq!(connection["state"], "down");
    assert_eq!(connection["last_error"], refused);
    let wait = connection["next_attempt_ms"].as_u64().expect("a wait");
    assert!((1000..=1500).contains(&wait), "{wait}");
    bench.pass(2 * SECOND);
    bench.open();
    assert_eq!(
        bench.result(r#"{"method":"status"}"#)["connection"]["state"],
        "joining"
    );
    bench.reply_to_join();
    let report = bench.result(r#"{"method":"status"}"#);
    assert_eq!(report["connection"]["state"], "joined");
    assert_eq!(report["connection"]["interface"], "eth0");
    assert_eq!(report["connection"]["last_error"], Value::Null);
    assert_eq!(report["uptime"], 2);
    bench.offer("new");
    bench.install(InstallEvent::Downloading { percent: 40 });
    bench.install(InstallEvent::Progress(30));
    let update = bench.result(r#"{"method":"update-status"}"#);
    let offer = json!({"uuid": "new", "product": "demo", "version": "2.0.0", "size": 100});
    assert_eq!(
        update,
        json!({
            "state": "installing", "offer": offer, "last_error": null,
            "downloaded_percent": 40, "installed_percent": 30,
        })
    );
    bench.install(InstallEvent::Finished(Err("fwup error: bad".into())));
    let update = bench.result(r#"{"method":"update-status"}"#);
    assert_eq!(update["state"], "reporting");
    assert_eq!(update["last_error"], "fwup error: bad");
}

#[test]
fn each_channel_is_told_apart() {
    let mut bench = Bench::new(setup());
    let connected = r#"{"method":"connected"}"#;
    let of = |socket: bool, device: bool| json!({"socket": socket, "device": device, "console": false, "extensions": false});
    assert_eq!(bench.result(connected), of(false, false));
    bench.open();
    assert_eq!(bench.result(connected), of(true, false));
    bench.reply_to_join();
    assert_eq!(bench.result(connected), of(true, true));
    bench.socket(SocketEvent::Closed("gone".into()));
    assert_eq!(bench.result(connected), of(false, false));
}

#[test]
fn a_reconnect_is_immediate_and_spares_an_update() {
    let mut bench = Bench::joined(setup());
    bench.offer("new");
    let before = bench.attempts().len();
    let old = ConnId(bench.core.link_conn_for_tests());
    // The hub hears the goodbye before it sees the next connection; asking again does not help.
    for _ in 0..2 {
        bench.result(r#"{"method":"reconnect"}"#);
        assert_eq!(bench.attempts().len(), before);
    }
    bench.event(Event::WorkerExited(Worker::Socket(old), Ok(())));
    assert_eq!(bench.attempts().len(), before + 1);
    // Once.
    bench.event(Event::WorkerExited(Worker::Socket(old), Ok(())));
    assert_eq!(bench.attempts().len(), before + 1);
    assert!(
        !bench
            .effects
            .iter()
            .any(|effect| matches!(effect, Effect::CancelInstall(_)))
    );
    // Also out of a long back-off.
    for _ in 0..8 {
        bench.socket(SocketEvent::ConnectFailed(
            crate::core::event::ConnectFailure::Network("no".into()),
        ));
        bench.pass(100 * SECOND);
    }
    bench.socket(SocketEvent::Closed("gone".into()));
    assert!(matches!(bench.core.link.phase, link::Phase::Down));
    bench.result(r#"{"method":"reconnect"}"#);
    assert!(matches!(bench.core.link.phase, link::Phase::Connecting(_)));
    // A socket's thread that does not end holds nothing up.
    let mut bench = Bench::joined(setup());
    bench.event(Event::Signal(Signal::Reload));
    assert!(bench.attempts().is_empty());
    bench.pass(SECOND);
    assert_eq!(bench.attempts().len(), 1);
    let mut bench = Bench::new(Setup {
        endpoint: None,
        ..setup()
    });
    assert_eq!(bench.code(r#"{"method":"reconnect"}"#), "unavailable");
    assert!(bench.attempts().is_empty());
}

#[test]
fn subscribers_hear_what_they_asked_for_and_nothing_else() {
    let mut bench = Bench::new(setup());
    bench.says(APP, r#"{"method":"subscribe"}"#);
    bench.says(
        OTHER,
        r#"{"method":"subscribe","params":{"events":["connection"]}}"#,
    );
    bench.heard(APP);
    bench.heard(OTHER);
    bench.open();
    bench.reply_to_join();
    assert_eq!(bench.events(APP), ["connected", "alarm-cleared"]);
    assert_eq!(bench.events(OTHER), ["connected"]);
    bench.offer("new");
    bench.install(InstallEvent::Downloading { percent: 1 });
    bench.install(InstallEvent::Downloaded);
    bench.install(InstallEvent::Progress(100));
    bench.install(InstallEvent::Finished(Ok(())));
    bench.reply_to_heartbeat();
    bench.receive(Inbound::Device(DeviceEvent::Identify));
    assert_eq!(
        bench.events(APP),
        [
            "update-offered",
            "update-started",
            "alarm-set",
            "update-progress",
            "update-progress",
            "update-completed",
            "reboot-pending",
            "identify",
        ]
    );
    assert_eq!(bench.events(OTHER), Vec::<String>::new());
    // Another subscription replaces the first; who left hears nothing.
    bench.says(
        APP,
        r#"{"method":"subscribe","params":{"events":["console"]}}"#,
    );
    bench.leaves(OTHER);
    bench.heard(APP);
    bench.socket(SocketEvent::Closed("gone".into()));
    assert_eq!(bench.events(APP), Vec::<String>::new());
    assert_eq!(bench.heard(OTHER), Vec::<Value>::new());
}

#[test]
fn a_failure_has_its_reason_and_an_ignored_offer_is_told() {
    let mut bench = Bench::joined(setup());
    bench.says(
        APP,
        r#"{"method":"subscribe","params":{"events":["update"]}}"#,
    );
    bench.offer("running");
    assert_eq!(bench.events(APP), ["update-offered", "update-ignored"]);
    bench.offer("new");
    bench.heard(APP);
    bench.install(InstallEvent::Finished(Err("fwup error: no room".into())));
    let expected =
        json!({"event": "update-failed", "uuid": "new", "reason": "fwup error: no room"});
    assert_eq!(bench.heard(APP), [expected]);
}

#[test]
fn a_channel_joined_anew_on_purpose_was_never_disconnected() {
    let mut bench = Bench::joined(setup());
    bench.says(
        APP,
        r#"{"method":"subscribe","params":{"events":["connection"]}}"#,
    );
    bench.offer("new");
    bench.install(InstallEvent::UrlRefused {
        reason: "HTTP 403".into(),
        held: 0,
    });
    bench.reply_to_join();
    assert_eq!(bench.events(APP), Vec::<String>::new());
    bench.socket(SocketEvent::Closed("cable".into()));
    let heard = bench.heard(APP);
    let expected = json!({"event": "disconnected", "reason": "connection lost: cable"});
    assert_eq!(heard, [expected]);
    bench.reconnect();
    assert_eq!(bench.events(APP), ["connected"]);
}

#[test]
fn what_was_put_off_is_in_the_status() {
    let mut setup = setup();
    setup.policy.update = UpdatePolicy::Ask;
    let mut bench = Bench::joined(setup);
    bench.result(r#"{"method":"decide"}"#);
    bench.offer("new");
    let question = bench.heard(APP)[0]["question"].clone();
    let asking = bench.result(r#"{"method":"update-status"}"#);
    assert_eq!(asking["state"], "asking");
    assert_eq!(bench.alarm_names(), [""; 0], "nothing is in hand yet");
    let answer = json!({"question": question, "answer": "reschedule 600 busy"});
    bench.says(APP, &answer.to_string());
    bench.pass(60 * SECOND);
    let update = bench.result(r#"{"method":"update-status"}"#);
    assert_eq!(update["state"], "put-off");
    let held = json!({"uuid": "new", "seconds": 540, "reason": "busy"});
    assert_eq!(update["put_off"], held);
}

#[test]
fn a_console_is_active_while_a_program_runs_in_it() {
    let mut bench = Bench::with_console(setup());
    bench.result(r#"{"method":"subscribe","params":{"events":["console"]}}"#);
    let size = ConsoleEvent::WindowSize(WindowSize::default());
    let opened = Inbound::Console {
        join_ref: None,
        event: size,
    };
    bench.receive(opened.clone());
    bench.receive(opened);
    let told = |active: bool| json!({"event": "console-active", "active": active});
    assert_eq!(bench.heard(APP), [told(true)]);
    let (kind, run) = (ShellKind::Console, 1);
    let ended = ShellEvent::Ended(ShellEnd::Exited(0));
    bench.event(Event::Shell(ShellId { kind, run }, ended));
    assert_eq!(bench.heard(APP), [told(false)]);
}

#[test]
fn the_agents_own_alarms_come_and_go_with_its_state() {
    let mut bench = Bench::new(Setup {
        auto_revert_detected: true,
        clock_unset: true,
        ..unvalidated()
    });
    assert_eq!(
        bench.alarm_names(),
        [
            "ClockUnset",
            "Disconnected",
            "FirmwareNotValidated",
            "FirmwareReverted"
        ]
    );
    assert!(bench.core.awaits_clock());
    bench.event(Event::ClockSet);
    bench.open();
    bench.reply_to_join();
    bench.event(Event::ValidationRead(Some(true)));
    assert!(!bench.core.awaits_clock());
    assert_eq!(bench.alarm_names(), ["FirmwareReverted"]);
    bench.offer("new");
    assert!(bench.alarm_names().contains(&"UpdateInProgress".to_owned()));
    bench.install(InstallEvent::Finished(Err("no".into())));
    bench.reply_to_heartbeat();
    assert!(!bench.alarm_names().contains(&"UpdateInProgress".to_owned()));
    bench.socket(SocketEvent::Closed("gone".into()));
    assert!(bench.alarm_names().contains(&"Disconnected".to_owned()));
    let mut bench = Bench::new(Setup {
        endpoint: None,
        ..setup()
    });
    assert_eq!(
        bench.alarm_names(),
        Vec::<String>::new(),
        "offline on purpose"
    );
}

#[test]
fn alarms_of_the_integrator_are_bounded_and_told_once() {
    let mut bench = Bench::joined(setup());
    bench.says(
        OTHER,
        r#"{"method":"subscribe","params":{"events":["alarm"]}}"#,
    );
    let set = |name: &str, text: &str| {
        json!({"method": "alarm-set", "params": {"name": name, "description": text}}).to_string()
    };
    for _ in 0..3 {
        bench.result(&set("Hot", "81 C"));
    }
    bench.result(&set("Hot", "82 C"));
    assert_eq!(bench.events(OTHER), ["alarm-set", "alarm-set"]);
    assert_eq!(
        bench.result(r#"{"method":"alarms"}"#),
        json!({"Hot": "82 C"})
    );
    assert!(bench.core.status().to_string().ends_with("alarms=Hot"));
    for bad in [
        set("with space", ""),
        set("\u{e9}", ""),
        set(&"x".repeat(65), ""),
        set("Hot", "two\nlines"),
        set("Hot", &"x".repeat(257)),
    ] {
        assert_eq!(bench.code(&bad), "bad-params", "{bad}");
    }
    assert_eq!(bench.code(&set("Disconnected", "")), "refused");
    let clear = r#"{"method":"alarm-clear","params":{"name":"UpdateInProgress"}}"#;
    assert_eq!(bench.code(clear), "refused");
    for number in 1..32 {
        bench.result(&set(&format!("A{number}"), ""));
    }
    assert_eq!(bench.code(&set("B", "")), "busy");
    bench.result(&set("Hot", "still changes"));
    let clear = r#"{"method":"alarm-clear","params":{"name":"Hot"}}"#;
    bench.heard(OTHER);
    assert_eq!(bench.result(clear), json!({"cleared": true}));
    assert_eq!(bench.result(clear), json!({"cleared": false}));
    assert_eq!(bench.events(OTHER), ["alarm-cleared"]);
    bench.result(&set("B", ""));
}

#[test]
fn validation_is_answered_when_the_mark_is_there() {
    let mut bench = Bench::joined(unvalidated());
    bench.says(APP, r#"{"id":1,"method":"validate"}"#);
    bench.says(OTHER, r#"{"id":2,"method":"validate"}"#);
    let marks = |bench: &Bench| {
        bench
            .effects
            .iter()
            .filter(|it| **it == Effect::MarkValid)
            .count()
    };
    assert_eq!(marks(&bench), 1);
    assert_eq!(bench.heard(APP), Vec::<Value>::new());
    bench.event(Event::ValidMarked(Ok(())));
    bench.event(Event::ValidationRead(Some(true)));
    assert_eq!(
        bench.heard(APP),
        [json!({"id": 1, "result": {"validated": true}})]
    );
    assert_eq!(
        bench.heard(OTHER),
        [json!({"id": 2, "result": {"validated": true}})]
    );
    let answer = bench.asks(APP, r#"{"id":3,"method":"validate"}"#);
    assert_eq!(answer, json!({"id": 3, "result": {"validated": true}}));
    assert_eq!(marks(&bench), 1);
}

#[test]
fn a_mark_that_cannot_be_set_is_answered_with_the_reason() {
    let mut bench = Bench::joined(unvalidated());
    bench.says(APP, r#"{"id":1,"method":"validate"}"#);
    bench.event(Event::ValidMarked(Err("read-only".into())));
    let answer = bench.heard(APP).remove(0);
    assert_eq!(
        answer["error"],
        json!({"code": "failed", "message": "read-only"})
    );
    // It is tried again anyway, but nobody hears of it twice.
    bench.pass(60 * SECOND);
    assert_eq!(bench.heard(APP), Vec::<Value>::new());
}

#[test]
fn validation_asked_for_in_the_middle_of_a_look_is_not_forgotten() {
    for read in [Some(false), None] {
        let mut bench = Bench::joined(unvalidated());
        bench.pass(Duration::from_secs(10));
        assert!(bench.effects.contains(&Effect::ReadValidation));
        bench.says(APP, r#"{"method":"validate"}"#);
        assert!(!bench.effects.contains(&Effect::MarkValid));
        bench.event(Event::ValidationRead(read));
        assert!(bench.effects.contains(&Effect::MarkValid), "{read:?}");
    }
}

#[test]
fn word_of_a_mark_set_elsewhere_makes_the_agent_look_at_once() {
    let mut bench = Bench::joined(unvalidated());
    assert_eq!(
        bench.result(r#"{"method":"validated"}"#),
        json!({"validated": false})
    );
    assert!(bench.effects.contains(&Effect::ReadValidation));
    bench.event(Event::ValidationRead(Some(true)));
    assert!(
        bench
            .device_pushes()
            .contains(&DevicePush::FirmwareValidated)
    );
}

#[test]
fn the_hub_gets_no_status_it_would_crash_on() {
    let mut bench = Bench::joined(setup());
    let send = |status: &str| {
        format!(
            r#"{{"method":"send-status","params":{{"status":"{status}","reason":"r","seconds":60,"value":5}}}}"#
        )
    };
    for status in ["ignored", "rescheduled", "failed"] {
        assert_eq!(bench.code(&send(status)), "refused", "{status}");
    }
    bench.result(&send("started"));
    bench.result(&send("downloading"));
    let interface = Some("eth0".to_owned());
    let progress = DevicePush::Progress {
        stage: Stage::Downloading,
        value: 5,
    };
    assert_eq!(
        bench.device_pushes()[..],
        [
            DevicePush::NetworkInterface("eth0".into()),
            DevicePush::Started { interface },
            progress
        ][1..]
    );
    bench.offer("new");
    bench.effects.clear();
    bench.result(&send("rescheduled"));
    let reason = Some("r".to_owned());
    assert_eq!(
        bench.device_pushes(),
        [DevicePush::Rescheduled {
            delay: 60_000,
            reason
        }]
    );
    bench.socket(SocketEvent::Closed("gone".into()));
    assert_eq!(bench.code(&send("received")), "not-connected");
}

#[test]
fn what_is_not_there_is_said() {
    let mut bench = Bench::joined(setup());
    for method in ["health", "metrics", "log", "identities"] {
        let answer = bench.asks(APP, &format!(r#"{{"method":"{method}"}}"#));
        assert_eq!(answer["error"]["code"], "unavailable");
        let message = answer["error"]["message"].as_str().expect("text");
        assert!(message.contains("is not enabled"), "{message}");
    }
}

#[test]
fn there_is_one_decider_and_it_can_be_followed_by_another() {
    let mut bench = Bench::joined(setup());
    let decide = r#"{"method":"decide"}"#;
    assert_eq!(bench.core.ask_decider(Question::RebootRequest("hub")), None);
    for _ in 0..2 {
        assert_eq!(bench.result(decide), json!({"decider": true}));
    }
    assert_eq!(bench.asks(OTHER, decide)["error"]["code"], "busy");
    bench.leaves(OTHER);
    assert!(
        bench
            .core
            .ask_decider(Question::RebootRequest("hub"))
            .is_some()
    );
    bench.leaves(APP);
    assert_eq!(bench.core.ask_decider(Question::RebootRequest("hub")), None);
    assert_eq!(
        bench.asks(OTHER, decide)["result"],
        json!({"decider": true})
    );
}

impl Bench {
    /// Puts a question to the decider; its number.
    fn question(&mut self, question: Question) -> u64 {
        let id = self.core.ask_decider(question).expect("a decider");
        // Carried out with the next event.
        self.event(Event::FwupVersionRead(None));
        id.0
    }
}

#[test]
fn questions_are_put_answered_and_not_answered_twice() {
    let mut bench = Bench::joined(setup());
    bench.result(r#"{"method":"decide"}"#);
    let first = bench.question(Question::RebootRequest("hub"));
    let second = bench.question(Question::RebootRequest("trial"));
    let ask = |id: u64, why: &str| json!({"question": id, "ask": "reboot-request", "about": {"why": why}});
    assert_eq!(bench.heard(APP), [ask(first, "hub"), ask(second, "trial")]);
    let answer = |id: u64, text: &str| json!({"question": id, "answer": text}).to_string();
    // In any order; nonsense, strangers and the unasked change nothing.
    assert_eq!(bench.code(&answer(second, "ignore")), "bad-params");
    assert_eq!(
        bench.asks(OTHER, &answer(second, "reboot"))["error"]["code"],
        "refused"
    );
    assert_eq!(bench.code(&answer(99, "reboot")), "refused");
    assert!(bench.core.control.decided.is_empty());
    let told = bench.result(&answer(second, "defer 60 busy"));
    assert_eq!(told, json!({"question": second, "answer": "defer"}));
    assert_eq!(bench.code(&answer(second, "reboot")), "refused");
    bench.result(&answer(first, "reboot"));
    let later = Verdict::Later {
        after: Duration::from_secs(60),
        reason: Some("busy".into()),
    };
    let asked = Asked::RebootRequest;
    assert_eq!(
        bench.core.control.decided,
        [
            (QuestionId(second), asked, Some(later)),
            (QuestionId(first), asked, Some(Verdict::Go)),
        ]
    );
}

#[test]
fn a_decider_that_dies_leaves_no_question_open() {
    for all_die in [false, true] {
        let mut bench = Bench::joined(setup());
        bench.result(r#"{"method":"decide"}"#);
        let first = bench.question(Question::RebootRequest("hub"));
        let second = bench.question(Question::RebootRequest("hub"));
        bench.leaves(OTHER);
        assert!(bench.core.control.decided.is_empty());
        match all_die {
            false => bench.leaves(APP),
            true => bench.event(Event::WorkerExited(Worker::Control, Err("panicked".into()))),
        }
        let gone = |id| (QuestionId(id), Asked::RebootRequest, None);
        assert_eq!(bench.core.control.decided, [gone(first), gone(second)]);
        bench.leaves(APP);
        assert_eq!(bench.core.control.decided.len(), 2);
    }
}

#[test]
fn a_withdrawn_question_is_told_and_open_ones_are_bounded() {
    let mut bench = Bench::joined(setup());
    bench.result(r#"{"method":"decide"}"#);
    let id = bench.question(Question::RebootRequest("hub"));
    bench.heard(APP);
    bench.core.withdraw_question(QuestionId(id));
    bench.core.withdraw_question(QuestionId(id));
    bench.event(Event::FwupVersionRead(None));
    assert_eq!(bench.heard(APP), [json!({"withdrawn": id})]);
    let answer = json!({"question": id, "answer": "reboot"}).to_string();
    assert_eq!(bench.code(&answer), "refused");
    for _ in 0..MAX_QUESTIONS {
        bench.question(Question::RebootRequest("hub"));
    }
    assert_eq!(bench.core.ask_decider(Question::RebootRequest("hub")), None);
    assert!(bench.core.control.decided.is_empty());
}
