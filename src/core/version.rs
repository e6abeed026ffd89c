//! The order of versions, as semantic versioning has it (semver.org, item 11). Pure.

use std::cmp::Ordering;

/// A version taken apart; build metadata does not count.
struct Version<'a> {
    numbers: [u64; 3],
    pre: Option<&'a str>,
}

impl<'a> Version<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let text = text.trim();
        let text = text.split_once('+').map_or(text, |(version, _)| version);
        let (core, pre) = match text.split_once('-') {
            Some((core, pre)) => (core, Some(pre)),
            None => (text, None),
        };
        let mut parts = core.split('.').map(number);
        let numbers = [parts.next()??, parts.next()??, parts.next()??];
        let is_whole = parts.next().is_none() && pre != Some("");
        is_whole.then_some(Self { numbers, pre })
    }
}

fn number(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok())?
}

/// Whether `one` is lower than `other`; never when one of them is no version.
pub fn is_lower(one: &str, other: &str) -> bool {
    let (Some(one), Some(other)) = (Version::parse(one), Version::parse(other)) else {
        return false;
    };
    let pre = || match (one.pre, other.pre) {
        (None, None) => Ordering::Equal,
        (None, Some(_)) => Ordering::Greater,
        (Some(_), None) => Ordering::Less,
        (Some(one), Some(other)) => by_identifiers(one, other),
    };
    one.numbers.cmp(&other.numbers).then_with(pre).is_lt()
}

fn by_identifiers(one: &str, other: &str) -> Ordering {
    let identifiers = one.split('.').zip(other.split('.'));
    let first = identifiers
        .map(|(one, other)| match (number(one), number(other)) {
            (Some(one), Some(other)) => one.cmp(&other),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (None, None) => one.cmp(other),
        })
        .find(|order| order.is_ne());
    first.unwrap_or_else(|| one.split('.').count().cmp(&other.split('.').count()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_in_their_order() {
        // The standard's own example, and a few more.
        let rising = [
            "0.9.10",
            "1.0.0-alpha",
            "1.0.0-alpha.1",
            "1.0.0-alpha.beta",
            "1.0.0-beta",
            "1.0.0-beta.2",
            "1.0.0-beta.11",
            "1.0.0-rc.1",
            "1.0.0",
            "1.0.1",
            "1.2.0-dev+abc",
            "1.10.0",
            "2.0.0",
        ];
        for (index, one) in rising.iter().enumerate() {
            for (other_index, other) in rising.iter().enumerate() {
                assert_eq!(is_lower(one, other), index < other_index, "{one} {other}");
            }
        }
        assert!(!is_lower("1.0.0+1", "1.0.0+2"));
    }

    #[test]
    fn what_is_no_version_is_never_lower() {
        for text in [
            "", "1", "1.0", "1.0.0.0", "v1.0.0", "1.0.x", "1.-1.0", "1.0.0-",
        ] {
            assert!(
                !is_lower(text, "99.0.0") && !is_lower("0.0.1", text),
                "{text}"
            );
        }
    }
}
