//! The set `network`, and how each interface is connected.

use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::draft::Draft;
use super::machine::Machine;
use crate::system::dial;

/// Most interfaces in a report.
const MOST: usize = 32;
/// For the probe, its name lookup included.
const PROBE: Duration = Duration::from_secs(2);
/// `RTF_UP` and `RTF_REJECT` of a route's flags.
const UP: u32 = 0x0001;
const REJECT: u32 = 0x0200;

pub fn sample(machine: &Machine, draft: &mut Draft) {
    for name in interfaces(machine) {
        for (file, key) in [
            ("rx_bytes", "bytes_received_total"),
            ("tx_bytes", "bytes_sent_total"),
        ] {
            let path = format!("sys/class/net/{name}/statistics/{file}");
            match machine.text(&path).map(|text| text.trim().parse::<u64>()) {
                Ok(Ok(bytes)) => draft.measure(&format!("{name}_{key}"), bytes.into()),
                // One that has just gone.
                Err(_) if !machine.has(&format!("sys/class/net/{name}")) => {}
                Ok(Err(_)) => draft.fail("network", &format!("/{path} is not understood")),
                Err(why) => draft.fail("network", &why),
            }
        }
    }
}

/// All but the loopback.
fn interfaces(machine: &Machine) -> impl Iterator<Item = String> {
    let names = machine.names("sys/class/net").into_iter();
    // `bonding_masters` is no interface.
    let is_other =
        |name: &String| name != "lo" && machine.has(&format!("sys/class/net/{name}/type"));
    names.filter(is_other).take(MOST)
}

pub fn connectivity(machine: &Machine, probe: Option<&(String, u16)>, draft: &mut Draft) {
    let addresses = (machine.addresses)();
    let routes = default_routes(machine);
    let reached = probe.map(|(host, port)| reach(host, *port));
    for name in interfaces(machine) {
        let own = addresses.iter().filter(|(interface, _)| *interface == name);
        let has_route = routes.contains(&name);
        let (mut is_lan, mut is_internet) = (false, false);
        for (_, address) in own {
            is_lan |= !is_link_local(address);
            is_internet |= match reached {
                Some(reached) => reached == Some(*address),
                None => has_route && !is_link_local(address),
            };
        }
        let status = match (is_internet, is_lan) {
            (true, _) => "internet",
            (false, true) => "lan",
            (false, false) => "disconnected",
        };
        let described = describe(machine, &name, has_route, status);
        draft.connectivity.insert(name, described);
    }
}

fn describe(machine: &Machine, name: &str, has_route: bool, status: &str) -> Value {
    let file = |file: &str| machine.text(&format!("sys/class/net/{name}/{file}"));
    let state = file("operstate").unwrap_or_default();
    let state = match state.trim() {
        "" => "unknown",
        state => state,
    };
    json!({
        "type": kind(machine, name, has_route),
        "present": state != "notpresent",
        "state": state,
        "connection_status": status,
        "metrics": {},
        "metadata": {},
    })
}

/// By the kernel's number for its hardware, and what its driver says.
fn kind(machine: &Machine, name: &str, has_route: bool) -> &'static str {
    let text = |file: &str| {
        let text = machine.text(&format!("sys/class/net/{name}/{file}"));
        text.unwrap_or_default()
    };
    let has = |file: &str| machine.has(&format!("sys/class/net/{name}/{file}"));
    let (hardware, driver) = (text("type"), text("uevent"));
    let is = |kind: &str| driver.lines().any(|line| line == kind);
    match hardware.trim() {
        "772" => "local",
        // Point-to-point, and modems without frames.
        "512" | "519" => "mobile",
        _ if is("DEVTYPE=wwan") || name.starts_with("wwan") => "mobile",
        "1" if is("DEVTYPE=wlan") || has("wireless") || has("phy80211") => "wifi",
        // Bridges of containers and the like; that of a container itself has its route.
        "1" if !has("device") && !has_route && !is("DEVTYPE=vlan") => "local",
        "1" => "ethernet",
        _ => "unknown",
    }
}

/// Every interface has one of version 6, wherever it leads.
fn is_link_local(address: &IpAddr) -> bool {
    match address {
        IpAddr::V4(_) => false,
        IpAddr::V6(address) => address.is_unicast_link_local() || *address == Ipv6Addr::LOCALHOST,
    }
}

/// Interfaces with a default route of either version.
fn default_routes(machine: &Machine) -> Vec<String> {
    let mut found = Vec::new();
    let mut add = |interface: &str, flags: &str| {
        let flags = u32::from_str_radix(flags, 16).unwrap_or(0);
        if flags & UP != 0 && flags & REJECT == 0 {
            found.push(interface.to_owned());
        }
    };
    for line in machine.text("proc/net/route").unwrap_or_default().lines() {
        let mut words = line.split_ascii_whitespace();
        let [interface, to, _, flags, _, _, _, mask] = std::array::from_fn(|_| words.next());
        if let (Some(interface), Some("00000000"), Some(flags), Some("00000000")) =
            (interface, to, flags, mask)
        {
            add(interface, flags);
        }
    }
    let everywhere = "00000000000000000000000000000000 00 ";
    for line in machine
        .text("proc/net/ipv6_route")
        .unwrap_or_default()
        .lines()
    {
        let words = line.strip_prefix(everywhere).unwrap_or_default();
        let mut words = words.split_ascii_whitespace().rev();
        if let (Some(interface), Some(flags)) = (words.next(), words.next()) {
            add(interface, flags);
        }
    }
    found
}

/// The address from which the probe was reached.
fn reach(host: &str, port: u16) -> Option<IpAddr> {
    let end = Instant::now() + PROBE;
    let addresses = dial::resolve(host, port, PROBE).ok()?;
    let left = end.saturating_duration_since(Instant::now());
    let reached = dial::connect_any(&addresses, host, left).ok()?;
    reached.local_addr().ok().map(|address| address.ip())
}
