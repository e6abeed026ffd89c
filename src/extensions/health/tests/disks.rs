//! Roots that nothing can be written to, and what is looked at in their place.

use serde_json::json;

use super::*;

const NO_BLOCKS: Usage = Usage {
    total_kb: 0,
    used_kb: 0,
    available_kb: 0,
    is_read_only: false,
};

/// As squashfs has it.
const IMAGE: Usage = Usage {
    total_kb: 1000,
    used_kb: 1000,
    available_kb: 0,
    is_read_only: true,
};

type Disks = fn(&str) -> Result<Usage, String>;

fn missing(path: &str) -> Result<Usage, String> {
    Err(format!("{path}: No such file or directory"))
}

fn beside(root: &Path, usage: Disks, disks: &[&str], spare: Option<&str>) -> Health {
    let mut health = health(HealthSettings {
        sets: vec![MetricSet::Disk],
        disks: disks.iter().map(|path| (*path).to_owned()).collect(),
        spare: spare.map(Into::into),
        ..settings()
    });
    health.machine = machine(root);
    health.machine.usage = usage;
    health
}

#[test]
fn by_default_the_agents_folder_stands_in_for_a_root_that_cannot_fill_up() {
    let writable: Disks = |path| match path {
        "/" => Ok(used(125)),
        _ => Ok(used(250)),
    };
    let image: Disks = |path| match path {
        "/" => Ok(IMAGE),
        "/data" => Ok(used(250)),
        _ => missing(path),
    };
    let ramfs: Disks = |path| match path {
        "/" => Ok(NO_BLOCKS),
        "/data/agent" => Ok(used(375)),
        _ => missing(path),
    };
    let nothing_else: Disks = |path| match path {
        "/" => Ok(IMAGE),
        _ => missing(path),
    };
    let all_in_memory: Disks = |_| Ok(NO_BLOCKS);
    let all_of_an_image: Disks = |_| Ok(IMAGE);
    for (name, usage, expected) in [
        ("writable", writable, json!(12.5)),
        ("image", image, json!(25.0)),
        ("ramfs", ramfs, json!(37.5)),
        ("nothing else", nothing_else, Value::Null),
        ("all in memory", all_in_memory, Value::Null),
        ("all of an image", all_of_an_image, Value::Null),
    ] {
        let root = plain();
        let mut health = beside(root.path(), usage, &["/"], Some("/data/agent"));
        let report = report(&mut health);
        let metrics = &report["metrics"];
        assert_eq!(metrics["disk_used_percentage"], expected, "{name}");
        let count = if expected.is_null() { 0 } else { 3 };
        assert_eq!(metrics.as_object().map(Map::len), Some(count), "{name}");
        assert_eq!(report["alarms"], json!({}), "{name}");
    }
}

#[test]
fn a_root_that_cannot_be_looked_at_is_a_failure_still() {
    let root = plain();
    let mut health = beside(root.path(), missing, &["/"], Some("/data"));
    let report = report(&mut health);
    let why = "disk: /: No such file or directory";
    assert_eq!(failure(&report), Some(why));
}

#[test]
fn what_stands_in_raises_the_alarm_and_loses_it_with_its_place() {
    let root = plain();
    let full: Disks = |path| match path {
        "/" => Ok(IMAGE),
        "/data" => Ok(used(950)),
        _ => missing(path),
    };
    let mut health = beside(root.path(), full, &["/"], Some("/data/agent"));
    let alarms = |health: &mut Health| report(health)["alarms"].take();
    let expected = json!({"DiskAlmostFull:/data": "/data is 90 % full"});
    assert_eq!(alarms(&mut health), expected);
    // Something was mounted there.
    health.machine.usage = |path| match path {
        "/" => Ok(IMAGE),
        _ => Ok(used(100)),
    };
    assert_eq!(alarms(&mut health), json!({}));
}

#[test]
fn disks_that_were_chosen_stay_what_they_are() {
    let root = plain();
    let usage: Disks = |path| match path {
        "/" => Ok(IMAGE),
        "/run" => Ok(NO_BLOCKS),
        _ => Ok(used(500)),
    };
    let mut health = beside(root.path(), usage, &["/", "/run", "/data"], None);
    let found = report(&mut health);
    assert_eq!(found["metrics"]["disk_used_percentage"], 100.0);
    assert_eq!(found["metrics"]["disk_used_percentage:/data"], 50.0);
    assert_eq!(found["metrics"]["disk_total_kb:/run"], Value::Null);
    assert_eq!(failure(&found), None);
    // What the log has once.
    assert_eq!(health.ignored, ["disk /run, which has no blocks"]);
}
