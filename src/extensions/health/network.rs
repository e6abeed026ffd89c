//! The set `network`, and how each interface is connected.

use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

use serde_json::{Map, Value};

use super::draft::{Draft, put};
use super::machine::{Machine, rows};
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
            ("statistics/rx_bytes", "bytes_received_total"),
            ("statistics/tx_bytes", "bytes_sent_total"),
        ] {
            let text = machine.interface(&name, file);
            match text.parse::<u64>() {
                Ok(bytes) => draft.measure(&format!("{name}_{key}"), bytes.into()),
                // One that has just gone.
                Err(_) if !machine.has_interface(&name, "type") => {}
                Err(_) => draft.fail("network", &format!("{file} of {name} is no number")),
            }
        }
    }
}

/// All but the loopback.
fn interfaces(machine: &Machine) -> Vec<String> {
    let mut names = machine.names("sys/class/net");
    // `bonding_masters` is no interface.
    names.retain(|name| name != "lo" && machine.has_interface(name, "type"));
    names.truncate(MOST);
    names
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
        let state = state(machine, &name);
        let status = match (is_unplugged(&state), is_internet, is_lan) {
            (true, _, _) | (false, false, false) => "disconnected",
            (false, true, _) => "internet",
            (false, false, true) => "lan",
        };
        let described = describe(machine, &name, has_route, state, status);
        put(&mut draft.connectivity, &name, described);
    }
}

/// As the kernel has it. Tunnels and ppp cannot tell, and are `unknown`.
fn state(machine: &Machine, name: &str) -> String {
    let mut state = machine.interface(name, "operstate");
    if state.is_empty() {
        state += "unknown";
    }
    state
}

/// It keeps its addresses and routes then, and nothing gets through.
fn is_unplugged(state: &str) -> bool {
    ["down", "lowerlayerdown", "dormant", "notpresent"].contains(&state)
}

fn describe(machine: &Machine, name: &str, has_route: bool, state: String, status: &str) -> Value {
    let mut described = Map::new();
    let is_present = state != "notpresent";
    for (key, value) in [
        ("type", kind(machine, name, has_route).into()),
        ("present", is_present.into()),
        ("state", state.into()),
        ("connection_status", status.into()),
        ("metrics", Map::new().into()),
        ("metadata", Map::new().into()),
    ] {
        put(&mut described, key, value);
    }
    described.into()
}

/// By the kernel's number for its hardware, and what its driver says.
fn kind(machine: &Machine, name: &str, has_route: bool) -> &'static str {
    let driver = machine.interface(name, "uevent");
    let driver = rows(&driver);
    let is = |kind: &str| driver.iter().any(|row| row.first() == Some(&kind));
    let has = |file: &str| machine.has_interface(name, file);
    match machine.interface(name, "type").as_str() {
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
    // Where destination, its mask, flags and interface are.
    for (path, to, mask, flags, interface) in [
        ("proc/net/route", 1, 7, 3, 0),
        ("proc/net/ipv6_route", 0, 1, 8, 9),
    ] {
        let text = machine.text(path).unwrap_or_default();
        for row in rows(&text) {
            let word = |index: usize| row.get(index).copied().unwrap_or("-");
            let is_zero = |index: usize| word(index).bytes().all(|byte| byte == b'0');
            let flags = u32::from_str_radix(word(flags), 16).unwrap_or(0);
            if is_zero(to) && is_zero(mask) && flags & (UP | REJECT) == UP {
                found.push(word(interface).to_owned());
            }
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
