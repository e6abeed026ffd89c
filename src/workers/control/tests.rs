//! The thread with real sockets, a test in the place of the dispatcher.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

use serde_json::{Value, json};

use super::*;
use crate::core::event::QuestionId;
use crate::system::channel::bounded;
use crate::wire::control::{MAX_LINE, Method, Request};
use crate::wire::occurrence::Occurrence;

const PATIENCE: Duration = Duration::from_secs(20);

struct Bench {
    folder: tempfile::TempDir,
    settings: ControlSettings,
    commands: Option<Sender<Command>>,
    waker: Waker,
    inbox: Receiver<Event>,
    thread: Option<JoinHandle<Result<(), String>>>,
}

impl Bench {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("control.sock");
        Self::at(folder, &path)
    }

    fn at(folder: tempfile::TempDir, path: &Path) -> Self {
        let settings = ControlSettings {
            path: path.to_owned(),
            mode: 0o640,
            group: None,
        };
        let (commands, queue) = bounded(QUEUE);
        let (sender, inbox) = bounded(64);
        let waker = Waker::new().expect("waker");
        let (door, knocks) = (settings.clone(), waker.clone());
        let thread = std::thread::spawn(move || run(&door, "dev", &queue, &knocks, &sender));
        Self {
            folder,
            settings,
            commands: Some(commands),
            waker,
            inbox,
            thread: Some(thread),
        }
    }

    /// A client that has read its greeting.
    fn client(&self) -> Peer {
        let mut peer = self.stranger();
        assert_eq!(peer.read()["hello"]["identifier"], "dev");
        peer
    }

    fn stranger(&self) -> Peer {
        let deadline = Instant::now() + PATIENCE;
        // The thread may not have come so far.
        let stream = loop {
            match UnixStream::connect(&self.settings.path) {
                Ok(stream) => break stream,
                Err(error) => assert!(Instant::now() < deadline, "{error}"),
            }
            std::thread::yield_now();
        };
        stream.set_read_timeout(Some(PATIENCE)).expect("timeout");
        stream.set_write_timeout(Some(PATIENCE)).expect("timeout");
        Peer(BufReader::new(stream))
    }

    fn tell(&self, client: ClientId, said: Outgoing) {
        self.command(Command::Tell(client, Box::new(said)));
    }

    fn command(&self, command: Command) {
        let commands = self.commands.as_ref().expect("open");
        commands.send_timeout(command, PATIENCE).expect("room");
        self.waker.wake();
    }

    fn event(&self) -> (ClientId, ControlEvent) {
        match self.inbox.recv_timeout(PATIENCE) {
            Ok(Event::Control(client, event)) => (client, event),
            other => panic!("{other:?}"),
        }
    }

    /// The next request, answered with its own id.
    fn serve(&self) -> Request {
        let (client, event) = self.event();
        let ControlEvent::Asked(request) = event else {
            panic!("{event:?}");
        };
        self.answer(client, &request.id);
        request
    }

    fn answer(&self, client: ClientId, id: &Value) {
        let (id, result) = (id.clone(), json!({}));
        self.tell(client, Outgoing::Result { id, result });
    }

    fn close(&mut self) -> Result<(), String> {
        drop(self.commands.take());
        self.waker.wake();
        self.thread.take().expect("open").join().expect("no panic")
    }

    fn path(&self) -> PathBuf {
        self.settings.path.clone()
    }
}

struct Peer(BufReader<UnixStream>);

impl Peer {
    fn say(&mut self, text: &str) {
        self.0.get_mut().write_all(text.as_bytes()).expect("sent");
    }

    fn read(&mut self) -> Value {
        let mut line = String::new();
        self.0.read_line(&mut line).expect("a line in time");
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{line:?}: {error}"))
    }

    /// All that comes until the end.
    fn rest(mut self) -> String {
        let mut rest = String::new();
        match self.0.read_to_string(&mut rest) {
            Ok(_) => {}
            // What it had not read itself was still on its way to the agent.
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::ConnectionReset),
        }
        rest
    }

    fn error(&mut self) -> String {
        let said = self.read();
        said["error"]["code"].as_str().expect("an error").to_owned()
    }
}

#[test]
fn lines_become_events_and_answers_find_their_way() {
    let mut bench = Bench::new();
    let (mut one, mut two) = (bench.client(), bench.client());
    // In pieces, several at once, with empty lines and foreign line ends.
    one.say("{\"id\":1,\"meth");
    two.say("\n\r\n{\"id\":7,\"method\":\"status\"}\r\n{\"id\":8,\"method\":\"alarms\"}\n");
    assert_eq!(bench.serve().method, Method::Status);
    assert_eq!(bench.serve().method, Method::ListAlarms);
    assert_eq!(
        (two.read()["id"].clone(), two.read()["id"].clone()),
        (json!(7), json!(8))
    );
    one.say("od\":\"reconnect\"}\n");
    assert_eq!(bench.serve().method, Method::Reconnect);
    assert_eq!(one.read(), json!({"id": 1, "result": {}}));
    two.say("nonsense\n");
    assert_eq!(two.error(), "bad-request");
    two.say("{\"question\":3,\"answer\":\"apply\"}\n");
    let (client, event) = bench.event();
    assert!(matches!(
        event,
        ControlEvent::Answered {
            question: QuestionId(3),
            ..
        }
    ));
    drop(two);
    let (left, event) = bench.event();
    assert!(matches!(event, ControlEvent::Left));
    assert_eq!(left, client);
    assert_eq!(bench.close(), Ok(()));
    assert_eq!(one.rest(), "");
}

#[test]
fn who_has_only_a_word_to_say_is_answered_before_the_end() {
    let bench = Bench::new();
    let mut peer = bench.client();
    peer.say("{\"id\":1,\"method\":\"status\"}\n{\"id\":2,\"method\":\"status\"}");
    let stream = peer.0.get_ref();
    stream.shutdown(std::net::Shutdown::Write).expect("half");
    bench.serve();
    bench.serve();
    let rest = peer.rest();
    assert_eq!(rest.lines().count(), 2, "{rest}");
    assert!(rest.ends_with("{\"id\":2,\"result\":{}}\n"), "{rest}");
    assert!(matches!(bench.event().1, ControlEvent::Left));
}

#[test]
fn a_line_too_long_is_refused_and_ends_the_connection() {
    let bench = Bench::new();
    let mut peer = bench.client();
    // The longest that is taken, then one byte more than that.
    let mut line = r#"{"id":1,"method":"status","params":{"x":""#.to_owned();
    line += &"x".repeat(MAX_LINE - line.len() - 3);
    line += "\"}}";
    assert_eq!(line.len(), MAX_LINE);
    peer.say(&format!("{line}\n"));
    bench.serve();
    assert_eq!(peer.read()["id"], 1);
    let more = "x".repeat(MAX_LINE + 1);
    peer.say(&more);
    assert_eq!(peer.error(), "bad-request");
    assert_eq!(peer.rest(), "");
    // Another one that never ends.
    let mut peer = bench.client();
    let mut sent = 0;
    while sent < 64 * MAX_LINE && peer.0.get_mut().write_all(&[b'x'; 4096]).is_ok() {
        sent += 4096;
    }
    assert!(sent < 8 * MAX_LINE, "{sent} bytes taken");
    assert!(matches!(bench.event().1, ControlEvent::Left));
}

#[test]
fn too_many_clients_are_told_so_and_make_room_for_each_other() {
    let bench = Bench::new();
    let mut peers: Vec<Peer> = (0..MAX_CLIENTS).map(|_| bench.client()).collect();
    for _ in 0..1000 {
        let mut refused = bench.stranger();
        assert_eq!(refused.error(), "busy");
        assert_eq!(refused.rest(), "");
    }
    peers.pop();
    // Its place is free once its end was noticed.
    let deadline = Instant::now() + PATIENCE;
    while bench.stranger().read().get("hello").is_none() {
        assert!(Instant::now() < deadline, "no room");
    }
    peers[0].say("{\"id\":1,\"method\":\"status\"}\n");
    bench.serve();
    assert_eq!(peers[0].read()["id"], 1);
    // Nobody who never said anything was worth an event.
    assert!(bench.inbox.is_empty());
}

#[test]
fn a_client_that_does_not_read_is_dropped_and_others_are_served() {
    let bench = Bench::new();
    let (mut slow, mut other) = (bench.client(), bench.client());
    slow.say("{\"method\":\"subscribe\"}\n");
    let (id, _) = bench.event();
    bench.answer(id, &Value::Null);
    let reason = "x".repeat(1000);
    let mut told = 0;
    while bench.inbox.is_empty() && told < 10_000 {
        let reason = reason.clone();
        bench.tell(id, Outgoing::Event(Occurrence::Disconnected { reason }));
        told += 1;
    }
    assert!(matches!(bench.event(), (left, ControlEvent::Left) if left == id));
    assert!(told < 2000, "{told} KiB kept for it");
    other.say("{\"id\":5,\"method\":\"status\"}\n");
    bench.serve();
    assert_eq!(other.read()["id"], 5);
    // What the kernel had taken is all it gets.
    let rest = slow.rest();
    assert!(rest.starts_with("{\"id\":null,\"result\""), "{rest:.60}");
    assert!(rest.lines().count() < told, "{told}");
}

#[test]
fn a_burst_of_more_than_may_wait_reaches_a_client_that_reads() {
    let (ours, theirs) = UnixStream::pair().expect("pair");
    ours.set_nonblocking(true).expect("non-blocking");
    let now = Instant::now();
    let mut client = Client::new(ClientId(1), ours, now);
    let reason = "x".repeat(1000);
    let event = Outgoing::Event(Occurrence::Disconnected { reason });
    // More than is kept here, less than the kernel keeps.
    for _ in 0..100 {
        client.tell(&event);
    }
    client.flush(now);
    assert!(client.stays(now));
    drop(client);
    let mut rest = String::new();
    (&theirs).read_to_string(&mut rest).expect("all of it");
    assert_eq!(rest, event.line().repeat(100));
}

#[test]
fn requests_of_one_client_are_handed_on_only_as_they_are_answered() {
    let bench = Bench::new();
    let mut greedy = bench.client();
    let many = 50;
    greedy.say(&"{\"method\":\"status\"}\n".repeat(many));
    let mut waiting = Vec::new();
    for _ in 0..8 {
        waiting.push(bench.event().0);
    }
    let mut other = bench.client();
    other.say("{\"id\":9,\"method\":\"status\"}\n");
    // The ninth comes from somebody else.
    assert_eq!(bench.serve().id, 9);
    assert_eq!(other.read()["id"], 9);
    for client in waiting {
        bench.answer(client, &Value::Null);
    }
    for _ in 8..many {
        bench.serve();
    }
    for _ in 0..many {
        assert_eq!(greedy.read()["result"], json!({}));
    }
}

#[test]
fn all_start_over_when_something_was_lost() {
    let bench = Bench::new();
    let mut peer = bench.client();
    peer.say("{\"method\":\"status\"}\n");
    bench.event();
    bench.command(Command::DropAll);
    assert_eq!(peer.rest(), "");
    assert!(matches!(bench.event().1, ControlEvent::Left));
    bench.client();
}

#[test]
fn silence_at_the_beginning_and_stuck_bytes_have_deadlines() {
    let (ours, theirs) = UnixStream::pair().expect("pair");
    ours.set_nonblocking(true).expect("non-blocking");
    let now = Instant::now();
    let mut client = Client::new(ClientId(1), ours, now);
    assert_eq!(client.deadline(), Some(now + client::FIRST_LINE));
    assert!(client.stays(now) && !client.stays(now + client::FIRST_LINE));
    (&theirs).write_all(b"{}\n").expect("sent");
    client.on_ready(PollFlags::POLLIN);
    assert!(matches!(client.next(), Some(Said::Nonsense(_))));
    assert_eq!(client.deadline(), None);
    // More than the kernel takes.
    theirs.set_nonblocking(true).expect("non-blocking");
    loop {
        client.send(&"x".repeat(64 * 1024));
        client.flush(now);
        if client.deadline().is_some() {
            break;
        }
    }
    assert!(client.interest().contains(PollFlags::POLLOUT));
    let late = now + client::WRITE_PATIENCE;
    assert!(client.stays(now) && !client.stays(late));
    // It reads on: the patience begins anew.
    let mut bytes = vec![0; 1 << 20];
    let read = (&theirs).read(&mut bytes).expect("bytes");
    assert!(read > 0);
    client.flush(now);
    assert!(client.stays(late));
}

#[test]
fn the_socket_is_protected_and_goes_with_its_agent() {
    let mut bench = Bench::new();
    bench.client();
    let made = std::fs::symlink_metadata(bench.path()).expect("socket");
    assert!(made.file_type().is_socket());
    assert_eq!(made.permissions().mode() & 0o777, 0o640);
    assert_eq!(bench.close(), Ok(()));
    assert!(!bench.path().exists());
    // What somebody else has put there in the meantime stays.
    let mut bench = Bench::new();
    bench.client();
    std::fs::remove_file(bench.path()).expect("removed");
    std::fs::write(bench.path(), "mine").expect("written");
    assert_eq!(bench.close(), Ok(()));
    assert!(bench.path().exists());
}

#[test]
fn what_a_dead_agent_left_is_replaced_and_nothing_else() {
    // A socket that nobody listens on.
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("control.sock");
    drop(UnixListener::bind(&path).expect("socket"));
    let bench = Bench::at(folder, &path);
    bench.client();
    let refusal = |path: &Path, group: Option<&str>| {
        let settings = ControlSettings {
            path: path.to_owned(),
            mode: 0o600,
            group: group.map(str::to_owned),
        };
        match Door::open(&settings) {
            Ok(_) => panic!("{}", path.display()),
            Err(reason) => reason,
        }
    };
    let reason = refusal(&path, None);
    assert!(reason.contains("another agent is using it"), "{reason}");
    bench.client();
    let other = bench.folder.path().join("other.sock");
    let foreign = UnixListener::bind(&other).expect("socket");
    assert!(refusal(&other, None).contains("another program"));
    assert!(UnixStream::connect(&other).is_ok());
    drop(foreign);
    let file = bench.folder.path().join("file");
    std::fs::write(&file, "text").expect("file");
    assert!(refusal(&file, None).contains("left alone"));
    assert_eq!(std::fs::read(&file).expect("file"), b"text");
    let long = bench.folder.path().join("x".repeat(120));
    assert!(refusal(&long, None).contains("too long"));
    let nowhere = bench.folder.path().join("no/such/folder");
    assert!(refusal(&nowhere, None).contains("No such file"));
    let fresh = bench.folder.path().join("fresh.sock");
    assert!(refusal(&fresh, Some("no-such-group")).contains("no group \"no-such-group\""));
    assert!(!fresh.exists());
}
