//! The one Erlang term the hub wants: the signed tuple of the shared-secret token.
//!
//! External term format: <https://www.erlang.org/doc/apps/erts/erl_ext_dist>.

const VERSION: u8 = 131;
const SMALL_INTEGER: u8 = 97;
const INTEGER: u8 = 98;
const SMALL_TUPLE: u8 = 104;
const BINARY: u8 = 109;
const SMALL_BIG: u8 = 110;

/// `{Identifier :: binary, SignedAtMs :: integer, MaxAge :: integer}` (PROTOCOL §1).
pub fn token_payload(identifier: &str, signed_at_ms: u64, max_age_s: u32) -> Vec<u8> {
    let mut out = vec![VERSION, SMALL_TUPLE, 3];
    put_binary(&mut out, identifier.as_bytes());
    put_unsigned(&mut out, signed_at_ms);
    put_unsigned(&mut out, u64::from(max_age_s));
    out
}

fn put_binary(out: &mut Vec<u8>, bytes: &[u8]) {
    // An identifier is at most 255 bytes; a longer one would only be refused by the hub.
    let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    out.push(BINARY);
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(bytes);
}

fn put_unsigned(out: &mut Vec<u8>, value: u64) {
    if let Ok(small) = u8::try_from(value) {
        out.extend_from_slice(&[SMALL_INTEGER, small]);
    } else if let Ok(integer) = i32::try_from(value) {
        out.push(INTEGER);
        out.extend_from_slice(&integer.to_be_bytes());
    } else {
        let bytes = value.to_le_bytes();
        let length = 8 - (value.leading_zeros() / 8) as usize;
        out.extend_from_slice(&[SMALL_BIG, length as u8, 0]);
        out.extend_from_slice(&bytes[..length]);
    }
}

#[cfg(test)]
mod tests {
    use super::put_unsigned;

    #[test]
    fn integers_take_the_smallest_form_erlang_would_choose() {
        for (value, expected) in [
            (0, vec![97, 0]),
            (255, vec![97, 255]),
            (256, vec![98, 0, 0, 1, 0]),
            (0x7fff_ffff, vec![98, 0x7f, 0xff, 0xff, 0xff]),
            (0x8000_0000, vec![110, 4, 0, 0, 0, 0, 0x80]),
            (1 << 40, vec![110, 6, 0, 0, 0, 0, 0, 0, 1]),
        ] {
            let mut out = Vec::new();
            put_unsigned(&mut out, value);
            assert_eq!(out, expected, "{value}");
        }
    }
}
