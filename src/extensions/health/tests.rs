//! Reports made of fixtures and of this machine, through a real link.

mod disks;
mod fixtures;
mod given;
mod here;
mod interfaces;
mod words;

use std::fs;
use std::path::Path;
use std::time::Instant;

use super::machine::Usage;
use super::*;
use crate::config::extensions::HealthSettings;

const PATIENCE: Duration = Duration::from_secs(30);

/// What is not told otherwise.
fn settings() -> HealthSettings {
    use MetricSet::{Cpu, Disk, Memory};
    HealthSettings {
        sets: vec![Cpu, Memory, Disk],
        disks: vec!["/".to_owned()],
        disk_alarm: 90,
        disk_ignore: vec!["read-only".to_owned()],
        ..HealthSettings::default()
    }
}

fn health(health: HealthSettings) -> Health {
    let mut site = Site::default();
    site.settings.timeout = PATIENCE;
    site.settings.health = health;
    Health::new(&Arc::new(site))
}

fn report(health: &mut Health) -> Value {
    health.report(&Vec::new(), &|| false)
}

/// A machine of files below `root`, with a disk of 1000 KiB that is half full.
fn machine(root: &Path) -> Machine {
    Machine {
        root: root.to_owned(),
        usage: |_| Ok(used(500)),
        addresses: Vec::new,
    }
}

fn used(used_kb: u64) -> Usage {
    Usage {
        total_kb: 1000,
        used_kb,
        available_kb: 1000 - used_kb,
        is_read_only: false,
    }
}

fn put(root: &Path, name: &str, text: &str) {
    let path = root.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

/// Files of a machine on which nothing is odd.
fn plain() -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    put(
        root.path(),
        "proc/stat",
        "cpu  100 0 50 800 50 0 0 0 90 0\ncpu0 1\n",
    );
    put(root.path(), "proc/loadavg", "0.15 1.05 12.00 2/345 6789\n");
    let meminfo = "MemTotal: 2048000 kB\nMemFree: 10240 kB\nMemAvailable: 1024000 kB\n";
    put(root.path(), "proc/meminfo", meminfo);
    root
}

fn failure(report: &Value) -> Option<&str> {
    report["alarms"][FAILED].as_str()
}
