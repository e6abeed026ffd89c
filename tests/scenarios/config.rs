//! The program as started by hand or by an init system: settings, commands, exit codes.

use std::collections::BTreeMap;
use std::process::{Command, Output, Stdio};

use crate::rig::{self, Agent, Device, JOINED, PATIENCE};

type Env = BTreeMap<String, String>;

/// Runs the program with exactly these variables (and PATH) to its end.
pub fn run(env: &Env, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_nerveshub-agent"));
    command
        .args(arguments)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .envs(env)
        .env("NERVES_HUB_REBOOT_FORCE", "0")
        .stdin(Stdio::null());
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || sender.send(command.output()));
    let output = receiver.recv_timeout(PATIENCE);
    output.expect("the program does not end").expect("program")
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("UTF-8")
}

fn env(pairs: &[(&str, &str)]) -> Env {
    pairs
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
}

/// One problem per variable.
fn broken() -> Env {
    env(&[
        ("NERVES_HUB_HOST", "http://hub.example"),
        ("NERVES_HUB_PRODUCT_SECRET", "hunter2-secret"),
        ("NERVES_HUB_HEARTBEAT_INTERVAL", "soon"),
        ("NERVES_HUB_REJOIN_AFTER", "5 parsecs"),
        ("NERVES_HUB_RECONNECT_JITTER", "150"),
        ("NERVES_HUB_SERIALIZER", "xml"),
        ("NERVES_HUB_CA_MODE", "only"),
        ("NERVES_HUB_WAIT_FOR_NETWORK", "perhaps"),
        ("NERVES_HUB_PROXY", "socks5://me:hunter3@p:1"),
        ("NERVES_HUB_FWUP_PUBLIC_KEYS", "AAAA"),
        ("NERVES_HUB_IDENTIFIER_FILE", "/no/such/file"),
        ("NERVES_HUB_FIRMWARE_METADATA", "magic"),
    ])
}

#[test]
fn every_problem_is_told_at_once() {
    let broken = broken();
    let output = run(&broken, &[]);
    assert_eq!(output.status.code(), Some(78));
    assert_eq!(text(&output.stdout), "");
    let told = text(&output.stderr);
    for name in broken.keys() {
        // The secret without its key is told as the key that is missing.
        let name = name.replace("PRODUCT_SECRET", "PRODUCT_KEY");
        let lines: Vec<&str> = told
            .lines()
            .filter(|line| line.starts_with(&name))
            .collect();
        assert_eq!(lines.len(), 1, "{name} in\n{told}");
        // Value and fix.
        assert!(lines[0].contains("; "), "{}", lines[0]);
    }
    assert_eq!(told.lines().count(), broken.len(), "{told}");
    for value in [
        "soon",
        "5 parsecs",
        "150",
        "xml",
        "perhaps",
        "magic",
        "AAAA",
    ] {
        assert!(told.contains(&format!("{value:?}")), "{value} in\n{told}");
    }
    assert!(!told.contains("hunter"), "{told}");
}

#[test]
fn no_host_and_plain_text_are_refused() {
    let output = run(&env(&[]), &["run"]);
    assert_eq!(output.status.code(), Some(78));
    assert!(text(&output.stderr).starts_with("NERVES_HUB_HOST is not set"));
    let plain = env(&[("NERVES_HUB_HOST", "ws://hub.example")]);
    let output = run(&plain, &[]);
    assert_eq!(output.status.code(), Some(78));
    assert!(text(&output.stderr).contains("NERVES_HUB_ALLOW_INSECURE=1"));
}

/// Spoils a device's setup.
type Spoil = fn(&mut Device);

/// What parses, and cannot be used all the same.
fn unusable() -> [(Spoil, &'static str); 4] {
    [
        (
            |device| {
                device.unset("PRODUCT_KEY").unset("PRODUCT_SECRET");
            },
            "no credentials: set NERVES_HUB_PRODUCT_KEY",
        ),
        (
            |device| {
                device.set("CA_FILE", "/no/such/ca.pem");
            },
            "NERVES_HUB_CA_FILE: /no/such/ca.pem",
        ),
        (
            |device| {
                device.set("FIRMWARE_METADATA", "file:/no/such/metadata");
            },
            "/no/such/metadata",
        ),
        (
            |device| {
                device.set("IDENTIFIER_COMMAND", "exit 3");
            },
            "NERVES_HUB_IDENTIFIER_COMMAND",
        ),
    ]
}

#[test]
fn what_only_shows_at_the_start_is_a_configuration_error_too() {
    let hub = rig::hub().start();
    for (spoil, told) in unusable() {
        let mut device = Device::new(&hub);
        spoil(&mut device);
        let output = run(&device.env, &[]);
        assert_eq!(output.status.code(), Some(78), "{told}");
        assert!(
            text(&output.stderr).contains(told),
            "{}",
            text(&output.stderr)
        );
    }
    assert_eq!(hub.tcp_connections(), 0);
}

#[test]
fn unknown_variables_are_warned_about_with_the_nearest_name() {
    let hub = rig::hub().start();
    let mut device = Device::new(&hub);
    device.set("HEARTBEAT_INTERVALL", "1s");
    device.set("PRODUCT_SECRET_FIEL", "/x");
    let agent = device.start();
    agent.wait_log(
        "NERVES_HUB_HEARTBEAT_INTERVALL is not a setting and has no effect; the nearest name is \
         NERVES_HUB_HEARTBEAT_INTERVAL",
    );
    agent.wait_log("the nearest name is NERVES_HUB_PRODUCT_SECRET_FILE");
    hub.expect_join("device");
    assert_eq!(agent.logged("is not a setting").len(), 2);
}

#[test]
fn values_may_come_from_files() {
    let hub = rig::hub().start();
    let mut device = Device::new(&hub);
    for (name, value) in [
        ("PRODUCT_SECRET", rig::PRODUCT_SECRET),
        ("PRODUCT_KEY", rig::PRODUCT_KEY),
        ("IDENTIFIER", "from-a-file"),
    ] {
        let path = device.path(name);
        std::fs::write(&path, format!("{value}\n")).expect("file");
        device.unset(name);
        device.set(&format!("{name}_FILE"), &path.display().to_string());
    }
    let _agent = device.start();
    assert_eq!(hub.expect_join("device").identifier, "from-a-file");
}

#[test]
fn the_identifier_may_come_from_a_command() {
    let hub = rig::hub().start();
    let mut device = Device::new(&hub);
    device.set("IDENTIFIER_COMMAND", "echo ' sn-77 '; echo more");
    let _agent = device.start();
    assert_eq!(hub.expect_join("device").identifier, "sn-77");
}

/// Rows of the table as (level, subject).
fn rows(table: &str) -> Vec<(String, String)> {
    let lines = table.lines().take_while(|line| !line.is_empty());
    let row = |line: &str| {
        let (level, rest) = line.split_once("  ").expect("level");
        let subject = rest.trim_start().split("  ").next().expect("subject");
        (level.trim().to_owned(), subject.to_owned())
    };
    lines.map(row).collect()
}

/// The names in a device's folder.
fn listing(device: &Device) -> Vec<std::ffi::OsString> {
    let entries = std::fs::read_dir(device.dir.path()).expect("folder");
    let mut names: Vec<_> = entries
        .map(|entry| entry.expect("entry").file_name())
        .collect();
    names.sort();
    names
}

#[test]
fn check_passes_a_good_setup_and_touches_nothing() {
    let hub = rig::hub().tls(devhub::Tls::Server).start();
    let mut device = Device::new(&hub);
    std::fs::write(device.disk(), b"disk").expect("disk");
    device.set("REBOOT_COMMAND", "true");
    let before = listing(&device);
    let output = run(&device.env, &["check"]);
    let table = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{table}");
    assert!(table.ends_with("\n0 error(s), 0 warning(s)\n"), "{table}");
    let rows = rows(&table);
    assert!(rows.iter().all(|(level, _)| level == "ok"), "{table}");
    for subject in [
        "hub",
        "clock",
        "metadata",
        "firmware",
        "identifier",
        "credentials",
        "trust",
        "fwup",
        "public keys",
        "device path",
        "data path",
        "reboot",
    ] {
        assert!(
            rows.iter().any(|row| row.1 == subject),
            "{subject} in\n{table}"
        );
    }
    assert!(!table.contains(rig::PRODUCT_SECRET));
    assert_eq!(listing(&device), before);
    assert_eq!(hub.tcp_connections(), 0);
}

#[test]
fn check_finds_everything_wrong_with_a_broken_setup() {
    let hub = rig::hub().start();
    let mut device = Device::new(&hub);
    device.write_metadata(
        "",
        "",
        "nerves_serial_number=\nnerves_fw_devpath=/no/such/disk\n",
    );
    device.set("FWUP_PATH", "/no/such/fwup");
    device.set("REBOOT_COMMAND", "no-such-program now");
    device.set("CA_FILE", "/no/such/ca.pem");
    device.set("IDENTIFIER_COMMAND", "exit 1");
    device.set("TYPO", "1");
    device.unset("PRODUCT_KEY").unset("PRODUCT_SECRET");
    std::fs::write(device.path("data"), "a file where a folder should be").expect("file");
    let output = run(&device.env, &["check"]);
    let table = text(&output.stdout);
    assert_eq!(output.status.code(), Some(78), "{table}");
    let rows = rows(&table);
    for (level, subject) in [
        ("warn", "configuration"),
        ("warn", "hub"),
        ("warn", "firmware"),
        ("error", "identifier"),
        ("error", "credentials"),
        ("error", "trust"),
        ("error", "fwup"),
        ("error", "device path"),
        ("error", "data path"),
        ("error", "reboot"),
    ] {
        let row = (level.to_owned(), subject.to_owned());
        assert!(rows.contains(&row), "{row:?} in\n{table}");
    }
    assert!(table.ends_with("\n7 error(s), 3 warning(s)\n"), "{table}");
}

#[test]
fn check_tells_configuration_errors_in_its_table() {
    let broken = env(&[("NERVES_HUB_HOST", "x:0"), ("NERVES_HUB_CONNECT", "maybe")]);
    let output = run(&broken, &["check"]);
    let table = text(&output.stdout);
    assert_eq!(output.status.code(), Some(78));
    let errors = rows(&table)
        .into_iter()
        .filter(|row| row.0 == "error")
        .count();
    assert_eq!(errors, 2, "{table}");
}

#[test]
fn help_version_and_settings_go_to_standard_output() {
    let nothing = env(&[]);
    for (arguments, beginning, content) in [
        (&["--help"][..], "Usage: nerveshub-agent", "NERVES_HUB_HOST"),
        (&["-h"], "Usage: nerveshub-agent", "Exit codes"),
        (
            &["--version"],
            "nerveshub-agent ",
            env!("CARGO_PKG_VERSION"),
        ),
        (&["-V"], "nerveshub-agent ", "rustls"),
        (&["settings"], "NAME ", "NERVES_HUB_RECONNECT_MIN"),
        (&["settings", "--markdown"], "### ", "| `NERVES_HUB_HOST` |"),
    ] {
        let output = run(&nothing, arguments);
        assert_eq!(output.status.code(), Some(0), "{arguments:?}");
        assert_eq!(text(&output.stderr), "");
        let told = text(&output.stdout);
        assert!(told.starts_with(beginning), "{arguments:?}: {told}");
        assert!(told.contains(content), "{arguments:?}: {told}");
        assert!(told.ends_with('\n'));
    }
}

#[test]
fn a_bad_command_line_is_64() {
    for arguments in [
        &["start"][..],
        &["--hlep"],
        &["run", "now"],
        &["check", "--fix"],
        &["settings", "--json"],
        &[""],
    ] {
        let output = run(&env(&[]), arguments);
        assert_eq!(output.status.code(), Some(64), "{arguments:?}");
        assert_eq!(text(&output.stdout), "");
        assert!(text(&output.stderr).contains("see nerveshub-agent --help"));
    }
}

#[test]
fn without_connect_everything_is_loaded_and_nothing_connected() {
    let hub = rig::hub().start();
    let mut device = Device::new(&hub);
    device.set("CONNECT", "false");
    let mut agent = device.start();
    agent.wait_log("NERVES_HUB_CONNECT is false: staying offline");
    agent.signal(nix::sys::signal::Signal::SIGUSR1);
    agent.wait_log("status: identifier=device-0001");
    agent.wait_log("link=\"offline\"");
    agent.signal(nix::sys::signal::Signal::SIGHUP);
    assert_eq!(agent.stop(), 0);
    assert_eq!(hub.tcp_connections(), 0);
    assert!(agent.logged(JOINED).is_empty());
}

#[test]
fn without_connect_neither_hub_nor_credentials_are_needed() {
    let hub = rig::hub().start();
    let mut env = Device::new(&hub).env;
    for name in ["HOST", "PRODUCT_KEY", "PRODUCT_SECRET", "FIRMWARE_METADATA"] {
        env.remove(&format!("NERVES_HUB_{name}"));
    }
    env.insert("NERVES_HUB_CONNECT".into(), "0".into());
    env.insert("NERVES_HUB_IDENTIFIER".into(), "x".into());
    env.insert("NERVES_HUB_FIRMWARE_METADATA".into(), "env".into());
    let mut agent = Agent::start(&env, &["run"]);
    agent.wait_log("staying offline");
    assert_eq!(agent.stop(), 0);
    assert_eq!(hub.tcp_connections(), 0);
}
