//! Shared secrets and clocks: the hub refuses signatures from its past and its future, so a
//! device whose clock is off must sign with the hub's time, learnt from a refusal.

use std::time::{SystemTime, UNIX_EPOCH};

use devhub::{DateHeader, Gate, Hub, Refusal};

use nix::sys::signal::Signal;

use crate::config::run;
use crate::rig::{self, Device, JOINED, PATIENCE, statuses};

const LEARNT: &str = "signing the next attempts with the hub's time";

fn unix_now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    i64::try_from(since.expect("clock").as_secs()).expect("clock")
}

/// The time the newest upgrade request was signed with, as the hub's clock sees it: negative
/// in its past.
fn signed_ahead_of(hub: &Hub, offset: i64) -> i64 {
    let upgrades = hub.upgrades();
    let newest = upgrades.last().expect("upgrade");
    let signed: i64 = newest
        .header("x-nh-time")
        .expect("signed")
        .parse()
        .expect("seconds");
    signed - unix_now() - offset
}

/// `offset` is what the hub's clock is ahead of the device's. False when the machine was so
/// slow that the first signature had become good on its way.
fn joins_on_the_second_attempt(offset: i64) -> bool {
    let hub = rig::hub().clock_offset(offset).start();
    let (_device, agent) = rig::launch(&hub);
    hub.expect_join("device");
    if statuses(&hub) == [101] {
        return false;
    }
    assert_eq!(statuses(&hub), [401, 101]);
    agent.wait_log(LEARNT);
    let ahead = signed_ahead_of(&hub, offset);
    assert!((-60..=0).contains(&ahead), "signed {ahead} s ahead");
    // Still right after reconnects, without another refusal.
    for _ in 0..2 {
        hub.close(1000);
        hub.expect_join("device");
    }
    assert_eq!(statuses(&hub), [401, 101, 101, 101]);
    let ahead = signed_ahead_of(&hub, offset);
    assert!((-60..=0).contains(&ahead), "signed {ahead} s ahead");
    true
}

#[test]
fn a_device_in_1970_joins_on_the_second_attempt() {
    // The device's clock shows today; the hub is as far ahead as 1970 lies back.
    assert!(joins_on_the_second_attempt(unix_now()));
}

#[test]
fn a_clock_one_hour_slow_joins_on_the_second_attempt() {
    assert!(joins_on_the_second_attempt(3600));
}

#[test]
fn a_clock_one_hour_fast_joins_on_the_second_attempt() {
    assert!(joins_on_the_second_attempt(-3600));
}

#[test]
fn a_clock_two_seconds_fast_joins_on_the_second_attempt() {
    // A second's delay between signing and checking is all it takes: then once more.
    assert!((0..5).any(|_| joins_on_the_second_attempt(-2)));
}

/// Has the agent's clock show the first days of 1970 while there is a file of this name.
fn fake_clock(device: &mut Device, name: &str) {
    let text = r#"
        #define _GNU_SOURCE
        #include <dlfcn.h>
        #include <stdlib.h>
        #include <time.h>
        #include <unistd.h>
        int clock_gettime(clockid_t id, struct timespec *now) {
            static int (*real)(clockid_t, struct timespec *);
            if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
            int failed = real(id, now);
            if (id == CLOCK_REALTIME && !access(getenv("IN_1970"), F_OK)) now->tv_sec %= 1000000;
            return failed;
        }"#;
    let (source, library) = (device.path("clock.c"), device.path("clock.so"));
    std::fs::write(&source, text).expect("source");
    let mut compiler = std::process::Command::new("cc");
    compiler.args(["-shared", "-fPIC", "-o"]).arg(&library);
    let built = compiler.arg(&source).arg("-ldl").status();
    assert!(built.expect("a C compiler").success());
    for (name, path) in [("LD_PRELOAD", library), ("IN_1970", device.path(name))] {
        let path = path.display().to_string();
        device.env.insert(name.to_owned(), path);
    }
}

#[test]
fn a_clock_that_was_never_set_is_an_alarm_until_it_is() {
    let hub = rig::hub().start();
    let mut device = Device::new(&hub);
    device.set("HEARTBEAT_INTERVAL", "100ms");
    fake_clock(&mut device, "unset");
    std::fs::write(device.path("unset"), "").expect("file");
    let agent = device.start();
    // The hub's time does for the signature.
    agent.wait_log(LEARNT);
    agent.wait_log(JOINED);
    assert_eq!(statuses(&hub), [401, 101]);
    assert!(agent.log().starts_with("1970-01-"));
    let alarms = || {
        let output = run(&device.env, &["alarm", "list"]);
        String::from_utf8(output.stdout).expect("UTF-8")
    };
    agent.wait_log("control.sock is open");
    let raised = alarms();
    assert!(raised.contains("ClockUnset: the device's clock is before"));
    agent.signal(Signal::SIGUSR1);
    agent.wait_log("alarms=ClockUnset");
    std::fs::remove_file(device.path("unset")).expect("file");
    let deadline = std::time::Instant::now() + PATIENCE;
    while !alarms().is_empty() {
        assert!(std::time::Instant::now() < deadline, "still: {}", alarms());
        hub.expect_heartbeat();
    }
    assert_eq!(hub.connections(), 1);
}

#[test]
fn a_right_clock_joins_at_once() {
    let hub = rig::hub().start();
    let (_device, agent) = rig::launch(&hub);
    hub.expect_join("device");
    assert_eq!(statuses(&hub), [101]);
    agent.wait_log(JOINED);
    assert!(agent.logged(LEARNT).is_empty());
}

#[test]
fn a_clock_that_was_learnt_wrong_is_learnt_again() {
    let hub = rig::hub().clock_offset(3600).start();
    let (_device, agent) = rig::launch(&hub);
    hub.expect_join("device");
    hub.set_clock_offset(-7200);
    hub.close(1012);
    hub.expect_join("device");
    assert_eq!(statuses(&hub), [401, 101, 401, 101]);
    agent.wait_log_times(LEARNT, 2);
}

/// Refuses with this `Date` until the device has tried four times; then the clock is right.
fn keeps_trying(date: DateHeader) {
    let hub = rig::hub().start();
    hub.set_gate(Gate::Refuse(Refusal::status(401).date(date)));
    let (_device, agent) = rig::launch(&hub);
    hub.expect_upgrades(4);
    hub.set_gate(Gate::Accept);
    hub.expect_join("device");
    agent.wait_log(JOINED);
    assert!(agent.logged(LEARNT).is_empty());
    // The first delay is 100 ms + 50 %, the third 400 ms + 50 %.
    let delays = agent.logged("next attempt in");
    assert!(delays[0].ends_with("in 0.1 s") || delays[0].ends_with("in 0.2 s"));
    let third = ["in 0.4 s", "in 0.5 s", "in 0.6 s"];
    assert!(
        third.iter().any(|end| delays[2].ends_with(end)),
        "{delays:?}"
    );
}

#[test]
fn refusals_without_a_date_are_retried_with_back_off() {
    keeps_trying(DateHeader::None);
}

#[test]
fn refusals_with_a_date_that_is_none_are_retried_with_back_off() {
    keeps_trying(DateHeader::Exact("yesterday, at noon".to_owned()));
}

#[test]
fn the_clock_of_a_hub_that_is_away_is_not_taken() {
    let hub = rig::hub().start();
    hub.refuse_next(503, &[]);
    let (_device, agent) = rig::launch(&hub);
    hub.expect_join("device");
    assert_eq!(statuses(&hub), [503, 101]);
    agent.wait_log(JOINED);
    assert!(agent.logged(LEARNT).is_empty());
}
