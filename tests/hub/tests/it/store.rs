//! The firmware store: ranges, validators and faults, seen by a raw HTTP client.

use devhub::store::{Fault, Store, When};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

struct Answer {
    head: String,
    body: Vec<u8>,
    /// The connection ended without an error.
    clean: bool,
}

impl Answer {
    fn status(&self) -> u16 {
        self.head[9..12].parse().unwrap()
    }

    fn header(&self, name: &str) -> Option<&str> {
        let line = self
            .head
            .lines()
            .find_map(|line| line.strip_prefix(&format!("{name}: ")));
        line.map(str::trim)
    }
}

fn open(store: &Store, method: &str, path: &str, headers: &str) -> TcpStream {
    let mut tcp = TcpStream::connect(store.address()).unwrap();
    tcp.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    write!(tcp, "{method} {path} HTTP/1.1\r\nhost: x\r\n{headers}\r\n").unwrap();
    tcp
}

fn finish(mut tcp: TcpStream) -> Answer {
    let mut all = Vec::new();
    let clean = tcp.read_to_end(&mut all).is_ok();
    let end = all
        .windows(4)
        .position(|w| w == b"\r\n\r\n")
        .map_or(all.len(), |at| at + 4);
    let body = all.split_off(end);
    Answer {
        head: String::from_utf8(all).unwrap(),
        body,
        clean,
    }
}

fn get(store: &Store, path: &str, headers: &str) -> Answer {
    finish(open(store, "GET", path, headers))
}

fn data() -> Vec<u8> {
    (0..100_000u32).map(|n| (n % 251) as u8).collect()
}

fn store() -> Store {
    let store = Store::builder().start();
    store.put("/f", data());
    store
}

fn faulty(fault: Fault) -> Store {
    let store = store();
    store.fault("/f", When::Always, fault);
    store
}

#[test]
fn whole_files_and_heads() {
    let store = store();
    let answer = get(&store, "/f?signature=1", "user-agent: t\r\n");
    assert!(answer.status() == 200 && answer.body == data());
    let head = finish(open(&store, "HEAD", "/f", ""));
    assert_eq!(
        (head.header("content-length"), head.body.len()),
        (Some("100000"), 0)
    );
    assert_eq!(get(&store, "/g", "").status(), 404);
    let log = store.expect_done("/f", 1);
    assert_eq!(
        (log.query.as_str(), log.sent, log.status),
        ("signature=1", 100_000, 200)
    );
    assert_eq!(log.header("user-agent"), Some("t"));
}

#[test]
fn ranges() {
    let store = store();
    for (range, bytes, shown) in [
        ("0-9", 0..10, "bytes 0-9/100000"),
        ("99990-", 99_990..100_000, "bytes 99990-99999/100000"),
        ("99990-200000", 99_990..100_000, "bytes 99990-99999/100000"),
        ("-5", 99_995..100_000, "bytes 99995-99999/100000"),
    ] {
        let answer = get(&store, "/f", &format!("range: bytes={range}\r\n"));
        assert_eq!(
            (answer.status(), answer.header("content-range")),
            (206, Some(shown))
        );
        assert_eq!(answer.body, data()[bytes]);
    }
    let answer = get(&store, "/f", "range: bytes=100000-\r\n");
    assert_eq!(answer.status(), 416);
    assert_eq!(answer.header("content-range"), Some("bytes */100000"));
}

#[test]
fn if_range_decides_between_the_rest_and_the_whole() {
    let store = store();
    let etag = get(&store, "/f", "").header("etag").unwrap().to_owned();
    let ask = |etag: &str| {
        get(
            &store,
            "/f",
            &format!("range: bytes=5-\r\nif-range: {etag}\r\n"),
        )
    };
    assert_eq!(ask(&etag).status(), 206);
    assert_eq!(ask("\"other\"").status(), 200);
    store.fault("/f", When::Always, Fault::IgnoreIfRange);
    assert_eq!(ask("\"other\"").status(), 206);
}

#[test]
fn broken_off_answers() {
    let answer = get(&faulty(Fault::CutAfter(1000)), "/f", "range: bytes=10-\r\n");
    assert_eq!(
        (answer.body.len(), answer.header("content-length")),
        (1000, Some("99990"))
    );
    let answer = get(&faulty(Fault::CutAt(1000)), "/f", "range: bytes=10-\r\n");
    assert!(answer.body == data()[10..1000]);
    let answer = get(&faulty(Fault::CutAt(1000)), "/f", "range: bytes=2000-\r\n");
    assert_eq!((answer.status(), answer.body.len()), (206, 0));
    assert!(!get(&faulty(Fault::ResetAfter(0)), "/f", "").clean);
}

#[test]
fn stalls_until_released() {
    let store = faulty(Fault::StallAfter(1000));
    let tcp = open(&store, "GET", "/f", "");
    store.wait("the first bytes", |all| all.iter().any(|r| r.sent == 1000));
    assert!(!store.requests()[0].done);
    store.release();
    assert!(finish(tcp).body == data());
    store.clear_faults("/f");
    store.fault("/f", When::Always, Fault::HangBeforeHeaders);
    let tcp = open(&store, "GET", "/f", "");
    assert_eq!(store.expect_request("/f", 2).status, 0);
    drop(store);
    assert_eq!(finish(tcp).head, "");
}

#[test]
fn lies_about_length_range_and_tag() {
    let answer = get(&faulty(Fault::LengthOff(5)), "/f", "");
    assert_eq!(answer.header("content-length"), Some("100005"));
    let answer = get(&faulty(Fault::NoRange), "/f", "range: bytes=5-\r\n");
    assert_eq!(
        (answer.status(), answer.header("accept-ranges")),
        (200, None)
    );
    let answer = get(
        &faulty(Fault::ContentRange("bytes 0-1/2".into())),
        "/f",
        "range: bytes=5-\r\n",
    );
    assert_eq!(
        (answer.status(), answer.header("content-range")),
        (206, Some("bytes 0-1/2"))
    );
    let answer = get(&faulty(Fault::Etag("\"new\"".into())), "/f", "");
    assert_eq!(answer.header("etag"), Some("\"new\""));
    let answer = get(&faulty(Fault::Extra(b"more".to_vec())), "/f", "");
    assert_eq!(answer.body.len(), 100_004);
    let answer = get(&faulty(Fault::WrongByteAt(7)), "/f", "");
    assert!(answer.body[7] != data()[7] && answer.body[8..] == data()[8..]);
}

#[test]
fn chunks_carry_everything() {
    let answer = get(&faulty(Fault::Chunked), "/f", "");
    assert_eq!(answer.header("content-length"), None);
    let (mut rest, mut body) = (&answer.body[..], Vec::new());
    loop {
        let line = rest.windows(2).position(|w| w == b"\r\n").unwrap();
        let size = usize::from_str_radix(std::str::from_utf8(&rest[..line]).unwrap(), 16).unwrap();
        if size == 0 {
            break;
        }
        body.extend_from_slice(&rest[line + 2..line + 2 + size]);
        rest = &rest[line + 4 + size..];
    }
    assert!(body == data());
}

#[test]
fn faults_by_request_number() {
    let store = store();
    store.fault("/f", When::Nth(1), Fault::Status(404));
    store.fault("/f", When::Nth(2), Fault::Redirect(302, "/f?again".into()));
    let retry = vec![("retry-after".to_string(), "1".to_string())];
    store.fault("/f", When::Nth(3), Fault::StatusWith(503, retry));
    let answers = [(); 4].map(|()| get(&store, "/f", ""));
    assert_eq!(answers.each_ref().map(Answer::status), [404, 302, 503, 200]);
    assert_eq!(answers[1].header("location"), Some("/f?again"));
    assert_eq!(answers[2].header("retry-after"), Some("1"));
}
