//! A person's terminal on a device's shell, by way of the control port.
//!
//! `POST /devices/ID/console {"local_shell": BOOL, "rows": N, "cols": N}` is answered with
//! 200; from then on both sides send JSON, a line each: `{"data": TEXT}` both ways, from the
//! person also `{"rows": N, "cols": N}`, to the person also `{"note": TEXT}`.

use crate::hub::Hub;
use crate::state::State;
use serde_json::{Value, json};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

/// Bytes of earlier output that whoever comes later is shown.
const REPLAY: usize = 8 * 1024;

/// Which shell of which device.
#[derive(Debug, Clone)]
pub struct Seat {
    pub identifier: String,
    pub local_shell: bool,
}

impl Seat {
    fn topic(&self) -> &'static str {
        if self.local_shell {
            "extensions"
        } else {
            "console"
        }
    }

    fn output(&self) -> &'static str {
        if self.local_shell {
            "local_shell:shell_output"
        } else {
            "up"
        }
    }

    /// The push a line of the person's becomes.
    fn push(&self, line: &Value) -> Option<(&'static str, Value)> {
        let (rows, cols) = (&line["rows"], &line["cols"]);
        match (&line["data"], self.local_shell) {
            (Value::String(data), false) => Some(("dn", json!({"data": data}))),
            (Value::String(data), true) => Some(("local_shell:shell_input", json!({"data": data}))),
            _ if !rows.is_u64() || !cols.is_u64() => None,
            (_, false) => Some(("window_size", json!({"height": rows, "width": cols}))),
            (_, true) => Some((
                "local_shell:window_size",
                json!({"rows": rows, "cols": cols}),
            )),
        }
    }

    /// Whether the device could be spoken to now.
    pub fn check(&self, hub: &Hub) -> Result<(), String> {
        let state = hub.shared.lock();
        let links = state.links.values();
        let mut links = links.filter(|link| link.identifier == self.identifier);
        let Some(link) = links.next_back() else {
            return Err(format!("{} is not connected", self.identifier));
        };
        let setting = match self.local_shell {
            true => "NERVES_HUB_LOCAL_SHELL=1",
            false => "NERVES_HUB_CONSOLE=1",
        };
        match link.topics.iter().any(|topic| topic == self.topic()) {
            true => Ok(()),
            false => Err(format!(
                "{} has not joined {}; does it have {setting}?",
                self.identifier,
                self.topic()
            )),
        }
    }
}

/// Serves the person until either side goes.
pub fn serve(hub: &Arc<Hub>, seat: &Seat, tcp: TcpStream, rest: Vec<u8>) -> io::Result<()> {
    tcp.set_read_timeout(None)?;
    tcp.set_nodelay(true)?;
    let mut out = tcp.try_clone()?;
    let (shown, replay) = replay(hub, seat);
    send(&mut out, &json!({"data": replay}))?;
    let gone = Arc::new(AtomicBool::new(false));
    let (listener_hub, listener_seat, flag) = (hub.clone(), seat.clone(), gone.clone());
    let mut notes = tcp.try_clone()?;
    thread::Builder::new()
        .name("terminal-in".into())
        .spawn(move || {
            let input = BufReader::new(io::Cursor::new(rest).chain(tcp));
            for line in input.lines().map_while(Result::ok) {
                if let Err(why) = forward(&listener_hub, &listener_seat, &line) {
                    let _ = send(&mut notes, &json!({"note": why}));
                }
            }
            flag.store(true, Ordering::SeqCst);
            listener_hub.shared.change(|_| ());
        })?;
    show(hub, seat, shown, &gone, &mut out)
}

fn forward(hub: &Hub, seat: &Seat, line: &str) -> Result<(), String> {
    let line: Value = serde_json::from_str(line).map_err(|error| error.to_string())?;
    let (event, payload) = seat.push(&line).ok_or("neither data nor a window size")?;
    hub.try_push(&seat.identifier, seat.topic(), event, payload)
}

/// How far the transcript was read, and the end of what was said so far.
fn replay(hub: &Hub, seat: &Seat) -> (usize, String) {
    let state = hub.shared.lock();
    let end = state.transcript.entries.len();
    let mut pieces = Vec::new();
    let mut bytes = 0;
    for at in (0..end).rev() {
        if let Some(text) = said(&state, seat, at) {
            bytes += text.len();
            pieces.push(text);
        }
        if bytes >= REPLAY {
            break;
        }
    }
    pieces.reverse();
    (end, pieces.concat())
}

fn said(state: &State, seat: &Seat, at: usize) -> Option<String> {
    let entry = &state.transcript.entries[at];
    let frame = entry.from_device(seat.topic(), seat.output())?;
    let upgrade = state.upgrades.get(entry.conn as usize - 1)?;
    let ours = upgrade.identifier.as_deref() == Some(&seat.identifier);
    frame.payload["data"]
        .as_str()
        .filter(|_| ours)
        .map(str::to_owned)
}

/// Sends what the device says from entry `at` on, and when it comes and goes.
fn show(
    hub: &Hub,
    seat: &Seat,
    mut at: usize,
    gone: &AtomicBool,
    out: &mut TcpStream,
) -> io::Result<()> {
    let mut online = true;
    loop {
        let news = hub.shared.wait(None, |state| {
            let entries = at..state.transcript.entries.len();
            let text: String = entries.filter_map(|at| said(state, seat, at)).collect();
            at = state.transcript.entries.len();
            let mut links = state.links.values();
            let is_online = links.any(|link| link.identifier == seat.identifier);
            let turned = is_online != online;
            online = is_online;
            let over = gone.load(Ordering::SeqCst);
            (over || turned || !text.is_empty()).then_some((over, turned, text))
        });
        let Some((over, turned, text)) = news else {
            return Ok(());
        };
        if !text.is_empty() {
            send(out, &json!({"data": text}))?;
        }
        if turned {
            let what = if online {
                "is back"
            } else {
                "has gone; waiting"
            };
            send(out, &json!({"note": format!("{} {what}", seat.identifier)}))?;
        }
        if over {
            return Ok(());
        }
    }
}

fn send(out: &mut TcpStream, line: &Value) -> io::Result<()> {
    out.write_all(format!("{line}\n").as_bytes())
}
