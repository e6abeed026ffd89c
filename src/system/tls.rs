//! TLS by rustls with ring: trust, client certificate, clock, and errors in plain words.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::time_provider::TimeProvider;
use rustls::{CertificateError, ClientConfig, RootCertStore};

use super::time;
use crate::config::{Secret, TlsSettings};

/// Sessions kept for resumption: the hub and a few download hosts.
const SESSIONS: usize = 8;

/// What keeps TLS from being set up; names the file and the way out.
#[derive(Debug)]
pub struct TlsSetupError(pub String);

impl fmt::Display for TlsSetupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A client certificate chain and its key, as PEM text.
#[derive(Clone, Debug)]
pub struct ClientCertificate {
    pub chain: String,
    pub key: Secret,
    /// For messages: where they came from.
    pub origin: String,
}

/// Builds a configuration to be kept: sessions resume only within one.
///
/// # Errors
/// Unreadable or unusable certificates and keys, named.
pub fn client_config(
    settings: &TlsSettings,
    client: Option<&ClientCertificate>,
) -> Result<Arc<ClientConfig>, TlsSetupError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_details(provider, Arc::new(FlooredClock))
        .with_safe_default_protocol_versions()
        .map_err(|error| TlsSetupError(format!("TLS: {error}")))?
        .with_root_certificates(roots(settings)?);
    let mut config = match client {
        None => builder.with_no_client_auth(),
        Some(client) => {
            let (chain, key) = parse_client(client)?;
            builder.with_client_auth_cert(chain, key).map_err(|error| {
                TlsSetupError(format!(
                    "{}: certificate and key are unusable: {error}",
                    client.origin
                ))
            })?
        }
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.resumption = Resumption::in_memory_sessions(SESSIONS);
    Ok(Arc::new(config))
}

fn roots(settings: &TlsSettings) -> Result<RootCertStore, TlsSetupError> {
    let mut roots = RootCertStore::empty();
    if !settings.ca_only {
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    if let Some(path) = &settings.ca_file {
        let problem =
            |text: String| TlsSetupError(format!("NERVES_HUB_CA_FILE: {}: {text}", path.display()));
        let pem = std::fs::read(path).map_err(|error| problem(error.to_string()))?;
        let certificates = parse_certificates(&pem).map_err(problem)?;
        for certificate in certificates {
            roots
                .add(certificate)
                .map_err(|error| problem(error.to_string()))?;
        }
    }
    Ok(roots)
}

/// All certificates of a PEM text, at least one.
///
/// # Errors
/// Text saying what is wrong.
pub fn parse_certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match found {
        Ok(found) if found.is_empty() => Err("no PEM certificate in it".to_owned()),
        Ok(found) => Ok(found),
        Err(error) => Err(format!("not PEM: {error}")),
    }
}

fn parse_client(
    client: &ClientCertificate,
) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), TlsSetupError> {
    let problem = |text: String| TlsSetupError(format!("{}: {text}", client.origin));
    let chain = parse_certificates(client.chain.as_bytes()).map_err(problem)?;
    let key = PrivateKeyDer::from_pem_slice(client.key.expose().as_bytes())
        .map_err(|error| problem(format!("no usable private key: {error}")))?;
    Ok((chain, key))
}

/// Reads a certificate and key file.
///
/// # Errors
/// The file that cannot be read.
pub fn read_client(cert: &Path, key: &Path) -> Result<ClientCertificate, TlsSetupError> {
    let read = |name: &str, path: &Path| {
        std::fs::read_to_string(path)
            .map_err(|error| TlsSetupError(format!("{name}: {}: {error}", path.display())))
    };
    Ok(ClientCertificate {
        chain: read("NERVES_HUB_CERT_FILE", cert)?,
        key: Secret::new(read("NERVES_HUB_KEY_FILE", key)?),
        origin: format!("{} and {}", cert.display(), key.display()),
    })
}

/// The device's clock, but never before this binary was built: boards without a battery
/// start in 1970, and no certificate could be checked until NTP is through.
#[derive(Debug)]
struct FlooredClock;

impl TimeProvider for FlooredClock {
    fn current_time(&self) -> Option<UnixTime> {
        let seconds = time::unix_now().max(time::build_epoch());
        Some(UnixTime::since_unix_epoch(std::time::Duration::from_secs(
            seconds,
        )))
    }
}

/// A TLS error in words that name the cause and the way out.
pub fn explain(error: &rustls::Error) -> String {
    let clock = time::iso8601(time::unix_now());
    let rustls::Error::InvalidCertificate(cause) = error else {
        return format!("TLS: {error}");
    };
    match cause {
        CertificateError::NotValidYetContext { not_before, .. } => format!(
            "TLS: device clock {clock} is before the certificate's start {}; set the clock",
            time::iso8601(not_before.as_secs())
        ),
        CertificateError::NotValidYet => {
            format!("TLS: device clock {clock} is before the certificate's start; set the clock")
        }
        CertificateError::ExpiredContext { not_after, .. } => format!(
            "TLS: the certificate ended on {}, device clock {clock}; renew it or set the clock",
            time::iso8601(not_after.as_secs())
        ),
        CertificateError::UnknownIssuer => {
            "TLS: the certificate's issuer is not trusted; set NERVES_HUB_CA_FILE".to_owned()
        }
        other => format!("TLS: certificate refused: {other}"),
    }
}
