//! Hooks: each of them, good and in every way of being bad, on a device that goes through
//! all that there is a hook for.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::rig::{self, Device, JOINED, PATIENCE, demo, public_key};
use crate::stage::{Stage, is_there};
use crate::terminal::expect_gone;

/// Every hook, and an answer that differs from what is done without one.
const HOOKS: [(&str, &str); 14] = [
    ("configure", "echo NERVES_HUB_FIRMWARE_MISC=told"),
    ("firmware-validated", "exit 0"),
    ("firmware-auto-revert-detected", "exit 0"),
    ("reconnect-backoff", "echo 777ms"),
    ("connected", ":"),
    ("disconnected", ":"),
    ("identify", ":"),
    ("archive-available", "echo download"),
    ("archive-ready", ":"),
    ("update-available", "echo ignore because"),
    ("update-progress", ":"),
    ("update-completed", ":"),
    ("update-failed", ":"),
    ("reboot-request", "echo defer 1000 busy"),
];

/// A way of being bad.
struct Fault {
    name: &'static str,
    /// A script in which `GOOD` is the answer.
    text: &'static str,
    is_executable: bool,
    /// The log says so of each hook, but for the exceptions.
    complaint: Option<&'static str>,
    exceptions: &'static [&'static str],
    /// What it says counts.
    counts: bool,
}

const GOOD: Fault = Fault {
    name: "answers",
    text: "GOOD",
    is_executable: true,
    complaint: None,
    exceptions: &[],
    counts: true,
};

/// A device with hooks that are bad in this way.
struct Tour {
    stage: Stage,
    fault: &'static Fault,
}

fn ran(device: &Device) -> PathBuf {
    device.path("ran")
}

fn put(device: &Device, fault: &Fault, name: &str, good: &str) {
    if fault.text == "ABSENT" {
        return;
    }
    let text = fault.text.replace("GOOD", good);
    let ran = ran(device);
    let path = device.hook(name, &format!("echo {name} >> {}\n{text}", ran.display()));
    if !fault.is_executable {
        std::fs::set_permissions(path, PermissionsExt::from_mode(0o644)).expect("mode");
    }
}

fn wait_for(what: &str, is_so: impl Fn() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < end, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

impl Tour {
    fn begin(fault: &'static Fault) -> Self {
        eprintln!("case: {}", fault.name);
        let stage = Stage::prepared(&rig::standin(), |hub, device| {
            device
                .set("ARCHIVES", "ask")
                .set("ARCHIVE_PUBLIC_KEYS", &public_key())
                // Long enough for `disconnected` to have its turn.
                .set("RECONNECT_MIN", "1s")
                .set("RECONNECT_MAX", "1s")
                .set("RECONNECT_JITTER", "0")
                .set("HOOK_TIMEOUT", "1s");
            for (name, good) in HOOKS {
                if name != "update-available" {
                    put(device, fault, name, good);
                }
            }
            // Where the hook counts, the metadata says the opposite.
            if fault.counts {
                device.write_metadata(rig::RUNNING_UUID, "1.0.0", "nerves_fw_validated=0\n");
            }
            let payload = demo(hub).archive_payload();
            hub.behaviour(|behaviour| behaviour.archive = Some(payload));
        });
        Self { stage, fault }
    }

    fn wait_ran(&self, name: &str) {
        if self.fault.is_executable && self.fault.text != "ABSENT" {
            wait_for(name, || {
                let text = std::fs::read_to_string(ran(&self.stage.device)).unwrap_or_default();
                text.lines().any(|line| line == name)
            });
        }
        let is_exempt = self.fault.exceptions.contains(&name);
        if let Some(complaint) = self.fault.complaint.filter(|_| !is_exempt) {
            let start = format!("hook {name}: ");
            wait_for(&format!("{start}… {complaint}"), || {
                let lines = self.stage.agent.logged(complaint);
                let mine = |line: &&String| {
                    line.contains(&start) || line.contains(&format!("hook {name} "))
                };
                lines.iter().any(|line| mine(&line))
            });
        }
    }

    fn start(&self) {
        let join = &self.stage.join.params;
        for name in [
            "configure",
            "firmware-validated",
            "firmware-auto-revert-detected",
            "reconnect-backoff",
            "connected",
        ] {
            self.wait_ran(name);
        }
        let counts = self.fault.counts;
        assert_eq!(join["nerves_fw_misc"] == "told", counts, "{join}");
        assert_eq!(join["meta"]["firmware_validated"], true);
        assert_eq!(join["meta"]["firmware_auto_revert_detected"], counts);
    }

    fn archive(&self) {
        let Stage {
            agent, hub, device, ..
        } = &self.stage;
        self.wait_ran("archive-available");
        if !self.fault.counts {
            agent.wait_log("ignored: nobody has decided about it");
            device.hook("archive-available", "echo download");
        }
        hub.close(1000);
        self.wait_ran("disconnected");
        agent.wait_log_times(JOINED, 2);
        agent.wait_log(&format!("archive {} handled", demo(hub).uuid));
        self.wait_ran("archive-ready");
    }

    fn identify(&self) {
        self.stage.hub.identify();
        self.wait_ran("identify");
    }

    fn update(&self) {
        let Stage {
            agent, hub, device, ..
        } = &self.stage;
        hub.offer(&self.stage.firmware("wrong-key-2.0.2.fw"));
        self.stage.expect_failed();
        self.wait_ran("update-failed");
        put(device, self.fault, "update-available", HOOKS[9].1);
        hub.offer(&demo(hub));
        self.wait_ran("update-available");
        if self.fault.counts {
            assert_eq!(hub.expect_status("ignored")["reason"], "because");
            let _ = std::fs::remove_file(device.path("hooks/update-available"));
            hub.offer(&demo(hub));
        }
        hub.expect_status("completed");
        for name in ["update-progress", "update-completed", "reboot-request"] {
            self.wait_ran(name);
        }
        match self.fault.counts {
            true => agent.wait_log("reboot put off by 1000 s: busy"),
            false => agent.wait_log("reboot command accepted"),
        }
        assert_eq!(device.reboots(), usize::from(!self.fault.counts));
        device.assert_image_of("demo-2.0.0.fw");
    }

    /// Leaves at once, and no hook behind.
    fn end(mut self) {
        assert_eq!(self.stage.agent.stop(), 0);
        self.stage.assert_log_is_clean();
    }

    fn whole(fault: &'static Fault) {
        let tour = Self::begin(fault);
        tour.go();
        tour.end();
    }

    fn go(&self) {
        self.start();
        self.archive();
        self.identify();
        self.update();
    }
}

impl Stage {
    /// Neither secrets nor what steers a terminal.
    fn assert_log_is_clean(&self) {
        let log = self.agent.log();
        for bad in [rig::PRODUCT_SECRET, "\u{1b}", "secret-"] {
            assert!(!log.contains(bad), "{bad:?} is in the log");
        }
    }
}

#[test]
fn answers_count() {
    Tour::whole(&GOOD);
}

#[test]
fn without_any_the_settings_count() {
    static ABSENT: Fault = Fault {
        name: "absent",
        text: "ABSENT",
        counts: false,
        ..GOOD
    };
    let tour = Tour::begin(&ABSENT);
    tour.go();
    let ran = std::fs::read_to_string(ran(&tour.stage.device));
    assert!(ran.is_err(), "{ran:?}");
    tour.end();
}

#[test]
fn garbage_is_no_answer() {
    static GARBAGE: Fault = Fault {
        name: "garbage",
        text: "printf 'apply\\033[2J \\377 nonsense\\n'; printf '\\033[2J' >&2\n\
               case $0 in *firmware-*) exit 7;; esac",
        counts: false,
        ..GOOD
    };
    let tour = Tour::begin(&GARBAGE);
    tour.go();
    for (name, complaint) in [
        ("configure", "line 1 is not NERVES_HUB_NAME=VALUE"),
        ("firmware-validated", "exited with 7, neither 0 nor 1"),
        ("firmware-auto-revert-detected", "exited with 7, neither"),
        ("reconnect-backoff", "is not a duration"),
        ("archive-available", "is no answer to archive-available"),
        ("update-available", "is no answer to update-available"),
        ("reboot-request", "is no answer to reboot-request"),
    ] {
        let lines = tour.stage.agent.logged(&format!("hook {name}: "));
        let has = lines.iter().any(|line| line.contains(complaint));
        assert!(has, "{name}: {lines:?}");
    }
    tour.end();
}

#[test]
fn a_failing_hook_has_no_say() {
    static FAILING: Fault = Fault {
        name: "non-zero",
        text: "(GOOD)\nexit 3",
        complaint: Some("exited with 3"),
        exceptions: &[],
        counts: false,
        ..GOOD
    };
    // The two that say no with 1 know no 3.
    Tour::whole(&FAILING);
}

#[test]
fn a_hanging_hook_is_killed_with_all_it_started() {
    static HANGING: Fault = Fault {
        name: "hangs",
        text: "case $0 in */archive-ready) exit 0;; esac\ntrap '' TERM\nsleep 1000 & wait; GOOD",
        complaint: Some("did not end within 1s and was killed"),
        // It has 30 times as long: below.
        exceptions: &["archive-ready"],
        counts: false,
        ..GOOD
    };
    Tour::whole(&HANGING);
}

#[test]
fn a_hanging_archive_hook_is_killed_after_its_longer_time() {
    let stage = Stage::prepared(&rig::standin(), |hub, device| {
        device
            .set("ARCHIVES", "download")
            .set("ARCHIVE_PUBLIC_KEYS", &public_key())
            .set("HOOK_TIMEOUT", "50ms");
        let pids = device.path("pids").display().to_string();
        let text = format!("trap '' TERM; sleep 1000 & echo $$ $! > {pids}; wait");
        device.hook("archive-ready", &text);
        let payload = demo(hub).archive_payload();
        hub.behaviour(|behaviour| behaviour.archive = Some(payload));
    });
    let complaint = "did not end within 1.5s and was killed";
    stage.agent.wait_log(complaint);
    let lines = stage.agent.logged(complaint);
    assert!(lines[0].contains("hook archive-ready: "), "{lines:?}");
    let uuid = demo(&stage.hub).uuid;
    stage.agent.wait_log(&format!("archive {uuid} handled"));
    let pids = std::fs::read_to_string(stage.device.path("pids")).expect("pids");
    for pid in pids.split_whitespace() {
        expect_gone(pid);
    }
    // Neither the link nor the next update minds.
    stage.assert_takes_the_next();
}

#[test]
fn a_flood_is_no_answer() {
    static FLOOD: Fault = Fault {
        name: "1 MB of output",
        text: "head -c 1000000 /dev/zero | tr '\\0' x; echo; GOOD",
        complaint: Some("printed more than 65536 bytes"),
        counts: false,
        ..GOOD
    };
    Tour::whole(&FLOOD);
}

#[test]
fn a_hook_that_cannot_be_run_says_why() {
    static LOCKED: Fault = Fault {
        name: "not executable",
        is_executable: false,
        complaint: Some("is not executable (chmod +x)"),
        counts: false,
        ..GOOD
    };
    Tour::whole(&LOCKED);
}

#[test]
fn a_hook_deleted_while_it_runs_has_its_say() {
    static DELETED: Fault = Fault {
        name: "deleted while running",
        text: "rm -f \"$0\"\nGOOD",
        ..GOOD
    };
    Tour::whole(&DELETED);
}

#[test]
fn what_a_hook_is_told() {
    let stage = Stage::prepared(&rig::standin(), |_, device| {
        let seen = device.path("seen").display().to_string();
        let text = format!("env > {seen}.env; cat > {seen}.new; mv {seen}.new {seen}; echo ignore");
        device.hook("update-available", &text);
    });
    stage.hub.offer(&demo(&stage.hub));
    stage.hub.expect_status("ignored");
    let read = |name: &str| std::fs::read_to_string(stage.device.path(name)).expect(name);
    let told: Value = serde_json::from_str(&read("seen")).expect("JSON");
    assert_eq!(told["uuid"], demo(&stage.hub).uuid);
    assert_eq!(told["version"], "2.0.0");
    assert!(!told.to_string().contains("http"), "{told}");
    let environment = read("seen.env");
    for line in [
        "NERVES_HUB_HOOK=update-available",
        "NERVES_HUB_DEVICE_IDENTIFIER=device-0001",
        "NERVES_HUB_FIRMWARE_VERSION=1.0.0",
    ] {
        assert!(environment.lines().any(|other| other == line), "{line}");
    }
    assert!(!environment.contains(rig::PRODUCT_SECRET));
}

#[test]
fn a_flood_of_complaints_is_cut_short() {
    let stage = Stage::prepared(&rig::standin(), |_, device| {
        let text = "yes 'complaint complaint' | head -c 1000000 >&2; echo ignore";
        device.hook("update-available", text);
    });
    stage.hub.offer(&demo(&stage.hub));
    stage.hub.expect_status("ignored");
    assert_eq!(stage.agent.logged("complaint complaint").len(), 50);
    stage.agent.wait_log("(says more than is logged)");
}

#[test]
fn hooks_come_and_go_without_a_restart_and_are_set_one_by_one() {
    let stage = Stage::prepared(&rig::standin(), |_, device| {
        let other = device.hook("other", "echo ignore by the other");
        device
            .set("HOOK_UPDATE_AVAILABLE", &other.display().to_string())
            .set("HOOK_IDENTIFY", "none");
        device.hook("update-available", "echo ignore by the first");
        device.hook("identify", "echo seen >&2");
    });
    stage.hub.identify();
    stage.hub.offer(&demo(&stage.hub));
    let status = stage.hub.expect_status("ignored");
    assert_eq!(status["reason"], "by the other");
    std::fs::remove_file(stage.device.path("hooks/other")).expect("hook");
    stage.hub.offer(&demo(&stage.hub));
    stage.expect_installed();
    stage.agent.wait_log("hooks/other does not exist");
    assert_eq!(stage.agent.logged("hook identify"), Vec::<String>::new());
}

#[test]
fn leaving_takes_a_running_hook_along() {
    let mut stage = Stage::prepared(&rig::standin(), |_, device| {
        device.set("HOOK_TIMEOUT", "600s");
        let pid = device.path("pid").display().to_string();
        let text = format!("trap '' TERM; echo $$ > {pid}.new; mv {pid}.new {pid}; sleep 1000");
        device.hook("update-available", &text);
    });
    stage.hub.offer(&demo(&stage.hub));
    let pid = stage.device.path("pid");
    wait_for("the hook", || pid.exists());
    let text = std::fs::read_to_string(&pid).expect("pid");
    stage.agent.signal(Signal::SIGTERM);
    assert_eq!(stage.agent.wait_exit(), 0);
    let pid = text.trim().parse().expect("pid");
    wait_for("its end", || !is_there(pid));
    assert_eq!(stage.statuses(), ["received"]);
}

#[test]
fn a_hook_that_everybody_can_write_is_not_run() {
    let stage = Stage::prepared(&rig::standin(), |_, device| {
        let path = device.hook("update-available", "echo ignore");
        std::fs::set_permissions(path, PermissionsExt::from_mode(0o757)).expect("mode");
    });
    stage.hub.offer(&demo(&stage.hub));
    stage.expect_installed();
    stage.agent.wait_log("can be written by everybody: not run");
}

#[test]
fn an_archive_hook_that_leaving_cut_short_is_run_again() {
    let mut stage = Stage::prepared(&rig::standin(), |hub, device| {
        device
            .set("ARCHIVES", "download")
            .set("ARCHIVE_PUBLIC_KEYS", &public_key())
            .set("HOOK_TIMEOUT", "600s");
        let ran = ran(device).display().to_string();
        device.hook(
            "archive-ready",
            &format!("echo $1 >> {ran}; exec sleep 1000"),
        );
        let payload = demo(hub).archive_payload();
        hub.behaviour(|behaviour| behaviour.archive = Some(payload));
    });
    let lines = |stage: &Stage| {
        let text = std::fs::read_to_string(ran(&stage.device)).unwrap_or_default();
        text.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    wait_for("the hook", || lines(&stage).len() == 1);
    assert_eq!(stage.agent.stop(), 0);
    let path = ran(&stage.device).display().to_string();
    stage
        .device
        .hook("archive-ready", &format!("echo $1 >> {path}"));
    stage.agent = stage.device.start();
    let uuid = demo(&stage.hub).uuid;
    stage.agent.wait_log(&format!("archive {uuid} handled"));
    let lines = lines(&stage);
    assert_eq!(lines.len(), 2);
    assert!(
        lines
            .iter()
            .all(|line| line.ends_with(&format!("{uuid}.fw"))),
        "{lines:?}"
    );
}
