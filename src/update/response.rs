//! What an HTTP answer means for a download that has some bytes already. Pure.
//!
//! Range arithmetic lives here only: every request asks from the first byte not yet held,
//! and every answer is judged against the whole file, never against an earlier request.

/// What is known of the file being downloaded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// Whole file, from the offer or the first answer.
    pub size: Option<u64>,
    /// From the offer: what a fresh start begins with.
    pub offered_size: Option<u64>,
    /// Strong entity tag of the first answer.
    pub etag: Option<String>,
    pub last_modified: Option<String>,
}

impl Known {
    /// What an offer tells.
    pub fn offered(size: Option<u64>) -> Self {
        Self {
            size,
            offered_size: size,
            ..Self::default()
        }
    }

    /// For `If-Range`: the strong tag, else the date (RFC 9110 §13.1.5).
    pub fn if_range(&self) -> Option<&str> {
        self.etag.as_deref().or(self.last_modified.as_deref())
    }
}

/// The parts of an answer's head that matter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Head {
    pub status: u16,
    pub content_length: Option<u64>,
    pub content_range: Option<String>,
    pub etag: Option<String>,
    pub last_modified: Option<String>,
    /// Seconds.
    pub retry_after: Option<u64>,
}

/// What to do with an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The body continues where we are.
    Append,
    /// The body is the whole file: its first bytes are those held already, if unchanged.
    Whole,
    /// The body is the whole of another file: forget what is held and take it.
    Anew(String),
    /// The file is another one now: forget all and ask anew.
    StartOver(String),
    /// Ranges do not work here: ask for the whole file, whose beginning is held already.
    WithoutRange(String),
    /// Ask the same again later.
    Retry {
        reason: String,
        after: Option<u64>,
    },
    /// This URL is not, or no longer, good: only another one helps.
    Refused(String),
    Fatal(String),
}

/// What was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked {
    /// The first byte not yet held.
    pub offset: u64,
    /// The request had a `Range`.
    pub ranged: bool,
}

/// Judges an answer.
pub fn judge(asked: Asked, known: &Known, head: &Head) -> Verdict {
    match head.status {
        200 => judge_whole(asked.offset, known, head),
        206 => judge_part(asked.offset, known, head),
        404 | 416 if asked.ranged => {
            Verdict::WithoutRange(format!("HTTP {} to a range request", head.status))
        }
        401 | 403 | 404 | 410 => Verdict::Refused(format!("HTTP {}", head.status)),
        408 | 425 | 429 | 500..=599 => Verdict::Retry {
            reason: format!("HTTP {}", head.status),
            after: head.retry_after,
        },
        status => Verdict::Fatal(format!("HTTP {status}")),
    }
}

fn judge_whole(offset: u64, known: &Known, head: &Head) -> Verdict {
    match (known.size, head.content_length) {
        (Some(size), Some(length)) if size != length && offset == 0 => Verdict::Retry {
            reason: format!("the server has {length} bytes, the offer says {size}"),
            after: None,
        },
        (Some(size), Some(length)) if size != length => {
            Verdict::StartOver(format!("the file changed from {size} to {length} bytes"))
        }
        (None, Some(length)) if length < offset => {
            Verdict::StartOver(format!("the file shrank to {length} bytes"))
        }
        _ if offset > 0 && changed(known, head) => Verdict::Anew("the file changed".to_owned()),
        _ => Verdict::Whole,
    }
}

fn judge_part(offset: u64, known: &Known, head: &Head) -> Verdict {
    let Some((first, total)) = head.content_range.as_deref().and_then(parse_content_range) else {
        return Verdict::WithoutRange("HTTP 206 without a usable Content-Range".to_owned());
    };
    if first != offset {
        return Verdict::WithoutRange(format!(
            "asked for bytes from {offset}, got them from {first}"
        ));
    }
    match (known.size, total) {
        (Some(size), Some(total)) if size != total => {
            Verdict::StartOver(format!("the file changed from {size} to {total} bytes"))
        }
        _ if changed(known, head) => Verdict::StartOver("the file changed".to_owned()),
        _ => Verdict::Append,
    }
}

/// A server may ignore `If-Range` and answer 206 all the same. The date counts where one of
/// the answers had no tag.
fn changed(known: &Known, head: &Head) -> bool {
    match (&known.etag, &head.etag) {
        (Some(old), Some(new)) => old != new,
        _ => match (&known.last_modified, &head.last_modified) {
            (Some(old), Some(new)) => old != new,
            _ => false,
        },
    }
}

/// First byte and whole size of `bytes FIRST-LAST/SIZE`; `*` leaves the size open.
pub fn parse_content_range(text: &str) -> Option<(u64, Option<u64>)> {
    let (range, size) = text.trim().strip_prefix("bytes")?.trim().split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let (first, last): (u64, u64) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
    let size: Option<u64> = match size.trim() {
        "*" => None,
        size => Some(size.parse().ok()?),
    };
    let sane = first <= last && size.is_none_or(|size| last < size);
    sane.then_some((first, size))
}

/// The whole file's size, as a `Content-Range` tells it.
pub fn size_in_range(text: &str) -> Option<u64> {
    parse_content_range(text)?.1
}

/// The tag if it is a strong one: weak tags cannot guard a range.
pub fn strong_etag(text: &str) -> Option<String> {
    (text.starts_with('"') && text.ends_with('"') && text.len() >= 2).then(|| text.to_owned())
}

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests {
    use super::*;

    fn head(status: u16, length: Option<u64>, range: Option<&str>, etag: Option<&str>) -> Head {
        Head {
            status,
            content_length: length,
            content_range: range.map(str::to_owned),
            etag: etag.map(str::to_owned),
            ..Head::default()
        }
    }

    fn kind(verdict: &Verdict) -> &'static str {
        match verdict {
            Verdict::Append => "append",
            Verdict::Whole => "whole",
            Verdict::Anew(_) => "anew",
            Verdict::StartOver(_) => "start over",
            Verdict::WithoutRange(_) => "without range",
            Verdict::Refused(_) => "refused",
            Verdict::Retry { .. } => "retry",
            Verdict::Fatal(_) => "fatal",
        }
    }

    #[test]
    fn every_answer_has_one_meaning() {
        let known = Known {
            size: Some(100),
            etag: Some("\"a\"".into()),
            ..Known::default()
        };
        for (offset, answer, expected) in [
            (0, head(200, Some(100), None, Some("\"a\"")), "whole"),
            (0, head(200, None, None, None), "whole"),
            (0, head(200, Some(99), None, None), "retry"),
            (40, head(200, Some(100), None, Some("\"a\"")), "whole"),
            (40, head(200, Some(100), None, Some("\"b\"")), "anew"),
            (40, head(200, Some(101), None, None), "start over"),
            (
                40,
                head(206, Some(60), Some("bytes 40-99/100"), Some("\"a\"")),
                "append",
            ),
            (
                40,
                head(206, Some(60), Some("bytes 40-99/*"), None),
                "append",
            ),
            (
                40,
                head(206, Some(60), Some("bytes 40-99/100"), Some("\"b\"")),
                "start over",
            ),
            (
                40,
                head(206, Some(60), Some("bytes 41-99/100"), None),
                "without range",
            ),
            (
                40,
                head(206, Some(60), Some("bytes 40-99/200"), None),
                "start over",
            ),
            (
                40,
                head(206, Some(60), Some("items 40-99/100"), None),
                "without range",
            ),
            (40, head(206, Some(60), None, None), "without range"),
            (
                0,
                head(206, Some(100), Some("bytes 0-99/100"), None),
                "append",
            ),
            (40, head(404, None, None, None), "without range"),
            (40, head(416, None, None, None), "without range"),
            (40, head(403, None, None, None), "refused"),
            (0, head(401, None, None, None), "refused"),
            (0, head(404, None, None, None), "refused"),
            (0, head(410, None, None, None), "refused"),
            (0, head(416, None, None, None), "fatal"),
            (0, head(503, None, None, None), "retry"),
            (40, head(500, None, None, None), "retry"),
            (0, head(429, None, None, None), "retry"),
            (0, head(204, None, None, None), "fatal"),
        ] {
            let ranged = offset > 0;
            let verdict = judge(Asked { offset, ranged }, &known, &answer);
            assert_eq!(kind(&verdict), expected, "{offset} {answer:?}");
        }
    }

    #[test]
    fn a_whole_file_shorter_than_what_is_held_is_another_one() {
        let answer = head(200, Some(39), None, None);
        let asked = Asked {
            offset: 40,
            ranged: true,
        };
        let verdict = judge(asked, &Known::default(), &answer);
        assert_eq!(kind(&verdict), "start over");
    }

    #[test]
    fn content_ranges() {
        for (text, expected) in [
            ("bytes 0-0/1", Some((0, Some(1)))),
            ("bytes 5-9/*", Some((5, None))),
            ("bytes  5-9/10", Some((5, Some(10)))),
            ("bytes 9-5/10", None),
            ("bytes 5-10/10", None),
            ("bytes */10", None),
            ("bytes -1-5/10", None),
            ("bytes 0-99999999999999999999/1", None),
            ("", None),
        ] {
            assert_eq!(parse_content_range(text), expected, "{text}");
        }
    }

    #[test]
    fn only_strong_tags_guard_a_range() {
        assert_eq!(strong_etag("\"x\""), Some("\"x\"".to_owned()));
        assert_eq!(strong_etag("W/\"x\""), None);
        assert_eq!(strong_etag("\""), None);
        let dated = Known {
            last_modified: Some("d".into()),
            ..Known::default()
        };
        assert_eq!(dated.if_range(), Some("d"));
    }
}
