//! gpsd's protocol, as far as it takes to get one fix: JSON lines over TCP.

use std::io;
use std::time::Instant;

use serde_json::Value;

use super::{TICK, Trouble, location};
use crate::extensions::Link;
use crate::system::dial::Dialer;
use crate::system::waker::Waker;

const WATCH: &[u8] = b"?WATCH={\"enable\":true,\"json\":true};\n";
/// gpsd's own limit is 10240 bytes.
const MAX_LINE: usize = 64 * 1024;

/// Waits for the next report with a position in it.
pub(super) fn ask(
    (host, port): (&str, u16),
    dialer: Option<&Dialer>,
    link: &Link,
    ends: Instant,
) -> Result<Value, Trouble> {
    let trouble =
        |text: String| Trouble::new("GPSD_ERROR", format!("gpsd at {host}:{port}: {text}"));
    let waker = Waker::new().map_err(|error| trouble(error.to_string()))?;
    let dialer = dialer.ok_or_else(|| trouble("there is no way to reach it".to_owned()))?;
    // Nearby, whatever the proxy is for.
    let direct = Dialer {
        proxy: None,
        ..dialer.clone()
    };
    let mut stream = direct
        .dial(host, port, false, None, Some(ends), &waker)
        .map_err(|error| trouble(error.text))?;
    let sent = stream.send_all(WATCH, ends, &waker);
    sent.map_err(|error| trouble(error.to_string()))?;
    let (mut line, mut buffer) = (Vec::new(), [0; 1024]);
    loop {
        let now = Instant::now();
        if now >= ends || link.is_over() {
            let text = format!("gpsd at {host}:{port} had no fix in time");
            return Err(Trouble::new("NO_FIX", text));
        }
        let count = match stream.receive(&mut buffer, ends.min(now + TICK), &waker) {
            Ok(0) => return Err(trouble("it closed the connection".to_owned())),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::TimedOut => continue,
            Err(error) => return Err(trouble(error.to_string())),
        };
        for byte in &buffer[..count] {
            match byte {
                b'\n' => {
                    if let Some(found) = fix(&line) {
                        return Ok(found);
                    }
                    line.clear();
                }
                _ if line.len() >= MAX_LINE => {
                    return Err(trouble("it does not speak gpsd's protocol".to_owned()));
                }
                byte => line.push(*byte),
            }
        }
    }
}

/// The position in a report, when it is known at least in two dimensions.
fn fix(line: &[u8]) -> Option<Value> {
    let report: Value = serde_json::from_slice(line).ok()?;
    let number = |name: &str| report.get(name).and_then(Value::as_f64);
    if report.get("class")?.as_str() != Some("TPV") || report.get("mode")?.as_u64()? < 2 {
        return None;
    }
    let accuracy = number("eph").or_else(|| Some(number("epx")?.max(number("epy")?)));
    // The name by which the hub knows that it is exact.
    location((number("lat")?, number("lon")?), "gps", accuracy).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_report_needs_a_position() {
        let fixed = |report: Value| fix(report.to_string().as_bytes());
        let place = json!({"latitude": 1.5, "longitude": -2.0, "source": "gps"});
        let with = |accuracy: u64| {
            let mut place = place.clone();
            place["accuracy"] = accuracy.into();
            Some(place)
        };
        let report = json!({"class": "TPV", "mode": 2, "lat": 1.5, "lon": -2});
        let changed = |name: &str, value: Value| {
            let mut report = report.clone();
            report[name] = value;
            report
        };
        assert_eq!(fixed(report.clone()), Some(place.clone()));
        assert_eq!(fixed(changed("eph", json!(3.2))), with(4));
        assert_eq!(fixed(changed("epx", json!(3.2))), Some(place.clone()));
        let mut both = changed("epx", json!(3.2));
        both["epy"] = json!(7);
        assert_eq!(fixed(both), with(7));
        for (name, value) in [
            ("class", json!("SKY")),
            ("mode", json!(1)),
            ("mode", json!("3")),
            ("lat", json!(91)),
            ("lon", Value::Null),
        ] {
            assert_eq!(fixed(changed(name, value.clone())), None, "{name} {value}");
        }
        assert_eq!(fix(b"garbage"), None);
    }
}
