//! Firmware that is not marked valid: who marks it, who hears of it, and when it is rolled
//! back, in virtual time.

use std::time::Duration;

use crate::config::{TrialSettings, Validate};
use crate::core::Setup;
use crate::core::alarms::Alarm;
use crate::core::effect::Effect;
use crate::core::event::{Counted, Errand, Event, InstallEvent, Signal, SocketEvent, Worker};
use crate::core::tests::{Bench, SECOND, setup};
use crate::wire::{DevicePush, Outbound};

const TIMEOUT: Duration = Duration::from_secs(600);

fn on_trial(validate: Validate) -> Setup {
    Setup {
        firmware_validated: false,
        trial: TrialSettings {
            validate,
            timeout: TIMEOUT,
            reboots: 3,
        },
        ..setup()
    }
}

fn check() -> Effect {
    Effect::CheckFirmware("true".into())
}

fn counting(number: u64) -> Effect {
    let uuid = "running".to_owned();
    Effect::CountTrialReboot { uuid, number }
}

impl Bench {
    fn read(&mut self, validated: Option<bool>) {
        self.event(Event::ValidationRead(validated));
    }

    fn marked(&mut self, result: Result<(), &str>) {
        self.event(Event::ValidMarked(result.map_err(str::to_owned)));
    }

    fn checked(&mut self, result: Result<(), &str>) {
        self.event(Event::FirmwareChecked(result.map_err(str::to_owned)));
    }

    fn counted(&mut self, counted: Counted) {
        self.event(Event::TrialRebootCounted(counted));
    }

    /// Lets time pass; every poll reads that there is no mark.
    fn pass_unmarked(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            let reads = self.count(&Effect::ReadValidation);
            self.pass(SECOND);
            if self.count(&Effect::ReadValidation) > reads {
                self.read(Some(false));
            }
        }
    }

    fn told(&self) -> usize {
        let pushes = self.device_pushes();
        let told = pushes
            .iter()
            .filter(|push| **push == DevicePush::FirmwareValidated);
        told.count()
    }

    fn validated_in_last_join(&self) -> bool {
        let join = self.pushes().into_iter().rev();
        let mut joins = join.filter_map(|push| match &push.body {
            Outbound::Join(_, payload) => payload["meta"]["firmware_validated"].as_bool(),
            Outbound::Heartbeat
            | Outbound::Device(_)
            | Outbound::Console(_)
            | Outbound::Extension(_) => None,
        });
        joins.next().expect("no join")
    }
}

#[test]
fn manual_only_reads_and_tells_once() {
    let mut bench = Bench::joined(on_trial(Validate::Manual));
    bench.pass_unmarked(45 * SECOND);
    assert_eq!(bench.count(&Effect::ReadValidation), 4);
    bench.pass(10 * SECOND);
    bench.read(Some(true));
    bench.read(Some(true));
    assert_eq!(bench.told(), 1);
    assert_eq!(bench.count(&Effect::MarkValid), 0);
    bench.effects.clear();
    bench.pass(2 * TIMEOUT);
    assert_eq!(bench.effects, []);
}

#[test]
fn on_join_marks_after_the_first_join_and_tells_once() {
    let mut bench = Bench::new(on_trial(Validate::OnJoin));
    bench.pass_unmarked(30 * SECOND);
    assert_eq!(bench.count(&Effect::MarkValid), 0);
    bench.effects.clear();
    bench.open();
    bench.reply_to_join();
    assert!(!bench.validated_in_last_join());
    bench.read(Some(false));
    assert_eq!(bench.count(&Effect::MarkValid), 1);
    assert_eq!(bench.told(), 0);
    bench.marked(Ok(()));
    bench.read(Some(true));
    assert_eq!(bench.told(), 1);
    bench.socket(SocketEvent::Closed("gone".into()));
    bench.reconnect();
    assert!(bench.validated_in_last_join());
    assert_eq!((bench.told(), bench.count(&Effect::MarkValid)), (1, 1));
}

#[test]
fn on_join_leaves_firmware_alone_that_is_or_was_marked_meanwhile() {
    let mut bench = Bench::joined(Setup {
        firmware_validated: true,
        ..on_trial(Validate::OnJoin)
    });
    bench.pass(2 * TIMEOUT);
    assert_eq!(bench.effects, []);

    let mut bench = Bench::joined(on_trial(Validate::OnJoin));
    bench.read(Some(true));
    assert_eq!((bench.told(), bench.count(&Effect::MarkValid)), (1, 0));
}

#[test]
fn a_mark_set_while_a_join_is_under_way_is_told_after_it() {
    let mut bench = Bench::new(on_trial(Validate::Manual));
    bench.pass(10 * SECOND);
    bench.open();
    assert!(!bench.validated_in_last_join());
    bench.read(Some(true));
    assert_eq!(bench.told(), 0);
    bench.reply_to_join();
    assert_eq!(bench.told(), 1);
}

#[test]
fn the_command_is_asked_until_it_agrees() {
    let mut bench = Bench::new(on_trial(Validate::Command("true".into())));
    for round in 1..=3 {
        bench.read(Some(false));
        assert_eq!(bench.count(&check()), round);
        bench.checked(Err("exit status: 1"));
        bench.pass(9 * SECOND);
        assert_eq!(bench.count(&Effect::ReadValidation), round);
        bench.pass(SECOND);
        assert_eq!(bench.count(&Effect::ReadValidation), round + 1);
    }
    bench.read(Some(false));
    // Slow ones are not started again meanwhile.
    bench.pass(60 * SECOND);
    assert_eq!(bench.count(&check()), 4);
    bench.checked(Ok(()));
    assert_eq!(bench.count(&Effect::MarkValid), 1);
    bench.marked(Ok(()));
    bench.read(Some(true));
    bench.open();
    assert!(bench.validated_in_last_join());
    bench.reply_to_join();
    assert_eq!(bench.told(), 0);
}

#[test]
fn a_mark_that_cannot_be_set_or_does_not_hold_is_set_again_ever_more_rarely() {
    let mut bench = Bench::joined(Setup {
        trial: TrialSettings {
            timeout: Duration::ZERO,
            ..on_trial(Validate::OnJoin).trial
        },
        ..on_trial(Validate::OnJoin)
    });
    bench.read(Some(false));
    for pause in [10, 20, 40, 80, 160, 320, 600, 600] {
        let marked = bench.count(&Effect::MarkValid);
        match pause % 20 {
            // Set, they say, but there is none.
            0 => {
                bench.marked(Ok(()));
                bench.read(Some(false));
            }
            _ => bench.marked(Err("read-only")),
        }
        bench.pass((pause - 1) * SECOND);
        let reads = bench.count(&Effect::ReadValidation);
        bench.pass(SECOND);
        assert_eq!(bench.count(&Effect::ReadValidation), reads + 1, "{pause}");
        bench.read(Some(false));
        assert_eq!(bench.count(&Effect::MarkValid), marked + 1);
    }
}

#[test]
fn errands_of_the_trial_that_die_are_answered_for() {
    let died = |errand| Event::WorkerExited(Worker::Errand(errand), Err("no thread".into()));
    let mut bench = Bench::new(on_trial(Validate::Command("true".into())));
    bench.event(died(Errand::Validation));
    bench.pass(10 * SECOND);
    bench.read(Some(false));
    bench.event(died(Errand::FirmwareCheck));
    bench.pass(10 * SECOND);
    bench.read(Some(false));
    bench.checked(Ok(()));
    bench.event(died(Errand::MarkValid));
    bench.pass(10 * SECOND);
    bench.read(Some(false));
    assert_eq!(bench.count(&check()), 3);
    bench.checked(Err("no"));
    bench.pass_unmarked(TIMEOUT);
    bench.event(died(Errand::CountTrialReboot));
    bench.pass(60 * SECOND);
    assert_eq!(bench.count(&counting(1)), 2);
    assert!(!bench.rebooted());
}

#[test]
fn an_unmarked_firmware_is_counted_announced_and_rebooted() {
    let mut bench = Bench::joined(on_trial(Validate::Manual));
    bench.pass_unmarked(TIMEOUT - SECOND);
    assert_eq!(bench.count(&counting(1)), 0);
    bench.pass_unmarked(SECOND);
    assert_eq!(bench.count(&counting(1)), 1);
    assert_eq!(bench.device_pushes(), []);
    bench.counted(Counted::Persisted);
    assert_eq!(bench.device_pushes(), [DevicePush::Rebooting]);
    assert!(!bench.rebooted());
    bench.reply_to_heartbeat();
    assert!(bench.rebooted());
    // The escalation goes on by itself; nothing is counted twice.
    bench.pass_unmarked(TIMEOUT);
    assert_eq!(bench.count(&counting(1)), 1);
}

#[test]
fn without_the_hub_the_rollback_comes_all_the_same() {
    let mut bench = Bench::new(on_trial(Validate::OnJoin));
    bench.pass_unmarked(TIMEOUT);
    bench.counted(Counted::Persisted);
    assert!(bench.rebooted());
}

#[test]
fn what_is_not_counted_is_not_rebooted() {
    let mut bench = Bench::joined(on_trial(Validate::Manual));
    bench.pass_unmarked(TIMEOUT);
    bench.counted(Counted::Failed("disk full".into()));
    bench.pass_unmarked(61 * SECOND);
    assert_eq!(bench.count(&counting(1)), 2);
    assert!(!bench.rebooted());
    bench.counted(Counted::Persisted);
    bench.reply_to_heartbeat();
    assert!(bench.rebooted());
}

#[test]
fn so_many_reboots_of_one_firmware_and_no_more() {
    for (made, uuid, counted) in [
        (Some(2), Some("running"), true),
        (Some(3), Some("running"), false),
        (Some(9), Some("running"), false),
        (None, Some("running"), false),
        (Some(0), None, false),
    ] {
        let mut bench = Bench::joined(Setup {
            trial_reboots: made,
            firmware_uuid: uuid.map(str::to_owned),
            ..on_trial(Validate::Manual)
        });
        bench.pass_unmarked(3 * TIMEOUT);
        assert_eq!(bench.count(&counting(3)) == 1, counted, "{made:?}");
        assert_eq!(bench.device_pushes(), []);
        assert!(!bench.rebooted());
    }
}

#[test]
fn a_mark_found_at_the_last_moment_saves_the_firmware() {
    let mut bench = Bench::joined(on_trial(Validate::Manual));
    bench.pass_unmarked(TIMEOUT);
    bench.counted(Counted::Validated);
    assert_eq!(bench.told(), 1);
    bench.pass(2 * TIMEOUT);
    assert!(!bench.rebooted());

    // While the reboot is being announced.
    let mut bench = Bench::joined(on_trial(Validate::Manual));
    bench.pass_unmarked(TIMEOUT);
    bench.counted(Counted::Persisted);
    bench.read(Some(true));
    bench.reply_to_heartbeat();
    bench.pass(2 * TIMEOUT);
    assert!(!bench.rebooted());
    assert_eq!(bench.count(&Effect::ForgetTrialReboots), 1);

    // While the count is being written: it is not left behind.
    let mut bench = Bench::joined(on_trial(Validate::Manual));
    bench.pass_unmarked(TIMEOUT);
    bench.read(Some(true));
    assert_eq!(bench.count(&Effect::ForgetTrialReboots), 0);
    bench.counted(Counted::Persisted);
    assert_eq!(bench.count(&Effect::ForgetTrialReboots), 1);
    bench.pass(2 * TIMEOUT);
    assert!(!bench.rebooted());

    // While a reboot that does not happen is tried again and again.
    let mut bench = Bench::joined(Setup {
        reboot_force: false,
        ..on_trial(Validate::Manual)
    });
    bench.pass_unmarked(TIMEOUT);
    bench.counted(Counted::Persisted);
    bench.reply_to_heartbeat();
    bench.pass_unmarked(70 * SECOND);
    bench.read(Some(true));
    bench.effects.clear();
    bench.pass(2 * TIMEOUT);
    assert_eq!(bench.effects, []);
}

#[test]
fn a_mark_that_is_being_set_is_waited_for() {
    let mut bench = Bench::joined(on_trial(Validate::OnJoin));
    bench.read(Some(false));
    bench.pass(TIMEOUT + SECOND);
    assert_eq!(bench.count(&counting(1)), 0);
    bench.marked(Err("read-only"));
    bench.pass(9 * SECOND);
    assert_eq!(bench.count(&counting(1)), 1);
}

#[test]
fn an_update_goes_first_and_a_failed_one_leaves_the_trial_where_it_was() {
    let mut bench = Bench::joined(on_trial(Validate::Manual));
    bench.offer("new");
    bench.pass_unmarked(2 * TIMEOUT);
    assert_eq!(bench.count(&counting(1)), 0);
    bench.install(InstallEvent::Finished(Err("fwup error: no".into())));
    bench.reply_to_heartbeat();
    bench.pass_unmarked(11 * SECOND);
    assert_eq!(bench.count(&counting(1)), 1);
    // Offered while the count was being written: the same count serves later.
    bench.offer("newer");
    bench.counted(Counted::Persisted);
    bench.pass_unmarked(60 * SECOND);
    assert!(!bench.device_pushes().contains(&DevicePush::Rebooting));
    bench.event(Event::WorkerExited(
        Worker::Installer(crate::core::event::JobId(2)),
        Err("gone".into()),
    ));
    bench.reply_to_heartbeat();
    bench.pass_unmarked(11 * SECOND);
    assert_eq!(bench.count(&counting(1)), 2);
    bench.counted(Counted::Persisted);
    bench.reply_to_heartbeat();
    assert_eq!(bench.count(&Effect::Reboot), 1);
}

#[test]
fn a_failure_that_nobody_takes_does_not_keep_bad_firmware_alive() {
    let mut bench = Bench::joined(on_trial(Validate::Manual));
    bench.offer("new");
    bench.socket(SocketEvent::Closed("gone".into()));
    bench.install(InstallEvent::Finished(Err("fwup error: no".into())));
    bench.pass_unmarked(TIMEOUT);
    assert_eq!(bench.count(&counting(1)), 1);
    bench.counted(Counted::Persisted);
    assert!(bench.rebooted());
}

#[test]
fn while_an_update_may_have_switched_slots_nothing_is_marked() {
    for validate in [Validate::OnJoin, Validate::Command("true".into())] {
        let mut bench = Bench::joined(on_trial(validate.clone()));
        bench.offer("new");
        let look = |bench: &mut Bench| {
            bench.read(Some(false));
            if matches!(validate, Validate::Command(_)) {
                bench.checked(Ok(()));
            }
        };
        look(&mut bench);
        for phase in ["installing", "reporting", "rebooting"] {
            bench.pass(10 * SECOND);
            look(&mut bench);
            assert_eq!(bench.count(&Effect::MarkValid), 0, "{validate:?} {phase}");
            match phase {
                "installing" => {
                    bench.socket(SocketEvent::Closed("gone".into()));
                    bench.install(InstallEvent::Downloaded);
                    bench.install(InstallEvent::Finished(Ok(())));
                }
                _ => bench.pass(51 * SECOND),
            }
        }
        assert!(bench.rebooted());
    }
}

#[test]
fn a_mark_put_off_by_an_update_that_fails_comes_before_the_rollback() {
    let mut bench = Bench::joined(on_trial(Validate::OnJoin));
    bench.offer("new");
    // It was good all the time.
    bench.pass_unmarked(2 * TIMEOUT);
    bench.read(Some(false));
    assert_eq!(bench.count(&Effect::MarkValid), 0);
    bench.install(InstallEvent::Finished(Err("fwup error: no".into())));
    let failed = bench.now;
    while bench.count(&Effect::MarkValid) == 0 {
        bench.pass_unmarked(SECOND);
        assert!(bench.now <= failed + 10 * SECOND, "not marked");
    }
    assert_eq!(bench.count(&counting(1)), 0);
    bench.marked(Ok(()));
    bench.read(Some(true));
    assert_eq!(bench.told(), 1);
    bench.pass(2 * TIMEOUT);
    assert!(!bench.rebooted());
    // Its check may have changed its mind: then nothing is waited for.
    let mut bench = Bench::joined(on_trial(Validate::Command("true".into())));
    bench.offer("new");
    bench.read(Some(false));
    bench.checked(Ok(()));
    bench.pass(2 * TIMEOUT);
    bench.install(InstallEvent::Finished(Err("fwup error: no".into())));
    bench.pass(60 * SECOND);
    assert_eq!(bench.count(&counting(1)), 0);
    bench.read(Some(false));
    bench.checked(Err("exit status: 1"));
    bench.pass(10 * SECOND);
    assert_eq!(bench.count(&counting(1)), 1);
}

#[test]
fn no_timeout_no_rollback_and_none_while_leaving() {
    let mut never = on_trial(Validate::Manual);
    never.trial.timeout = Duration::ZERO;
    let mut bench = Bench::joined(never);
    bench.pass_unmarked(10 * TIMEOUT);
    assert_eq!(bench.count(&counting(1)), 0);

    let mut bench = Bench::joined(on_trial(Validate::Manual));
    bench.offer("new");
    bench.install(InstallEvent::Downloaded);
    bench.pass_unmarked(TIMEOUT - SECOND);
    bench.event(Event::Signal(Signal::Terminate));
    bench.pass(5 * SECOND);
    assert_eq!(bench.count(&counting(1)), 0);
}

#[test]
fn alarms_follow_the_marks() {
    let mut bench = Bench::joined(Setup {
        auto_revert_detected: true,
        ..on_trial(Validate::Manual)
    });
    let alarms = [Alarm::FirmwareReverted, Alarm::FirmwareNotValidated];
    assert_eq!(bench.core.alarms(), alarms);
    let line = bench.core.status().to_string();
    let shown = "alarms=FirmwareReverted,FirmwareNotValidated";
    assert!(line.ends_with(shown), "{line}");
    bench.pass(10 * SECOND);
    bench.read(Some(true));
    assert_eq!(bench.core.alarms(), [Alarm::FirmwareReverted]);
    let line = Bench::joined(setup()).core.status().to_string();
    assert!(line.ends_with("alarms=none"), "{line}");
}
