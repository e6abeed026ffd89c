//! The decider over the socket, and the examples that are one.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;

use nerveshub_agent::config::Secret;
use nerveshub_agent::wire::control::Outgoing;
use nerveshub_agent::wire::verdict::{Question, Verdict};
use nerveshub_agent::wire::{Archive, Offer};
use serde_json::{Value, json};

use super::OPEN;
use super::peer::Peer;
use crate::rig::{self, JOINED, PATIENCE};

#[test]
fn one_decides_at_a_time_and_its_place_is_free_when_it_is_gone() {
    let hub = rig::hub().start();
    let (device, agent) = rig::launch(&hub);
    agent.wait_log(JOINED);
    agent.wait_log(OPEN);
    let (mut first, mut second) = (Peer::connect(&device), Peer::connect(&device));
    let registered = json!({"decider": true});
    assert_eq!(first.ask("decide", json!({}))["result"], registered);
    assert_eq!(super::status(&device)["decider"], true);
    let refused = second.ask("decide", json!({}));
    assert_eq!(refused["error"]["code"], "busy");
    let text = refused["error"]["message"].as_str().expect("text");
    assert!(text.contains("there can be one only"), "{text}");
    // An answer to nothing, and one of a stranger.
    first.say(&json!({"question": 1, "answer": "apply"}));
    assert_eq!(first.read()["error"]["code"], "refused");
    second.say(&json!({"question": 1, "answer": "apply"}));
    assert_eq!(second.read()["error"]["code"], "refused");
    drop(first);
    agent.wait_log("the decider is gone");
    assert_eq!(second.ask("decide", json!({}))["result"], registered);
}

/// An agent that is nothing but its socket, with an example that has registered.
struct Asker {
    child: Child,
    stream: BufReader<UnixStream>,
    folder: tempfile::TempDir,
}

impl Asker {
    fn new(example: &str, connect: Option<&Path>) -> Self {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("control.sock");
        let listener = UnixListener::bind(&path).expect("socket");
        let program = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("etc/examples")
            .join(example);
        let mut command = Command::new(program);
        command.env("NERVES_HUB_CONTROL_SOCKET", &path);
        command.env("BUSY_FILE", folder.path().join("busy"));
        if let Some(connect) = connect {
            command.env(
                "CONNECT",
                format!("{} {}", connect.display(), path.display()),
            );
        }
        let child = command.process_group(0).spawn().expect("example");
        let (sender, accepted) = std::sync::mpsc::channel();
        std::thread::spawn(move || sender.send(listener.accept()));
        let stream = accepted
            .recv_timeout(PATIENCE)
            .expect("a connection")
            .expect("accepted")
            .0;
        stream.set_read_timeout(Some(PATIENCE)).expect("timeout");
        let stream = BufReader::new(stream);
        let mut asker = Self {
            child,
            stream,
            folder,
        };
        let hello = nerveshub_agent::wire::control::hello("test", "d");
        asker.say(hello);
        assert_eq!(asker.read(), json!({"id": 1, "method": "decide"}));
        asker.say("{\"id\":1,\"result\":{\"decider\":true}}\n".to_owned());
        asker
    }

    fn say(&mut self, line: String) {
        self.stream
            .get_mut()
            .write_all(line.as_bytes())
            .expect("sent");
    }

    fn read(&mut self) -> Value {
        let mut line = String::new();
        self.stream.read_line(&mut line).expect("a line in time");
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{line:?}: {error}"))
    }

    /// Asks as the agent does, and understands the answer as it does.
    fn ask(&mut self, id: u64, question: Question) -> Verdict {
        let asked = question.asked();
        self.say(Outgoing::Question(id, question).line());
        let said = self.read();
        assert_eq!(said["question"], id, "{said}");
        let text = said["answer"].as_str().expect("a text");
        Verdict::parse(asked, text).expect("an answer")
    }
}

impl Drop for Asker {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

fn update(version: &str) -> Question {
    Question::UpdateAvailable(Box::new(Offer {
        uuid: "5f0c".into(),
        version: version.into(),
        product: "demo".into(),
        url: Secret::new("https://files/fw"),
        size: Some(9),
        checksum: None,
        partials: Vec::new(),
    }))
}

fn exercise(mut asker: Asker) {
    assert_eq!(asker.ask(1, update("2.0.0")), Verdict::Go);
    assert!(matches!(
        asker.ask(2, update("2.0.1-broken")),
        Verdict::Ignore { reason: Some(_) }
    ));
    assert_eq!(asker.ask(3, Question::RebootRequest("hub")), Verdict::Go);
    std::fs::write(asker.folder.path().join("busy"), "").expect("file");
    let reason = Some("the device is busy".to_owned());
    let later = |seconds| Verdict::Later {
        after: Duration::from_secs(seconds),
        reason: reason.clone(),
    };
    assert_eq!(asker.ask(4, update("2.0.0")), later(600));
    // What is said in between does not confuse it.
    asker.say("{\"id\":null,\"result\":{\"answer\":\"reschedule\",\"question\":4}}\n".to_owned());
    asker.say("{\"withdrawn\":4}\n".to_owned());
    assert_eq!(asker.ask(5, Question::RebootRequest("update")), later(60));
    let archive = Question::ArchiveAvailable(Box::new(Archive {
        uuid: "a".into(),
        version: "1".into(),
        url: Secret::new("https://files/a"),
        size: None,
        description: String::new(),
        platform: String::new(),
        architecture: String::new(),
    }));
    assert_eq!(asker.ask(6, archive), Verdict::Go);
}

#[test]
fn the_example_in_python_decides() {
    exercise(Asker::new("controller.py", None));
}

/// What socat does, of which not every machine has one; its path.
pub fn connector(folder: &Path) -> PathBuf {
    let connect = folder.join("connect");
    let program = "#!/usr/bin/env python3\nimport os, socket, sys, threading\n\
        s = socket.socket(socket.AF_UNIX)\ns.connect(sys.argv[1])\n\
        def pump(get, put):\n    while True:\n        data = get()\n\
        \x20       if not data: os._exit(0)\n        put(data)\n\
        threading.Thread(target=pump, args=(lambda: os.read(0, 4096), s.sendall)).start()\n\
        pump(lambda: s.recv(4096), lambda data: os.write(1, data))\n";
    std::fs::write(&connect, program).expect("program");
    std::fs::set_permissions(&connect, std::fs::Permissions::from_mode(0o755)).expect("mode");
    connect
}

/// With what it has started.
pub fn end(child: &mut Child) {
    let group = nix::unistd::Pid::from_raw(child.id().cast_signed());
    let _ = nix::sys::signal::killpg(group, nix::sys::signal::Signal::SIGKILL);
    let _ = child.wait();
}

#[test]
fn the_example_in_shell_decides() {
    let folder = tempfile::tempdir().expect("folder");
    let connect = connector(folder.path());
    exercise(Asker::new("controller.sh", Some(&connect)));
}

#[test]
fn the_example_in_python_registers_with_the_agent_and_comes_back_to_the_next() {
    let hub = rig::hub().start();
    let (device, mut agent) = rig::launch(&hub);
    agent.wait_log(OPEN);
    let path = device.path("control.sock");
    let source = std::fs::read_to_string(
        Path::new(env!("CARGO_MANIFEST_DIR")).join("etc/examples/controller.py"),
    );
    // As it is, but less patient.
    let source = source
        .expect("example")
        .replace("RETRY_SECONDS = 5", "RETRY_SECONDS = 0.1");
    let program = device.path("controller.py");
    std::fs::write(&program, source).expect("example");
    let mut child = Command::new("python3")
        .arg(&program)
        .env("NERVES_HUB_CONTROL_SOCKET", &path)
        .spawn()
        .expect("python3");
    agent.wait_log("is the decider now");
    assert_eq!(super::status(&device)["decider"], true);
    assert_eq!(agent.stop(), 0);
    let agent = device.start();
    agent.wait_log("is the decider now");
    child.kill().expect("killed");
    child.wait().expect("status");
    agent.wait_log("the decider is gone");
    assert_eq!(super::status(&device)["decider"], false);
}
