//! Keeping the link: heartbeats, silence, every way a connection can end, back-off, SIGHUP.

use std::time::Duration;

use devhub::{Gate, Hub};
use nix::sys::signal::Signal;

use crate::rig::{self, Agent, Device, JOINED, launch};

/// Long enough for a busy hub to answer within it.
const HEARTBEAT_MS: u64 = 1000;

/// A device with fast heartbeats.
fn beating(hub: &Hub) -> Device {
    let mut device = Device::new(hub);
    device.set("HEARTBEAT_INTERVAL", &format!("{HEARTBEAT_MS}ms"));
    device
}

/// When the heartbeats of a connection reached the hub.
fn heartbeats(hub: &Hub, conn: u64) -> Vec<Duration> {
    let transcript = hub.transcript();
    let entries = transcript.entries.iter();
    entries
        .filter(|entry| entry.conn == conn && entry.from_device("phoenix", "heartbeat").is_some())
        .map(|entry| entry.t)
        .collect()
}

/// The delays the agent announced, in tenths of a second.
fn delays(agent: &Agent, count: usize) -> Vec<u32> {
    agent.wait_log_times("; next attempt in ", count);
    let lines = agent.logged("; next attempt in ");
    let seconds = lines.iter().map(|line| {
        let (_, rest) = line.rsplit_once(" in ").expect("delay");
        rest.trim_end_matches(" s").replace('.', "")
    });
    seconds.map(|text| text.parse().expect("delay")).collect()
}

#[test]
fn heartbeats_are_sent_at_the_interval_and_keep_the_link() {
    let hub = rig::hub().idle_timeout(Duration::from_secs(5)).start();
    let device = beating(&hub);
    let _agent = device.start();
    for _ in 0..4 {
        hub.expect_heartbeat();
    }
    let opened = hub.upgrades()[0].t;
    for (index, at) in heartbeats(&hub, 1).iter().enumerate() {
        let due = (index as u64 + 1) * HEARTBEAT_MS;
        let since = at.saturating_sub(opened);
        assert!(
            since >= Duration::from_millis(due),
            "{index} after {since:?}"
        );
    }
    let transcript = hub.transcript();
    let entries = transcript.entries.iter();
    let mut refs: Vec<_> = entries
        .filter_map(|entry| entry.from_device("phoenix", "heartbeat"))
        .inspect(|frame| assert_eq!(frame.join_ref, None))
        .map(|frame| frame.reference.clone().expect("ref"))
        .collect();
    let count = refs.len();
    refs.dedup();
    assert_eq!(refs.len(), count, "a ref was used twice");
    assert_eq!(hub.connections(), 1);
}

#[test]
fn an_unanswered_heartbeat_drops_the_link() {
    let hub = rig::hub().start();
    hub.answer_heartbeats(false);
    let mut device = Device::new(&hub);
    device.set("HEARTBEAT_INTERVAL", "300ms");
    let agent = device.start();
    agent.wait_log("the hub did not answer a heartbeat; next attempt in");
    hub.expect_upgrade(2);
    // The second one was due without an answer to the first, and was not sent any more.
    assert_eq!(heartbeats(&hub, 1).len(), 1);
    hub.answer_heartbeats(true);
    hub.wait_until("an answered heartbeat on a later link", |transcript| {
        let answered = |entry: &&devhub::Entry| {
            entry.dir == devhub::Dir::Server
                && entry
                    .frame
                    .as_ref()
                    .is_some_and(|frame| frame.topic == "phoenix")
        };
        transcript.entries.iter().filter(answered).count() >= 3
    });
    assert_eq!(hub.online(), 1);
}

#[test]
fn a_link_that_goes_silent_is_noticed_within_two_intervals() {
    let hub = rig::hub().start();
    let mut device = Device::new(&hub);
    device.set("HEARTBEAT_INTERVAL", "1s");
    let agent = device.start();
    hub.expect_heartbeat();
    hub.freeze();
    let frozen = std::time::Instant::now();
    agent.wait_log("the hub did not answer a heartbeat; next attempt in");
    // Two intervals, and what a busy machine adds.
    assert!(frozen.elapsed() < Duration::from_secs(2 + 8));
    hub.expect_join("device");
    hub.expect_join("device");
    assert_eq!(hub.connections(), 2);
}

#[test]
fn a_hub_that_closes_for_silence_is_connected_to_again() {
    let hub = rig::hub().idle_timeout(Duration::from_millis(300)).start();
    let (_device, agent) = launch(&hub);
    agent.wait_log("connection lost: the hub closed with 1002");
    hub.expect_upgrades(2);
}

#[test]
fn every_end_of_a_connection_is_followed_by_a_new_one() {
    let hub = rig::hub().start();
    let (_device, agent) = launch(&hub);
    hub.expect_join("device");
    let codes: [u16; 5] = [1000, 1001, 1011, 1012, 4000];
    for (index, code) in codes.into_iter().enumerate() {
        agent.wait_log_times(JOINED, index + 1);
        hub.close(code);
        agent.wait_log(&format!("connection lost: the hub closed with {code}"));
        hub.expect_note(&format!("device answered the close: {code}"));
        hub.expect_join("device");
    }
    for (index, end) in [Hub::drop_tcp, Hub::cut_tcp].into_iter().enumerate() {
        agent.wait_log_times(JOINED, codes.len() + index + 1);
        end(&hub);
        hub.expect_join("device");
    }
    agent.wait_log_times("connection lost: ", codes.len() + 2);
    agent.wait_log_times(JOINED, codes.len() + 3);
    assert_eq!(hub.connections(), codes.len() + 3);
    // Each join put the delay back to the first one.
    let delays = delays(&agent, codes.len() + 2);
    assert!(
        delays.iter().all(|tenths| (1..=2).contains(tenths)),
        "{delays:?}"
    );
}

#[test]
fn a_device_whose_twin_appears_comes_back() {
    let hub = rig::hub().start();
    let (device, first) = launch(&hub);
    hub.expect_join("device");
    let mut twin = device.env.clone();
    let folder = device.path("twin").display().to_string();
    twin.insert("NERVES_HUB_DATA_PATH".into(), folder);
    // The twin stays away once it has been sent away.
    twin.insert("NERVES_HUB_RECONNECT_MIN".into(), "30m".into());
    twin.insert("NERVES_HUB_RECONNECT_MAX".into(), "30m".into());
    let second = Agent::start(&twin, &[]);
    hub.expect_join("device");
    first.wait_log("connection lost: the hub closed with 1001");
    hub.expect_join("device");
    second.wait_log("connection lost: the hub closed with 1001");
    first.wait_log_times(JOINED, 2);
    assert_eq!(hub.connections(), 3);
}

#[test]
fn a_hub_that_stops_and_starts_again_is_found() {
    let hub = rig::hub().start();
    let (_device, agent) = launch(&hub);
    hub.expect_join("device");
    hub.stop();
    agent.wait_log("connection lost: the hub closed with 1012");
    // Nobody listens: the network is there, so the back-off counts and nothing probes.
    agent.wait_log_times("Connection refused", 2);
    hub.restart();
    hub.expect_join("device");
    hub.kill();
    agent.wait_log_times("connection lost: ", 2);
    hub.restart();
    hub.expect_join("device");
    assert!(agent.logged("waiting for the network").is_empty());
}

#[test]
fn delays_double_up_to_the_limit_and_are_kept() {
    let hub = rig::hub().start();
    hub.set_gate(Gate::unavailable());
    let mut device = Device::new(&hub);
    device.set("RECONNECT_MAX", "800ms");
    let agent = device.start();
    let delays = delays(&agent, 5);
    let bounds = [(1, 2), (2, 3), (4, 6), (8, 12), (8, 12)];
    for (delay, (least, most)) in delays.iter().zip(bounds) {
        assert!((least..=most).contains(delay), "{delays:?}");
    }
    let upgrades = hub.expect_upgrades(6);
    let took = upgrades[5].t - upgrades[0].t;
    let announced: u32 = delays[..5].iter().sum();
    // What was announced was waited for: 0.1 s each for rounding, the rest for the machine.
    let least = Duration::from_millis(u64::from(announced) * 100 * 3 / 4);
    assert!(took >= least, "{took:?} for {delays:?}");
}

#[test]
fn delays_have_jitter_and_sighup_does_not_wait_for_them() {
    let hub = rig::hub().start();
    hub.set_gate(Gate::unavailable());
    let mut device = Device::new(&hub);
    device.set("RECONNECT_MIN", "20m");
    device.set("RECONNECT_MAX", "1h");
    let agent = device.start();
    for count in 1..=3 {
        agent.wait_log_times("; next attempt in ", count);
        agent.signal(Signal::SIGHUP);
    }
    let delays = delays(&agent, 4);
    // SIGHUP starts the list anew: each is the first delay with up to 50 % on top.
    let first = 12_000..=18_000;
    assert!(
        delays.iter().all(|tenths| first.contains(tenths)),
        "{delays:?}"
    );
    assert!(
        delays.iter().any(|tenths| *tenths != delays[0]),
        "{delays:?}"
    );
    hub.set_gate(Gate::Accept);
    agent.signal(Signal::SIGHUP);
    hub.expect_join("device");
}

#[test]
fn sighup_says_goodbye_and_connects_again() {
    let hub = rig::hub().start();
    let (_device, agent) = launch(&hub);
    hub.expect_join("device");
    agent.wait_log(JOINED);
    agent.signal(Signal::SIGHUP);
    hub.expect_note("device closes: 1000");
    hub.expect_join("device");
    assert_eq!(hub.connections(), 2);
    assert!(agent.logged("next attempt in").is_empty());
}

#[test]
fn pings_are_no_trouble() {
    let hub = rig::hub().start();
    let device = beating(&hub);
    let _agent = device.start();
    hub.expect_join("device");
    for _ in 0..2 {
        hub.ping();
        hub.expect_heartbeat();
    }
    assert_eq!(hub.connections(), 1);
}
