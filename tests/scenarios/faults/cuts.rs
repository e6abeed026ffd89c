//! Connections that end too early: the download goes on where it stopped.

use devhub::store::Fault;
use devhub::store::When::{Always, Nth};

use super::{End::Installed, KIB, LAST, MID, Row, as_it_is, play, sent, settings};
use crate::rig::installers;
use crate::stage::Stage;

#[test]
fn a_cut_connection_resumes_without_repeating_or_losing_a_byte() {
    let cut = |name, faults, requests| Row {
        name,
        faults,
        offer: as_it_is,
        requests,
        end: Installed,
    };
    let rows = [
        cut(
            "cut at 0",
            |_| vec![(Nth(1), Fault::CutAt(0))],
            &[(0, 200), (0, 200)],
        ),
        cut(
            "cut at 1",
            |_| vec![(Nth(1), Fault::CutAt(1))],
            &[(0, 200), (1, 206)],
        ),
        cut(
            "cut in the middle",
            |_| vec![(Nth(1), Fault::CutAt(MID))],
            &[(0, 200), (MID, 206)],
        ),
        cut(
            "cut before the last byte",
            |size| vec![(Nth(1), Fault::CutAt(size - 1))],
            &[(0, 200), (LAST, 206)],
        ),
        cut(
            "many cuts",
            |size| {
                vec![
                    (Nth(1), Fault::CutAt(1)),
                    (Nth(2), Fault::CutAt(MID)),
                    (Nth(3), Fault::CutAt(MID + 1)),
                    (Nth(4), Fault::CutAt(MID + 1)),
                    (Nth(5), Fault::CutAt(size - 1)),
                ]
            },
            &[
                (0, 200),
                (1, 206),
                (MID, 206),
                (MID + 1, 206),
                (MID + 1, 206),
                (LAST, 206),
            ],
        ),
        cut(
            "a chunked answer cut",
            |_| vec![(Always, Fault::Chunked), (Nth(1), Fault::CutAt(MID))],
            &[(0, 200), (MID, 206)],
        ),
        cut(
            "an answer without a length cut",
            |_| vec![(Always, Fault::NoLength), (Nth(1), Fault::CutAt(MID))],
            &[(0, 200), (MID, 206)],
        ),
        cut(
            "a silent connection",
            |_| vec![(Nth(1), Fault::StallAt(MID))],
            &[(0, 200), (MID, 206)],
        ),
        cut(
            "no validators",
            |_| vec![(Always, Fault::NoValidators), (Nth(1), Fault::CutAt(MID))],
            &[(0, 200), (MID, 206)],
        ),
    ];
    for installer in installers() {
        for row in &rows {
            let (_, forged, requests) = play(row, &installer);
            assert_eq!(sent(&requests), forged.size, "{}", row.name);
        }
    }
}

#[test]
fn a_resumed_download_names_the_file_it_continues() {
    let row = Row {
        name: "guard",
        faults: |_| {
            vec![
                (Nth(1), Fault::CutAt(MID)),
                (Always, Fault::Etag("\"v1\"".into())),
            ]
        },
        offer: as_it_is,
        requests: &[(0, 200), (MID, 206)],
        end: Installed,
    };
    for installer in installers() {
        let (_, _, requests) = play(&row, &installer);
        assert_eq!(requests[0].header("if-range"), None);
        assert_eq!(requests[1].header("if-range"), Some("\"v1\""));
    }
}

#[test]
fn a_reset_connection_resumes_at_what_has_arrived() {
    for installer in installers() {
        let stage = Stage::prepared(&installer, |_, device| settings(device));
        let (forged, firmware) = stage.forge("forged.fw", KIB);
        let (store, path) = (stage.hub.store(), firmware.path());
        store.fault(&path, Nth(1), Fault::ResetAfter(MID));
        stage.hub.offer(&firmware);
        stage.expect_installed();
        forged.assert_on(&stage.device);
        let requests = store.requests_for(&path);
        assert_eq!(requests.len(), 2);
        // A reset may lose what was on its way.
        assert!((MID..=2 * MID).contains(&(sent(&requests) - forged.size + MID)));
    }
}
