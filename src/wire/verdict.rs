//! What an integrator is asked, and what it may answer: one line of text, the same from a
//! hook's output and over the control socket. Pure.

use std::time::Duration;

use serde_json::Value;

use super::fields::cut;
use super::json::json;
use crate::config::values;
use crate::wire::{Archive, Offer};

/// Longer reasons are cut: the hub shows them in one line.
const MAX_REASON: usize = 200;
/// Nothing is put off for longer.
const MAX_DELAY: Duration = Duration::from_secs(366 * 24 * 3600);

/// The kinds of questions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    UpdateAvailable,
    RebootRequest,
    ArchiveAvailable,
}

/// A question with what is needed to answer it.
#[derive(Clone, Debug, PartialEq)]
pub enum Question {
    UpdateAvailable(Box<Offer>),
    /// Why: `update`, `hub` or `trial`.
    RebootRequest(&'static str),
    ArchiveAvailable(Box<Archive>),
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// `apply`, `reboot`, `download`.
    Go,
    /// `ignore`.
    Ignore { reason: Option<String> },
    /// `reschedule`, `defer`.
    Later {
        after: Duration,
        reason: Option<String>,
    },
}

impl Asked {
    /// Its name on the socket, which is also its hook's.
    pub fn name(self) -> &'static str {
        match self {
            Self::UpdateAvailable => "update-available",
            Self::RebootRequest => "reboot-request",
            Self::ArchiveAvailable => "archive-available",
        }
    }

    fn words(self) -> [&'static str; 3] {
        match self {
            Self::UpdateAvailable => ["apply", "ignore", "reschedule"],
            // Nobody can refuse a reboot for good.
            Self::RebootRequest => ["reboot", "", "defer"],
            Self::ArchiveAvailable => ["download", "ignore", "reschedule"],
        }
    }

    fn syntax(self) -> &'static str {
        match self {
            Self::UpdateAvailable => "apply, ignore [REASON] or reschedule SECONDS [REASON]",
            Self::RebootRequest => "reboot or defer SECONDS [REASON]",
            Self::ArchiveAvailable => "download, ignore [REASON] or reschedule SECONDS [REASON]",
        }
    }
}

impl Question {
    pub fn asked(&self) -> Asked {
        match self {
            Self::UpdateAvailable(_) => Asked::UpdateAvailable,
            Self::RebootRequest(_) => Asked::RebootRequest,
            Self::ArchiveAvailable(_) => Asked::ArchiveAvailable,
        }
    }

    /// What it is about, without any URL: that is a credential.
    pub fn subject(&self) -> Value {
        match self {
            Self::UpdateAvailable(offer) => describe_offer(offer),
            Self::RebootRequest(why) => json!({ "why": why }),
            Self::ArchiveAvailable(archive) => describe_archive(archive),
        }
    }
}

pub fn describe_offer(offer: &Offer) -> Value {
    json!({
        "uuid": offer.uuid,
        "product": offer.product,
        "version": offer.version,
        "size": offer.size,
    })
}

pub fn describe_archive(archive: &Archive) -> Value {
    json!({
        "uuid": archive.uuid,
        "version": archive.version,
        "size": archive.size,
        "description": archive.description,
        "platform": archive.platform,
        "architecture": archive.architecture,
    })
}

impl Verdict {
    /// Reads an answer to that question; only its first line counts.
    ///
    /// # Errors
    /// Text that shows what was said and what may be.
    pub fn parse(asked: Asked, text: &str) -> Result<Self, String> {
        let line = text.trim_start().lines().next().unwrap_or_default().trim();
        let (word, rest) = split_word(line);
        let [go, ignore, later] = asked.words();
        if word == go && rest.is_empty() {
            return Ok(Self::Go);
        }
        if word == ignore && !word.is_empty() {
            let reason = reason(rest);
            return Ok(Self::Ignore { reason });
        }
        if word == later {
            let (delay, rest) = split_word(rest);
            if let Ok(after) = values::duration_in(delay, Duration::ZERO, MAX_DELAY) {
                let reason = reason(rest);
                return Ok(Self::Later { after, reason });
            }
        }
        let shown = cut(line, 40);
        Err(format!(
            "{shown:?} is no answer to {}: use {}",
            asked.name(),
            asked.syntax()
        ))
    }

    /// As it would be given.
    pub fn word(&self, asked: Asked) -> &'static str {
        let [go, ignore, later] = asked.words();
        match self {
            Self::Go => go,
            Self::Ignore { .. } => ignore,
            Self::Later { .. } => later,
        }
    }
}

fn split_word(text: &str) -> (&str, &str) {
    let (word, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
    (word, rest.trim())
}

fn reason(text: &str) -> Option<String> {
    let text = cut(text, MAX_REASON).chars();
    let text: String = text.filter(|c| !c.is_control()).collect();
    (!text.is_empty()).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_words_with_delays_and_reasons() {
        use Asked::{ArchiveAvailable, RebootRequest, UpdateAvailable};
        let later = |seconds, reason: Option<&str>| Verdict::Later {
            after: Duration::from_secs(seconds),
            reason: reason.map(str::to_owned),
        };
        let ignore = |reason: Option<&str>| Verdict::Ignore {
            reason: reason.map(str::to_owned),
        };
        for (asked, text, expected) in [
            (UpdateAvailable, "apply\n", Verdict::Go),
            (
                UpdateAvailable,
                "\n  ignore  not  today \nx",
                ignore(Some("not  today")),
            ),
            (UpdateAvailable, "ignore", ignore(None)),
            (
                UpdateAvailable,
                "ignore \x1b[2Jnot\x07 now",
                ignore(Some("[2Jnot now")),
            ),
            (
                UpdateAvailable,
                "reschedule 600 battery low",
                later(600, Some("battery low")),
            ),
            (UpdateAvailable, "reschedule 10m", later(600, None)),
            (RebootRequest, "reboot", Verdict::Go),
            (RebootRequest, "defer 5\tbusy", later(5, Some("busy"))),
            (ArchiveAvailable, "download", Verdict::Go),
            (ArchiveAvailable, "reschedule 0", later(0, None)),
        ] {
            assert_eq!(
                Verdict::parse(asked, text),
                Ok(expected.clone()),
                "{text:?}"
            );
            assert!(text.contains(expected.word(asked)), "{text:?}");
        }
    }

    #[test]
    fn anything_else_is_refused_in_words() {
        for (asked, text) in [
            (Asked::UpdateAvailable, ""),
            (Asked::UpdateAvailable, "apply now"),
            (Asked::UpdateAvailable, "Apply"),
            (Asked::UpdateAvailable, "reboot"),
            (Asked::UpdateAvailable, "reschedule"),
            (Asked::UpdateAvailable, "reschedule soon"),
            (Asked::UpdateAvailable, "reschedule 400d"),
            (Asked::RebootRequest, "ignore"),
            (Asked::RebootRequest, ""),
            (Asked::ArchiveAvailable, "apply"),
        ] {
            let error = Verdict::parse(asked, text).expect_err(text);
            assert!(error.contains(asked.syntax()), "{error}");
        }
    }

    #[test]
    fn long_answers_are_cut_between_characters() {
        let long = format!("ignore {}", "\u{e9}".repeat(500));
        let verdict = Verdict::parse(Asked::UpdateAvailable, &long).expect("a verdict");
        let reason = "\u{e9}".repeat(MAX_REASON / 2);
        assert_eq!(
            verdict,
            Verdict::Ignore {
                reason: Some(reason)
            }
        );
        let nonsense = "\u{e9}".repeat(50_000);
        let error = Verdict::parse(Asked::RebootRequest, &nonsense).expect_err("nonsense");
        assert!(error.len() < 200, "{error}");
    }
}
