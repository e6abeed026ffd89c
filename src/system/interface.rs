//! Which network interface holds which address.

use std::net::IpAddr;

use nix::ifaddrs::getifaddrs;

/// The interface's name, `None` when no interface has the address.
pub fn holding(address: IpAddr) -> Option<String> {
    let mut found = addresses().into_iter();
    found
        .find(|(_, ip)| *ip == address)
        .map(|(interface, _)| interface)
}

/// All interfaces' addresses, each with the interface's name.
pub fn addresses() -> Vec<(String, IpAddr)> {
    let mut found = Vec::new();
    for interface in getifaddrs().into_iter().flatten() {
        let Some(storage) = interface.address else {
            continue;
        };
        let ip = storage
            .as_sockaddr_in()
            .map(|v4| IpAddr::V4(v4.ip()))
            .or_else(|| storage.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())));
        if let Some(ip) = ip {
            found.push((interface.interface_name, ip));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    #[test]
    fn loopback_is_found_and_strangers_are_not() {
        assert_eq!(super::holding([127, 0, 0, 1].into()).as_deref(), Some("lo"));
        assert_eq!(super::holding([192, 0, 2, 77].into()), None);
    }
}
