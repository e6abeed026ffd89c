//! The core in virtual time: `(events) -> effects`, no thread, no clock, no network.

mod archives;
mod decisions;
mod shells;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::effect::{Attempt, Effect};
use super::endpoint::Endpoint;
use super::event::{
    ConnId, ConnectFailure, Errand, Event, InstallEvent, JobId, Signal, SocketEvent, Worker,
};
use super::operator::OperatorSetup;
use super::{Core, Setup};
use crate::config::{
    ArchivePolicy, LinkSettings, LinkTimeouts, PolicySettings, Secret, Serializer, ShellPolicy,
    TrialSettings, UpdatePolicy, Validate,
};
use crate::wire::inbound::ReplyBody;
use crate::wire::{DeviceEvent, DevicePush, Inbound, Offer, Outbound, Push, Reply, Topic};

pub(super) const SECOND: Duration = Duration::from_secs(1);
const KEY: &str = "tK4tZX7DVNRMY/X90p46+IzfdASrXyiEx41eBSwePmw=";

pub(super) fn setup() -> Setup {
    let timeout = Duration::from_secs(10);
    Setup {
        identifier: "device".into(),
        endpoint: Some(Endpoint {
            secure: true,
            host: "hub".into(),
            port: 443,
            path: "/device-socket/websocket?vsn=2.0.0".into(),
        }),
        link: LinkSettings {
            wait_for_network: false,
            heartbeat_interval: 30 * SECOND,
            rejoin_after: 5 * SECOND,
            reconnect_min: SECOND,
            reconnect_max: 60 * SECOND,
            reconnect_jitter: 50,
            serializer: Serializer::Json,
            timeouts: LinkTimeouts {
                dns: timeout,
                connect: timeout,
                tls: timeout,
                upgrade: timeout,
                join: timeout,
            },
        },
        signs: true,
        allow_insecure: false,
        firmware: BTreeMap::from([("nerves_fw_uuid".into(), "running".into())]),
        firmware_uuid: Some("running".into()),
        firmware_validated: true,
        auto_revert_detected: false,
        trial: TrialSettings {
            validate: Validate::Manual,
            timeout: Duration::ZERO,
            reboots: 3,
        },
        policy: PolicySettings {
            update: UpdatePolicy::Apply,
            downgrades: true,
            ..PolicySettings::default()
        },
        trial_reboots: Some(0),
        reboot_timeout: 60 * SECOND,
        reboot_force: true,
        stale_slot: None,
        devpath: Some("/dev/mmcblk0".into()),
        update_tool: "fwup".into(),
        installer_verifies: false,
        public_keys: vec![KEY.into()],
        request_public_keys: false,
        installed: None,
        archives: ArchivePolicy::Ignore,
        archive_keys: Vec::new(),
        request_archive_keys: false,
        handled_archives: Vec::new(),
        kept_keys: None,
        fresh_offer_timeout: Duration::from_secs(20),
        shells: ShellPolicy::default(),
        operator: OperatorSetup {
            scripts: true,
            upload_max: 1000,
            reboot_during_update: false,
        },
        extensions: Vec::new(),
        extension_timeout: 30 * SECOND,
        shutdown_timeout: 10 * SECOND,
        clock_unset: false,
        running_slot: None,
        seed: 7,
    }
}

pub(super) fn offer(uuid: &str) -> Box<Offer> {
    Box::new(Offer {
        uuid: uuid.into(),
        version: "2.0.0".into(),
        product: "demo".into(),
        url: Secret::new("https://files/fw?sig=x"),
        size: Some(100),
        checksum: None,
        partials: Vec::new(),
    })
}

/// A core, its time, and what it has ordered so far.
pub(super) struct Bench {
    pub core: Core,
    pub now: Instant,
    pub effects: Vec<Effect>,
}

impl Bench {
    pub fn new(setup: Setup) -> Self {
        let now = Instant::now();
        let mut bench = Self {
            core: Core::new(setup, now),
            now,
            effects: Vec::new(),
        };
        bench.event(Event::Started);
        bench.event(Event::FwupVersionRead(Some("1.16.0".into())));
        bench
    }

    /// A bench whose device channel is joined.
    pub fn joined(setup: Setup) -> Self {
        let mut bench = Self::new(setup);
        bench.open();
        bench.reply_to_join();
        bench.effects.clear();
        bench
    }

    pub fn event(&mut self, event: Event) {
        self.effects.extend(self.core.handle(self.now, event));
    }

    /// Lets time pass, timer by timer.
    pub fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(at) = self.core.next_deadline().filter(|at| *at <= end) {
            self.now = at.max(self.now);
            self.effects.extend(self.core.on_time(self.now));
        }
        self.now = end;
    }

    pub fn attempts(&self) -> Vec<(ConnId, Attempt)> {
        let connects = self.effects.iter().filter_map(|effect| match effect {
            Effect::Connect(conn, attempt) => Some((*conn, attempt.clone())),
            _ => None,
        });
        connects.collect()
    }

    /// The connection ordered last.
    pub fn conn(&self) -> ConnId {
        ConnId(self.core.link_conn_for_tests())
    }

    pub fn socket(&mut self, event: SocketEvent) {
        let conn = self.conn();
        self.event(Event::Socket(conn, event));
    }

    pub fn open(&mut self) {
        let interface = Some("eth0".to_owned());
        self.socket(SocketEvent::Opened {
            local: None,
            interface,
        });
    }

    pub fn receive(&mut self, inbound: Inbound) {
        self.socket(SocketEvent::Received(inbound));
    }

    pub fn pushes(&self) -> Vec<&Push> {
        let pushes = self.effects.iter().filter_map(|effect| match effect {
            Effect::Push(_, push) => Some(push),
            _ => None,
        });
        pushes.collect()
    }

    pub fn device_pushes(&self) -> Vec<DevicePush> {
        let pushes = self
            .pushes()
            .into_iter()
            .filter_map(|push| match &push.body {
                Outbound::Device(push) => Some(push.clone()),
                Outbound::Heartbeat
                | Outbound::Join(..)
                | Outbound::Console(_)
                | Outbound::Extension(_) => None,
            });
        pushes.collect()
    }

    pub fn last_ref(&self, wanted: impl Fn(&Outbound) -> bool) -> u64 {
        let found = self.pushes().into_iter().rfind(|push| wanted(&push.body));
        found.expect("no such push").reference
    }

    pub fn reply(&mut self, topic: Topic, reference: u64) {
        let outcome = Ok(ReplyBody::default());
        self.receive(Inbound::Reply(Reply {
            topic,
            reference,
            outcome,
        }));
    }

    pub fn reply_to_join(&mut self) {
        let reference = self.last_ref(|body| matches!(body, Outbound::Join(..)));
        self.reply(Topic::Device, reference);
    }

    pub fn reply_to_heartbeat(&mut self) {
        let reference = self.last_ref(|body| matches!(body, Outbound::Heartbeat));
        self.reply(Topic::Phoenix, reference);
    }

    pub fn offer(&mut self, uuid: &str) {
        self.receive(Inbound::Device(DeviceEvent::Update(offer(uuid))));
    }

    /// Every bench installs once.
    pub fn job(&self) -> JobId {
        JobId(1)
    }

    pub fn install(&mut self, event: InstallEvent) {
        let job = self.job();
        self.event(Event::Install(job, event));
    }

    /// The join ordered last carries this as `currently_downloading_uuid`.
    pub fn uuid_in_last_join(&self) -> serde_json::Value {
        let join = self
            .pushes()
            .into_iter()
            .rev()
            .find_map(|push| match &push.body {
                Outbound::Join(_, payload) => Some(payload["currently_downloading_uuid"].clone()),
                Outbound::Heartbeat
                | Outbound::Device(_)
                | Outbound::Console(_)
                | Outbound::Extension(_) => None,
            });
        join.expect("no join")
    }

    pub fn reconnect(&mut self) {
        self.pass(120 * SECOND);
        self.open();
        self.reply_to_join();
    }

    pub fn rebooted(&self) -> bool {
        self.effects.contains(&Effect::Reboot)
    }
}

#[test]
fn delays_double_with_jitter_up_to_the_cap_and_start_over_after_a_join() {
    let mut bench = Bench::new(setup());
    for base in [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0] {
        bench.socket(SocketEvent::ConnectFailed(ConnectFailure::Network(
            "no route".into(),
        )));
        let next = bench.core.next_deadline().expect("a next attempt");
        let delay = next.duration_since(bench.now).as_secs_f64();
        assert!(
            (base..=base * 1.5).contains(&delay),
            "{delay} is not {base} + up to 50 %"
        );
        bench.pass(91 * SECOND);
    }
    bench.open();
    bench.reply_to_join();
    bench.socket(SocketEvent::Closed("1012".into()));
    let next = bench.core.next_deadline().expect("a next attempt");
    assert!(next.duration_since(bench.now) <= SECOND.mul_f64(1.5));
}

#[test]
fn seeds_spread_a_fleet() {
    let delay = |seed| {
        let mut bench = Bench::new(Setup { seed, ..setup() });
        bench.socket(SocketEvent::ConnectFailed(ConnectFailure::Network(
            "no route".into(),
        )));
        bench
            .core
            .next_deadline()
            .expect("a next attempt")
            .duration_since(bench.now)
    };
    let delays: std::collections::BTreeSet<_> = (0..50).map(delay).collect();
    assert!(delays.len() > 45, "{delays:?}");
}

#[test]
fn until_the_network_is_seen_it_is_tried_every_three_seconds() {
    let mut settings = setup();
    settings.link.wait_for_network = true;
    let mut bench = Bench::new(settings);
    for _ in 0..5 {
        assert!(bench.attempts().last().expect("attempt").1.probing);
        bench.socket(SocketEvent::ConnectFailed(ConnectFailure::Network(
            "down".into(),
        )));
        let next = bench.core.next_deadline().expect("a next attempt");
        assert_eq!(next.duration_since(bench.now), 3 * SECOND);
        bench.pass(3 * SECOND);
    }
    bench.socket(SocketEvent::ConnectFailed(ConnectFailure::Protocol(
        "TLS".into(),
    )));
    bench.pass(2 * SECOND);
    assert!(!bench.attempts().last().expect("attempt").1.probing);
}

#[test]
fn a_refusal_with_a_date_sets_the_signing_clock_for_good() {
    let mut bench = Bench::new(setup());
    assert_eq!(bench.attempts()[0].1.signing_time, None);
    let refused = ConnectFailure::Refused {
        status: 401,
        reason: None,
        date: Some(1_000_000),
    };
    bench.socket(SocketEvent::ConnectFailed(refused));
    bench.pass(2 * SECOND);
    let signed = bench.attempts()[1].1.signing_time.expect("the hub's time");
    assert!((999_998..=1_000_000).contains(&signed), "{signed}");
    bench.open();
    bench.reply_to_join();
    bench.pass(3600 * SECOND);
    bench.socket(SocketEvent::Closed("gone".into()));
    bench.pass(2 * SECOND);
    let signed = bench.attempts()[2].1.signing_time.expect("the hub's time");
    assert!((1_003_600..=1_003_604).contains(&signed), "{signed}");
}

#[test]
fn a_503_or_a_certificate_leaves_the_clock_alone() {
    for (signs, status) in [(true, 503), (false, 401)] {
        let mut bench = Bench::new(Setup { signs, ..setup() });
        let refused = ConnectFailure::Refused {
            status,
            reason: None,
            date: Some(5),
        };
        bench.socket(SocketEvent::ConnectFailed(refused));
        bench.pass(2 * SECOND);
        assert_eq!(bench.attempts()[1].1.signing_time, None);
    }
}

#[test]
fn two_redirects_are_followed_and_a_third_is_an_error() {
    let mut bench = Bench::new(setup());
    for location in ["https://b/s", "https://c/s", "https://d/s"] {
        bench.socket(SocketEvent::ConnectFailed(ConnectFailure::Redirected(
            location.into(),
        )));
    }
    let hosts: Vec<String> = bench
        .attempts()
        .into_iter()
        .map(|(_, attempt)| attempt.endpoint.host)
        .collect();
    assert_eq!(hosts, ["hub", "b", "c"]);
    bench.pass(2 * SECOND);
    assert_eq!(
        bench.attempts().last().expect("attempt").1.endpoint.host,
        "hub"
    );
}

#[test]
fn credentials_never_follow_a_redirect_out_of_tls() {
    for allow_insecure in [false, true] {
        let mut bench = Bench::new(Setup {
            allow_insecure,
            ..setup()
        });
        bench.socket(SocketEvent::ConnectFailed(ConnectFailure::Redirected(
            "http://b/s".into(),
        )));
        let plain = bench
            .attempts()
            .into_iter()
            .find(|(_, attempt)| !attempt.endpoint.secure);
        assert_eq!(plain.is_some(), allow_insecure);
        assert!(plain.is_none_or(|(_, attempt)| !attempt.send_credentials));
    }
}

#[test]
fn an_unanswered_heartbeat_ends_the_link_when_the_next_is_due() {
    let mut bench = Bench::joined(setup());
    let conn = bench.conn();
    bench.event(Event::HeartbeatDue(conn));
    bench.reply_to_heartbeat();
    bench.event(Event::HeartbeatDue(conn));
    assert!(!bench.effects.contains(&Effect::Disconnect(conn)));
    bench.event(Event::HeartbeatDue(conn));
    assert!(bench.effects.contains(&Effect::Disconnect(conn)));
    bench.pass(2 * SECOND);
    assert_eq!(bench.attempts().len(), 1);
}

/// It stands behind all that, on a slow line for longer than an interval.
#[test]
fn an_answer_that_stands_behind_other_messages_is_waited_for_but_not_for_ever() {
    let nothing_new = || Inbound::Device(DeviceEvent::NoUpdate);
    let mut bench = Bench::joined(setup());
    let conn = bench.conn();
    for _ in 0..3 {
        bench.event(Event::HeartbeatDue(conn));
        bench.receive(nothing_new());
    }
    assert!(!bench.effects.contains(&Effect::Disconnect(conn)));
    bench.event(Event::HeartbeatDue(conn));
    assert!(bench.effects.contains(&Effect::Disconnect(conn)));

    let mut bench = Bench::joined(setup());
    let conn = bench.conn();
    bench.event(Event::HeartbeatDue(conn));
    let is_heartbeat = |push: &&&Push| push.body == Outbound::Heartbeat;
    let first = bench
        .pushes()
        .iter()
        .find(is_heartbeat)
        .expect("one")
        .reference;
    bench.receive(nothing_new());
    bench.event(Event::HeartbeatDue(conn));
    bench.reply(Topic::Phoenix, first);
    bench.event(Event::HeartbeatDue(conn));
    assert!(
        !bench.effects.contains(&Effect::Disconnect(conn)),
        "the first was answered"
    );
    // Silence, again, is the end.
    bench.event(Event::HeartbeatDue(conn));
    assert!(bench.effects.contains(&Effect::Disconnect(conn)));
}

#[test]
fn a_join_without_an_answer_ends_the_link() {
    let mut bench = Bench::new(setup());
    bench.open();
    bench.pass(10 * SECOND);
    assert!(bench.effects.contains(&Effect::Disconnect(ConnId(1))));
}

#[test]
fn events_of_old_connections_change_nothing() {
    let mut bench = Bench::joined(setup());
    let old = bench.conn();
    bench.socket(SocketEvent::Closed("gone".into()));
    bench.pass(2 * SECOND);
    bench.effects.clear();
    bench.event(Event::Socket(old, SocketEvent::Closed("again".into())));
    bench.event(Event::Socket(
        old,
        SocketEvent::Received(Inbound::Device(DeviceEvent::Reboot)),
    ));
    bench.event(Event::HeartbeatDue(old));
    assert_eq!(bench.effects, []);
}

#[test]
fn a_crashed_channel_is_joined_again_on_the_same_socket() {
    for join_ref in [Some(1), None] {
        let mut bench = Bench::joined(setup());
        let reason = "channel_crash".to_owned();
        bench.receive(Inbound::ChannelError {
            topic: Topic::Device,
            join_ref,
            reason,
        });
        bench.pass(4 * SECOND);
        assert!(bench.pushes().is_empty());
        bench.pass(2 * SECOND);
        assert!(matches!(
            bench.pushes()[0].body,
            Outbound::Join(Topic::Device, _)
        ));
        bench.reply_to_join();
        bench.effects.clear();
        // The close of the first join comes late (✔ on the wire).
        bench.receive(Inbound::ChannelClosed {
            topic: Topic::Device,
            join_ref: Some(1),
        });
        bench.pass(20 * SECOND);
        assert_eq!(bench.effects, []);
    }
}

#[test]
fn the_running_firmware_is_ignored_with_a_reason() {
    let mut bench = Bench::joined(setup());
    bench.offer("running");
    let pushes = bench.device_pushes();
    assert_eq!(pushes[0], DevicePush::Received);
    assert!(
        matches!(&pushes[1], DevicePush::Ignored { reason } if reason.contains("already running"))
    );
    assert_eq!(bench.uuid_in_hand(), None);
}

impl Bench {
    fn uuid_in_hand(&self) -> Option<String> {
        self.core.update.uuid_in_hand().map(str::to_owned)
    }
}

#[test]
fn without_a_key_nothing_is_written() {
    let mut bench = Bench::joined(Setup {
        public_keys: vec![],
        ..setup()
    });
    bench.offer("new");
    assert_eq!(bench.device_pushes(), [DevicePush::Received]);
    bench.pass(5 * SECOND);
    let failed = DevicePush::Failed {
        reason: "no public keys available".into(),
    };
    assert_eq!(bench.device_pushes(), [DevicePush::Received, failed]);
    assert!(
        !bench
            .effects
            .iter()
            .any(|effect| matches!(effect, Effect::StartInstall(..)))
    );
}

#[test]
fn an_installer_that_verifies_itself_needs_neither_keys_nor_a_device_path() {
    for installer_verifies in [true, false] {
        let mut bench = Bench::joined(Setup {
            public_keys: vec![],
            devpath: None,
            installer_verifies,
            ..setup()
        });
        bench.offer("new");
        bench.pass(5 * SECOND);
        let starts = |effect: &Effect| matches!(effect, Effect::StartInstall(..));
        assert_eq!(bench.effects.iter().any(starts), installer_verifies);
    }
}

#[test]
fn keys_that_come_after_the_offer_still_count_and_an_empty_list_clears_none() {
    let mut bench = Bench::joined(Setup {
        public_keys: vec![],
        ..setup()
    });
    bench.offer("new");
    bench.receive(Inbound::Device(DeviceEvent::FirmwareKeys(vec![KEY.into()])));
    bench.receive(Inbound::Device(DeviceEvent::FirmwareKeys(vec![])));
    let order = bench.effects.iter().find_map(|effect| match effect {
        Effect::StartInstall(_, order) => Some(order.public_keys.clone()),
        _ => None,
    });
    assert_eq!(order, Some(vec![KEY.to_owned()]));
    assert_eq!(bench.core.public_keys(), [KEY]);
}

#[test]
fn one_update_at_a_time() {
    let mut bench = Bench::joined(setup());
    bench.offer("new");
    bench.offer("newer");
    let started = bench
        .effects
        .iter()
        .filter(|effect| matches!(effect, Effect::StartInstall(..)));
    assert_eq!(started.count(), 1);
    assert_eq!(bench.uuid_in_hand().as_deref(), Some("new"));
}

#[test]
fn progress_is_sent_at_most_twice_a_second_and_only_when_it_grew() {
    let mut bench = Bench::joined(setup());
    bench.offer("new");
    bench.effects.clear();
    for percent in 0..100 {
        bench.install(InstallEvent::Progress(percent));
        bench.pass(Duration::from_millis(100));
    }
    let values: Vec<u8> = bench
        .device_pushes()
        .into_iter()
        .map(|push| match push {
            DevicePush::Progress { value, .. } => value,
            other => panic!("{other:?}"),
        })
        .collect();
    assert!(values.is_sorted_by(|a, b| a < b), "{values:?}");
    assert_eq!(values.len(), 20);
}

#[test]
fn success_is_reported_confirmed_and_only_then_followed_by_the_reboot() {
    let mut bench = Bench::joined(setup());
    bench.offer("new");
    bench.install(InstallEvent::Downloaded);
    bench.install(InstallEvent::Finished(Ok(())));
    assert_eq!(bench.device_pushes().last(), Some(&DevicePush::Completed));
    assert!(!bench.rebooted());
    bench.reply_to_heartbeat();
    assert!(bench.rebooted());
}

#[test]
fn success_without_the_hub_reboots_all_the_same_after_a_minute() {
    let mut bench = Bench::joined(setup());
    bench.offer("new");
    bench.install(InstallEvent::Downloaded);
    bench.socket(SocketEvent::Closed("gone".into()));
    bench.install(InstallEvent::Finished(Ok(())));
    bench.pass(59 * SECOND);
    assert!(!bench.rebooted());
    bench.pass(2 * SECOND);
    assert!(bench.rebooted());
}

#[test]
fn an_installer_that_ends_before_all_bytes_are_there_has_not_succeeded() {
    let mut bench = Bench::joined(setup());
    bench.offer("new");
    bench.install(InstallEvent::Finished(Ok(())));
    assert!(matches!(
        bench.device_pushes().last(),
        Some(DevicePush::Failed { .. })
    ));
    bench.reply_to_heartbeat();
    bench.pass(3600 * SECOND);
    assert!(!bench.rebooted());
}

#[test]
fn a_failure_while_the_link_is_down_is_owed_and_its_uuid_joins_until_it_is_paid() {
    let mut bench = Bench::joined(setup());
    bench.offer("new");
    bench.socket(SocketEvent::Closed("gone".into()));
    bench.install(InstallEvent::Finished(Err("fwup error: no".into())));
    bench.effects.clear();
    bench.reconnect();
    assert_eq!(bench.uuid_in_last_join(), "new");
    let failed = DevicePush::Failed {
        reason: "fwup error: no".into(),
    };
    assert!(bench.device_pushes().contains(&failed));
    // Lost with the connection: owed again.
    bench.socket(SocketEvent::Closed("gone".into()));
    bench.effects.clear();
    bench.reconnect();
    assert_eq!(bench.uuid_in_last_join(), "new");
    assert!(bench.device_pushes().contains(&failed));
    bench.reply_to_heartbeat();
    bench.socket(SocketEvent::Closed("gone".into()));
    bench.effects.clear();
    bench.reconnect();
    assert_eq!(bench.uuid_in_last_join(), serde_json::Value::Null);
    assert!(!bench.device_pushes().contains(&failed));
}

#[test]
fn a_failure_the_hub_chokes_on_is_not_sent_again() {
    let mut bench = Bench::joined(setup());
    bench.offer("new");
    bench.install(InstallEvent::Finished(Err("fwup error: no".into())));
    let reason = "channel_crash".to_owned();
    bench.receive(Inbound::ChannelError {
        topic: Topic::Device,
        join_ref: None,
        reason,
    });
    bench.effects.clear();
    bench.pass(6 * SECOND);
    bench.reply_to_join();
    assert!(
        !bench
            .device_pushes()
            .iter()
            .any(|push| matches!(push, DevicePush::Failed { .. }))
    );
    assert_eq!(bench.uuid_in_last_join(), serde_json::Value::Null);
}

#[test]
fn an_offer_between_a_failure_and_its_confirmation_has_its_turn() {
    let mut bench = Bench::joined(setup());
    bench.offer("new");
    bench.install(InstallEvent::Finished(Err("fwup error: no".into())));
    bench.offer("newer");
    assert_eq!(bench.uuid_in_hand().as_deref(), Some("new"));
    bench.reply_to_heartbeat();
    assert_eq!(bench.uuid_in_hand().as_deref(), Some("newer"));
    assert!(bench.device_pushes().contains(&DevicePush::Received));
}

#[test]
fn the_download_s_reason_wins_over_the_cancelled_installer_s() {
    let mut bench = Bench::joined(setup());
    bench.offer("new");
    bench.install(InstallEvent::DownloadFailed("HTTP 404".into()));
    let job = bench.job();
    assert!(bench.effects.contains(&Effect::CancelInstall(job)));
    bench.install(InstallEvent::Finished(Err("fwup error: cancelled".into())));
    assert!(bench.device_pushes().contains(&DevicePush::Failed {
        reason: "HTTP 404".into()
    }));
}

#[test]
fn stopping_during_a_download_cancels_and_reports_no_failure() {
    let mut bench = Bench::joined(setup());
    bench.offer("new");
    bench.event(Event::Signal(Signal::Terminate));
    assert!(!bench.effects.contains(&Effect::Exit));
    bench.install(InstallEvent::Finished(Err("fwup error: cancelled".into())));
    assert!(bench.effects.contains(&Effect::Exit));
    assert!(
        !bench
            .device_pushes()
            .iter()
            .any(|push| matches!(push, DevicePush::Failed { .. }))
    );
}

#[test]
fn stopping_when_all_bytes_are_handed_over_waits_for_the_installer_but_not_for_ever() {
    let mut bench = Bench::joined(setup());
    bench.offer("new");
    bench.install(InstallEvent::Downloaded);
    bench.event(Event::Signal(Signal::Terminate));
    bench.pass(9 * SECOND);
    assert!(!bench.effects.contains(&Effect::Exit));
    bench.pass(2 * SECOND);
    assert!(bench.effects.contains(&Effect::Exit));
}

#[test]
fn a_reboot_is_announced_first_and_refused_while_firmware_is_written() {
    let mut bench = Bench::joined(setup());
    bench.receive(Inbound::Device(DeviceEvent::Reboot));
    assert_eq!(bench.device_pushes(), [DevicePush::Rebooting]);
    assert!(!bench.rebooted());
    bench.reply_to_heartbeat();
    assert!(bench.rebooted());

    let mut bench = Bench::joined(setup());
    bench.offer("new");
    bench.receive(Inbound::Device(DeviceEvent::Reboot));
    bench.pass(60 * SECOND);
    assert!(!bench.rebooted());
}

#[test]
fn errands_that_die_are_answered_for() {
    let mut bench = Bench::joined(setup());
    let died = |errand| Event::WorkerExited(Worker::Errand(errand), Err("no thread".into()));
    bench.offer("new");
    bench.install(InstallEvent::Downloaded);
    bench.install(InstallEvent::Finished(Ok(())));
    bench.reply_to_heartbeat();
    bench.effects.clear();
    bench.event(died(Errand::Reboot));
    assert!(bench.effects.contains(&Effect::ForceReboot));
    bench.pass(91 * SECOND);
    assert!(bench.rebooted(), "a promised reboot is ordered again");

    let now = Instant::now();
    let core = Core::new(setup(), now);
    let mut bench = Bench {
        core,
        now,
        effects: Vec::new(),
    };
    bench.event(Event::Started);
    bench.open();
    bench.event(died(Errand::FwupVersion));
    assert!(
        matches!(bench.pushes()[0].body, Outbound::Join(..)),
        "joins without a version"
    );
}

#[test]
fn an_installer_thread_that_dies_fails_the_update_and_frees_the_agent_for_the_next() {
    let mut bench = Bench::joined(setup());
    bench.offer("new");
    bench.event(Event::WorkerExited(
        Worker::Installer(JobId(1)),
        Err("panicked".into()),
    ));
    assert!(bench.effects.contains(&Effect::CancelInstall(JobId(1))));
    let failed = |push: &DevicePush| matches!(push, DevicePush::Failed { reason } if reason.contains("panicked"));
    assert!(bench.device_pushes().iter().any(failed));
    bench.reply_to_heartbeat();
    bench.offer("newer");
    assert_eq!(bench.uuid_in_hand().as_deref(), Some("newer"));
}
