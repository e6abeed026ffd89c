//! A person in front of a device's shell, by way of the hub.

use std::cell::Cell;

use devhub::{Hub, Transcript};
use serde_json::{Value, json};

use crate::rig::{self, Agent, Device, PATIENCE, within};

/// What the test shell says when it waits for a command.
pub const PROMPT: &str = "ready> ";

/// How the hub reaches the shell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    Console,
    LocalShell,
}

impl Way {
    pub const BOTH: [Self; 2] = [Self::Console, Self::LocalShell];

    pub fn setting(self) -> &'static str {
        match self {
            Self::Console => "CONSOLE",
            Self::LocalShell => "LOCAL_SHELL",
        }
    }

    pub fn topic(self) -> &'static str {
        match self {
            Self::Console => "console",
            Self::LocalShell => "extensions",
        }
    }

    pub fn output(self) -> &'static str {
        match self {
            Self::Console => "up",
            Self::LocalShell => "local_shell:shell_output",
        }
    }
}

/// A device that lets people in by these ways, with a shell that reads no files of this
/// machine.
pub fn device(hub: &Hub, ways: &[Way]) -> Device {
    let mut device = Device::new(hub);
    for way in ways {
        device.set(way.setting(), "1");
    }
    let command = format!("PS1='{PROMPT}' ENV= exec /bin/sh -i");
    device.set("CONSOLE_COMMAND", &command);
    device
}

/// A hub, a device as above, its agent, and a person whose page is open.
pub fn open(way: Way) -> (Hub, Device, Agent) {
    let hub = rig::hub().start();
    let device = device(&hub, &[way]);
    let agent = device.start();
    (hub, device, agent)
}

/// What a person sees and presses.
pub struct Terminal<'a> {
    pub hub: &'a Hub,
    pub way: Way,
    /// Bytes of the output that earlier expectations have consumed.
    seen: Cell<usize>,
}

impl<'a> Terminal<'a> {
    /// As the page does it: it tells its size.
    pub fn open(hub: &'a Hub, way: Way) -> Self {
        let terminal = Self {
            hub,
            way,
            seen: Cell::new(0),
        };
        if way == Way::LocalShell {
            hub.expect_push("extensions", "local_shell:attached", |_| true);
        }
        terminal.resize(24, 80);
        terminal
    }

    /// And waits for the prompt.
    pub fn ready(hub: &'a Hub, way: Way) -> Self {
        let terminal = Self::open(hub, way);
        terminal.expect(PROMPT);
        terminal
    }

    pub fn keys(&self, text: &str) {
        let event = match self.way {
            Way::Console => "dn",
            Way::LocalShell => "local_shell:shell_input",
        };
        self.hub
            .push(self.way.topic(), event, json!({"data": text}));
    }

    pub fn resize(&self, rows: u64, cols: u64) {
        let (event, payload) = match self.way {
            Way::Console => ("window_size", json!({"height": rows, "width": cols})),
            Way::LocalShell => (
                "local_shell:window_size",
                json!({"rows": rows, "cols": cols}),
            ),
        };
        self.hub.push(self.way.topic(), event, payload);
    }

    /// Everything shown so far.
    pub fn shown(&self, transcript: &Transcript) -> String {
        let pushes = transcript.pushes(self.way.topic(), self.way.output());
        pushes.filter_map(|push| push["data"].as_str()).collect()
    }

    /// Waits until `text` is shown after what was expected before; what came up to its end.
    pub fn expect(&self, text: &str) -> String {
        self.hub.wait(
            |transcript| {
                let shown = self.shown(transcript);
                let new = &shown[self.seen.get()..];
                let end = new.find(text)? + text.len();
                self.seen.set(self.seen.get() + end);
                Some(new[..end].to_owned())
            },
            PATIENCE,
        )
    }

    /// Runs a command and waits for its prompt; what was shown in between, echo included.
    pub fn run(&self, command: &str) -> String {
        self.keys(&format!("{command}\r"));
        let shown = self.expect(PROMPT);
        shown.replace('\r', "")
    }

    /// The lengths of all pushes of output, in bytes.
    pub fn lengths(&self) -> Vec<usize> {
        let transcript = self.hub.transcript();
        let pushes = transcript.pushes(self.way.topic(), self.way.output());
        pushes
            .filter_map(|push| push["data"].as_str().map(str::len))
            .collect()
    }
}

/// Waits, within the rig's patience, until nothing started by the agent is left.
pub fn expect_no_children(agent: &Agent) {
    let deadline = std::time::Instant::now() + PATIENCE;
    loop {
        let children = agent.children();
        if children.is_empty() {
            return;
        }
        assert!(
            std::time::Instant::now() < deadline,
            "still there: {children:?}"
        );
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
}

/// How many joins of the topic there were.
pub fn joins(hub: &Hub, topic: &str) -> usize {
    let transcript = hub.transcript();
    transcript.pushes(topic, "phx_join").count()
}

/// A script's answer: everything the hub sent before has been handled.
pub fn barrier(hub: &Hub, number: u32) -> Value {
    crate::channel::round_trip(hub, number)
}

/// SIGTERM: clean, soon, and nothing is left.
pub fn expect_end(mut agent: Agent) {
    let children = agent.children();
    assert_eq!(agent.stop(), 0);
    for pid in children {
        assert!(!lives(&pid), "{pid} lives");
    }
}

/// Not a zombie either, once init has got to it.
pub fn lives(pid: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"));
    stat.is_ok_and(|stat| !stat.contains(") Z "))
}

/// Waits until a process is gone.
pub fn expect_gone(pid: &str) {
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
