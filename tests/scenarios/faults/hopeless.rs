//! Downloads that cannot succeed: given up after a bounded number of attempts, with a reason.

use devhub::store::Fault;
use devhub::store::When::Always;

use super::{END, End::Failed, MID, Row, as_it_is, play_all};

#[test]
fn what_cannot_succeed_is_given_up_with_a_reason() {
    let row = |name, faults, requests, reason| Row {
        name,
        faults,
        offer: as_it_is,
        requests,
        end: Failed(reason),
    };
    play_all(&[
        row(
            "404",
            |_| vec![(Always, Fault::Status(404))],
            &[(0, 404)],
            "download failed: HTTP 404",
        ),
        row(
            "403",
            |_| vec![(Always, Fault::Status(403))],
            &[(0, 403)],
            "download failed: HTTP 403",
        ),
        row(
            "503 for ever",
            |_| vec![(Always, Fault::Status(503))],
            &[(0, 503), (0, 503), (0, 503)],
            "download failed: HTTP 503",
        ),
        row(
            "silence at once, for ever",
            |_| vec![(Always, Fault::StallAt(0))],
            &[(0, 200), (0, 200), (0, 200)],
            "no data for 1 s",
        ),
        row(
            "silence in the middle, for ever",
            |_| vec![(Always, Fault::StallAt(MID))],
            &[(0, 200), (MID, 206), (MID, 206), (MID, 206)],
            "no data for 1 s",
        ),
        row(
            "cut at the same byte for ever",
            |_| vec![(Always, Fault::CutAt(MID))],
            &[(0, 200), (MID, 206), (MID, 206), (MID, 206)],
            "download failed",
        ),
        row(
            "a wrong length for ever",
            |_| vec![(Always, Fault::LengthOff(100))],
            &[(0, 200), (0, 200), (0, 200)],
            "the server has",
        ),
        Row {
            offer: |firmware| firmware.with_size(None),
            ..row(
                "a wrong length for ever, old offer",
                |_| vec![(Always, Fault::LengthOff(100))],
                &[(0, 200), (END, 416), (0, 200), (END, 416)],
                "download failed",
            )
        },
        row(
            "one wrong byte for ever",
            |_| vec![(Always, Fault::WrongByteAt(MID))],
            &[(0, 200), (0, 200)],
            "checksum",
        ),
        row(
            "not HTTP for ever",
            |_| vec![(Always, Fault::Garbage(b"220 mail\r\n".to_vec()))],
            &[(0, 0), (0, 0), (0, 0)],
            "download failed",
        ),
    ]);
}
