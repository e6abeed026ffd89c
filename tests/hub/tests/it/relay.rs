//! The relay harms what it is told to, where it is told to, and nothing else.

use devhub::relay::{Harm, Relay};
use devhub::store::Store;
use devhub::store::When::Nth;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

const SIZE: usize = 200_000;
const PLACE: u64 = 100_000;

fn store(byte: u8) -> Store {
    let store = Store::builder().start();
    store.put("/file", vec![byte; SIZE]);
    store
}

/// Everything that came, and how it ended.
fn get(relay: &Relay) -> (Vec<u8>, Option<ErrorKind>) {
    let mut tcp = TcpStream::connect(("127.0.0.1", relay.port())).expect("relay");
    let limit = Some(Duration::from_secs(10));
    tcp.set_read_timeout(limit).expect("deadline");
    tcp.write_all(b"GET /file HTTP/1.1\r\n\r\n")
        .expect("request");
    let mut bytes = Vec::new();
    let ended = tcp.read_to_end(&mut bytes);
    (bytes, ended.err().map(|error| error.kind()))
}

#[test]
fn each_harm_meets_its_connection() {
    let (good, other) = (store(b'+'), store(b'-'));
    let relay = Relay::start(good.address());
    relay.harm(Nth(2), Harm::Flip(PLACE));
    relay.harm(Nth(3), Harm::Cut(PLACE));
    relay.harm(Nth(4), Harm::Reset(PLACE));
    relay.harm(Nth(5), Harm::Divert(other.address()));

    let (whole, ended) = get(&relay);
    assert_eq!(ended, None);
    assert!(whole.len() > SIZE && whole.ends_with(b"++"));

    let (flipped, ended) = get(&relay);
    assert_eq!((flipped.len(), ended), (whole.len(), None));
    let differs = |at: &usize| flipped[*at] != whole[*at];
    let places: Vec<usize> = (0..whole.len()).filter(differs).collect();
    assert_eq!(places, [PLACE as usize]);

    let (cut, ended) = get(&relay);
    assert_eq!((cut.len() as u64, ended), (PLACE, None));

    let (reset, ended) = get(&relay);
    assert_eq!(ended, Some(ErrorKind::ConnectionReset));
    assert!(reset.len() as u64 <= PLACE);

    let (diverted, ended) = get(&relay);
    assert_eq!(ended, None);
    assert!(diverted.ends_with(b"--"));
    assert_eq!(other.requests().len(), 1);
    assert_eq!(relay.connections(), 5);
}
