//! Servers that are away for a while: asked again, as often and as late as they like.

use devhub::store::Fault;
use devhub::store::When::{First, Nth};

use super::{End::Installed, KIB, Row, as_it_is, play_all, settings};
use crate::rig::installers;
use crate::stage::Stage;

#[test]
fn a_server_that_is_away_is_asked_again() {
    let row = |name, faults, requests| Row {
        name,
        faults,
        offer: as_it_is,
        requests,
        end: Installed,
    };
    play_all(&[
        row(
            "503 twice",
            |_| vec![(First(2), Fault::Status(503))],
            &[(0, 503), (0, 503), (0, 200)],
        ),
        row(
            "429",
            |_| vec![(Nth(1), Fault::Status(429))],
            &[(0, 429), (0, 200)],
        ),
        row(
            "500",
            |_| vec![(Nth(1), Fault::Status(500))],
            &[(0, 500), (0, 200)],
        ),
        row(
            "no answer",
            |_| vec![(Nth(1), Fault::HangBeforeHeaders)],
            &[(0, 0), (0, 200)],
        ),
        row(
            "not HTTP",
            |_| vec![(Nth(1), Fault::Garbage(b"220 mail\r\n".to_vec()))],
            &[(0, 0), (0, 200)],
        ),
    ]);
}

#[test]
fn retry_after_is_obeyed() {
    let later = || Fault::StatusWith(503, vec![("retry-after".into(), "1".into())]);
    for installer in installers() {
        let stage = Stage::prepared(&installer, |_, device| settings(device));
        let (_, firmware) = stage.forge("forged.fw", KIB);
        stage.hub.store().fault(&firmware.path(), Nth(1), later());
        stage.hub.offer(&firmware);
        stage.expect_installed();
        let requests = stage.hub.store().requests_for(&firmware.path());
        assert_eq!(requests.len(), 2);
        let waited = requests[1].t - requests[0].t;
        assert!(waited.as_millis() >= 1000, "{waited:?}");
    }
}
