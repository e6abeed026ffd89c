//! What an installer program says: text lines, one message each (etc/doc/installers.md).
//!
//! Lenient: what is no message is text for the log, and a line without an end is cut.

/// The longest line kept; the rest of a longer one is dropped.
pub const MAX_LINE: usize = 1024;

/// One line, understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Line<'a> {
    /// Per cent, 0 ..= 100.
    Progress(u8),
    Info(&'a str),
    Warning(&'a str),
    Error(&'a str),
    Other(&'a str),
}

impl<'a> Line<'a> {
    pub fn parse(text: &'a str) -> Self {
        let (word, rest) = text.split_once(' ').unwrap_or((text, ""));
        let rest = rest.trim();
        match word {
            "progress" => match rest.parse() {
                Ok(percent) if percent <= 100 => Self::Progress(percent),
                _ => Self::Other(text),
            },
            "info" => Self::Info(rest),
            "warning" => Self::Warning(rest),
            "error" => Self::Error(rest),
            _ => Self::Other(text),
        }
    }
}

/// Collects bytes and hands out whole lines.
#[derive(Default)]
pub struct Lines(Vec<u8>);

impl Lines {
    /// The lines that these bytes complete; none longer than [`MAX_LINE`], no empty ones,
    /// none with control characters: they are going into a log.
    pub fn feed(&mut self, bytes: &[u8]) -> Vec<String> {
        let mut lines = Vec::new();
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let text = piece.strip_suffix(b"\n").unwrap_or(piece);
            let room = MAX_LINE.saturating_sub(self.0.len()).min(text.len());
            self.0.extend_from_slice(&text[..room]);
            if text.len() < piece.len() {
                lines.extend(self.end());
            }
        }
        lines
    }

    /// What is left without a line end.
    pub fn end(&mut self) -> Option<String> {
        let text = String::from_utf8_lossy(&self.0).replace(char::is_control, " ");
        self.0.clear();
        Some(text.trim().to_owned()).filter(|text| !text.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages() {
        for (text, line) in [
            ("progress 0", Line::Progress(0)),
            ("progress 100", Line::Progress(100)),
            ("progress 101", Line::Other("progress 101")),
            ("progress", Line::Other("progress")),
            ("progress 4.2", Line::Other("progress 4.2")),
            ("progress -1", Line::Other("progress -1")),
            ("info writing slot b", Line::Info("writing slot b")),
            ("warning  slow ", Line::Warning("slow")),
            ("error no disk", Line::Error("no disk")),
            ("error", Line::Error("")),
            ("errors happen", Line::Other("errors happen")),
            ("Error no", Line::Other("Error no")),
        ] {
            assert_eq!(Line::parse(text), line, "{text}");
        }
    }

    #[test]
    fn lines_however_they_are_cut() {
        let bytes = b"info one\n\nprogress 5\r\nthe \x1b[31mrest";
        for step in 1..bytes.len() {
            let mut lines = Lines::default();
            let mut all: Vec<String> = bytes
                .chunks(step)
                .flat_map(|piece| lines.feed(piece))
                .collect();
            all.extend(lines.end());
            assert_eq!(all, ["info one", "progress 5", "the  [31mrest"]);
            assert_eq!(lines.end(), None);
        }
    }

    #[test]
    fn a_line_without_an_end_takes_no_more_memory_than_a_long_one() {
        let mut lines = Lines::default();
        for _ in 0..1000 {
            assert!(lines.feed(&[b'x'; 4096]).is_empty());
        }
        assert!(lines.0.capacity() <= 2 * MAX_LINE);
        assert_eq!(
            lines.feed(b"\nnext\n"),
            ["x".repeat(MAX_LINE), "next".into()]
        );
    }
}
