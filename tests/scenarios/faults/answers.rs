//! Answers that are not what was asked for, or oddly told: the image is right all the same.

use devhub::Firmware;
use devhub::store::Fault;
use devhub::store::When::{Always, From, Nth};

use super::{END, End::Installed, MID, Row, as_it_is, play_all};

#[test]
fn a_server_that_answers_otherwise_than_asked_costs_no_byte_of_the_image() {
    let row = |name, faults, requests| Row {
        name,
        faults,
        offer: as_it_is,
        requests,
        end: Installed,
    };
    play_all(&[
        row(
            "no ranges at all",
            |_| vec![(Always, Fault::NoRange), (Nth(1), Fault::CutAt(MID))],
            &[(0, 200), (MID, 200)],
        ),
        row(
            "no ranges and a second cut before the first",
            |_| {
                vec![
                    (Always, Fault::NoRange),
                    (Nth(1), Fault::CutAt(MID)),
                    (Nth(2), Fault::CutAt(MID / 2)),
                ]
            },
            &[(0, 200), (MID, 200), (MID, 200)],
        ),
        row(
            "a Content-Range of another place",
            |_| {
                let other = Fault::ContentRange("bytes 5-9/10".into());
                vec![(Nth(1), Fault::CutAt(MID)), (Nth(2), other)]
            },
            &[(0, 200), (MID, 206), (0, 200)],
        ),
        row(
            "a Content-Range that is none",
            |_| {
                let none = Fault::ContentRange("bytes everything".into());
                vec![(Nth(1), Fault::CutAt(MID)), (Nth(2), none)]
            },
            &[(0, 200), (MID, 206), (0, 200)],
        ),
        row(
            "a range that begins later",
            |_| vec![(Nth(1), Fault::CutAt(MID)), (Nth(2), Fault::ShiftRange(7))],
            &[(0, 200), (MID, 206), (0, 200)],
        ),
        row(
            "another ETag from the second answer on",
            |_| {
                vec![
                    (Nth(1), Fault::CutAt(MID)),
                    (From(2), Fault::Etag("\"b\"".into())),
                ]
            },
            &[(0, 200), (MID, 200)],
        ),
        row(
            "another ETag, If-Range ignored",
            |_| {
                vec![
                    (Nth(1), Fault::CutAt(MID)),
                    (From(2), Fault::Etag("\"b\"".into())),
                    (From(2), Fault::IgnoreIfRange),
                ]
            },
            &[(0, 200), (MID, 206), (0, 200)],
        ),
        row(
            "416 to the range",
            |_| vec![(Nth(1), Fault::CutAt(MID)), (Nth(2), Fault::Status(416))],
            &[(0, 200), (MID, 416), (0, 200)],
        ),
        row(
            "404 to the range",
            |_| vec![(Nth(1), Fault::CutAt(MID)), (Nth(2), Fault::Status(404))],
            &[(0, 200), (MID, 404), (0, 200)],
        ),
        row(
            "503 to the range",
            |_| vec![(Nth(1), Fault::CutAt(MID)), (Nth(2), Fault::Status(503))],
            &[(0, 200), (MID, 503), (MID, 206)],
        ),
    ]);
}

#[test]
fn odd_answers_are_taken_for_what_they_are() {
    let row = |name, faults, offer, requests| Row {
        name,
        faults,
        offer,
        requests,
        end: Installed,
    };
    play_all(&[
        row(
            "chunked",
            |_| vec![(Always, Fault::Chunked)],
            as_it_is,
            &[(0, 200)],
        ),
        row(
            "chunked, old offer",
            |_| vec![(Always, Fault::Chunked)],
            Firmware::old_style,
            &[(0, 200)],
        ),
        row(
            "no length",
            |_| vec![(Always, Fault::NoLength)],
            as_it_is,
            &[(0, 200)],
        ),
        row(
            "no length, old offer",
            |_| vec![(Always, Fault::NoLength)],
            Firmware::old_style,
            &[(0, 200)],
        ),
        row(
            "extra bytes behind the body",
            |_| vec![(Always, Fault::Extra(vec![7; 5000]))],
            as_it_is,
            &[(0, 200)],
        ),
        row(
            "extra bytes, no length",
            |_| {
                vec![
                    (Always, Fault::NoLength),
                    (Always, Fault::Extra(vec![7; 5000])),
                ]
            },
            as_it_is,
            &[(0, 200)],
        ),
        row(
            "a wrong length once",
            |_| vec![(Nth(1), Fault::LengthOff(100))],
            as_it_is,
            &[(0, 200), (0, 200)],
        ),
        row(
            "a wrong length once, old offer",
            |_| vec![(Nth(1), Fault::LengthOff(100))],
            |firmware| firmware.with_size(None),
            &[(0, 200), (END, 416), (0, 200)],
        ),
        row(
            "one wrong byte once",
            |_| vec![(Nth(1), Fault::WrongByteAt(MID))],
            as_it_is,
            &[(0, 200), (0, 200)],
        ),
    ]);
}
