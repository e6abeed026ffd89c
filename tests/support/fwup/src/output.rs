//! What the user sees: frames or plain text on stdout, and the progress shown there.

use std::io::Write;
use std::time::Instant;

/// How progress is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Off,
    Numeric,
    Normal,
    Framing,
}

/// Kinds of frames, by their two letters.
#[derive(Debug, Clone, Copy)]
pub enum Kind {
    Success,
    Error,
    Info,
    Progress,
}

impl Kind {
    fn tag(self) -> &'static [u8; 2] {
        match self {
            Kind::Success => b"OK",
            Kind::Error => b"ER",
            Kind::Info => b"WN",
            Kind::Progress => b"PR",
        }
    }
}

/// Everything written to stdout goes through here.
#[derive(Debug)]
pub struct Reporter {
    pub framing: bool,
    pub mode: Mode,
    /// Units that make 100 percent.
    pub total_units: u64,
    /// Archive bytes read so far.
    pub input_bytes: u64,
    current_units: u64,
    low: i64,
    range: i64,
    last_percent: i64,
    started: Option<Instant>,
}

impl Default for Reporter {
    fn default() -> Self {
        Reporter {
            framing: false,
            mode: Mode::Off,
            total_units: 0,
            input_bytes: 0,
            current_units: 0,
            low: 0,
            range: 100,
            last_percent: -1,
            started: None,
        }
    }
}

impl Reporter {
    /// Writes one frame, or the bare text when there is no framing.
    pub fn output(&self, kind: Kind, code: u16, text: &str) {
        let mut bytes = Vec::with_capacity(text.len() + 8);
        if self.framing {
            bytes.extend_from_slice(&(text.len() as u32 + 4).to_be_bytes());
            bytes.extend_from_slice(kind.tag());
            bytes.extend_from_slice(&code.to_be_bytes());
        } else if self.mode == Mode::Normal && !text.is_empty() {
            // Start over on the line of the progress bar.
            bytes.extend_from_slice(b"\r\x1b[K");
        }
        bytes.extend_from_slice(text.as_bytes());
        raw(&bytes);
    }

    pub fn error(&self, text: &str) {
        self.message(Kind::Error, text);
    }

    pub fn info(&self, text: &str) {
        self.message(Kind::Info, text);
    }

    fn message(&self, kind: Kind, text: &str) {
        if self.framing {
            self.output(kind, 0, text);
        } else {
            self.output(kind, 0, &format!("fwup: {text}\n"));
        }
    }

    /// Sets the range shown and reports its low end at once.
    pub fn start(&mut self, low: i64, high: i64) {
        self.low = low;
        self.range = high - low;
        self.show(low);
    }

    /// Counts units of finished work.
    pub fn advance(&mut self, units: u64) {
        if self.mode == Mode::Normal && self.started.is_none() && self.total_units > 0 {
            self.started = Some(Instant::now());
        }
        self.current_units = (self.current_units + units).min(self.total_units);
        let mut percent = self.low;
        if self.total_units > 0 {
            let done = i128::from(self.current_units) * i128::from(self.range)
                / i128::from(self.total_units);
            // The last percent is kept back until everything is closed.
            percent += (done as i64).min(self.range - 1);
        }
        self.show(percent);
    }

    pub fn complete(&mut self) {
        self.show(self.low + self.range);
        if self.mode != Mode::Normal {
            return;
        }
        let mut text = "\nSuccess!\n".to_string();
        if let Some(started) = self.started {
            let ms = started.elapsed().as_millis();
            if ms > 60_000 {
                let seconds = ms / 1000;
                text += &format!("Elapsed time: {} min {:02} s\n", seconds / 60, seconds % 60);
            } else {
                text += &format!("Elapsed time: {}.{:03} s\n", ms / 1000, ms % 1000);
            }
        }
        raw(text.as_bytes());
    }

    fn show(&mut self, percent: i64) {
        if percent <= self.last_percent {
            return;
        }
        self.last_percent = percent;
        match self.mode {
            Mode::Off => {}
            Mode::Numeric => raw(format!("{percent}\n").as_bytes()),
            Mode::Framing => self.output(Kind::Progress, percent as u16, ""),
            Mode::Normal => raw(self.bar(percent).as_bytes()),
        }
    }

    fn bar(&self, percent: i64) -> String {
        let filled = "=".repeat((percent.clamp(0, 100) * 36 / 100) as usize);
        let mut bar = format!("\r{percent:3}% [{filled:<36}]");
        if self.total_units > 0 {
            bar += &format!(
                " {} in / {} out     \x08\x08\x08\x08\x08",
                pretty(self.input_bytes),
                pretty(self.current_units)
            );
        }
        bar
    }
}

fn pretty(amount: u64) -> String {
    let units = [
        (1_000_000_000_000, "TB"),
        (1_000_000_000, "GB"),
        (1_000_000, "MB"),
        (1_000, "KB"),
    ];
    let (unit, name) = units
        .into_iter()
        .find(|(unit, _)| amount >= *unit)
        .unwrap_or((1, "bytes"));
    format!("{:.2} {name}", amount as f64 / unit as f64)
}

/// Writes bytes to stdout now. A closed stdout is no reason to stop an update half way.
pub fn raw(bytes: &[u8]) {
    let mut stdout = std::io::stdout().lock();
    let _ = stdout.write_all(bytes).and_then(|()| stdout.flush());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_shown_in_decimal_units() {
        assert_eq!(pretty(0), "0.00 bytes");
        assert_eq!(pretty(16_384), "16.38 KB");
        assert_eq!(pretty(2_500_000), "2.50 MB");
    }

    #[test]
    fn the_bar_grows_with_the_percentage() {
        let reporter = Reporter::default();
        assert_eq!(reporter.bar(0), format!("\r  0% [{}]", " ".repeat(36)));
        assert!(reporter.bar(50).contains(&"=".repeat(18)));
    }
}
