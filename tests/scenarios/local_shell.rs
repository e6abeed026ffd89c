//! The `local_shell` extension: offered, attached, asked for, detached.

use std::time::Duration;

use serde_json::json;

use crate::rig;
use crate::terminal::{PROMPT, Terminal, Way, barrier, device, expect_no_children, joins, open};

#[test]
fn it_is_offered_when_asked_for_and_attached_when_wanted() {
    let (hub, _device, agent) = open(Way::LocalShell);
    let join = hub.expect_join("extensions");
    assert_eq!(join.params, json!({"local_shell": "0.0.1"}));
    let attached = hub.expect_frame("extensions", "local_shell:attached", |_| true);
    assert_eq!(attached.frame.expect("frame").join_ref, join.join_ref);
    assert_eq!(agent.logged("the local shell is enabled").len(), 1);
    assert_eq!(joins(&hub, "console"), 0);
}

#[test]
fn the_offer_is_narrowed_to_what_the_hub_takes() {
    let hub = rig::hub().start();
    let takes = |list: serde_json::Value| {
        hub.behaviour(|behaviour| behaviour.advertise = Some(json!({"extensions": list})));
    };
    takes(json!({"local_shell": ["0.9.9"], "geo": ["0.0.1"]}));
    let device = device(&hub, &[Way::LocalShell]);
    let _agent = device.start();
    hub.expect_join("device");
    barrier(&hub, 1);
    assert_eq!(joins(&hub, "extensions"), 0);
    takes(json!({"local_shell": ["0.0.1"]}));
    hub.crash_channel("device");
    let join = hub.expect_join("extensions");
    assert_eq!(join.params, json!({"local_shell": "0.0.1"}));
}

#[test]
fn a_hub_that_never_asks_is_offered_it_all_the_same() {
    let hub = rig::hub().advertise(None).start();
    let device = device(&hub, &[Way::LocalShell]);
    let _agent = device.start();
    let device_join = hub.expect_frame("device", "phx_join", |_| true);
    let join = hub.expect_frame("extensions", "phx_join", |_| true);
    let waited = join.t - device_join.t;
    assert!(waited >= Duration::from_secs(4), "{waited:?}");
    Terminal::ready(&hub, Way::LocalShell);
}

#[test]
fn a_request_starts_a_shell_and_every_one_is_answered() {
    // The hub makes the first one when it attaches the extension.
    let hub = rig::hub().drive_extensions().start();
    let device = device(&hub, &[Way::LocalShell]);
    let agent = device.start();
    let status = || hub.expect_push("extensions", "local_shell:request_status", |_| true);
    assert_eq!(status(), json!({"status": "started"}));
    hub.expect_push("extensions", "local_shell:shell_output", |push| {
        push["data"]
            .as_str()
            .is_some_and(|text| text.contains(PROMPT))
    });
    for _ in 0..2 {
        hub.push("extensions", "local_shell:request_shell", json!({}));
        assert_eq!(status(), json!({"status": "started"}));
    }
    assert_eq!(agent.children().len(), 1);
    hub.push(
        "extensions",
        "local_shell:shell_input",
        json!({"data": "echo he''re\r"}),
    );
    hub.expect_push("extensions", "local_shell:shell_output", |push| {
        push["data"]
            .as_str()
            .is_some_and(|text| text.contains("here"))
    });
}

#[test]
fn a_shell_that_cannot_start_is_reported_with_the_reason() {
    let hub = rig::hub().drive_extensions().start();
    let mut device = device(&hub, &[Way::LocalShell]);
    device.set("CONSOLE_COMMAND", "/no/such/shell");
    let _agent = device.start();
    let failed = hub.expect_push("extensions", "local_shell:request_status", |_| true);
    assert_eq!(failed["status"], "failed");
    assert!(
        failed["reason"]
            .as_str()
            .expect("reason")
            .contains("/no/such/shell")
    );
}

#[test]
fn its_end_is_reported_after_its_last_words() {
    let (hub, _device, agent) = open(Way::LocalShell);
    let terminal = Terminal::ready(&hub, Way::LocalShell);
    terminal.keys("seq 1 5000; echo last wo''rds; exit 3\r");
    let exited = hub.expect_frame("extensions", "local_shell:shell_exited", |_| true);
    assert_eq!(
        exited.frame.expect("frame").payload,
        json!({"exit_code": 3})
    );
    let last_words = hub.expect_frame("extensions", "local_shell:shell_output", |push| {
        push["data"]
            .as_str()
            .is_some_and(|text| text.contains("last words"))
    });
    assert!(last_words.t <= exited.t);
    expect_no_children(&agent);
    terminal.keys("\r");
    terminal.expect("last words");
    terminal.expect(PROMPT);
}

#[test]
fn kill_shell_sends_its_signal() {
    for (payload, code) in [
        (json!({"signal": 9}), 128 + 9),
        (json!({"signal": "1"}), 128 + 1),
        (json!({}), 128 + 15),
    ] {
        let hub = rig::hub().start();
        let mut device = device(&hub, &[Way::LocalShell]);
        // An interactive shell is deaf to SIGTERM.
        device.set("CONSOLE_COMMAND", "echo \"ready> \"; exec cat");
        let agent = device.start();
        let terminal = Terminal::ready(&hub, Way::LocalShell);
        hub.push("extensions", "local_shell:kill_shell", payload);
        let exited = hub.expect_push("extensions", "local_shell:shell_exited", |_| true);
        assert_eq!(exited, json!({"exit_code": code}));
        terminal.expect("press a key to start again]");
        expect_no_children(&agent);
        // Nothing runs any more: nothing to kill.
        hub.push("extensions", "local_shell:kill_shell", json!({}));
        barrier(&hub, 1);
    }
}

#[test]
fn a_signal_reaches_what_runs_in_the_foreground() {
    let (hub, _device, _agent) = open(Way::LocalShell);
    let terminal = Terminal::ready(&hub, Way::LocalShell);
    terminal.keys("sh -c \"echo sleep''ing; exec sleep 1000\"\r");
    terminal.expect("sleeping");
    hub.push(
        "extensions",
        "local_shell:kill_shell",
        json!({"signal": 15}),
    );
    terminal.expect(PROMPT);
}

#[test]
fn a_detach_ends_the_shell_and_an_attach_brings_it_back() {
    let (hub, _device, agent) = open(Way::LocalShell);
    let selections = [
        json!("all"),
        json!("local_shell"),
        json!(["geo", "local_shell"]),
    ];
    for (before, selection) in selections.into_iter().enumerate() {
        let terminal = Terminal::open(&hub, Way::LocalShell);
        agent.wait_log_times("local-shell: opened by the hub", before + 1);
        hub.push("extensions", "detach", json!({"extensions": selection}));
        hub.expect_push("extensions", "local_shell:detached", |_| true);
        expect_no_children(&agent);
        terminal.keys("echo nobody\r");
        terminal.resize(25, 80);
        barrier(&hub, 1);
        expect_no_children(&agent);
        hub.push("extensions", "attach", json!({"extensions": selection}));
    }
    Terminal::ready(&hub, Way::LocalShell);
}

#[test]
fn what_is_not_enabled_is_answered_with_an_error() {
    let (hub, _device, _agent) = open(Way::LocalShell);
    hub.expect_join("extensions");
    hub.push("extensions", "attach", json!({"extensions": ["geo"]}));
    let error = hub.expect_push("extensions", "geo:error", |_| true);
    assert_eq!(error, json!({"reason": "not enabled on this device"}));
}

#[test]
fn a_hub_that_answers_detach_gets_no_more() {
    let hub = rig::hub().start();
    let device = device(&hub, &[Way::LocalShell]);
    let agent = device.start();
    let terminal = Terminal::ready(&hub, Way::LocalShell);
    // From here on the hub knows no such extension.
    hub.push("extensions", "bogus:event", json!({}));
    let transcript = hub.transcript();
    let frame = transcript
        .entries
        .iter()
        .find_map(|entry| entry.from_device("extensions", "local_shell:attached"))
        .expect("attached");
    hub.push_frame(json!([
        frame.join_ref,
        frame.reference,
        "extensions",
        "phx_reply",
        {"status": "error", "response": "detach"}
    ]));
    hub.expect_push("extensions", "local_shell:detached", |_| true);
    expect_no_children(&agent);
    terminal.keys("echo nobody\r");
    barrier(&hub, 1);
    expect_no_children(&agent);
    assert_eq!(
        agent.logged("ignoring unknown event \"bogus:event\"").len(),
        1
    );
}

#[test]
fn a_hub_that_does_not_attach_it_any_more_ends_the_shell() {
    let (hub, _device, agent) = open(Way::LocalShell);
    Terminal::ready(&hub, Way::LocalShell);
    hub.behaviour(|behaviour| behaviour.extensions.clear());
    hub.close(1012);
    agent.wait_log("the hub attaches []");
    expect_no_children(&agent);
}
