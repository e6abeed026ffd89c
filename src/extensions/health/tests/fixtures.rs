//! Machines made of files: boards, containers, and what drivers say when they are odd.

use serde_json::json;

use super::*;

/// Zones: folder, type, temperature.
fn zones(zones: &[(&str, &str, &str)]) -> tempfile::TempDir {
    let root = plain();
    for (zone, kind, temp) in zones {
        put(root.path(), &format!("sys/class/thermal/{zone}/type"), kind);
        put(root.path(), &format!("sys/class/thermal/{zone}/temp"), temp);
    }
    put(
        root.path(),
        "sys/class/thermal/cooling_device0/type",
        "Processor\n",
    );
    root
}

fn temperature(root: &Path, zone: Option<&str>) -> (Value, Option<String>) {
    let thermal_zone = zone.map(str::to_owned);
    let mut health = health(HealthSettings {
        thermal_zone,
        ..settings()
    });
    health.machine = machine(root);
    let report = report(&mut health);
    let failure = failure(&report).map(str::to_owned);
    (report["metrics"]["cpu_temp"].clone(), failure)
}

#[test]
fn the_hottest_zone_is_the_temperature_and_odd_ones_do_not_count() {
    for (name, files, expected) in [
        (
            "Raspberry Pi",
            &[("thermal_zone0", "cpu-thermal\n", "47236\n")][..],
            json!(47.2),
        ),
        (
            "i.MX 8",
            &[
                ("thermal_zone0", "a53-thermal\n", "52000\n"),
                ("thermal_zone1", "a72-thermal\n", "54650\n"),
            ],
            json!(54.7),
        ),
        (
            "x86",
            &[
                ("thermal_zone0", "acpitz\n", "27800\n"),
                ("thermal_zone1", "x86_pkg_temp\n", "61000\n"),
                // Without radio it has ENODATA, which no file here can have.
                ("thermal_zone2", "iwlwifi_1\n", ""),
            ],
            json!(61.0),
        ),
        ("container", &[], Value::Null),
        (
            "arctic",
            &[("thermal_zone0", "soc\n", "-12349\n")],
            json!(-12.3),
        ),
        (
            "garbage",
            &[
                ("thermal_zone0", "a\n", "2147483647\n"),
                ("thermal_zone1", "b\n", "-273150\n"),
                ("thermal_zone2", "c\n", "hot\n"),
                ("thermal_zone3", "d\n", "99999999999999999999\n"),
                ("thermal_zone4", "e\n", "40000\n"),
            ],
            json!(40.0),
        ),
        (
            "only garbage",
            &[("thermal_zone0", "a\n", "2147483647\n")],
            Value::Null,
        ),
    ] {
        let root = zones(files);
        assert_eq!(temperature(root.path(), None), (expected, None), "{name}");
    }
}

#[test]
fn a_zone_is_chosen_by_its_name_or_type_and_missed_when_it_is_not_there() {
    let root = zones(&[
        ("thermal_zone0", "cpu-thermal\n", "41000\n"),
        ("thermal_zone1", "gpu-thermal\n", "80000\n"),
        ("thermal_zone2", "cpu-thermal\n", "42000\n"),
    ]);
    let at = root.path();
    assert_eq!(temperature(at, Some("thermal_zone0")), (json!(41.0), None));
    assert_eq!(temperature(at, Some("cpu-thermal")), (json!(42.0), None));
    let (found, failure) = temperature(at, Some("npu-thermal"));
    assert_eq!(found, Value::Null);
    assert_eq!(
        failure.unwrap(),
        "cpu: no temperature of thermal zone npu-thermal"
    );
}

#[test]
fn use_is_counted_since_boot_and_then_since_the_last_report_that_was_sent() {
    let root = plain();
    let mut health = health(settings());
    health.machine = machine(root.path());
    let mut usage = |text: &str, is_sent: bool| {
        put(root.path(), "proc/stat", text);
        let report = report(&mut health);
        if is_sent {
            health.sent = health.seen;
        }
        report["metrics"]["cpu_usage_percent"].clone()
    };
    // Guests are counted in the first number already.
    assert_eq!(
        usage("cpu  100 0 50 800 50 0 0 0 90 0\n", true),
        json!(15.0)
    );
    let second = "cpu  200 0 50 1100 50 0 0 0 90 0\n";
    assert_eq!(usage(second, false), json!(25.0));
    // That was only asked for.
    assert_eq!(usage(second, true), json!(25.0));
    assert_eq!(
        usage("cpu  200 0 50 1100 149 1 0 0 0 0\n", true),
        json!(1.0)
    );
    // Waiting ran backwards; then the counters were those of another boot.
    assert_eq!(
        usage("cpu  210 0 50 1120 129 1 0 0 0 0\n", true),
        json!(100.0)
    );
    assert_eq!(usage("cpu  10 0 0 90\n", true), json!(10.0));
    let huge = format!("cpu  {0} {0} {0} {0}\n", u64::MAX);
    assert_eq!(usage(&huge, true), json!(100.0));
    for odd in [
        "cpu  0 0 0 0\n",
        "cpu 1 2 x 4\n",
        "intr 7\n",
        "",
        "cpu  -1 0 0 5\n",
    ] {
        assert_eq!(usage(odd, true), Value::Null, "{odd:?}");
    }
}

#[test]
fn numbers_of_a_board() {
    let root = plain();
    let mut health = health(HealthSettings {
        disks: vec!["/".to_owned(), "/data".to_owned()],
        ..settings()
    });
    health.machine = machine(root.path());
    let report = report(&mut health);
    let expected = json!({
        "cpu_usage_percent": 15.0, "load_1min": 0.15, "load_5min": 1.05, "load_15min": 12.0,
        "mem_size_mb": 2000, "mem_used_mb": 1000, "mem_used_percent": 50.0,
        "disk_total_kb": 1000, "disk_available_kb": 500, "disk_used_percentage": 50.0,
        "disk_total_kb:/data": 1000, "disk_available_kb:/data": 500,
        "disk_used_percentage:/data": 50.0,
    });
    assert_eq!(report["metrics"], expected);
    assert_eq!(failure(&report), None);
}

#[test]
fn kernels_that_do_not_estimate_memory_are_helped_out() {
    let root = plain();
    let mut health = health(settings());
    health.machine = machine(root.path());
    let mut percent = |text: &str| {
        put(root.path(), "proc/meminfo", text);
        report(&mut health)["metrics"]["mem_used_percent"].clone()
    };
    let old = "MemTotal: 1000 kB\nMemFree: 100 kB\nBuffers: 50 kB\nCached: 150 kB\n";
    assert_eq!(percent(old), json!(70.0));
    // More free than there is.
    assert_eq!(
        percent("MemTotal: 10 kB\nMemAvailable: 11 kB\n"),
        json!(0.0)
    );
    for odd in [
        "",
        "MemTotal: 0 kB\nMemAvailable: 0 kB\n",
        "MemTotal: 5 kB\n",
        "MemTotal: x kB\n",
    ] {
        assert_eq!(percent(odd), Value::Null, "{odd:?}");
    }
}

#[test]
fn each_missing_file_costs_its_own_numbers_and_is_named() {
    for (missing, key, why) in [
        (
            "proc/stat",
            "cpu_usage_percent",
            "cpu: /proc/stat does not exist",
        ),
        (
            "proc/loadavg",
            "load_1min",
            "cpu: /proc/loadavg does not exist",
        ),
        (
            "proc/meminfo",
            "mem_size_mb",
            "memory: /proc/meminfo does not exist",
        ),
    ] {
        let root = plain();
        let mut health = health(settings());
        health.machine = machine(root.path());
        let whole = report(&mut health);
        fs::remove_file(root.path().join(missing)).unwrap();
        let rest = report(&mut health);
        assert_eq!(failure(&rest), Some(why));
        assert!(whole["metrics"][key].is_number());
        assert_eq!(rest["metrics"][key], Value::Null);
        let count = |report: &Value| report["metrics"].as_object().unwrap().len();
        assert_eq!(
            count(&whole) - count(&rest),
            if missing.ends_with("stat") { 1 } else { 3 }
        );
    }
}

#[test]
fn load_that_is_no_number_is_not_sent() {
    for odd in ["", "nan inf 1\n", "0.1 0.2\n", "a b c\n"] {
        let root = plain();
        put(root.path(), "proc/loadavg", odd);
        let mut health = health(settings());
        health.machine = machine(root.path());
        let report = report(&mut health);
        assert_eq!(
            failure(&report),
            Some("cpu: /proc/loadavg is not understood"),
            "{odd:?}"
        );
        assert_eq!(report["metrics"]["mem_size_mb"], 2000);
    }
}

#[test]
fn a_disk_that_is_none_costs_itself_only() {
    let root = plain();
    let mut health = health(HealthSettings {
        disks: ["/", "/gone", "/data"].map(str::to_owned).into(),
        ..settings()
    });
    health.machine = machine(root.path());
    health.machine.usage = |path| match path {
        "/gone" => Err(format!("{path}: No such file or directory")),
        _ => Ok(used(125)),
    };
    let report = report(&mut health);
    let why = "disk: /gone: No such file or directory";
    assert_eq!(failure(&report), Some(why));
    assert_eq!(report["metrics"]["disk_used_percentage"], 12.5);
    assert_eq!(report["metrics"]["disk_used_percentage:/data"], 12.5);
    assert_eq!(report["metrics"]["disk_total_kb:/gone"], Value::Null);
}
