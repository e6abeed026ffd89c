//! SIGKILL at many moments of an update, then a fresh start: the image is right in the
//! end, success is never claimed for anything else, and what was on the disk is not
//! fetched again.
//!
//! A few moments run with every test; `scripts/kill-sweep` runs hundreds.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use devhub::Firmware;
use devhub::store::{Fault, When};
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;

use crate::matrix::kept;
use crate::rig::{Installer, PATIENCE, installers};
use crate::stage::Stage;
use crate::terminal::lives;

const KIB: u64 = 2500;
const PART: u64 = 1 << 20;
/// Bytes a second of the store: slow enough to hit a download anywhere.
const RATE: u64 = 10_000_000;
/// Verification, installation and report take about so long.
const AFTERMATH: Duration = Duration::from_millis(100);
const STRATEGIES: [&str; 3] = ["streaming", "caching", "parts"];

/// When the agent is killed.
#[derive(Clone, Copy, Debug)]
enum Moment {
    /// The store has sent so many bytes.
    Sent(u64),
    /// So long after the last byte was sent.
    After(Duration),
    /// So long after the installer's success was logged.
    Installed(Duration),
}

/// What one kill led to.
struct Outcome {
    /// The update was over before it came.
    late: bool,
    /// Bytes that were on the disk, and fetched again.
    repeated: u64,
}

fn moments(count: u32) -> Vec<Moment> {
    let share = |index: u32, of: u32| (index, of.max(1));
    let (download, after) = (count / 2, count * 2 / 5);
    let report = count - download - after;
    let sent = (0..download).map(|index| {
        let (index, of) = share(index, download);
        Moment::Sent(KIB * 1024 * u64::from(index) / u64::from(of))
    });
    let later = (0..after).map(|index| Moment::After(AFTERMATH * index / after.max(1)));
    let told = (0..report)
        .map(|index| Moment::Installed(Duration::from_millis(20) * index / report.max(1)));
    sent.chain(later).chain(told).collect()
}

fn await_moment(stage: &Stage, firmware: &Firmware, size: u64, moment: Moment) {
    let path = firmware.path();
    let sent = |least: u64| {
        stage.hub.store().wait("bytes sent", |requests| {
            let ours = requests.iter().filter(|request| request.path == path);
            let sent: Vec<u64> = ours.map(|request| request.sent).collect();
            // A request that comes in after the kill would count for the next run.
            !sent.is_empty() && sent.iter().sum::<u64>() >= least
        });
    };
    // The pauses are what is tested: the moment itself, not a wait for something.
    match moment {
        Moment::Sent(bytes) => sent(bytes),
        Moment::After(pause) => {
            sent(size);
            std::thread::sleep(pause);
        }
        Moment::Installed(pause) => {
            stage
                .agent
                .wait_log(&format!("firmware {} installed", firmware.uuid));
            std::thread::sleep(pause);
        }
    }
}

/// As a power cut: the agent and all it has started, at once.
fn kill_all(stage: &mut Stage) {
    stage.agent.signal(Signal::SIGSTOP);
    // One that has just been forked may not have a group yet, nor its parent have stopped.
    let end = Instant::now() + PATIENCE;
    while !stage.agent.has_stopped() || stage.agent.children().iter().any(|pid| lives(pid)) {
        assert!(Instant::now() < end, "neither stopped nor alone");
        for child in stage.agent.children() {
            let pid = Pid::from_raw(child.parse().expect("pid"));
            let _ = killpg(pid, Signal::SIGKILL);
            let _ = kill(pid, Signal::SIGKILL);
        }
        std::thread::yield_now();
    }
    stage.agent.signal(Signal::SIGKILL);
    stage.agent.wait_exit();
}

fn claims(stage: &Stage) -> usize {
    let statuses = stage.statuses();
    statuses
        .iter()
        .filter(|status| *status == "completed")
        .count()
}

fn play(installer: &Installer, strategy: &str, moment: Moment) -> Outcome {
    let mut stage = Stage::new(installer, &[("FWUP_TASK", "switch"), ("UPDATER", strategy)]);
    let (forged, firmware) = stage.forge("forged.fw", KIB);
    let path = firmware.path();
    stage
        .hub
        .store()
        .fault(&path, When::Always, Fault::Slow(RATE));
    stage.hub.deploy(Some(&firmware));
    stage.hub.offer(&firmware);
    await_moment(&stage, &firmware, forged.size, moment);
    kill_all(&mut stage);
    let case = format!("{strategy}, {moment:?}");
    if claims(&stage) > 0 {
        assert!(
            forged.is_finished_on(&stage.device),
            "{case}: a false claim"
        );
    }
    let late = stage.device.reboots() > 0;
    let (held, asked) = (kept(&stage), stage.hub.store().requests_for(&path).len());
    if !late {
        stage.agent = stage.device.start();
        stage.hub.expect_status("completed");
        stage.agent.wait_log("reboot command accepted");
    }
    forged.assert_on(&stage.device);
    assert_eq!(stage.device.reboots(), 1, "{case}");
    let statuses = stage.statuses();
    assert!(
        !statuses.iter().any(|status| status == "failed"),
        "{case}: {statuses:?}"
    );
    let requests = stage.hub.store().requests_for(&path);
    let fetched: u64 = requests[asked..].iter().map(|request| request.sent).sum();
    let repeated = (held + fetched).saturating_sub(forged.size);
    let allowed = match strategy {
        "parts" => PART,
        // The second one keeps every byte; the first one none.
        _ => 0,
    };
    assert!(fetched <= forged.size, "{case}: {fetched} bytes");
    assert!(repeated <= allowed, "{case}: {repeated} bytes twice");
    Outcome { late, repeated }
}

/// Plays `count` moments for each strategy, a few at a time.
fn sweep(count: u32, at_once: usize) {
    let installer = installers().pop().expect("an installer");
    let cases: Vec<(&str, Moment)> = STRATEGIES
        .iter()
        .flat_map(|strategy| {
            moments(count)
                .into_iter()
                .map(move |moment| (*strategy, moment))
        })
        .collect();
    let next = AtomicUsize::new(0);
    let outcomes = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..at_once {
            scope.spawn(|| {
                while let Some((strategy, moment)) = cases.get(next.fetch_add(1, Ordering::SeqCst))
                {
                    let outcome = play(&installer, strategy, *moment);
                    outcomes
                        .lock()
                        .expect("outcomes")
                        .push((*strategy, outcome));
                }
            });
        }
    });
    let outcomes = outcomes.into_inner().expect("outcomes");
    assert_eq!(outcomes.len(), cases.len());
    eprintln!("{} kills, installer: {}", cases.len(), installer.name);
    for strategy in STRATEGIES {
        let of: Vec<&Outcome> = outcomes
            .iter()
            .filter(|(name, _)| *name == strategy)
            .map(|(_, outcome)| outcome)
            .collect();
        let late = of.iter().filter(|outcome| outcome.late).count();
        let worst = of.iter().map(|outcome| outcome.repeated).max().unwrap_or(0);
        eprintln!(
            "  {strategy:<10} {} kills, {late} after the end; image right {} times, most bytes \
             fetched twice: {worst}",
            of.len(),
            of.len()
        );
    }
}

#[test]
fn a_killed_agent_finishes_its_update_after_a_restart() {
    sweep(6, 2);
}

#[test]
#[ignore = "minutes long: scripts/kill-sweep"]
fn hundreds_of_kills() {
    let count = std::env::var("KILL_SWEEP_POINTS").ok();
    let count = count.and_then(|count| count.parse().ok()).unwrap_or(70);
    sweep(count, 4);
}
