//! Text to values: durations, sizes, booleans, numbers, lists, keys, identifiers.
//!
//! Owns the syntax every setting shares. Pure: knows neither variables nor files.
//! Nonsense is a [`Problem`], never a default.

use std::path::PathBuf;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::Installer;
use super::error::Problem;

/// `30` (seconds), `500ms`, `30s`, `5m`, `24h`, `2d`: whole numbers.
pub fn duration(text: &str) -> Result<Duration, Problem> {
    let (number, unit) = split_number(text);
    let scale = match unit {
        "ms" => Some(1),
        "" | "s" => Some(1_000),
        "m" => Some(60_000),
        "h" => Some(3_600_000),
        "d" => Some(86_400_000),
        _ => None,
    };
    number
        .parse::<u64>()
        .ok()
        .zip(scale)
        .and_then(|(number, scale)| number.checked_mul(scale))
        .map(Duration::from_millis)
        .ok_or_else(|| {
            Problem::new(
                "is not a duration",
                "write a whole number with ms, s, m, h or d, such as 30s",
            )
        })
}

/// A duration within `min ..= max`.
pub fn duration_in(text: &str, min: Duration, max: Duration) -> Result<Duration, Problem> {
    let value = duration(text)?;
    if value < min || value > max {
        return Err(Problem::new(
            "is out of range",
            format!("use {} to {}", show_duration(min), show_duration(max)),
        ));
    }
    Ok(value)
}

/// The shortest way to write a duration that [`duration`] reads back.
pub fn show_duration(value: Duration) -> String {
    let ms = u64::try_from(value.as_millis()).unwrap_or(u64::MAX);
    for (scale, unit) in [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m")] {
        if ms >= scale && ms.is_multiple_of(scale) {
            return format!("{}{unit}", ms / scale);
        }
    }
    if ms.is_multiple_of(1_000) {
        format!("{}s", ms / 1_000)
    } else {
        format!("{ms}ms")
    }
}

/// Bytes: `4096`, `64K`, `10M`, `2G` (powers of 1024; `KiB` and `KB` mean the same).
pub fn size(text: &str) -> Result<u64, Problem> {
    let (number, unit) = split_number(text);
    let unit = unit.to_ascii_uppercase();
    let shift = match unit.trim_end_matches("IB").trim_end_matches('B') {
        "" => Some(0),
        "K" => Some(10),
        "M" => Some(20),
        "G" => Some(30),
        _ => None,
    };
    number
        .parse::<u64>()
        .ok()
        .zip(shift)
        .and_then(|(number, shift)| number.checked_mul(1 << shift))
        .ok_or_else(|| {
            Problem::new(
                "is not a size",
                "write a whole number of bytes, or with K, M or G, such as 64M",
            )
        })
}

/// A size within `min ..= max`.
pub fn size_in(text: &str, min: u64, max: u64) -> Result<u64, Problem> {
    size(text).and_then(|value| match (min..=max).contains(&value) {
        true => Ok(value),
        false => Err(Problem::new(
            "is out of range",
            format!("use {min} to {max} bytes"),
        )),
    })
}

fn split_number(text: &str) -> (&str, &str) {
    let end = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    text.split_at(end)
}

/// `1/0`, `true/false`, `yes/no`, `on/off`, in any case.
pub fn boolean(text: &str) -> Result<bool, Problem> {
    match text.to_ascii_lowercase().as_str() {
        "1" | "true" | "yes" | "on" => Ok(true),
        "0" | "false" | "no" | "off" => Ok(false),
        _ => Err(Problem::new(
            "is not a boolean",
            "use 1/0, true/false, yes/no or on/off",
        )),
    }
}

/// A whole number within `min ..= max`.
pub fn integer(text: &str, min: u64, max: u64) -> Result<u64, Problem> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let fix = || format!("use a whole number from {min} to {max}");
    if !digits {
        return Err(Problem::new("is not a whole number", fix()));
    }
    text.parse()
        .ok()
        .filter(|value| (min..=max).contains(value))
        .ok_or_else(|| Problem::new("is out of range", fix()))
}

/// Words between commas, spaces or line ends.
pub fn list(text: &str) -> Vec<String> {
    text.split(|c: char| c == ',' || c.is_whitespace())
        .filter(|word| !word.is_empty())
        .map(str::to_owned)
        .collect()
}

/// A key or secret that travels in an HTTP header: visible ASCII without spaces.
pub fn header_text(text: &str) -> Result<String, Problem> {
    if text.bytes().all(|b| b.is_ascii_graphic()) {
        return Ok(text.to_owned());
    }
    Err(Problem::new(
        "has a space or an unprintable character in it",
        "copy the one line the hub shows",
    ))
}

/// Longest identifier the hub takes, in bytes.
pub const MAX_IDENTIFIER: usize = 255;

/// A device identifier: 1 to 255 bytes, no control characters.
pub fn identifier(text: &str) -> Result<String, Problem> {
    let what = if text.is_empty() {
        "is empty"
    } else if text.len() > MAX_IDENTIFIER {
        "is longer than 255 bytes"
    } else if text.chars().any(char::is_control) {
        "has a control character in it"
    } else {
        return Ok(text.to_owned());
    };
    Err(Problem::new(
        what,
        "use 1 to 255 bytes of plain text on one line",
    ))
}

/// Base64 of an Ed25519 public key, as `fwup -g` writes it.
pub fn public_key(text: &str) -> Result<String, Problem> {
    let what = match STANDARD.decode(text) {
        Ok(bytes) if bytes.len() == 32 => return Ok(text.to_owned()),
        Ok(bytes) if bytes.len() == 64 => {
            "is base64 of 64 bytes, the size of a private key".to_owned()
        }
        Ok(bytes) => format!("is base64 of {} bytes, not of 32", bytes.len()),
        Err(_) => "is not base64 of 32 bytes".to_owned(),
    };
    Err(Problem::new(
        what,
        "use the text in the .pub file that fwup -g wrote",
    ))
}

/// `KEY=VALUE`, split.
pub fn pair(text: &str) -> Result<(String, String), Problem> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(Problem::new(
            "is not KEY=VALUE",
            "write KEY=VALUE words between commas or spaces",
        )),
    }
}

/// Permission bits in octal.
pub fn mode(text: &str) -> Result<u32, Problem> {
    match u32::from_str_radix(text, 8) {
        Ok(mode) if mode <= 0o777 && !text.starts_with('+') => Ok(mode),
        _ => Err(Problem::new(
            "is not a mode",
            "write permissions in octal, such as 0660",
        )),
    }
}

/// `fwup` or `command:PATH`.
pub fn installer(text: &str) -> Result<Installer, Problem> {
    match text.split_once(':') {
        None if text == "fwup" => Ok(Installer::Fwup),
        Some(("command", path)) if !path.trim().is_empty() => {
            Ok(Installer::Command(PathBuf::from(path.trim())))
        }
        _ => Err(Problem::new(
            "is not an installer",
            "use fwup, or command:PATH with the path of a program",
        )),
    }
}

/// An env_logger filter: a level, or `TARGET=LEVEL` directives between commas.
///
/// A bare word that is no level is refused: env_logger would take a misspelt level for a
/// module's name and log everything of nothing.
pub fn log_filter(text: &str) -> Result<String, Problem> {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    for directive in text.split(',').map(str::trim).filter(|d| !d.is_empty()) {
        let level = directive.rsplit_once('=').map_or(directive, |(_, l)| l);
        if !LEVELS.contains(&level.to_ascii_lowercase().as_str()) {
            return Err(Problem::new(
                format!("has no log level in {directive:?}"),
                "use off, error, warn, info, debug or trace, or TARGET=LEVEL",
            ));
        }
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, ms) in [
            ("30", 30_000),
            ("30s", 30_000),
            ("500ms", 500),
            ("5m", 300_000),
            ("24h", 86_400_000),
            ("2d", 172_800_000),
            ("0", 0),
        ] {
            assert_eq!(duration(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for text in [
            "",
            "s",
            "-1",
            "+1",
            "1.5s",
            "30 s",
            "1h30m",
            "5min",
            "99999999999999999999",
            "999999999999999999d",
        ] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn shown_durations_read_back() {
        for ms in [
            0, 1, 500, 1_000, 1_500, 60_000, 90_000, 3_600_000, 86_400_000,
        ] {
            let value = Duration::from_millis(ms);
            assert_eq!(duration(&show_duration(value)), Ok(value));
        }
    }

    #[test]
    fn sizes() {
        for (text, bytes) in [
            ("4096", 4096),
            ("64K", 65_536),
            ("10M", 10 << 20),
            ("2g", 2 << 30),
            ("1KiB", 1024),
            ("1MB", 1 << 20),
        ] {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for text in ["", "K", "1T", "-1", "1.5M", "99999999999G", "4 K"] {
            assert!(size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn booleans_integers_lists() {
        assert_eq!(boolean("YES"), Ok(true));
        assert_eq!(boolean("off"), Ok(false));
        assert!(boolean("2").is_err());
        assert_eq!(integer("7", 1, 10), Ok(7));
        assert!(integer("+7", 1, 10).is_err());
        assert!(integer("11", 1, 10).is_err());
        assert_eq!(list("a, b\nc,,d "), ["a", "b", "c", "d"]);
    }

    #[test]
    fn log_filters() {
        for good in ["info", "warn,nerveshub_agent=debug", "DEBUG", "rustls=off"] {
            assert!(log_filter(good).is_ok(), "{good}");
        }
        for bad in ["inof", "nerveshub_agent=loud", "info,debgu"] {
            assert!(log_filter(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn installers() {
        assert_eq!(installer("fwup"), Ok(Installer::Fwup));
        let command = installer("command:/usr/lib/rauc.sh");
        assert_eq!(command, Ok(Installer::Command("/usr/lib/rauc.sh".into())));
        assert_eq!(command.map(|it| it.tool()), Ok("rauc".to_owned()));
        for bad in ["", "rauc", "command", "command: ", "fwup:/bin/fwup", "/x"] {
            assert!(installer(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn modes() {
        assert_eq!(mode("0660"), Ok(0o660));
        assert_eq!(mode("600"), Ok(0o600));
        for bad in ["", "rw", "0o660", "1777", "-1", "+7", "8"] {
            assert!(mode(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn public_keys() {
        let key = STANDARD.encode([7u8; 32]);
        assert_eq!(public_key(&key), Ok(key));
        assert!(public_key(&STANDARD.encode([7u8; 64])).is_err());
        assert!(public_key("nope").is_err());
    }
}
