//! How long a download is patient: what it says when it is not any more, and what is kept
//! for the next try.

use std::time::{Duration, Instant};

use devhub::store::When::{Always, Nth};
use devhub::store::{Fault, Request};

use crate::matrix::{KIB, STRATEGIES, kept, prepare};
use crate::rig::installers;
use crate::stage::Stage;

const FAILED: [&str; 3] = ["received", "started", "failed"];

fn stage(strategy: (&str, &str), settings: &[(&str, &str)]) -> Stage {
    let installer = installers().pop().expect("an installer");
    eprintln!("case: {} x{} ({})", strategy.0, strategy.1, installer.name);
    Stage::prepared(&installer, |_, device| {
        prepare(device, strategy);
        for (name, value) in settings {
            device.set(name, value);
        }
    })
}

fn range(request: &Request) -> &str {
    request.range().unwrap_or("bytes=0-")
}

#[test]
fn a_server_that_wants_to_be_left_alone_for_years_is_left_alone() {
    for strategy in STRATEGIES {
        let stage = stage(strategy, &[("MAX_TIMEOUT", "1h")]);
        let (forged, firmware) = stage.forge("forged.fw", KIB);
        let years = vec![("retry-after".to_owned(), "999999999".to_owned())];
        let store = stage.hub.store();
        store.fault(&firmware.path(), Always, Fault::StatusWith(503, years));
        stage.hub.offer(&firmware);
        let reason = stage.expect_failed();
        assert_eq!(reason, "download failed: not finished in 3600s: HTTP 503");
        assert_eq!(stage.statuses(), FAILED);
        let requests = store.requests_for(&firmware.path());
        let at_once = match strategy.1 {
            "1" => 1,
            _ => 3,
        };
        assert_eq!(requests.len(), at_once, "{strategy:?}");
        assert!(!forged.is_finished_on(&stage.device));
        stage.assert_untouched();
        stage.assert_unharmed();
    }
}

#[test]
fn a_download_that_takes_too_long_says_so_and_goes_on_with_the_next_try() {
    for strategy in STRATEGIES {
        let stage = stage(strategy, &[("MAX_TIMEOUT", "1s")]);
        let (forged, firmware) = stage.forge("forged.fw", KIB);
        let (store, path) = (stage.hub.store(), firmware.path());
        // Never silent, but no part of it comes in time.
        store.fault(&path, Always, Fault::Slow(250_000));
        let offered = Instant::now();
        stage.hub.offer(&firmware);
        let reason = stage.expect_failed();
        assert_eq!(reason, "download failed: not finished in 1s");
        assert!(offered.elapsed() >= Duration::from_secs(1));
        assert_eq!(stage.statuses(), FAILED);
        stage.assert_unharmed();
        let held = kept(&stage);
        match strategy.0 {
            "streaming" => assert_eq!(held, 0),
            _ => assert!((100_000..forged.size).contains(&held), "{held}"),
        }
        store.clear_faults(&path);
        let asked = store.requests_for(&path).len();
        stage.hub.offer(&firmware);
        stage.expect_installed();
        forged.assert_on(&stage.device);
        let requests = store.requests_for(&path);
        if strategy.0 == "caching" {
            assert_eq!(range(&requests[asked]), format!("bytes={held}-"));
        }
    }
}

#[test]
fn urls_that_are_good_for_a_piece_each_are_good_enough() {
    for strategy in STRATEGIES.iter().filter(|strategy| strategy.1 == "1") {
        let stage = stage(*strategy, &[("FRESH_OFFER_TIMEOUT", "20s")]);
        let (forged, firmware) = stage.forge("forged.fw", KIB);
        let (store, path) = (stage.hub.store(), firmware.path());
        // More of them than may be refused in a row.
        for nth in (1..16).step_by(2) {
            store.fault(&path, Nth(nth), Fault::CutAfter(300_000));
            store.fault(&path, Nth(nth + 1), Fault::Status(403));
        }
        stage.hub.deploy(Some(&firmware));
        stage.hub.offer(&firmware);
        stage.expect_installed();
        forged.assert_on(&stage.device);
        let requests = store.requests_for(&path);
        let statuses: Vec<u16> = requests.iter().map(|request| request.status).collect();
        assert_eq!(statuses.iter().filter(|one| **one == 403).count(), 8);
        let sent: u64 = requests.iter().map(|request| request.sent).sum();
        assert_eq!(sent, forged.size, "{strategy:?}: {statuses:?}");
        assert_eq!(stage.agent.logged("fwup started").len(), 1);
    }
}

/// A URL that leads to a signed one, as content networks have them.
#[test]
fn a_redirect_to_a_url_that_has_expired_is_renewed_and_no_byte_is_lost() {
    const ELSEWHERE: &str = "/elsewhere/file.fw";
    for strategy in STRATEGIES {
        let stage = stage(strategy, &[("FRESH_OFFER_TIMEOUT", "20s")]);
        let (forged, firmware) = stage.forge("forged.fw", KIB);
        let store = stage.hub.store();
        store.put(ELSEWHERE, std::fs::read(&forged.path).expect("archive"));
        let signed = format!("{}{ELSEWHERE}?signature=secret-9", store.url());
        store.fault(&firmware.path(), Always, Fault::Redirect(302, signed));
        let (cut, refused) = match strategy.1 {
            "1" => (Nth(1), Nth(2)),
            // Whichever came first is cut; all are over before the next.
            _ => (Nth(1), Nth(4)),
        };
        store.fault(ELSEWHERE, cut, Fault::CutAfter(300_000));
        store.fault(ELSEWHERE, refused, Fault::Status(403));
        stage.hub.deploy(Some(&firmware));
        stage.hub.offer(&firmware);
        stage.expect_installed();
        forged.assert_on(&stage.device);
        let renewed = ["received", "started", "received", "started", "completed"];
        assert_eq!(stage.statuses(), renewed, "{strategy:?}");
        let requests = store.requests_for(ELSEWHERE);
        let sent: u64 = requests.iter().map(|request| request.sent).sum();
        assert_eq!(sent, forged.size, "{strategy:?}");
        let last = &requests[requests.len() - 2..];
        assert_eq!(last[0].status, 403);
        assert_eq!(range(&last[0]), range(&last[1]), "{strategy:?}");
        assert_eq!(stage.agent.logged("fwup started").len(), 1);
        stage.assert_log_has_no_secret();
    }
}
