//! A file of this device that is installed, in virtual time.

use serde_json::json;

use super::*;
use crate::core::Setup;
use crate::core::control::tests::{APP, OTHER};
use crate::core::effect::InstallOrder;
use crate::core::event::{Errand, Event, InstallEvent, JobId, Signal, SocketEvent, Worker};
use crate::core::tests::{Bench, SECOND, offer, setup};
use crate::wire::Stage;

const APPLY: &str =
    r#"{"id":7,"method":"apply","params":{"path":"/media/usb/x.fw","progress":true}}"#;
const FORCE: &str = r#"{"id":7,"method":"apply","params":{"path":"/media/usb/x.fw","force":true}}"#;

const STAMP: FileStamp = FileStamp {
    device: 1,
    inode: 2,
    size: 100,
    modified: (3, 4),
    changed: (5, 6),
};

impl Bench {
    /// The file turns out to be this firmware.
    fn reads(&mut self, uuid: &str) {
        let orders = |effect: &Effect| matches!(effect, Effect::ReadFirmware { .. });
        assert!(self.effects.iter().any(orders), "nobody looks at it");
        self.effects.retain(|effect| !orders(effect));
        self.event(Event::FirmwareRead(Ok((offer(uuid), STAMP))));
    }

    fn order(&self) -> Option<&InstallOrder> {
        self.effects.iter().rev().find_map(|effect| match effect {
            Effect::StartInstall(_, order) => Some(&**order),
            _ => None,
        })
    }

    /// A file is being installed.
    fn applying(setup: Setup) -> Self {
        let mut bench = Self::joined(setup);
        bench.says(APP, APPLY);
        bench.reads("new");
        bench
    }

    /// The answer to the request.
    fn verdict_on_file(&mut self) -> Value {
        let mut answers = self.heard(APP);
        answers.retain(|said| said["id"] == 7 && said.get("progress").is_none());
        assert_eq!(answers.len(), 1, "{answers:?}");
        answers.remove(0)
    }

    fn finishes(&mut self, result: Result<(), &str>) {
        let result = result.map_err(str::to_owned);
        self.install(InstallEvent::Finished(result));
    }
}

#[test]
fn a_file_is_looked_at_then_installed_and_the_device_reboots() {
    let mut bench = Bench::joined(setup());
    bench.says(APP, APPLY);
    assert_eq!(bench.order(), None);
    assert_eq!(bench.device_pushes(), []);
    bench.reads("new");
    let order = bench.order().expect("an order");
    assert_eq!(order.file, Some("/media/usb/x.fw".into()));
    assert_eq!(order.stamp, STAMP);
    assert_eq!(order.public_keys, setup().public_keys);
    let interface = None;
    let told = [DevicePush::Received, DevicePush::Started { interface }];
    assert_eq!(bench.device_pushes(), told);
    bench.install(InstallEvent::Progress(40));
    let heard = bench.heard(APP);
    assert_eq!(heard, [json!({"id": 7, "progress": {"percent": 40}})]);
    bench.effects.clear();
    bench.finishes(Ok(()));
    let what = json!({"uuid": "new", "product": "demo", "version": "2.0.0"});
    assert_eq!(bench.verdict_on_file()["result"], what);
    let (stage, value) = (Stage::Updating, 100);
    let told = [DevicePush::Progress { stage, value }, DevicePush::Completed];
    assert_eq!(bench.device_pushes(), told);
    assert!(!bench.rebooted());
    bench.reply_to_heartbeat();
    assert!(bench.rebooted());
}

#[test]
fn a_failure_is_not_the_hub_s_business() {
    let mut bench = Bench::applying(setup());
    bench.effects.clear();
    bench.finishes(Err("fwup error: bad"));
    let error = bench.verdict_on_file()["error"].clone();
    assert_eq!(
        error,
        json!({"code": "failed", "message": "fwup error: bad"})
    );
    assert_eq!(bench.device_pushes(), []);
    let update = bench.result(r#"{"method":"update-status"}"#);
    assert_eq!(update["state"], "idle");
    assert_eq!(update["last_error"], "fwup error: bad");
    bench.pass(600 * SECOND);
    assert!(!bench.rebooted());
    // The next is welcome.
    bench.says(APP, APPLY);
    bench.reads("other");
    assert_eq!(bench.order().map(|order| &*order.offer.uuid), Some("other"));
}

#[test]
fn what_the_hub_offers_meanwhile_waits_for_a_failure() {
    let mut bench = Bench::applying(setup());
    bench.offer("first");
    bench.offer("second");
    assert_eq!(bench.order().map(|order| &*order.offer.uuid), Some("new"));
    bench.finishes(Err("fwup error: bad"));
    let order = bench.order().expect("an order");
    assert_eq!((&*order.offer.uuid, &order.file), ("second", &None));
    let mut bench = Bench::applying(setup());
    bench.offer("first");
    bench.finishes(Ok(()));
    assert_eq!(bench.order().map(|order| &*order.offer.uuid), Some("new"));
}

#[test]
fn the_hub_is_not_told_to_look_into_its_books() {
    let mut bench = Bench::applying(setup());
    bench.socket(SocketEvent::Closed("gone".into()));
    bench.reconnect();
    assert_eq!(bench.uuid_in_last_join(), Value::Null);
    let status = r#"{"method":"send-status","params":{"status":"failed","reason":"x"}}"#;
    assert_eq!(bench.code(status), "refused");
    assert_eq!(
        bench.result(r#"{"method":"update-status"}"#)["state"],
        "installing"
    );
}

#[test]
fn one_update_at_a_time_whoever_wants_it() {
    let mut bench = Bench::joined(setup());
    bench.says(APP, APPLY);
    let refused = |bench: &mut Bench, code: &str| {
        let answer = bench.asks(OTHER, APPLY);
        assert_eq!(answer["error"]["code"], *code, "{answer}");
    };
    refused(&mut bench, "busy");
    bench.reads("new");
    refused(&mut bench, "busy");
    bench.finishes(Ok(()));
    refused(&mut bench, "busy");
    bench.reply_to_heartbeat();
    refused(&mut bench, "refused");
    let mut bench = Bench::joined(setup());
    bench.offer("new");
    refused(&mut bench, "busy");
    // Also one that comes while the file is looked at.
    let mut bench = Bench::joined(setup());
    bench.says(APP, APPLY);
    bench.offer("hub");
    bench.reads("new");
    assert_eq!(bench.verdict_on_file()["error"]["code"], "busy");
    assert_eq!(bench.order().map(|order| &*order.offer.uuid), Some("hub"));
    let mut bench = Bench::applying(setup());
    bench.event(Event::Signal(Signal::Terminate));
    refused(&mut bench, "refused");
}

#[test]
fn what_no_offer_could_do_a_file_cannot_do_either() {
    let keyless = Setup {
        public_keys: Vec::new(),
        ..setup()
    };
    let stale = Setup {
        stale_slot: Some("slot b is running".into()),
        ..setup()
    };
    let homeless = Setup {
        devpath: None,
        ..setup()
    };
    for (setup, part) in [
        (keyless, "no public keys available; see"),
        (stale, "slot b is running"),
        (homeless, "NERVES_HUB_FWUP_DEVPATH"),
    ] {
        let mut bench = Bench::joined(setup);
        let error = bench.asks(APP, APPLY)["error"].clone();
        assert_eq!(error["code"], "unavailable");
        let said = error["message"].as_str().expect("a text");
        assert!(said.contains(part), "{said}");
        assert_eq!(bench.order(), None);
    }
}

#[test]
fn the_rules_for_offers_hold_unless_it_is_forced() {
    let mut bench = Bench::joined(setup());
    bench.says(APP, APPLY);
    bench.reads("running");
    let error = bench.verdict_on_file()["error"].clone();
    assert_eq!(error["code"], "refused");
    let said = "firmware running is already running; --force installs it all the same";
    assert_eq!(error["message"], said);
    assert_eq!(bench.device_pushes(), []);
    assert_eq!(bench.order(), None);
    bench.says(APP, FORCE);
    bench.reads("running");
    assert!(bench.order().is_some());
}

#[test]
fn a_file_that_cannot_be_read_is_told_and_forgotten() {
    let mut bench = Bench::joined(setup());
    bench.says(APP, APPLY);
    bench.event(Event::FirmwareRead(Err("/media/usb/x.fw: is empty".into())));
    let error = bench.verdict_on_file()["error"].clone();
    assert_eq!(error["message"], "/media/usb/x.fw: is empty");
    bench.says(APP, APPLY);
    let worker = Worker::Errand(Errand::FirmwareFile);
    bench.event(Event::WorkerExited(worker, Err("no thread".into())));
    assert_eq!(bench.verdict_on_file()["error"]["code"], "failed");
    // Nobody has asked.
    bench.event(Event::FirmwareRead(Ok((offer("new"), STAMP))));
    assert_eq!(bench.order(), None);
    assert_eq!(bench.device_pushes(), []);
}

/// An update of the hub's has failed, and the hub does not know.
fn owing() -> Bench {
    let mut bench = Bench::joined(setup());
    bench.offer("hub");
    bench.finishes(Err("fwup error: first"));
    bench.socket(SocketEvent::Closed("gone".into()));
    bench.effects.clear();
    bench
}

#[test]
fn without_the_hub_a_success_reboots_at_once() {
    let mut bench = owing();
    bench.says(APP, APPLY);
    bench.reads("new");
    assert_eq!(bench.device_pushes(), []);
    bench.event(Event::Install(JobId(2), InstallEvent::Finished(Ok(()))));
    bench.pass(SECOND);
    assert!(bench.rebooted());
}

#[test]
fn an_outcome_that_is_owed_to_the_hub_stays_owed() {
    let mut bench = owing();
    bench.says(APP, APPLY);
    bench.reads("new");
    bench.reconnect();
    assert_eq!(bench.uuid_in_last_join(), "hub");
    let is_failed = |push: &DevicePush| matches!(push, DevicePush::Failed { .. });
    assert!(!bench.device_pushes().iter().any(is_failed));
    bench.offer("next");
    let failed = InstallEvent::Finished(Err("fwup error: second".into()));
    bench.event(Event::Install(JobId(2), failed));
    let reason = "fwup error: first".to_owned();
    let told = bench.device_pushes();
    assert_eq!(
        told.last(),
        Some(&DevicePush::Failed { reason }),
        "{told:?}"
    );
    bench.reply_to_heartbeat();
    assert_eq!(bench.order().map(|order| &*order.offer.uuid), Some("next"));
}

#[test]
fn an_offer_that_waits_for_a_report_waits_for_the_file_too() {
    let mut bench = Bench::joined(setup());
    bench.offer("hub");
    bench.finishes(Err("fwup error: first"));
    bench.offer("next");
    bench.socket(SocketEvent::Closed("gone".into()));
    bench.says(APP, APPLY);
    bench.reads("new");
    let failed = InstallEvent::Finished(Err("fwup error: second".into()));
    bench.event(Event::Install(JobId(2), failed));
    bench.reconnect();
    bench.reply_to_heartbeat();
    assert_eq!(bench.order().map(|order| &*order.offer.uuid), Some("next"));
}

#[test]
fn a_reload_while_leaving_changes_nothing() {
    let mut bench = Bench::applying(setup());
    bench.event(Event::Signal(Signal::Terminate));
    bench.effects.clear();
    bench.event(Event::Signal(Signal::Reload));
    assert_eq!(bench.effects, []);
}
