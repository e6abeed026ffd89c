//! Makes certificate authorities, server and client certificates on the spot, good and bad.

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// ring makes no RSA keys, so the RSA one is fixed; it protects nothing.
const RSA_KEY: &str = include_str!("../data/rsa-2048-test-only.pem");

/// The kind of key in a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum KeyKind {
    #[default]
    EcP256,
    EcP384,
    Ed25519,
    /// One fixed 2048-bit key, the same in every certificate.
    Rsa2048,
}

/// When a certificate is good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Validity {
    #[default]
    Now,
    /// Ended in 2001.
    Expired,
    /// Starts in 2100.
    NotYet,
    /// From and until (year, month, day).
    Between((i32, u8, u8), (i32, u8, u8)),
}

/// A certificate with its private key.
#[derive(Debug, Clone)]
pub struct Identity {
    pub cert_pem: String,
    pub key_pem: String,
}

impl Identity {
    pub(crate) fn chain(&self) -> Vec<CertificateDer<'static>> {
        CertificateDer::pem_slice_iter(self.cert_pem.as_bytes())
            .map(|cert| cert.expect("certificate PEM"))
            .collect()
    }

    pub(crate) fn key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::from_pem_slice(self.key_pem.as_bytes()).expect("private key PEM")
    }
}

/// What to put into a certificate.
#[derive(Debug, Clone, Default)]
pub struct Request {
    pub common_name: String,
    pub key: KeyKind,
    pub validity: Validity,
    /// DNS names and IP addresses.
    pub names: Vec<String>,
    pub server: bool,
}

/// A certificate authority.
#[derive(Debug)]
pub struct Ca {
    cert_pem: String,
    key_pem: String,
    params: CertificateParams,
}

impl Ca {
    /// A fresh authority.
    pub fn new(common_name: &str) -> Ca {
        let key = new_key(KeyKind::EcP256);
        Ca::with_key(common_name, key)
    }

    /// An authority read back from [`Ca::cert_pem`] and [`Ca::key_pem`]. The name must be the
    /// one it was made with.
    pub fn load(common_name: &str, cert_pem: String, key_pem: &str) -> Result<Ca, String> {
        let key = KeyPair::from_pem(key_pem).map_err(|error| format!("CA key: {error}"))?;
        Ok(Ca {
            cert_pem,
            ..Ca::with_key(common_name, key)
        })
    }

    fn with_key(common_name: &str, key: KeyPair) -> Ca {
        let mut params = CertificateParams::default();
        params.distinguished_name = Default::default();
        params
            .distinguished_name
            .push(DnType::CommonName, common_name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let cert = params.self_signed(&key).expect("self-signed CA");
        Ca {
            cert_pem: cert.pem(),
            key_pem: key.serialize_pem(),
            params,
        }
    }

    pub fn cert_pem(&self) -> &str {
        &self.cert_pem
    }

    pub fn key_pem(&self) -> &str {
        &self.key_pem
    }

    /// A server certificate for `localhost`, `127.0.0.1` and `::1`.
    pub fn server(&self) -> Identity {
        self.server_for(&["localhost", "127.0.0.1", "::1"])
    }

    /// A server certificate for other names.
    pub fn server_for(&self, names: &[&str]) -> Identity {
        self.issue(&Request {
            common_name: names.first().copied().unwrap_or("server").into(),
            names: names.iter().map(|name| name.to_string()).collect(),
            server: true,
            ..Request::default()
        })
    }

    /// A good client certificate; the common name is the device identifier.
    pub fn client(&self, common_name: &str) -> Identity {
        self.client_with(common_name, KeyKind::EcP256, Validity::Now)
    }

    /// A client certificate of another kind, or one that is not good now.
    pub fn client_with(&self, common_name: &str, key: KeyKind, validity: Validity) -> Identity {
        self.issue(&Request {
            common_name: common_name.into(),
            key,
            validity,
            ..Request::default()
        })
    }

    /// Any certificate.
    pub fn issue(&self, request: &Request) -> Identity {
        let key = new_key(request.key);
        let mut params = CertificateParams::new(request.names.clone()).expect("names");
        params.distinguished_name = Default::default();
        params
            .distinguished_name
            .push(DnType::CommonName, request.common_name.as_str());
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![match request.server {
            true => ExtendedKeyUsagePurpose::ServerAuth,
            false => ExtendedKeyUsagePurpose::ClientAuth,
        }];
        let (from, until) = match request.validity {
            Validity::Now => ((2000, 1, 1), (2120, 1, 1)),
            Validity::Expired => ((2000, 1, 1), (2001, 1, 1)),
            Validity::NotYet => ((2100, 1, 1), (2120, 1, 1)),
            Validity::Between(from, until) => (from, until),
        };
        params.not_before = rcgen::date_time_ymd(from.0, from.1, from.2);
        params.not_after = rcgen::date_time_ymd(until.0, until.1, until.2);
        let signer = KeyPair::from_pem(&self.key_pem).expect("CA key");
        let issuer = Issuer::from_params(&self.params, signer);
        let cert = params.signed_by(&key, &issuer).expect("signed certificate");
        Identity {
            cert_pem: cert.pem(),
            key_pem: key.serialize_pem(),
        }
    }
}

fn new_key(kind: KeyKind) -> KeyPair {
    match kind {
        KeyKind::EcP256 => KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256),
        KeyKind::EcP384 => KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384),
        KeyKind::Ed25519 => KeyPair::generate_for(&PKCS_ED25519),
        KeyKind::Rsa2048 => KeyPair::from_pem(RSA_KEY),
    }
    .expect("key pair")
}

/// Reads the first certificate of a PEM text.
pub(crate) fn read_cert(pem: &str) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(pem.as_bytes()).expect("certificate PEM")
}
