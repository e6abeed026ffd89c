//! Opening an archive up to its `meta.conf`: signature check, identifier, parsing, printing.

use crate::conf::Section;
use crate::failure::{Failure, Result, fail};
use crate::input::Input;
use crate::output::{Kind, Reporter};
use crate::zip::ZipReader;

pub type PublicKey = [u8; 32];

const SIGNATURE: &str = "meta.conf.ed25519";
const MOST_META: usize = 50_000;
/// What every identifier is derived from, together with the bytes of `meta.conf`.
const NAMESPACE: [u8; 16] = [
    0x20, 0x53, 0xdf, 0xfb, 0xd5, 0x1e, 0x43, 0x10, 0xb9, 0x3b, 0x95, 0x6d, 0xa8, 0x9f, 0x9f, 0x34,
];
const SHOWN: &[&str] = &[
    "meta-product",
    "meta-description",
    "meta-version",
    "meta-author",
    "meta-platform",
    "meta-architecture",
    "meta-creation-date",
    "meta-fwup-version",
    "meta-misc",
    "meta-vcs-identifier",
    "meta-uuid",
    "meta-nickname",
];

/// An archive read as far as its `meta.conf`.
pub struct Opened {
    pub zip: ZipReader,
    pub conf: Section,
    pub signed: bool,
}

/// Opens an archive to apply or verify it.
pub fn open(input: Input, label: &str, keys: &[PublicKey]) -> Result<Opened> {
    let mut zip = ZipReader::open(input)?;
    let Some(entry) = zip.next_entry()? else {
        return fail("(null)");
    };
    finish(zip, entry, keys, || {
        format!("Expecting meta.conf to be at the beginning of {label}")
    })
}

/// Opens an archive for what `meta.conf` says; its messages differ a little.
pub fn open_for_metadata(input: Input, label: &str, keys: &[PublicKey]) -> Result<Section> {
    let mut zip = ZipReader::open(input)?;
    let Ok(Some(entry)) = zip.next_entry() else {
        return fail(format!("Corrupt archive '{label}'"));
    };
    let opened = finish(zip, entry, keys, || {
        format!("Expecting meta.conf to be at beginning of {label}")
    })?;
    Ok(opened.conf)
}

fn finish(
    mut zip: ZipReader,
    mut entry: crate::zip::Entry,
    keys: &[PublicKey],
    misplaced: impl Fn() -> String,
) -> Result<Opened> {
    let mut signature = None;
    if entry.name == SIGNATURE {
        let bytes = zip.read_all(&entry, 64);
        if bytes.len() != 64 {
            return fail(format!("Unexpected {SIGNATURE} size: {}", bytes.len()));
        }
        signature = Some(bytes);
        let Ok(Some(next)) = zip.next_entry() else {
            return fail(format!("Expecting more than {SIGNATURE} in archive"));
        };
        entry = next;
    }
    if entry.name != "meta.conf" {
        return fail(misplaced());
    }
    let text = zip.read_all(&entry, MOST_META);
    if text.len() < 10 || text.len() >= MOST_META {
        return fail(format!("Unexpected meta.conf size: {}", text.len()));
    }
    if !keys.is_empty() {
        check_signature(&text, signature.as_deref(), keys)?;
    }
    let conf = parse(&text, entry.mtime)?;
    Ok(Opened {
        zip,
        conf,
        signed: signature.is_some(),
    })
}

fn check_signature(text: &[u8], signature: Option<&[u8]>, keys: &[PublicKey]) -> Result<()> {
    let Some(signature) = signature else {
        return fail("Expecting signed firmware archive.");
    };
    let good = ed25519_compact::Signature::from_slice(signature).is_ok_and(|signature| {
        keys.iter().any(|key| {
            ed25519_compact::PublicKey::new(*key)
                .verify(text, &signature)
                .is_ok()
        })
    });
    if !good {
        return fail("Firmware archive's meta.conf fails digital signature verification.");
    }
    Ok(())
}

fn parse(text: &[u8], mtime: i64) -> Result<Section> {
    let (uuid, nickname) = identity(text);
    let date = timestamp(mtime);
    let defaults = [
        ("meta-creation-date", date.as_str()),
        ("meta-uuid", &uuid),
        ("meta-nickname", &nickname),
    ];
    let lookup = |name: &str| match name {
        "FWUP_META_UUID" => Some(uuid.clone()),
        "FWUP_META_NICKNAME" => Some(nickname.clone()),
        _ => std::env::var(name).ok(),
    };
    let conf = Section::parse(text, &defaults, &lookup).map_err(|failure| {
        eprintln!("{failure}");
        Failure("Unexpected error parsing meta.conf".to_string())
    })?;
    if conf.get("meta-uuid") != Some(&uuid) || conf.get("meta-nickname") != Some(&nickname) {
        return fail(
            "meta.conf isn't allowed to change 'meta-uuid', 'meta-nickname', \
             '$FWUP_META_UUID' or '$FWUP_META_NICKNAME'",
        );
    }
    Ok(conf)
}

/// The identifier and nickname fwup gives to an archive with this `meta.conf`.
pub fn identity(meta_conf: &[u8]) -> (String, String) {
    let mut state = blake2b_simd::Params::new().hash_length(32).to_state();
    state.update(&NAMESPACE).update(meta_conf);
    let hash = state.finalize();
    let mut id: Vec<u8> = hash.as_bytes()[..16].to_vec();
    id[6] = (id[6] & 0x0f) | 0x50;
    let hex: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
    let uuid = [
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..],
    ]
    .join("-");
    (uuid, nickname(id[0], id[1]))
}

/// Two words in the real fwup, from a list of its own; here the two bytes they stand for.
fn nickname(first: u8, second: u8) -> String {
    format!("{first:02x}-{second:02x}")
}

/// `2026-11-20T20:40:38Z` for seconds since 1970.
pub fn timestamp(seconds: i64) -> String {
    let (days, of_day) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    // Gregorian calendar, with years that begin in March.
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let of_era = shifted.rem_euclid(146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = era * 400 + year + i64::from(month <= 2);
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z",
        of_day / 3600,
        of_day / 60 % 60,
        of_day % 60
    )
}

/// A value as `meta.conf` spells it: quoted unless it is plain.
pub fn quoted(value: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'.';
    if !value.is_empty() && value.bytes().all(plain) {
        return value.to_string();
    }
    format!("\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\""))
}

/// `-m`: all metadata, or the value of one key.
pub fn print_metadata(conf: &Section, key: Option<&str>, reporter: &Reporter) {
    let text = match key {
        Some(key) => format!("{}\n", conf.get(key).unwrap_or("(null)")),
        None => SHOWN
            .iter()
            .filter_map(|name| conf.get(name).map(|value| (name, value)))
            .filter(|(_, value)| !value.is_empty())
            .map(|(name, value)| format!("{name}={}\n", quoted(value)))
            .collect(),
    };
    reporter.output(Kind::Success, 0, &text);
}

/// `-l`: the task names in order.
pub fn print_tasks(conf: &Section, reporter: &Reporter) {
    let mut tasks: Vec<&str> = conf.named("task").map(|task| task.title.as_str()).collect();
    tasks.sort_unstable();
    let text: String = tasks.iter().map(|task| format!("{task}\n")).collect();
    reporter.output(Kind::Success, 0, &text);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_are_utc() {
        assert_eq!(timestamp(0), "1970-01-01T00:00:00Z");
        assert_eq!(timestamp(951_827_696), "2000-02-29T12:34:56Z");
        assert_eq!(
            timestamp(0x6b00_b046 - 0x6b00_b046 % 60),
            "2026-11-20T20:40:00Z"
        );
    }

    #[test]
    fn only_plain_values_go_unquoted() {
        assert_eq!(quoted("x86_64"), "x86_64");
        assert_eq!(quoted("demo-board"), "\"demo-board\"");
        assert_eq!(quoted("a\"b\\"), "\"a\\\"b\\\\\"");
        assert_eq!(quoted(""), "\"\"");
    }
}
