//! Extensions and their threads, in virtual time.

use std::time::Duration;

use serde_json::{Value, json};

use super::*;
use crate::core::control::tests::APP;
use crate::core::effect::{Effect, ExtensionOrder};
use crate::core::event::{Event, ExtensionEvent, ExtensionId, SocketEvent, Worker};
use crate::core::tests::{Bench, SECOND, setup};
use crate::wire::inbound::ReplyBody;
use crate::wire::{DeviceEvent, Inbound, Reply};

const HEALTH: ExtensionId = ExtensionId(0);
const LOGGING: ExtensionId = ExtensionId(1);

fn enabled(name: &str, versions: &[&str], always: bool) -> Enabled {
    Enabled {
        offered: Offered {
            name: name.to_owned(),
            versions: versions.iter().map(|text| (*text).to_owned()).collect(),
        },
        way: Way::Thread { always },
    }
}

fn with_two() -> Setup {
    Setup {
        extensions: vec![
            enabled("health", &["0.0.1"], false),
            enabled("logging", &["0.1.0", "0.0.1"], true),
        ],
        extension_timeout: 30 * SECOND,
        ..setup()
    }
}

fn asks_for_extensions(bench: &mut Bench) {
    let takes = [("health", "0.0.1"), ("logging", "0.0.1")];
    let takes = takes.map(|(name, version)| (name.to_owned(), vec![version.to_owned()]));
    let event = DeviceEvent::ExtensionsGet(Some(takes.into()));
    bench.receive(Inbound::Device(event));
}

/// The hub answers the latest join of the extensions channel.
fn joins(bench: &mut Bench, attach: &[&str]) {
    let is_join = |body: &Outbound| matches!(body, Outbound::Join(Topic::Extensions, _));
    let reference = bench.last_ref(is_join);
    let outcome = Ok(ReplyBody {
        offer: None,
        attach: attach.iter().map(|name| (*name).to_owned()).collect(),
    });
    bench.receive(Inbound::Reply(Reply {
        topic: Topic::Extensions,
        reference,
        outcome,
    }));
}

fn attached() -> Bench {
    let mut bench = Bench::joined(with_two());
    asks_for_extensions(&mut bench);
    joins(&mut bench, &["health", "logging"]);
    bench
}

/// The orders to an extension since the last look.
fn orders(bench: &mut Bench, of: ExtensionId) -> Vec<ExtensionOrder> {
    let mut orders = Vec::new();
    bench.effects.retain(|effect| match effect {
        Effect::Extension(id, order) if *id == of => {
            orders.push(order.clone());
            false
        }
        _ => true,
    });
    orders
}

/// What was said to the hub on the channel since the last look.
fn said(bench: &mut Bench) -> Vec<(String, Value)> {
    let mut said = Vec::new();
    bench.effects.retain(|effect| match effect {
        Effect::Push(_, push) if matches!(push.body, Outbound::Extension(_)) => {
            let (_, event, payload) = push.body.parts();
            said.push((event.into_owned(), payload));
            false
        }
        _ => true,
    });
    said
}

fn names(said: &[(String, Value)]) -> Vec<&str> {
    said.iter().map(|(event, _)| event.as_str()).collect()
}

fn hub(bench: &mut Bench, event: ExtensionsEvent) {
    bench.receive(Inbound::Extensions {
        join_ref: None,
        event,
    });
}

fn checks(bench: &mut Bench) {
    let check = ExtensionsEvent::Said(Said {
        name: "health".into(),
        event: "check".into(),
        payload: json!({}),
    });
    hub(bench, check);
}

fn tells(bench: &mut Bench, id: ExtensionId, event: ExtensionEvent) {
    bench.event(Event::Extension(id, event));
}

fn pushes(bench: &mut Bench, id: ExtensionId, event: &str) {
    let event = event.to_owned();
    let payload = json!({"n": 1});
    tells(bench, id, ExtensionEvent::Push { event, payload });
}

fn ends(bench: &mut Bench, id: ExtensionId, result: Result<(), &str>) {
    let result = result.map_err(str::to_owned);
    bench.event(Event::WorkerExited(Worker::Extension(id), result));
}

fn is_told(version: &str) -> ExtensionOrder {
    ExtensionOrder::Say(Word::Attached {
        version: version.to_owned(),
    })
}

fn selected(names: &[&str]) -> Selection {
    Selection::Names(names.iter().map(|name| (*name).to_owned()).collect())
}

#[test]
fn one_is_started_when_it_is_attached_and_another_at_the_start() {
    let mut bench = Bench::new(with_two());
    assert_eq!(orders(&mut bench, LOGGING), [ExtensionOrder::Start]);
    bench.open();
    bench.reply_to_join();
    asks_for_extensions(&mut bench);
    joins(&mut bench, &["health", "logging"]);
    assert_eq!(
        orders(&mut bench, HEALTH),
        [ExtensionOrder::Start, is_told("0.0.1")]
    );
    // The newest that both know.
    assert_eq!(orders(&mut bench, LOGGING), [is_told("0.0.1")]);
    assert_eq!(
        names(&said(&mut bench)),
        ["health:attached", "logging:attached"]
    );
}

#[test]
fn an_attached_one_hears_and_is_heard_until_it_is_detached() {
    let mut bench = attached();
    orders(&mut bench, HEALTH);
    said(&mut bench);
    checks(&mut bench);
    let [ExtensionOrder::Say(Word::Said { event, alarms, .. })] = &orders(&mut bench, HEALTH)[..]
    else {
        panic!("not told");
    };
    assert_eq!((event.as_str(), alarms.len()), ("check", 0));
    pushes(&mut bench, HEALTH, "report");
    tells(&mut bench, HEALTH, ExtensionEvent::Idle);
    assert_eq!(
        said(&mut bench),
        [("health:report".into(), json!({"n": 1}))]
    );
    hub(&mut bench, ExtensionsEvent::Detach(selected(&["health"])));
    assert_eq!(orders(&mut bench, HEALTH), [ExtensionOrder::End]);
    assert_eq!(names(&said(&mut bench)), ["health:detached"]);
    pushes(&mut bench, HEALTH, "report");
    checks(&mut bench);
    assert_eq!(said(&mut bench), []);
    assert_eq!(orders(&mut bench, HEALTH), []);
    // The one that collects goes on collecting.
    orders(&mut bench, LOGGING);
    hub(&mut bench, ExtensionsEvent::Detach(Selection::All));
    assert_eq!(
        orders(&mut bench, LOGGING),
        [ExtensionOrder::Say(Word::Away)]
    );
}

#[test]
fn attached_again_before_it_has_ended_it_is_started_once_it_has() {
    let mut bench = attached();
    orders(&mut bench, HEALTH);
    for _ in 0..50 {
        hub(&mut bench, ExtensionsEvent::Detach(selected(&["health"])));
        hub(&mut bench, ExtensionsEvent::Attach(selected(&["health"])));
    }
    assert_eq!(orders(&mut bench, HEALTH), [ExtensionOrder::End]);
    // Said to the next run already.
    checks(&mut bench);
    ends(&mut bench, HEALTH, Ok(()));
    let orders = orders(&mut bench, HEALTH);
    assert_eq!(orders[..2], [ExtensionOrder::Start, is_told("0.0.1")]);
    let check = |order: &ExtensionOrder| matches!(order, ExtensionOrder::Say(Word::Said { event, .. }) if event == "check");
    assert!(orders.len() == 3 && check(&orders[2]), "{orders:?}");
    said(&mut bench);
    pushes(&mut bench, HEALTH, "report");
    assert_eq!(names(&said(&mut bench)), ["health:report"]);
}

#[test]
fn one_whose_last_run_never_ends_is_not_attached_again() {
    let mut bench = attached();
    hub(&mut bench, ExtensionsEvent::Detach(selected(&["health"])));
    hub(&mut bench, ExtensionsEvent::Attach(selected(&["health"])));
    said(&mut bench);
    bench.pass(31 * SECOND);
    let reports = said(&mut bench);
    assert_eq!(names(&reports), ["health:error"]);
    let reason = reports[0].1["reason"].as_str().expect("reason");
    assert_eq!(reason, "its last run has not ended for 30 s");
    ends(&mut bench, HEALTH, Ok(()));
    hub(&mut bench, ExtensionsEvent::Attach(selected(&["health"])));
    assert_eq!(names(&said(&mut bench)), ["health:attached"]);
}

#[test]
fn one_restarted_while_the_hub_is_away_is_not_told_that_it_is_there() {
    let mut bench = attached();
    hub(&mut bench, ExtensionsEvent::Detach(selected(&["health"])));
    hub(&mut bench, ExtensionsEvent::Attach(selected(&["health"])));
    bench.socket(SocketEvent::Closed("gone".into()));
    orders(&mut bench, HEALTH);
    ends(&mut bench, HEALTH, Ok(()));
    assert_eq!(orders(&mut bench, HEALTH), [ExtensionOrder::Start]);
    bench.pass(2 * SECOND);
    bench.open();
    bench.reply_to_join();
    asks_for_extensions(&mut bench);
    joins(&mut bench, &["health"]);
    assert_eq!(orders(&mut bench, HEALTH), [is_told("0.0.1")]);
}

#[test]
fn a_program_by_the_shell_s_name_opens_no_shell() {
    let mut bench = Bench::joined(Setup {
        extensions: vec![enabled(LOCAL_SHELL, &["0.0.1"], false)],
        ..setup()
    });
    bench.receive(Inbound::Device(DeviceEvent::ExtensionsGet(None)));
    joins(&mut bench, &[LOCAL_SHELL]);
    let request = ExtensionsEvent::LocalShell(LocalShellEvent::Request);
    hub(&mut bench, request);
    let opens = |effect: &Effect| matches!(effect, Effect::Shell(..));
    assert!(!bench.effects.iter().any(opens));
}

#[test]
fn what_was_not_offered_is_not_attached() {
    let mut bench = Bench::joined(with_two());
    let takes = [("health".to_owned(), vec!["0.0.1".to_owned()])];
    let event = DeviceEvent::ExtensionsGet(Some(takes.into()));
    bench.receive(Inbound::Device(event));
    joins(&mut bench, &["health"]);
    orders(&mut bench, LOGGING);
    said(&mut bench);
    hub(&mut bench, ExtensionsEvent::Attach(Selection::All));
    assert_eq!(names(&said(&mut bench)), ["health:attached"]);
    hub(
        &mut bench,
        ExtensionsEvent::Attach(selected(&["logging", "logging"])),
    );
    assert_eq!(names(&said(&mut bench)), ["logging:error"]);
    assert_eq!(orders(&mut bench, LOGGING), []);
}

#[test]
fn away_and_back_again_costs_no_thread() {
    let mut bench = attached();
    orders(&mut bench, HEALTH);
    orders(&mut bench, LOGGING);
    bench.socket(SocketEvent::Closed("gone".into()));
    for id in [HEALTH, LOGGING] {
        assert_eq!(orders(&mut bench, id), [ExtensionOrder::Say(Word::Away)]);
    }
    said(&mut bench);
    pushes(&mut bench, HEALTH, "report");
    assert_eq!(said(&mut bench), []);
    bench.pass(2 * SECOND);
    bench.open();
    bench.reply_to_join();
    asks_for_extensions(&mut bench);
    joins(&mut bench, &["logging"]);
    assert_eq!(orders(&mut bench, HEALTH), [ExtensionOrder::End]);
    assert_eq!(orders(&mut bench, LOGGING), [is_told("0.0.1")]);
}

#[test]
fn one_that_hangs_is_detached_and_reported() {
    let mut bench = attached();
    orders(&mut bench, HEALTH);
    said(&mut bench);
    checks(&mut bench);
    bench.pass(20 * SECOND);
    checks(&mut bench);
    // Dealing with the first gives the second its own time.
    tells(&mut bench, HEALTH, ExtensionEvent::Idle);
    bench.pass(29 * SECOND);
    assert_eq!(said(&mut bench), []);
    bench.pass(2 * SECOND);
    let error = (
        "health:error".into(),
        json!({"reason": "it hangs for 30 s"}),
    );
    assert_eq!(said(&mut bench), [error]);
    assert_eq!(
        orders(&mut bench, HEALTH).last(),
        Some(&ExtensionOrder::Abandon)
    );
    // Whoever is idle may be so for ever.
    bench.pass(3600 * SECOND);
    assert!(bench.core.extensions.all[LOGGING.0].is_attached);
}

#[test]
fn one_that_panics_or_ends_is_reported_and_may_be_attached_again() {
    for (result, reason) in [
        (Err("panicked: on purpose"), "panicked: on purpose"),
        (Ok(()), "it has ended"),
    ] {
        let mut bench = attached();
        said(&mut bench);
        ends(&mut bench, HEALTH, result);
        let error = ("health:error".into(), json!({"reason": reason}));
        assert_eq!(said(&mut bench), [error]);
        orders(&mut bench, HEALTH);
        checks(&mut bench);
        assert_eq!(orders(&mut bench, HEALTH), []);
        hub(&mut bench, ExtensionsEvent::Attach(Selection::All));
        assert_eq!(
            orders(&mut bench, HEALTH),
            [ExtensionOrder::Start, is_told("0.0.1")]
        );
    }
}

#[test]
fn one_that_floods_or_does_not_listen_is_detached() {
    let mut bench = attached();
    said(&mut bench);
    for _ in 0..100 {
        pushes(&mut bench, HEALTH, "report");
    }
    bench.pass(Duration::from_millis(50));
    pushes(&mut bench, HEALTH, "report");
    let reports = said(&mut bench);
    assert_eq!(reports.len(), 101);
    assert!(reports.iter().all(|(event, _)| event == "health:report"));
    pushes(&mut bench, HEALTH, "report");
    assert_eq!(names(&said(&mut bench)), ["health:error"]);
    tells(&mut bench, LOGGING, ExtensionEvent::Stuck);
    assert_eq!(names(&said(&mut bench)), ["logging:error"]);
    // At a pace that is allowed nothing ever happens.
    let mut bench = attached();
    said(&mut bench);
    for _ in 0..1000 {
        pushes(&mut bench, HEALTH, "report");
        bench.pass(Duration::from_millis(50));
    }
    assert_eq!(said(&mut bench).len(), 1000);
}

#[test]
fn a_client_s_question_is_answered_once_whatever_happens() {
    let health = r#"{"id":1,"method":"health"}"#;
    let question = |bench: &mut Bench| {
        let orders = orders(bench, HEALTH);
        let Some(ExtensionOrder::Say(Word::Asked { question, what, .. })) = orders.last() else {
            panic!("not asked: {orders:?}");
        };
        assert_eq!(what, "report");
        *question
    };
    // Not attached, not even connected: it is started for it.
    let mut bench = Bench::new(with_two());
    bench.says(APP, health);
    let number = question(&mut bench);
    let answer = ExtensionEvent::Answer {
        question: number,
        answer: Ok(json!({"fine": true})),
    };
    tells(&mut bench, HEALTH, answer);
    assert_eq!(
        bench.heard(APP),
        [json!({"id": 1, "result": {"fine": true}})]
    );
    bench.says(APP, health);
    question(&mut bench);
    bench.pass(31 * SECOND);
    let heard = bench.heard(APP);
    assert_eq!(heard.len(), 1);
    assert_eq!(heard[0]["error"]["message"], "it hangs for 30 s");
    // Its thread is still there, so nobody else can be asked.
    assert_eq!(bench.code(health), "busy");
    ends(&mut bench, HEALTH, Ok(()));
    orders(&mut bench, HEALTH);
    bench.says(APP, health);
    let number = question(&mut bench);
    bench.leaves(APP);
    let answer = ExtensionEvent::Answer {
        question: number,
        answer: Err("no".into()),
    };
    tells(&mut bench, HEALTH, answer);
    assert_eq!(bench.heard(APP), Vec::<Value>::new());
    assert_eq!(bench.code(r#"{"method":"identities"}"#), "unavailable");
}

#[test]
fn alarms_of_one_last_as_long_as_its_thread() {
    let mut bench = attached();
    let alarm = |description: Option<&str>| ExtensionEvent::Alarm {
        name: "DiskAlmostFull:/".into(),
        description: description.map(str::to_owned),
    };
    let raised = |bench: &Bench| bench.core.raised_alarms();
    tells(&mut bench, HEALTH, alarm(Some("91 %")));
    tells(&mut bench, HEALTH, alarm(Some("92 %")));
    assert_eq!(raised(&bench), [("DiskAlmostFull:/".into(), "92 %".into())]);
    tells(&mut bench, HEALTH, alarm(None));
    assert_eq!(raised(&bench), []);
    tells(&mut bench, HEALTH, alarm(Some("93 %")));
    ends(&mut bench, HEALTH, Err("panicked"));
    assert_eq!(raised(&bench), []);
}
