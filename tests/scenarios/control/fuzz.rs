//! Clients that mean no good, or know no better: the agent's memory stays as it is, its
//! heart beats on, and the next client is served.

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use serde_json::json;

use super::OPEN;
use super::peer::Peer;
use crate::memory::forget_peak;
use crate::rig::{self, Agent, Device, JOINED, PATIENCE};

/// What all clients together may cost while they are there, KiB: 16 of them with a line of
/// 64 KiB on its way in and as much on its way out, and such a line as a value.
const ALLOWED: u64 = 4 * 1024;
/// What may be left when they are gone, KiB.
const LEFT: u64 = 1536;

struct Bench {
    hub: devhub::Hub,
    device: Device,
    agent: Agent,
    idle: u64,
    /// Of that, what is not pages of files: code comes with its first use, and goes.
    own: u64,
}

impl Bench {
    fn new() -> Self {
        let hub = rig::hub().start();
        let mut device = Device::new(&hub);
        device.set("HEARTBEAT_INTERVAL", "200ms").set("LOG", "info");
        let agent = device.start();
        agent.wait_log(JOINED);
        agent.wait_log(OPEN);
        // The first of everything is paid for.
        Peer::connect(&device).ask("status", json!({}));
        let idle = forget_peak(&agent);
        let own = agent.memory("RssAnon");
        Self {
            hub,
            device,
            agent,
            idle,
            own,
        }
    }

    fn stream(&self) -> UnixStream {
        let stream = UnixStream::connect(self.device.path("control.sock")).expect("socket");
        stream.set_write_timeout(Some(PATIENCE)).expect("timeout");
        stream
    }

    /// A client that is let in, as soon as there is room for one.
    fn guest(&self) -> Peer {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let mut peer = Peer::stranger(&self.device);
            if peer.read().get("hello").is_some() {
                return peer;
            }
            assert!(Instant::now() < deadline, "no room");
        }
    }

    fn assert_well(&self) {
        let peak = self.agent.memory("VmHWM");
        assert!(
            peak <= self.idle + ALLOWED,
            "idle {} KiB, peak {peak} KiB",
            self.idle
        );
        let mut peer = self.guest();
        assert_eq!(peer.ask("connected", json!({}))["result"]["device"], true);
        let now = self.agent.memory("RssAnon");
        assert!(
            now <= self.own + LEFT,
            "idle {} KiB, now {now} KiB",
            self.own
        );
        self.hub.skip_seen();
        self.hub.expect_heartbeat();
        self.hub.expect_heartbeat();
        assert_eq!(self.hub.connections(), 1);
        assert!(self.agent.logged("panicked").is_empty());
    }
}

/// Reproducible noise.
struct Noise(u64);

impl Noise {
    fn byte(&mut self) -> u8 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 56) as u8
    }

    fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.byte()).collect()
    }
}

#[test]
fn random_bytes_are_answered_or_refused() {
    let bench = Bench::new();
    let mut noise = Noise(7);
    for round in 0..200 {
        let mut stream = bench.stream();
        let mut bytes = noise.bytes(1 + round * 37);
        if round % 2 == 0 {
            // Pieces of the protocol in wrong places.
            let words = [
                &b"{\"method\":"[..],
                b"\"status\"",
                b"}\n",
                b"{\"answer\":1}\n",
                b"[[[",
                b"\n",
            ];
            for _ in 0..20 {
                let word = words[usize::from(noise.byte()) % words.len()];
                let at = usize::from(noise.byte()) % bytes.len();
                bytes.splice(at..at, word.iter().copied());
            }
        }
        // It may be shown the door before it has said all.
        let _ = stream.write_all(&bytes);
    }
    bench.assert_well();
}

#[test]
fn giant_lines_are_cut_short() {
    let bench = Bench::new();
    let part = vec![b'['; 64 * 1024];
    for _ in 0..20 {
        let mut stream = bench.stream();
        for _ in 0..64 {
            if stream.write_all(&part).is_err() {
                break;
            }
        }
    }
    // All at the same time, each one byte short of the end.
    let streams: Vec<UnixStream> = (0..16).map(|_| bench.guest().stream.into_inner()).collect();
    for mut stream in &streams {
        stream.write_all(&part).expect("taken");
    }
    let deadline = Instant::now() + PATIENCE;
    while bench.agent.memory("VmRSS") < bench.idle + 512 {
        assert!(Instant::now() < deadline, "the lines are nowhere");
        std::thread::yield_now();
    }
    drop(streams);
    bench.assert_well();
}

#[test]
fn a_thousand_connects_are_a_thousand_connects() {
    let bench = Bench::new();
    for _ in 0..1000 {
        drop(bench.stream());
    }
    bench.assert_well();
    // With all places taken.
    let guests: Vec<Peer> = (0..16).map(|_| bench.guest()).collect();
    for _ in 0..1000 {
        let refused = Peer::stranger(&bench.device).read();
        assert_eq!(refused["error"]["code"], "busy", "{refused}");
    }
    let fds = std::fs::read_dir(format!("/proc/{}/fd", bench.agent.pid())).expect("descriptors");
    assert!(fds.count() < 60, "descriptors are left open");
    drop(guests);
    bench.assert_well();
}

#[test]
fn slow_readers_are_dropped_and_cost_nothing() {
    let bench = Bench::new();
    let mut slow: Vec<Peer> = (0..15).map(|_| bench.guest()).collect();
    let request = json!({"method": "status"});
    for peer in &mut slow {
        peer.ask("subscribe", json!({}));
        peer.stream
            .get_ref()
            .set_write_timeout(Some(Duration::from_millis(200)))
            .expect("timeout");
        let line = format!("{request}\n").repeat(1000);
        // They ask and never read: at some point nothing is taken from them either.
        let _ = peer.stream.get_mut().write_all(line.as_bytes());
    }
    let mut brisk = bench.guest();
    let deadline = Instant::now() + PATIENCE;
    while bench.agent.logged("does not read: dropped").len() < slow.len() {
        // Something happens that they all want to hear of.
        let set = json!({"name": "Noise", "description": deadline.saturating_duration_since(Instant::now()).as_nanos().to_string()});
        brisk.ask("alarm-set", set);
        assert!(Instant::now() < deadline, "slow readers are still there");
    }
    drop(slow);
    drop(brisk);
    bench.assert_well();
}
