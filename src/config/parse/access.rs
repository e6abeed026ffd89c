//! Who this device is, and how it gets to the hub: identifier, credentials, TLS, proxy.

use crate::config::error::{ConfigError, Problem};
use crate::config::reader::Reader;
use crate::config::table::{Setting, setting};
use crate::config::{Credentials, IdentifierSource, Proxy, TlsSettings, address, values};

pub(super) fn identifier(r: &mut Reader) -> IdentifierSource {
    let fixed = setting!("NERVES_HUB_IDENTIFIER");
    let command = setting!("NERVES_HUB_IDENTIFIER_COMMAND");
    conflict(r, fixed, command, "keep one of them");
    let fixed = r.parsed(fixed, values::identifier);
    let command = r.text(command);
    match (fixed, command) {
        (Some(text), _) => IdentifierSource::Fixed(text),
        (None, Some(command)) => IdentifierSource::Command(command),
        (None, None) => IdentifierSource::Discover,
    }
}

/// A certificate, a device's shared secret or a product's, in this order; a certificate
/// next to a shared secret is an error.
pub(super) fn credentials(r: &mut Reader) -> Option<Credentials> {
    let cert = setting!("NERVES_HUB_CERT_FILE");
    let shared = setting!("NERVES_HUB_SHARED_KEY");
    let product = setting!("NERVES_HUB_PRODUCT_KEY");
    let fix = "keep either the certificate or the shared secret";
    let files = certificate_files(r, cert, setting!("NERVES_HUB_KEY_FILE"));
    let device = shared_secret(r, shared, setting!("NERVES_HUB_SHARED_SECRET"));
    let of_product = shared_secret(r, product, setting!("NERVES_HUB_PRODUCT_SECRET"));
    conflict(r, cert, shared, fix);
    conflict(r, cert, product, fix);
    files.or(device).or(of_product)
}

fn certificate_files(
    r: &mut Reader,
    cert: &'static Setting,
    key: &'static Setting,
) -> Option<Credentials> {
    pair(r, cert, key);
    let cert = r.path(cert);
    let key = r.path(key);
    cert.zip(key)
        .map(|(cert, key)| Credentials::CertificateFiles { cert, key })
}

fn shared_secret(
    r: &mut Reader,
    key: &'static Setting,
    secret: &'static Setting,
) -> Option<Credentials> {
    pair(r, key, secret);
    let key = r.parsed(key, values::header_text);
    let secret = r.header_secret(secret);
    key.zip(secret)
        .map(|(key, secret)| Credentials::SharedSecret { key, secret })
}

/// Adds an error when both are given.
fn conflict(r: &mut Reader, first: &Setting, second: &Setting, fix: &str) {
    if let (Some(first), Some(second)) = (r.given(first), r.given(second)) {
        r.errors.push(ConfigError::Conflict {
            first,
            second,
            fix: fix.to_owned(),
        });
    }
}

/// Adds an error when one of a pair is given without the other.
fn pair(r: &mut Reader, a: &Setting, b: &Setting) {
    for (given, missing) in [(a, b), (b, a)] {
        if let (Some(given), None) = (r.given(given), r.given(missing)) {
            r.errors.push(ConfigError::Missing {
                name: missing.name.to_owned(),
                why: format!("{given} is"),
                fix: "set both or neither".to_owned(),
            });
        }
    }
}

pub(super) fn tls(r: &mut Reader) -> TlsSettings {
    let ca_file = r.path(setting!("NERVES_HUB_CA_FILE"));
    let mode = setting!("NERVES_HUB_CA_MODE");
    let ca_only = r.choice(mode) == "only";
    if ca_only && r.given(setting!("NERVES_HUB_CA_FILE")).is_none() {
        let problem = "leaves nothing to trust without NERVES_HUB_CA_FILE";
        r.refuse(mode, Problem::new(problem, "name the CA file, or use add"));
    }
    TlsSettings {
        ca_file,
        ca_only,
        server_name: r.parsed(setting!("NERVES_HUB_SNI"), address::server_name),
    }
}

pub(super) fn proxy(r: &mut Reader) -> Option<Proxy> {
    let system = setting!("https_proxy");
    let direct_hosts = setting!("no_proxy");
    r.adopt_capitals(system);
    r.adopt_capitals(direct_hosts);
    let no_proxy = r.list(direct_hosts);
    let parse = |text: &str| match text {
        "none" => Ok(None),
        _ => address::proxy(text, no_proxy.clone()).map(Some),
    };
    let row = setting!("NERVES_HUB_PROXY");
    let own = r.parsed(row, parse);
    if r.given(row).is_some() {
        return own.flatten();
    }
    r.parsed(system, parse).flatten()
}
