//! Channels, shells and extensions in virtual time.

use super::*;
use crate::core::effect::ShellOrder;
use crate::core::event::{ShellEnd, ShellEvent, ShellId, ShellKind};
use crate::core::extensions::{Enabled, Way};
use crate::wire::{
    ConsoleEvent, ConsolePush, ExtensionPush, ExtensionsEvent, LOCAL_SHELL, LocalShellEvent,
    Offered, Selection, WindowSize,
};

const MILLI: Duration = Duration::from_millis(1);

fn open_to_all() -> Setup {
    Setup {
        shells: ShellPolicy {
            console: true,
            local: true,
            timeout: 300 * SECOND,
        },
        extensions: vec![Enabled {
            offered: Offered {
                name: LOCAL_SHELL.to_owned(),
                versions: vec!["0.0.1".to_owned()],
            },
            way: Way::Shell,
        }],
        ..setup()
    }
}

/// The orders to shells, of which the last comes last.
fn orders(bench: &Bench) -> Vec<(ShellId, ShellOrder)> {
    let orders = bench.effects.iter().filter_map(|effect| match effect {
        Effect::Shell(id, order) => Some((*id, order.clone())),
        _ => None,
    });
    orders.collect()
}

fn started(bench: &Bench) -> Vec<ShellId> {
    let starts = orders(bench).into_iter();
    starts
        .filter(|(_, order)| matches!(order, ShellOrder::Start(_)))
        .map(|(id, _)| id)
        .collect()
}

/// How many orders to go on there were, and the last one's pace.
fn grants(bench: &Bench) -> (usize, Option<Duration>) {
    let paces: Vec<Duration> = orders(bench)
        .into_iter()
        .filter_map(|(_, order)| match order {
            ShellOrder::More { pace } => Some(pace),
            _ => None,
        })
        .collect();
    (paces.len(), paces.last().copied())
}

fn shown(bench: &Bench) -> Vec<String> {
    let texts = bench.pushes().into_iter();
    texts
        .filter_map(|push| match &push.body {
            Outbound::Console(ConsolePush::Output(text)) => Some(text.to_string()),
            Outbound::Extension(ExtensionPush::ShellOutput(text)) => Some(text.to_string()),
            _ => None,
        })
        .collect()
}

fn joins_of(bench: &Bench, topic: Topic) -> Vec<u64> {
    let joins = bench.pushes().into_iter();
    joins
        .filter(|push| matches!(&push.body, Outbound::Join(other, _) if *other == topic))
        .map(|push| push.reference)
        .collect()
}

fn join_channel(bench: &mut Bench, topic: Topic) -> u64 {
    let reference = *joins_of(bench, topic).last().expect("join");
    let outcome = Ok(ReplyBody {
        offer: None,
        attach: vec!["local_shell".to_owned()],
    });
    bench.receive(Inbound::Reply(Reply {
        topic,
        reference,
        outcome,
    }));
    reference
}

/// Device, console and extensions joined, nothing else seen.
fn watched() -> Bench {
    let mut bench = Bench::new(open_to_all());
    bench.open();
    join_channel(&mut bench, Topic::Device);
    join_channel(&mut bench, Topic::Console);
    bench.receive(Inbound::Device(DeviceEvent::ExtensionsGet(None)));
    join_channel(&mut bench, Topic::Extensions);
    bench.effects.clear();
    bench
}

fn console(bench: &mut Bench, event: ConsoleEvent) {
    bench.receive(Inbound::Console {
        join_ref: None,
        event,
    });
}

fn keys(bench: &mut Bench, text: &str) {
    console(bench, ConsoleEvent::Keys(text.to_owned()));
}

fn resize(bench: &mut Bench) {
    console(bench, ConsoleEvent::WindowSize(WindowSize::default()));
}

fn local(bench: &mut Bench, event: LocalShellEvent) {
    bench.receive(Inbound::Extensions {
        join_ref: None,
        event: ExtensionsEvent::LocalShell(event),
    });
}

fn says(bench: &mut Bench, id: ShellId, text: &str) {
    bench.event(Event::Shell(id, ShellEvent::Output(text.to_owned())));
}

fn ends(bench: &mut Bench, id: ShellId, end: ShellEnd) {
    bench.event(Event::Shell(id, ShellEvent::Ended(end)));
}

/// The socket thread has sent the last push.
fn sent(bench: &mut Bench) {
    let reference = bench.pushes().last().expect("push").reference;
    bench.socket(SocketEvent::Sent(reference));
}

/// A console somebody has opened.
fn opened() -> (Bench, ShellId) {
    let mut bench = watched();
    resize(&mut bench);
    let id = started(&bench)[0];
    bench.event(Event::Shell(
        id,
        ShellEvent::Started {
            pid: 7,
            program: "sh".into(),
        },
    ));
    bench.effects.clear();
    (bench, id)
}

#[test]
fn channels_that_are_not_enabled_are_never_joined() {
    let mut bench = Bench::joined(setup());
    bench.receive(Inbound::Device(DeviceEvent::ExtensionsGet(None)));
    resize(&mut bench);
    keys(&mut bench, "id\r");
    local(&mut bench, LocalShellEvent::Request);
    bench.pass(60 * SECOND);
    assert!(joins_of(&bench, Topic::Console).is_empty());
    assert!(joins_of(&bench, Topic::Extensions).is_empty());
    assert_eq!(orders(&bench), []);
}

#[test]
fn extensions_are_offered_once_unasked_and_not_again_when_asked_late() {
    let mut bench = Bench::new(open_to_all());
    bench.open();
    join_channel(&mut bench, Topic::Device);
    bench.pass(4 * SECOND);
    assert!(joins_of(&bench, Topic::Extensions).is_empty());
    bench.pass(2 * SECOND);
    assert_eq!(joins_of(&bench, Topic::Extensions).len(), 1);
    join_channel(&mut bench, Topic::Extensions);
    bench.receive(Inbound::Device(DeviceEvent::ExtensionsGet(None)));
    assert_eq!(joins_of(&bench, Topic::Extensions).len(), 1);
    // The hub has another opinion of what it takes.
    let takes = [("local_shell".to_owned(), vec!["0.0.1".to_owned()])];
    let advertised = Some(BTreeMap::from(takes));
    bench.receive(Inbound::Device(DeviceEvent::ExtensionsGet(advertised)));
    assert_eq!(joins_of(&bench, Topic::Extensions).len(), 2);
}

#[test]
fn an_unanswered_console_join_costs_no_connection_but_the_device_s_does() {
    let mut bench = Bench::new(open_to_all());
    bench.open();
    join_channel(&mut bench, Topic::Device);
    bench.pass(11 * SECOND);
    assert!(
        !bench
            .effects
            .iter()
            .any(|effect| matches!(effect, Effect::Disconnect(_)))
    );
    bench.pass(8 * SECOND);
    assert_eq!(joins_of(&bench, Topic::Console).len(), 2);
    let mut bench = Bench::new(open_to_all());
    bench.open();
    bench.pass(11 * SECOND);
    assert!(
        bench
            .effects
            .iter()
            .any(|effect| matches!(effect, Effect::Disconnect(_)))
    );
}

#[test]
fn crashes_in_a_row_are_joined_after_ever_longer_waits_and_a_steady_channel_soon() {
    let mut settings = open_to_all();
    settings.link.reconnect_jitter = 0;
    let mut bench = Bench::new(settings);
    bench.open();
    join_channel(&mut bench, Topic::Device);
    let crash = |bench: &mut Bench| {
        let reference = join_channel(bench, Topic::Console);
        let before = joins_of(bench, Topic::Console).len();
        bench.receive(Inbound::ChannelError {
            topic: Topic::Console,
            join_ref: Some(reference),
            reason: "crash".into(),
        });
        let from = bench.now;
        while joins_of(bench, Topic::Console).len() == before {
            bench.pass(SECOND);
        }
        bench.now.duration_since(from).as_secs()
    };
    let waits: Vec<u64> = (0..4).map(|_| crash(&mut bench)).collect();
    assert_eq!(waits, [5, 10, 20, 40]);
    join_channel(&mut bench, Topic::Console);
    bench.pass(61 * SECOND);
    assert_eq!(crash(&mut bench), 5);
    assert_eq!(joins_of(&bench, Topic::Device).len(), 1);
}

#[test]
fn what_belongs_to_an_earlier_join_is_dropped() {
    let (mut bench, _) = opened();
    let stale = |event| Inbound::Console {
        join_ref: Some(1),
        event,
    };
    bench.receive(stale(ConsoleEvent::Keys("rm -rf /\r".into())));
    bench.receive(stale(ConsoleEvent::Restart));
    bench.receive(Inbound::ChannelClosed {
        topic: Topic::Console,
        join_ref: Some(1),
    });
    assert_eq!(orders(&bench), []);
    bench.pass(20 * SECOND);
    assert!(joins_of(&bench, Topic::Console).is_empty());
}

#[test]
fn opening_the_page_starts_one_shell_and_opening_it_again_none() {
    let mut bench = watched();
    assert_eq!(started(&bench), []);
    for _ in 0..3 {
        resize(&mut bench);
    }
    assert_eq!(started(&bench).len(), 1);
}

#[test]
fn one_push_is_under_way_and_the_shell_waits_for_it() {
    let (mut bench, id) = opened();
    says(&mut bench, id, "a");
    assert_eq!(shown(&bench), ["a"]);
    assert_eq!(grants(&bench).0, 0, "not before it was sent");
    sent(&mut bench);
    assert_eq!(grants(&bench), (1, Some(20 * MILLI)));
    // A receipt of something else, and of another connection.
    bench.socket(SocketEvent::Sent(4711));
    assert_eq!(grants(&bench).0, 1);
}

#[test]
fn while_firmware_is_on_its_way_output_comes_slowly() {
    let (mut bench, id) = opened();
    bench.offer("new");
    says(&mut bench, id, "a");
    let reference = bench.last_ref(|body| matches!(body, Outbound::Console(_)));
    bench.socket(SocketEvent::Sent(reference));
    assert_eq!(grants(&bench), (1, Some(200 * MILLI)));
}

#[test]
fn output_while_the_hub_is_away_is_kept_and_the_shell_goes_on() {
    let (mut bench, id) = opened();
    says(&mut bench, id, "lost on the way ");
    bench.socket(SocketEvent::Closed("gone".into()));
    assert_eq!(grants(&bench).0, 1, "nothing is gained by waiting");
    says(&mut bench, id, "said meanwhile ");
    assert_eq!(grants(&bench).0, 2);
    bench.effects.clear();
    bench.pass(2 * SECOND);
    bench.open();
    join_channel(&mut bench, Topic::Device);
    assert!(shown(&bench).is_empty());
    join_channel(&mut bench, Topic::Console);
    sent(&mut bench);
    assert_eq!(shown(&bench), ["lost on the way ", "said meanwhile "]);
    keys(&mut bench, "x");
    let last = orders(&bench).pop().expect("order");
    assert_eq!(last, (id, ShellOrder::Input("x".into())));
}

#[test]
fn what_was_sent_into_a_silence_is_sent_again_and_what_was_confirmed_is_not() {
    let (mut bench, id) = opened();
    says(&mut bench, id, "confirmed");
    sent(&mut bench);
    bench.beat();
    bench.reply_to_heartbeat();
    says(&mut bench, id, "swallowed");
    sent(&mut bench);
    bench.effects.clear();
    bench.beat();
    bench.beat();
    assert!(
        bench
            .effects
            .iter()
            .any(|effect| matches!(effect, Effect::Disconnect(_)))
    );
    bench.pass(2 * SECOND);
    bench.open();
    join_channel(&mut bench, Topic::Device);
    join_channel(&mut bench, Topic::Console);
    assert_eq!(shown(&bench), ["swallowed"]);
}

#[test]
fn a_shell_without_a_key_is_ended_and_a_key_starts_another() {
    let (mut bench, id) = opened();
    bench.pass(250 * SECOND);
    keys(&mut bench, "x");
    bench.pass(299 * SECOND);
    says(&mut bench, id, "output is no key");
    assert!(!orders(&bench).contains(&(id, ShellOrder::End)));
    bench.pass(2 * SECOND);
    assert!(orders(&bench).contains(&(id, ShellOrder::End)));
    ends(&mut bench, id, ShellEnd::Signalled(1));
    bench.effects.clear();
    keys(&mut bench, "\u{1b}[1;1R");
    resize(&mut bench);
    assert_eq!(started(&bench), []);
    keys(&mut bench, "y");
    let again = started(&bench)[0];
    assert_ne!(again, id);
    assert!(orders(&bench).contains(&(again, ShellOrder::Input("y".into()))));
}

#[test]
fn a_key_pressed_while_a_shell_is_being_ended_starts_the_next() {
    let (mut bench, id) = opened();
    bench.pass(301 * SECOND);
    bench.effects.clear();
    keys(&mut bench, "x");
    assert_eq!(started(&bench), [], "one at a time");
    ends(&mut bench, id, ShellEnd::Signalled(9));
    assert_eq!(started(&bench).len(), 1);
}

#[test]
fn events_of_an_earlier_run_are_dropped() {
    let (mut bench, first) = opened();
    console(&mut bench, ConsoleEvent::Restart);
    ends(&mut bench, first, ShellEnd::Signalled(1));
    let second = *started(&bench).last().expect("second");
    bench.effects.clear();
    says(&mut bench, first, "late");
    ends(&mut bench, first, ShellEnd::Exited(0));
    keys(&mut bench, "x");
    assert!(shown(&bench).is_empty());
    assert_eq!(orders(&bench), [(second, ShellOrder::Input("x".into()))]);
}

#[test]
fn a_shell_whose_thread_fails_can_be_started_again() {
    let (mut bench, id) = opened();
    bench.event(Event::WorkerExited(
        Worker::Shell(id),
        Err("panicked".into()),
    ));
    assert!(shown(&bench)[0].contains("[shell lost: panicked; press a key"));
    keys(&mut bench, "\r");
    assert_eq!(started(&bench).len(), 1);
}

#[test]
fn pushes_of_a_detached_extension_are_dropped() {
    let mut bench = watched();
    local(&mut bench, LocalShellEvent::Input("x".into()));
    let id = started(&bench)[0];
    bench.receive(Inbound::Extensions {
        join_ref: None,
        event: ExtensionsEvent::Detach(Selection::All),
    });
    assert!(orders(&bench).contains(&(id, ShellOrder::End)));
    bench.effects.clear();
    says(&mut bench, id, "to nobody");
    ends(&mut bench, id, ShellEnd::Signalled(1));
    assert_eq!(bench.pushes().len(), 0);
}

#[test]
fn one_that_is_wanted_again_before_it_has_ended_starts_once_it_has() {
    type Wish = fn() -> LocalShellEvent;
    let wishes: [(Wish, bool); 2] = [
        (|| LocalShellEvent::Request, true),
        (|| LocalShellEvent::WindowSize(WindowSize::default()), false),
    ];
    for (wish, is_answered) in wishes {
        let mut bench = watched();
        local(&mut bench, LocalShellEvent::Input("x".into()));
        let id = started(&bench)[0];
        let event = ExtensionsEvent::Detach(Selection::All);
        bench.receive(Inbound::Extensions {
            join_ref: None,
            event,
        });
        let event = ExtensionsEvent::Attach(Selection::All);
        bench.receive(Inbound::Extensions {
            join_ref: None,
            event,
        });
        local(&mut bench, wish());
        bench.effects.clear();
        ends(&mut bench, id, ShellEnd::Signalled(1));
        let next = started(&bench);
        assert_eq!(next.len(), 1);
        assert_eq!(bench.pushes().len(), 0, "its end is nobody's");
        let (pid, program) = (7, "sh".to_owned());
        bench.event(Event::Shell(next[0], ShellEvent::Started { pid, program }));
        let status = Outbound::Extension(ExtensionPush::ShellStatus(Ok(())));
        let answered = bench.pushes().iter().any(|push| push.body == status);
        assert_eq!(answered, is_answered);
    }
}

#[test]
fn a_detach_is_traced_to_the_push_it_answers() {
    let mut bench = watched();
    local(&mut bench, LocalShellEvent::Input("x".into()));
    let id = started(&bench)[0];
    says(&mut bench, id, "unwanted");
    let reference = bench.pushes().last().expect("push").reference;
    bench.receive(Inbound::DetachOrdered { reference: 4711 });
    assert!(!orders(&bench).contains(&(id, ShellOrder::End)));
    bench.receive(Inbound::DetachOrdered { reference });
    assert!(orders(&bench).contains(&(id, ShellOrder::End)));
    let detached = Outbound::Extension(ExtensionPush::Detached(LOCAL_SHELL.to_owned()));
    assert!(bench.pushes().iter().any(|push| push.body == detached));
    // The hub knows it not at all, so it answers that with a detach, too.
    let pushes = bench.pushes().len();
    let reference = bench.pushes().last().expect("push").reference;
    bench.receive(Inbound::DetachOrdered { reference });
    assert_eq!(bench.pushes().len(), pushes, "no endless exchange");
}

#[test]
fn one_shell_of_each_kind_and_no_more() {
    let mut bench = watched();
    for _ in 0..3 {
        resize(&mut bench);
        keys(&mut bench, "x");
        local(&mut bench, LocalShellEvent::Request);
        local(&mut bench, LocalShellEvent::Input("x".into()));
    }
    let kinds: Vec<ShellKind> = started(&bench).into_iter().map(|id| id.kind).collect();
    assert_eq!(kinds, ShellKind::ALL);
}

impl Bench {
    fn beat(&mut self) {
        let conn = self.conn();
        self.event(Event::HeartbeatDue(conn));
    }
}
