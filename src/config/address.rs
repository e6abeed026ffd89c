//! Hub addresses and proxy URLs.
//!
//! Owns their syntax. Pure: no DNS, no variables.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::error::Problem;
use super::secret::Secret;
use super::{HubAddress, Proxy};

const HOST_FIX: &str = "use a host name, name:port, [IPv6]:port or wss://name:port";

/// `name`, `name:port`, `[v6]:port` or `ws(s)://…` with an optional `/` at the end.
///
/// Plain `ws://` is refused unless `allow_insecure`, also for loopback.
pub fn hub(text: &str, allow_insecure: bool) -> Result<HubAddress, Problem> {
    let (secure, rest) = hub_scheme(text)?;
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    refuse_extras(rest)?;
    let (host, port) = authority(rest, HOST_FIX)?;
    if !secure && !allow_insecure {
        return Err(Problem::new(
            "is plain text, which anyone on the path can read and change",
            "use wss://, or set NERVES_HUB_ALLOW_INSECURE=1 for development",
        ));
    }
    Ok(HubAddress {
        secure,
        host,
        port: port.unwrap_or(if secure { 443 } else { 80 }),
    })
}

/// `name:port` or `[v6]:port`.
pub fn host_and_port(text: &str) -> Result<(String, u16), Problem> {
    let fix = "use name:port or [IPv6]:port";
    let (host, port) = authority(text, fix)?;
    let port = port.ok_or_else(|| Problem::new("has no port", fix))?;
    Ok((host, port))
}

fn hub_scheme(text: &str) -> Result<(bool, &str), Problem> {
    let Some((scheme, rest)) = text.split_once("://") else {
        return Ok((true, text));
    };
    match scheme.to_ascii_lowercase().as_str() {
        "wss" => Ok((true, rest)),
        "ws" => Ok((false, rest)),
        _ => Err(Problem::new(
            format!("has scheme {scheme}"),
            "use wss:// or a bare host name",
        )),
    }
}

fn refuse_extras(rest: &str) -> Result<(), Problem> {
    let (what, fix) = if rest.contains('@') {
        (
            "has a user name or password in it",
            "credentials go into NERVES_HUB_PRODUCT_KEY and NERVES_HUB_PRODUCT_SECRET",
        )
    } else if rest.contains(['?', '#']) {
        ("has a query", "leave it out: the agent adds its own")
    } else if rest.contains('/') {
        ("has a path", "leave it out: the agent adds its own")
    } else {
        return Ok(());
    };
    Err(Problem::new(what, fix))
}

/// `host`, `host:port` or `[v6]:port`; a host without brackets and a port.
pub fn place(text: &str, port: u16) -> Result<(String, u16), Problem> {
    let (host, given) = authority(text, "use HOST, HOST:PORT or [IPv6]:PORT")?;
    Ok((host, given.unwrap_or(port)))
}

/// `host`, `host:port` or `[v6]:port`; the host without brackets.
fn authority(text: &str, fix: &str) -> Result<(String, Option<u16>), Problem> {
    if let Some(rest) = text.strip_prefix('[') {
        let (host, after) = rest
            .split_once(']')
            .ok_or_else(|| Problem::new("has a [ without a ]", fix))?;
        host.parse::<Ipv6Addr>()
            .map_err(|_| Problem::new("has no IPv6 address in its brackets", fix))?;
        return match after.strip_prefix(':') {
            Some(digits) => Ok((host.to_owned(), Some(port(digits)?))),
            None if after.is_empty() => Ok((host.to_owned(), None)),
            None => Err(Problem::new("has text after its ]", fix)),
        };
    }
    if text.parse::<Ipv6Addr>().is_ok() {
        return Err(Problem::new(
            "is an IPv6 address without brackets",
            format!("write [{text}] or [{text}]:PORT"),
        ));
    }
    match text.split_once(':') {
        Some((host, digits)) => {
            let port = port(digits)?;
            Ok((host_name(host, fix)?, Some(port)))
        }
        None => Ok((host_name(text, fix)?, None)),
    }
}

fn port(digits: &str) -> Result<u16, Problem> {
    digits
        .bytes()
        .all(|b| b.is_ascii_digit())
        .then(|| digits.parse().ok())
        .flatten()
        .filter(|port| *port != 0)
        .ok_or_else(|| Problem::new(format!("has port {digits:?}"), "use 1 to 65535"))
}

fn host_name(host: &str, fix: &str) -> Result<String, Problem> {
    if host.is_empty() {
        return Err(Problem::new("has no host name", fix));
    }
    if !host.is_ascii() {
        return Err(Problem::new(
            "has a host name that is not ASCII",
            "write it in its xn--… form",
        ));
    }
    let numeric = host.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    let valid = if numeric {
        host.parse::<Ipv4Addr>().is_ok()
    } else {
        host.len() <= 253 && host.split('.').all(is_label)
    };
    if valid {
        Ok(host.to_ascii_lowercase())
    } else {
        Err(Problem::new(format!("has bad host name {host:?}"), fix))
    }
}

fn is_label(label: &str) -> bool {
    let inside = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    !label.is_empty()
        && label.len() <= 63
        && label.bytes().all(inside)
        && !label.starts_with('-')
        && !label.ends_with('-')
}

/// A bare host name or IP address: the name expected in the hub's certificate.
pub fn server_name(text: &str) -> Result<String, Problem> {
    let fix = "use a bare host name or IP address";
    if text.parse::<Ipv6Addr>().is_ok() {
        return Ok(text.to_owned());
    }
    if text.contains(['/', ':', '@', '[']) {
        return Err(Problem::new("is not a host name", fix));
    }
    host_name(text, fix)
}

const PROXY_FIX: &str = "use http://host:port or http://user:password@host:port";

/// `http://[user:password@]host:port`; the scheme may be left out.
pub fn proxy(text: &str, no_proxy: Vec<String>) -> Result<Proxy, Problem> {
    let rest = match text.split_once("://") {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => rest,
        Some((scheme, _)) => {
            return Err(Problem::new(
                format!("has scheme {scheme}, and only HTTP proxies are spoken"),
                PROXY_FIX,
            ));
        }
        None => text,
    };
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    let (userinfo, rest) = match rest.rsplit_once('@') {
        Some((userinfo, rest)) => (Some(proxy_userinfo(userinfo)?), rest),
        None => (None, rest),
    };
    if rest.contains(['/', '?', '#']) {
        return Err(Problem::new("has a path", PROXY_FIX));
    }
    let (host, port) = authority(rest, PROXY_FIX)?;
    let port = port.ok_or_else(|| Problem::new("has no port", PROXY_FIX))?;
    Ok(Proxy {
        host,
        port,
        userinfo,
        no_proxy,
    })
}

/// `user:password` with its `%XX` decoded.
fn proxy_userinfo(text: &str) -> Result<Secret, Problem> {
    let decoded = percent_decoded(text).ok_or_else(|| {
        Problem::new(
            "has a bad % in its user name or password",
            "write special characters as % and two hex digits",
        )
    })?;
    if decoded.chars().any(char::is_control) {
        return Err(Problem::new(
            "has a control character in its user name or password",
            PROXY_FIX,
        ));
    }
    Ok(Secret::new(decoded))
}

fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        if first == b'%' {
            let digits = std::str::from_utf8(tail.get(..2)?).ok()?;
            if !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
                return None;
            }
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            rest = &tail[2..];
        } else {
            bytes.push(first);
            rest = tail;
        }
    }
    String::from_utf8(bytes).ok()
}

/// The same text with any `user:password@` made unreadable, for error messages.
pub fn without_userinfo(text: &str) -> String {
    let Some((before, host)) = text.rsplit_once('@') else {
        return text.to_owned();
    };
    match before.split_once("://") {
        Some((scheme, _)) => format!("{scheme}://…@{host}"),
        None => format!("…@{host}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(secure: bool, host: &str, port: u16) -> HubAddress {
        HubAddress {
            secure,
            host: host.to_owned(),
            port,
        }
    }

    #[test]
    fn host_forms() {
        for (text, expected) in [
            ("hub.example.com", address(true, "hub.example.com", 443)),
            ("Hub:4001", address(true, "hub", 4001)),
            ("[::1]:8443", address(true, "::1", 8443)),
            ("[fe80::1]", address(true, "fe80::1", 443)),
            ("10.0.0.1", address(true, "10.0.0.1", 443)),
            (
                "wss://hub.example.com/",
                address(true, "hub.example.com", 443),
            ),
            ("WSS://hub:1", address(true, "hub", 1)),
            ("ws://localhost", address(false, "localhost", 80)),
            ("ws://127.0.0.1:4000/", address(false, "127.0.0.1", 4000)),
        ] {
            assert_eq!(hub(text, true), Ok(expected), "{text}");
        }
    }

    #[test]
    fn proxies() {
        let proxy = |text: &str| super::proxy(text, Vec::new());
        let good = proxy("http://me:p%40ss%3A@proxy.lan:3128/").unwrap();
        assert_eq!((good.host.as_str(), good.port), ("proxy.lan", 3128));
        assert_eq!(good.userinfo.unwrap().expose(), "me:p@ss:");
        assert_eq!(proxy("[::1]:3128").unwrap().host, "::1");
        for bad in [
            "socks5://p:1",
            "http://p",
            "http://p:1/x",
            "http://%zz@p:1",
            "http://u:%0a@p:1",
            "http://:1",
        ] {
            assert!(proxy(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn passwords_do_not_show() {
        assert_eq!(without_userinfo("http://u:p@h:1"), "http://…@h:1");
        assert_eq!(without_userinfo("u:p@x@h"), "…@h");
        assert_eq!(without_userinfo("h:1"), "h:1");
    }
}
