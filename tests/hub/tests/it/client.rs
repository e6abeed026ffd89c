//! A raw device: connects, signs, sends and receives frames. Knows nothing of the protocol
//! beyond that.

use devhub::{Frame, Hub, Vsn};
use serde_json::{Value, json};
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, SystemTime};
use tungstenite::client::IntoClientRequest;
use tungstenite::http::{HeaderName, Response};
use tungstenite::{Error, HandshakeError, Message, WebSocket, client};

pub const KEY: &str = "nhp_key";
pub const SECRET: &str = "secret";

pub struct Client<S: Read + Write = TcpStream> {
    socket: WebSocket<S>,
    vsn: Vsn,
    next: u64,
}

pub type Refused = Box<Response<Option<Vec<u8>>>>;

pub fn now() -> i64 {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap()
        .as_secs() as i64
}

pub fn hub() -> Hub {
    Hub::builder().product(KEY, SECRET).start()
}

pub fn tcp(hub: &Hub) -> TcpStream {
    let tcp = TcpStream::connect(("127.0.0.1", hub.port())).unwrap();
    tcp.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    tcp
}

pub fn connect(hub: &Hub, identifier: &str, vsn: Vsn) -> Client {
    let headers = devhub::auth::sign(KEY, SECRET, identifier, now());
    try_connect(tcp(hub), "/device-socket/websocket", &headers, vsn).expect("let in")
}

pub fn try_connect<S: Read + Write>(
    stream: S,
    path: &str,
    headers: &[(String, String)],
    vsn: Vsn,
) -> Result<Client<S>, Refused> {
    let version = if vsn == Vsn::Json { "2.0.0" } else { "3.0.0" };
    let url = format!("ws://localhost{path}?vsn={version}");
    let mut request = url.into_client_request().unwrap();
    for (name, value) in headers {
        let name: HeaderName = name.parse().unwrap();
        request.headers_mut().insert(name, value.parse().unwrap());
    }
    match client(request, stream) {
        Ok((socket, _)) => Ok(Client {
            socket,
            vsn,
            next: 1,
        }),
        Err(HandshakeError::Failure(Error::Http(response))) => Err(response),
        Err(error) => panic!("upgrade: {error}"),
    }
}

impl<S: Read + Write> Client<S> {
    pub fn send(&mut self, frame: &Frame) {
        self.socket.send(frame.encode(self.vsn)).unwrap();
    }

    pub fn send_raw(&mut self, message: Message) {
        self.socket.send(message).unwrap();
    }

    /// A stopped and continued process sees its reads interrupted.
    fn read(&mut self) -> Result<Message, Error> {
        loop {
            match self.socket.read() {
                Err(Error::Io(error)) if error.kind() == ErrorKind::Interrupted => {}
                result => return result,
            }
        }
    }

    /// The next frame; panics after the read timeout.
    pub fn receive(&mut self) -> Frame {
        loop {
            match self.read().expect("a frame") {
                Message::Ping(_) | Message::Pong(_) => {}
                message => return Frame::decode(&message, self.vsn).unwrap(),
            }
        }
    }

    /// The next message as it is.
    pub fn receive_raw(&mut self) -> Message {
        self.read().expect("a message")
    }

    /// Skips frames up to one of that event.
    pub fn receive_event(&mut self, event: &str) -> Frame {
        loop {
            let frame = self.receive();
            if frame.event == event {
                return frame;
            }
        }
    }

    /// The close code, or `None` when the connection just ended.
    pub fn receive_end(&mut self) -> Option<u16> {
        loop {
            match self.read() {
                Ok(Message::Close(frame)) => return frame.map(|frame| frame.code.into()),
                Ok(_) => {}
                Err(Error::Io(error)) if error.kind() == ErrorKind::WouldBlock => {
                    panic!("the connection did not end")
                }
                Err(_) => return None,
            }
        }
    }

    /// Nothing comes within that time.
    pub fn is_silent(&mut self) -> bool {
        matches!(&self.read(), Err(Error::Io(error))
            if error.kind() == ErrorKind::WouldBlock)
    }

    pub fn join(&mut self, topic: &str, payload: Value) -> Frame {
        let reference = self.next_ref();
        self.send(&frame(
            Some(&reference),
            Some(&reference),
            topic,
            "phx_join",
            payload,
        ));
        self.receive_event("phx_reply")
    }

    /// Joins `device` with that firmware.
    pub fn join_device(&mut self, uuid: &str, downloading: Option<&str>) -> Frame {
        let payload = json!({
            "nerves_fw_uuid": uuid,
            "device_api_version": "2.3.0",
            "currently_downloading_uuid": downloading,
            "meta": {"firmware_validated": true},
        });
        self.join("device", payload)
    }

    pub fn push(&mut self, topic: &str, event: &str, payload: Value) {
        let reference = self.next_ref();
        self.send(&frame(Some("1"), Some(&reference), topic, event, payload));
    }

    fn next_ref(&mut self) -> String {
        self.next += 1;
        (self.next - 1).to_string()
    }
}

impl Client<TcpStream> {
    pub fn set_timeout(&mut self, timeout: Duration) {
        self.socket
            .get_ref()
            .set_read_timeout(Some(timeout))
            .unwrap();
    }
}

pub fn frame(
    join_ref: Option<&str>,
    reference: Option<&str>,
    topic: &str,
    event: &str,
    payload: Value,
) -> Frame {
    Frame::from_value(json!([join_ref, reference, topic, event, payload])).unwrap()
}
