//! Downloads over TLS on a network that damages, cuts and diverts: nothing that came with a
//! damaged piece is used, nothing that arrived whole is fetched again, and nobody the device
//! does not trust is asked for anything.

use devhub::certs::Ca;
use devhub::relay::{Harm, Relay};
use devhub::store::When::{Always, First, From, Nth};
use devhub::store::{Fault, Store};
use devhub::{Firmware, Tls};

use crate::matrix::{KIB, PART, STRATEGIES, assert_kept, files, prepare};
use crate::rig::{self, PATIENCE, installers};
use crate::stage::{Forged, Stage};

const DONE: [&str; 3] = ["received", "started", "completed"];
const FAILED: [&str; 3] = ["received", "started", "failed"];
/// Of what the server sends: inside whichever part comes on that connection.
const PLACE: u64 = 300_000;
/// The store sends so much at once; TLS carries it as one piece.
const RECORD: u64 = 16 * 1024;
/// In the last part.
const LATE: u64 = 2 * PART + 100_000;
/// Handshake, head of the answer, and what TLS adds to this many pieces.
const EXTRA: u64 = 8 * 1024;

/// One device that fetches over TLS, through a network.
struct Case {
    name: String,
    strategy: (&'static str, &'static str),
    stage: Stage,
    relay: Relay,
    forged: Forged,
    firmware: Firmware,
}

impl Case {
    fn new(name: &str, strategy: (&'static str, &'static str), tls: Tls) -> Self {
        let installer = installers().pop().expect("an installer");
        let name = format!("{name} / {tls:?} / {} x{}", strategy.0, strategy.1);
        eprintln!("case: {name} ({})", installer.name);
        let hub = rig::hub().tls(tls).deadline(PATIENCE).start();
        let stage = Stage::on(hub, &installer, |_, device| prepare(device, strategy));
        let (forged, firmware) = stage.forge("forged.fw", KIB);
        let relay = Relay::start(stage.hub.store().address());
        let (port, path) = (relay.port(), firmware.path());
        let url = format!("https://localhost:{port}{path}?signature=secret-7");
        Self {
            name,
            strategy,
            stage,
            relay,
            forged,
            firmware: firmware.with_url(&url),
        }
    }

    fn is_one_by_one(&self) -> bool {
        self.strategy.1 == "1"
    }

    fn offer(&self) {
        self.stage.hub.offer(&self.firmware);
    }

    fn assert_installed(&self) {
        self.stage.expect_installed();
        assert_eq!(self.stage.statuses(), DONE, "{}", self.name);
        self.forged.assert_on(&self.stage.device);
        let uuid = &self.firmware.uuid;
        assert_kept(&self.name, &self.stage, self.strategy.0, uuid, &self.forged);
        self.stage.assert_log_has_no_secret();
    }

    fn assert_failed(&self, part: &str) {
        let reason = self.stage.expect_failed();
        assert!(reason.contains(part), "{}: {reason}", self.name);
        assert_eq!(self.stage.statuses(), FAILED, "{}", self.name);
        assert!(!self.forged.is_finished_on(&self.stage.device));
        if self.strategy.0 != "streaming" {
            self.stage.assert_untouched();
        }
        self.stage.assert_unharmed();
        self.stage.assert_log_has_no_secret();
    }

    /// What is kept of the firmware, without its uuid.
    fn kept(&self) -> Vec<String> {
        let names = files(&self.stage.device.path("data/cache"));
        let prefix = format!("{}.", self.firmware.uuid);
        let short = |name: &String| name.strip_prefix(&prefix).map(str::to_owned);
        names
            .iter()
            .map(|name| short(name).unwrap_or_else(|| panic!("not of this firmware: {name}")))
            .collect()
    }

    /// First byte that each request asked for.
    fn firsts(&self) -> Vec<u64> {
        let store = self.stage.hub.store();
        let requests = store.requests_for(&self.firmware.path());
        let first = |range: &str| {
            let range = range.strip_prefix("bytes=")?;
            range.split_once('-')?.0.parse::<u64>().ok()
        };
        let first = |range: &str| first(range).expect("a range");
        requests
            .iter()
            .map(|request| request.range().map_or(0, first))
            .collect()
    }

    /// The download was interrupted once, at [`PLACE`] of one connection, and went on behind
    /// the last piece that was whole; `lost` bytes may have been on their way.
    fn assert_resumed(&self, lost: u64) {
        let firsts = self.firsts();
        let requests = match self.is_one_by_one() {
            true => 2,
            false => self.forged.size.div_ceil(PART) as usize + 1,
        };
        assert_eq!(firsts.len(), requests, "{}: {firsts:?}", self.name);
        let held = firsts[requests - 1] % PART;
        let whole = (PLACE - EXTRA) / (RECORD + 64) * RECORD;
        let wanted = whole.saturating_sub(lost)..=PLACE;
        assert!(wanted.contains(&held), "{}: {firsts:?}", self.name);
        assert_eq!(held % RECORD, 0, "{}: {firsts:?}", self.name);
    }
}

fn each(name: &str, tls: Tls, mut play: impl FnMut(Case)) {
    for strategy in STRATEGIES {
        play(Case::new(name, strategy, tls));
    }
}

#[test]
fn a_flipped_byte_costs_the_piece_it_is_in() {
    for tls in [Tls::Only12, Tls::Only13] {
        each("flipped once", tls, |case| {
            case.relay.harm(Nth(1), Harm::Flip(PLACE));
            case.offer();
            case.assert_installed();
            // Pieces that came at once with the damaged one are not looked at.
            case.assert_resumed(4 * RECORD);
            assert!(!case.stage.agent.logged("decrypt").is_empty());
        });
    }
}

#[test]
fn bytes_flipped_on_every_connection_only_take_longer() {
    each("flipped always", Tls::Server, |case| {
        case.relay.harm(Always, Harm::Flip(PLACE));
        case.offer();
        case.assert_installed();
        let firsts = case.firsts();
        if case.is_one_by_one() {
            // Each connection brought something new, and nothing old.
            assert!(
                firsts.is_sorted_by(|a, b| a < b),
                "{}: {firsts:?}",
                case.name
            );
            let brought = PLACE - EXTRA - 5 * RECORD;
            let most = case.forged.size.div_ceil(brought) as usize;
            assert!(firsts.len() <= most, "{}: {firsts:?}", case.name);
        }
    });
}

#[test]
fn a_handshake_that_is_always_damaged_is_given_up() {
    each("a damaged handshake", Tls::Server, |case| {
        case.relay.harm(Always, Harm::Flip(200));
        case.offer();
        case.assert_failed("(3 attempts without progress)");
        assert_eq!(case.firsts(), [0; 0]);
        // Empty, and harmless.
        let expected: &[&str] = match case.strategy.0 {
            "caching" => &["partial", "sums"],
            _ => &[],
        };
        assert_eq!(case.kept(), expected, "{}", case.name);
    });
}

#[test]
fn an_end_without_a_goodbye_is_no_end() {
    for tls in [Tls::Only12, Tls::Only13] {
        each("cut inside a piece", tls, |case| {
            case.relay.harm(Nth(1), Harm::Cut(PLACE));
            case.offer();
            case.assert_installed();
            case.assert_resumed(0);
        });
    }
}

#[test]
fn an_end_without_a_goodbye_is_none_either_where_nobody_knows_the_length() {
    for strategy in [STRATEGIES[0], STRATEGIES[1]] {
        let case = Case::new("cut, no length", strategy, Tls::Server);
        let path = case.firmware.path();
        case.stage.hub.store().fault(&path, Always, Fault::NoLength);
        case.relay.harm(Nth(1), Harm::Cut(PLACE));
        case.stage.hub.offer(&case.firmware.clone().old_style());
        case.stage.expect_installed();
        case.forged.assert_on(&case.stage.device);
        case.assert_resumed(0);
    }
}

#[test]
fn a_reset_is_no_end_either_where_nobody_knows_the_length() {
    for strategy in [STRATEGIES[0], STRATEGIES[1]] {
        for tls in [Tls::Plain, Tls::Server] {
            let mut case = Case::new("reset, no length", strategy, tls);
            if tls == Tls::Plain {
                let url = case
                    .firmware
                    .url
                    .replace("https://localhost", "http://127.0.0.1");
                case.firmware = case.firmware.with_url(&url);
            }
            let path = case.firmware.path();
            case.stage.hub.store().fault(&path, Always, Fault::NoLength);
            case.relay.harm(Nth(1), Harm::Reset(PLACE));
            case.stage.hub.offer(&case.firmware.clone().old_style());
            case.stage.expect_installed();
            case.forged.assert_on(&case.stage.device);
            assert_eq!(case.firsts().len(), 2, "{}", case.name);
        }
    }
}

#[test]
fn a_reset_connection_is_resumed() {
    each("reset", Tls::Server, |case| {
        case.relay.harm(Nth(1), Harm::Reset(PLACE));
        case.offer();
        case.assert_installed();
        // What was on its way is lost with the connection.
        case.assert_resumed(PLACE);
    });
}

/// A store with the same file, and a certificate of its own making.
fn stranger(case: &Case) -> Store {
    let identity = Ca::new("stranger").server();
    let store = Store::builder().tls(Tls::Server, identity).start();
    let bytes = std::fs::read(&case.forged.path).expect("archive");
    store.put(&case.firmware.path(), bytes);
    store
}

#[test]
fn somebody_else_at_a_renewed_connection_gets_no_request_and_costs_no_byte() {
    each("a stranger for a while", Tls::Server, |case| {
        let stranger = stranger(&case);
        case.relay.harm(Nth(1), Harm::Cut(PLACE));
        let connections = match case.is_one_by_one() {
            true => 1,
            // One for each part.
            false => 3,
        };
        let diverted = Harm::Divert(stranger.address());
        case.relay.harm(Nth(connections + 1), diverted);
        case.offer();
        case.assert_installed();
        case.assert_resumed(0);
        assert_eq!(case.relay.connections(), connections + 2, "{}", case.name);
        assert_eq!(stranger.requests().len(), 0);
        let refused = case.stage.agent.logged("issuer is not trusted");
        assert_eq!(refused.len(), 1, "{}", case.name);
    });
}

#[test]
fn a_redirect_to_somebody_else_fails_and_what_is_here_is_kept_for_the_next_try() {
    each("redirected to a stranger", Tls::Server, |case| {
        let stranger = stranger(&case);
        let (store, path) = (case.stage.hub.store(), case.firmware.path());
        let elsewhere = format!("{}{path}?signature=secret-8", stranger.url());
        let good = match case.is_one_by_one() {
            true => 1,
            // One for each part.
            false => 3,
        };
        store.fault(&path, First(good), Fault::CutAt(LATE));
        store.fault(&path, From(good + 1), Fault::Redirect(302, elsewhere));
        case.offer();
        case.assert_failed("issuer is not trusted");
        assert_eq!(stranger.requests().len(), 0);
        let parts = ["parts/00000", "parts/00001", "parts/00002.new"];
        let (expected, next): (&[&str], u64) = match case.strategy.0 {
            "streaming" => (&[], 0),
            "caching" => (&["facts", "partial", "sums"], LATE),
            // A part that was not whole is not proven.
            _ => (&parts, 2 * PART),
        };
        assert_eq!(case.kept(), expected, "{}", case.name);
        // The same again, from a server that behaves.
        let asked = case.firsts().len();
        store.clear_faults(&path);
        case.offer();
        case.stage.expect_installed();
        case.forged.assert_on(&case.stage.device);
        assert_eq!(case.firsts()[asked..], [next], "{}", case.name);
    });
}
