//! What a shell is as a process: its environment, its descriptors, its user, its name.

use crate::rig;
use crate::terminal::{Terminal, Way, device, expect_no_children, open};

#[test]
fn the_environment_is_a_login_s_and_holds_no_secret() {
    let hub = rig::hub().start();
    let mut device = device(&hub, &[Way::Console]);
    device.env.insert(
        "https_proxy".into(),
        "http://u:proxy-password@127.0.0.1:1".into(),
    );
    device.env.insert("no_proxy".into(), "*".into());
    device
        .env
        .insert("SOME_TOKEN".into(), "some-token-value".into());
    device.env.insert("TZ".into(), "Europe/Berlin".into());
    let _agent = device.start();
    let terminal = Terminal::ready(&hub, Way::Console);
    let shown = terminal.run("env | grep -v ^PS1; pwd; echo umask $(umask)");
    for secret in [
        rig::PRODUCT_SECRET,
        "proxy-password",
        "some-token-value",
        "NERVES_HUB_",
    ] {
        assert!(!shown.contains(secret), "{secret}: {shown}");
    }
    for line in ["TERM=xterm-256color", "TZ=Europe/Berlin", "umask 0022"] {
        assert!(shown.contains(&format!("{line}\n")), "{line}: {shown}");
    }
    let line = |name: &str| {
        let found = shown.lines().find_map(|line| line.strip_prefix(name));
        found.unwrap_or_else(|| panic!("{name} is missing: {shown}"))
    };
    assert_eq!(line("USER="), line("LOGNAME="));
    assert!(
        shown.contains(&format!("\n{}\n", line("HOME="))),
        "it begins at home"
    );
    assert!(line("PATH=").contains("/bin"));
}

#[test]
fn a_shell_has_its_terminal_and_nothing_else_of_the_agent() {
    let (hub, _device, agent) = open(Way::Console);
    let terminal = Terminal::ready(&hub, Way::Console);
    assert_eq!(agent.children().len(), 1);
    let pid = agent.children().remove(0);
    let mut open: Vec<String> = std::fs::read_dir(format!("/proc/{pid}/fd"))
        .expect("descriptors")
        .filter_map(|entry| {
            Some(
                std::fs::read_link(entry.ok()?.path())
                    .ok()?
                    .display()
                    .to_string(),
            )
        })
        .collect();
    // Shells open their terminal once more.
    open.retain(|path| !path.starts_with("/dev/pts/") && path != "/dev/tty");
    assert_eq!(open, Vec::<String>::new());
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("stat");
    let fields: Vec<&str> = stat
        .rsplit_once(')')
        .expect("name")
        .1
        .split_whitespace()
        .collect();
    assert_eq!(
        (fields[2], fields[3]),
        (pid.as_str(), pid.as_str()),
        "group and session"
    );
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("status");
    let blocked = status
        .lines()
        .find(|line| line.starts_with("SigBlk"))
        .expect("SigBlk");
    assert!(blocked.ends_with("0000000000000000"), "{blocked}");
    let ignored = terminal.run("sh -c 'grep SigIgn /proc/self/status'");
    let mask = ignored.split("SigIgn:").nth(1).expect("mask").trim();
    let mask = u64::from_str_radix(&mask[..16], 16).expect("hexadecimal");
    // The C library keeps 32 and 33 to itself.
    assert_eq!(mask & !(3 << 31), 0, "{mask:x}");
}

#[test]
fn a_path_alone_is_a_login_shell_and_without_one_it_is_sh() {
    for (command, name) in [
        (None, "-sh"),
        (Some("/bin/sh"), "-sh"),
        (Some("/bin/cat"), "-cat"),
    ] {
        let hub = rig::hub().start();
        let mut device = device(&hub, &[Way::Console]);
        match command {
            None => device.unset("CONSOLE_COMMAND"),
            Some(path) => device.set("CONSOLE_COMMAND", path),
        };
        let agent = device.start();
        Terminal::open(&hub, Way::Console);
        agent.wait_log("console: opened by the hub");
        let pid = agent.children().remove(0);
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).expect("cmdline");
        assert_eq!(line.split(|byte| *byte == 0).next(), Some(name.as_bytes()));
    }
}

#[test]
fn a_command_that_cannot_start_says_so_and_may_be_tried_again() {
    let hub = rig::hub().start();
    let mut device = device(&hub, &[Way::Console]);
    device.set("CONSOLE_COMMAND", "/no/such/shell");
    let agent = device.start();
    let terminal = Terminal::open(&hub, Way::Console);
    let said = "[cannot start: /no/such/shell: No such file or directory (os error 2); \
                see NERVES_HUB_CONSOLE_COMMAND; press a key to start again]";
    terminal.expect(said);
    terminal.keys(" ");
    terminal.expect(said);
    expect_no_children(&agent);
}

#[test]
fn shells_run_as_the_user_they_are_told_to() {
    let me = std::process::Command::new("id")
        .arg("-u")
        .output()
        .expect("id");
    if me.stdout != b"0\n" {
        return eprintln!("SKIPPED: only root can start shells as another user");
    }
    let hub = rig::hub().start();
    let mut device = device(&hub, &[Way::Console]);
    device.set("SHELL_USER", "nobody");
    let agent = device.start();
    let terminal = Terminal::ready(&hub, Way::Console);
    let shown = terminal.run("id -un; id -G; echo $USER; test -w $(tty) && echo mi''ne");
    assert!(shown.contains("\nnobody\n"), "{shown}");
    assert!(shown.contains("mine"), "{shown}");
    let pid = agent.children().remove(0);
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("status");
    let groups = status
        .lines()
        .find(|line| line.starts_with("Groups:"))
        .expect("Groups");
    assert!(
        !groups.split_whitespace().any(|group| group == "0"),
        "{groups}"
    );
    // The agent reads its secrets from what nobody else may read.
    let shown = terminal.run(&format!("cat /proc/{}/environ", agent.pid()));
    assert!(shown.contains("ermission denied"), "{shown}");
    drop(agent);
    hub.expect_offline();
    device.set("SHELL_USER", "no-such-user");
    let _agent = device.start();
    let terminal = Terminal::open(&hub, Way::Console);
    terminal.expect("there is no user \"no-such-user\"");
}
