//! The socket itself: whose it is, how it comes and goes, and what it costs.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::process::Command;

use devhub::Hub;
use nix::sys::signal::Signal;
use serde_json::json;

use super::peer::Peer;
use super::{OPEN, code, done, status};
use crate::rig::{self, Agent, Device, IDENTIFIER, JOINED, PATIENCE};

/// A device that logs in as another one.
fn second(hub: &Hub) -> Device {
    let mut device = Device::new(hub);
    device.set("IDENTIFIER", "device-0002");
    device
}

#[test]
fn the_socket_belongs_to_whom_the_settings_say() {
    let hub = rig::hub().start();
    let mut device = Device::new(&hub);
    device.set("CONTROL_MODE", "0600");
    let agent = device.start();
    agent.wait_log(JOINED);
    agent.wait_log(OPEN);
    let made = std::fs::metadata(device.path("control.sock")).expect("socket");
    assert_eq!(made.permissions().mode() & 0o777, 0o600);
    if !nix::unistd::getuid().is_root() {
        return eprintln!("SKIPPED: only root can be somebody else");
    }
    const NOBODY: u32 = 65534;
    let open = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(device.dir.path(), open).expect("folder");
    let program = device.path("agent");
    std::fs::copy(env!("CARGO_BIN_EXE_nerveshub-agent"), &program).expect("program");
    let as_nobody = |device: &Device| {
        let mut command = Command::new(&program);
        command.arg("status").env_clear().envs(&device.env);
        command.uid(NOBODY).gid(NOBODY);
        command.output().expect("command")
    };
    let refused = as_nobody(&device);
    assert_eq!(refused.status.code(), Some(77));
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(said.contains("NERVES_HUB_CONTROL_GROUP"), "{said}");
    drop(agent);
    device.set("CONTROL_MODE", "0660");
    device.set("CONTROL_GROUP", &NOBODY.to_string());
    let agent = device.start();
    agent.wait_log(JOINED);
    agent.wait_log(OPEN);
    let made = std::fs::metadata(device.path("control.sock")).expect("socket");
    assert_eq!((made.uid(), made.gid()), (0, NOBODY));
    assert_eq!(as_nobody(&device).status.code(), Some(0));
    agent.wait_log(&format!("uid {NOBODY}, pid "));
}

#[test]
fn what_a_killed_agent_left_behind_is_no_obstacle() {
    let hub = rig::hub().start();
    let (device, mut agent) = rig::launch(&hub);
    agent.wait_log(JOINED);
    agent.wait_log(OPEN);
    agent.signal(Signal::SIGKILL);
    agent.wait_exit();
    assert!(device.path("control.sock").exists());
    assert_eq!(code(&device, &["status"]), 69);
    let mut agent = device.start();
    agent.wait_log(JOINED);
    agent.wait_log(OPEN);
    assert_eq!(status(&device)["identifier"], IDENTIFIER);
    let mut peer = Peer::connect(&device);
    assert_eq!(agent.stop(), 0);
    assert!(!device.path("control.sock").exists());
    assert!(peer.is_over());
}

#[test]
fn two_agents_side_by_side_each_have_their_own() {
    let hub = rig::hub().start();
    let (one, two) = (Device::new(&hub), second(&hub));
    let (first_agent, second_agent) = (one.start(), two.start());
    for agent in [&first_agent, &second_agent] {
        agent.wait_log(JOINED);
        agent.wait_log(OPEN);
    }
    assert_eq!(status(&one)["identifier"], IDENTIFIER);
    assert_eq!(status(&two)["identifier"], "device-0002");
    done(&one, &["alarm", "set", "Mine"]);
    assert_eq!(done(&two, &["alarm", "list"]), "");
    // A third one on the first one's socket goes without, and takes nothing away.
    let mut third = second(&hub);
    third.set("IDENTIFIER", "device-0003");
    let path = one.path("control.sock").display().to_string();
    third.set("CONTROL_SOCKET", &path);
    let mut agent: Agent = third.start();
    agent.wait_log("another agent is using it: give each its own; going on without it");
    agent.wait_log(JOINED);
    assert_eq!(agent.stop(), 0);
    assert_eq!(status(&one)["identifier"], IDENTIFIER);
}

#[test]
fn clients_that_wait_cost_no_wake_ups() {
    let hub = rig::hub().start();
    let mut device = Device::new(&hub);
    device.set("HEARTBEAT_INTERVAL", "100ms");
    let agent = device.start();
    agent.wait_log(JOINED);
    agent.wait_log(OPEN);
    let mut peer = Peer::connect(&device);
    peer.ask("subscribe", json!({"events": ["identify"]}));
    let switches = || {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", agent.pid())).expect("tasks");
        let texts = tasks.map(|task| {
            std::fs::read_to_string(task.expect("task").path().join("status")).expect("status")
        });
        let control = texts
            .into_iter()
            .find(|text| text.starts_with("Name:\tcontrol\n"));
        let text = control.expect("the thread");
        let line = text
            .lines()
            .find(|line| line.starts_with("voluntary"))
            .expect("field");
        line.to_owned()
    };
    // The answer has gone out before the thread is back in its sleep.
    hub.skip_seen();
    hub.expect_heartbeat();
    hub.expect_heartbeat();
    let before = switches();
    for _ in 0..10 {
        hub.expect_heartbeat();
    }
    assert_eq!(switches(), before);
    hub.identify();
    assert_eq!(peer.event()["event"], "identify");
    // Counted once it sleeps again.
    let deadline = std::time::Instant::now() + PATIENCE;
    while switches() == before {
        assert!(std::time::Instant::now() < deadline, "nothing is counted");
        std::thread::yield_now();
    }
}
