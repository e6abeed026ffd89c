//! Consoles on real terminals, mostly by both ways: the console channel and the local shell.

mod away;
mod process;

use std::time::{Duration, Instant};

use devhub::Dir;
use serde_json::json;

use crate::rig::{self, Agent, JOINED};
use crate::terminal::{
    PROMPT, Terminal, Way, barrier, device, expect_end, expect_gone, expect_no_children, joins,
    open,
};

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
    expect_no_children(&agent);
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
    expect_no_children(&agent);
    assert!(!threads(&agent).contains(&"console".to_owned()));
    Terminal::ready(&hub, Way::Console);
    assert_eq!(agent.children().len(), 1);
    assert!(threads(&agent).contains(&"console".to_owned()));
    agent.wait_log("console: opened by the hub");
}

/// The names of the agent's threads.
fn threads(agent: &Agent) -> Vec<String> {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", agent.pid())).expect("tasks");
    let names = tasks.filter_map(|task| {
        let name = std::fs::read_to_string(task.ok()?.path().join("comm")).ok()?;
        Some(name.trim().to_owned())
    });
    names.collect()
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
        terminal.keys("sh -c \"echo sleep''ing; exec sleep 1000\"\r");
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
    expect_no_children(&agent);
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
    terminal.keys("sh -c \"echo sleep''ing; exec sleep 1000\"\r");
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
