//! The control port: JSON over HTTP, so that scripts in any language can drive a hub.
//!
//! `GET /devices`, `GET /devices/ID`, `POST /devices/ID/offer {"firmware": NAME}`,
//! `/reboot`, `/identify`, `/push {"topic", "event", "payload"}`, `/crash {"topic"}`,
//! `/close {"code"}`, `GET /transcript[?since=N]`, `GET /firmware`,
//! `POST /deploy {"firmware": NAME or null}`; `POST /devices/ID/console` is a terminal, see
//! `terminal`.

use crate::catalog::Catalog;
use crate::http::{self, Request};
use crate::hub::Hub;
use crate::net::Listener;
use crate::terminal::{self, Seat};
use serde_json::{Value, json};
use std::io::{self, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

const TIMEOUT: Duration = Duration::from_secs(10);

/// A status and why.
type Failure = (u16, String);
type Answer = Result<Value, Failure>;

/// A running control port; stops when dropped.
pub struct Control {
    listener: Listener,
}

impl Control {
    pub fn start(hub: Arc<Hub>, catalog: Catalog, listen: SocketAddr) -> io::Result<Control> {
        let desk = Arc::new(Desk {
            hub,
            catalog: Mutex::new(catalog),
        });
        let listener = Listener::start("control-accept", listen, move |tcp| {
            let desk = desk.clone();
            let thread = thread::Builder::new().name("control-conn".into());
            // A caller that goes away needs no answer.
            let _ = thread.spawn(move || desk.serve(tcp));
        })?;
        Ok(Control { listener })
    }

    pub fn address(&self) -> SocketAddr {
        self.listener.address
    }
}

struct Desk {
    hub: Arc<Hub>,
    catalog: Mutex<Catalog>,
}

impl Desk {
    fn serve(&self, mut tcp: TcpStream) -> io::Result<()> {
        tcp.set_read_timeout(Some(TIMEOUT))?;
        let Some((head, rest)) = http::read_request(&mut tcp)? else {
            return Ok(());
        };
        if let Some(device) = console(&head) {
            return self.serve_terminal(device, tcp, &head, rest);
        }
        let body = http::read_body(&mut tcp, &head, rest)?;
        let (status, answer) = match parse(&body).and_then(|body| self.answer(&head, &body)) {
            Ok(answer) => (200, answer),
            Err((status, error)) => (status, json!({"error": error})),
        };
        let headers = [("content-type".to_owned(), "application/json".to_owned())];
        http::respond(&mut tcp, status, &headers, format!("{answer}\n").as_bytes())
    }

    fn serve_terminal(
        &self,
        identifier: String,
        mut tcp: TcpStream,
        head: &Request,
        rest: Vec<u8>,
    ) -> io::Result<()> {
        let body = http::read_body(&mut tcp, head, rest)?;
        let seat = |body: Value| {
            let local_shell = body["local_shell"] == true;
            let seat = Seat {
                identifier,
                local_shell,
            };
            seat.check(&self.hub).map_err(|why| (409, why))?;
            Ok((seat, body))
        };
        match parse(&body).and_then(seat) {
            Err((status, error)) => {
                let answer = json!({"error": error});
                http::respond(&mut tcp, status, &[], format!("{answer}\n").as_bytes())
            }
            Ok((seat, body)) => {
                tcp.write_all(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n")?;
                let size = json!({"rows": body["rows"], "cols": body["cols"]});
                terminal::serve(&self.hub, &seat, tcp, format!("{size}\n").into_bytes())
            }
        }
    }

    fn answer(&self, head: &Request, body: &Value) -> Answer {
        let parts: Vec<String> = head.path.split('/').skip(1).map(decode).collect();
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        match (head.method.as_str(), parts.as_slice()) {
            ("GET", ["devices"]) => {
                Ok(self.hub.books().iter().map(|book| book.to_json()).collect())
            }
            ("GET", ["devices", device]) => self.device(device),
            ("POST", ["devices", device, action]) => self.act(device, action, body),
            ("GET", ["transcript"]) => self.transcript(head),
            ("GET", ["firmware"]) => Ok(self.catalog().list(&self.hub)),
            ("POST", ["deploy"]) => self.deploy(body),
            (method, _) => Err((404, format!("no {method} {} here", head.path))),
        }
    }

    fn catalog(&self) -> std::sync::MutexGuard<'_, Catalog> {
        self.catalog
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn device(&self, device: &str) -> Answer {
        let book = self.hub.book(device);
        book.map(|book| book.to_json())
            .ok_or_else(|| (404, format!("unknown device {device}")))
    }

    fn act(&self, device: &str, action: &str, body: &Value) -> Answer {
        self.device(device)?;
        let done = match action {
            "offer" => {
                let name = text(body, "firmware")?;
                let firmware = self
                    .catalog()
                    .get(&self.hub, name)
                    .map_err(|why| (404, why))?;
                self.hub.try_offer(device, &firmware)
            }
            "reboot" | "identify" => self.hub.try_push(device, "device", action, json!({})),
            "push" => {
                let payload = body.get("payload").cloned().unwrap_or_else(|| json!({}));
                self.hub
                    .try_push(device, text(body, "topic")?, text(body, "event")?, payload)
            }
            "crash" => self.hub.try_crash(device, text(body, "topic")?),
            "close" => {
                let code = body.get("code").map_or(Some(1000), Value::as_u64);
                let code = code.and_then(|code| u16::try_from(code).ok());
                let code = code.ok_or_else(|| (400, "\"code\" must be 1000…4999".to_owned()))?;
                self.hub.try_close(device, code)
            }
            other => return Err((404, format!("unknown action {other}"))),
        };
        done.map(|()| json!({"ok": true})).map_err(|why| (409, why))
    }

    fn deploy(&self, body: &Value) -> Answer {
        let firmware = match &body["firmware"] {
            Value::Null => None,
            Value::String(name) => Some(
                self.catalog()
                    .get(&self.hub, name)
                    .map_err(|why| (404, why))?,
            ),
            _ => return Err((400, "\"firmware\" must be a file name or null".into())),
        };
        self.hub.deploy(firmware.as_ref());
        Ok(json!({"ok": true}))
    }

    fn transcript(&self, head: &Request) -> Answer {
        let since = head
            .query_value("since")
            .and_then(|text| text.parse().ok())
            .unwrap_or(0);
        let transcript = self.hub.transcript();
        let entries = transcript
            .entries
            .iter()
            .enumerate()
            .skip(since)
            .map(|(n, entry)| {
                json!({
                    "n": n,
                    "t": entry.t.as_secs_f64(),
                    "conn": entry.conn,
                    "from": format!("{:?}", entry.dir).to_lowercase(),
                    "frame": entry.frame.as_ref().map(crate::Frame::to_value),
                    "note": entry.note,
                    "text": entry.to_string(),
                })
            });
        Ok(entries.collect())
    }
}

/// The device whose terminal is asked for.
fn console(head: &Request) -> Option<String> {
    let mut parts = head.path.split('/').skip(1);
    let asked =
        head.method == "POST" && parts.next() == Some("devices") && head.path.ends_with("/console");
    parts.next().filter(|_| asked).map(decode)
}

fn parse(body: &[u8]) -> Result<Value, Failure> {
    match body {
        [] => Ok(json!({})),
        body => serde_json::from_slice(body).map_err(|error| (400, format!("not JSON: {error}"))),
    }
}

fn text<'a>(body: &'a Value, key: &str) -> Result<&'a str, Failure> {
    body[key]
        .as_str()
        .ok_or_else(|| (400, format!("{key:?} must be a string")))
}

/// Undoes percent-encoding; identifiers may hold anything.
fn decode(part: &str) -> String {
    let mut out = Vec::new();
    let mut rest = part.as_bytes();
    while let [byte, tail @ ..] = rest {
        let hex = tail.get(..2).filter(|_| *byte == b'%');
        let hex = hex.and_then(|two| u8::from_str_radix(std::str::from_utf8(two).ok()?, 16).ok());
        out.push(hex.unwrap_or(*byte));
        rest = if hex.is_some() { &tail[2..] } else { tail };
    }
    String::from_utf8_lossy(&out).into_owned()
}
