//! The server side of TLS: configurations, and a client-certificate check that is made after
//! the handshake, because a device without a good certificate is answered 401.

use crate::builder::Tls;
use crate::certs::Identity;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ServerConfig, WebPkiClientVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, Error, RootCertStore, SignatureScheme};
use std::sync::Arc;

/// How a listener speaks TLS.
#[derive(Debug, Clone)]
pub struct TlsOptions {
    pub mode: Tls,
    pub alpn: Vec<String>,
    pub identity: Identity,
    pub client_ca: Option<CertificateDer<'static>>,
    /// Refuse bad client certificates in the handshake instead of with 401.
    pub reject_in_handshake: bool,
}

/// `None` for a plain listener.
pub fn server_config(options: &TlsOptions) -> Option<Arc<ServerConfig>> {
    let versions: &[&rustls::SupportedProtocolVersion] = match options.mode {
        Tls::Plain => return None,
        Tls::Server => &[&rustls::version::TLS13, &rustls::version::TLS12],
        Tls::Only12 => &[&rustls::version::TLS12],
        Tls::Only13 => &[&rustls::version::TLS13],
    };
    let builder = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(versions)
        .expect("ring speaks both versions");
    let builder = match &options.client_ca {
        None => builder.with_no_client_auth(),
        Some(ca) if options.reject_in_handshake => {
            builder.with_client_cert_verifier(strict_verifier(ca))
        }
        Some(ca) => builder.with_client_cert_verifier(Arc::new(Requested {
            provider: provider(),
            hints: strict_verifier(ca).root_hint_subjects().to_vec(),
        })),
    };
    let mut config = builder
        .with_single_cert(options.identity.chain(), options.identity.key())
        .expect("certificate and key belong together");
    config.alpn_protocols = options
        .alpn
        .iter()
        .map(|name| name.as_bytes().to_vec())
        .collect();
    Some(Arc::new(config))
}

/// Whether `chain` (leaf first) is good now under the hub's client CA.
pub fn check_client(
    ca: &CertificateDer<'static>,
    chain: &[CertificateDer<'static>],
    now_seconds: i64,
) -> Result<(), String> {
    let Some((leaf, intermediates)) = chain.split_first() else {
        return Err("no client certificate".into());
    };
    let now = UnixTime::since_unix_epoch(std::time::Duration::from_secs(now_seconds.max(0) as u64));
    strict_verifier(ca)
        .verify_client_cert(leaf, intermediates, now)
        .map(|_| ())
        .map_err(|error| format!("client certificate: {error}"))
}

fn strict_verifier(ca: &CertificateDer<'static>) -> Arc<dyn ClientCertVerifier> {
    let mut roots = RootCertStore::empty();
    roots.add(ca.clone()).expect("client CA");
    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider())
        .allow_unauthenticated()
        .build()
        .expect("one root is enough")
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

/// Requests a certificate and takes any whose key the client really holds.
#[derive(Debug)]
struct Requested {
    provider: Arc<CryptoProvider>,
    hints: Vec<DistinguishedName>,
}

impl ClientCertVerifier for Requested {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.hints
    }

    fn verify_client_cert(
        &self,
        _leaf: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, cert, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, cert, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}
