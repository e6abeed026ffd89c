//! Questions, holds, windows, put-off reboots and notices, in virtual time.

use serde_json::json;

use super::*;
use crate::config::{Hook, NoDecision};
use crate::core::effect::HookOrder;
use crate::core::event::{ClientId, ControlEvent, HookEnd, Opening, QuestionId, RunId};
use crate::wire::control::{Method, Request};

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);
const DECIDER: ClientId = ClientId(7);

fn with(change: impl FnOnce(&mut PolicySettings)) -> Setup {
    let mut setup = setup();
    setup.policy.update = UpdatePolicy::Ask;
    change(&mut setup.policy);
    setup
}

fn asking() -> Setup {
    with(|_| {})
}

fn said(output: &str) -> HookEnd {
    HookEnd::Exited {
        code: 0,
        output: output.to_owned(),
    }
}

impl Bench {
    fn runs(&self, hook: Hook) -> Vec<(RunId, HookOrder)> {
        let runs = self.effects.iter().filter_map(|effect| match effect {
            Effect::RunHook(run, order) if order.hook == hook => Some((*run, (**order).clone())),
            _ => None,
        });
        runs.collect()
    }

    /// The last run of this hook ends.
    fn hook_ends(&mut self, hook: Hook, end: HookEnd) {
        let (run, _) = self.runs(hook).pop().expect("no such hook was run");
        self.event(Event::HookEnded(run, end));
    }

    fn register_decider(&mut self) {
        let request = Request {
            id: serde_json::Value::Null,
            method: Method::Decide,
        };
        self.event(Event::Control(DECIDER, ControlEvent::Asked(request)));
    }

    fn decider_says(&mut self, question: u64, text: &str) {
        let question = QuestionId(question);
        let text = text.to_owned();
        self.event(Event::Control(
            DECIDER,
            ControlEvent::Answered { question, text },
        ));
    }

    fn decider_leaves(&mut self) {
        self.event(Event::Control(DECIDER, ControlEvent::Left));
    }

    fn answer_update(&mut self, output: &str) {
        self.hook_ends(Hook::UpdateAvailable, said(output));
    }

    fn install_orders(&self) -> usize {
        let is_install = |effect: &&Effect| matches!(effect, Effect::StartInstall(..));
        self.effects.iter().filter(is_install).count()
    }

    fn ignored(&self) -> Vec<String> {
        let pushes = self.device_pushes().into_iter();
        pushes
            .filter_map(|push| match push {
                DevicePush::Ignored { reason } => Some(reason),
                _ => None,
            })
            .collect()
    }

    fn rescheduled(&self) -> Vec<(u64, Option<String>)> {
        let pushes = self.device_pushes().into_iter();
        pushes
            .filter_map(|push| match push {
                DevicePush::Rescheduled { delay, reason } => Some((delay, reason)),
                _ => None,
            })
            .collect()
    }

    fn windows_asked(&self) -> usize {
        let is_it = |effect: &&Effect| matches!(effect, Effect::FindWindow { .. });
        self.effects.iter().filter(is_it).count()
    }

    fn installed(&mut self) {
        self.install(InstallEvent::Downloaded);
        self.install(InstallEvent::Finished(Ok(())));
        self.reply_to_heartbeat();
    }
}

#[test]
fn what_the_hook_says_is_done() {
    let mut bench = Bench::joined(asking());
    bench.offer("new");
    assert_eq!(bench.device_pushes(), [DevicePush::Received]);
    let (_, order) = bench.runs(Hook::UpdateAvailable).remove(0);
    assert_eq!(order.input["uuid"], "new");
    assert!(!order.input.to_string().contains("sig"), "{}", order.input);
    bench.answer_update("apply\n");
    assert_eq!(bench.install_orders(), 1);

    let mut bench = Bench::joined(asking());
    bench.offer("new");
    bench.answer_update("ignore not on a Friday");
    assert_eq!(bench.ignored(), ["not on a Friday"]);
    assert_eq!(bench.install_orders(), 0);
    // Nothing is kept of that.
    bench.offer("new");
    assert_eq!(bench.runs(Hook::UpdateAvailable).len(), 2);
}

#[test]
fn a_hook_without_an_answer_leaves_it_to_the_setting() {
    let ends = [
        HookEnd::Absent,
        HookEnd::Failed("did not end within 10s and was killed".into()),
        said("yes please"),
        said(""),
        HookEnd::Exited {
            code: 1,
            output: "apply".into(),
        },
    ];
    for end in ends {
        for default in [
            NoDecision::Apply,
            NoDecision::Ignore,
            NoDecision::Reschedule,
        ] {
            let mut bench = Bench::joined(with(|policy| policy.no_decision = default));
            bench.offer("new");
            assert_eq!(bench.install_orders(), 0);
            bench.hook_ends(Hook::UpdateAvailable, end.clone());
            let seen = (
                bench.install_orders(),
                bench.ignored().len(),
                bench.rescheduled(),
            );
            let reason = Some("nobody has decided about it".to_owned());
            let expected = match default {
                NoDecision::Apply => (1, 0, vec![]),
                NoDecision::Ignore => (0, 1, vec![]),
                NoDecision::Reschedule => (0, 0, vec![(3_600_000, reason)]),
            };
            assert_eq!(seen, expected, "{end:?}");
        }
    }
}

#[test]
fn rules_come_before_any_question() {
    let ignoring = |policy: &mut PolicySettings| policy.downgrades = false;
    let mut setup = with(ignoring);
    let version = ("nerves_fw_version".to_owned(), "3.0.0".to_owned());
    setup.firmware.extend([version]);
    let mut bench = Bench::joined(setup.clone());
    bench.offer("running");
    bench.offer("new");
    let ignored = bench.ignored();
    assert!(ignored[0].contains("already running"), "{ignored:?}");
    assert!(ignored[1].contains("lower than"), "{ignored:?}");
    assert_eq!(bench.runs(Hook::UpdateAvailable), []);
    // Both are settings.
    setup.policy.downgrades = true;
    setup.policy.same_firmware = true;
    for uuid in ["running", "new"] {
        let mut bench = Bench::joined(setup.clone());
        bench.offer(uuid);
        assert_eq!(bench.runs(Hook::UpdateAvailable).len(), 1);
    }
    let mut bench = Bench::joined(with(|policy| policy.update = UpdatePolicy::Ignore));
    bench.offer("new");
    assert_eq!(bench.ignored(), ["NERVES_HUB_UPDATE_POLICY is ignore"]);
}

#[test]
fn an_offer_put_off_is_answered_again_without_asking_over_reconnects_too() {
    let mut bench = Bench::joined(asking());
    bench.offer("new");
    bench.answer_update("reschedule 600 battery low");
    let reason = Some("battery low".to_owned());
    assert_eq!(bench.rescheduled(), [(600_000, reason.clone())]);
    bench.pass(100 * SECOND);
    bench.offer("new");
    bench.socket(SocketEvent::Closed("gone".into()));
    bench.reconnect();
    bench.offer("new");
    assert_eq!(bench.runs(Hook::UpdateAvailable).len(), 1);
    assert_eq!(
        bench.rescheduled()[1..],
        [(500_000, reason.clone()), (380_000, reason)]
    );
    assert_eq!(bench.uuid_in_last_join(), serde_json::Value::Null);
    // Another one is not held.
    bench.offer("newer");
    assert_eq!(bench.runs(Hook::UpdateAvailable).len(), 2);
}

#[test]
fn when_its_time_has_come_the_hub_is_asked_for_it() {
    let mut bench = Bench::joined(asking());
    bench.offer("new");
    bench.answer_update("reschedule 600");
    bench.effects.clear();
    bench.pass(600 * SECOND);
    assert_eq!(bench.joins(), 0);
    bench.pass(61 * SECOND);
    assert_eq!(bench.joins(), 1);
    assert_eq!(bench.uuid_in_last_join(), serde_json::Value::Null);
    bench.reply_to_join();
    bench.offer("new");
    bench.answer_update("apply");
    assert_eq!(bench.install_orders(), 1);
    // The device was never away.
    assert_eq!(bench.runs(Hook::Disconnected), []);
}

#[test]
fn nothing_is_put_off_by_so_little_that_it_goes_in_a_circle() {
    let mut bench = Bench::joined(asking());
    bench.offer("new");
    bench.answer_update("reschedule 0");
    assert_eq!(bench.rescheduled(), [(5_000, None)]);
}

#[test]
fn the_hub_is_not_asked_while_something_else_is_in_hand() {
    let mut bench = Bench::joined(asking());
    bench.offer("new");
    bench.answer_update("reschedule 600");
    bench.offer("newer");
    bench.answer_update("apply");
    assert_eq!(bench.install_orders(), 1);
    bench.effects.clear();
    bench.pass(HOUR);
    assert_eq!(bench.joins(), 0);
}

#[test]
fn what_has_its_time_while_something_else_is_in_hand_has_it_afterwards() {
    let mut bench = Bench::joined(asking());
    bench.offer("new");
    bench.answer_update("reschedule 600");
    bench.pass(590 * SECOND);
    bench.offer("newer");
    bench.pass(100 * SECOND);
    assert_eq!(bench.joins(), 0);
    bench.answer_update("ignore");
    bench.pass(61 * SECOND);
    assert_eq!(bench.joins(), 1);
    bench.reply_to_join();
    bench.pass(HOUR);
    assert_eq!(bench.joins(), 1);
}

#[test]
fn what_the_last_join_named_and_is_not_in_hand_any_more_is_cleared_by_another() {
    let mut bench = Bench::joined(asking());
    bench.offer("new");
    bench.socket(SocketEvent::Closed("gone".into()));
    bench.pass(120 * SECOND);
    bench.open();
    assert_eq!(bench.uuid_in_last_join(), json!("new"));
    let before = bench.joins();
    // The channel is not joined yet: the hub does not hear of it.
    bench.answer_update("reschedule 3600");
    assert_eq!(bench.rescheduled(), []);
    bench.reply_to_join();
    assert_eq!(bench.joins(), before + 1);
    assert_eq!(bench.uuid_in_last_join(), serde_json::Value::Null);
    bench.reply_to_join();
    assert_eq!(bench.joins(), before + 1);
    bench.offer("new");
    assert_eq!(bench.rescheduled().len(), 1);
}

#[test]
fn while_it_is_asked_the_update_stays_in_the_hub_s_books() {
    let mut bench = Bench::joined(asking());
    bench.offer("new");
    bench.socket(SocketEvent::Closed("gone".into()));
    bench.reconnect();
    assert_eq!(bench.uuid_in_last_join(), json!("new"));
    bench.answer_update("ignore");
    assert_eq!(bench.ignored().len(), 1);
}

#[test]
fn an_answer_while_the_hub_is_away_is_told_when_it_offers_again() {
    let mut bench = Bench::joined(asking());
    bench.offer("new");
    bench.socket(SocketEvent::Closed("gone".into()));
    bench.answer_update("reschedule 3600 later");
    assert_eq!(bench.rescheduled(), []);
    bench.reconnect();
    assert_eq!(bench.uuid_in_last_join(), serde_json::Value::Null);
    bench.offer("new");
    assert_eq!(bench.rescheduled().len(), 1);
    assert_eq!(bench.runs(Hook::UpdateAvailable).len(), 1);
}

#[test]
fn of_two_offers_the_newer_is_decided_upon() {
    let mut bench = Bench::joined(asking());
    bench.offer("one");
    bench.offer("two");
    bench.offer("three");
    assert_eq!(bench.runs(Hook::UpdateAvailable).len(), 1);
    bench.answer_update("apply");
    assert_eq!(bench.install_orders(), 0);
    let (_, order) = bench.runs(Hook::UpdateAvailable).pop().expect("asked");
    assert_eq!(order.input["uuid"], "three");
    bench.answer_update("apply");
    assert_eq!(bench.install_orders(), 1);
    assert_eq!(bench.core.update.uuid_in_hand(), Some("three"));
}

#[test]
fn a_hook_s_thread_that_dies_is_no_answer() {
    let mut bench = Bench::joined(asking());
    bench.offer("new");
    let (run, _) = bench.runs(Hook::UpdateAvailable).remove(0);
    let died = Err("no thread left".to_owned());
    bench.event(Event::WorkerExited(Worker::Hook(run), died));
    assert_eq!(bench.install_orders(), 1);
    // What an old run says means nothing.
    bench.event(Event::HookEnded(run, said("ignore")));
    assert_eq!(bench.ignored(), [""; 0]);
}

#[test]
fn the_decider_comes_first_the_hook_second() {
    let with_decider = || {
        let mut bench = Bench::joined(asking());
        bench.register_decider();
        bench.offer("new");
        assert_eq!(bench.runs(Hook::UpdateAvailable), []);
        bench
    };
    let mut bench = with_decider();
    bench.decider_says(1, "apply");
    assert_eq!(bench.install_orders(), 1);
    // Nonsense leaves the question open.
    let mut bench = with_decider();
    bench.decider_says(1, "maybe");
    assert_eq!(bench.runs(Hook::UpdateAvailable), []);
    bench.decider_says(1, "ignore");
    assert_eq!(bench.ignored().len(), 1);
    // It is gone: the hook at once.
    let mut bench = with_decider();
    bench.decider_leaves();
    bench.answer_update("ignore");
    assert_eq!(bench.ignored().len(), 1);
    // It is silent: the hook after a while, and its own answer comes too late.
    let mut bench = with_decider();
    bench.pass(10 * SECOND);
    assert_eq!(bench.runs(Hook::UpdateAvailable).len(), 1);
    bench.decider_says(1, "apply");
    assert_eq!(bench.install_orders(), 0);
    bench.answer_update("apply");
    assert_eq!(bench.install_orders(), 1);
}

#[test]
fn the_same_offer_again_while_it_is_asked_about_is_no_news() {
    let mut bench = Bench::joined(asking());
    bench.offer("new");
    bench.offer("new");
    assert_eq!(bench.device_pushes(), [DevicePush::Received]);
    assert_eq!(bench.runs(Hook::UpdateAvailable).len(), 1);
    bench.answer_update("apply");
    assert_eq!(bench.install_orders(), 1);
}

#[test]
fn outside_the_window_an_offer_is_put_off_until_it_opens() {
    let mut bench = Bench::joined(with(|policy| policy.update = UpdatePolicy::Schedule));
    bench.offer("new");
    assert_eq!(bench.windows_asked(), 1);
    bench.event(Event::WindowFound(Opening::In(2 * HOUR)));
    let reason = Some("outside the update window".to_owned());
    assert_eq!(bench.rescheduled(), [(7_200_000, reason)]);
    assert_eq!(bench.runs(Hook::UpdateAvailable), []);
    bench.pass(2 * HOUR + 61 * SECOND);
    bench.reply_to_join();
    bench.offer("new");
    assert_eq!(bench.windows_asked(), 2);
    bench.event(Event::WindowFound(Opening::In(Duration::ZERO)));
    bench.hook_ends(Hook::UpdateAvailable, HookEnd::Absent);
    assert_eq!(bench.install_orders(), 1);
}

#[test]
fn a_device_without_the_time_of_day_waits_for_a_day_and_no_longer() {
    let mut bench = Bench::joined(with(|policy| policy.update = UpdatePolicy::Schedule));
    let mut waited = 0;
    for _ in 0..200 {
        bench.offer("new");
        bench.event(Event::WindowFound(Opening::ClockUnset));
        if bench.runs(Hook::UpdateAvailable).len() == 1 {
            break;
        }
        waited += 1;
        assert_eq!(bench.rescheduled().len(), waited);
        bench.pass(15 * MINUTE + 2 * SECOND);
        bench.reply_to_join();
    }
    assert!((90..=96).contains(&waited), "{waited}");
    bench.hook_ends(Hook::UpdateAvailable, HookEnd::Absent);
    assert_eq!(bench.install_orders(), 1);
}

#[test]
fn windows_that_never_open_are_looked_at_again() {
    let mut bench = Bench::joined(with(|policy| policy.update = UpdatePolicy::Schedule));
    bench.offer("new");
    bench.event(Event::WindowFound(Opening::Never));
    assert_eq!(bench.rescheduled()[0].0, 3_600_000);
}

fn deferring() -> Setup {
    let mut setup = setup();
    setup.policy.reboot_max_defer = HOUR;
    setup
}

#[test]
fn a_reboot_may_be_put_off_for_so_long_and_not_for_longer() {
    let mut bench = Bench::joined(deferring());
    bench.offer("new");
    bench.installed();
    let (_, order) = bench.runs(Hook::RebootRequest).remove(0);
    assert_eq!(order.input, json!({"why": "update"}));
    for asked in 1..=3 {
        bench.hook_ends(Hook::RebootRequest, said("defer 1000 busy"));
        assert!(!bench.rebooted());
        bench.pass(1000 * SECOND);
        assert_eq!(bench.runs(Hook::RebootRequest).len(), asked + 1);
    }
    bench.hook_ends(Hook::RebootRequest, said("defer 1000 busy"));
    bench.pass(599 * SECOND);
    assert!(!bench.rebooted());
    bench.pass(SECOND);
    assert!(bench.rebooted());
    assert_eq!(bench.runs(Hook::RebootRequest).len(), 4);
}

#[test]
fn a_reboot_takes_place_when_it_suits_or_nobody_says() {
    let ends = [
        HookEnd::Absent,
        HookEnd::Failed("killed".into()),
        said("reboot"),
        said("ignore"),
        said("defer soon"),
    ];
    for end in ends {
        let mut bench = Bench::joined(deferring());
        bench.offer("new");
        bench.installed();
        assert!(!bench.rebooted());
        bench.hook_ends(Hook::RebootRequest, end.clone());
        assert!(bench.rebooted(), "{end:?}");
        // The same for the hub, which is told first.
        let mut bench = Bench::joined(deferring());
        bench.receive(Inbound::Device(DeviceEvent::Reboot));
        let (_, order) = bench.runs(Hook::RebootRequest).remove(0);
        assert_eq!(order.input, json!({"why": "hub"}));
        bench.hook_ends(Hook::RebootRequest, end);
        assert_eq!(bench.device_pushes(), [DevicePush::Rebooting]);
        bench.pass(5 * SECOND);
        assert!(bench.rebooted());
    }
}

#[test]
fn a_reboot_that_may_cost_an_update_is_asked_about_and_then_does() {
    let mut setup = deferring();
    setup.operator.reboot_during_update = true;
    let mut bench = Bench::joined(setup);
    bench.offer("new");
    assert_eq!(bench.install_orders(), 1);
    bench.receive(Inbound::Device(DeviceEvent::Reboot));
    bench.hook_ends(Hook::RebootRequest, said("reboot"));
    bench.pass(5 * SECOND);
    assert!(bench.rebooted());
}

#[test]
fn a_reboot_of_the_hub_s_that_is_put_off_lets_an_update_go_first() {
    let mut bench = Bench::joined(deferring());
    bench.receive(Inbound::Device(DeviceEvent::Reboot));
    bench.hook_ends(Hook::RebootRequest, said("defer 60"));
    bench.offer("new");
    assert_eq!(bench.install_orders(), 1);
    bench.pass(MINUTE);
    bench.hook_ends(Hook::RebootRequest, said("reboot"));
    assert!(!bench.rebooted());
    bench.installed();
    // The time counts from the first question on.
    bench.hook_ends(Hook::RebootRequest, said("defer 7200"));
    bench.pass(59 * MINUTE);
    assert!(bench.rebooted());
    assert_eq!(
        bench
            .effects
            .iter()
            .filter(|effect| **effect == Effect::Reboot)
            .count(),
        1
    );
}

#[test]
fn leaving_asks_nobody() {
    // In the middle of the question: now or never.
    let mut bench = Bench::joined(deferring());
    bench.offer("new");
    bench.installed();
    bench.event(Event::Signal(Signal::Terminate));
    assert!(bench.rebooted());
    // Put off: the next start owes it.
    let mut bench = Bench::joined(deferring());
    bench.offer("new");
    bench.installed();
    bench.hook_ends(Hook::RebootRequest, said("defer 60"));
    bench.event(Event::Signal(Signal::Terminate));
    assert!(!bench.rebooted());
    assert!(bench.effects.contains(&Effect::Exit));
    // An offer about which nothing is decided.
    let mut bench = Bench::joined(asking());
    bench.offer("new");
    bench.event(Event::Signal(Signal::Terminate));
    assert!(bench.effects.contains(&Effect::Exit));
    bench.answer_update("apply");
    assert_eq!(bench.install_orders(), 0);
}

fn choosing() -> Setup {
    Setup {
        archives: ArchivePolicy::Ask,
        archive_keys: vec![KEY.into()],
        ..setup()
    }
}

impl Bench {
    fn archives_started(&self) -> usize {
        let is_start = |effect: &&Effect| matches!(effect, Effect::StartArchive(..));
        self.effects.iter().filter(is_start).count()
    }
}

#[test]
fn archives_are_taken_when_the_hook_says_so() {
    for (end, taken) in [
        (said("download"), 1),
        (said("ignore"), 0),
        (said("apply"), 0),
        (HookEnd::Absent, 0),
        (HookEnd::Failed("killed".into()), 0),
    ] {
        let mut bench = Bench::joined(choosing());
        bench.archive("a");
        let (_, order) = bench.runs(Hook::ArchiveAvailable).remove(0);
        assert!(!order.input.to_string().contains("sig"));
        assert_eq!(bench.archives_started(), 0);
        bench.hook_ends(Hook::ArchiveAvailable, end.clone());
        assert_eq!(bench.archives_started(), taken, "{end:?}");
        // Sent again with the next join: not asked while it is on its way.
        bench.archive("a");
        let asked = bench.runs(Hook::ArchiveAvailable).len();
        assert_eq!(asked, if taken == 1 { 1 } else { 2 });
    }
}

#[test]
fn however_often_archives_are_sent_one_question_is_open() {
    let mut bench = Bench::joined(choosing());
    for uuid in ["a", "a", "b", "c"] {
        bench.archive(uuid);
    }
    assert_eq!(bench.runs(Hook::ArchiveAvailable).len(), 1);
    bench.hook_ends(Hook::ArchiveAvailable, said("download"));
    assert_eq!(bench.archives_started(), 0);
    let (_, order) = bench.runs(Hook::ArchiveAvailable).pop().expect("asked");
    assert_eq!(order.input["uuid"], "c");
    bench.hook_ends(Hook::ArchiveAvailable, said("download"));
    assert_eq!(bench.archives_started(), 1);
    assert_eq!(bench.runs(Hook::ArchiveAvailable).len(), 2);
}

#[test]
fn each_question_has_a_time_of_its_own_with_the_decider() {
    let mut setup = choosing();
    setup.policy.update = UpdatePolicy::Ask;
    let mut bench = Bench::joined(setup);
    bench.register_decider();
    bench.offer("new");
    bench.pass(6 * SECOND);
    bench.archive("a");
    bench.pass(4 * SECOND);
    assert_eq!(bench.runs(Hook::UpdateAvailable).len(), 1);
    assert_eq!(bench.runs(Hook::ArchiveAvailable).len(), 0);
    bench.pass(6 * SECOND);
    assert_eq!(bench.runs(Hook::ArchiveAvailable).len(), 1);
}

#[test]
fn an_archive_that_is_put_off_is_asked_about_again_in_its_time() {
    let mut bench = Bench::joined(choosing());
    bench.archive("a");
    bench.hook_ends(Hook::ArchiveAvailable, said("reschedule 600"));
    bench.archive("a");
    bench.pass(599 * SECOND);
    assert_eq!(bench.runs(Hook::ArchiveAvailable).len(), 1);
    bench.pass(SECOND);
    assert_eq!(bench.runs(Hook::ArchiveAvailable).len(), 2);
    bench.hook_ends(Hook::ArchiveAvailable, said("download"));
    assert_eq!(bench.archives_started(), 1);
}

#[test]
fn of_progress_the_newest_is_told_and_one_at_a_time() {
    let mut bench = Bench::joined(setup());
    bench.offer("new");
    for percent in 0..50 {
        bench.install(InstallEvent::Downloading { percent });
    }
    let runs = bench.runs(Hook::UpdateProgress);
    assert_eq!(runs.len(), 1);
    assert_eq!(runs[0].1.input["percent"], 0);
    bench.pass(10 * SECOND);
    assert_eq!(bench.runs(Hook::UpdateProgress).len(), 1);
    bench.hook_ends(Hook::UpdateProgress, said(""));
    let runs = bench.runs(Hook::UpdateProgress);
    assert_eq!(runs.len(), 2);
    assert_eq!(runs[1].1.input["percent"], 49);
    // However quick the hook is, not more often than twice a second.
    for percent in 50..100 {
        bench.hook_ends(Hook::UpdateProgress, HookEnd::Absent);
        bench.install(InstallEvent::Downloading { percent });
        bench.pass(SECOND / 50);
    }
    bench.pass(SECOND);
    let runs = bench.runs(Hook::UpdateProgress);
    assert!((4..=6).contains(&runs.len()), "{}", runs.len());
    assert_eq!(runs.last().expect("runs").1.input["percent"], 99);
}

#[test]
fn outcomes_and_the_link_are_told() {
    let mut bench = Bench::joined(setup());
    bench.offer("new");
    bench.install(InstallEvent::Finished(Err("fwup error: x".into())));
    let (_, order) = bench.runs(Hook::UpdateFailed).remove(0);
    assert_eq!(
        order.input,
        json!({"uuid": "new", "reason": "fwup error: x"})
    );
    let mut bench = Bench::joined(setup());
    bench.offer("new");
    bench.installed();
    assert_eq!(bench.runs(Hook::UpdateCompleted).len(), 1);
    // Of a link that comes and goes while its hook hangs, the last state counts.
    let mut bench = Bench::new(setup());
    bench.open();
    bench.reply_to_join();
    assert_eq!(bench.runs(Hook::Connected).len(), 1);
    for _ in 0..3 {
        bench.socket(SocketEvent::Closed("gone".into()));
        bench.reconnect();
    }
    bench.socket(SocketEvent::Closed("gone".into()));
    assert_eq!(bench.runs(Hook::Disconnected), []);
    bench.hook_ends(Hook::Connected, said(""));
    assert_eq!(bench.runs(Hook::Connected).len(), 1);
    let (_, order) = bench.runs(Hook::Disconnected).remove(0);
    let reason = order.input["reason"].as_str().expect("a reason");
    assert!(reason.contains("gone"), "{reason}");
}

#[test]
fn delays_between_connections_are_the_hook_s() {
    let delays = |end: HookEnd| {
        let mut bench = Bench::new(setup());
        bench.hook_ends(Hook::ReconnectBackoff, end);
        let mut seen = Vec::new();
        for _ in 0..4 {
            let failure = ConnectFailure::Protocol("no".into());
            bench.socket(SocketEvent::ConnectFailed(failure));
            let next = bench.core.next_deadline().expect("a next attempt");
            seen.push(next.duration_since(bench.now).as_secs_f64());
            bench.pass(DAY);
        }
        seen
    };
    let near = |seen: &[f64], bases: [f64; 4]| {
        let pairs = seen.iter().zip(bases);
        let good = pairs
            .clone()
            .all(|(delay, base)| (base..=base * 1.5).contains(delay));
        assert!(good, "{seen:?} {bases:?}");
    };
    near(&delays(said("3 500ms, 2m\n")), [3.0, 0.5, 120.0, 120.0]);
    for silent in [
        HookEnd::Absent,
        HookEnd::Failed("killed".into()),
        said(""),
        said("1 2 x"),
        said("0"),
        said(&"1 ".repeat(33)),
        HookEnd::Exited {
            code: 1,
            output: "9".into(),
        },
    ] {
        near(&delays(silent), [1.0, 2.0, 4.0, 8.0]);
    }
}

#[test]
fn what_running_a_hook_took_in_memory_is_given_back() {
    let mut bench = Bench::new(setup());
    bench.open();
    bench.reply_to_join();
    let before = bench.count(&Effect::Settle);
    bench.hook_ends(Hook::Connected, HookEnd::Absent);
    assert_eq!(bench.count(&Effect::Settle), before + 1);
}
