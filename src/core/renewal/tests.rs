//! Fresh URLs for a download in hand, and a reboot owed from an earlier run, in virtual time.

use std::time::Duration;

use serde_json::{Value, json};

use super::TRIES;
use crate::config::Secret;
use crate::core::Setup;
use crate::core::effect::Effect;
use crate::core::event::{Event, InstallEvent, JobId, SocketEvent};
use crate::core::reboot::{Installed, Ordered};
use crate::core::tests::{Bench, SECOND, setup};
use crate::core::timers::Timer;
use crate::wire::{DeviceEvent, DevicePush, Inbound, Offer, Outbound, Stage};

const FIRST: JobId = JobId(1);
const TIMEOUT: Duration = Duration::from_secs(20);

/// A bench that installs `new`, and nothing of its past.
fn installing() -> Bench {
    let mut bench = Bench::joined(setup());
    bench.offer("new");
    bench.effects.clear();
    bench
}

impl Bench {
    fn refused(&mut self) {
        self.refused_with(0);
    }

    /// Refused when so many bytes were here.
    fn refused_with(&mut self, held: u64) {
        let reason = "HTTP 403".to_owned();
        self.install(InstallEvent::UrlRefused { reason, held });
    }

    fn is_waiting(&self) -> bool {
        self.core.timers.deadline(Timer::FreshOffer).is_some()
    }

    fn starts(&self) -> Vec<(JobId, String)> {
        let starts = self.effects.iter().filter_map(|effect| match effect {
            Effect::StartInstall(job, order) => Some((*job, order.offer.uuid.clone())),
            _ => None,
        });
        starts.collect()
    }

    fn failures(&self) -> Vec<String> {
        let failures = self.device_pushes().into_iter();
        let failures = failures.filter_map(|push| match push {
            DevicePush::Failed { reason } => Some(reason),
            _ => None,
        });
        failures.collect()
    }

    fn lose_link(&mut self) {
        self.socket(SocketEvent::Closed("gone".into()));
    }

    /// The same firmware as [`Bench::offer`]'s, changed by `change`.
    fn offer_with(&mut self, change: impl FnOnce(&mut Offer)) {
        let mut offer = Offer {
            uuid: "new".into(),
            version: "2.0.0".into(),
            product: "demo".into(),
            url: Secret::new("https://files/fw?sig=fresh"),
            size: Some(100),
            checksum: None,
            partials: Vec::new(),
        };
        change(&mut offer);
        self.receive(Inbound::Device(DeviceEvent::Update(Box::new(offer))));
    }
}

#[test]
fn a_refused_url_is_renewed_by_a_join_that_names_no_download() {
    let mut bench = installing();
    bench.refused();
    assert_eq!(bench.joins(), 1);
    assert_eq!(bench.uuid_in_last_join(), Value::Null);
    assert!(!bench.is_waiting(), "the hub has not answered the join");
    bench.reply_to_join();
    assert!(bench.is_waiting());
    bench.effects.clear();
    bench.offer_with(|_| {});
    let url = Secret::new("https://files/fw?sig=fresh");
    assert!(bench.effects.contains(&Effect::RenewUrl(FIRST, url)));
    let interface = Some("eth0".to_owned());
    assert_eq!(
        bench.device_pushes(),
        [DevicePush::Received, DevicePush::Started { interface }]
    );
    assert!(!bench.is_waiting());
    // The download is in the hub's books again, and in every join.
    bench.lose_link();
    bench.reconnect();
    assert_eq!(bench.uuid_in_last_join(), "new");
    bench.pass(TIMEOUT * 3);
    assert_eq!(bench.failures(), [""; 0]);
    assert_eq!(bench.starts(), []);
}

#[test]
fn a_url_refused_while_the_link_is_down_is_asked_for_with_the_next_join() {
    let mut bench = installing();
    bench.lose_link();
    bench.refused();
    bench.pass(120 * SECOND);
    assert!(!bench.is_waiting());
    bench.open();
    assert_eq!(bench.uuid_in_last_join(), Value::Null);
    bench.reply_to_join();
    assert!(bench.is_waiting());
}

#[test]
fn a_join_that_named_the_download_is_no_request() {
    let mut bench = installing();
    bench.lose_link();
    bench.pass(120 * SECOND);
    bench.open();
    assert_eq!(bench.uuid_in_last_join(), "new");
    // Between that join and its answer.
    bench.refused();
    bench.reply_to_join();
    assert_eq!(bench.uuid_in_last_join(), Value::Null);
    assert!(!bench.is_waiting());
    bench.reply_to_join();
    assert!(bench.is_waiting());
}

#[test]
fn a_link_lost_before_the_offer_asks_again_and_no_time_is_counted_meanwhile() {
    let mut bench = installing();
    bench.refused();
    bench.reply_to_join();
    bench.pass(TIMEOUT - SECOND);
    for _ in 0..3 {
        bench.lose_link();
        assert!(!bench.is_waiting());
        bench.pass(TIMEOUT * 5);
        bench.open();
        assert_eq!(bench.uuid_in_last_join(), Value::Null);
        assert!(!bench.is_waiting());
        // Lost between the join and its answer, too.
        bench.lose_link();
        bench.pass(TIMEOUT * 5);
        bench.open();
        assert_eq!(bench.uuid_in_last_join(), Value::Null);
        bench.reply_to_join();
        assert!(bench.is_waiting());
    }
    assert!(!bench.effects.contains(&Effect::CancelInstall(FIRST)));
    bench.offer_with(|_| {});
    let renewed = |effect: &Effect| matches!(effect, Effect::RenewUrl(FIRST, _));
    assert!(bench.effects.iter().any(renewed));
}

#[test]
fn a_hub_that_makes_no_offer_is_waited_for_so_long() {
    let mut bench = installing();
    bench.refused();
    bench.reply_to_join();
    bench.pass(TIMEOUT - SECOND);
    assert!(!bench.effects.contains(&Effect::CancelInstall(FIRST)));
    bench.pass(2 * SECOND);
    assert!(bench.effects.contains(&Effect::CancelInstall(FIRST)));
    assert_eq!(bench.failures(), [""; 0], "the installer has not ended yet");
    bench.install(InstallEvent::Finished(Err("fwup error: cancelled".into())));
    let reason = "download failed: HTTP 403, and the hub made no fresh offer";
    assert_eq!(bench.failures(), [reason]);
}

#[test]
fn another_offer_is_taken_up_once_the_installer_has_ended() {
    type Change = fn(&mut Offer);
    let changes: [Change; 4] = [
        |offer| offer.uuid = "newer".into(),
        // The same name for other bytes.
        |offer| offer.size = Some(101),
        |offer| offer.checksum = Some([1; 32]),
        |offer| offer.partials = vec![[1; 32]],
    ];
    for change in changes {
        let mut bench = installing();
        bench.refused();
        bench.reply_to_join();
        bench.effects.clear();
        bench.offer_with(change);
        assert!(bench.effects.contains(&Effect::CancelInstall(FIRST)));
        assert_eq!(bench.starts(), []);
        bench.pass(TIMEOUT * 2);
        bench.install(InstallEvent::Finished(Err("fwup error: cancelled".into())));
        assert_eq!(bench.failures(), [""; 0]);
        let starts = bench.starts();
        assert_eq!(starts.len(), 1);
        assert_eq!(starts[0].0, JobId(2));
        assert_eq!(
            bench.device_pushes(),
            [
                DevicePush::Received,
                DevicePush::Started {
                    interface: Some("eth0".into())
                }
            ]
        );
        // What the old job still says is nobody's.
        bench.install(InstallEvent::Finished(Ok(())));
        assert_eq!(bench.device_pushes().len(), 2);
        bench.lose_link();
        bench.reconnect();
        assert_eq!(bench.uuid_in_last_join(), json!(starts[0].1));
    }
}

#[test]
fn so_many_fresh_urls_are_tried_and_no_more() {
    let mut bench = installing();
    for nth in 1..=TRIES {
        bench.refused();
        assert_eq!(bench.joins(), usize::from(nth));
        bench.reply_to_join();
        bench.offer_with(|_| {});
    }
    bench.refused();
    assert_eq!(bench.joins(), usize::from(TRIES), "not asked again");
    assert!(bench.effects.contains(&Effect::CancelInstall(FIRST)));
    bench.install(InstallEvent::Finished(Err("fwup error: cancelled".into())));
    let reason = "download failed: HTTP 403, after 3 fresh offers";
    assert_eq!(bench.failures(), [reason]);
}

#[test]
fn fresh_urls_that_brought_bytes_do_not_count() {
    let mut bench = installing();
    // A slow line, and URLs that are good for an hour.
    for hour in 1..=10 {
        bench.refused_with(hour);
        bench.reply_to_join();
        bench.offer_with(|_| {});
        bench.pass(3600 * SECOND);
    }
    assert_eq!(bench.joins(), 10);
    // The same bytes again, or fewer, are no progress; the first one with ten counts.
    for held in [10, 3] {
        bench.refused_with(held);
        bench.reply_to_join();
        bench.offer_with(|_| {});
    }
    assert!(!bench.effects.contains(&Effect::CancelInstall(FIRST)));
    bench.refused_with(10);
    assert!(bench.effects.contains(&Effect::CancelInstall(FIRST)));
}

#[test]
fn a_join_that_the_hub_refuses_is_asked_with_again() {
    let mut bench = installing();
    bench.refused();
    let reference = bench.last_ref(|body| matches!(body, Outbound::Join(..)));
    bench.receive(Inbound::ChannelClosed {
        topic: crate::wire::Topic::Device,
        join_ref: Some(reference),
    });
    bench.pass(6 * SECOND);
    assert_eq!(bench.joins(), 2);
    assert_eq!(bench.uuid_in_last_join(), Value::Null);
    bench.reply_to_join();
    assert!(bench.is_waiting());
}

fn owing() -> Setup {
    Setup {
        installed: Some(Installed {
            uuid: "new".into(),
            reboot: Ordered::No,
        }),
        ..setup()
    }
}

#[test]
fn a_reboot_owed_from_an_earlier_run_is_reported_confirmed_and_ordered_once() {
    let mut bench = Bench::new(owing());
    bench.pass(5 * SECOND);
    bench.open();
    assert_eq!(bench.uuid_in_last_join(), "new");
    assert_eq!(bench.device_pushes(), []);
    bench.reply_to_join();
    // Whatever the hub wants meanwhile: no second update over the one that is switched to.
    bench.effects.clear();
    bench.lose_link();
    bench.pass(2 * SECOND);
    bench.open();
    assert_eq!(bench.uuid_in_last_join(), "new");
    bench.reply_to_join();
    bench.offer("newer");
    bench.offer("new");
    let (stage, value) = (Stage::Updating, 100);
    let told = [DevicePush::Progress { stage, value }, DevicePush::Completed];
    let pushes = bench.device_pushes();
    assert_eq!(pushes[pushes.len() - 2..], told, "{pushes:?}");
    assert_eq!(bench.starts(), []);
    assert!(!bench.rebooted());
    bench.reply_to_heartbeat();
    assert_eq!(bench.count(&Effect::Reboot), 1);
    bench.event(Event::RebootCommandEnded(Ok(())));
    bench.offer("newer");
    assert_eq!(bench.starts(), []);
    assert_eq!(bench.count(&Effect::Reboot), 1);
}

#[test]
fn a_reboot_owed_waits_for_the_hub_so_long() {
    // Never reached.
    let mut bench = Bench::new(owing());
    bench.pass(59 * SECOND);
    assert!(!bench.rebooted());
    bench.pass(2 * SECOND);
    assert_eq!(bench.count(&Effect::Reboot), 1);
    // Reached, but silent.
    let mut bench = Bench::new(owing());
    bench.open();
    bench.reply_to_join();
    bench.pass(4 * SECOND);
    assert!(!bench.rebooted());
    bench.pass(2 * SECOND);
    assert_eq!(bench.count(&Effect::Reboot), 1);
    // Staying offline is no reason either.
    let mut bench = Bench::new(Setup {
        endpoint: None,
        ..owing()
    });
    bench.pass(61 * SECOND);
    assert_eq!(bench.count(&Effect::Reboot), 1);
}

#[test]
fn a_link_that_comes_and_goes_does_not_put_off_the_reboot() {
    let mut bench = installing();
    bench.install(InstallEvent::Downloaded);
    bench.install(InstallEvent::Finished(Ok(())));
    let finished = bench.now;
    // No connection lasts long enough for an answer.
    while !bench.rebooted() {
        bench.pass(3 * SECOND);
        bench.lose_link();
        bench.pass(2 * SECOND);
        bench.open();
        bench.reply_to_join();
        assert!(bench.now <= finished + 70 * SECOND, "put off");
    }
    assert!(bench.now >= finished + 55 * SECOND, "given up early");
    // One that came late is not given more than the rest of the time.
    let mut bench = installing();
    bench.lose_link();
    bench.install(InstallEvent::Downloaded);
    bench.install(InstallEvent::Finished(Ok(())));
    bench.pass(58 * SECOND);
    bench.open();
    bench.reply_to_join();
    bench.pass(SECOND);
    assert!(!bench.rebooted());
    bench.pass(SECOND);
    assert!(bench.rebooted());
}

fn owing_after(reboot: Ordered) -> Bench {
    Bench::new(Setup {
        installed: Some(Installed {
            uuid: "new".into(),
            reboot,
        }),
        ..setup()
    })
}

#[test]
fn a_reboot_ordered_by_an_earlier_run_is_not_reported_again() {
    let mut bench = owing_after(Ordered::Tried);
    assert!(bench.rebooted());
    // It is as any other from then on.
    bench.event(Event::RebootCommandEnded(Ok(())));
    bench.pass(60 * SECOND);
    assert!(bench.effects.contains(&Effect::ForceReboot));

    // Accepted, it has its time; the hub is no longer told of anything, and offers nothing.
    let mut bench = owing_after(Ordered::Accepted);
    bench.open();
    assert_eq!(bench.uuid_in_last_join(), Value::Null);
    bench.reply_to_join();
    bench.offer("new");
    bench.pass(59 * SECOND);
    assert!(!bench.rebooted());
    bench.pass(SECOND);
    assert!(bench.rebooted());
    assert!(!bench.device_pushes().contains(&DevicePush::Received));
    assert!(!bench.device_pushes().contains(&DevicePush::Completed));
}
