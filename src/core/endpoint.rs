//! Where a connection attempt goes, and where a redirect sends it. Pure.

use std::fmt;

/// Scheme, host, port, path and query of the hub's socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// `wss` when true.
    pub secure: bool,
    /// Without brackets when it is an IPv6 literal.
    pub host: String,
    pub port: u16,
    /// Path and query, starting with `/`. The query may be a credential.
    pub path: String,
}

impl Endpoint {
    /// Host and port as they stand in URLs and `Host` headers.
    pub fn authority(&self) -> String {
        let host = &self.host;
        let default = if self.secure { 443 } else { 80 };
        match (host.contains(':'), self.port == default) {
            (true, true) => format!("[{host}]"),
            (true, false) => format!("[{host}]:{}", self.port),
            (false, true) => host.clone(),
            (false, false) => format!("{host}:{}", self.port),
        }
    }

    /// The target of a `location` header, relative forms included; `http` counts as `ws`,
    /// `https` as `wss` (PROTOCOL §1).
    ///
    /// # Errors
    /// Text naming what cannot be followed.
    pub fn redirected(&self, location: &str) -> Result<Self, String> {
        let location = location.split('#').next().unwrap_or_default();
        if let Some((scheme, rest)) = location.split_once("://") {
            let secure = match scheme.to_ascii_lowercase().as_str() {
                "https" | "wss" => true,
                "http" | "ws" => false,
                other => return Err(format!("location has scheme {other:?}")),
            };
            return Self::from_authority(secure, rest);
        }
        if let Some(rest) = location.strip_prefix("//") {
            return Self::from_authority(self.secure, rest);
        }
        let base = self.path.split('?').next().unwrap_or("/");
        let path = if location.is_empty() {
            self.path.clone()
        } else if location.starts_with('/') {
            location.to_owned()
        } else if location.starts_with('?') {
            format!("{base}{location}")
        } else {
            let folder = base.rfind('/').map_or("", |end| &base[..end]);
            format!("{folder}/{location}")
        };
        checked(Self {
            path: without_dots(&path),
            ..self.clone()
        })
    }

    fn from_authority(secure: bool, rest: &str) -> Result<Self, String> {
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        let authority = authority.rsplit('@').next().unwrap_or_default();
        let default = if secure { 443 } else { 80 };
        let (host, port) = split_port(authority, default)?;
        let path = if path.starts_with('/') {
            path.to_owned()
        } else {
            format!("/{path}")
        };
        checked(Self {
            secure,
            host,
            port,
            path,
        })
    }
}

/// Takes `.` and `..` out of a path (RFC 3986 §5.2.4); the query stays as it is.
fn without_dots(target: &str) -> String {
    let (path, query) = match target.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (target, None),
    };
    let mut kept: Vec<&str> = Vec::new();
    for part in path.split('/').skip(1) {
        match part {
            "." => {}
            ".." => drop(kept.pop()),
            _ => kept.push(part),
        }
    }
    if path.ends_with("/.") || path.ends_with("/..") {
        kept.push("");
    }
    let path = format!("/{}", kept.join("/"));
    query.map_or(path.clone(), |query| format!("{path}?{query}"))
}

/// Host and port of an authority; IPv6 literals in brackets.
fn split_port(authority: &str, default: u16) -> Result<(String, u16), String> {
    let bad = || format!("location has no usable host and port: {authority:?}");
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']').ok_or_else(bad)?;
            (host, port.strip_prefix(':'))
        }
        None => match authority.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (authority, None),
        },
    };
    let port = match port {
        Some(text) => text.parse().map_err(|_| bad())?,
        None => default,
    };
    if host.is_empty() {
        Err(bad())
    } else {
        Ok((host.to_owned(), port))
    }
}

fn checked(endpoint: Endpoint) -> Result<Endpoint, String> {
    let clean = |text: &str| text.bytes().all(|byte| byte.is_ascii_graphic());
    if clean(&endpoint.host) && clean(&endpoint.path) {
        Ok(endpoint)
    } else {
        Err("location has characters no URL has".to_owned())
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.secure { "wss" } else { "ws" };
        let path = self.path.split('?').next().unwrap_or_default();
        write!(f, "{scheme}://{}{path}", self.authority())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_resolve_as_urls_do() {
        let base = Endpoint {
            secure: true,
            host: "hub.example".into(),
            port: 443,
            path: "/socket/websocket?vsn=2.0.0".into(),
        };
        for (location, expected) in [
            ("https://b.example/x?y=1", "wss://b.example /x?y=1"),
            ("http://b.example:4000", "ws://b.example:4000 /"),
            ("wss://[::1]:9/s", "wss://[::1]:9 /s"),
            ("//c.example/z", "wss://c.example /z"),
            ("/other?vsn=2.0.0#f", "wss://hub.example /other?vsn=2.0.0"),
            ("next?vsn=2.0.0", "wss://hub.example /socket/next?vsn=2.0.0"),
            ("../up/./x?a=../b", "wss://hub.example /up/x?a=../b"),
            ("../../..", "wss://hub.example /"),
            (
                "?vsn=3.0.0",
                "wss://hub.example /socket/websocket?vsn=3.0.0",
            ),
            ("", "wss://hub.example /socket/websocket?vsn=2.0.0"),
            ("https://u:p@d.example?q", "wss://d.example /?q"),
        ] {
            let found = base.redirected(location).expect(location);
            let scheme = if found.secure { "wss" } else { "ws" };
            let shown = format!("{scheme}://{} {}", found.authority(), found.path);
            assert_eq!(shown, expected, "{location}");
        }
        for location in [
            "ftp://x/",
            "https://",
            "https://h:99999/",
            "https://[::1/",
            "/a b",
            "https://h\u{e9}/",
        ] {
            assert!(base.redirected(location).is_err(), "{location}");
        }
    }
}
