//! Bytes to lines, of which only the beginning is kept when they are long. Pure.

/// Puts lines together that come in pieces.
pub struct Splitter {
    partial: Vec<u8>,
    most: usize,
    /// What comes is not wanted before the next line.
    skips: bool,
}

impl Splitter {
    /// Of longer lines the first `most` bytes.
    pub fn new(most: usize) -> Self {
        Self {
            partial: Vec::new(),
            most,
            skips: false,
        }
    }

    /// `each` gets whole lines, without their ends.
    pub fn feed(&mut self, mut bytes: &[u8], each: &mut dyn FnMut(&[u8])) {
        while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            let (piece, rest) = (&bytes[..end], &bytes[end + 1..]);
            match (self.skips, self.partial.is_empty()) {
                (true, _) => {}
                (false, true) => each(&piece[..piece.len().min(self.most)]),
                (false, false) => {
                    self.keep(piece);
                    each(&self.partial);
                }
            }
            self.partial.clear();
            self.skips = false;
            bytes = rest;
        }
        if !self.skips {
            self.keep(bytes);
        }
    }

    fn keep(&mut self, piece: &[u8]) {
        let room = self.most.saturating_sub(self.partial.len());
        self.partial
            .extend_from_slice(&piece[..piece.len().min(room)]);
    }

    /// The end of everything is the last line's, too.
    pub fn finish(&mut self, each: &mut dyn FnMut(&[u8])) {
        if !self.partial.is_empty() {
            each(&self.partial);
        }
        self.partial.clear();
        self.skips = false;
    }

    /// What comes is the rest of a line that nobody has seen the beginning of.
    pub fn skip(&mut self) {
        self.skips = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_the_same_in_whatever_pieces_they_come() {
        let text = b"one\n\ntwo three\nfour five six\nsev";
        for size in 1..=text.len() {
            let mut splitter = Splitter::new(8);
            let mut lines: Vec<Vec<u8>> = Vec::new();
            let mut each = |line: &[u8]| lines.push(line.to_vec());
            for piece in text.chunks(size) {
                splitter.feed(piece, &mut each);
            }
            splitter.finish(&mut each);
            splitter.skip();
            splitter.feed(b"nobody's\neight\nnine", &mut each);
            let expected: [&[u8]; 6] = [b"one", b"", b"two thre", b"four fiv", b"sev", b"eight"];
            assert_eq!(lines, expected, "in pieces of {size}");
        }
    }
}
