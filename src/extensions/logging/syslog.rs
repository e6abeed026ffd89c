//! Lines of syslog files and of programs to what is in them. Pure.
//!
//! Their times are not used: they have no year, no zone and no fractions, and a line that
//! is followed has just been written.

use std::borrow::Cow;

use super::line::{Line, Meta, text};
use crate::config::extensions::Severity;

/// `Mon dd hh:mm:ss host tag[pid]: text`, also with a priority, with the time of RFC 5424
/// or `facility.level` (BusyBox). What is something else is taken as it is.
pub fn line(bytes: &[u8]) -> Option<Line> {
    let said = text(bytes);
    let (mut level, rest) = priority(&said);
    let Some(rest) = without_time(rest) else {
        return Line::new(level.unwrap_or_default(), rest, source("syslog"));
    };
    let (_host, mut rest) = rest.split_once(' ').unwrap_or(("", rest));
    if let Some((word, behind)) = rest.split_once(' ')
        && let Some(named) = busybox_level(word)
    {
        (level, rest) = (Some(named), behind);
    }
    let mut meta = source("syslog");
    if let Some((tag, pid, message)) = tag(rest) {
        meta.push(("application".into(), tag.to_owned().into()));
        if let Some(pid) = pid {
            meta.push(("pid".into(), pid.to_owned().into()));
        }
        if is_ours(tag, pid) {
            return None;
        }
        rest = message;
    }
    Line::new(level.unwrap_or_default(), rest, meta)
}

/// What a program prints: `<3>text` has a priority, as services of systemd write it.
pub fn plain(bytes: &[u8]) -> Option<Line> {
    let said = text(bytes);
    let (level, rest) = priority(&said);
    Line::new(level.unwrap_or_default(), rest, source("command"))
}

/// The agent's own lines come by the source of that name, or not at all: what it says of
/// sending would be sent.
pub fn is_ours(tag: &str, pid: Option<&str>) -> bool {
    tag == "nerveshub-agent" && pid.is_none_or(|pid| pid.parse::<u32>() == Ok(std::process::id()))
}

pub fn source(name: &'static str) -> Meta {
    vec![(Cow::Borrowed("source"), Cow::Borrowed(name))]
}

/// `<PRI>` before anything else.
fn priority(said: &str) -> (Option<Severity>, &str) {
    let found = said.strip_prefix('<').and_then(|rest| {
        let (number, rest) = rest.split_once('>')?;
        let number = number.parse().ok().filter(|number: &u32| *number < 192)?;
        Some((Severity::of_priority(number), rest))
    });
    match found {
        Some((level, rest)) => (Some(level), rest),
        None => (None, said),
    }
}

fn without_time(said: &str) -> Option<&str> {
    let shape = |text: &str, shape: &str| {
        text.len() >= shape.len()
            && text.bytes().zip(shape.bytes()).all(|(byte, kind)| {
                match kind {
                    b'0' => byte.is_ascii_digit(),
                    // The days below ten.
                    b'_' => byte.is_ascii_digit() || byte == b' ',
                    b'a' => byte.is_ascii_alphabetic(),
                    other => byte == other,
                }
            })
    };
    const OLD: &str = "aaa _0 00:00:00 ";
    if shape(said, OLD) {
        // All that is skipped is ASCII.
        return said.get(OLD.len()..);
    }
    match shape(said, "0000-00-00T00:00:00") {
        true => said.split_once(' ').map(|(_, rest)| rest),
        false => None,
    }
}

fn busybox_level(word: &str) -> Option<Severity> {
    let (facility, level) = word.split_once('.')?;
    let is_word = |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric());
    is_word(facility).then(|| Severity::parse(level))?
}

/// Of `tag[pid]: text` and `tag: text`.
fn tag(rest: &str) -> Option<(&str, Option<&str>, &str)> {
    let (head, message) = rest.split_once(": ").or_else(|| {
        // An empty message.
        Some((rest.strip_suffix(':')?, ""))
    })?;
    if head.is_empty() || head.contains(char::is_whitespace) {
        return None;
    }
    match head
        .strip_suffix(']')
        .and_then(|head| head.rsplit_once('['))
    {
        Some((tag, pid)) => Some((tag, Some(pid), message)),
        None => Some((head, None, message)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(line: Option<Line>) -> (&'static str, String, String) {
        let line = line.expect("a line");
        let meta: Vec<_> = line.meta.iter().map(|(k, v)| format!("{k}={v}")).collect();
        (line.level.name(), line.message.into(), meta.join(" "))
    }

    #[test]
    fn files_of_several_daemons() {
        for (said, level, message, meta) in [
            (
                "Jan  2 03:04:05 box sshd[812]: Accepted key: x",
                "info",
                "Accepted key: x",
                " application=sshd pid=812",
            ),
            (
                "<11>Dec 12 03:04:05 box app: bad",
                "error",
                "bad",
                " application=app",
            ),
            (
                "Jan  2 03:04:05 box daemon.warn ntpd[7]: late",
                "warning",
                "late",
                " application=ntpd pid=7",
            ),
            (
                "2026-08-22T20:33:49.123456+00:00 box kernel: [    1.2] up",
                "info",
                "[    1.2] up",
                " application=kernel",
            ),
            ("Jan  2 03:04:05 box -- MARK --", "info", "-- MARK --", ""),
            (
                "what is this: no syslog",
                "info",
                "what is this: no syslog",
                "",
            ),
            ("<999>x", "info", "<999>x", ""),
            (
                "Jän  2 03:04:05 box x: y",
                "info",
                "Jän  2 03:04:05 box x: y",
                "",
            ),
        ] {
            let expected = (level, message.to_owned(), format!("source=syslog{meta}"));
            assert_eq!(parts(line(said.as_bytes())), expected, "{said}");
        }
        for empty in ["", "Jan  2 03:04:05 box x:", "<3>", "Jan  2 03:04:05 "] {
            assert_eq!(line(empty.as_bytes()), None, "{empty:?}");
        }
    }

    #[test]
    fn the_agents_own_lines_are_left_to_its_own_source() {
        let pid = std::process::id();
        let said = |pid| format!("Jan  2 03:04:05 box nerveshub-agent[{pid}]: pushed a line");
        assert_eq!(line(said(pid).as_bytes()), None);
        assert!(line(said(pid + 1).as_bytes()).is_some(), "another agent's");
    }

    #[test]
    fn programs_may_give_priorities() {
        let expected = (
            "error",
            "no\u{fffd}".to_owned(),
            "source=command".to_owned(),
        );
        assert_eq!(parts(plain(b"<3>no\xff")), expected);
        assert_eq!(parts(plain(b"3>no")).0, "info");
    }
}
