//! Checks the shared-secret headers (NH1) exactly as the server does. Pure: the clock is an
//! argument.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// Signatures older than this are refused.
pub const MAX_AGE_SECONDS: i64 = 90;

/// The keys a hub knows.
#[derive(Debug, Clone, Default)]
pub struct Credentials {
    /// Product key and secret: any identifier is welcome and is created on first sight.
    pub products: Vec<(String, String)>,
    /// Device key, secret and the only identifier they are good for.
    pub devices: Vec<(String, String, String)>,
}

/// The four headers.
#[derive(Debug, Clone, Copy)]
pub struct Headers<'a> {
    pub alg: &'a str,
    pub key: &'a str,
    pub time: &'a str,
    pub signature: &'a str,
}

/// Returns the identifier of the device that signed, or why it is refused. The reason goes to
/// the transcript only: the wire never tells.
pub fn verify(headers: Headers, known: &Credentials, now_ms: i64) -> Result<String, String> {
    let (rounds, length) = algorithm(headers.alg)?;
    let time: i64 = headers
        .time
        .parse()
        .map_err(|_| format!("x-nh-time {:?}", headers.time))?;
    let (secret, only) = secret_of(known, headers.key)?;
    let salt = format!(
        "NH1:device-socket:shared-secret:connect\n\nx-nh-alg={}\nx-nh-key={}\nx-nh-time={time}\n",
        headers.alg, headers.key
    );
    let key = pbkdf2(secret.as_bytes(), salt.as_bytes(), rounds, length);
    let payload = open_token(headers.signature, &key)?;
    let (identifier, signed_ms) = read_term(&payload).ok_or("token payload is not the tuple")?;
    if signed_ms > now_ms {
        return Err(format!("signed {} ms in the future", signed_ms - now_ms));
    }
    if signed_ms + MAX_AGE_SECONDS * 1000 < now_ms {
        return Err(format!("signed {} ms ago, too old", now_ms - signed_ms));
    }
    match only {
        Some(only) if only != identifier => {
            Err(format!("device key is for {only}, not {identifier}"))
        }
        _ => Ok(identifier),
    }
}

/// Signs as a device does; for test clients.
pub fn sign(key: &str, secret: &str, identifier: &str, seconds: i64) -> [(String, String); 4] {
    let alg = "NH1-HMAC-sha256-1000-32";
    let salt = format!(
        "NH1:device-socket:shared-secret:connect\n\nx-nh-alg={alg}\nx-nh-key={key}\nx-nh-time={seconds}\n"
    );
    let mut term = vec![131, 104, 3, 109];
    term.extend((identifier.len() as u32).to_be_bytes());
    term.extend(identifier.as_bytes());
    term.extend([110, 8, 0]);
    term.extend((seconds * 1000).to_le_bytes());
    term.extend([98, 0, 1, 0x51, 0x80]);
    let signed = format!("SFMyNTY.{}", URL_SAFE_NO_PAD.encode(term));
    let mut mac = hmac(&pbkdf2(secret.as_bytes(), salt.as_bytes(), 1000, 32));
    mac.update(signed.as_bytes());
    let mac = URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes());
    [
        ("x-nh-alg".into(), alg.into()),
        ("x-nh-key".into(), key.into()),
        ("x-nh-time".into(), seconds.to_string()),
        ("x-nh-signature".into(), format!("{signed}.{mac}")),
    ]
}

/// `NH1-HMAC-sha256-ROUNDS-LENGTH`; the server takes the numbers from the header.
fn algorithm(alg: &str) -> Result<(u32, usize), String> {
    let numbers = alg
        .strip_prefix("NH1-HMAC-sha256-")
        .and_then(|rest| rest.split_once('-'));
    let parsed = numbers.and_then(|(r, l)| Some((r.parse().ok()?, l.parse().ok()?)));
    match parsed {
        Some((rounds @ 1..=100_000, length @ 1..=64)) => Ok((rounds, length)),
        _ => Err(format!("x-nh-alg {alg:?}")),
    }
}

fn secret_of<'a>(known: &'a Credentials, key: &str) -> Result<(&'a str, Option<&'a str>), String> {
    if key.starts_with("nhp_") {
        let product = known.products.iter().find(|(name, _)| name == key);
        product.map(|(_, secret)| (secret.as_str(), None))
    } else {
        let device = known.devices.iter().find(|(name, _, _)| name == key);
        device.map(|(_, secret, only)| (secret.as_str(), Some(only.as_str())))
    }
    .ok_or_else(|| format!("unknown key {key}"))
}

fn open_token(token: &str, key: &[u8]) -> Result<Vec<u8>, String> {
    let mut parts = token.split('.');
    let (Some("SFMyNTY"), Some(payload), Some(mac), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err("signature is not an HS256 token".into());
    };
    let mac = URL_SAFE_NO_PAD
        .decode(mac)
        .map_err(|error| format!("token MAC: {error}"))?;
    let mut expected = hmac(key);
    expected.update(format!("SFMyNTY.{payload}").as_bytes());
    expected
        .verify_slice(&mac)
        .map_err(|_| "token MAC does not match")?;
    URL_SAFE_NO_PAD
        .decode(payload)
        .map_err(|error| format!("token payload: {error}"))
}

fn hmac(key: &[u8]) -> Hmac<Sha256> {
    Hmac::new_from_slice(key).expect("HMAC takes keys of any length")
}

fn pbkdf2(password: &[u8], salt: &[u8], rounds: u32, length: usize) -> Vec<u8> {
    let mac = |parts: [&[u8]; 2]| -> [u8; 32] {
        let mut mac = hmac(password);
        parts.iter().for_each(|part| mac.update(part));
        mac.finalize().into_bytes().into()
    };
    let mut out = Vec::new();
    for block in 1u32.. {
        let mut last = mac([salt, &block.to_be_bytes()]);
        let mut sum = last;
        for _ in 1..rounds {
            last = mac([&last, &[]]);
            sum.iter_mut()
                .zip(last)
                .for_each(|(sum, byte)| *sum ^= byte);
        }
        out.extend_from_slice(&sum);
        if out.len() >= length {
            break;
        }
    }
    out.truncate(length);
    out
}

/// Reads `{Identifier :: binary, SignedAtMs :: integer, MaxAge :: integer}` in the Erlang
/// external term format; anything left over makes it invalid.
fn read_term(mut bytes: &[u8]) -> Option<(String, i64)> {
    let [131, 104, 3, 109] = take(&mut bytes, 4)? else {
        return None;
    };
    let length = u32::from_be_bytes(take(&mut bytes, 4)?.try_into().ok()?);
    let identifier = String::from_utf8(take(&mut bytes, length as usize)?.to_vec()).ok()?;
    let signed = read_integer(&mut bytes)?;
    read_integer(&mut bytes)?;
    bytes.is_empty().then_some((identifier, signed))
}

fn read_integer(bytes: &mut &[u8]) -> Option<i64> {
    match take(bytes, 1)? {
        [97] => Some(i64::from(take(bytes, 1)?[0])),
        [98] => Some(i64::from(i32::from_be_bytes(
            take(bytes, 4)?.try_into().ok()?,
        ))),
        [110] => {
            let head = take(bytes, 2)?;
            let digits = take(bytes, usize::from(head[0]))?;
            let mut value: i64 = 0;
            for digit in digits.iter().rev() {
                value = value.checked_mul(256)?.checked_add(i64::from(*digit))?;
            }
            Some(if head[1] == 0 { value } else { -value })
        }
        _ => None,
    }
}

fn take<'a>(bytes: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (head, tail) = bytes.split_at_checked(count)?;
    *bytes = tail;
    Some(head)
}
