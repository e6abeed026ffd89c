//! What must hold for every answer, however odd.

use proptest::prelude::*;

use super::*;

/// Few values, so that some are equal, and the ends of the range.
fn number() -> impl Strategy<Value = u64> {
    prop_oneof![4 => 0..5_u64, 1 => any::<u64>(), 1 => Just(u64::MAX)]
}

fn maybe(
    value: impl Strategy<Value = &'static str> + 'static,
) -> impl Strategy<Value = Option<String>> {
    prop::option::of(value.prop_map(str::to_owned))
}

fn tag() -> impl Strategy<Value = Option<String>> {
    maybe(prop_oneof![Just("\"a\""), Just("\"b\"")])
}

fn date() -> impl Strategy<Value = Option<String>> {
    maybe(prop_oneof![Just("monday"), Just("tuesday")])
}

/// What is known, and how much of it is held.
fn known() -> impl Strategy<Value = Known> {
    let sizes = (prop::option::of(number()), any::<bool>());
    (sizes, tag(), date()).prop_map(|((size, offered), etag, last_modified)| Known {
        size,
        offered_size: size.filter(|_| offered),
        etag,
        last_modified,
    })
}

fn range() -> impl Strategy<Value = Option<String>> {
    let well_formed = (number(), number(), prop::option::of(number()));
    let well_formed = well_formed.prop_map(|(first, last, size)| written(first, last, size));
    prop::option::of(prop_oneof![
        6 => well_formed,
        1 => "[bytes */0-9]{0,20}",
        1 => any::<String>(),
    ])
}

fn written(first: u64, last: u64, size: Option<u64>) -> String {
    let size = size.map_or("*".to_owned(), |size| size.to_string());
    format!("bytes {first}-{last}/{size}")
}

fn head() -> impl Strategy<Value = Head> {
    let status = prop_oneof![
        4 => Just(206_u16), 4 => Just(200), 1 => Just(404), 1 => Just(416), 1 => 0..600_u16
    ];
    let numbers = (prop::option::of(number()), prop::option::of(number()));
    (status, numbers, range(), tag(), date()).prop_map(
        |(status, (content_length, retry_after), content_range, etag, last_modified)| Head {
            status,
            content_length,
            content_range,
            etag,
            last_modified,
            retry_after,
        },
    )
}

/// The better of two validators that both sides name says so.
fn is_the_same_file(known: &Known, head: &Head) -> bool {
    match (&known.etag, &head.etag) {
        (Some(old), Some(new)) => old == new,
        _ => match (&known.last_modified, &head.last_modified) {
            (Some(old), Some(new)) => old == new,
            _ => true,
        },
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn bytes_are_only_joined_where_they_belong(
        offset in number(), ranged: bool, known in known(), head in head(),
    ) {
        let verdict = judge(Asked { offset, ranged }, &known, &head);
        let told = head.content_range.as_deref().and_then(parse_content_range);
        let agrees = |total: Option<u64>| match (known.size, total) {
            (Some(size), Some(total)) => size == total,
            _ => true,
        };
        match verdict {
            Verdict::Append => {
                prop_assert_eq!(head.status, 206);
                let (first, total) = told.expect("a place");
                prop_assert_eq!(first, offset);
                prop_assert!(agrees(total), "{:?} {:?}", known, head);
                prop_assert!(is_the_same_file(&known, &head), "{:?} {:?}", known, head);
            }
            Verdict::Whole => {
                prop_assert_eq!(head.status, 200);
                prop_assert!(agrees(head.content_length), "{:?} {:?}", known, head);
                prop_assert!(offset == 0 || is_the_same_file(&known, &head));
            }
            Verdict::Anew(_) => {
                prop_assert_eq!(head.status, 200);
                prop_assert!(offset > 0 && !is_the_same_file(&known, &head));
            }
            Verdict::StartOver(_) => {
                prop_assert!(head.status == 206 || (head.status == 200 && offset > 0));
            }
            Verdict::WithoutRange(_) => {
                prop_assert!(head.status == 206 || ranged);
                prop_assert!(head.status != 200);
            }
            Verdict::Retry { after, .. } if head.status != 200 => {
                prop_assert_eq!(after, head.retry_after);
            }
            Verdict::Retry { .. } => prop_assert!(offset == 0),
            Verdict::Refused(_) | Verdict::Fatal(_) => {
                prop_assert!(![200, 206].contains(&head.status));
            }
        }
    }

    /// The other way round: what is good is not refused.
    #[test]
    fn the_bytes_asked_for_are_welcome(
        offset in 0..1000_u64, more in 1..1000_u64, known in known(), tells_size: bool,
    ) {
        let size = offset + more;
        let known = Known { size: known.size.map(|_| size), ..known };
        let told = Head {
            etag: known.etag.clone(),
            last_modified: known.last_modified.clone(),
            ..Head::default()
        };
        let rest = Head {
            status: 206,
            content_length: Some(more),
            content_range: Some(written(offset, size - 1, tells_size.then_some(size))),
            ..told.clone()
        };
        let asked = Asked { offset, ranged: true };
        prop_assert_eq!(judge(asked, &known, &rest), Verdict::Append);
        let whole = Head { status: 200, content_length: Some(size), ..told };
        prop_assert_eq!(judge(asked, &known, &whole), Verdict::Whole);
    }

    #[test]
    fn content_ranges_are_read_as_written(
        first in number(), last in number(), size in prop::option::of(number()),
    ) {
        let text = written(first, last, size);
        let sane = first <= last && size.is_none_or(|size| last < size);
        prop_assert_eq!(parse_content_range(&text), sane.then_some((first, size)));
        prop_assert_eq!(size_in_range(&text), size.filter(|_| sane));
    }

    #[test]
    fn no_content_range_is_too_odd(text in any::<String>(), digits in "bytes [0-9*/ -]{0,60}") {
        for text in [text, digits] {
            if let Some((first, Some(size))) = parse_content_range(&text) {
                prop_assert!(first < size);
            }
        }
    }

    #[test]
    fn a_tag_is_strong_or_none(text in "(W/)?\"?[a-z\"]{0,4}\"?") {
        let strong = strong_etag(&text);
        prop_assert_eq!(strong.is_some(), text.len() >= 2
            && text.starts_with('"') && text.ends_with('"'));
        prop_assert!(strong.is_none_or(|strong| strong == text));
    }
}
