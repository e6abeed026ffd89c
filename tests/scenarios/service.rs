//! What a supervisor sees: signs of life, a pid file, a log that fits; and SIGHUP.

use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::rig::{self, Device, JOINED, PATIENCE};
use crate::stage::Stage;

/// A supervisor's socket, and what was said on it.
struct Supervisor(UnixDatagram);

impl Supervisor {
    fn new(device: &mut Device) -> Self {
        let path = device.path("notify");
        let socket = UnixDatagram::bind(&path).expect("socket");
        socket.set_read_timeout(Some(PATIENCE)).expect("timeout");
        let path = path.display().to_string();
        device.env.insert("NOTIFY_SOCKET".to_owned(), path);
        Self(socket)
    }

    fn wait(&self, text: &str) {
        let mut buffer = [0; 4096];
        loop {
            let length = self.0.recv(&mut buffer).expect(text);
            if String::from_utf8_lossy(&buffer[..length]).contains(text) {
                return;
            }
        }
    }
}

fn supervised(watchdog_us: &str) -> (Stage, Supervisor) {
    let mut supervisor = None;
    let stage = Stage::prepared(&rig::standin(), |_, device| {
        supervisor = Some(Supervisor::new(device));
        let variable = ("WATCHDOG_USEC".to_owned(), watchdog_us.to_owned());
        device.env.extend([variable]);
    });
    (stage, supervisor.expect("prepared"))
}

#[test]
fn a_supervisor_hears_that_it_is_ready_what_it_does_and_that_it_lives() {
    let (mut stage, supervisor) = supervised("200000");
    supervisor.wait("READY=1");
    supervisor.wait("STATUS=hub: joined; update: none");
    for _ in 0..3 {
        supervisor.wait("WATCHDOG=1");
    }
    assert_eq!(stage.agent.stop(), 0);
    supervisor.wait("STOPPING=1");
}

#[test]
fn a_dispatcher_that_stands_still_shows_no_life() {
    let (stage, supervisor) = supervised("200000");
    supervisor.wait("STATUS=hub: joined");
    stage.agent.signal(Signal::SIGSTOP);
    // What it said before.
    let quiet = Duration::from_millis(500);
    supervisor.0.set_read_timeout(Some(quiet)).expect("timeout");
    let mut buffer = [0; 4096];
    let mut left = 0;
    while supervisor.0.recv(&mut buffer).is_ok() {
        left += 1;
        assert!(left < 10, "signs of life of a process that is stopped");
    }
    stage.agent.signal(Signal::SIGCONT);
    supervisor
        .0
        .set_read_timeout(Some(PATIENCE))
        .expect("timeout");
    supervisor.wait("WATCHDOG=1");
}

#[test]
fn the_pid_file_is_there_while_the_agent_is() {
    let mut stage = Stage::prepared(&rig::standin(), |_, device| {
        let path = device.path("agent.pid").display().to_string();
        device.set("PID_FILE", &path);
    });
    let path = stage.device.path("agent.pid");
    let text = std::fs::read_to_string(&path).expect("pid file");
    assert_eq!(text, format!("{}\n", stage.agent.pid()));
    assert_eq!(stage.agent.stop(), 0);
    assert!(!path.exists());
}

#[test]
fn an_agent_whose_data_folder_is_in_use_goes_on_when_it_is_free() {
    let mut stage = Stage::new(&rig::standin(), &[]);
    let owner = format!("another agent (process {}) is using", stage.agent.pid());
    let mut successor = stage.device.start();
    successor.wait_log(&owner);
    successor.wait_log("a NERVES_HUB_DATA_PATH of its own; waiting");
    assert_eq!(stage.agent.stop(), 0);
    successor.wait_log(JOINED);
    // A process that is killed leaves nothing behind.
    successor.signal(Signal::SIGKILL);
    assert_eq!(successor.wait_exit(), 128 + 9);
    let next = stage.device.start();
    next.wait_log(JOINED);
    assert!(next.logged("another agent").is_empty());
}

#[test]
fn an_agent_whose_data_folder_stays_in_use_gives_up() {
    let stage = Stage::new(&rig::standin(), &[]);
    let mut second = stage.device.start();
    second.wait_log("a NERVES_HUB_DATA_PATH of its own; waiting");
    assert_eq!(second.wait_exit(), 75);
    second.wait_log("of its own; given up");
    assert_eq!(stage.hub.connections(), 1);
}

#[test]
fn under_the_journal_lines_have_priorities_and_no_times() {
    let hub = rig::hub().start();
    let device = Device::new(&hub);
    let agent = rig::Agent::start_in_journal(&device.env);
    agent.wait_log(JOINED);
    for line in agent.log().lines() {
        assert!(
            line.starts_with(['<']) && line[2..].starts_with('>'),
            "{line}"
        );
    }
    assert!(agent.logged(JOINED)[0].starts_with("<6>device channel"));
}

#[test]
fn another_s_journal_does_not_count() {
    let stage = Stage::prepared(&rig::standin(), |_, device| {
        let variable = ("JOURNAL_STREAM".to_owned(), "8:1".to_owned());
        device.env.extend([variable]);
    });
    stage.agent.wait_log(JOINED);
    let line = &stage.agent.logged(JOINED)[0];
    assert!(line.contains("Z INFO  device channel"), "{line}");
}

#[test]
fn a_log_target_that_is_not_there_is_no_reason_not_to_start() {
    // No machine that runs tests lets them write to the kernel's log, or it has none.
    if std::fs::OpenOptions::new()
        .write(true)
        .open("/dev/kmsg")
        .is_ok()
    {
        return eprintln!("SKIPPED: /dev/kmsg can be written to");
    }
    let stage = Stage::new(&rig::standin(), &[("LOG_TARGET", "kmsg")]);
    stage.agent.wait_log("NERVES_HUB_LOG_TARGET: /dev/kmsg: ");
    stage.agent.wait_log(JOINED);
}

#[test]
fn a_secret_in_a_file_is_read_again_on_sighup() {
    let stage = Stage::prepared(&rig::standin(), |_, device| {
        let path = device.path("secret");
        std::fs::write(&path, "d3Jvbmc=\n").expect("secret");
        device.unset("PRODUCT_SECRET");
        device.set("PRODUCT_SECRET_FILE", &path.display().to_string());
        let agent = device.start();
        agent.wait_log("HTTP 401");
        std::fs::write(&path, format!("{}\n", rig::PRODUCT_SECRET)).expect("secret");
        agent.signal(Signal::SIGHUP);
        agent.wait_log(JOINED);
        // One that is broken changes nothing.
        std::fs::write(&path, "").expect("secret");
        agent.signal(Signal::SIGHUP);
        agent.wait_log("keeping the credentials in use");
        agent.wait_log_times(JOINED, 2);
        assert!(!agent.log().contains(rig::PRODUCT_SECRET));
        std::fs::write(&path, rig::PRODUCT_SECRET).expect("secret");
    });
    stage.agent.wait_log(JOINED);
}
