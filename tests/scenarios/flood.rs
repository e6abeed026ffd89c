//! Floods on a shell: what they cost, and what they must not cost. `scripts/bench-console`
//! measures the release build, and how much an update is slowed down.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use devhub::Hub;
use nix::sys::socket::{setsockopt, sockopt};

use crate::rig::{self, Agent, Device, standin};
use crate::stage::Stage;
use crate::terminal::{PROMPT, Terminal, Way, device};

const BEAT: Duration = Duration::from_millis(500);
/// What a flood may need above the idle agent, KiB.
const ALLOWED: u64 = 2048;

/// When the hub got each of these pushes.
fn times(hub: &Hub, topic: &str, event: &str) -> Vec<Duration> {
    let transcript = hub.transcript();
    let entries = transcript.entries.iter();
    entries
        .filter(|entry| entry.from_device(topic, event).is_some())
        .map(|entry| entry.t)
        .collect()
}

fn longest_gap(times: &[Duration]) -> Duration {
    let gaps = times.windows(2).map(|pair| pair[1] - pair[0]);
    gaps.max().unwrap_or_default()
}

fn await_heartbeats(hub: &Hub, count: usize) {
    let seen = times(hub, "phoenix", "heartbeat").len();
    for _ in 0..count {
        hub.expect_heartbeat();
    }
    assert!(times(hub, "phoenix", "heartbeat").len() >= seen.max(count));
}

/// A shell that reads no files, a fast heart, and a log that costs little.
fn calm(device: &mut Device) {
    device.set("HEARTBEAT_INTERVAL", "500ms");
    device.set("LOG", "info");
}

/// Lets `command` flood the console for so many heartbeats.
fn flood(command: &str, heartbeats: usize) {
    let hub = rig::hub().start();
    let mut device = device(&hub, &[Way::Console]);
    calm(&mut device);
    let agent = device.start();
    let terminal = Terminal::ready(&hub, Way::Console);
    await_heartbeats(&hub, 1);
    let idle = forget_peak(&agent);
    terminal.keys(&format!("{command}\r"));
    await_heartbeats(&hub, heartbeats);
    let pressed = Instant::now();
    // Whatever a binary flood has made of the terminal is undone.
    terminal.keys("\u{3}");
    terminal.keys("stty sane; echo calm''again\r");
    terminal.expect("calmagain");
    let obeyed = pressed.elapsed();
    let peak = agent.memory("VmHWM");
    let gap = longest_gap(&times(&hub, "phoenix", "heartbeat"));
    let pushes = terminal.lengths();
    eprintln!(
        "{command}: idle {idle} KiB, peak {peak} KiB; longest gap between heartbeats {gap:?}; \
         Ctrl-C obeyed after {obeyed:?}; {} pushes, {} bytes",
        pushes.len(),
        pushes.iter().sum::<usize>()
    );
    assert!(peak <= idle + ALLOWED, "idle {idle} KiB, peak {peak} KiB");
    assert!(gap < 2 * BEAT + Duration::from_secs(1), "{gap:?}");
    assert!(obeyed < Duration::from_secs(3), "{obeyed:?}");
    assert!(pushes.len() > heartbeats, "it was no flood");
    assert!(pushes.into_iter().all(|length| length <= 16 * 1024));
    assert_eq!(hub.connections(), 1);
}

/// Makes `VmHWM` start again from what is resident now; that, in KiB.
fn forget_peak(agent: &Agent) -> u64 {
    std::fs::write(format!("/proc/{}/clear_refs", agent.pid()), "5").expect("clear_refs");
    agent.memory("VmHWM")
}

#[test]
fn a_flood_of_lines_costs_no_memory_and_no_heartbeat() {
    flood("yes", 5);
}

#[test]
fn a_flood_of_garbage_costs_no_memory_and_no_heartbeat() {
    flood("cat /dev/urandom", 5);
}

#[test]
#[ignore = "takes half a minute; a_flood_… is its short form"]
fn floods_of_ten_seconds() {
    flood("yes", 20);
    flood("cat /dev/urandom", 20);
    flood(
        "yes 'long lines, in colour \u{1b}[31mred\u{1b}[0m' & yes; wait",
        20,
    );
}

#[test]
fn an_update_goes_first_and_the_flood_goes_on() {
    let stage = Stage::prepared(&standin(), |_, device| {
        device.set("FWUP_TASK", "switch").set("CONSOLE", "1");
        let command = format!("PS1='{PROMPT}' ENV= exec /bin/sh -i");
        device.set("CONSOLE_COMMAND", &command);
        calm(device);
    });
    let (forged, firmware) = stage.forge("forged.fw", 8 * 1024);
    let terminal = Terminal::ready(&stage.hub, Way::Console);
    terminal.keys("yes\r");
    stage.hub.expect_push("console", "up", |push| {
        push["data"]
            .as_str()
            .is_some_and(|text| text.contains("y\r\ny\r\n"))
    });
    // A second and more of an update that waits for its server.
    stage.offer_halting_at(4 * 1024 * 1024, &firmware);
    let from = stage.hub.transcript().entries.len();
    await_heartbeats(&stage.hub, 4);
    let transcript = stage.hub.transcript();
    let during: Vec<Duration> = transcript.entries[from..]
        .iter()
        .filter(|entry| entry.from_device("console", "up").is_some())
        .map(|entry| entry.t)
        .collect();
    assert!(during.len() > 2, "the shell is not stopped");
    // Five a second, and some that were late or had been on their way.
    let took = during[during.len() - 1] - during[0];
    let most = took.as_millis() / 200 + 3;
    assert!(during.len() as u128 <= most, "{} in {took:?}", during.len());
    stage.hub.store().release();
    stage.hub.expect_status("completed");
    stage.agent.wait_log("reboot command accepted");
    forged.assert_on(&stage.device);
}

/// Passes on what the device sends at `rate` bytes a second, through as little buffer as
/// the kernel allows, and the other direction as it comes; the URL to it.
fn slow_line(hub: &Hub, rate: usize) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("listener");
    setsockopt(&listener, sockopt::RcvBuf, &4096).expect("SO_RCVBUF");
    let address = listener.local_addr().expect("address");
    let target = format!("127.0.0.1:{}", hub.port());
    std::thread::spawn(move || {
        while let Ok((device, _)) = listener.accept() {
            let server = TcpStream::connect(&target).expect("hub");
            let (device_in, server_out) = pair(&device, &server);
            std::thread::spawn(move || pass(device_in, server_out, Some(rate)));
            std::thread::spawn(move || pass(server, device, None));
        }
    });
    format!("ws://{address}")
}

fn pair(a: &TcpStream, b: &TcpStream) -> (TcpStream, TcpStream) {
    (a.try_clone().expect("clone"), b.try_clone().expect("clone"))
}

fn pass(mut from: TcpStream, mut to: TcpStream, rate: Option<usize>) {
    let mut buffer = [0; 2048];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        if let Some(rate) = rate {
            // A line's speed is time that passes; nothing is waited for.
            std::thread::sleep(Duration::from_secs_f64(count as f64 / rate as f64));
        }
        if to.write_all(&buffer[..count]).is_err() {
            return;
        }
    }
    let _ = to.shutdown(std::net::Shutdown::Write);
}

#[test]
fn on_a_slow_line_a_heartbeat_waits_for_a_chunk_and_not_for_a_flood() {
    let hub = rig::hub().start();
    let mut device = device(&hub, &[Way::Console]);
    calm(&mut device);
    device.set("HEARTBEAT_INTERVAL", "2s");
    device.set("HOST", &slow_line(&hub, 64 * 1024));
    let agent = device.start();
    let terminal = Terminal::ready(&hub, Way::Console);
    terminal.keys("yes\r");
    await_heartbeats(&hub, 4);
    let pressed = Instant::now();
    terminal.keys("\u{3}");
    terminal.expect(PROMPT);
    let obeyed = pressed.elapsed();
    let gap = longest_gap(&times(&hub, "phoenix", "heartbeat"));
    eprintln!("64 KiB/s: longest gap {gap:?} of 2 s, Ctrl-C obeyed after {obeyed:?}");
    assert!(gap < Duration::from_secs(4), "{gap:?}");
    assert!(obeyed < Duration::from_secs(4), "{obeyed:?}");
    assert_eq!(hub.connections(), 1, "{}", agent.log());
}
