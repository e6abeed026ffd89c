//! A good setup, a broken one, and each finding in between.

use std::os::unix::fs::symlink;

use super::*;

/// Self-signed, P-256, for this test only.
const CERT: &str = "\
-----BEGIN CERTIFICATE-----
MIIBfTCCASOgAwIBAgIUJEcNiSCgkVZuGATuidnHnNKNeWAwCgYIKoZIzj0EAwIw
EzERMA8GA1UEAwwIZGV2aWNlLTEwIBcNMjYxMTIwMjI0ODMxWhgPMjEyNjEwMjcy
MjQ4MzFaMBMxETAPBgNVBAMMCGRldmljZS0xMFkwEwYHKoZIzj0CAQYIKoZIzj0D
AQcDQgAEQ4XjH3vsqUip9UNjfWAt/1Vmp+9IApTsQLKGr6MHQQSpSbJT4idocfu9
nkJFbD0i9f4ItAhXbOBmE9y8rdETVaNTMFEwHQYDVR0OBBYEFAggyCTD/EvoVF3G
Kk6JkSm6giHlMB8GA1UdIwQYMBaAFAggyCTD/EvoVF3GKk6JkSm6giHlMA8GA1Ud
EwEB/wQFMAMBAf8wCgYIKoZIzj0EAwIDSAAwRQIgJkWHdfraubq/Qg07Uc3iSDze
YQtPxgNqgyA4xUIRIuoCIQCtlVb5XZEBQSPM+XvyenRDAxXnut8CuM6e9MGtW3uM
TQ==
-----END CERTIFICATE-----
";
const KEY: &str = "\
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgo9l2eLdSO+nbnMHb
KCNviGRvgLvLI42rPR4f89wIBBChRANCAARDheMfe+ypSKn1Q2N9YC3/VWan70gC
lOxAsoavowdBBKlJslPiJ2hx+72eQkVsPSL1/gi0CFds4GYT3Lyt0RNV
-----END PRIVATE KEY-----
";
/// Of another certificate.
const OTHER_KEY: &str = "\
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgVh/u8sAYoayHtsIW
Ji+flDCBhWI9EMuRI9mrJDkguBahRANCAAQAQ6t5SmXNRAfXpGAZMAzQn70+cL1X
bq62S6YDb56TsIdf3G6BSuEGiRWgeY8aYyV6f7fLGY9EPKnJTptMMDXD
-----END PRIVATE KEY-----
";

struct Machine {
    folder: tempfile::TempDir,
    env: Vec<(OsString, OsString)>,
}

impl Machine {
    /// Everything in place: programs (links to harmless ones), files, folders.
    fn good() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let machine = Self {
            folder,
            env: Vec::new(),
        };
        symlink("/bin/echo", machine.path("fwup")).unwrap();
        symlink("/bin/true", machine.path("reboot")).unwrap();
        machine.write("disk", "");
        machine.write("cert.pem", CERT);
        machine.write("key.pem", KEY);
        let mode = std::fs::Permissions::from_mode(0o600);
        std::fs::set_permissions(machine.path("key.pem"), mode).unwrap();
        machine.write(
            "metadata",
            "nerves_fw_active=a\na.nerves_fw_uuid=uuid-1\na.nerves_fw_version=1.2.3\n\
             a.nerves_fw_product=demo\nnerves_serial_number=SN-1\n",
        );
        machine
            .with("NERVES_HUB_HOST", "hub.example.com")
            .with_path("NERVES_HUB_CERT_FILE", "cert.pem")
            .with_path("NERVES_HUB_KEY_FILE", "key.pem")
            .with_path("NERVES_HUB_CA_FILE", "cert.pem")
            .with_path("NERVES_HUB_FWUP_DEVPATH", "disk")
            .with_path("NERVES_HUB_DATA_PATH", "data/agent")
            .with_path("NERVES_HUB_CONTROL_SOCKET", "control.sock")
            .with_path("NERVES_HUB_FIRMWARE_METADATA", "metadata")
            .with_path("PATH", "")
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).unwrap();
    }

    fn with(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    fn with_path(self, name: &str, file: &str) -> Self {
        let path = self.path(file).display().to_string();
        let form = if name.ends_with("_METADATA") {
            "file:"
        } else {
            ""
        };
        self.with(name, &format!("{form}{path}"))
    }

    fn check(&self) -> (String, u8) {
        run(self.env.clone().into_iter())
    }

    /// The finding's line of a subject, with the machine's folder as `/M`.
    fn line(&self, subject: &str) -> String {
        let (text, _) = self.check();
        let folder = self.folder.path().display().to_string();
        let text = text.replace(&folder, "/M");
        let line = text
            .lines()
            .find(|line| line.get(7..).is_some_and(|l| l.starts_with(subject)));
        line.unwrap_or_else(|| panic!("{subject}: {text}"))
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" ")
    }
}

#[test]
fn a_good_setup_is_good_and_stays_untouched() {
    let machine = Machine::good();
    let (text, code) = machine.check();
    assert_eq!(code, 0, "{text}");
    assert!(text.ends_with("\n0 error(s), 0 warning(s)\n"), "{text}");
    for (subject, line) in [
        ("hub", "ok hub hub.example.com:443"),
        ("metadata", "ok metadata file /M/metadata"),
        (
            "firmware",
            "ok firmware uuid uuid-1, product demo, version 1.2.3, slot a, validated",
        ),
        ("identifier", "ok identifier SN-1"),
        (
            "credentials",
            "ok credentials certificate, /M/cert.pem and /M/key.pem",
        ),
        ("trust", "ok trust /M/cert.pem added to the built-in roots"),
        (
            "public keys",
            "ok public keys none configured: the hub is asked for them",
        ),
        ("device path", "ok device path /M/disk is writable"),
        ("data path", "ok data path /M/data/agent can be created"),
        ("control socket", "ok control socket /M/control.sock"),
        ("reboot", "ok reboot \"reboot\" runs /M/reboot"),
    ] {
        assert_eq!(machine.line(subject), line);
    }
    assert!(
        machine
            .line("fwup")
            .starts_with("ok fwup /M/fwup, version ")
    );
    assert!(!machine.path("data").exists());
}

#[test]
fn a_broken_setup_names_everything_and_exits_78() {
    let env = [
        ("NERVES_HUB_HOST", "hub"),
        ("NERVES_HUB_CERT_FILE", "/no/cert"),
        ("NERVES_HUB_KEY_FILE", "/no/key"),
        ("NERVES_HUB_CA_FILE", "/no/ca"),
        ("NERVES_HUB_IDENTIFIER_COMMAND", "exit 1"),
        ("NERVES_HUB_FIRMWARE_METADATA", "file:/no/metadata"),
        ("NERVES_HUB_DATA_PATH", "/proc/version/x"),
        ("NERVES_HUB_CONTROL_SOCKET", "/no/folder/control.sock"),
        ("PATH", "/no/bin"),
    ];
    let (text, code) = run(env.iter().map(|(n, v)| (n.into(), v.into())));
    assert_eq!(code, EX_CONFIG);
    for subject in [
        "metadata",
        "identifier",
        "credentials",
        "trust",
        "fwup",
        "device path",
        "data path",
        "reboot",
    ] {
        assert!(
            text.contains(&format!("error  {subject} ")),
            "{subject}: {text}"
        );
    }
    assert!(text.ends_with("\n8 error(s), 2 warning(s)\n"), "{text}");
    assert!(text.contains("warn   control socket "), "{text}");
}

#[test]
fn configuration_errors_come_all_and_alone() {
    let env = [("NERVES_HUB_HOST", "htp://x"), ("NERVES_HUB_CA_MODE", "x")];
    let (text, code) = run(env.iter().map(|(n, v)| (n.into(), v.into())));
    assert_eq!(code, EX_CONFIG);
    assert_eq!(
        text,
        "error  configuration  NERVES_HUB_HOST: \"htp://x\" has scheme htp; use wss:// or a bare host name\n\
         error  configuration  NERVES_HUB_CA_MODE: \"x\" is not known; use add or only\n\
         warn   the rest       not checked: correct the configuration first\n\
         \n2 error(s), 1 warning(s)\n"
    );
}

#[test]
fn an_installer_program_needs_neither_fwup_nor_keys_nor_a_device_path() {
    let mut machine = Machine::good();
    std::fs::remove_file(machine.path("fwup")).unwrap();
    machine
        .env
        .retain(|(name, _)| name != "NERVES_HUB_FWUP_DEVPATH");
    machine.write("rauc.sh", "#!/bin/sh\n");
    let value = format!("command:{}", machine.path("rauc.sh").display());
    let machine = machine.with("NERVES_HUB_INSTALLER", &value);
    let fix = "correct NERVES_HUB_INSTALLER or chmod +x the program";
    assert_eq!(
        machine.line("installer"),
        format!("error installer /M/rauc.sh is not an executable file; {fix}")
    );
    let mode = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(machine.path("rauc.sh"), mode).unwrap();
    assert_eq!(
        machine.line("installer"),
        "ok installer /M/rauc.sh; checking signatures is its job"
    );
    let (text, code) = machine.check();
    assert_eq!(code, 0, "{text}");
    assert!(text.ends_with("\n0 error(s), 0 warning(s)\n"), "{text}");
    let machine = machine.with("NERVES_HUB_INSTALLER", "command:/no/such");
    assert_eq!(
        machine.line("installer"),
        format!("error installer /no/such does not exist; {fix}")
    );
}

#[test]
fn keys_that_do_not_fit() {
    let machine = Machine::good();
    machine.write("key.pem", OTHER_KEY);
    let line = machine.line("credentials");
    assert!(line.starts_with("error credentials "), "{line}");
    assert!(line.contains("/M/key.pem"), "{line}");
    machine.write("key.pem", "not a key");
    assert!(
        machine
            .line("credentials")
            .starts_with("error credentials ")
    );
    machine.write("cert.pem", "not a certificate");
    assert!(
        machine
            .line("credentials")
            .starts_with("error credentials ")
    );
    assert!(
        machine
            .line("trust")
            .starts_with("error trust NERVES_HUB_CA_FILE: /M/cert.pem")
    );
}

#[test]
fn a_key_open_to_others_is_a_warning() {
    let machine = Machine::good();
    let mode = std::fs::Permissions::from_mode(0o644);
    std::fs::set_permissions(machine.path("key.pem"), mode).unwrap();
    assert_eq!(
        machine.line("credentials"),
        "warn credentials /M/key.pem can be read by others (mode 644); chmod 600 it"
    );
    assert_eq!(machine.check().1, 0);
}

#[test]
fn credentials_of_the_device_itself() {
    let report = |values: &str| {
        let mut report = Report::default();
        let env = [("NERVES_HUB_HOST", "hub")];
        let (config, _) = parse(env.iter().map(|(n, v)| (n.into(), v.into()))).unwrap();
        let values = KeyValues::parse_lines(values).unwrap();
        check_credentials(&mut report, &config, &values);
        report.finish().0
    };
    let escaped = |pem: &str| pem.replace('\n', "\\n");
    let text = report(&format!(
        "nerves_hub_cert={}\nnerves_hub_key={}\n",
        escaped(CERT),
        escaped(KEY)
    ));
    assert!(
        text.starts_with("ok     credentials  certificate, nerves_hub_cert"),
        "{text}"
    );
    let text = report("nh_shared_key=nhp_0123456789\nnh_shared_secret=hunter2\n");
    assert!(
        text.starts_with("ok     credentials  shared secret of key nhp_0123…\n"),
        "{text}"
    );
    assert!(report("").starts_with("error  credentials  none; set "));
}

#[test]
fn single_findings() {
    for (name, value, subject, line) in [
        (
            "NERVES_HUB_CONNECT",
            "0",
            "hub",
            "warn hub NERVES_HUB_CONNECT is off: the agent stays offline",
        ),
        (
            "NERVES_HUB_FWUP_PATH",
            "/bin/false",
            "fwup",
            "error fwup /bin/false --version failed (exit status: 1); is it fwup?",
        ),
        (
            "NERVES_HUB_FWUP_DEVPATH",
            "/dev/null",
            "device path",
            "error device path /dev/null is neither a block device nor a file",
        ),
        (
            "NERVES_HUB_FWUP_DEVPATH",
            "/no/disk",
            "device path",
            "error device path /no/disk: No such file or directory (os error 2)",
        ),
        (
            "NERVES_HUB_REBOOT_COMMAND",
            "exec reboot -f",
            "reboot",
            "ok reboot \"exec reboot -f\" runs /M/reboot",
        ),
        (
            "NERVES_HUB_REBOOT_COMMAND",
            "$(reboot)",
            "reboot",
            "warn reboot cannot tell which program \"$(reboot)\" runs",
        ),
        (
            "NERVES_HUB_REBOOT_COMMAND",
            "rebot now",
            "reboot",
            "error reboot there is no program rebot; set NERVES_HUB_REBOOT_COMMAND",
        ),
        (
            "NERVES_HUB_HSOT",
            "x",
            "configuration",
            "warn configuration NERVES_HUB_HSOT is not a setting and has no effect; the nearest name is NERVES_HUB_HOST",
        ),
    ] {
        assert_eq!(Machine::good().with(name, value).line(subject), line);
    }
}

#[test]
fn folders_count_when_they_are_used() {
    let machine = Machine::good();
    let (text, _) = machine.check();
    assert!(
        !text.contains("cache") && !text.contains("archives"),
        "{text}"
    );
    for (switch, value, setting, subject) in [
        (
            "NERVES_HUB_UPDATER",
            "caching",
            "NERVES_HUB_CACHE_DIR",
            "cache",
        ),
        (
            "NERVES_HUB_UPDATER",
            "parts",
            "NERVES_HUB_CACHE_DIR",
            "cache",
        ),
        (
            "NERVES_HUB_ARCHIVES",
            "download",
            "NERVES_HUB_ARCHIVE_DIR",
            "archives",
        ),
    ] {
        let machine = || Machine::good().with(switch, value);
        let line = machine().line(subject);
        let default = format!("ok {subject} /M/data/agent/{subject} can be created, ");
        assert!(
            line.starts_with(&default) && line.ends_with(" MiB free"),
            "{line}"
        );
        let existing = machine();
        std::fs::create_dir(existing.path("there")).unwrap();
        let line = existing.with_path(setting, "there").line(subject);
        let found = format!("ok {subject} /M/there is writable, ");
        assert!(line.starts_with(&found), "{line}");
        let line = machine().with_path(setting, "disk/x").line(subject);
        assert_eq!(line, format!("error {subject} /M/disk is not a folder"));
    }
}

#[test]
fn a_clock_before_the_build_is_a_warning() {
    let mut report = Report::default();
    check_clock(&mut report, 0);
    let (text, code) = report.finish();
    assert!(
        text.starts_with("warn   clock  1970-01-01T00:00:00Z is before"),
        "{text}"
    );
    assert_eq!(code, 0);
}

#[test]
fn hooks_are_listed_and_what_would_keep_them_silent_is_said() {
    let machine = Machine::good().with_path("NERVES_HUB_HOOKS_DIR", "hooks");
    assert_eq!(machine.line("hooks"), "ok hooks none in /M/hooks");
    std::fs::create_dir(machine.path("hooks")).unwrap();
    for (name, mode) in [
        ("connected", 0o755),
        ("identify", 0o644),
        ("update-available", 0o757),
        ("update_failed", 0o755),
        ("configure.sample", 0o644),
    ] {
        let file = format!("hooks/{name}");
        machine.write(&file, "#!/bin/sh\n");
        let mode = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(machine.path(&file), mode).unwrap();
    }
    symlink("/nowhere", machine.path("hooks/disconnected")).unwrap();
    let machine = machine
        .with_path("NERVES_HUB_HOOK_REBOOT_REQUEST", "not-there")
        .with("NERVES_HUB_HOOK_ARCHIVE_READY", "none");
    let (text, code) = machine.check();
    let folder = machine.folder.path().display().to_string();
    let text = text.replace(&folder, "/M");
    let hooks = text.lines().filter(|line| line.contains(" hook "));
    let words = hooks.map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "));
    assert_eq!(
        words.collect::<Vec<_>>(),
        [
            "warn hook update-available: /M/hooks/update-available can be written by everybody \
             and is not run: chmod o-w it",
            "warn hook reboot-request: /M/not-there does not exist",
            "ok hook connected: /M/hooks/connected",
            "warn hook disconnected: /M/hooks/disconnected does not exist",
            "warn hook identify: /M/hooks/identify is not an executable file: chmod +x it",
            "warn hook update_failed is no hook's name; see etc/doc/hooks.md",
        ]
    );
    assert_eq!(code, 0);
}

#[test]
fn what_people_at_the_hub_would_miss_is_a_warning() {
    for (settings, subject, line) in [
        (
            &[("NERVES_HUB_SCRIPT_INTERPRETER", "/no/sh")][..],
            "scripts",
            "warn scripts there is no program /no/sh: support scripts without a #! line fail; \
             set NERVES_HUB_SCRIPT_INTERPRETER",
        ),
        (
            &[
                ("NERVES_HUB_CONSOLE", "1"),
                ("NERVES_HUB_SHELL_USER", "nobody-here"),
            ],
            "shells",
            "warn shells none can be opened: NERVES_HUB_SHELL_USER: there is no user \
             \"nobody-here\" in /etc/passwd",
        ),
        (
            &[("NERVES_HUB_IDENTIFY_COMMAND", "blnik now")],
            "identify",
            "warn identify there is no program blnik; set NERVES_HUB_IDENTIFY_COMMAND",
        ),
        (
            &[("NERVES_HUB_IDENTIFY_LED", "no:such:led")],
            "identify",
            "warn identify there is no LED /sys/class/leds/no:such:led; set \
             NERVES_HUB_IDENTIFY_LED",
        ),
        (
            &[("NERVES_HUB_ALARM_DIR", "/run")],
            "alarm files",
            "ok alarm files /run is writable",
        ),
    ] {
        let with = |machine: Machine, (name, value): &(&str, &str)| machine.with(name, value);
        let machine = settings.iter().fold(Machine::good(), with);
        assert_eq!(machine.line(subject), line);
        assert_eq!(machine.check().1, 0);
    }
    let machine = Machine::good().with("NERVES_HUB_LOCAL_SHELL", "1");
    assert!(machine.line("shells").starts_with("ok shells run as "));
    // Nobody misses what is switched off.
    let (text, _) = Machine::good()
        .with("NERVES_HUB_SHELL_USER", "nobody-here")
        .with("NERVES_HUB_SCRIPTS", "0")
        .with("NERVES_HUB_SCRIPT_INTERPRETER", "/no/sh")
        .check();
    assert!(!text.contains("shells") && !text.contains("scripts"));
}
