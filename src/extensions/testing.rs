//! For the tests of extensions: a site, and an extension that runs in it on a thread of its
//! own, with the test in the core's place.

use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::system::channel::{Receiver, unbounded};
use serde_json::{Map, Value, json};

use super::link::Handle;
use super::{Kind, Link, Site, Word};
use crate::config::{ExtensionSettings, LinkTimeouts, TlsSettings};
use crate::core::event::{Event, ExtensionEvent, ExtensionId};
use crate::system::dial::Dialer;
use crate::system::tls;

/// Longer than any deadline of an extension.
const PATIENCE: Duration = Duration::from_secs(30);

pub fn site(settings: ExtensionSettings) -> Arc<Site> {
    let timeout = Duration::from_secs(10);
    let trust = TlsSettings {
        ca_file: None,
        ca_only: false,
        server_name: None,
    };
    let dialer = Dialer {
        tls: tls::client_config(&trust, None).expect("TLS"),
        proxy: None,
        timeouts: LinkTimeouts {
            dns: timeout,
            connect: timeout,
            tls: timeout,
            upgrade: timeout,
            join: timeout,
        },
        server_name: None,
    };
    Arc::new(Site {
        settings,
        identifier: "device-1".into(),
        data_path: "/nonexistent".into(),
        dialer: Some(Arc::new(dialer)),
        allow_insecure: false,
        kept: Mutex::default(),
    })
}

/// A link without an extension, and its other end.
pub fn link() -> (Link, Handle) {
    let (sender, _) = unbounded();
    Link::new(ExtensionId(0), sender)
}

pub struct Running {
    handle: Handle,
    events: Receiver<Event>,
    thread: Option<JoinHandle<Result<(), String>>>,
}

impl Running {
    pub fn start(kind: &Kind, site: &Arc<Site>) -> Self {
        Self::run((kind.build)(site))
    }

    pub fn run(mut extension: Box<dyn super::Extension>) -> Self {
        let (sender, events) = unbounded();
        let (mut link, handle) = Link::new(ExtensionId(0), sender);
        let thread = std::thread::spawn(move || extension.run(&mut link));
        Self {
            handle,
            events,
            thread: Some(thread),
        }
    }

    pub fn attach(&self) {
        let version = "0.0.1".into();
        assert!(self.handle.say(Word::Attached { version }));
    }

    pub fn away(&self) {
        assert!(self.handle.say(Word::Away));
    }

    /// The hub's event.
    pub fn hear(&self, event: &str) {
        assert!(self.handle.say(Word::Said {
            event: event.into(),
            payload: json!({}),
            alarms: Vec::new(),
        }));
    }

    fn event(&self) -> ExtensionEvent {
        match self.events.recv_timeout(PATIENCE) {
            Ok(Event::Extension(_, event)) => event,
            other => panic!("{other:?}"),
        }
    }

    /// What it says next, which must be this event.
    pub fn pushed(&self, name: &str) -> Value {
        loop {
            match self.event() {
                ExtensionEvent::Idle => {}
                ExtensionEvent::Push { event, payload } if event == name => return payload,
                other => panic!("{other:?}"),
            }
        }
    }

    /// All that it pushes until it has dealt with a word that means nothing to it.
    pub fn rest(&self) -> Vec<Value> {
        let (pushes, answer) = self.ask("nothing", json!({}));
        answer.expect_err("sense");
        pushes
    }

    /// A client's question: what is pushed until it is answered, and the answer.
    pub fn ask(&self, what: &str, params: Value) -> (Vec<Value>, Result<Value, String>) {
        assert!(self.handle.say(Word::Asked {
            question: 7,
            what: what.into(),
            params,
            alarms: Vec::new(),
        }));
        let mut pushes = Vec::new();
        loop {
            match self.event() {
                ExtensionEvent::Answer { question, answer } => {
                    assert_eq!(question, 7);
                    return (pushes, answer);
                }
                ExtensionEvent::Push { payload, .. } => pushes.push(payload),
                ExtensionEvent::Idle => {}
                other => panic!("{other:?}"),
            }
        }
    }

    /// Detaches it.
    pub fn end(mut self) {
        self.finish();
    }

    fn finish(&mut self) {
        self.handle.end();
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            if !std::thread::panicking() {
                assert_eq!(ended.expect("no panic"), Ok(()));
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.finish();
    }
}

/// What is kept for an extension.
pub fn kept(site: &Site) -> Map<String, Value> {
    site.kept.lock().expect("kept").clone()
}

/// A port that is taken, by a socket that does not listen.
pub fn deaf_port() -> (std::os::fd::OwnedFd, u16) {
    use nix::sys::socket::{
        AddressFamily, SockFlag, SockType, SockaddrIn, bind, getsockname, socket,
    };
    use std::os::fd::AsRawFd;
    let socket = socket(
        AddressFamily::Inet,
        SockType::Stream,
        SockFlag::SOCK_CLOEXEC,
        None,
    )
    .unwrap();
    bind(socket.as_raw_fd(), &SockaddrIn::new(127, 0, 0, 1, 0)).unwrap();
    let name: SockaddrIn = getsockname(socket.as_raw_fd()).unwrap();
    (socket, name.port())
}
