//! Every source, against a service, a gpsd and commands that are good, bad and silent.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{KIND, gpsd, recalled};
use crate::config::ExtensionSettings;
use crate::config::extensions::{GeoSettings, GeoSource};
use crate::extensions::Site;
use crate::extensions::testing::{Running, kept, link, site};

const SECOND: Duration = Duration::from_secs(1);
const PLACE: &str = r#"{"now":"2026-08-01T12:00:00Z","latitude":"52.5200","longitude":"-13.4",
    "time_zone":"Europe/Berlin","country":"DE","source":"elsewhere"}"#;

fn settings(source: GeoSource) -> GeoSettings {
    GeoSettings {
        source,
        url: String::new(),
        cache: Duration::from_secs(3600),
    }
}

fn place(geo: GeoSettings) -> Arc<Site> {
    patient(geo, 30 * SECOND)
}

fn patient(geo: GeoSettings, timeout: Duration) -> Arc<Site> {
    site(ExtensionSettings {
        timeout,
        geo,
        ..ExtensionSettings::default()
    })
}

/// Asks once, as the hub does.
fn asked(site: &Arc<Site>) -> Value {
    let running = Running::start(&KIND, site);
    running.attach();
    running.hear("location:request");
    let update = running.pushed("location:update");
    assert_eq!(running.rest(), [] as [Value; 0]);
    running.end();
    update
}

/// What is wrong with the answer.
#[derive(Clone, Copy, Debug)]
enum Mood {
    Good,
    OtherNonce,
    NoNonce,
    Body(&'static str),
    Huge,
    Status(u16),
    Stalls,
    Cut,
}

/// A geoip service.
struct Service {
    address: SocketAddr,
    mood: Arc<Mutex<Mood>>,
    requests: Arc<AtomicUsize>,
}

impl Service {
    fn start(mood: Mood) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("listener");
        let service = Self {
            address: listener.local_addr().expect("address"),
            mood: Arc::new(Mutex::new(mood)),
            requests: Arc::default(),
        };
        let (mood, requests) = (service.mood.clone(), service.requests.clone());
        // Ends with the process.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                requests.fetch_add(1, Ordering::SeqCst);
                let mood = *mood.lock().expect("mood");
                // The client may have had enough.
                let _ = answer(stream, mood);
            }
        });
        service
    }

    fn settings(&self) -> GeoSettings {
        GeoSettings {
            url: format!("http://{}/", self.address),
            ..settings(GeoSource::GeoIp)
        }
    }

    fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }
}

fn answer(mut stream: TcpStream, mood: Mood) -> std::io::Result<()> {
    let (mut first, mut accepts) = (String::new(), false);
    let mut reader = BufReader::new(stream.try_clone()?);
    reader.read_line(&mut first)?;
    for line in reader.lines() {
        let line = line?.to_ascii_lowercase();
        accepts |= line == "accept: application/json";
        if line.is_empty() {
            break;
        }
    }
    assert!(accepts, "no accept header");
    let path = first.split(' ').nth(1).expect("a path");
    let nonce = path.strip_prefix("/?nonce=").expect("a nonce");
    let nonce = match mood {
        Mood::OtherNonce => "x-nonce: 0000000000000000\r\n".to_owned(),
        Mood::NoNonce => String::new(),
        _ => format!("x-nonce: {nonce}\r\n"),
    };
    let (status, body) = match mood {
        Mood::Body(body) => (200, body.to_owned()),
        Mood::Huge => (
            200,
            format!("{{\"pad\":\"{}\",{}", "x".repeat(70_000), &PLACE[1..]),
        ),
        Mood::Status(status) => (status, PLACE.to_owned()),
        _ => (200, PLACE.to_owned()),
    };
    write!(
        stream,
        "HTTP/1.1 {status} So\r\n{nonce}content-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    )?;
    match mood {
        Mood::Stalls => stream.read(&mut [0]).map(|_| ()),
        Mood::Cut => stream.write_all(&body.as_bytes()[..20]),
        _ => stream.write_all(body.as_bytes()),
    }
}

#[test]
fn the_service_is_asked_once_and_remembered_beyond_a_detach() {
    let service = Service::start(Mood::Good);
    let site = place(service.settings());
    let expected = json!({"latitude": 52.52, "longitude": -13.4, "source": "geoip"});
    assert_eq!(asked(&site), expected);
    assert_eq!(asked(&site), expected);
    assert_eq!(service.requests(), 1);
    assert_eq!(kept(&site)["geo"]["update"], expected);
}

#[test]
fn a_cache_of_nothing_asks_each_time() {
    let service = Service::start(Mood::Good);
    let site = place(GeoSettings {
        cache: Duration::ZERO,
        ..service.settings()
    });
    asked(&site);
    asked(&site);
    assert_eq!(service.requests(), 2);
}

#[test]
fn what_the_service_may_not_answer() {
    for (mood, wanted) in [
        (Mood::OtherNonce, "something on the way answered"),
        (Mood::NoNonce, "something on the way answered"),
        (Mood::Status(500), "HTTP 500"),
        (Mood::Huge, "the answer has more than 65536 bytes"),
        (Mood::Body("<html>"), "the answer is no JSON"),
        (Mood::Body("[]"), "latitude or longitude is missing"),
        (
            Mood::Body(r#"{"latitude":"north","longitude":"1"}"#),
            "latitude or longitude is missing, or no number",
        ),
        (
            Mood::Body(r#"{"latitude":"90.1","longitude":"1"}"#),
            "out of range",
        ),
        (Mood::Cut, ""),
    ] {
        let service = Service::start(mood);
        let site = place(service.settings());
        let update = asked(&site);
        assert_eq!(update["error_code"], "HTTP_ERROR", "{mood:?}");
        let description = update["error_description"].as_str().expect("text");
        assert!(description.contains(wanted), "{mood:?}: {description}");
        assert!(
            description.starts_with("http://127.0.0.1:"),
            "{description}"
        );
        assert!(!description.contains("nonce="), "{description}");
        // An error is remembered, too: for a minute.
        assert_eq!(asked(&site), update);
        assert_eq!(service.requests(), 1, "{mood:?}");
    }
}

#[test]
fn each_source_has_half_of_what_the_extension_has() {
    let service = Service::start(Mood::Stalls);
    let hangs = settings(GeoSource::Command("sleep 1000".into()));
    let fixless = settings(gpsd(NO_FIX_YET, false));
    for (geo, code) in [
        (service.settings(), "HTTP_ERROR"),
        (hangs, "COMMAND_ERROR"),
        (fixless, "NO_FIX"),
    ] {
        let site = patient(geo, SECOND);
        let begin = Instant::now();
        assert_eq!(asked(&site)["error_code"], code);
        let took = begin.elapsed();
        assert!(took >= SECOND / 2 && took < 5 * SECOND, "{code}: {took:?}");
    }
}

#[test]
fn a_service_is_not_waited_for_after_a_detach_and_that_is_not_remembered() {
    let service = Service::start(Mood::Stalls);
    let site = patient(service.settings(), 60 * SECOND);
    let running = Running::start(&KIND, &site);
    running.attach();
    running.hear("location:request");
    let begin = Instant::now();
    while service.requests() == 0 {
        assert!(begin.elapsed() < 20 * SECOND, "never asked");
        std::thread::yield_now();
    }
    let begin = Instant::now();
    running.end();
    assert!(begin.elapsed() < 5 * SECOND, "{:?}", begin.elapsed());
    assert!(kept(&site).is_empty());
}

#[test]
fn plain_http_goes_no_further_than_this_machine() {
    let site = place(GeoSettings {
        url: "http://192.0.2.1/".into(),
        ..settings(GeoSource::GeoIp)
    });
    let update = asked(&site);
    assert_eq!(
        update["error_description"],
        "http://192.0.2.1/: plain http to 192.0.2.1 refused; NERVES_HUB_ALLOW_INSECURE=1 allows it"
    );
}

#[test]
fn answers_grow_old_and_errors_sooner() {
    let place = json!({"at": 1000, "update": {"latitude": 1}});
    let error = json!({"at": 1000, "update": {"error_code": "HTTP_ERROR"}});
    let hour = Duration::from_secs(3600);
    for (entry, now, good_for, is_good) in [
        (&place, 1000, hour, true),
        (&place, 4599, hour, true),
        (&place, 4600, hour, false),
        (&place, 999, hour, false),
        (&place, 1000, Duration::ZERO, false),
        (&error, 1059, hour, true),
        (&error, 1060, hour, false),
        (&error, 1009, Duration::from_secs(10), true),
        (&error, 1010, Duration::from_secs(10), false),
    ] {
        let found = recalled(entry, now, good_for);
        assert_eq!(found.is_some(), is_good, "{entry} {now} {good_for:?}");
    }
}

#[test]
fn a_fixed_place_is_where_it_was_put() {
    let site = place(settings(GeoSource::Fixed {
        latitude: -33.9,
        longitude: 18.4,
        accuracy: Some(12.5),
    }));
    let expected = json!({"latitude": -33.9, "longitude": 18.4, "source": "fixed", "accuracy": 13});
    assert_eq!(asked(&site), expected);
    assert!(kept(&site).is_empty());
}

#[test]
fn commands_say_where_or_why_not() {
    for (text, expected) in [
        (
            r#"echo '{"latitude":1.5,"longitude":"2","source":"lte","accuracy":3,"x":1}'"#,
            json!({"latitude": 1.5, "longitude": 2.0, "source": "lte", "accuracy": 3}),
        ),
        (
            r#"echo '{"latitude":1,"longitude":2}'"#,
            json!({"latitude": 1.0, "longitude": 2.0, "source": "command"}),
        ),
        (
            r#"echo '{"error_code":"NO_MODEM","error_description":"it is off"}'"#,
            json!({"error_code": "NO_MODEM", "error_description": "it is off"}),
        ),
        (
            "echo broken >&2; exit 3",
            json!({"error_code": "COMMAND_ERROR",
                   "error_description": "the command: exit status: 3: broken"}),
        ),
        (
            "echo 1,2",
            json!({"error_code": "COMMAND_ERROR",
                   "error_description": "the command printed no JSON: \
                                         trailing characters at line 1 column 2"}),
        ),
        (
            r#"echo '{"latitude":100,"longitude":2}'"#,
            json!({"error_code": "COMMAND_ERROR",
                   "error_description": "the command's answer: \
                                         latitude or longitude is out of range"}),
        ),
    ] {
        let site = place(settings(GeoSource::Command(text.into())));
        assert_eq!(asked(&site), expected, "{text}");
    }
}

#[test]
fn a_command_is_not_waited_for_after_a_detach() {
    let folder = tempfile::tempdir().expect("folder");
    let started = folder.path().join("started");
    let text = format!("echo x > {}; sleep 1000", started.display());
    let site = place(settings(GeoSource::Command(text)));
    let running = Running::start(&KIND, &site);
    running.attach();
    running.hear("location:request");
    let begin = Instant::now();
    while !started.exists() {
        assert!(begin.elapsed() < 20 * SECOND, "never started");
        std::thread::yield_now();
    }
    let begin = Instant::now();
    running.end();
    assert!(begin.elapsed() < 5 * SECOND);
}

/// A gpsd that says this once it is asked, and then waits for the client's end.
fn gpsd(says: &'static [u8], closes: bool) -> GeoSource {
    let listener = TcpListener::bind("127.0.0.1:0").expect("listener");
    let port = listener.local_addr().expect("address").port();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("client");
        let mut asked = String::new();
        let mut reader = BufReader::new(stream.try_clone().expect("clone"));
        reader.read_line(&mut asked).expect("a line");
        assert_eq!(asked, "?WATCH={\"enable\":true,\"json\":true};\n");
        // In pieces, as the network may have it.
        for piece in says.chunks(7) {
            if stream.write_all(piece).is_err() {
                return;
            }
        }
        if !closes {
            let _ = stream.read(&mut [0]);
        }
    });
    GeoSource::Gpsd {
        host: "127.0.0.1".into(),
        port,
    }
}

const NO_FIX_YET: &[u8] = b"{\"class\":\"VERSION\",\"proto_major\":3}\r\n\
    {\"class\":\"TPV\",\"mode\":1}\r\n{\"class\":\"SKY\",\"mode\":3,\"lat\":9,\"lon\":9}\r\n";

#[test]
fn gpsd_is_asked_for_its_next_fix() {
    let says = b"{\"class\":\"VERSION\"}\r\n{\"class\":\"TPV\",\"mode\":1}\r\n\
        {\"class\":\"TPV\",\"device\":\"/dev/ttyACM0\",\"mode\":3,\"lat\":47.25,\"lon\":8.5,\
        \"altHAE\":400.1,\"epx\":4.1,\"epy\":5.9}\r\n";
    let site = place(settings(gpsd(says, false)));
    let expected = json!({"latitude": 47.25, "longitude": 8.5, "source": "gps", "accuracy": 6});
    assert_eq!(asked(&site), expected);
}

#[test]
fn a_gpsd_that_is_none_or_goes_away() {
    let noise: &[u8] = Box::leak(vec![b'x'; 70_000].into_boxed_slice());
    for (says, closes, wanted) in [
        (NO_FIX_YET, true, "it closed the connection"),
        (noise, false, "it does not speak gpsd's protocol"),
    ] {
        let update = asked(&place(settings(gpsd(says, closes))));
        assert_eq!(update["error_code"], "GPSD_ERROR");
        let description = update["error_description"].as_str().expect("text");
        assert!(description.ends_with(wanted), "{description}");
    }
    let (_taken, port) = crate::extensions::testing::deaf_port();
    let nobody = GeoSource::Gpsd {
        host: "127.0.0.1".into(),
        port,
    };
    assert_eq!(asked(&place(settings(nobody)))["error_code"], "GPSD_ERROR");
}

#[test]
fn no_fix_in_time_is_said_to_be_that() {
    let GeoSource::Gpsd { host, port } = gpsd(NO_FIX_YET, false) else {
        unreachable!("it is one");
    };
    let site = place(settings(GeoSource::GeoIp));
    let (link, _handle) = link();
    let begin = Instant::now();
    let found = gpsd::ask(
        (&host, port),
        site.dialer.as_deref(),
        &link,
        begin + SECOND / 2,
    );
    assert_eq!(found.expect_err("no fix").code, "NO_FIX");
    assert!(begin.elapsed() < 5 * SECOND);
}
