//! Reboots that do and do not take place, in virtual time.

use crate::core::Setup;
use crate::core::effect::Effect;
use crate::core::event::{Errand, Event, InstallEvent, Signal, Worker};
use crate::core::tests::{Bench, SECOND, setup};
use crate::wire::{DeviceEvent, DevicePush, Inbound};

impl Bench {
    pub fn count(&self, effect: &Effect) -> usize {
        self.effects.iter().filter(|other| *other == effect).count()
    }

    fn reboot_command_ends(&mut self, result: Result<(), &str>) {
        self.event(Event::RebootCommandEnded(result.map_err(str::to_owned)));
    }

    fn hub_wants_a_reboot(&mut self) {
        self.receive(Inbound::Device(DeviceEvent::Reboot));
    }

    fn installs(&mut self) {
        self.offer("new");
        self.install(InstallEvent::Downloaded);
        self.install(InstallEvent::Finished(Ok(())));
        self.reply_to_heartbeat();
    }
}

fn unforced() -> Setup {
    Setup {
        reboot_force: false,
        ..setup()
    }
}

#[test]
fn a_command_that_fails_is_followed_by_force_and_then_by_another_round() {
    let mut bench = Bench::joined(setup());
    bench.installs();
    assert_eq!(bench.count(&Effect::Reboot), 1);
    bench.reboot_command_ends(Err("exit status: 1"));
    assert_eq!(bench.count(&Effect::ForceReboot), 1);
    bench.event(Event::ForcedRebootFailed("not permitted".into()));
    for (pause, rounds) in [(30, 2), (60, 3), (120, 4), (240, 5), (300, 6), (300, 7)] {
        bench.pass((pause - 1) * SECOND);
        assert_eq!(bench.count(&Effect::Reboot), rounds - 1);
        bench.pass(2 * SECOND);
        assert_eq!(bench.count(&Effect::Reboot), rounds);
        bench.reboot_command_ends(Err("exit status: 1"));
        bench.event(Event::ForcedRebootFailed("not permitted".into()));
    }
    assert_eq!(bench.count(&Effect::ForceReboot), 7);
}

#[test]
fn a_command_without_effect_is_given_its_time_and_then_force_is_used() {
    let mut bench = Bench::joined(setup());
    bench.installs();
    bench.reboot_command_ends(Ok(()));
    bench.pass(59 * SECOND);
    assert_eq!(bench.count(&Effect::ForceReboot), 0);
    bench.pass(2 * SECOND);
    assert_eq!(bench.count(&Effect::ForceReboot), 1);
    // Force may hang, too.
    bench.pass(60 * SECOND);
    bench.pass(30 * SECOND);
    assert_eq!(bench.count(&Effect::Reboot), 2);
}

#[test]
fn a_command_that_hangs_is_overtaken_and_its_late_end_changes_nothing() {
    let mut bench = Bench::joined(setup());
    bench.installs();
    bench.pass(61 * SECOND);
    assert_eq!(bench.count(&Effect::ForceReboot), 1);
    bench.reboot_command_ends(Err("killed"));
    bench.pass(SECOND);
    assert_eq!(bench.count(&Effect::ForceReboot), 1);
    assert_eq!(bench.count(&Effect::Reboot), 1);
}

#[test]
fn force_that_is_off_is_never_used() {
    for result in [None, Some(Ok(())), Some(Err("exit status: 1"))] {
        let mut bench = Bench::joined(unforced());
        bench.installs();
        if let Some(result) = result {
            bench.reboot_command_ends(result);
        }
        bench.pass(600 * SECOND);
        assert_eq!(bench.count(&Effect::ForceReboot), 0);
        assert!(bench.count(&Effect::Reboot) > 1, "{result:?}");
    }
}

#[test]
fn a_force_that_cannot_be_started_is_a_force_that_failed() {
    let mut bench = Bench::joined(setup());
    bench.installs();
    bench.reboot_command_ends(Err("exit status: 1"));
    let died = Event::WorkerExited(Worker::Errand(Errand::ForceReboot), Err("no thread".into()));
    bench.event(died);
    bench.pass(31 * SECOND);
    assert_eq!(bench.count(&Effect::Reboot), 2);
}

#[test]
fn the_hub_s_request_does_not_wait_for_an_answer_for_ever_and_counts_once() {
    let mut bench = Bench::joined(setup());
    bench.hub_wants_a_reboot();
    bench.hub_wants_a_reboot();
    assert_eq!(bench.device_pushes(), [DevicePush::Rebooting]);
    bench.pass(6 * SECOND);
    assert_eq!(bench.count(&Effect::Reboot), 1);
    bench.reply_to_heartbeat();
    assert_eq!(bench.count(&Effect::Reboot), 1);
}

#[test]
fn nothing_is_written_while_the_machine_goes_down_but_a_failed_reboot_blocks_no_update() {
    let mut bench = Bench::joined(unforced());
    bench.hub_wants_a_reboot();
    bench.offer("new");
    bench.reply_to_heartbeat();
    bench.offer("new");
    bench.reboot_command_ends(Ok(()));
    bench.offer("new");
    let started = |bench: &Bench| {
        let started = |effect: &&Effect| matches!(effect, Effect::StartInstall(..));
        bench.effects.iter().filter(started).count()
    };
    assert_eq!(started(&bench), 0);
    bench.pass(61 * SECOND);
    bench.offer("new");
    assert_eq!(started(&bench), 1);
    // The update goes first, and reboots by itself.
    bench.pass(300 * SECOND);
    assert_eq!(bench.count(&Effect::Reboot), 1);
    bench.install(InstallEvent::Downloaded);
    bench.install(InstallEvent::Finished(Ok(())));
    bench.reply_to_heartbeat();
    assert_eq!(bench.count(&Effect::Reboot), 2);
    bench.pass(59 * SECOND);
    assert_eq!(bench.count(&Effect::Reboot), 2);
}

#[test]
fn keys_that_come_while_the_machine_goes_down_start_nothing() {
    let mut bench = Bench::joined(Setup {
        public_keys: vec![],
        ..setup()
    });
    bench.offer("new");
    bench.hub_wants_a_reboot();
    let keys = setup().public_keys;
    bench.receive(Inbound::Device(DeviceEvent::FirmwareKeys(keys)));
    bench.pass(6 * SECOND);
    assert_eq!(bench.count(&Effect::Reboot), 1);
    assert!(
        !bench
            .effects
            .iter()
            .any(|effect| matches!(effect, Effect::StartInstall(..)))
    );
}

#[test]
fn leaving_waits_for_force_but_not_for_another_round() {
    let finish = |bench: &mut Bench| {
        bench.offer("new");
        bench.install(InstallEvent::Downloaded);
        bench.event(Event::Signal(Signal::Terminate));
        bench.install(InstallEvent::Finished(Ok(())));
        bench.reply_to_heartbeat();
        assert_eq!(bench.count(&Effect::Reboot), 1);
        bench.reboot_command_ends(Err("exit status: 1"));
    };
    let mut bench = Bench::joined(setup());
    finish(&mut bench);
    assert_eq!(bench.count(&Effect::ForceReboot), 1);
    assert_eq!(bench.count(&Effect::Exit), 0);
    bench.event(Event::ForcedRebootFailed("not permitted".into()));
    assert_eq!(bench.count(&Effect::Exit), 1);

    let mut bench = Bench::joined(unforced());
    finish(&mut bench);
    assert_eq!(bench.count(&Effect::Exit), 1);
}

#[test]
fn a_reboot_that_leaving_brings_about_is_waited_for_beyond_the_installer_s_time() {
    let mut bench = Bench::joined(setup());
    bench.offer("new");
    bench.install(InstallEvent::Downloaded);
    bench.event(Event::Signal(Signal::Terminate));
    bench.pass(9 * SECOND);
    bench.install(InstallEvent::Finished(Ok(())));
    bench.pass(4 * SECOND);
    assert_eq!(bench.count(&Effect::Exit), 0, "the outcome is being told");
    bench.reply_to_heartbeat();
    bench.pass(9 * SECOND);
    assert_eq!(bench.count(&Effect::Reboot), 1);
    assert_eq!(bench.count(&Effect::Exit), 0, "the command is running");
    bench.reboot_command_ends(Ok(()));
    assert_eq!(bench.count(&Effect::Exit), 1);
}

#[test]
fn leaving_drops_no_reboot_that_is_ordered_and_hurries_one_that_is_announced() {
    // Disks are being flushed, or the command runs.
    let mut bench = Bench::joined(setup());
    bench.installs();
    bench.event(Event::Signal(Signal::Terminate));
    assert_eq!(bench.count(&Effect::Exit), 0);
    bench.reboot_command_ends(Ok(()));
    assert_eq!(bench.count(&Effect::Exit), 1);

    let mut bench = Bench::joined(setup());
    bench.hub_wants_a_reboot();
    bench.event(Event::Signal(Signal::Terminate));
    assert_eq!(bench.count(&Effect::Reboot), 1);
    assert_eq!(bench.count(&Effect::Exit), 0);
    bench.reboot_command_ends(Ok(()));
    assert_eq!(bench.count(&Effect::Exit), 1);
}

#[test]
fn leaving_does_not_wait_for_a_reboot_command_for_ever() {
    let mut bench = Bench::joined(setup());
    bench.installs();
    bench.event(Event::Signal(Signal::Terminate));
    bench.pass(9 * SECOND);
    assert_eq!(bench.count(&Effect::Exit), 0);
    bench.pass(2 * SECOND);
    assert_eq!(bench.count(&Effect::Exit), 1);
    // Who is told twice goes at once.
    let mut bench = Bench::joined(setup());
    bench.installs();
    bench.event(Event::Signal(Signal::Terminate));
    bench.event(Event::Signal(Signal::Terminate));
    assert_eq!(bench.count(&Effect::Exit), 1);
}

#[test]
fn once_the_command_was_accepted_leaving_waits_for_nothing() {
    // The usual way: the machine goes down, and its agent is told to stop.
    let mut bench = Bench::joined(setup());
    bench.installs();
    bench.reboot_command_ends(Ok(()));
    assert_eq!(bench.count(&Effect::Exit), 0);
    bench.event(Event::Signal(Signal::Terminate));
    assert_eq!(bench.count(&Effect::Exit), 1);
    // Nor for a reboot that waits to be tried again.
    let mut bench = Bench::joined(unforced());
    bench.installs();
    bench.reboot_command_ends(Err("exit status: 1"));
    bench.event(Event::Signal(Signal::Terminate));
    assert_eq!(bench.count(&Effect::Exit), 1);
}

impl Bench {
    /// An update fails, and the hub does not answer.
    fn fails(&mut self) {
        self.offer("new");
        self.install(InstallEvent::Finished(Err("fwup error: no".into())));
    }
}

#[test]
fn the_hub_s_request_does_not_wait_for_a_failure_s_confirmation() {
    let mut bench = Bench::joined(setup());
    bench.fails();
    bench.hub_wants_a_reboot();
    assert_eq!(bench.device_pushes().last(), Some(&DevicePush::Rebooting));
    bench.reply_to_heartbeat();
    assert_eq!(bench.count(&Effect::Reboot), 1);
}

#[test]
fn a_reboot_to_be_tried_again_does_not_wait_for_a_failure_s_confirmation() {
    let mut bench = Bench::joined(unforced());
    bench.hub_wants_a_reboot();
    bench.reply_to_heartbeat();
    bench.reboot_command_ends(Err("exit status: 1"));
    bench.fails();
    bench.pass(31 * SECOND);
}

#[test]
fn the_hub_s_request_waits_for_no_update_but_is_refused_until_it_is_over() {
    let mut bench = Bench::joined(setup());
    bench.offer("new");
    bench.hub_wants_a_reboot();
    bench.pass(30 * SECOND);
    assert_eq!(bench.count(&Effect::Reboot), 0);
    assert!(!bench.device_pushes().contains(&DevicePush::Rebooting));
    bench.install(InstallEvent::Finished(Err("fwup error: no".into())));
    bench.reply_to_heartbeat();
    assert_eq!(bench.count(&Effect::Reboot), 0);
    bench.hub_wants_a_reboot();
    bench.reply_to_heartbeat();
    assert_eq!(bench.count(&Effect::Reboot), 1);
}

#[test]
fn the_hub_s_request_goes_before_an_update_when_the_integrator_says_so() {
    let mut setup = setup();
    setup.operator.reboot_during_update = true;
    let mut bench = Bench::joined(setup);
    bench.offer("new");
    bench.hub_wants_a_reboot();
    assert!(bench.device_pushes().contains(&DevicePush::Rebooting));
    bench.reply_to_heartbeat();
    assert_eq!(bench.count(&Effect::Reboot), 1);
    // Not cancelled: should the machine stay up, it is finished.
    bench.reboot_command_ends(Err("exit status: 1"));
    bench.event(Event::ForcedRebootFailed("not permitted".into()));
    bench.install(InstallEvent::Downloaded);
    bench.install(InstallEvent::Finished(Ok(())));
    bench.reply_to_heartbeat();
    assert_eq!(bench.count(&Effect::Reboot), 2);
}
