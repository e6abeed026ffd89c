//! Files from the hub's console page, and what may not come of them.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use devhub::Hub;
use serde_json::json;

use crate::rig::{self, Agent, Device, standin};
use crate::stage::Stage;

struct Bench {
    agent: Agent,
    device: Device,
    hub: Hub,
}

impl Bench {
    fn new(settings: &[(&str, &str)]) -> Self {
        Self::prepared(settings, |_| {})
    }

    fn prepared(settings: &[(&str, &str)], prepare: impl FnOnce(&Device)) -> Self {
        let hub = rig::hub().start();
        let mut device = Device::new(&hub);
        device.set("CONSOLE", "1");
        for (name, value) in settings {
            device.set(name, value);
        }
        prepare(&device);
        let agent = device.start();
        hub.expect_join("console");
        Self { agent, device, hub }
    }

    fn folder(&self) -> PathBuf {
        self.device.path("data/uploads")
    }

    fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.folder()).into_iter().flatten();
        let names = entries.map(|entry| entry.expect("entry").file_name());
        let mut names: Vec<String> = names.map(|name| name.to_string_lossy().into()).collect();
        names.sort();
        names
    }

    fn start(&self, name: &str) {
        let payload = json!({ "filename": name });
        self.hub.push("console", "file-data/start", payload);
    }

    fn data(&self, name: &str, bytes: &[u8]) {
        // The page's numbers start over with each of its reads.
        let data = STANDARD.encode(bytes);
        let payload = json!({"filename": name, "chunk": 0, "data": data});
        self.hub.push("console", "file-data", payload);
    }

    fn stop(&self, name: &str) {
        let payload = json!({ "filename": name });
        self.hub.push("console", "file-data/stop", payload);
    }

    fn send(&self, name: &str, bytes: &[u8]) {
        self.start(name);
        for chunk in bytes.chunks(1024) {
            self.data(name, chunk);
        }
        self.stop(name);
    }

    /// The next line of text on the operator's terminal about files.
    fn told(&self) -> String {
        let said = self.hub.expect_push("console", "up", |payload| {
            payload["data"]
                .as_str()
                .is_some_and(|text| text.contains("received"))
        });
        let text = said["data"].as_str().expect("text");
        // A line of its own, whatever the program on the terminal has set.
        text.strip_prefix("\x1b[0m").expect("plain").to_owned()
    }

    fn content(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.folder().join(name)).unwrap_or_default()
    }
}

#[test]
fn a_file_arrives_as_it_was_and_the_page_is_told() {
    for serializer in ["json", "msgpack"] {
        let bench = Bench::new(&[("SERIALIZER", serializer)]);
        let bytes: Vec<u8> = (0..100_000u32).map(|n| (n * 7 % 251) as u8).collect();
        bench.send("config.txt", &bytes);
        let place = bench.folder().join("config.txt");
        assert_eq!(
            bench.told(),
            format!(
                "\r\n[received config.txt, 100000 bytes → {}]\r\n",
                place.display()
            )
        );
        assert!(bench.content("config.txt") == bytes);
        bench.send("empty", b"");
        bench.told();
        assert_eq!(bench.names(), ["config.txt", "empty"]);
    }
}

#[test]
fn files_may_come_mixed() {
    let bench = Bench::new(&[]);
    bench.start("a");
    bench.start("b");
    for n in 0..10 {
        bench.data("a", &[n]);
        bench.data("b", &[100 + n]);
    }
    bench.stop("b");
    bench.stop("a");
    bench.told();
    bench.told();
    assert_eq!(bench.content("a"), (0..10).collect::<Vec<u8>>());
    assert_eq!(bench.content("b"), (100..110).collect::<Vec<u8>>());
}

#[test]
fn no_name_leads_out_of_the_folder() {
    let bench = Bench::new(&[]);
    let long = "x".repeat(300);
    for (name, file) in [
        ("../../etc/passwd", Some("passwd")),
        ("/etc/shadow", Some("shadow")),
        ("..\\..\\autoexec.bat", Some("autoexec.bat")),
        ("a/../../b", Some("b")),
        ("..", None),
        ("", None),
        ("a\0b", None),
        ("\x1b]0;title\x07", None),
        (".upload-1-0", None),
        (long.as_str(), None),
    ] {
        bench.send(name, b"new");
        let told = bench.told();
        assert_eq!(!told.contains("not received"), file.is_some(), "{told:?}");
        assert!(!told.trim().contains(char::is_control), "{told:?}");
        if let Some(file) = file {
            assert_eq!(bench.content(file), b"new");
            std::fs::remove_file(bench.folder().join(file)).expect(file);
        }
    }
    assert_eq!(bench.names(), Vec::<String>::new());
    assert!(!bench.device.path("data/b").exists());
}

#[test]
fn links_planted_in_the_folder_are_not_followed() {
    let bench = Bench::prepared(&[], |device| {
        std::fs::write(device.path("outside"), "precious").expect("outside");
        let folder = device.path("data/uploads");
        std::fs::create_dir_all(&folder).expect("folder");
        let link =
            |name: &str| std::os::unix::fs::symlink(device.path("outside"), folder.join(name));
        link("config.txt").expect("link");
    });
    // After the start, which removes what is left.
    for n in 1..=3 {
        let temporary = bench.folder().join(format!(".upload-{n}-0"));
        std::os::unix::fs::symlink(bench.device.path("outside"), temporary).expect("link");
    }
    bench.send("config.txt", b"new");
    bench.told();
    assert_eq!(bench.content("config.txt"), b"new");
    let found = std::fs::symlink_metadata(bench.folder().join("config.txt"));
    assert!(found.expect("file").is_file());
    let outside = std::fs::read_to_string(bench.device.path("outside"));
    assert_eq!(outside.expect("outside"), "precious");
}

#[test]
fn a_link_in_place_of_the_folder_is_refused_however_it_is_written() {
    for end in ["", "/", "/."] {
        let hub = rig::hub().start();
        let mut device = Device::new(&hub);
        let (outside, folder) = (device.path("outside"), device.path("uploads"));
        std::fs::create_dir(&outside).expect("outside");
        std::os::unix::fs::symlink(&outside, &folder).expect("link");
        let setting = format!("{}{end}", folder.display());
        device.set("CONSOLE", "1").set("UPLOAD_DIR", &setting);
        let agent = device.start();
        hub.expect_join("console");
        let bench = Bench { agent, device, hub };
        bench.send("a", b"new");
        let told = bench.told();
        assert!(told.contains("NERVES_HUB_UPLOAD_DIR"), "{told}");
        assert_eq!(std::fs::read_dir(outside).expect("outside").count(), 0);
    }
}

#[test]
fn what_is_too_large_garbled_or_without_a_beginning_leaves_nothing() {
    let bench = Bench::new(&[("UPLOAD_MAX", "4K")]);
    bench.send("large", &[7; 4097]);
    let told = bench.told();
    assert!(
        told.contains("not received: large: larger than 4096 bytes"),
        "{told}"
    );

    bench.start("garbled");
    bench.hub.push(
        "console",
        "file-data",
        json!({"filename": "garbled", "data": "*"}),
    );
    let told = bench.told();
    assert!(told.contains("base64"), "{told}");
    bench.data("garbled", b"rest");
    bench.stop("garbled");

    bench.data("headless", b"1");
    bench
        .agent
        .wait_log("file \"headless\" ignored: it did not begin");
    bench.data("headless", b"2");
    bench.stop("headless");
    bench.stop("nothing");
    bench
        .agent
        .wait_log("file \"nothing\" ignored: it did not begin");
    assert_eq!(bench.agent.logged("\"headless\" ignored").len(), 1);

    bench.start("endless");
    bench.data("endless", b"1");
    bench.hub.close(1000);
    bench.hub.expect_join("console");
    bench
        .agent
        .wait_log("file \"endless\" not received: the console is gone");

    bench.send("fits", &[7; 4096]);
    assert!(!bench.told().contains("not received"));
    assert_eq!(bench.names(), ["fits"]);
}

#[test]
fn a_disk_that_takes_nothing_is_told_and_the_agent_is_well() {
    let bench = Bench::new(&[("UPLOAD_DIR", "/proc/uploads")]);
    bench.send("a", b"new");
    let told = bench.told();
    assert!(told.contains("cannot write into /proc/uploads"), "{told}");
    bench
        .hub
        .expect_none("console", "up", Duration::from_millis(100), |_| true);
    bench.hub.close(1000);
    bench.hub.expect_join("console");
}

/// Unmounted when dropped.
struct SmallDisk(PathBuf);

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_disk_that_is_full_is_told_and_room_is_left_for_others() {
    let mut disk = None;
    let bench = Bench::prepared(&[], |device| {
        let folder = device.path("data/uploads");
        std::fs::create_dir_all(&folder).expect("folder");
        let mut mount = Command::new("mount");
        mount
            .args(["-t", "tmpfs", "-o", "size=1m", "none"])
            .arg(&folder);
        if mount.output().is_ok_and(|output| output.status.success()) {
            disk = Some(SmallDisk(folder));
        }
    });
    if disk.is_none() {
        return eprintln!(
            "SKIPPED: no file system may be mounted here; small disks were not tried"
        );
    }
    bench.send("large", &[7; 1_000_000]);
    let told = bench.told();
    assert!(told.contains("not received: large: no room"), "{told}");
    assert_eq!(bench.names(), Vec::<String>::new());
    bench.send("small", &[7; 300_000]);
    assert!(!bench.told().contains("not received"));
    assert_eq!(bench.names(), ["small"]);
    // Before the folder that it is in.
    drop(disk);
}

#[test]
fn what_a_killed_agent_left_is_removed_at_the_start() {
    let mut bench = Bench::new(&[]);
    bench.start("a");
    bench.data("a", b"half");
    bench.send("b", b"whole");
    bench.told();
    assert_eq!(bench.names(), [".upload-1-0", "b"]);
    bench.agent.signal(nix::sys::signal::Signal::SIGKILL);
    bench.agent.wait_exit();
    bench.agent = bench.device.start();
    bench.hub.expect_join("console");
    assert_eq!(bench.names(), ["b"]);
}

#[test]
fn leaving_drops_what_has_no_end() {
    let mut bench = Bench::new(&[]);
    bench.start("a");
    bench.data("a", b"half");
    bench.send("b", b"whole");
    bench.told();
    assert_eq!(bench.agent.stop(), 0);
    assert_eq!(bench.names(), ["b"]);
}

#[test]
fn no_file_delays_an_update() {
    let stage = Stage::new(
        &standin(),
        &[
            ("CONSOLE", "1"),
            ("HEARTBEAT_INTERVAL", "1s"),
            ("FWUP_TASK", "switch"),
        ],
    );
    stage.hub.expect_join("console");
    let (forged, firmware) = stage.forge("forged.fw", 4096);
    let payload = json!({"filename": "big"});
    stage
        .hub
        .push("console", "file-data/start", payload.clone());
    stage.hub.offer(&firmware);
    let data = STANDARD.encode([7; 1024]);
    for n in 0..8 * 1024 {
        let chunk = json!({"filename": "big", "chunk": n, "data": data});
        stage.hub.push("console", "file-data", chunk);
    }
    stage.hub.push("console", "file-data/stop", payload);
    stage.expect_installed();
    forged.assert_on(&stage.device);
    let said = stage.hub.expect_push("console", "up", |_| true);
    let text = said["data"].as_str().expect("text");
    assert!(text.contains("[received big, 8388608 bytes"), "{text}");
    assert_eq!(stage.hub.connections(), 1);
}
