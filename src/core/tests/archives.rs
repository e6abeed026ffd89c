//! Archives and the hub's keys in virtual time.

use super::*;
use crate::core::effect::ArchiveOrder;
use crate::core::effect::HubKeys;
use crate::core::event::ArchiveEnd;
use crate::wire::Archive;

const OTHER_KEY: &str = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
const MINUTE: Duration = Duration::from_secs(60);

fn taking() -> Setup {
    Setup {
        archives: ArchivePolicy::Download,
        archive_keys: vec![KEY.into()],
        ..setup()
    }
}

impl Bench {
    pub(super) fn archive(&mut self, uuid: &str) {
        self.receive(Inbound::Device(DeviceEvent::Archive(Box::new(Archive {
            uuid: uuid.into(),
            version: "1.0.0".into(),
            url: Secret::new("https://files/archive?sig=x"),
            size: Some(100),
            description: String::new(),
            platform: String::new(),
            architecture: String::new(),
        }))));
    }

    fn archive_keys(&mut self, keys: &[&str]) {
        let keys = keys.iter().map(|key| (*key).to_owned()).collect();
        self.receive(Inbound::Device(DeviceEvent::ArchiveKeys(keys)));
    }

    fn started(&self) -> Vec<(JobId, ArchiveOrder)> {
        let started = self.effects.iter().filter_map(|effect| match effect {
            Effect::StartArchive(job, order) => Some((*job, (**order).clone())),
            _ => None,
        });
        started.collect()
    }

    fn started_uuids(&self) -> Vec<String> {
        let started = self.started().into_iter();
        started.map(|(_, order)| order.archive.uuid).collect()
    }

    fn cancelled(&self) -> usize {
        let is_cancel = |effect: &&Effect| matches!(effect, Effect::CancelArchive(_));
        self.effects.iter().filter(is_cancel).count()
    }

    pub fn joins(&self) -> usize {
        let is_join = |push: &&Push| matches!(push.body, Outbound::Join(..));
        self.pushes().into_iter().filter(is_join).count()
    }

    /// The archive started last ends like this.
    fn ended(&mut self, end: ArchiveEnd) {
        let (job, _) = self.started().pop().expect("no archive started");
        self.event(Event::ArchiveEnded(job, end));
    }

    fn url_refused(&mut self, held: u64) {
        let reason = "HTTP 403".to_owned();
        self.ended(ArchiveEnd::UrlRefused { reason, held });
    }

    fn kept(&self) -> Vec<&HubKeys> {
        let kept = self.effects.iter().filter_map(|effect| match effect {
            Effect::KeepKeys(keys) => Some(keys),
            _ => None,
        });
        kept.collect()
    }
}

#[test]
fn archives_are_ignored_unless_wanted() {
    let mut bench = Bench::joined(setup());
    bench.archive("a");
    assert_eq!(bench.effects, []);
}

#[test]
fn an_archive_is_worked_on_once_however_often_it_is_sent() {
    let mut bench = Bench::joined(taking());
    bench.archive("a");
    bench.archive("a");
    assert_eq!(bench.started_uuids(), ["a"]);
    bench.ended(ArchiveEnd::Handled("/a/u.fw".into()));
    bench.archive("a");
    assert_eq!(bench.started_uuids(), ["a"]);
    bench.archive("b");
    assert_eq!(bench.started_uuids(), ["a", "b"]);
    let handled_archives = vec!["a".to_owned()];
    let mut bench = Bench::joined(Setup {
        handled_archives,
        ..taking()
    });
    bench.archive("a");
    assert_eq!(bench.started_uuids(), [""; 0]);
}

#[test]
fn a_newer_archive_takes_the_place_of_the_one_on_its_way() {
    let mut bench = Bench::joined(taking());
    bench.archive("a");
    bench.archive("b");
    bench.archive("c");
    assert_eq!(bench.cancelled(), 2);
    assert_eq!(bench.started_uuids(), ["a"]);
    bench.ended(ArchiveEnd::Cancelled);
    assert_eq!(bench.started_uuids(), ["a", "c"]);
    // An end of the first that comes late means nothing.
    bench.event(Event::ArchiveEnded(
        JobId(1),
        ArchiveEnd::Handled("/a/u.fw".into()),
    ));
    bench.archive("c");
    assert_eq!(bench.started_uuids(), ["a", "c"]);
}

#[test]
fn an_update_stops_archive_work_and_it_goes_on_afterwards() {
    let mut bench = Bench::joined(taking());
    bench.archive("a");
    bench.offer("new");
    assert_eq!(bench.cancelled(), 1);
    bench.ended(ArchiveEnd::Cancelled);
    // Sent again with another URL meanwhile, as with every join.
    bench.archive("a");
    bench.install(InstallEvent::Finished(Err("no".into())));
    assert_eq!(bench.started().len(), 1);
    bench.reply_to_heartbeat();
    assert_eq!(bench.started_uuids(), ["a", "a"]);
}

#[test]
fn an_archive_that_comes_during_an_update_waits_and_a_success_ends_in_the_reboot() {
    let mut bench = Bench::joined(taking());
    bench.offer("new");
    bench.archive("a");
    bench.install(InstallEvent::Downloaded);
    bench.install(InstallEvent::Finished(Ok(())));
    bench.reply_to_heartbeat();
    assert!(bench.rebooted());
    assert_eq!(bench.started_uuids(), [""; 0]);
}

#[test]
fn a_failed_archive_is_tried_again_later_and_later_or_with_the_next_join() {
    let mut bench = Bench::joined(taking());
    bench.archive("a");
    for minutes in [1, 2, 4, 8, 16, 32, 60, 60] {
        bench
            .effects
            .retain(|effect| matches!(effect, Effect::StartArchive(..)));
        let before = bench.started().len();
        bench.ended(ArchiveEnd::Failed("no space".into()));
        bench.pass(MINUTE * minutes - SECOND);
        assert_eq!(bench.started().len(), before, "hot after {minutes} minutes");
        bench.pass(MINUTE * minutes / 4 + 2 * SECOND);
        assert_eq!(
            bench.started().len(),
            before + 1,
            "late after {minutes} minutes"
        );
    }
    bench.ended(ArchiveEnd::Failed("no space".into()));
    let before = bench.started().len();
    bench.archive("a");
    assert_eq!(bench.started().len(), before + 1);
}

#[test]
fn a_refused_archive_is_left_alone_and_another_one_is_not() {
    let mut bench = Bench::joined(taking());
    bench.archive("a");
    bench.ended(ArchiveEnd::Refused("verification failed".into()));
    bench.archive("a");
    bench.pass(10 * MINUTE);
    assert_eq!(bench.started_uuids(), ["a"]);
    bench.archive("b");
    assert_eq!(bench.started_uuids(), ["a", "b"]);
}

#[test]
fn other_keys_are_another_chance_for_what_was_refused() {
    let firmwares = || Setup {
        archive_keys: Vec::new(),
        request_public_keys: true,
        ..taking()
    };
    let own = || Setup {
        request_archive_keys: true,
        ..taking()
    };
    type Send = fn(&mut Bench, &[&str]);
    let archive_keys: Send = |bench, keys| bench.archive_keys(keys);
    let firmware_keys: Send = |bench, keys| {
        let keys = keys.iter().map(|key| (*key).to_owned()).collect();
        bench.receive(Inbound::Device(DeviceEvent::FirmwareKeys(keys)));
    };
    for (setup, send) in [(own(), archive_keys), (firmwares(), firmware_keys)] {
        let mut bench = Bench::joined(setup);
        send(&mut bench, &[OTHER_KEY]);
        bench.archive("a");
        bench.pass(5 * SECOND);
        bench.ended(ArchiveEnd::Refused("verification failed".into()));
        send(&mut bench, &[OTHER_KEY]);
        send(&mut bench, &[]);
        bench.archive("a");
        assert_eq!(bench.started_uuids(), ["a"]);
        send(&mut bench, &[KEY, OTHER_KEY]);
        bench.archive("a");
        assert_eq!(bench.started_uuids(), ["a", "a"]);
        bench.ended(ArchiveEnd::Refused("verification failed".into()));
        send(&mut bench, &[OTHER_KEY, KEY]);
        bench.archive("a");
        assert_eq!(bench.started_uuids(), ["a", "a"], "the order says nothing");
    }
}

#[test]
fn a_thread_that_dies_counts_as_a_failure() {
    let mut bench = Bench::joined(taking());
    bench.archive("a");
    let lost = Err("no thread".to_owned());
    bench.event(Event::WorkerExited(Worker::Archive(JobId(1)), lost));
    bench.pass(2 * MINUTE);
    assert_eq!(bench.started_uuids(), ["a", "a"]);
}

#[test]
fn a_refused_url_is_renewed_by_joining_again_but_not_for_ever() {
    let mut bench = Bench::joined(taking());
    bench.archive("a");
    for joins in 1..=3 {
        bench.url_refused(0);
        assert_eq!(bench.joins(), joins);
        bench.reply_to_join();
        bench.archive("a");
    }
    bench.url_refused(0);
    assert_eq!((bench.joins(), bench.started().len()), (3, 4));
    // Bytes that came in between make it worth while again.
    bench.archive("a");
    bench.url_refused(10);
    assert_eq!(bench.joins(), 4);
    assert_eq!(bench.uuid_in_last_join(), serde_json::Value::Null);
}

#[test]
fn without_a_key_an_archive_is_refused_and_firmware_keys_will_do() {
    let no_keys = || Setup {
        public_keys: Vec::new(),
        archive_keys: Vec::new(),
        ..taking()
    };
    let mut bench = Bench::joined(no_keys());
    bench.archive("a");
    bench.pass(5 * SECOND);
    assert_eq!(bench.started_uuids(), [""; 0]);
    let mut bench = Bench::joined(no_keys());
    bench.archive("a");
    let keys = vec![KEY.to_owned()];
    bench.receive(Inbound::Device(DeviceEvent::FirmwareKeys(keys)));
    assert_eq!(bench.started_uuids(), [""; 0]);
    bench.pass(5 * SECOND);
    assert_eq!(bench.started()[0].1.public_keys, [KEY]);
}

#[test]
fn archive_keys_from_the_hub_count_only_when_asked_for_and_are_never_cleared() {
    let mut bench = Bench::joined(taking());
    bench.archive_keys(&[OTHER_KEY]);
    bench.archive("a");
    assert_eq!(bench.started()[0].1.public_keys, [KEY]);
    let mut bench = Bench::joined(Setup {
        request_archive_keys: true,
        ..taking()
    });
    bench.archive("a");
    assert_eq!(bench.started().len(), 0);
    bench.archive_keys(&[OTHER_KEY]);
    assert_eq!(bench.started()[0].1.public_keys, [OTHER_KEY]);
    bench.archive_keys(&[]);
    bench.socket(SocketEvent::Closed("1006".into()));
    bench.reconnect();
    bench.archive("b");
    bench.ended(ArchiveEnd::Cancelled);
    assert_eq!(bench.started()[1].1.public_keys, [OTHER_KEY]);
}

#[test]
fn keys_are_kept_one_write_at_a_time_and_only_when_they_changed() {
    let kept = HubKeys {
        firmware: vec![KEY.into()],
        archive: Vec::new(),
    };
    let mut bench = Bench::joined(Setup {
        public_keys: Vec::new(),
        kept_keys: Some(kept),
        ..setup()
    });
    let firmware_keys = |bench: &mut Bench, key: &str| {
        let keys = vec![key.to_owned()];
        bench.receive(Inbound::Device(DeviceEvent::FirmwareKeys(keys)));
    };
    firmware_keys(&mut bench, KEY);
    assert_eq!(bench.kept().len(), 0);
    bench.archive_keys(&[KEY]);
    firmware_keys(&mut bench, OTHER_KEY);
    assert_eq!(bench.kept().len(), 1);
    bench.event(Event::KeysKept(Ok(())));
    assert_eq!(bench.kept().len(), 2);
    assert_eq!(bench.kept()[1].firmware, [OTHER_KEY]);
    assert_eq!(bench.kept()[1].archive, [KEY]);
    bench.event(Event::KeysKept(Ok(())));
    bench.archive_keys(&[]);
    assert_eq!(bench.kept().len(), 2);
}

#[test]
fn keys_kept_from_earlier_runs_are_good_at_once_but_not_over_configured_ones() {
    let kept_keys = Some(HubKeys {
        firmware: vec![OTHER_KEY.into()],
        archive: Vec::new(),
    });
    let installed = |setup: Setup| {
        let mut bench = Bench::joined(setup);
        bench.offer("new");
        let keys = bench.effects.iter().find_map(|effect| match effect {
            Effect::StartInstall(_, order) => Some(order.public_keys.clone()),
            _ => None,
        });
        keys.expect("no installation")
    };
    let unconfigured = Setup {
        public_keys: Vec::new(),
        kept_keys: kept_keys.clone(),
        ..setup()
    };
    assert_eq!(installed(unconfigured), [OTHER_KEY]);
    let configured = Setup {
        kept_keys,
        ..setup()
    };
    assert_eq!(installed(configured), [KEY]);
}

#[test]
fn leaving_stops_archive_work() {
    let mut bench = Bench::joined(taking());
    bench.archive("a");
    bench.event(Event::Signal(Signal::Terminate));
    assert_eq!(bench.cancelled(), 1);
    bench.ended(ArchiveEnd::Cancelled);
    bench.archive("b");
    assert_eq!(bench.started_uuids(), ["a"]);
}
