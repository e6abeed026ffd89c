//! Support scripts, as the hub sends them and as it reads the answers.

use std::time::{Duration, Instant};

use devhub::{Dir, Hub};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::rig::{self, Agent, Device, standin, within};
use crate::stage::Stage;
use crate::terminal::expect_no_children;

fn send(hub: &Hub, reference: &str, text: &str) {
    let payload = json!({"ref": reference, "text": text});
    hub.push("device", "scripts/run", payload);
}

fn answer(hub: &Hub, reference: &str) -> Value {
    hub.expect_push("device", "scripts/run", |payload| {
        payload["ref"] == reference
    })
}

fn run(hub: &Hub, text: &str) -> Value {
    send(hub, "r", text);
    answer(hub, "r")
}

/// What the hub's page shows of an answer.
fn shown(answer: &Value) -> String {
    let word = |name: &str| answer[name].as_str().expect(name);
    format!("{}\n{}", word("output"), word("return"))
        .trim()
        .to_owned()
}

fn launch(hub: &Hub) -> (Device, Agent) {
    let (device, agent) = rig::launch(hub);
    hub.expect_join("device");
    (device, agent)
}

#[test]
fn a_script_s_output_and_status_reach_the_page() {
    for serializer in ["json", "msgpack"] {
        let hub = rig::hub().start();
        let mut device = Device::new(&hub);
        device.set("SERIALIZER", serializer);
        let agent = device.start();
        hub.expect_join("device");
        let answer = run(&hub, "echo out; echo err >&2; printf '\\303\\244\\377'");
        assert_eq!(
            answer,
            json!({"ref": "r", "result": "completed", "output": "out\nerr\nä\u{fffd}", "return": "0"})
        );
        assert_eq!(shown(&run(&hub, "echo bad; exit 3")), "bad\n\n3");
        assert_eq!(
            shown(&run(&hub, "#!/usr/bin/env python3\nprint(6*7)")),
            "42\n\n0"
        );
        expect_no_children(&agent);
        let left = std::fs::read_dir(device.path("data/scripts")).expect("folder");
        assert_eq!(left.count(), 0);
    }
}

#[test]
fn a_script_that_takes_too_long_is_killed_with_all_it_started_and_answered_in_time() {
    let hub = rig::hub().start();
    let (device, agent) = launch(&hub);
    let mark = format!("41{}", agent.pid());
    let text = format!(
        "trap '' TERM HUP INT; echo begun; (trap '' TERM; sleep {mark} & sleep {mark}) & wait"
    );
    let begin = Instant::now();
    hub.push(
        "device",
        "scripts/run",
        json!({"ref": "r", "text": text, "timeout": 1000}),
    );
    let answer = answer(&hub, "r");
    assert!(
        begin.elapsed() < Duration::from_secs(5),
        "{:?}",
        begin.elapsed()
    );
    assert_eq!(answer["result"], "error");
    assert_eq!(answer["reason"], "killed: not done within 1s");
    assert_eq!(shown(&answer), "begun\n[killed: not done within 1s]");
    assert_eq!(processes(&mark), 0);
    expect_no_children(&agent);
    drop(device);
}

/// Processes with this word in their arguments.
fn processes(word: &str) -> usize {
    let entries = std::fs::read_dir("/proc").expect("proc").flatten();
    let with_word = entries.filter(|entry| {
        let arguments = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&arguments).contains(word)
    });
    with_word.count()
}

#[test]
fn however_long_the_hub_says_it_waits_the_answer_comes_before_it_gives_up() {
    let hub = rig::hub().deadline(Duration::from_secs(15)).start();
    let (_device, _agent) = launch(&hub);
    hub.push(
        "device",
        "scripts/run",
        json!({"ref": "r", "text": "sleep 100", "timeout": 60000}),
    );
    assert_eq!(answer(&hub, "r")["result"], "error");
}

#[test]
fn a_megabyte_of_output_is_cut_honestly() {
    let hub = rig::hub().start();
    let (_device, agent) = launch(&hub);
    let answer = run(
        &hub,
        "yes 0123456789abcde | head -c 1048576; echo $? >&2; exit 5",
    );
    let output = answer["output"].as_str().expect("output");
    assert_eq!(answer["return"], "5");
    assert!(output.len() < 70_000, "{}", output.len());
    assert!(output.starts_with("0123456789abcde\n"));
    let (_, mark) = output.split_at(64 * 1024);
    assert_eq!(
        mark,
        "\n[output cut: 1048578 bytes were printed, the first 65536 are above]"
    );
    // A flood is no different.
    let before = agent.memory("RssAnon");
    hub.push(
        "device",
        "scripts/run",
        json!({"ref": "f", "text": "yes", "timeout": 2000}),
    );
    let flood = hub.expect_push("device", "scripts/run", |payload| payload["ref"] == "f");
    assert!(flood["output"].as_str().expect("output").len() < 70_000);
    let after = agent.memory("RssAnon");
    assert!(after < before + 1024, "{before} KiB, {after} KiB");
}

#[test]
fn scripts_that_are_off_are_answered_all_the_same() {
    let hub = rig::hub().start();
    let mut device = Device::new(&hub);
    device.set("SCRIPTS", "0");
    hub.behaviour(|behaviour| behaviour.connecting_code = Some("IO.puts(1)".to_owned()));
    let _agent = device.start();
    hub.expect_join("device");
    assert_eq!(answer(&hub, "connecting_code")["result"], "error");
    let file = device.path("ran");
    let answer = run(&hub, &format!("touch {}", file.display()));
    assert_eq!(answer["result"], "error");
    assert_eq!(answer["return"], "");
    let reason = answer["reason"].as_str().expect("reason");
    assert!(reason.contains("not enabled"), "{reason}");
    assert!(!file.exists());
}

#[test]
fn ten_at_once_are_all_answered() {
    let hub = rig::hub().start();
    let (device, agent) = launch(&hub);
    // Each waits for the others of its four, so that they really run at the same time.
    let gate = device.path("gate");
    std::fs::create_dir(&gate).expect("gate");
    for n in 0..10 {
        let text = format!(
            "cd {0}; touch {n}; until [ $(ls | wc -l) -ge 4 ]; do sleep 0.02; done; echo {n}",
            gate.display()
        );
        send(&hub, &format!("r{n}"), &text);
    }
    // In whatever order they end.
    let mut answers: Vec<Value> = (0..10)
        .map(|_| hub.expect_push("device", "scripts/run", |_| true))
        .collect();
    answers.sort_by_key(|answer| answer["ref"].to_string());
    for (n, answer) in answers.iter().enumerate() {
        assert_eq!(answer["ref"], format!("r{n}"));
        assert_eq!(shown(answer), format!("{n}\n\n0"));
    }
    expect_no_children(&agent);
}

#[test]
fn more_than_run_and_wait_are_refused() {
    let hub = rig::hub().start();
    let (device, _agent) = launch(&hub);
    let open = device.path("open");
    let text = format!("until [ -e {} ]; do sleep 0.05; done", open.display());
    for n in 0..21 {
        send(&hub, &format!("r{n}"), &text);
    }
    let refused = answer(&hub, "r20");
    assert_eq!(refused["result"], "error");
    assert!(shown(&refused).is_empty() || refused["reason"].is_string());
    std::fs::write(open, "").expect("open");
    for _ in 0..20 {
        let done = hub.expect_push("device", "scripts/run", |_| true);
        assert_eq!(done["return"], "0", "{done}");
    }
}

#[test]
fn code_for_every_connect_runs_on_every_connect() {
    let hub = rig::hub().start();
    let device = Device::new(&hub);
    let ran = device.path("ran");
    let code = format!("echo x >> {0}; wc -l < {0}", ran.display());
    hub.behaviour(|behaviour| behaviour.connecting_code = Some(code));
    let _agent = device.start();
    for n in ["1", "2", "3"] {
        let answer = answer(&hub, "connecting_code");
        assert_eq!(answer["result"], "completed");
        assert_eq!(answer["output"].as_str().map(str::trim), Some(n));
        hub.close(1000);
    }
}

#[test]
fn a_script_knows_the_device_and_no_secret() {
    let hub = rig::hub().start();
    let mut device = Device::new(&hub);
    device
        .set("FWUP_ENV", "TOKEN=hush-fwup")
        .set("PROXY", "none");
    let proxy = "http://user:hush-proxy@127.0.0.1:9";
    device.env.insert("http_proxy".into(), proxy.into());
    device.env.insert("HTTP_PROXY".into(), proxy.into());
    device.env.insert("no_proxy".into(), "localhost".into());
    let _agent = device.start();
    hub.expect_join("device");
    let text = "env; tr '\\0' '\\n' < /proc/$PPID/cmdline; ls -l /proc/self/fd";
    let answer = run(&hub, text);
    let output = answer["output"].as_str().expect("output");
    for line in [
        format!("NERVES_HUB_DEVICE_IDENTIFIER={}", rig::IDENTIFIER),
        format!("NERVES_HUB_FIRMWARE_UUID={}", rig::RUNNING_UUID),
        "NERVES_HUB_FIRMWARE_VERSION=1.0.0".to_owned(),
        "no_proxy=localhost".to_owned(),
    ] {
        assert!(
            output.lines().any(|other| other == line),
            "{line}: {output}"
        );
    }
    for secret in [rig::PRODUCT_SECRET, "hush-fwup", "hush-proxy"] {
        assert!(!output.contains(secret), "{secret}: {output}");
    }
    assert!(!output.contains("socket:"), "{output}");
}

#[test]
fn elixir_gets_a_hint() {
    let hub = rig::hub().start();
    let (_device, _agent) = launch(&hub);
    let answer = run(&hub, "Nerves.Runtime.KV.get_all() |> IO.inspect()");
    assert_eq!(answer["result"], "completed");
    assert_ne!(answer["return"], "0");
    assert!(
        shown(&answer).contains("this looks like Elixir"),
        "{answer}"
    );
    assert!(!shown(&run(&hub, "no-such-program")).contains("Elixir"));
}

#[test]
fn an_answer_without_its_channel_is_dropped_and_the_next_script_runs() {
    let hub = rig::hub().start();
    let (device, agent) = launch(&hub);
    let (there, open) = (device.path("there"), device.path("open"));
    let text = format!(
        "touch {}; until [ -e {} ]; do sleep 0.02; done; echo late",
        there.display(),
        open.display()
    );
    send(&hub, "r1", &text);
    agent.wait_log("support script r1 started");
    hub.drop_tcp();
    hub.expect_join("device");
    std::fs::write(&open, "").expect("open");
    agent.wait_log("answer to support script r1 dropped");
    assert_eq!(shown(&run(&hub, "echo well")), "well\n\n0");
    let transcript = hub.transcript();
    let answers = transcript.pushes("device", "scripts/run");
    assert_eq!(answers.filter(|payload| payload["ref"] == "r1").count(), 0);
}

#[test]
fn leaving_takes_scripts_along() {
    let hub = rig::hub().start();
    let (device, mut agent) = launch(&hub);
    let mark = format!("42{}", agent.pid());
    send(
        &hub,
        "r",
        &format!("trap '' TERM; sleep {mark} & sleep {mark}"),
    );
    let seen = mark.clone();
    assert!(within(rig::PATIENCE, move || {
        while processes(&seen) < 2 {
            std::thread::yield_now();
        }
        true
    }));
    assert_eq!(agent.stop(), 0);
    assert_eq!(processes(&mark), 0);
    let left = std::fs::read_dir(device.path("data/scripts")).expect("folder");
    assert_eq!(left.count(), 0);
}

#[test]
fn what_a_killed_agent_left_is_removed_at_the_start() {
    let hub = rig::hub().start();
    let (device, mut agent) = launch(&hub);
    let there = device.path("there");
    send(&hub, "r", &format!("touch {}; sleep 1000", there.display()));
    let seen = there.clone();
    assert!(within(rig::PATIENCE, move || {
        while !seen.exists() {
            std::thread::yield_now();
        }
        true
    }));
    agent.signal(Signal::SIGKILL);
    agent.wait_exit();
    let left = || {
        std::fs::read_dir(device.path("data/scripts"))
            .expect("folder")
            .count()
    };
    assert_eq!(left(), 1);
    let _agent = device.start();
    hub.expect_join("device");
    assert_eq!(left(), 0);
}

#[test]
fn scripts_bombs_and_floods_delay_neither_heartbeats_nor_an_update() {
    let stage = Stage::new(
        &standin(),
        &[("HEARTBEAT_INTERVAL", "2s"), ("FWUP_TASK", "switch")],
    );
    let hub = &stage.hub;
    let bomb = "#!/usr/bin/env python3\n\
                import os, signal, time\n\
                signal.signal(signal.SIGTERM, signal.SIG_IGN)\n\
                end = time.time() + 30\n\
                for n in range(80):\n    \
                    if os.fork() == 0:\n        \
                        os.setpgid(0, 0)\n        \
                        while time.time() < end:\n            \
                            time.sleep(0.2)\n            \
                            if os.fork(): os._exit(0)\n        \
                        os._exit(0)\n\
                time.sleep(60)";
    for (reference, text) in [
        ("bomb", bomb),
        ("flood", "yes"),
        ("spin", "while :; do :; done"),
    ] {
        hub.push(
            "device",
            "scripts/run",
            json!({"ref": reference, "text": text, "timeout": 5000}),
        );
    }
    let (forged, firmware) = stage.forge("forged.fw", 4096);
    hub.offer(&firmware);
    for _ in 0..3 {
        let answer = hub.expect_push("device", "scripts/run", |_| true);
        assert_eq!(answer["result"], "error", "{answer}");
    }
    hub.expect_status("completed");
    stage.agent.wait_log("reboot command accepted");
    forged.assert_on(&stage.device);
    assert_eq!(hub.connections(), 1, "the link was lost");
    // On a machine this busy dying may take longer than answering.
    let scripts = stage.device.path("data/scripts").display().to_string();
    let deadline = Instant::now() + rig::PATIENCE;
    while processes(&scripts) > 0 || !stage.agent.children().is_empty() {
        assert!(Instant::now() < deadline, "{:?}", stage.agent.children());
        std::thread::yield_now();
    }
    let transcript = hub.transcript();
    let beats: Vec<Duration> = transcript
        .entries
        .iter()
        .filter(|entry| {
            entry.dir == Dir::Device && entry.from_device("phoenix", "heartbeat").is_some()
        })
        .map(|entry| entry.t)
        .collect();
    let longest = beats.windows(2).map(|pair| pair[1] - pair[0]).max();
    eprintln!("{} heartbeats, longest pause {longest:?}", beats.len());
    assert!(
        longest.expect("beats") < Duration::from_secs(5),
        "{longest:?}"
    );
}
