//! Shells on real terminals, without a hub.

use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd};

use nix::libc;

use super::*;
use crate::core::event::ShellKind;
use crate::system::channel::bounded;

const PATIENCE: Duration = Duration::from_secs(20);
const ID: ShellId = ShellId {
    kind: ShellKind::Console,
    run: 1,
};

/// A running shell, and what it has told.
struct Bench {
    orders: Option<Sender<Order>>,
    waker: Waker,
    inbox: Receiver<Event>,
    thread: std::thread::JoinHandle<Result<(), String>>,
}

impl Bench {
    fn start(command: &str) -> Self {
        let settings = ShellSettings {
            command: Some(command.to_owned()),
            ..ShellSettings::default()
        };
        let (orders, queue) = bounded(QUEUE);
        let (events, inbox) = bounded(8);
        let waker = Waker::new().expect("waker");
        let knocker = waker.clone();
        let size = WindowSize::default();
        let thread =
            std::thread::spawn(move || run(ID, &settings, size, &queue, &knocker, &events));
        Self {
            orders: Some(orders),
            waker,
            inbox,
            thread,
        }
    }

    fn order(&self, order: Order) {
        let orders = self.orders.as_ref().expect("not ended");
        orders.send(order).expect("thread");
        self.waker.wake();
    }

    fn next(&self) -> ShellEvent {
        match self.inbox.recv_timeout(PATIENCE) {
            Ok(Event::Shell(ID, event)) => event,
            other => panic!("{other:?}"),
        }
    }

    /// Takes output until it ends; all of it, and how.
    fn listen(self) -> (Vec<String>, ShellEnd) {
        let mut said = Vec::new();
        loop {
            match self.next() {
                ShellEvent::Started { .. } => {}
                ShellEvent::Output(text) => {
                    said.push(text);
                    let pace = Duration::from_millis(1);
                    // The thread may have ended since.
                    let orders = self.orders.as_ref().expect("not ended");
                    let _ = orders.send(Order::More { pace });
                    self.waker.wake();
                }
                ShellEvent::Ended(end) => {
                    self.thread.join().expect("thread").expect("no error");
                    return (said, end);
                }
            }
        }
    }
}

#[test]
fn everything_that_was_said_before_the_end_arrives_before_it() {
    let (said, end) = Bench::start("seq 1 20000; exit 5").listen();
    let expected: String = (1..=20_000).map(|number| format!("{number}\r\n")).collect();
    assert_eq!(said.concat(), expected);
    assert!(said.iter().all(|text| text.len() <= 16 * 1024));
    assert_eq!(end, ShellEnd::Exited(5));
}

#[test]
fn nothing_is_said_until_the_last_was_taken() {
    let mut bench = Bench::start("yes");
    assert!(matches!(bench.next(), ShellEvent::Started { .. }));
    assert!(matches!(bench.next(), ShellEvent::Output(_)));
    let none = bench.inbox.recv_timeout(Duration::from_millis(200));
    assert!(none.is_err(), "{none:?}");
    bench.order(Order::More {
        pace: Duration::from_millis(1),
    });
    assert!(matches!(bench.next(), ShellEvent::Output(_)));
    // A program that waits for its output to be taken ends all the same.
    bench.orders = None;
    bench.waker.wake();
    assert!(matches!(
        bench.next(),
        ShellEvent::Ended(ShellEnd::Signalled(libc::SIGHUP))
    ));
}

#[test]
fn a_pace_is_kept() {
    let bench = Bench::start("yes");
    let pace = Duration::from_millis(60);
    let mut last = None;
    for _ in 0..5 {
        while !matches!(bench.next(), ShellEvent::Output(_)) {}
        let now = Instant::now();
        if let Some(last) = last.replace(now) {
            // The thread looks at its clock before we look at ours, and the other way round.
            assert!(now.duration_since(last) > pace / 2);
        }
        bench.order(Order::More { pace });
    }
}

#[test]
fn a_shell_that_ends_is_noticed_though_its_children_hold_the_terminal() {
    let begin = Instant::now();
    let command = "(trap '' HUP; sleep 1000) & (while :; do echo still; done) & echo bye; exit 0";
    let (said, end) = Bench::start(command).listen();
    assert!(said.concat().contains("bye"));
    assert_eq!(end, ShellEnd::Exited(0));
    assert!(begin.elapsed() < Duration::from_secs(10));
}

#[test]
fn a_shell_that_gives_up_its_terminal_is_not_ended_by_that() {
    let bench = Bench::start("exec </dev/null >/dev/null 2>&1; sleep 0.3; exit 4");
    let (said, end) = bench.listen();
    assert_eq!((said.concat(), end), (String::new(), ShellEnd::Exited(4)));
}

#[test]
fn descriptors_that_were_opened_without_care_stay_with_the_agent() {
    let file = OwnedFd::from(std::fs::File::open("/dev/null").expect("/dev/null"));
    let number = file.into_raw_fd();
    // SAFETY: the descriptor is ours, and given back at once.
    let file = unsafe {
        libc::fcntl(number, libc::F_SETFD, 0);
        OwnedFd::from_raw_fd(number)
    };
    let command = format!("test -e /proc/self/fd/{}; exit $?", file.as_raw_fd());
    let (_, end) = Bench::start(&command).listen();
    assert_eq!(end, ShellEnd::Exited(1));
}

#[test]
fn the_end_that_is_ordered_takes_the_whole_session() {
    let mut bench = Bench::start(
        "set -m; trap '' HUP TERM; (trap '' HUP TERM; sleep 1000; :) & echo jobs: $!; \
         while :; do sleep 1; done",
    );
    let pid = match bench.next() {
        ShellEvent::Started { pid, .. } => pid,
        other => panic!("{other:?}"),
    };
    let mut said = String::new();
    while !said.contains("jobs: ") || !said.ends_with('\n') {
        if let ShellEvent::Output(text) = bench.next() {
            said.push_str(&text);
            bench.order(Order::More {
                pace: Duration::ZERO,
            });
        }
    }
    let job = said.split("jobs: ").nth(1).expect("job").trim().to_owned();
    bench.orders = None;
    bench.waker.wake();
    let end = loop {
        if let ShellEvent::Ended(end) = bench.next() {
            break end;
        }
    };
    assert_eq!(end, ShellEnd::Signalled(libc::SIGKILL));
    assert!(
        !std::path::Path::new(&format!("/proc/{pid}")).exists(),
        "reaped"
    );
    // A job is init's to reap.
    let stat = std::fs::read_to_string(format!("/proc/{job}/stat"));
    assert!(stat.is_err() || stat.is_ok_and(|stat| stat.contains(") Z ")));
}
