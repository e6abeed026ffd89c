//! What the integrator gives: by the control socket, in files, by programs.

use std::os::unix::fs::{PermissionsExt as _, symlink};

use serde_json::json;

use super::*;

fn with_folder(folder: &Path) -> Health {
    health(HealthSettings {
        sets: Vec::new(),
        folder: Some(folder.to_owned()),
        ..settings()
    })
}

fn program(folder: &Path, name: &str, script: &str) {
    put(folder, name, &format!("#!/bin/sh\n{script}\n"));
    let mode = fs::Permissions::from_mode(0o755);
    fs::set_permissions(folder.join(name), mode).unwrap();
}

fn set(health: &Health, params: Value) -> Result<Value, String> {
    health.set(&params)
}

#[test]
fn values_are_merged_removed_and_outlive_the_extension() {
    let mut first = health(settings());
    let given = json!({
        "metrics": {"pump_rpm": 1200, "flow": 0.5}, "metadata": {"site": "roof"},
        "checks": {"pump": {"pass": true}},
    });
    set(&first, given).unwrap();
    let left = set(
        &first,
        json!({"metrics": {"flow": null, "level": -3, "none": null}}),
    );
    let expected = json!({
        "metrics": {"pump_rpm": 1200, "level": -3}, "metadata": {"site": "roof"},
        "checks": {"pump": {"pass": true, "note": ""}},
    });
    assert_eq!(left, Ok(expected.clone()));
    let found = report(&mut first);
    assert_eq!(found["metrics"]["level"], -3);
    // Attached anew.
    let mut second = Health::new(&first.site);
    drop(first);
    let found = report(&mut second);
    for part in ["metadata", "checks"] {
        assert_eq!(found[part], expected[part]);
    }
    assert_eq!(found["metrics"]["pump_rpm"], 1200);
    assert!(found["metrics"]["mem_size_mb"].is_number());
}

#[test]
fn what_breaks_a_bound_is_refused_and_changes_nothing() {
    let health = health(settings());
    set(&health, json!({"metrics": {"kept": 1}})).unwrap();
    let many = (0..64).map(|n| (format!("m{n}"), json!(n)));
    let many: Map<String, Value> = many.collect();
    let long = "x".repeat(257);
    for (params, part) in [
        (json!({"metrics": many}), "more than 64 metrics"),
        (json!({"metrics": {"fine": 1, "a b": 1}}), "1 to 64 ASCII"),
        (json!({"metrics": {"": 1}}), "1 to 64 ASCII"),
        (json!({"metrics": {"x".repeat(65): 1}}), "1 to 64 ASCII"),
        (json!({"metrics": {"gr\u{fc}n": 1}}), "1 to 64 ASCII"),
        (json!({"metrics": {"m": "7"}}), "metrics m is not a number"),
        (
            json!({"metadata": {"m": 7}}),
            "metadata m is not one line of 256 bytes",
        ),
        (
            json!({"metadata": {"m": long}}),
            "metadata m is not one line of 256 bytes",
        ),
        (
            json!({"metadata": {"m": "\u{1b}[2J"}}),
            "metadata m is not one line of 256 bytes",
        ),
        (json!({"checks": {"c": true}}), "checks c is not {\"pass\""),
        (
            json!({"checks": {"c": {"note": "x"}}}),
            "checks c is not {\"pass\"",
        ),
        (
            json!({"checks": {"c": {"pass": true, "note": long}}}),
            "checks c is not {\"pass\"",
        ),
        (json!({"alarms": {"a": "b"}}), "alarm-set"),
        (json!({"metrics": []}), "\"metrics\" is no object of"),
        (json!({"metric": {}}), "\"metric\" is no object of"),
        (json!([]), "not an object"),
    ] {
        let error = set(&health, params.clone()).expect_err(part);
        assert!(error.contains(part), "{params}: {error}");
        assert_eq!(set(&health, json!({})), Ok(json!({"metrics": {"kept": 1}})));
    }
}

#[test]
fn files_give_every_kind_and_their_bad_lines_are_passed_over() {
    let folder = tempfile::tempdir().unwrap();
    let text = "# a comment\n\nmetric.pump_rpm=1200\nmetric.bad=fast\nmetadata.site = \"on the roof\"\n\
                check.pump=pass\ncheck.valve=fail stuck since noon\ncheck.odd=maybe\n\
                alarm.Leak=water below the tank\nnonsense\nother.kind=1\nmetric.=7\n";
    put(folder.path(), "app.env", text);
    put(folder.path(), "b.env", "metric.pump_rpm=-1.5e2\n");
    put(folder.path(), ".b.env.new", "metric.unfinished=1\n");
    let mut health = with_folder(folder.path());
    let found = report(&mut health);
    assert_eq!(found["metrics"], json!({"pump_rpm": -150.0}));
    assert_eq!(found["metadata"], json!({"site": "on the roof"}));
    let checks = json!({
        "pump": {"pass": true, "note": ""}, "valve": {"pass": false, "note": "stuck since noon"},
    });
    assert_eq!(found["checks"], checks);
    assert_eq!(found["alarms"], json!({"Leak": "water below the tank"}));
    let lines = |number: usize| format!("line {number}: ");
    let ignored = health.ignored.clone();
    assert_eq!(ignored.len(), 5, "{ignored:?}");
    for (line, number) in ignored.iter().zip([4, 8, 10, 11, 12]) {
        assert!(line.contains(&lines(number)), "{line}");
    }
}

#[test]
fn links_and_files_that_are_none_or_too_large_are_ignored() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let secret = tempfile::NamedTempFile::new().unwrap();
    fs::write(secret.path(), "metadata.secret=hunter2\n").unwrap();
    symlink(secret.path(), at.join("link.env")).unwrap();
    put(at, "large.env", &"metric.a=1\n".repeat(2000));
    put(at, "README", "metric.a=1\n");
    nix::unistd::mkfifo(&at.join("pipe.env"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    fs::create_dir(at.join("folder.env")).unwrap();
    let mut health = with_folder(at);
    let found = report(&mut health);
    assert_eq!(
        (&found["metrics"], &found["metadata"]),
        (&json!({}), &json!({}))
    );
    assert_eq!(failure(&found), None);
    let parts = [
        "README: neither",
        "folder.env: not a",
        "large.env: larger",
        "link.env: not a",
        "pipe.env: not a",
    ];
    assert_eq!(health.ignored.len(), parts.len(), "{:?}", health.ignored);
    for (line, part) in health.ignored.iter().zip(parts) {
        assert!(line.contains(part), "{line}");
    }
}

#[test]
fn no_more_than_so_many_values_are_taken() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["a.env", "b.env"] {
        let lines = (0..40).map(|n| format!("metric.{}{n}=1\n", &name[..1]));
        put(folder.path(), name, &lines.collect::<String>());
    }
    let mut health = with_folder(folder.path());
    assert_eq!(
        report(&mut health)["metrics"].as_object().unwrap().len(),
        64
    );
}

#[test]
fn a_folder_that_others_can_write_to_is_refused_with_the_reason() {
    let folder = tempfile::tempdir().unwrap();
    put(folder.path(), "a.env", "metric.a=1\n");
    let mut health = with_folder(folder.path());
    assert_eq!(report(&mut health)["metrics"], json!({"a": 1}));
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let found = report(&mut health);
    assert_eq!(found["metrics"], json!({}));
    assert!(
        failure(&found)
            .unwrap()
            .contains("can be written by everybody"),
        "{found}"
    );
    let mut missing = with_folder(&folder.path().join("missing"));
    assert_eq!(failure(&report(&mut missing)), None);
    assert!(missing.ignored[0].contains("does not exist"));
}

#[test]
fn programs_print_sets_and_one_that_fails_costs_nobody_else() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    program(
        at,
        "modem",
        r#"echo '{"metrics":{"rssi":-71},"metadata":{"sim":"8945"},"alarms":{"Roaming":"abroad"}}'"#,
    );
    program(
        at,
        "partly",
        r#"echo '{"metrics":{"good":1,"bad":"x"},"checks":{"c":{"pass":false,"note":"n"}},"else":{}}'"#,
    );
    program(at, "broken", "echo oops >&2; exit 3");
    program(at, "babble", "echo hello");
    program(at, "list", "echo '[]'");
    program(at, "flood", "yes");
    let mut health = with_folder(at);
    let found = report(&mut health);
    assert_eq!(found["metrics"], json!({"rssi": -71, "good": 1}));
    assert_eq!(found["metadata"], json!({"sim": "8945"}));
    assert_eq!(found["checks"], json!({"c": {"pass": false, "note": "n"}}));
    assert_eq!(found["alarms"]["Roaming"], "abroad");
    let text = failure(&found).unwrap();
    assert!(
        text.len() <= 256 && text.starts_with("babble: printed no JSON"),
        "{text}"
    );
    for name in ["modem", "partly", "babble", "list", "flood"] {
        fs::remove_file(at.join(name)).unwrap();
    }
    let found = report(&mut health);
    assert_eq!(failure(&found), Some("broken: exit status: 3: oops"));
    fs::remove_file(at.join("broken")).unwrap();
    assert_eq!(failure(&report(&mut health)), None);
}

#[test]
fn programs_that_hang_are_killed_and_the_others_reported() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["hang1", "hang2", "hang3", "hang4", "hang5", "hang6"] {
        program(folder.path(), name, "trap '' TERM; sleep 600; sleep 600");
    }
    program(folder.path(), "quick", r#"echo '{"metrics":{"a":1}}'"#);
    let mut health = with_folder(folder.path());
    let site = Arc::get_mut(&mut health.site).unwrap();
    site.settings.timeout = Duration::from_secs(2);
    let begin = Instant::now();
    let found = report(&mut health);
    // Not one after the other.
    assert!(
        begin.elapsed() < Duration::from_secs(5),
        "{:?}",
        begin.elapsed()
    );
    assert_eq!(found["metrics"], json!({"a": 1}));
    let text = failure(&found).unwrap();
    assert!(
        text.contains("hang1") && text.contains("did not end within 1s"),
        "{text}"
    );
}

#[test]
fn a_program_is_stopped_when_the_report_is_not_wanted_any_more() {
    let folder = tempfile::tempdir().unwrap();
    program(folder.path(), "hang", "sleep 600");
    let mut health = with_folder(folder.path());
    let begin = Instant::now();
    health.report(&Vec::new(), &|| {
        begin.elapsed() > Duration::from_millis(100)
    });
    assert!(begin.elapsed() < PROGRAM, "{:?}", begin.elapsed());
}

#[test]
fn programs_that_others_can_change_are_not_run() {
    let folder = tempfile::tempdir().unwrap();
    program(folder.path(), "open", r#"echo '{"metrics":{"a":1}}'"#);
    fs::set_permissions(
        folder.path().join("open"),
        fs::Permissions::from_mode(0o757),
    )
    .unwrap();
    let mut health = with_folder(folder.path());
    let found = report(&mut health);
    assert_eq!(found["metrics"], json!({}));
    assert_eq!(
        failure(&found),
        Some("open: can be written by everybody (chmod o-w)")
    );
}

#[test]
fn the_socket_goes_before_the_folder_and_that_before_the_sets() {
    let folder = tempfile::tempdir().unwrap();
    put(
        folder.path(),
        "a.env",
        "metric.load_1min=7\nmetric.load_5min=7\n",
    );
    let root = plain();
    let mut health = health(HealthSettings {
        folder: Some(folder.path().to_owned()),
        ..settings()
    });
    health.machine = machine(root.path());
    set(&health, json!({"metrics": {"load_1min": 8}})).unwrap();
    let metrics = &report(&mut health)["metrics"];
    let found = ["load_1min", "load_5min", "load_15min"].map(|name| &metrics[name]);
    assert_eq!(found, [&json!(8), &json!(7), &json!(12.0)]);
}

#[test]
fn the_examples_are_understood() {
    let folder = tempfile::tempdir().unwrap();
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("etc/examples/health");
    for name in ["app.env", "uptime"] {
        fs::copy(examples.join(name), folder.path().join(name)).unwrap();
    }
    let mut health = with_folder(folder.path());
    let found = report(&mut health);
    assert_eq!((failure(&found), &health.ignored), (None, &Vec::new()));
    assert_eq!(found["metrics"]["pump_rpm"], 1200);
    assert_eq!(found["metadata"]["site"], "north roof");
    assert_eq!(found["alarms"]["WaterLeak"], "water below the tank");
    assert!(found["metrics"]["uptime_seconds"].as_u64().unwrap() > 0);
    assert_eq!(found["checks"].as_object().unwrap().len(), 3);
}
