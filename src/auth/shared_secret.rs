//! The `NH1` shared-secret headers (PROTOCOL §1), signed anew for each attempt.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::config::Secret;
use crate::wire::external_term;

const ALGORITHM: &str = "NH1-HMAC-sha256-1000-32";
const ROUNDS: u32 = 1000;
/// Seconds the token may live; the hub itself accepts 90 s.
const MAX_AGE: u32 = 86_400;

/// The four headers of an upgrade request.
pub struct Headers {
    pub algorithm: &'static str,
    pub key: String,
    pub time: String,
    pub signature: Secret,
}

/// Signs for `unix_seconds`.
pub fn sign(key: &str, secret: &Secret, identifier: &str, unix_seconds: u64) -> Headers {
    let salt = format!(
        "NH1:device-socket:shared-secret:connect\n\n\
         x-nh-alg={ALGORITHM}\nx-nh-key={key}\nx-nh-time={unix_seconds}\n"
    );
    let signing_key = derive(secret.expose().as_bytes(), salt.as_bytes());
    let payload =
        external_term::token_payload(identifier, unix_seconds.saturating_mul(1000), MAX_AGE);
    let message = format!("SFMyNTY.{}", URL_SAFE_NO_PAD.encode(payload));
    let mac = hmac(&signing_key, &[message.as_bytes()]);
    Headers {
        algorithm: ALGORITHM,
        key: key.to_owned(),
        time: unix_seconds.to_string(),
        signature: Secret::new(format!("{message}.{}", URL_SAFE_NO_PAD.encode(mac))),
    }
}

/// PBKDF2-HMAC-SHA256 (RFC 8018 §5.2) for exactly one block of output.
fn derive(password: &[u8], salt: &[u8]) -> [u8; 32] {
    let mut round = hmac(password, &[salt, &1u32.to_be_bytes()]);
    let mut key = round;
    for _ in 1..ROUNDS {
        round = hmac(password, &[&round]);
        key.iter_mut()
            .zip(round)
            .for_each(|(sum, byte)| *sum ^= byte);
    }
    key
}

fn hmac(key: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    // Invariant: HMAC takes keys of every length.
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("any key length");
    parts.iter().for_each(|part| mac.update(part));
    mac.finalize().into_bytes().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    #[test]
    fn the_reference_library_s_vectors_are_reproduced() {
        let text = include_str!("../../tests/data/vectors/shared_secret.json");
        let vectors: Vec<Value> = serde_json::from_str(text).expect("vectors");
        assert!(vectors.len() >= 5);
        for vector in vectors {
            let field = |name: &str| vector[name].as_str().expect("text").to_owned();
            let secret = Secret::new(field("secret"));
            let time = vector["time"].as_u64().expect("time");
            let headers = sign(&field("key"), &secret, &field("identifier"), time);
            let expected = &vector["headers"];
            assert_eq!(headers.algorithm, expected["x-nh-alg"]);
            assert_eq!(headers.key, expected["x-nh-key"]);
            assert_eq!(headers.time, expected["x-nh-time"]);
            assert_eq!(headers.signature.expose(), expected["x-nh-signature"]);
        }
    }
}
