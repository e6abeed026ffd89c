//! Extensions: attached, detached and attached again; the integrator's own; and what happens
//! to the rest when one misbehaves: nothing.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use devhub::Hub;
use serde_json::{Value, json};

use crate::rig::{self, Agent, Device, installers};
use crate::stage::Stage;

const MISCHIEF: &str = "mischief";
/// More than all queues of the agent hold together.
const STORM: usize = 1000;

/// A hub that takes these extensions, too.
fn taking(names: &[&str]) -> Hub {
    let hub = rig::hub().start();
    hub.behaviour(|behaviour| {
        behaviour.extensions = names.iter().map(|name| (*name).to_owned()).collect();
    });
    hub
}

fn start(hub: &Hub, settings: &[(&str, &str)]) -> (Device, Agent) {
    let mut device = Device::new(hub);
    device.set("EXTENSIONS", MISCHIEF);
    for (name, value) in settings {
        device.set(name, value);
    }
    let agent = device.start();
    (device, agent)
}

fn expect_attached(hub: &Hub, name: &str) {
    hub.expect_push("extensions", &format!("{name}:attached"), |_| true);
}

fn tell(hub: &Hub, event: &str) {
    hub.push(
        "extensions",
        &format!("{MISCHIEF}:{event}"),
        json!({"n": 1}),
    );
}

fn expect_echo(hub: &Hub) {
    tell(hub, "echo");
    hub.expect_push("extensions", "mischief:echo", |payload| payload["n"] == 1);
}

fn expect_error(hub: &Hub, reason: &str) {
    let error = hub.expect_push("extensions", "mischief:error", |_| true);
    assert!(
        error["reason"].as_str().expect("reason").contains(reason),
        "{error}"
    );
}

fn attach(hub: &Hub, what: Value) {
    hub.push("extensions", "attach", json!({ "extensions": what }));
}

fn detach(hub: &Hub, what: Value) {
    hub.push("extensions", "detach", json!({ "extensions": what }));
}

#[test]
fn one_comes_back_after_every_kind_of_loss() {
    let hub = taking(&[MISCHIEF]);
    let (_device, agent) = start(&hub, &[]);
    expect_attached(&hub, MISCHIEF);
    expect_echo(&hub);
    type Loss = fn(&Hub);
    let losses: [Loss; 3] = [
        Hub::drop_tcp,
        |hub| hub.close(1001),
        |hub| hub.crash_channel("extensions"),
    ];
    for lose in losses {
        lose(&hub);
        hub.expect_join("extensions");
        expect_attached(&hub, MISCHIEF);
        expect_echo(&hub);
    }
    assert_eq!(agent.logged("WorkerExited").len(), 0);
}

#[test]
fn a_storm_of_attach_and_detach_ends_as_the_last_word_says() {
    let hub = taking(&[MISCHIEF]);
    let (_device, agent) = start(&hub, &[]);
    expect_attached(&hub, MISCHIEF);
    for _ in 0..STORM {
        detach(&hub, json!("all"));
        attach(&hub, json!(["mischief"]));
    }
    for _ in 0..STORM {
        hub.expect_push("extensions", "mischief:detached", |_| true);
        expect_attached(&hub, MISCHIEF);
    }
    // What comes while the last thread ends is lost; the next one is not far.
    let deadline = Instant::now() + rig::PATIENCE;
    let echoes = |hub: &Hub| {
        let transcript = hub.transcript();
        let of = |entry: &devhub::Entry| entry.from_device("extensions", "mischief:echo").is_some();
        transcript.entries.iter().filter(|entry| of(entry)).count()
    };
    while echoes(&hub) == 0 {
        assert!(Instant::now() < deadline, "no echo");
        tell(&hub, "echo");
        std::thread::sleep(Duration::from_millis(20));
    }
    detach(&hub, json!("mischief"));
    hub.expect_push("extensions", "mischief:detached", |_| true);
    let before = echoes(&hub);
    tell(&hub, "echo");
    hub.push("device", "extensions:get", json!({}));
    detach(&hub, json!("mischief"));
    hub.expect_push("extensions", "mischief:detached", |_| true);
    assert!(echoes(&hub) <= before + 1);
    assert_eq!(hub.connections(), 1);
    assert_eq!(agent.logged("connection lost").len(), 0);
}

#[test]
fn one_the_hub_does_not_want_stays_quiet() {
    let hub = taking(&[]);
    let (_device, agent) = start(&hub, &[]);
    let join = hub.expect_join("extensions");
    assert_eq!(join.params, json!({"mischief": "0.0.1"}));
    tell(&hub, "echo");
    tell(&hub, "panic");
    // Later than that, so that has been dealt with.
    attach(&hub, json!("nonsense"));
    hub.expect_push("extensions", "nonsense:error", |_| true);
    agent.wait_log("is not attached");
    let transcript = hub.transcript();
    let mut said = transcript.entries.iter();
    assert!(!said.any(|entry| entry.from_device("extensions", "mischief:echo").is_some()));
}

/// An update is halfway while it happens; nobody but the extension notices.
#[test]
fn misbehaving_costs_neither_the_link_nor_an_update() {
    for (what, reason) in [
        ("panic", "on purpose"),
        ("fail", "on purpose"),
        ("hang", "it hangs for 0.3 s"),
        ("flood", "more than 20 things a second"),
    ] {
        let hub = taking(&[MISCHIEF]);
        let installer = installers().pop().expect("an installer");
        let stage = Stage::on(hub, &installer, |_, device| {
            device.set("EXTENSIONS", MISCHIEF);
            device.set("EXTENSION_TIMEOUT", "300ms");
            device.set("FWUP_TASK", "switch");
            device.set("HEARTBEAT_INTERVAL", "200ms");
        });
        expect_attached(&stage.hub, MISCHIEF);
        let (forged, firmware) = stage.forge("forged.fw", 512);
        stage.offer_halting_at(200_000, &firmware);
        tell(&stage.hub, what);
        expect_error(&stage.hub, reason);
        stage.hub.skip_seen();
        for _ in 0..3 {
            stage.hub.expect_heartbeat();
        }
        attach(&stage.hub, json!("all"));
        match what {
            // Its thread will never end.
            "hang" => expect_error(&stage.hub, "its last run has not ended"),
            _ => {
                expect_attached(&stage.hub, MISCHIEF);
                expect_echo(&stage.hub);
            }
        }
        stage.hub.store().release();
        stage.expect_installed();
        assert_eq!(
            stage.statuses(),
            ["received", "started", "completed"],
            "{what}"
        );
        forged.assert_on(&stage.device);
        assert_eq!(stage.hub.connections(), 1, "{what}");
    }
}

/// Puts one of the examples where extensions are looked for.
fn put_example(device: &Device, name: &str) {
    let folder = device.path("extensions");
    std::fs::create_dir_all(&folder).expect("folder");
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("etc/examples/extensions");
    std::fs::copy(example.join(name), folder.join(name)).expect("example");
    let mode = PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(folder.join(name), mode).expect("mode");
}

#[test]
fn the_examples_work() {
    let hub = taking(&["door", "uptime"]);
    let mut device = Device::new(&hub);
    put_example(&device, "door.sh");
    put_example(&device, "uptime.py");
    let door = device.path("door-open");
    device
        .env
        .insert("DOOR_FILE".into(), door.display().to_string());
    let agent = device.start();
    let join = hub.expect_join("extensions");
    assert_eq!(join.params, json!({"door": "0.0.1", "uptime": "0.0.1"}));
    let report = |name: &str| hub.expect_push("extensions", &format!("{name}:report"), |_| true);
    assert_eq!(report("door"), json!({"open": false}));
    std::fs::write(&door, "").expect("door");
    hub.push("extensions", "door:request", json!({}));
    assert_eq!(report("door"), json!({"open": true}));
    hub.push("extensions", "uptime:request", json!({}));
    let seconds = report("uptime")["seconds"].as_f64().expect("seconds");
    let own = std::fs::read_to_string("/proc/uptime").expect("uptime");
    let own: f64 = own
        .split(' ')
        .next()
        .expect("number")
        .parse()
        .expect("number");
    assert!((own - seconds).abs() < 60.0, "{seconds} and {own}");
    hub.push("extensions", "door:nonsense", json!({}));
    agent.wait_log("extension door: unknown: ");
    hub.push("extensions", "uptime:nonsense", json!({}));
    agent.wait_log("extension uptime: unknown event nonsense");
    let children = agent.children();
    assert_eq!(children.len(), 2);
    // Killed by somebody: started again, and attached as before.
    for pid in &children {
        let pid = nix::unistd::Pid::from_raw(pid.parse().expect("pid"));
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).expect("kill");
    }
    assert_eq!(report("door"), json!({"open": true}));
    detach(&hub, json!("all"));
    for name in ["door", "uptime"] {
        hub.expect_push("extensions", &format!("{name}:detached"), |_| true);
    }
    crate::terminal::expect_no_children(&agent);
}
