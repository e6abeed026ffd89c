//! Consoles on real terminals, mostly by both ways: the console channel and the local shell.

use std::time::{Duration, Instant};

use devhub::Dir;
use serde_json::json;

use crate::rig::{self, JOINED, PATIENCE, within};
use crate::terminal::{PROMPT, Terminal, Way, barrier, device, expect_no_children, joins, open};

#[test]
fn nothing_is_joined_or_opened_unless_it_is_enabled() {
    let hub = rig::hub().start();
    let (_device, agent) = rig::launch(&hub);
    agent.wait_log(JOINED);
    barrier(&hub, 1);
    // The hub has asked for extensions by now, and the first answer after it is in.
    assert_eq!(joins(&hub, "device"), 1);
    assert_eq!(joins(&hub, "console"), 0);
    assert_eq!(joins(&hub, "extensions"), 0);
    for frame in [
        json!([null, null, "console", "dn", {"data": "id\r"}]),
        json!([null, null, "console", "window_size", {"height": 24, "width": 80}]),
        json!([null, null, "extensions", "local_shell:request_shell", {}]),
        json!([null, null, "extensions", "local_shell:shell_input", {"data": "id\r"}]),
        json!([null, null, "extensions", "attach", {"extensions": "all"}]),
    ] {
        hub.push_frame(frame);
    }
    barrier(&hub, 2);
    assert_eq!(agent.children(), Vec::<String>::new());
    assert!(agent.logged("opened by the hub").is_empty());
    assert!(agent.logged("the console is enabled").is_empty());
}

#[test]
fn the_join_says_which_console_this_is_and_nothing_runs_until_somebody_looks() {
    let (hub, _device, agent) = open(Way::Console);
    let device_join = hub.expect_frame("device", "phx_join", |_| true);
    let join = hub.expect_frame("console", "phx_join", |_| true);
    assert!(join.t > device_join.t, "the device channel comes first");
    assert_eq!(
        join.frame.expect("frame").payload,
        json!({"console_version": "2.0.0", "device_api_version": "2.3.0"})
    );
    assert_eq!(agent.logged("the console is enabled").len(), 1);
    barrier(&hub, 1);
    assert_eq!(agent.children(), Vec::<String>::new());
    Terminal::ready(&hub, Way::Console);
    assert_eq!(agent.children().len(), 1);
    agent.wait_log("console: opened by the hub");
}

#[test]
fn a_shell_prompts_echoes_and_obeys() {
    for way in Way::BOTH {
        let (hub, _device, _agent) = open(way);
        let terminal = Terminal::ready(&hub, way);
        terminal.keys("echo one''two");
        // The terminal's echo comes before anything was run.
        terminal.expect("echo one''two");
        terminal.keys("\r");
        terminal.expect("onetwo\r\n");
        terminal.expect(PROMPT);
        assert!(terminal.run("tty").contains("/dev/pts/"));
        assert!(terminal.run("echo é€𝄞 | wc -c").contains("\n10\n"));
    }
}

#[test]
fn the_size_is_the_window_s_from_the_start_and_follows_it() {
    for way in Way::BOTH {
        let (hub, _device, _agent) = open(way);
        let terminal = Terminal::ready(&hub, way);
        assert!(terminal.run("stty size").contains("\n24 80\n"));
        terminal.resize(50, 132);
        assert!(terminal.run("stty size").contains("\n50 132\n"));
        // A program hears of it.
        terminal.keys("trap 'stty size' WINCH; echo trap''ped\r");
        terminal.expect("trapped");
        terminal.resize(0, 1_000_000);
        terminal.keys("\r");
        terminal.expect("1 1000\r\n");
    }
}

#[test]
fn full_screen_programs_draw_and_follow_the_window() {
    let (hub, device, _agent) = open(Way::Console);
    let terminal = Terminal::ready(&hub, Way::Console);
    let file = device.path("file");
    for (program, drawn, leave) in [
        ("top -d 60", "Tasks", "q"),
        ("vi -u NONE -n", "~", "\u{1b}:q!\r"),
    ] {
        let name = program.split(' ').next().expect("name");
        if !terminal.run(&format!("command -v {name}")).contains('/') {
            eprintln!("SKIPPED: no {name} on this machine");
            continue;
        }
        terminal.keys(&format!("clear; {program}\r"));
        terminal.expect(drawn);
        terminal.resize(30, 100);
        terminal.keys(leave);
        terminal.expect(PROMPT);
    }
    // What vi writes is what was typed.
    if terminal.run("command -v vi").contains('/') {
        terminal.keys(&format!("vi -u NONE -n {}\r", file.display()));
        terminal.expect("~");
        terminal.keys("iwritten by vi");
        terminal.expect("written by vi");
        terminal.keys("\u{1b}:wq\r");
        terminal.expect(PROMPT);
        assert_eq!(
            std::fs::read_to_string(file).expect("file"),
            "written by vi\n"
        );
    }
}

#[test]
fn ctrl_c_ends_the_command_and_not_the_shell() {
    for way in Way::BOTH {
        let (hub, _device, _agent) = open(way);
        let terminal = Terminal::ready(&hub, way);
        terminal.keys("echo sleep''ing; sleep 1000\r");
        terminal.expect("sleeping");
        terminal.keys("\u{3}");
        terminal.expect(PROMPT);
        assert!(terminal.run("echo still he''re").contains("still here"));
    }
}

#[test]
fn an_exit_is_announced_and_the_next_key_starts_another_shell() {
    let (hub, _device, agent) = open(Way::Console);
    let terminal = Terminal::ready(&hub, Way::Console);
    let first = agent.children();
    terminal.keys("exit 7\r");
    terminal.expect("[process exited with status 7; press a key to start again]");
    expect_no_children(&agent);
    // A window that changes, and a terminal that answers an old question, press no key.
    terminal.resize(40, 100);
    terminal.keys("\u{1b}[12;1R");
    barrier(&hub, 1);
    assert_eq!(agent.children(), Vec::<String>::new());
    terminal.keys("\r");
    terminal.expect(PROMPT);
    assert!(terminal.run("stty size").contains("\n40 100\n"));
    assert_ne!(agent.children(), first);
    terminal.keys("kill -9 $$\r");
    terminal.expect("[process ended by signal 9; press a key to start again]");
    // What is more than a knock is not lost.
    terminal.keys("echo aga''in\r");
    terminal.expect("again\r\n");
    expect_end(agent);
}

/// SIGTERM: clean, soon, and nothing is left.
fn expect_end(mut agent: rig::Agent) {
    let children = agent.children();
    assert_eq!(agent.stop(), 0);
    for pid in children {
        assert!(!lives(&pid), "{pid} lives");
    }
}

/// Not a zombie either, once init has got to it.
fn lives(pid: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"));
    stat.is_ok_and(|stat| !stat.contains(") Z "))
}

/// Waits until a process is gone.
fn expect_gone(pid: &str) {
    let pid = pid.to_owned();
    let gone = within(PATIENCE, {
        let pid = pid.clone();
        move || {
            while lives(&pid) {
                std::thread::yield_now();
            }
            true
        }
    });
    assert!(gone, "{pid} lives");
}

#[test]
fn a_restart_ends_everything_and_starts_anew() {
    let (hub, _device, agent) = open(Way::Console);
    let terminal = Terminal::ready(&hub, Way::Console);
    terminal.keys("(trap '' HUP TERM; echo stub''born $$; exec sleep 1000) & wait\r");
    terminal.expect("stubborn");
    let children = agent.children();
    hub.push("console", "restart", json!({}));
    terminal.expect("[restarting]");
    terminal.expect(PROMPT);
    let restarted = agent.children();
    assert_eq!(restarted.len(), 1);
    assert_ne!(restarted, children);
    children.iter().for_each(|pid| expect_gone(pid));
    expect_end(agent);
}

#[test]
fn whatever_a_shell_started_ends_with_it() {
    let (hub, device, agent) = open(Way::Console);
    let terminal = Terminal::ready(&hub, Way::Console);
    let pids = device.path("pids");
    // Groups of their own, deaf to hanging up, stopped, and one behind another.
    let jobs = [
        "sleep 1000 &",
        "nohup sleep 1000 >/dev/null 2>&1 &",
        "(trap '' HUP INT TERM; while :; do sleep 1; done) &",
        "sh -c 'kill -STOP $$' &",
        "sh -c 'sleep 1000; :' &",
    ];
    for job in jobs {
        terminal.run(&format!("{job} echo $! >> {}", pids.display()));
    }
    terminal.keys("exit\r");
    // A shell may want to be asked twice while jobs are stopped.
    terminal.keys("exit\r");
    terminal.expect("press a key to start again]");
    let pids = std::fs::read_to_string(pids).expect("pids");
    assert_eq!(pids.lines().count(), jobs.len());
    pids.lines().for_each(expect_gone);
    expect_no_children(&agent);
}

#[test]
fn without_a_key_the_session_ends_and_the_next_key_starts_another() {
    for way in Way::BOTH {
        let hub = rig::hub().start();
        let mut device = device(&hub, &[way]);
        device.set("CONSOLE_TIMEOUT", "400ms");
        let agent = device.start();
        let terminal = Terminal::ready(&hub, way);
        let begin = Instant::now();
        terminal.expect("[session timeout: no key for 400ms; press a key to start again]");
        assert!(begin.elapsed() >= Duration::from_millis(200));
        expect_no_children(&agent);
        terminal.keys(" ");
        terminal.expect(PROMPT);
        assert_eq!(agent.logged("no key pressed for 400ms").len(), 1);
    }
}

#[test]
fn what_is_said_while_the_hub_is_away_comes_when_it_is_back() {
    for way in Way::BOTH {
        let (hub, device, agent) = open(way);
        let terminal = Terminal::ready(&hub, way);
        let go = device.path("go");
        let shell = agent.children();
        terminal.keys(&format!(
            "while ! [ -e {0} ]; do sleep 0.02; done; echo said mean''while; rm {0}\r",
            go.display()
        ));
        terminal.expect("rm ");
        hub.kill();
        std::fs::write(&go, "").expect("go");
        while go.exists() {
            std::thread::yield_now();
        }
        hub.restart();
        terminal.expect("said meanwhile");
        terminal.expect(PROMPT);
        assert_eq!(agent.children(), shell, "the shell survives");
        assert!(terminal.run("echo and go''es on").contains("and goes on"));
    }
}

#[test]
fn what_a_silent_link_has_swallowed_is_said_again() {
    let hub = rig::hub().start();
    let mut device = device(&hub, &[Way::Console]);
    device.set("HEARTBEAT_INTERVAL", "300ms");
    let agent = device.start();
    let terminal = Terminal::ready(&hub, Way::Console);
    let go = device.path("go");
    terminal.keys(&format!(
        "while ! [ -e {} ]; do sleep 0.02; done; echo said into''the void\r",
        go.display()
    ));
    terminal.expect("void");
    hub.freeze();
    std::fs::write(&go, "").expect("go");
    agent.wait_log("the hub did not answer a heartbeat");
    terminal.expect("said intothe void");
}

#[test]
fn of_a_long_absence_the_end_is_kept_and_the_rest_counted() {
    let (hub, device, _agent) = open(Way::Console);
    let terminal = Terminal::ready(&hub, Way::Console);
    let go = device.path("go");
    terminal.keys(&format!(
        "while ! [ -e {0} ]; do sleep 0.02; done; seq 1 200000; echo la''st; rm {0}\r",
        go.display()
    ));
    terminal.expect("rm ");
    hub.kill();
    std::fs::write(&go, "").expect("go");
    while go.exists() {
        std::thread::yield_now();
    }
    hub.restart();
    let shown = terminal.expect("last\r\n");
    assert!(
        shown.contains(" bytes of output were lost here]"),
        "{}",
        &shown[..300]
    );
    let kept = shown.rsplit_once("lost here]").expect("notice").1;
    assert!(
        (64 * 1024..96 * 1024).contains(&kept.len()),
        "{}",
        kept.len()
    );
    assert!(kept.contains("199999\r\n200000\r\n"));
    assert!(
        terminal
            .lengths()
            .into_iter()
            .all(|length| length <= 16 * 1024)
    );
}

#[test]
fn a_channel_that_crashes_or_is_closed_is_joined_again_and_the_shell_goes_on() {
    for way in Way::BOTH {
        let (hub, _device, agent) = open(way);
        let terminal = Terminal::ready(&hub, way);
        let shell = agent.children();
        terminal.run("kept=bef''ore");
        for number in 1..=2 {
            hub.crash_channel(way.topic());
            hub.wait_until("another join", |transcript| {
                transcript.pushes(way.topic(), "phx_join").count() > number
            });
        }
        assert!(terminal.run("echo $kept").contains("before"));
        assert_eq!(agent.children(), shell);
        assert_eq!(
            joins(&hub, "device"),
            1,
            "the connection and its device stay"
        );
    }
}

#[test]
fn a_hub_that_refuses_the_console_is_asked_ever_more_rarely() {
    let hub = rig::hub().start();
    hub.behaviour(|behaviour| {
        let no = json!({"reason": "not for you"});
        behaviour.refused_joins.insert("console".into(), no);
    });
    let mut device = device(&hub, &[Way::Console]);
    device.set("RECONNECT_JITTER", "0");
    let _agent = device.start();
    hub.wait_until("four joins", |transcript| {
        transcript.pushes("console", "phx_join").count() >= 4
    });
    let times: Vec<Duration> = hub
        .transcript()
        .entries
        .iter()
        .filter(|entry| entry.from_device("console", "phx_join").is_some())
        .map(|entry| entry.t)
        .collect();
    let waits: Vec<f64> = times
        .windows(2)
        .map(|pair| (pair[1] - pair[0]).as_secs_f64())
        .collect();
    assert!(
        waits[0] >= 0.2 && waits[1] >= 0.4 && waits[2] >= 0.8,
        "{waits:?}"
    );
    assert_eq!(joins(&hub, "device"), 1);
}

#[test]
fn characters_cut_by_a_read_arrive_whole() {
    let (hub, _device, _agent) = open(Way::Console);
    let terminal = Terminal::ready(&hub, Way::Console);
    // Two halves, half a second apart; then a half that never gets its other.
    terminal.keys(
        "printf '<\\342\\202'; sleep 0.5; printf '\\254>'; echo \"<$(printf '\\342\\202')>\"\r",
    );
    terminal.expect("<€>");
    terminal.expect("<\u{fffd}>");
    terminal.expect(PROMPT);
    // Many, so that reads cut them anywhere.
    let shown = terminal.run("i=0; while [ $i -lt 3000 ]; do printf '€é𝄞'; i=$((i+1)); done");
    assert_eq!(
        shown.matches("€é𝄞").count(),
        3000 + 1,
        "the echo has it once more"
    );
    assert!(!shown.contains('\u{fffd}'));
}

#[test]
fn binary_garbage_is_shown_as_such_and_harms_nothing() {
    for serializer in ["json", "msgpack"] {
        let hub = rig::hub().start();
        let mut device = device(&hub, &[Way::Console]);
        device.set("SERIALIZER", serializer);
        let agent = device.start();
        let terminal = Terminal::ready(&hub, Way::Console);
        terminal.keys("stty -opost; head -c 300000 /dev/urandom; stty sane; echo aft''er\r");
        terminal.expect("after");
        let transcript = hub.transcript();
        assert!(terminal.shown(&transcript).contains('\u{fffd}'));
        assert!(
            terminal
                .lengths()
                .into_iter()
                .all(|length| length <= 16 * 1024)
        );
        assert_eq!(hub.connections(), 1, "{}", agent.log());
    }
}

#[test]
fn keys_that_nobody_reads_are_bounded_and_ctrl_c_drops_them() {
    let (hub, device, agent) = open(Way::Console);
    let terminal = Terminal::ready(&hub, Way::Console);
    let ran = device.path("ran");
    terminal.keys("echo sleep''ing; sleep 1000\r");
    terminal.expect("sleeping");
    // What a program has not read when it is interrupted must not be run by the shell.
    let line = format!("echo >> {}\r", ran.display());
    for _ in 0..8 {
        terminal.keys(&line.repeat(64 * 1024 / line.len()));
    }
    agent.wait_log("the shell reads no keys;");
    terminal.keys("\u{3}");
    terminal.expect(PROMPT);
    assert!(terminal.run("echo obey''ed").contains("obeyed"));
    assert!(!ran.exists(), "what was dropped was run");
}

#[test]
fn a_program_that_reads_no_keys_at_all_can_be_restarted() {
    let (hub, _device, agent) = open(Way::Console);
    let terminal = Terminal::ready(&hub, Way::Console);
    terminal.keys("stty raw -echo; echo ra''w; sleep 1000\r");
    terminal.expect("raw");
    for _ in 0..8 {
        terminal.keys(&"x".repeat(64 * 1024));
    }
    agent.wait_log("the shell reads no keys;");
    hub.push("console", "restart", json!({}));
    terminal.expect(PROMPT);
}

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
    device.set("SHELL_USER", "no-such-user");
    let _agent = device.start();
    hub.skip_seen();
    let terminal = Terminal::open(&hub, Way::Console);
    terminal.expect("there is no user \"no-such-user\"");
}

#[test]
fn both_shells_at_once_do_not_mix() {
    let hub = rig::hub().start();
    let device = device(&hub, &Way::BOTH);
    let agent = device.start();
    let console = Terminal::ready(&hub, Way::Console);
    let local = Terminal::ready(&hub, Way::LocalShell);
    console.run("name=con''sole");
    local.run("name=lo''cal");
    assert!(console.run("echo $name").contains("\nconsole\n"));
    assert!(local.run("echo $name").contains("\nlocal\n"));
    assert_eq!(agent.children().len(), 2, "one each and no more");
    hub.push("console", "restart", json!({}));
    console.expect(PROMPT);
    assert!(local.run("echo $name").contains("\nlocal\n"));
    assert_eq!(agent.children().len(), 2);
    expect_end(agent);
}

#[test]
fn a_killed_agent_leaves_no_shell() {
    let (hub, _device, agent) = open(Way::Console);
    let terminal = Terminal::ready(&hub, Way::Console);
    terminal.keys("sleep 1000\r");
    terminal.expect("sleep 1000");
    let children = agent.children();
    assert_eq!(children.len(), 1);
    drop(agent);
    children.iter().for_each(|pid| expect_gone(pid));
}

#[test]
fn output_is_coalesced_and_paced() {
    let (hub, _device, _agent) = open(Way::Console);
    let terminal = Terminal::ready(&hub, Way::Console);
    terminal.run("seq 1 30000");
    let times: Vec<Duration> = hub
        .transcript()
        .entries
        .iter()
        .filter(|entry| entry.dir == Dir::Device && entry.from_device("console", "up").is_some())
        .map(|entry| entry.t)
        .collect();
    assert!(times.len() > 10, "{}", times.len());
    // Each may be late on a busy machine, and the next then is early; over ten it shows.
    for ten in times.windows(11) {
        let took = ten[10] - ten[0];
        assert!(took >= Duration::from_millis(150), "{took:?}");
    }
}
