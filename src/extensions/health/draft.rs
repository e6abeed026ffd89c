//! A report in the making. Owns what has been gathered, and the bounds on what others give.

use std::sync::{Mutex, PoisonError};

use serde_json::{Map, Value};

use super::given::{self, Given, MOST};

/// What goes into a report, and what went wrong.
#[derive(Default)]
pub struct Draft {
    pub metrics: Map<String, Value>,
    pub metadata: Map<String, Value>,
    pub checks: Map<String, Value>,
    pub alarms: Map<String, Value>,
    pub connectivity: Map<String, Value>,
    /// `PART: why; …`, for the alarm.
    pub failures: String,
    /// For the log.
    pub ignored: Vec<String>,
    /// How many of each kind the folder has given.
    counts: [usize; 4],
}

impl Draft {
    pub fn measure(&mut self, name: &str, value: Value) {
        put(&mut self.metrics, name, value);
    }

    pub fn fail(&mut self, part: &str, why: &str) {
        let text = &mut self.failures;
        if !text.is_empty() {
            *text += "; ";
        }
        *text += part;
        *text += ": ";
        *text += why;
    }

    /// Takes a value of the folder's.
    ///
    /// # Errors
    /// It is not one, or one too many.
    pub fn give(&mut self, kind: Given, name: &str, value: &Value) -> Result<(), String> {
        let value = given::check(kind, name, value)?;
        let count = &mut self.counts[kind as usize];
        if *count >= MOST {
            return Err(format!("more than {MOST} {}", kind.name()));
        }
        *count += 1;
        put(self.of(kind), name, value);
        Ok(())
    }

    /// Adds what clients of the control socket gave.
    pub fn add_kept(&mut self, kept: &Mutex<Map<String, Value>>, name: &str) {
        let kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
        for kind in Given::ALL {
            if let Some(values) = kept
                .get(name)
                .and_then(|kept| kept[kind.name()].as_object())
            {
                copy(values, self.of(kind));
            }
        }
    }

    fn of(&mut self, kind: Given) -> &mut Map<String, Value> {
        match kind {
            Given::Metrics => &mut self.metrics,
            Given::Metadata => &mut self.metadata,
            Given::Checks => &mut self.checks,
            Given::Alarms => &mut self.alarms,
        }
    }
}

// In the binary, each of a map's other methods is one or two KiB more.

pub fn put(map: &mut Map<String, Value>, name: &str, value: Value) {
    map.insert(name.to_owned(), value);
}

pub fn copy(from: &Map<String, Value>, to: &mut Map<String, Value>) {
    for (name, value) in from {
        put(to, name, value.clone());
    }
}

/// A number of per cent with one decimal; `whole` is not 0.
pub fn percent(part: u64, whole: u64) -> Value {
    let tenths = (part as f64 / whole as f64 * 1000.0 + 0.5) as u64;
    Value::from(tenths as f64 / 10.0)
}
