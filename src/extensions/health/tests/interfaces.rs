//! Interfaces of every sort, made of files: what each is, and how far it reaches.

use std::net::IpAddr;

use serde_json::json;

use super::*;

/// An interface: files of its folder.
fn interface(root: &Path, name: &str, files: &[(&str, &str)]) {
    for (file, text) in files {
        put(root, &format!("sys/class/net/{name}/{file}"), text);
    }
}

fn addresses() -> Vec<(String, IpAddr)> {
    let found = [
        ("lo", "127.0.0.1"),
        ("eth0", "192.168.1.7"),
        ("wlan0", "10.0.0.7"),
        ("usb0", "fe80::1"),
        ("wwan0", "2001:db8::7"),
        ("br0", "172.17.0.1"),
    ];
    found
        .map(|(name, address)| (name.to_owned(), address.parse().unwrap()))
        .into()
}

#[test]
fn interfaces_are_told_apart_and_how_far_each_reaches() {
    let root = plain();
    let at = root.path();
    let up = ("operstate", "up\n");
    interface(at, "lo", &[("type", "772\n"), up]);
    interface(
        at,
        "eth0",
        &[
            ("type", "1\n"),
            ("device/x", ""),
            ("uevent", "INTERFACE=eth0\n"),
            up,
        ],
    );
    interface(
        at,
        "eth1",
        &[("type", "1\n"), ("device/x", ""), ("operstate", "down\n")],
    );
    interface(
        at,
        "wlan0",
        &[("type", "1\n"), ("uevent", "DEVTYPE=wlan\n"), up],
    );
    interface(at, "usb0", &[("type", "1\n"), ("device/x", ""), up]);
    interface(
        at,
        "wwan0",
        &[
            ("type", "65534\n"),
            ("uevent", "DEVTYPE=wwan\n"),
            ("operstate", "unknown\n"),
        ],
    );
    interface(
        at,
        "ppp0",
        &[("type", "512\n"), ("operstate", "notpresent\n")],
    );
    interface(
        at,
        "br0",
        &[("type", "1\n"), ("uevent", "DEVTYPE=bridge\n"), up],
    );
    interface(at, "tun0", &[("type", "65534\n")]);
    put(at, "sys/class/net/bonding_masters", "");
    let routes = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\n\
         eth0\t00000000\t0101A8C0\t0003\t0\t0\t0\t00000000\t0\n\
         eth0\t0001A8C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\n\
         wlan0\t0000000A\t00000000\t0001\t0\t0\t0\t000000FF\t0\n\
         wlan0\t00000000\t00000000\t0201\t0\t0\t0\t00000000\t0\ngarbage\n";
    put(at, "proc/net/route", routes);
    let zero = "0".repeat(32);
    let routes6 = format!(
        "{zero} 00 {zero} 00 {zero} 00000400 00000001 00000000 00000003    wwan0\n\
         {zero} 00 {zero} 00 {zero} ffffffff 00000001 00000000 00200200       lo\n\
         fe80{} 40 {zero} 00 {zero} 00000100 00000001 00000000 00000001     usb0\n",
        "0".repeat(28)
    );
    put(at, "proc/net/ipv6_route", &routes6);
    let mut health = health(settings());
    health.machine = machine(at);
    health.machine.addresses = addresses;
    let report = report(&mut health);
    let mut found = Vec::new();
    for (name, interface) in report["connectivity"].as_object().unwrap() {
        let word = |key: &str| interface[key].as_str().unwrap();
        let (kind, state, status) = (word("type"), word("state"), word("connection_status"));
        found.push(format!(
            "{name} {kind} {state} {status} {}",
            interface["present"]
        ));
        assert_eq!(
            (&interface["metrics"], &interface["metadata"]),
            (&json!({}), &json!({}))
        );
    }
    let expected = [
        "br0 local up lan true",
        "eth0 ethernet up internet true",
        "eth1 ethernet down disconnected true",
        "ppp0 mobile notpresent disconnected false",
        "tun0 unknown unknown disconnected true",
        "usb0 ethernet up disconnected true",
        "wlan0 wifi up lan true",
        "wwan0 mobile unknown internet true",
    ];
    assert_eq!(found, expected);
}

#[test]
fn traffic_of_each_interface_but_the_loopback() {
    let root = plain();
    let at = root.path();
    let counted = [
        ("type", "1"),
        ("statistics/rx_bytes", "7\n"),
        ("statistics/tx_bytes", "18446744073709551615\n"),
    ];
    interface(at, "eth0", &counted);
    interface(at, "lo", &counted);
    interface(
        at,
        "odd0",
        &[
            ("type", "1"),
            ("statistics/rx_bytes", "-1"),
            ("statistics/tx_bytes", "5"),
        ],
    );
    let mut health = health(HealthSettings {
        sets: vec![MetricSet::Network],
        ..settings()
    });
    health.machine = machine(at);
    let report = report(&mut health);
    let expected = json!({
        "eth0_bytes_received_total": 7, "eth0_bytes_sent_total": u64::MAX,
        "odd0_bytes_sent_total": 5,
    });
    assert_eq!(report["metrics"], expected);
    let why = "network: statistics/rx_bytes of odd0 is no number";
    assert_eq!(failure(&report), Some(why));
}

#[test]
fn more_interfaces_than_a_report_holds_are_left_out() {
    let root = plain();
    for number in 0..50 {
        interface(root.path(), &format!("veth{number}"), &[("type", "1\n")]);
    }
    let mut health = health(settings());
    health.machine = machine(root.path());
    assert_eq!(
        report(&mut health)["connectivity"]
            .as_object()
            .unwrap()
            .len(),
        32
    );
}

#[test]
fn what_is_unplugged_is_disconnected_whatever_its_addresses_and_routes_say() {
    let root = plain();
    let route = "eth0\t00000000\t0101A8C0\t0003\t0\t0\t0\t00000000\t0\n";
    put(root.path(), "proc/net/route", route);
    for (state, expected) in [
        ("up\n", "internet"),
        // Those that cannot tell: tunnels, ppp.
        ("unknown\n", "internet"),
        ("", "internet"),
        ("down\n", "disconnected"),
        ("lowerlayerdown\n", "disconnected"),
        ("dormant\n", "disconnected"),
        ("notpresent\n", "disconnected"),
    ] {
        interface(
            root.path(),
            "eth0",
            &[("type", "1\n"), ("operstate", state)],
        );
        let mut health = health(settings());
        health.machine = machine(root.path());
        health.machine.addresses = addresses;
        let found = report(&mut health)["connectivity"]["eth0"].take();
        assert_eq!(found["connection_status"], expected, "{state:?}");
    }
}
