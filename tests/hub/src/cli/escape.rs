//! How a person leaves a terminal that sends every key to a device. Pure.

/// Ctrl-].
const LEAVE: u8 = 0x1d;

/// Follows what is typed: `~.` leaves where a line begins, `~~` there is a tilde.
#[derive(Debug)]
pub struct Escape {
    line_begins: bool,
    tilde: bool,
}

impl Default for Escape {
    fn default() -> Escape {
        Escape {
            line_begins: true,
            tilde: false,
        }
    }
}

impl Escape {
    /// What of `typed` goes to the device; true when the person wants to leave.
    pub fn feed(&mut self, typed: &[u8]) -> (Vec<u8>, bool) {
        let mut out = Vec::new();
        for &byte in typed {
            if byte == LEAVE {
                return (out, true);
            }
            let begins = std::mem::replace(&mut self.line_begins, matches!(byte, b'\r' | b'\n'));
            match (std::mem::take(&mut self.tilde), byte) {
                (true, b'.') => return (out, true),
                (true, b'~') => out.push(b'~'),
                (true, other) => out.extend([b'~', other]),
                (false, b'~') if begins => self.tilde = true,
                (false, other) => out.push(other),
            }
        }
        (out, false)
    }
}

#[cfg(test)]
mod tests {
    use super::Escape;

    fn typed(pieces: &[&str]) -> (String, bool) {
        let mut escape = Escape::default();
        let mut out = Vec::new();
        for piece in pieces {
            let (bytes, leave) = escape.feed(piece.as_bytes());
            out.extend(bytes);
            if leave {
                return (String::from_utf8(out).unwrap(), true);
            }
        }
        (String::from_utf8(out).unwrap(), false)
    }

    #[test]
    fn a_line_of_tilde_and_dot_leaves_and_nothing_else_with_a_tilde_does() {
        for (pieces, sent, leaves) in [
            (&["~."][..], "", true),
            (&["ls\r", "~", "."], "ls\r", true),
            (&["cd ~.\r"], "cd ~.\r", false),
            (&["~~.\r"], "~.\r", false),
            (&["~/bin/x\r"], "~/bin/x\r", false),
            (&["a\u{1d}b"], "a", true),
        ] {
            assert_eq!(typed(pieces), (sent.to_owned(), leaves), "{pieces:?}");
        }
    }
}
