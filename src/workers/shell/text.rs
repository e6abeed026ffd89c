//! Bytes of a terminal to text, piece by piece. Pure.

/// Keeps a character that a read has cut until the rest of it comes.
#[derive(Debug, Default)]
pub struct Decoder {
    cut: Vec<u8>,
}

impl Decoder {
    /// Appends what `bytes` continue to; U+FFFD stands for what is no UTF-8.
    pub fn decode(&mut self, bytes: &[u8], text: &mut String) {
        let joined;
        let mut rest = bytes;
        if !self.cut.is_empty() {
            joined = [self.cut.as_slice(), bytes].concat();
            self.cut.clear();
            rest = &joined;
        }
        for chunk in rest.utf8_chunks() {
            text.push_str(chunk.valid());
            let invalid = chunk.invalid();
            let is_last = std::ptr::eq(invalid.as_ptr_range().end, rest.as_ptr_range().end);
            match std::str::from_utf8(invalid) {
                // The beginning of a character, and nothing after it yet.
                Err(error) if is_last && error.error_len().is_none() => {
                    self.cut.extend_from_slice(invalid);
                }
                Err(_) => text.push(char::REPLACEMENT_CHARACTER),
                Ok(_) => {}
            }
        }
    }

    /// Nothing more comes: a cut character stays one.
    pub fn end(&mut self, text: &mut String) {
        if !std::mem::take(&mut self.cut).is_empty() {
            text.push(char::REPLACEMENT_CHARACTER);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn in_pieces(bytes: &[u8], size: usize) -> String {
        let (mut decoder, mut text) = (Decoder::default(), String::new());
        for piece in bytes.chunks(size) {
            decoder.decode(piece, &mut text);
        }
        decoder.end(&mut text);
        text
    }

    #[test]
    fn text_is_the_same_wherever_it_is_cut() {
        let text = "a\u{1b}[1mé€𝄞\0ÿ — 日本語 \u{10ffff}\r\n".repeat(3);
        for size in 1..=text.len() {
            assert_eq!(in_pieces(text.as_bytes(), size), text, "{size}");
        }
    }

    #[test]
    fn garbage_becomes_the_replacement_character_wherever_it_is_cut() {
        let all: Vec<u8> = (0..=255).rev().chain(0..=255).collect();
        for bytes in [
            &all[..],
            b"\xff\xfe\x80 ok \xc3",
            b"\xe2\x82",
            b"\xf0\x9f\x98 \xed\xa0\x80 \xc0\xaf \xf4\x90\x80\x80",
        ] {
            let expected = String::from_utf8_lossy(bytes);
            for size in 1..=bytes.len() {
                assert_eq!(in_pieces(bytes, size), expected, "{size}");
            }
        }
    }

    #[test]
    fn a_cut_character_waits_and_what_is_whole_does_not() {
        let (mut decoder, mut text) = (Decoder::default(), String::new());
        decoder.decode(b"ab\xe2\x82", &mut text);
        assert_eq!(text, "ab");
        decoder.decode(b"", &mut text);
        assert_eq!(text, "ab");
        decoder.decode(b"\xac!", &mut text);
        assert_eq!(text, "ab€!");
    }
}
