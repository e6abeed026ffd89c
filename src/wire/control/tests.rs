use serde_json::json;

use proptest::prelude::*;

use super::*;
use crate::config::Secret;
use crate::wire::Offer;

fn request(text: &str) -> Method {
    match parse(text.as_bytes()) {
        Ok(Incoming::Request(request)) => request.method,
        other => panic!("{text}: {other:?}"),
    }
}

fn refusal(text: &[u8]) -> (Value, Fault) {
    match parse(text) {
        Err(Outgoing::Error { id, fault }) => (id, fault),
        other => panic!("{}: {other:?}", String::from_utf8_lossy(text)),
    }
}

#[test]
fn requests_become_methods() {
    for (text, expected) in [
        (r#"{"method":"status"}"#, Method::Status),
        (
            r#"{"id":null,"method":"connected","params":null}"#,
            Method::Connected,
        ),
        (
            r#"{"method":"reconnect","params":{"later":"known"}}"#,
            Method::Reconnect,
        ),
        (r#"{"method":"update-status"}"#, Method::UpdateStatus),
        (r#"{"method":"validate"}"#, Method::Validate),
        (r#"{"method":"validated"}"#, Method::Validated),
        (
            r#"{"method":"alarm-set","params":{"name":"Hot","description":"81 C"}}"#,
            Method::SetAlarm {
                name: "Hot".into(),
                description: "81 C".into(),
            },
        ),
        (
            r#"{"method":"alarm-set","params":{"name":"Hot"}}"#,
            Method::SetAlarm {
                name: "Hot".into(),
                description: String::new(),
            },
        ),
        (
            r#"{"method":"alarm-clear","params":{"name":"Hot"}}"#,
            Method::ClearAlarm("Hot".into()),
        ),
        (r#"{"method":"alarms"}"#, Method::ListAlarms),
        (
            r#"{"method":"subscribe","params":{"events":["alarm","update"]}}"#,
            Method::Subscribe([Kind::Update, Kind::Alarm].into_iter().collect()),
        ),
        (
            r#"{"method":"subscribe"}"#,
            Method::Subscribe(Kind::ALL.into_iter().collect()),
        ),
        (r#"{"method":"decide"}"#, Method::Decide),
        (
            r#"{"method":"send-file","params":{"path":"/tmp/a"}}"#,
            Method::SendFile {
                path: "/tmp/a".into(),
                progress: false,
            },
        ),
        (r#"{"method":"cancel-file"}"#, Method::CancelFile),
        (
            r#"{"method":"apply","params":{"path":"/usb/a.fw","force":true}}"#,
            Method::Apply {
                path: "/usb/a.fw".into(),
                force: true,
                progress: false,
            },
        ),
        (
            r#"{"method":"health"}"#,
            Method::Extension {
                name: "health",
                what: "report",
                params: json!({}),
            },
        ),
        (
            r#"{"method":"log","params":{"message":"x"}}"#,
            Method::Extension {
                name: "logging",
                what: "line",
                params: json!({"message": "x"}),
            },
        ),
    ] {
        assert_eq!(request(text), expected, "{text}");
    }
    let verdict = parse(br#"{"question":3,"answer":"apply"}"#);
    let text = "apply".to_owned();
    assert_eq!(verdict, Ok(Incoming::Verdict { question: 3, text }));
}

#[test]
fn only_statuses_the_hub_digests_are_passed_on() {
    let send = |params: &str| {
        let text = format!(r#"{{"method":"send-status","params":{params}}}"#);
        match request(&text) {
            Method::SendStatus(push) => push,
            other => panic!("{other:?}"),
        }
    };
    let reason = || "r".to_owned();
    assert_eq!(send(r#"{"status":"received"}"#), DevicePush::Received);
    assert_eq!(
        send(r#"{"status":"updating","value":7}"#),
        DevicePush::Progress {
            stage: Stage::Updating,
            value: 7
        }
    );
    assert_eq!(
        send(r#"{"status":"ignored","reason":"r"}"#),
        DevicePush::Ignored { reason: reason() }
    );
    assert_eq!(
        send(r#"{"status":"rescheduled","seconds":60,"reason":"r"}"#),
        DevicePush::Rescheduled {
            delay: 60_000,
            reason: Some(reason())
        }
    );
    for params in [
        r#"{}"#,
        r#"{"status":"exploded"}"#,
        r#"{"status":"updating"}"#,
        r#"{"status":"updating","value":101}"#,
        r#"{"status":"updating","value":"7"}"#,
        r#"{"status":"ignored"}"#,
        r#"{"status":"rescheduled"}"#,
        r#"{"status":"rescheduled","seconds":-1}"#,
        r#"{"status":"failed","reason":7}"#,
    ] {
        let text = format!(r#"{{"method":"send-status","params":{params}}}"#);
        assert_eq!(refusal(text.as_bytes()).1.code, Code::BadParams, "{text}");
    }
}

#[test]
fn nonsense_is_answered_with_its_id_where_it_has_one() {
    for (text, id, code) in [
        ("", json!(null), Code::BadRequest),
        ("\u{0}\u{1}", json!(null), Code::BadRequest),
        ("[]", json!(null), Code::BadRequest),
        ("{}", json!(null), Code::BadRequest),
        (
            r#"{"id":{},"method":"status"}"#,
            json!(null),
            Code::BadRequest,
        ),
        (r#"{"id":7}"#, json!(7), Code::BadRequest),
        (r#"{"id":7,"method":8}"#, json!(7), Code::BadRequest),
        (
            r#"{"id":"a","method":"explode"}"#,
            json!("a"),
            Code::UnknownMethod,
        ),
        (
            r#"{"id":1,"method":"status","params":[]}"#,
            json!(1),
            Code::BadParams,
        ),
        (
            r#"{"id":1,"method":"alarm-set"}"#,
            json!(1),
            Code::BadParams,
        ),
        (
            r#"{"id":1,"method":"alarm-clear","params":{"name":""}}"#,
            json!(1),
            Code::BadParams,
        ),
        (
            r#"{"id":1,"method":"subscribe","params":{"events":[]}}"#,
            json!(1),
            Code::BadParams,
        ),
        (
            r#"{"id":1,"method":"subscribe","params":{"events":["x"]}}"#,
            json!(1),
            Code::BadParams,
        ),
        (
            r#"{"id":1,"method":"subscribe","params":{"events":"all"}}"#,
            json!(1),
            Code::BadParams,
        ),
        (r#"{"answer":"apply"}"#, json!(null), Code::BadRequest),
        (
            r#"{"question":1,"answer":{}}"#,
            json!(null),
            Code::BadRequest,
        ),
    ] {
        let (found, fault) = refusal(text.as_bytes());
        assert_eq!((found, fault.code), (id, code), "{text}: {fault}");
    }
    let long = format!(r#"{{"id":"{}","method":"status"}}"#, "x".repeat(MAX_ID + 1));
    assert_eq!(refusal(long.as_bytes()).1.code, Code::BadRequest);
    assert_eq!(refusal(&[b'['; MAX_LINE]).1.code, Code::BadRequest);
    let long = format!(r#"{{"method":"{}"}}"#, "x".repeat(1000));
    let fault = refusal(long.as_bytes()).1;
    assert!(fault.message.len() < 100, "{fault}");
}

#[test]
fn what_is_said_is_one_line_of_json_each() {
    let url = Secret::new("https://files/fw?sig=secret");
    let offer = Box::new(Offer {
        uuid: "u".into(),
        version: "2\n".into(),
        product: "p".into(),
        url,
        size: Some(9),
        checksum: None,
        partials: Vec::new(),
    });
    let update = json!({"uuid": "u", "version": "2\n", "product": "p", "size": 9});
    let progress = Occurrence::UpdateProgress {
        uuid: "u".into(),
        stage: Stage::Downloading,
        percent: 4,
    };
    for (said, expected, is_answer) in [
        (
            Outgoing::Result {
                id: json!(1),
                result: json!({"a": 1}),
            },
            json!({"id": 1, "result": {"a": 1}}),
            true,
        ),
        (
            Outgoing::nonsense(Code::Busy, "no"),
            json!({"id": null, "error": {"code": "busy", "message": "no"}}),
            true,
        ),
        (
            Outgoing::Event(Occurrence::UpdateOffered(offer.clone())),
            json!({"event": "update-offered", "update": update}),
            false,
        ),
        (
            Outgoing::Event(progress),
            json!({"event": "update-progress", "uuid": "u", "stage": "downloading", "percent": 4}),
            false,
        ),
        (
            Outgoing::Question(3, Question::UpdateAvailable(offer)),
            json!({"question": 3, "ask": "update-available", "about": update}),
            false,
        ),
        (
            Outgoing::Question(4, Question::RebootRequest("hub")),
            json!({"question": 4, "ask": "reboot-request", "about": {"why": "hub"}}),
            false,
        ),
        (Outgoing::Withdrawn(3), json!({"withdrawn": 3}), false),
    ] {
        let line = said.line();
        assert_eq!(line.matches('\n').count(), 1, "{line}");
        assert!(line.ends_with('\n') && !line.contains("secret"), "{line}");
        let value: Value = serde_json::from_str(&line).expect("JSON");
        assert_eq!(value, expected);
        assert_eq!(said.is_answer(), is_answer);
    }
    let greeting: Value = serde_json::from_str(&hello("nerveshub-agent/1", "d")).expect("JSON");
    assert_eq!(greeting["hello"]["protocol"], PROTOCOL);
    assert_eq!(greeting["hello"]["identifier"], "d");
}

proptest! {
    #[test]
    fn any_bytes_are_answered(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = parse(&bytes);
    }

    #[test]
    fn any_words_of_the_protocol_are_answered(
        words in prop::collection::vec(
            prop::sample::select(vec![
                "{", "}", "[", "]", ":", ",", "\"id\"", "\"method\"", "\"params\"", "\"status\"",
                "\"send-status\"", "\"subscribe\"", "\"events\"", "\"answer\"", "\"question\"",
                "\"name\"", "1", "-1", "1e400", "null", "\"\\ud800\"",
            ]),
            0..40,
        ),
    ) {
        let _ = parse(words.concat().as_bytes());
    }
}
