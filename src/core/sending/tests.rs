//! A file on its way to the console, in virtual time.

use serde_json::json;

use super::*;
use crate::core::control::tests::{APP, OTHER};
use crate::core::event::{Event, Signal, SocketEvent, Worker};
use crate::core::tests::{Bench, setup};

const SEND: &str =
    r#"{"id":7,"method":"send-file","params":{"path":"/var/log/messages","progress":true}}"#;

impl Bench {
    /// The file that is read now.
    fn sending(&self) -> SendId {
        let starts = self.effects.iter().rev().find_map(|effect| match effect {
            Effect::StartSending(id, path) => Some((*id, path.clone())),
            _ => None,
        });
        let (id, path) = starts.expect("nothing is sent");
        assert_eq!(path, PathBuf::from("/var/log/messages"));
        id
    }

    fn frame(&mut self, id: SendId) -> u64 {
        let name = "messages".to_owned();
        let frame = SendEvent::Frame(FilePush::Start { name });
        self.event(Event::SendFile(id, frame));
        self.pushes().last().expect("a push").reference
    }

    fn file_frames(&self) -> usize {
        let pushes = self.pushes().into_iter();
        let is_file = |body: &Outbound| matches!(body, Outbound::Console(ConsolePush::File(_)));
        pushes.filter(|push| is_file(&push.body)).count()
    }
}

#[test]
fn a_frame_follows_when_the_one_before_has_left() {
    let mut bench = Bench::with_console(setup());
    bench.says(APP, SEND);
    assert!(bench.heard(APP).is_empty(), "the answer comes at the end");
    let id = bench.sending();
    let reference = bench.frame(id);
    assert_eq!(bench.file_frames(), 1);
    bench.socket(SocketEvent::Sent(reference + 1));
    assert_eq!(bench.count(&Effect::SendMore(id)), 0);
    bench.socket(SocketEvent::Sent(reference));
    bench.socket(SocketEvent::Sent(reference));
    assert_eq!(bench.count(&Effect::SendMore(id)), 1);
    let (sent, size) = (1024, 2000);
    bench.event(Event::SendFile(id, SendEvent::Progress { sent, size }));
    bench.event(Event::SendFile(id, SendEvent::Ended(Ok(size))));
    let progress = json!({"id": 7, "progress": {"sent": 1024, "size": 2000}});
    let result = json!({"id": 7, "result": {"size": 2000}});
    assert_eq!(bench.heard(APP), [progress, result]);
    // Over: nothing more is heard of it.
    bench.frame(id);
    assert_eq!(bench.file_frames(), 1);
}

#[test]
fn one_file_at_a_time_and_only_where_there_is_a_console() {
    let mut bench = Bench::joined(setup());
    assert_eq!(bench.code(SEND), "unavailable");
    let mut bench = Bench::with_console(setup());
    bench.socket(SocketEvent::Closed("cable".into()));
    assert_eq!(bench.code(SEND), "not-connected");
    let mut bench = Bench::with_console(setup());
    bench.says(APP, SEND);
    assert_eq!(bench.asks(OTHER, SEND)["error"]["code"], "busy");
    let relative = r#"{"method":"send-file","params":{"path":"messages"}}"#;
    assert!(crate::wire::control::parse(relative.as_bytes()).is_err());
}

#[test]
fn it_ends_with_its_client_its_channel_and_when_it_is_cancelled() {
    let cancel = r#"{"id":8,"method":"cancel-file"}"#;
    let ends: [fn(&mut Bench); 4] = [
        |bench| bench.leaves(APP),
        |bench| bench.socket(SocketEvent::Closed("cable".into())),
        |bench| bench.says(OTHER, r#"{"id":8,"method":"cancel-file"}"#),
        |bench| bench.event(Event::WorkerExited(Worker::Control, Err("panicked".into()))),
    ];
    for end in ends {
        let mut bench = Bench::with_console(setup());
        assert_eq!(bench.code(cancel), "refused");
        bench.says(APP, SEND);
        let id = bench.sending();
        end(&mut bench);
        assert_eq!(bench.count(&Effect::CancelSending(id)), 1);
        let heard = bench.heard(APP);
        let codes: Vec<_> = heard.iter().map(|said| &said["error"]["code"]).collect();
        assert_eq!(codes, ["failed"]);
        bench.event(Event::SendFile(
            id,
            SendEvent::Ended(Err("cancelled".into())),
        ));
        assert!(bench.heard(APP).is_empty());
    }
}

#[test]
fn what_goes_wrong_is_the_answer() {
    let mut bench = Bench::with_console(setup());
    bench.says(APP, SEND);
    let id = bench.sending();
    let died = Err("no thread left".to_owned());
    bench.event(Event::WorkerExited(Worker::SendFile(id), died));
    assert_eq!(bench.heard(APP)[0]["error"]["message"], "no thread left");
    bench.event(Event::Signal(Signal::Terminate));
    assert_eq!(bench.code(SEND), "refused");
}
