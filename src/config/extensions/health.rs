//! What the health extension measures and reports.
//!
//! Owns these settings' types and how they are read.

use std::path::PathBuf;

use crate::config::error::Problem;
use crate::config::reader::Reader;
use crate::config::table::setting;
use crate::config::{address, values};

/// Most file systems.
const DISKS: usize = 16;
/// The default.
const ROOT: &str = "/";
/// Longest path of one: it is part of an alarm's name.
const LONGEST: usize = 48;

/// What the health extension measures and reports.
#[derive(Clone, Debug, Default)]
pub struct HealthSettings {
    pub sets: Vec<MetricSet>,
    /// Paths of file systems; the first has the plain keys.
    pub disks: Vec<String>,
    /// Looked at in place of a root that cannot fill up. `None`: `disks` are not the default.
    pub spare: Option<PathBuf>,
    /// Per cent; 0: no alarm.
    pub disk_alarm: u64,
    /// Of `disks`, or [`READ_ONLY`]: without an alarm.
    pub disk_ignore: Vec<String>,
    /// A thermal zone's name or type; `None`: the hottest.
    pub thermal_zone: Option<String>,
    /// Where the integrator's values and programs are.
    pub folder: Option<PathBuf>,
    /// What answers on the internet.
    pub probe: Option<(String, u16)>,
}

/// In `disk_ignore`: whatever cannot be written to.
pub const READ_ONLY: &str = "read-only";

/// Metrics that are taken together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricSet {
    Cpu,
    Memory,
    Disk,
    Network,
}

pub(super) fn read(r: &mut Reader) -> HealthSettings {
    let disks = r.parsed(setting!("NERVES_HUB_HEALTH_DISKS"), paths);
    let disks = disks.unwrap_or_default();
    let spare = match disks == [ROOT] {
        true => r.path(setting!("NERVES_HUB_DATA_PATH")),
        false => None,
    };
    HealthSettings {
        sets: r
            .parsed(setting!("NERVES_HUB_HEALTH_METRICS"), sets)
            .unwrap_or_default(),
        disks,
        spare,
        disk_alarm: r.integer(setting!("NERVES_HUB_HEALTH_DISK_ALARM")),
        disk_ignore: r.list(setting!("NERVES_HUB_HEALTH_DISK_IGNORE")),
        thermal_zone: r.text(setting!("NERVES_HUB_HEALTH_THERMAL_ZONE")),
        folder: r.path(setting!("NERVES_HUB_HEALTH_DIR")),
        probe: r.parsed(setting!("NERVES_HUB_HEALTH_PROBE"), address::host_and_port),
    }
}

/// A path may be part of an alarm's name.
pub fn fits_a_name(path: &str) -> bool {
    path.is_ascii() && path.len() <= LONGEST
}

fn sets(text: &str) -> Result<Vec<MetricSet>, Problem> {
    let mut sets = Vec::new();
    for word in values::list(text) {
        sets.push(match word.as_str() {
            "cpu" => MetricSet::Cpu,
            "memory" => MetricSet::Memory,
            "disk" => MetricSet::Disk,
            "network" => MetricSet::Network,
            "none" => continue,
            _ => {
                let what = format!("has {word:?} in it, which is no set of metrics");
                return Err(Problem::new(what, "use cpu, memory, disk, network or none"));
            }
        });
    }
    Ok(sets)
}

fn paths(text: &str) -> Result<Vec<String>, Problem> {
    let paths = values::list(text);
    let is_path = |path: &String| path.starts_with('/') && fits_a_name(path);
    match paths.len() <= DISKS && paths.iter().all(is_path) {
        true => Ok(paths),
        false => Err(Problem::new(
            "is not a list of file systems",
            format!(
                "use {DISKS} paths at most, absolute, each of {LONGEST} ASCII characters at most"
            ),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_are_selected_and_ordered() {
        use MetricSet::{Cpu, Disk, Memory, Network};
        assert_eq!(sets("cpu,memory,disk"), Ok(vec![Cpu, Memory, Disk]));
        assert_eq!(sets("network cpu"), Ok(vec![Network, Cpu]));
        assert_eq!(sets("none"), Ok(vec![]));
        let error = sets("cpu,ram").expect_err("no such set");
        assert!(error.what.contains("\"ram\""), "{error:?}");
    }

    #[test]
    fn the_agents_folder_stands_in_for_the_root_unless_disks_are_chosen() {
        let spare = |vars: &[(&str, &str)]| {
            let vars = vars.iter().map(|(name, value)| (name.into(), value.into()));
            read(&mut Reader::new(vars)).spare
        };
        let data = ("NERVES_HUB_DATA_PATH", "/data/agent");
        assert_eq!(spare(&[]), Some("/var/lib/nerveshub-agent".into()));
        assert_eq!(spare(&[data]), Some("/data/agent".into()));
        let disks = |disks| spare(&[data, ("NERVES_HUB_HEALTH_DISKS", disks)]);
        assert_eq!(disks("/"), Some("/data/agent".into()));
        for chosen in ["/data", "/,/data", "/."] {
            assert_eq!(disks(chosen), None, "{chosen}");
        }
    }

    #[test]
    fn file_systems_are_absolute_paths_that_fit_into_a_name() {
        assert_eq!(paths("/,/data"), Ok(vec!["/".into(), "/data".into()]));
        for bad in [
            "data",
            "/dat\u{e9}",
            &format!("/{}", "x".repeat(48)),
            &"/ ".repeat(17),
        ] {
            assert!(paths(bad).is_err(), "{bad}");
        }
    }
}
