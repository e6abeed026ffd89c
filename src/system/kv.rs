//! The device's key-value store: firmware metadata, serial number, credentials.
//!
//! Owns the `key=value` line format and which names hold what. Does not load anything and
//! must not log values: some are secrets.

use std::collections::BTreeMap;
use std::fmt;

use crate::config::{Credentials, Secret};

/// Keys and values as found. `Debug` prints the keys only: values may be secrets.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct KeyValues(pub(super) BTreeMap<String, String>);

impl fmt::Debug for KeyValues {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl From<BTreeMap<String, String>> for KeyValues {
    fn from(map: BTreeMap<String, String>) -> Self {
        Self(map)
    }
}

impl KeyValues {
    /// From lines of `key=value`.
    ///
    /// Empty lines and lines that begin with `#` are passed over; spaces around key and
    /// value and one pair of quotes around the value are not part of them; the last of
    /// several equal keys counts. The error is the number of a line without key or `=`.
    pub fn parse_lines(text: &str) -> Result<Self, usize> {
        let mut map = BTreeMap::new();
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            match line.split_once('=') {
                Some((key, value)) if !key.trim().is_empty() => {
                    map.insert(key.trim().to_owned(), unquoted(value.trim()).to_owned());
                }
                _ => return Err(index + 1),
            }
        }
        Ok(Self(map))
    }

    /// A value; empty ones count as absent.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0
            .get(key)
            .map(String::as_str)
            .filter(|value| !value.is_empty())
    }

    /// True when there is nothing at all.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// `nerves_serial_number`, else `serial_number`.
    pub fn serial_number(&self) -> Option<&str> {
        self.get("nerves_serial_number")
            .or_else(|| self.get("serial_number"))
    }

    /// Credentials kept on the device, for when the configuration names none: the
    /// certificate `nerves_hub_cert`/`nerves_hub_key`, else the device's shared secret
    /// `nh_shared_key`/`nh_shared_secret`, else the product's
    /// `nh_shared_product_key`/`nh_shared_product_secret`. Half a pair is passed over.
    pub fn credentials(&self) -> Option<Credentials> {
        let certificate = self
            .pair("nerves_hub_cert", "nerves_hub_key")
            .map(|(cert, key)| Credentials::CertificatePem {
                cert: pem(cert),
                key: Secret::new(pem(key)),
            });
        let shared = |key, secret| {
            self.pair(key, secret)
                .map(|(key, secret)| Credentials::SharedSecret {
                    key: key.to_owned(),
                    secret: Secret::new(secret),
                })
        };
        certificate
            .or_else(|| shared("nh_shared_key", "nh_shared_secret"))
            .or_else(|| shared("nh_shared_product_key", "nh_shared_product_secret"))
    }

    fn pair(&self, first: &str, second: &str) -> Option<(&str, &str)> {
        match (self.get(first), self.get(second)) {
            (Some(first), Some(second)) => Some((first, second)),
            (Some(_), None) => {
                warn!("{first} is on the device without {second}: not used");
                None
            }
            _ => None,
        }
    }
}

/// Where values have one line, the line ends of PEM are written as `\n`.
fn pem(text: &str) -> String {
    if text.contains('\n') {
        text.to_owned()
    } else {
        text.replace("\\n", "\n")
    }
}

/// Without one pair of quotes around it.
pub fn unquoted(value: &str) -> &str {
    let inside = |quote| {
        value
            .strip_prefix(quote)
            .and_then(|rest| rest.strip_suffix(quote))
    };
    inside('"').or_else(|| inside('\'')).unwrap_or(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kv(text: &str) -> KeyValues {
        KeyValues::parse_lines(text).unwrap()
    }

    #[test]
    fn lines() {
        let values = kv("# comment\n\n a = b=c \nq=\"x y\"\ns='z'\nhalf=\"x\ne=\na=last\r\n");
        assert_eq!(values.get("a"), Some("last"));
        assert_eq!(values.get("q"), Some("x y"));
        assert_eq!(values.get("s"), Some("z"));
        assert_eq!(values.get("half"), Some("\"x"));
        assert_eq!(values.get("e"), None);
        assert_eq!(KeyValues::parse_lines("a=1\n\noops\n"), Err(3));
        assert_eq!(KeyValues::parse_lines("=1"), Err(1));
    }

    #[test]
    fn credentials_in_order() {
        let product = "nh_shared_product_key=nhp_p\nnh_shared_product_secret=ps\n";
        let device = "nh_shared_key=d\nnh_shared_secret=ds\n";
        let cert = "nerves_hub_cert=-----BEGIN X\\nY\nnerves_hub_key=k\n";
        let shared = |key: &str, secret: &str| {
            Some(Credentials::SharedSecret {
                key: key.to_owned(),
                secret: Secret::new(secret),
            })
        };
        assert_eq!(kv("").credentials(), None);
        assert_eq!(kv(product).credentials(), shared("nhp_p", "ps"));
        assert_eq!(
            kv(&format!("{product}{device}")).credentials(),
            shared("d", "ds")
        );
        assert_eq!(
            kv(&format!("{product}nh_shared_key=d\n")).credentials(),
            shared("nhp_p", "ps")
        );
        assert_eq!(
            kv(&format!("{product}{device}{cert}")).credentials(),
            Some(Credentials::CertificatePem {
                cert: "-----BEGIN X\nY".to_owned(),
                key: Secret::new("k"),
            })
        );
    }

    #[test]
    fn values_do_not_show() {
        let text = format!("{:?}", kv("nh_shared_secret=hunter2"));
        assert_eq!(text, r#"{"nh_shared_secret"}"#);
    }
}
