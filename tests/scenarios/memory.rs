//! Memory while firmware streams through: bounded, whatever the size and the speed.

use devhub::store::{Fault, When};

use crate::rig::{Agent, standin};
use crate::stage::Stage;

/// What an update may need above the idle agent, KiB.
const ALLOWED: u64 = 2048;

/// Makes `VmHWM` start again from what is resident now; that, in KiB.
pub fn forget_peak(agent: &Agent) -> u64 {
    std::fs::write(format!("/proc/{}/clear_refs", agent.pid()), "5").expect("clear_refs");
    agent.memory("VmHWM")
}

/// Streams an archive of so many KiB, looking at the memory with each progress report.
fn stream(kib: u64, fault: Option<(When, Fault)>) -> Stage {
    let settings = [
        ("FWUP_TASK", "switch"),
        ("LOG", "info"),
        ("TIME_BETWEEN_RETRIES", "10ms"),
    ];
    let stage = Stage::new(&standin(), &settings);
    let (forged, firmware) = stage.forge("forged.fw", kib);
    if let Some((when, fault)) = fault {
        stage.hub.store().fault(&firmware.path(), when, fault);
    }
    stage.barrier();
    let idle = forget_peak(&stage.agent);
    stage.hub.offer(&firmware);
    let mut samples = vec![];
    let mut ended = false;
    while !ended {
        let progress = stage.hub.expect_push("device", "fwup_progress", |_| true);
        ended = progress["value"] == 100 && progress["stage"] == "updating";
        samples.push(stage.agent.memory("VmRSS"));
    }
    stage.expect_installed();
    forged.assert_on(&stage.device);
    let peak = stage.agent.memory("VmHWM");
    eprintln!("{kib} KiB: idle {idle} KiB, peak {peak} KiB, samples {samples:?}");
    assert!(peak <= idle + ALLOWED, "idle {idle} KiB, peak {peak} KiB");
    let most = samples.into_iter().max().unwrap_or(0);
    assert!(most <= idle + ALLOWED, "idle {idle} KiB, seen {most} KiB");
    stage
}

#[test]
fn a_server_of_64_kib_a_second_costs_no_memory() {
    let stage = stream(256, Some((When::Always, Fault::Slow(64 * 1024))));
    let requests = stage.hub.store().requests();
    assert_eq!(requests.len(), 1, "a slow server is not a broken one");
}

#[test]
fn a_big_archive_costs_no_more_than_a_small_one() {
    stream(64 * 1024, None);
}

#[test]
fn a_server_that_cuts_after_every_byte_costs_no_memory() {
    let cuts = 300;
    let stage = stream(256, Some((When::First(cuts), Fault::CutAfter(1))));
    let requests = stage.hub.store().requests();
    assert_eq!(requests.len(), cuts as usize + 1);
}
