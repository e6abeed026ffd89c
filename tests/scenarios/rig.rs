//! The bench every scenario runs on: a folder, a hub, and the real agent as a process.
//!
//! Waits have deadlines and print the agent's log when they fail; nothing sleeps.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, OnceLock};
use std::time::{Duration, Instant};

use devhub::{Builder, Firmware, Hub};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

pub const PRODUCT_KEY: &str = "nhp_test/key+1";
pub const PRODUCT_SECRET: &str = "c2VjcmV0/+secret=";
pub const IDENTIFIER: &str = "device-0001";
/// The firmware the device runs: what `demo-1.0.0.fw` would have put there.
pub const RUNNING_UUID: &str = "d8d9516f-2944-5ccd-9e4b-1cf639af0093";
/// Logged once per successful join.
pub const JOINED: &str = "device channel joined as ";
/// How long an event may take on a slow machine.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A file of the test data.
pub fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data")
        .join(name)
}

pub fn public_key() -> String {
    let key = std::fs::read_to_string(data("fw/signing-key.pub")).expect("key");
    key.trim().to_owned()
}

/// A hub with this bench's product, and a fast clockwork.
pub fn hub() -> Builder {
    Hub::builder()
        .product(PRODUCT_KEY, PRODUCT_SECRET)
        .deadline(PATIENCE)
}

/// What applies firmware in a scenario.
#[derive(Clone, Debug)]
pub struct Installer {
    pub name: &'static str,
    pub path: PathBuf,
}

/// The stand-in, built once.
pub fn standin() -> Installer {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let path = BUILT.get_or_init(|| {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let built = Command::new(cargo)
            .args(["build", "--quiet", "-p", "fwup-standin"])
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .status()
            .expect("cargo");
        assert!(built.success(), "the stand-in for fwup does not build");
        let agent = Path::new(env!("CARGO_BIN_EXE_nerveshub-agent"));
        agent.with_file_name("fwup-standin")
    });
    Installer {
        name: "stand-in",
        path: path.clone(),
    }
}

/// The real fwup, when it is on PATH.
pub fn real_fwup() -> Option<Installer> {
    let path = std::env::var_os("PATH")?;
    let found = std::env::split_paths(&path)
        .map(|folder| folder.join("fwup"))
        .find(|file| file.is_file());
    if found.is_none() {
        eprintln!("SKIPPED: no fwup on PATH; this scenario ran with the stand-in only");
    }
    found.map(|path| Installer { name: "fwup", path })
}

/// The stand-in, and the real fwup where there is one.
pub fn installers() -> Vec<Installer> {
    [Some(standin()), real_fwup()]
        .into_iter()
        .flatten()
        .collect()
}

/// One device: its folder, settings and key-value file.
pub struct Device {
    pub dir: tempfile::TempDir,
    pub env: BTreeMap<String, String>,
}

impl Device {
    /// A device that talks to `hub` with the product's shared secret and short delays.
    pub fn new(hub: &Hub) -> Self {
        let dir = tempfile::tempdir().expect("folder");
        let mut device = Self {
            dir,
            env: BTreeMap::new(),
        };
        device.write_metadata(RUNNING_UUID, "1.0.0", "");
        let installer = standin();
        let reboot = format!("echo reboot >> {}", device.path("rebooted").display());
        let metadata = format!("file:{}", device.path("metadata").display());
        let data_path = device.path("data").display().to_string();
        let control = device.path("control.sock").display().to_string();
        let hooks = device.path("hooks").display().to_string();
        let extensions = device.path("extensions").display().to_string();
        for (name, value) in [
            ("HOST", hub.url().as_str()),
            ("ALLOW_INSECURE", "1"),
            ("PRODUCT_KEY", PRODUCT_KEY),
            ("PRODUCT_SECRET", PRODUCT_SECRET),
            ("FIRMWARE_METADATA", &metadata),
            ("FWUP_PUBLIC_KEYS", &public_key()),
            ("REBOOT_COMMAND", &reboot),
            ("DATA_PATH", &data_path),
            ("CONTROL_SOCKET", &control),
            ("HOOKS_DIR", &hooks),
            ("EXTENSIONS", "none"),
            ("EXTENSIONS_DIR", &extensions),
            ("RECONNECT_MIN", "100ms"),
            ("RECONNECT_MAX", "500ms"),
            ("REJOIN_AFTER", "200ms"),
            ("TIME_BETWEEN_RETRIES", "100ms"),
            ("FRESH_OFFER_TIMEOUT", "300ms"),
            ("LOG", "debug"),
        ] {
            device.set(name, value);
        }
        if hub.url().starts_with("wss") {
            let ca = device.path("ca.pem");
            std::fs::write(&ca, hub.ca_pem()).expect("CA");
            device.set("CA_FILE", &ca.display().to_string());
            device.unset("ALLOW_INSECURE");
        }
        device.use_installer(&installer);
        device
    }

    /// A hook, as a shell script; it appears whole.
    pub fn hook(&self, name: &str, text: &str) -> PathBuf {
        let folder = self.path("hooks");
        std::fs::create_dir_all(&folder).expect("hooks");
        let (new, path) = (folder.join("new"), folder.join(name));
        std::fs::write(&new, format!("#!/bin/sh\n{text}\n")).expect("hook");
        std::fs::set_permissions(&new, PermissionsExt::from_mode(0o755)).expect("mode");
        std::fs::rename(&new, &path).expect("hook");
        path
    }

    pub fn use_installer(&mut self, installer: &Installer) {
        self.set("FWUP_PATH", &installer.path.display().to_string());
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Logs in with this client certificate instead of the shared secret.
    pub fn use_certificate(&mut self, identity: &devhub::certs::Identity) {
        for (setting, file, pem) in [
            ("CERT_FILE", "client.pem", &identity.cert_pem),
            ("KEY_FILE", "client.key", &identity.key_pem),
        ] {
            let path = self.path(file);
            std::fs::write(&path, pem).expect(file);
            self.set(setting, &path.display().to_string());
        }
        self.unset("PRODUCT_KEY").unset("PRODUCT_SECRET");
    }

    /// What the agent writes firmware to.
    pub fn disk(&self) -> PathBuf {
        self.path("disk.img")
    }

    /// Sets `NERVES_HUB_{name}`.
    pub fn set(&mut self, name: &str, value: &str) -> &mut Self {
        self.env
            .insert(format!("NERVES_HUB_{name}"), value.to_owned());
        self
    }

    pub fn unset(&mut self, name: &str) -> &mut Self {
        self.env.remove(&format!("NERVES_HUB_{name}"));
        self
    }

    /// The device's key-value store; `more` holds further lines.
    pub fn write_metadata(&self, uuid: &str, version: &str, more: &str) {
        let disk = self.disk();
        let text = format!(
            "nerves_fw_active=a\na.nerves_fw_uuid={uuid}\na.nerves_fw_product=demo\n\
             a.nerves_fw_version={version}\na.nerves_fw_platform=demo-board\n\
             a.nerves_fw_architecture=x86_64\nnerves_fw_devpath={}\n\
             nerves_serial_number={IDENTIFIER}\n{more}",
            disk.display()
        );
        // Whole or not at all: the agent may read it at any time.
        let new = self.path("metadata.new");
        std::fs::write(&new, text).expect("metadata");
        std::fs::rename(new, self.path("metadata")).expect("metadata");
    }

    /// Starts the agent.
    pub fn start(&self) -> Agent {
        Agent::start(&self.env, &[])
    }

    /// How often the reboot command ran.
    pub fn reboots(&self) -> usize {
        let text = std::fs::read_to_string(self.path("rebooted")).unwrap_or_default();
        text.lines().count()
    }

    /// SHA-256 of the disk's first `size` bytes, upper-case hex as in `fw.json`.
    pub fn image_hash(&self, size: u64) -> String {
        let bytes = std::fs::read(self.disk()).unwrap_or_default();
        let size = usize::try_from(size).expect("size").min(bytes.len());
        devhub_checksum(&bytes[..size])
    }

    /// Asserts that the disk holds exactly what `file` of the test data puts there.
    pub fn assert_image_of(&self, file: &str) {
        let facts: serde_json::Value =
            serde_json::from_str(&std::fs::read_to_string(data("fw/fw.json")).expect("fw.json"))
                .expect("JSON");
        let image = &facts[file]["applied_image"];
        let size = image["size"].as_u64().expect("size");
        assert_eq!(
            self.image_hash(size),
            image["sha256"].as_str().expect("hash"),
            "{file}"
        );
    }
}

fn devhub_checksum(bytes: &[u8]) -> String {
    use sha2::{Digest, Sha256};
    Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02X}"))
        .collect()
}

/// The demo firmware that differs from what the device runs.
pub fn demo(hub: &Hub) -> Firmware {
    hub.firmware(data("fw/demo-2.0.0.fw"))
}

/// A device with the usual settings, and its agent.
pub fn launch(hub: &Hub) -> (Device, Agent) {
    let device = Device::new(hub);
    let agent = device.start();
    (device, agent)
}

/// The answers to all upgrade requests so far.
pub fn statuses(hub: &Hub) -> Vec<u16> {
    hub.upgrades()
        .iter()
        .map(|upgrade| upgrade.status)
        .collect()
}

type Lines = Arc<(Mutex<Vec<String>>, Condvar)>;

/// A running agent. Killed when dropped; its log is printed when the test fails.
pub struct Agent {
    child: Child,
    lines: Lines,
    exited: Option<i32>,
}

impl Agent {
    /// Starts the agent with exactly these variables, PATH, and no leave to force a reboot.
    pub fn start(env: &BTreeMap<String, String>, arguments: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_nerveshub-agent"));
        command.args(arguments);
        Self::launch(command, env)
    }

    /// As systemd starts it, with standard error read by the journal.
    pub fn start_in_journal(env: &BTreeMap<String, String>) -> Self {
        let mut shell = Command::new("sh");
        let text = "JOURNAL_STREAM=$(stat -L -c %d:%i /proc/self/fd/2)\n\
                    export JOURNAL_STREAM\nexec \"$0\"";
        shell.args(["-c", text, env!("CARGO_BIN_EXE_nerveshub-agent")]);
        Self::launch(shell, env)
    }

    fn launch(mut command: Command, env: &BTreeMap<String, String>) -> Self {
        let mut child = command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .envs(env)
            // Last, so that no scenario can restart the machine it runs on.
            .env("NERVES_HUB_REBOOT_FORCE", "0")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("agent");
        let lines: Lines = Arc::default();
        let (copy, stderr) = (lines.clone(), child.stderr.take().expect("stderr"));
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                copy.0.lock().expect("lines").push(line);
                copy.1.notify_all();
            }
        });
        Self {
            child,
            lines,
            exited: None,
        }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn log(&self) -> String {
        self.lines.0.lock().expect("lines").join("\n")
    }

    /// The lines of the log so far that contain `text`.
    pub fn logged(&self, text: &str) -> Vec<String> {
        let lines = self.lines.0.lock().expect("lines");
        lines
            .iter()
            .filter(|line| line.contains(text))
            .cloned()
            .collect()
    }

    /// Waits until the log has `count` lines that contain `text`.
    pub fn wait_log_times(&self, text: &str, count: usize) {
        let deadline = Instant::now() + PATIENCE;
        let mut lines = self.lines.0.lock().expect("lines");
        while lines.iter().filter(|line| line.contains(text)).count() < count {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                // The log is printed while this unwinds.
                drop(lines);
                panic!("no {count} log lines with {text:?}");
            }
            lines = self.lines.1.wait_timeout(lines, left).expect("lines").0;
        }
    }

    pub fn wait_log(&self, text: &str) {
        self.wait_log_times(text, 1);
    }

    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid().cast_signed()), signal).expect("signal");
    }

    /// Waits for the agent's end; its exit code, or 128 + signal.
    pub fn wait_exit(&mut self) -> i32 {
        use std::os::unix::process::ExitStatusExt;
        let pid = Pid::from_raw(self.pid().cast_signed());
        let done = within(PATIENCE, move || {
            use nix::sys::wait::{Id, WaitPidFlag, waitid};
            waitid(Id::Pid(pid), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT).is_ok()
        });
        assert!(done, "the agent did not end");
        let status = self.child.wait().expect("status");
        let code = status
            .code()
            .unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
        self.exited = Some(code);
        code
    }

    /// SIGTERM; the exit code.
    pub fn stop(&mut self) -> i32 {
        self.signal(Signal::SIGTERM);
        self.wait_exit()
    }

    /// A field of `/proc/PID/status` in KiB, such as `VmRSS`.
    pub fn memory(&self, field: &str) -> u64 {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("status");
        let line = text
            .lines()
            .find(|line| line.starts_with(field))
            .expect("field");
        line.split_whitespace()
            .nth(1)
            .expect("number")
            .parse()
            .expect("number")
    }

    /// The file `name` of each of the agent's threads in /proc.
    fn of_threads(&self, name: &str) -> Vec<String> {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.pid())).expect("tasks");
        tasks
            .filter_map(|task| std::fs::read_to_string(task.ok()?.path().join(name)).ok())
            .collect()
    }

    /// Waits until no thread of that name is left.
    pub fn wait_gone(&self, thread: &str) {
        let deadline = Instant::now() + PATIENCE;
        while self
            .of_threads("comm")
            .iter()
            .any(|name| name.trim() == thread)
        {
            assert!(Instant::now() < deadline, "{thread} is there");
            std::thread::yield_now();
        }
    }

    /// Whether a SIGSTOP has reached every thread.
    pub fn has_stopped(&self) -> bool {
        let stats = self.of_threads("stat");
        stats.iter().all(|stat| stat.contains(") T "))
    }

    /// Processes whose parent is the agent, zombies included.
    pub fn children(&self) -> Vec<String> {
        let texts = self.of_threads("children");
        texts
            .iter()
            .flat_map(|text| {
                text.split_whitespace()
                    .map(str::to_owned)
                    .collect::<Vec<_>>()
            })
            .collect()
    }
}

/// Runs something that blocks, but not for longer than `limit`; false when it did not end.
pub fn within(limit: Duration, work: impl FnOnce() -> bool + Send + 'static) -> bool {
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || sender.send(work()));
    receiver.recv_timeout(limit).unwrap_or(false)
}

impl Drop for Agent {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- the agent's log\n{}\n---", self.log());
        }
        if self.exited.is_none() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}
