//! The numbers of this machine, beside those of the tools that everybody believes.

use std::process::Command;

use super::*;

fn of_this_machine(sets: &[MetricSet]) -> Health {
    health(HealthSettings {
        sets: sets.to_vec(),
        disk_alarm: 0,
        ..settings()
    })
}

/// What a program prints; `None` where there is no such program.
fn printed(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program)
        .args(arguments)
        .env("LC_ALL", "C")
        .output();
    let output = output.ok().filter(|output| output.status.success())?;
    Some(String::from_utf8(output.stdout).unwrap())
}

/// Numbers change between two looks: compared until they agree.
fn agree(what: &str, mut look: impl FnMut() -> Result<(), String>) {
    let end = Instant::now() + PATIENCE;
    while let Err(difference) = look() {
        assert!(Instant::now() < end, "{what}: {difference}");
    }
}

fn close(found: &Value, expected: f64, tolerance: f64) -> Result<(), String> {
    let number = found.as_f64().unwrap_or(f64::NAN);
    match (number - expected).abs() <= tolerance {
        true => Ok(()),
        false => Err(format!("{found}, not {expected}")),
    }
}

#[test]
fn memory_is_what_free_says() {
    let mut health = of_this_machine(&[MetricSet::Memory]);
    agree("free", || {
        // Without it the kernel's own words have to do.
        let text = printed("free", &["-k"]).unwrap_or_default();
        let row = text.lines().find_map(|line| line.strip_prefix("Mem:"));
        let metrics = report(&mut health)["metrics"].take();
        let (total, available) = match row {
            Some(row) => {
                let mut words = row
                    .split_whitespace()
                    .map(|word| word.parse::<f64>().unwrap());
                (words.next().unwrap(), words.next_back().unwrap())
            }
            None => {
                let text = fs::read_to_string("/proc/meminfo").unwrap();
                let field = |name: &str| {
                    let line = text.lines().find(|line| line.starts_with(name)).unwrap();
                    line.split_whitespace()
                        .nth(1)
                        .unwrap()
                        .parse::<f64>()
                        .unwrap()
                };
                (field("MemTotal:"), field("MemAvailable:"))
            }
        };
        close(&metrics["mem_size_mb"], (total / 1024.0).floor(), 0.0)?;
        close(&metrics["mem_used_mb"], (total - available) / 1024.0, 32.0)?;
        close(
            &metrics["mem_used_percent"],
            (total - available) / total * 100.0,
            0.5,
        )
    });
}

#[test]
fn disks_are_what_df_says() {
    let mut health = of_this_machine(&[MetricSet::Disk]);
    agree("df", || {
        let text = printed("df", &["-P", "-k", "/"]).expect("every machine has df");
        let row: Vec<&str> = text.lines().nth(1).unwrap().split_whitespace().collect();
        let number = |word: &str| word.trim_end_matches('%').parse::<f64>().unwrap();
        let metrics = report(&mut health)["metrics"].take();
        close(&metrics["disk_total_kb"], number(row[1]), 0.0)?;
        close(&metrics["disk_available_kb"], number(row[3]), 10_240.0)?;
        // df rounds up.
        close(&metrics["disk_used_percentage"], number(row[4]) - 0.5, 0.6)
    });
}

#[test]
fn load_is_what_the_kernel_says() {
    let mut health = of_this_machine(&[MetricSet::Cpu]);
    agree("loadavg", || {
        let text = fs::read_to_string("/proc/loadavg").unwrap();
        let metrics = report(&mut health)["metrics"].take();
        for (name, word) in ["load_1min", "load_5min", "load_15min"]
            .iter()
            .zip(text.split(' '))
        {
            close(&metrics[*name], word.parse().unwrap(), 0.0)?;
        }
        let usage = metrics["cpu_usage_percent"].as_f64().unwrap_or(-1.0);
        match (0.0..=100.0).contains(&usage) {
            true => Ok(()),
            false => Err(format!("usage {usage}")),
        }
    });
}

#[test]
fn traffic_is_what_ip_says() {
    let mut health = of_this_machine(&[MetricSet::Network]);
    agree("ip -s link", || {
        let metrics = report(&mut health)["metrics"].take();
        let mut counted = Vec::new();
        match printed("ip", &["-s", "-j", "link"]) {
            Some(text) => {
                let links: Value = serde_json::from_str(&text).unwrap();
                for link in links.as_array().unwrap() {
                    let bytes = |way: &str| link["stats64"][way]["bytes"].as_f64().unwrap();
                    let name = link["ifname"].as_str().unwrap().to_owned();
                    counted.push((name, bytes("rx"), bytes("tx")));
                }
            }
            None => {
                let text = fs::read_to_string("/proc/net/dev").unwrap();
                for (name, row) in text.lines().filter_map(|line| line.split_once(':')) {
                    let row: Vec<f64> = row
                        .split_whitespace()
                        .map(|word| word.parse().unwrap())
                        .collect();
                    counted.push((name.trim().to_owned(), row[0], row[8]));
                }
            }
        }
        counted.retain(|(name, ..)| name != "lo");
        let count = metrics.as_object().unwrap().len();
        if count != 2 * counted.len() {
            return Err(format!("{count} numbers of {} interfaces", counted.len()));
        }
        for (name, received, sent) in counted {
            close(
                &metrics[format!("{name}_bytes_received_total")],
                received,
                65_536.0,
            )?;
            close(&metrics[format!("{name}_bytes_sent_total")], sent, 65_536.0)?;
        }
        Ok(())
    });
}

#[test]
fn a_report_costs_less_than_two_milliseconds_of_a_processor() {
    use MetricSet::{Cpu, Disk, Memory, Network};
    let mut health = of_this_machine(&[Cpu, Memory, Disk, Network]);
    // Nanoseconds of this thread on a processor.
    let spent = || {
        let text = fs::read_to_string("/proc/thread-self/schedstat").unwrap();
        text.split(' ').next().unwrap().parse::<u64>().unwrap()
    };
    report(&mut health);
    let costs = std::array::from_fn::<u64, 20, _>(|_| {
        let before = spent();
        report(&mut health);
        spent() - before
    });
    let least = costs.into_iter().min().unwrap();
    assert!(least < 2_000_000, "{least} ns");
}

#[test]
fn only_the_interface_over_which_the_probe_is_reached_is_on_the_internet() {
    // Where nobody listens, and nobody else will meanwhile.
    let deaf = crate::extensions::testing::deaf_port();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let root = plain();
    for name in ["eth0", "eth1"] {
        put(root.path(), &format!("sys/class/net/{name}/type"), "1\n");
        put(
            root.path(),
            &format!("sys/class/net/{name}/operstate"),
            "up\n",
        );
    }
    let route = "eth1\t00000000\t0101A8C0\t0003\t0\t0\t0\t00000000\t0\n";
    put(root.path(), "proc/net/route", route);
    let status = |probe: Option<(String, u16)>| {
        let mut health = health(HealthSettings {
            probe,
            ..settings()
        });
        health.machine = machine(root.path());
        health.machine.addresses = || {
            let found = [("eth0", "127.0.0.1"), ("eth1", "192.168.1.7")];
            found
                .map(|(name, address)| (name.to_owned(), address.parse().unwrap()))
                .into()
        };
        let found = report(&mut health)["connectivity"].take();
        ["eth0", "eth1"].map(|name| {
            found[name]["connection_status"]
                .as_str()
                .unwrap()
                .to_owned()
        })
    };
    assert_eq!(status(None), ["lan", "internet"]);
    assert_eq!(
        status(Some(("127.0.0.1".to_owned(), port))),
        ["internet", "lan"]
    );
    let nobody = Some(("127.0.0.1".to_owned(), deaf.1));
    assert_eq!(status(nobody), ["lan", "lan"]);
}

#[test]
fn times_are_utc() {
    let found = report(&mut of_this_machine(&[]));
    let text = found["timestamp"].as_str().unwrap();
    let pattern = "0000-00-00T00:00:00Z";
    let shape: String = text
        .chars()
        .map(|c| if c.is_ascii_digit() { '0' } else { c })
        .collect();
    assert_eq!(shape, pattern);
}
