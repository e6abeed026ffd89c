//! Redirected downloads, and downloads over TLS.

use devhub::certs::Ca;
use devhub::store::When::{Always, Nth};
use devhub::store::{Fault, Store};
use devhub::{Firmware, Tls};

use super::{KIB, MID, settings, starts};
use crate::rig::{self, Installer, PATIENCE, installers, standin};
use crate::stage::{Forged, Stage};

const FAILED: [&str; 3] = ["received", "started", "failed"];
/// Where the file really is.
const ELSEWHERE: &str = "/elsewhere/file.fw";

/// A stage whose offer leads to [`ELSEWHERE`] by way of `location`.
fn redirected(
    installer: &Installer,
    status: u16,
    location: impl FnOnce(&Store) -> String,
) -> (Stage, Forged, Firmware) {
    let stage = Stage::prepared(installer, |_, device| settings(device));
    let (forged, firmware) = stage.forge("forged.fw", KIB);
    let store = stage.hub.store();
    let bytes = std::fs::read(&forged.path).expect("archive");
    store.put(ELSEWHERE, bytes);
    let location = location(store);
    store.fault(&firmware.path(), Always, Fault::Redirect(status, location));
    (stage, forged, firmware)
}

#[test]
fn redirects_are_followed_with_the_range_and_without_a_trace_of_their_secrets() {
    for installer in installers() {
        for status in [301, 302, 303, 307, 308] {
            let absolute = |store: &Store| format!("{}{ELSEWHERE}?token=secret-2", store.url());
            let (stage, forged, firmware) = redirected(&installer, status, absolute);
            let store = stage.hub.store();
            store.fault(ELSEWHERE, Nth(1), Fault::CutAt(MID));
            stage.hub.offer(&firmware);
            stage.expect_installed();
            forged.assert_on(&stage.device);
            let requests = store.requests_for(ELSEWHERE);
            assert_eq!(
                starts(&requests, forged.size),
                [(0, 200), (MID, 206)],
                "{status}"
            );
            assert_eq!(requests[0].query, "token=secret-2");
            assert_eq!(store.requests_for(&firmware.path()).len(), 2);
            stage.assert_log_has_no_secret();
        }
    }
}

#[test]
fn a_relative_location_is_relative_to_the_offer() {
    let cases = [
        ("an absolute path", ELSEWHERE.to_owned()),
        (
            "a path beside the offer's",
            "../elsewhere/file.fw".to_owned(),
        ),
    ];
    for (name, location) in cases {
        let (stage, forged, firmware) = redirected(&standin(), 302, |_| location);
        stage.hub.offer(&firmware);
        stage.expect_installed();
        forged.assert_on(&stage.device);
        assert_eq!(stage.hub.store().requests_for(ELSEWHERE).len(), 1, "{name}");
    }
}

#[test]
fn redirects_that_lead_nowhere_fail() {
    type Lead = fn(&Store) -> String;
    let cases: [(&str, Lead, &str); 3] = [
        ("a way that ends", |_| "/nowhere".to_owned(), "HTTP 404"),
        (
            "no way",
            |_| "ht tp://?secret-3".to_owned(),
            "download failed",
        ),
        (
            "a way to something else",
            |_| "ftp://localhost/x?secret-4".to_owned(),
            "download failed",
        ),
    ];
    for (name, location, expected) in cases {
        let (stage, _, firmware) = redirected(&standin(), 302, location);
        stage.hub.offer(&firmware);
        let reason = stage.expect_failed();
        assert!(reason.contains(expected), "{name}: {reason}");
        assert!(!reason.contains("secret-"), "{name}: {reason}");
        stage.assert_log_has_no_secret();
        assert_eq!(stage.statuses(), FAILED, "{name}");
        stage.assert_untouched();
        stage.assert_unharmed();
    }
}

#[test]
fn a_circle_of_redirects_is_left() {
    let stage = Stage::prepared(&standin(), |_, device| settings(device));
    let (_, firmware) = stage.forge("forged.fw", KIB);
    let (store, path) = (stage.hub.store(), firmware.path());
    store.fault(
        &path,
        Always,
        Fault::Redirect(302, format!("{path}?secret-5")),
    );
    stage.hub.offer(&firmware);
    assert_eq!(stage.expect_failed(), "download failed: too many redirects");
    assert_eq!(stage.statuses(), FAILED);
    assert!(store.requests_for(&path).len() <= 10);
    stage.assert_log_has_no_secret();
    stage.assert_untouched();
    stage.assert_unharmed();
}

#[test]
fn a_download_over_tls_resumes_like_any_other() {
    for installer in installers() {
        for tls in [Tls::Only12, Tls::Only13] {
            let hub = rig::hub().tls(tls).deadline(PATIENCE).start();
            let stage = Stage::on(hub, &installer, |_, device| settings(device));
            let (forged, firmware) = stage.forge("forged.fw", KIB);
            assert!(firmware.url.starts_with("https://"));
            let (store, path) = (stage.hub.store(), firmware.path());
            // No goodbye at the TLS level.
            store.fault(&path, Nth(1), Fault::CutAt(MID));
            store.fault(&path, Nth(2), Fault::StallAfter(1000));
            stage.hub.offer(&firmware);
            stage.expect_installed();
            forged.assert_on(&stage.device);
            let requests = store.requests_for(&path);
            let expected = [(0, 200), (MID, 206), (MID + 1000, 206)];
            assert_eq!(starts(&requests, forged.size), expected, "{tls:?}");
        }
    }
}

#[test]
fn a_store_that_nobody_vouches_for_gets_no_request() {
    let stage = Stage::prepared(&standin(), |_, device| settings(device));
    let (forged, firmware) = stage.forge("forged.fw", KIB);
    let stranger = Ca::new("stranger");
    let store = Store::builder().tls(Tls::Server, stranger.server()).start();
    store.put(
        &firmware.path(),
        std::fs::read(&forged.path).expect("archive"),
    );
    let url = format!("{}{}?secret-6", store.url(), firmware.path());
    stage.hub.offer(&firmware.with_url(&url));
    let reason = stage.expect_failed();
    assert!(reason.contains("issuer is not trusted"), "{reason}");
    assert_eq!(stage.statuses(), FAILED);
    assert_eq!(store.requests().len(), 0);
    stage.assert_log_has_no_secret();
    stage.assert_untouched();
    stage.assert_unharmed();
}
