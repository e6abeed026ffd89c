//! Scripts, uploads and identify, in virtual time.

use std::time::Duration;

use super::OperatorSetup;
use crate::core::Setup;
use crate::core::effect::{Effect, UploadStep};
use crate::core::event::{
    Event, ScriptEnd, ScriptHow, ScriptId, Signal, SocketEvent, UploadId, Worker,
};
use crate::core::tests::{Bench, SECOND, setup};
use crate::wire::{
    ConsoleEvent, ConsolePush, DeviceEvent, DevicePush, FileEvent, Inbound, Outbound, ScriptAnswer,
    ScriptRequest, Topic,
};

fn with(change: impl FnOnce(&mut OperatorSetup)) -> Setup {
    let mut setup = setup();
    change(&mut setup.operator);
    setup
}

impl Bench {
    fn script(&mut self, reference: &str, text: &str, timeout: Option<Duration>) {
        let request = ScriptRequest {
            reference: reference.to_owned(),
            text: text.to_owned(),
            timeout,
        };
        self.receive(Inbound::Device(DeviceEvent::RunScript(Box::new(request))));
    }

    /// Identifier, text and limit of every script started so far.
    fn script_runs(&self) -> Vec<(ScriptId, String, Duration)> {
        let starts = self.effects.iter().filter_map(|effect| match effect {
            Effect::RunScript(id, order) => Some((*id, order.text.clone(), order.limit)),
            _ => None,
        });
        starts.collect()
    }

    fn started_texts(&self) -> Vec<String> {
        self.script_runs()
            .into_iter()
            .map(|(_, text, _)| text)
            .collect()
    }

    fn script_ends(&mut self, id: u64, output: &str, how: ScriptHow) {
        let output = output.to_owned();
        self.event(Event::ScriptEnded(ScriptId(id), ScriptEnd { output, how }));
    }

    fn answers(&self) -> Vec<ScriptAnswer> {
        let pushes = self.device_pushes().into_iter();
        pushes
            .filter_map(|push| match push {
                DevicePush::Script(answer) => Some(answer),
                _ => None,
            })
            .collect()
    }

    fn answer(&self) -> ScriptAnswer {
        let mut answers = self.answers();
        assert_eq!(answers.len(), 1, "{answers:?}");
        answers.remove(0)
    }

    /// A bench whose console is joined, too.
    pub(in crate::core) fn with_console(mut setup: Setup) -> Self {
        setup.shells.console = true;
        let mut bench = Self::new(setup);
        bench.open();
        bench.reply_to_join();
        bench.join_console();
        bench.effects.clear();
        bench
    }

    fn join_console(&mut self) {
        let is_join = |body: &Outbound| matches!(body, Outbound::Join(Topic::Console, _));
        let reference = self.last_ref(is_join);
        self.reply(Topic::Console, reference);
    }

    fn file(&mut self, event: FileEvent) {
        self.receive(Inbound::Console {
            join_ref: None,
            event: ConsoleEvent::File(event),
        });
    }

    fn file_starts(&mut self, name: &str) {
        let name = name.to_owned();
        self.file(FileEvent::Start { name });
    }

    fn file_data(&mut self, name: &str, bytes: &[u8]) {
        let (name, bytes) = (name.to_owned(), Some(bytes.to_vec()));
        self.file(FileEvent::Data { name, bytes });
    }

    fn file_stops(&mut self, name: &str) {
        let name = name.to_owned();
        self.file(FileEvent::Stop { name });
    }

    fn upload_steps(&self) -> Vec<UploadStep> {
        let steps = self.effects.iter().filter_map(|effect| match effect {
            Effect::Upload(step) => Some(step.clone()),
            _ => None,
        });
        steps.collect()
    }

    /// Every line of text on the operator's terminal; the next goes once one is sent.
    fn console_text(&mut self) -> String {
        loop {
            let lines: Vec<(u64, String)> = self
                .pushes()
                .into_iter()
                .filter_map(|push| match &push.body {
                    Outbound::Console(ConsolePush::Output(text)) => {
                        Some((push.reference, text.to_string()))
                    }
                    _ => None,
                })
                .collect();
            let sent = lines.last().map(|(reference, _)| *reference);
            self.socket(SocketEvent::Sent(sent.unwrap_or_default()));
            if self.last_console_line() == sent {
                return lines.into_iter().map(|(_, text)| text).collect();
            }
        }
    }

    fn last_console_line(&self) -> Option<u64> {
        let pushes = self.pushes().into_iter();
        let mut of_console = pushes.filter(|push| matches!(push.body, Outbound::Console(_)));
        of_console.next_back().map(|push| push.reference)
    }
}

fn open(id: u64, name: &str) -> UploadStep {
    UploadStep::Open {
        upload: UploadId(id),
        name: name.to_owned(),
    }
}

fn append(id: u64, bytes: &[u8]) -> UploadStep {
    UploadStep::Append {
        upload: UploadId(id),
        bytes: bytes.to_vec(),
    }
}

#[test]
fn a_script_runs_within_the_hub_s_patience_and_its_status_is_the_return() {
    let mut bench = Bench::joined(setup());
    bench.script("r", "echo 1", None);
    assert_eq!(
        bench.script_runs(),
        [(ScriptId(1), "echo 1".to_owned(), 10 * SECOND)]
    );
    bench.script_ends(1, "1\n", ScriptHow::Exited(3));
    assert_eq!(
        bench.answer(),
        ScriptAnswer {
            reference: "r".into(),
            output: "1\n".into(),
            result: Ok(3),
        }
    );
    for (asked, given) in [(1, 1), (12, 12), (13, 12), (3600, 12)] {
        bench.effects.clear();
        bench.script("r", "x", Some(asked * SECOND));
        let (id, _, limit) = bench.script_runs().remove(0);
        assert_eq!(limit, given * SECOND);
        bench.script_ends(id.0, "", ScriptHow::Exited(0));
    }
}

#[test]
fn ends_that_are_no_exit_are_told_in_the_output_which_is_all_the_page_shows() {
    for (how, note, result) in [
        (ScriptHow::Killed(11), "[killed by signal 11]", Ok(139)),
        (
            ScriptHow::TimedOut,
            "[killed: not done within 10s]",
            Err("killed: not done within 10s".to_owned()),
        ),
        (
            ScriptHow::Failed("no disk".into()),
            "[no disk]",
            Err("no disk".to_owned()),
        ),
    ] {
        let mut bench = Bench::joined(setup());
        bench.script("r", "x", None);
        bench.script_ends(1, "so far", how);
        let answer = bench.answer();
        assert_eq!(answer.output, format!("so far\n{note}"));
        assert_eq!(answer.result, result);
    }
}

#[test]
fn four_run_sixteen_wait_and_waiting_counts() {
    let mut bench = Bench::joined(setup());
    for n in 1..=20 {
        bench.script(&format!("r{n}"), &format!("t{n}"), None);
    }
    assert_eq!(bench.started_texts(), ["t1", "t2", "t3", "t4"]);
    bench.script("r21", "t21", None);
    let refused = bench.answer();
    assert_eq!(refused.reference, "r21");
    assert!(refused.result.is_err());
    bench.effects.clear();

    bench.pass(7 * SECOND);
    bench.script_ends(2, "", ScriptHow::Exited(0));
    assert_eq!(
        bench.script_runs(),
        [(ScriptId(5), "t5".to_owned(), 3 * SECOND)]
    );
    bench.effects.clear();
    // Nothing else ends: what waits is answered when its time is over, and not run later.
    bench.pass(3 * SECOND);
    let answers = bench.answers();
    assert_eq!(answers.len(), 15);
    for answer in answers {
        let reason = answer.result.expect_err("not run");
        assert!(reason.contains("other scripts"), "{reason}");
    }
    bench.script_ends(1, "", ScriptHow::Exited(0));
    assert_eq!(bench.script_runs(), []);
}

#[test]
fn a_script_that_does_not_die_is_answered_for_once() {
    let mut bench = Bench::joined(setup());
    bench.script("r", "x", None);
    bench.pass(11 * SECOND);
    assert_eq!(bench.answers(), []);
    bench.pass(SECOND);
    assert!(bench.answer().result.is_err());
    bench.script_ends(1, "late", ScriptHow::TimedOut);
    assert_eq!(bench.answers().len(), 1);

    let mut bench = Bench::joined(setup());
    bench.script("r", "x", None);
    let lost = Event::WorkerExited(Worker::Script(ScriptId(1)), Err("no thread".into()));
    bench.event(lost);
    assert!(bench.answer().output.contains("no thread"));
    bench.pass(60 * SECOND);
    assert_eq!(bench.answers().len(), 1);
}

#[test]
fn what_is_not_run_is_answered_and_says_why() {
    let off = with(|operator| operator.scripts = false);
    for (setup, text, why) in [
        (off, "echo".to_owned(), "NERVES_HUB_SCRIPTS"),
        (setup(), String::new(), "empty"),
        (setup(), " \r\n".to_owned(), "empty"),
        (setup(), "x".repeat(65 * 1024), "66560 bytes"),
    ] {
        let mut bench = Bench::joined(setup);
        bench.script("r", &text, None);
        assert_eq!(bench.script_runs(), []);
        let reason = bench.answer().result.expect_err("refused");
        assert!(reason.contains(why), "{reason}");
    }
}

#[test]
fn an_answer_goes_to_the_join_that_asked_or_nowhere() {
    let mut bench = Bench::joined(setup());
    for n in 1..=5 {
        bench.script(&format!("r{n}"), &format!("t{n}"), None);
    }
    bench.socket(SocketEvent::Closed("gone".into()));
    // Before anybody's time is over.
    bench.pass(2 * SECOND);
    bench.open();
    bench.reply_to_join();
    // The fresh connection counts its joins from the beginning, too.
    bench.effects.clear();
    bench.script_ends(1, "1\n", ScriptHow::Exited(0));
    assert_eq!(bench.answers(), []);
    // Nobody would see what the one that waited does.
    assert_eq!(bench.script_runs(), []);
    bench.script("r6", "t6", None);
    assert_eq!(bench.started_texts(), ["t6"]);
}

#[test]
fn code_for_every_connect_waits_once_however_often_the_link_drops() {
    let mut bench = Bench::joined(setup());
    for n in 1..=4 {
        bench.script(&format!("r{n}"), "sleep", None);
    }
    for _ in 0..20 {
        bench.script("connecting_code", "code", None);
    }
    assert_eq!(bench.answers(), []);
    for id in 1..=4 {
        bench.script_ends(id, "", ScriptHow::Exited(0));
    }
    let codes = bench.started_texts();
    assert_eq!(codes.iter().filter(|text| *text == "code").count(), 1);
}

#[test]
fn elixir_gets_a_hint_when_it_failed() {
    let run = |text: &str, how: ScriptHow| {
        let mut bench = Bench::joined(setup());
        bench.script("r", text, None);
        bench.script_ends(1, "sh: syntax error", how);
        bench.answer().output
    };
    let hinted = run("IO.puts(\"x\")", ScriptHow::Exited(2));
    assert!(hinted.contains("Elixir"), "{hinted}");
    assert_eq!(
        run("IO.puts(\"x\")", ScriptHow::Exited(0)),
        "sh: syntax error"
    );
    assert_eq!(run("false", ScriptHow::Exited(1)), "sh: syntax error");
}

#[test]
fn nothing_is_begun_while_leaving() {
    let mut bench = Bench::with_console(setup());
    bench.offer("new");
    bench.event(Event::Signal(Signal::Terminate));
    bench.effects.clear();
    bench.script("r", "x", None);
    bench.file_starts("a");
    bench.receive(Inbound::Device(DeviceEvent::Identify));
    assert!(bench.answer().result.is_err());
    assert_eq!(bench.script_runs(), []);
    assert_eq!(bench.upload_steps(), []);
    assert_eq!(bench.count(&Effect::Identify), 0);
}

#[test]
fn files_are_written_in_the_order_of_arrival_however_they_are_mixed() {
    let mut bench = Bench::with_console(setup());
    bench.file_starts("../a.txt");
    bench.file_starts("b.txt");
    bench.file_data("../a.txt", b"1");
    bench.file_data("b.txt", b"2");
    bench.file_data("../a.txt", b"3");
    bench.file_stops("../a.txt");
    assert_eq!(
        bench.upload_steps(),
        [
            open(1, "a.txt"),
            open(2, "b.txt"),
            append(1, b"1"),
            append(2, b"2"),
            append(1, b"3"),
            UploadStep::Finish(UploadId(1)),
        ]
    );
    assert_eq!(bench.count(&Effect::EndUploads), 0);
    let placed = Ok(("/data/uploads/a.txt".into(), 2));
    bench.event(Event::UploadEnded(UploadId(1), placed));
    assert_eq!(
        bench.console_text(),
        "\x1b[0m\r\n[received a.txt, 2 bytes → /data/uploads/a.txt]\r\n"
    );
    bench.file_stops("b.txt");
    bench.event(Event::UploadEnded(UploadId(2), Ok(("/b.txt".into(), 1))));
    assert_eq!(bench.count(&Effect::EndUploads), 1);
}

#[test]
fn data_or_an_end_without_a_beginning_does_nothing() {
    let mut bench = Bench::with_console(setup());
    bench.file_data("a", b"1");
    bench.file_stops("a");
    bench.file_starts("a");
    bench.file_stops("a");
    // Still being written to the disk; its name is free for the next one.
    bench.file_data("a", b"2");
    assert_eq!(
        bench.upload_steps(),
        [open(1, "a"), UploadStep::Finish(UploadId(1))]
    );
}

#[test]
fn a_second_beginning_drops_the_first() {
    let mut bench = Bench::with_console(setup());
    bench.file_starts("a");
    bench.file_data("a", b"old");
    bench.file_starts("a");
    bench.file_data("a", b"new");
    assert_eq!(
        bench.upload_steps()[2..],
        [
            UploadStep::Discard(UploadId(1)),
            open(2, "a"),
            append(2, b"new")
        ]
    );
}

#[test]
fn too_much_or_garbage_ends_a_file_and_its_rest_is_not_looked_at() {
    let garbage = |bench: &mut Bench| {
        let (name, bytes) = ("a".to_owned(), None);
        bench.file(FileEvent::Data { name, bytes });
    };
    let too_much = |bench: &mut Bench| bench.file_data("a", &[0; 1001]);
    for (what, why) in [
        (&garbage as &dyn Fn(&mut Bench), "base64"),
        (&too_much, "larger than 1000 bytes"),
    ] {
        let mut bench = Bench::with_console(setup());
        bench.file_starts("a");
        what(&mut bench);
        bench.file_data("a", b"rest");
        bench.file_stops("a");
        assert_eq!(
            bench.upload_steps(),
            [open(1, "a"), UploadStep::Discard(UploadId(1))]
        );
        let told = bench.console_text();
        assert!(
            told.contains(why) && told.contains("not received"),
            "{told}"
        );
        assert_eq!(told.matches("not received").count(), 1);
        // The next one is not held against it.
        bench.file_starts("a");
        bench.file_data("a", &[0; 1000]);
        bench.file_stops("a");
        assert_eq!(bench.upload_steps().len(), 5);
    }
}

#[test]
fn a_failure_of_the_disk_ends_a_file() {
    let mut bench = Bench::with_console(setup());
    bench.file_starts("a");
    bench.event(Event::UploadEnded(UploadId(1), Err("disk full".into())));
    bench.file_data("a", b"1");
    bench.file_stops("a");
    assert_eq!(bench.upload_steps(), [open(1, "a")]);
    assert!(bench.console_text().contains("not received: a: disk full"));

    let mut bench = Bench::with_console(setup());
    bench.file_starts("a");
    bench.file_stops("a");
    let lost = Event::WorkerExited(Worker::Uploads(1), Err("panicked".into()));
    bench.event(lost);
    assert!(
        bench.console_text().contains("panicked"),
        "{}",
        bench.console_text()
    );
    assert!(bench.count(&Effect::EndUploads) > 0);
}

#[test]
fn a_file_that_comes_to_a_halt_is_given_up_and_so_is_one_whose_console_goes() {
    let mut bench = Bench::with_console(setup());
    bench.file_starts("a");
    bench.pass(50 * SECOND);
    bench.file_data("a", b"1");
    bench.pass(50 * SECOND);
    assert_eq!(bench.upload_steps().len(), 2);
    bench.pass(11 * SECOND);
    assert_eq!(
        bench.upload_steps()[2..],
        [UploadStep::Discard(UploadId(1))]
    );
    assert!(bench.console_text().contains("nothing came for 60 s"));

    bench.file_starts("b");
    bench.file_starts("c");
    bench.file_stops("c");
    bench.effects.clear();
    bench.socket(SocketEvent::Closed("gone".into()));
    // What is all there is finished.
    assert_eq!(bench.upload_steps(), [UploadStep::Discard(UploadId(2))]);
    assert_eq!(bench.count(&Effect::EndUploads), 0);
}

#[test]
fn files_are_refused_with_a_reason() {
    let off = with(|operator| operator.upload_max = 0);
    for (setup, name, why) in [
        (off, "a", "NERVES_HUB_UPLOAD_MAX"),
        (setup(), "..", "no name"),
        (setup(), "a\0b", "control character"),
    ] {
        let mut bench = Bench::with_console(setup);
        bench.file_starts(name);
        assert_eq!(bench.upload_steps(), []);
        assert!(
            bench.console_text().contains(why),
            "{}",
            bench.console_text()
        );
        // Thousands of pieces may follow, and say nothing more.
        bench.effects.clear();
        bench.file_data(name, b"1");
        bench.file_stops(name);
        assert_eq!(bench.effects, []);
    }
    let mut bench = Bench::with_console(setup());
    for n in 1..=9 {
        bench.file_starts(&n.to_string());
    }
    assert_eq!(bench.upload_steps().len(), 8);
    assert!(
        bench.console_text().contains("8 files"),
        "{}",
        bench.console_text()
    );
}

#[test]
fn the_console_is_joined_when_it_is_on_and_not_mistaken_for_the_device_channel() {
    let mut bench = Bench::new(setup());
    bench.open();
    bench.reply_to_join();
    let joins = |bench: &Bench| {
        let joins = bench.pushes().into_iter();
        joins
            .filter(|push| matches!(push.body, Outbound::Join(Topic::Console, _)))
            .count()
    };
    assert_eq!(joins(&bench), 0);

    let mut bench = Bench::with_console(setup());
    bench.receive(Inbound::ChannelError {
        topic: Topic::Console,
        join_ref: None,
        reason: "crash".into(),
    });
    bench.pass(20 * SECOND);
    assert_eq!(joins(&bench), 1);
    assert_eq!(bench.pushes().len(), 1, "the device channel is well");
}

#[test]
fn one_identification_at_a_time() {
    let mut bench = Bench::joined(setup());
    let identify = || Inbound::Device(DeviceEvent::Identify);
    bench.receive(identify());
    bench.receive(identify());
    assert_eq!(bench.count(&Effect::Identify), 1);
    bench.event(Event::WorkerExited(Worker::Identify, Ok(())));
    bench.receive(identify());
    bench.event(Event::WorkerExited(Worker::Identify, Err("no".into())));
    bench.receive(identify());
    assert_eq!(bench.count(&Effect::Identify), 3);
}
