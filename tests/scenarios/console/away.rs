//! A hub that comes and goes: the shell stays, and what it says is not lost.

use std::time::Duration;

use serde_json::json;

use crate::rig;
use crate::terminal::{PROMPT, Terminal, Way, device, joins, open};

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
