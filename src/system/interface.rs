//! Which network interface holds an address.

use std::net::IpAddr;

use nix::ifaddrs::getifaddrs;

/// The interface's name, `None` when no interface has the address.
pub fn holding(address: IpAddr) -> Option<String> {
    let interfaces = getifaddrs().ok()?;
    for interface in interfaces {
        let Some(storage) = interface.address else {
            continue;
        };
        let ip = storage
            .as_sockaddr_in()
            .map(|v4| IpAddr::V4(v4.ip()))
            .or_else(|| storage.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())));
        if ip == Some(address) {
            return Some(interface.interface_name);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    #[test]
    fn loopback_is_found_and_strangers_are_not() {
        assert_eq!(super::holding([127, 0, 0, 1].into()).as_deref(), Some("lo"));
        assert_eq!(super::holding([192, 0, 2, 77].into()), None);
    }
}
