//! fwup's framing: u32 big-endian length, then the payload (PROTOCOL §5).
//!
//! Towards fwup the payload is firmware; a zero length ends it. From fwup it is a
//! two-byte type and its data.

/// The longest message accepted from fwup; the real one stays below 1 KiB.
pub const MAX_MESSAGE: usize = 64 * 1024;

/// Ends the input.
pub const END_OF_INPUT: [u8; 4] = [0; 4];

/// One message from fwup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    Ok {
        code: u16,
        text: String,
    },
    Error {
        code: u16,
        text: String,
    },
    Warning {
        code: u16,
        text: String,
    },
    /// Per cent, 0 ..= 100.
    Progress(u8),
    /// A type this agent does not know: newer fwup, carry on.
    Unknown([u8; 2]),
}

/// What cannot be fwup's framing.
#[derive(Debug, PartialEq, Eq)]
pub struct FramingError(pub String);

/// Collects bytes from fwup's stdout and hands out whole messages.
#[derive(Default)]
pub struct Decoder {
    buffer: Vec<u8>,
}

impl Decoder {
    pub fn feed(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole message, `None` when more bytes are needed.
    ///
    /// # Errors
    /// A length that no fwup message has: the output is not framed.
    pub fn next_message(&mut self) -> Result<Option<Message>, FramingError> {
        let Some((header, rest)) = self.buffer.split_first_chunk::<4>() else {
            return Ok(None);
        };
        let length = u32::from_be_bytes(*header) as usize;
        if !(2..=MAX_MESSAGE).contains(&length) {
            let text = String::from_utf8_lossy(&self.buffer[..self.buffer.len().min(120)]);
            return Err(FramingError(format!("output is not framed: {text:?}")));
        }
        if rest.len() < length {
            return Ok(None);
        }
        let message = decode(&rest[..length]);
        self.buffer.drain(..4 + length);
        Ok(Some(message))
    }
}

fn decode(payload: &[u8]) -> Message {
    let number = payload
        .get(2..4)
        .map_or(0, |bytes| u16::from_be_bytes([bytes[0], bytes[1]]));
    let text = || String::from_utf8_lossy(payload.get(4..).unwrap_or_default()).into_owned();
    match &payload[..2] {
        b"OK" => Message::Ok {
            code: number,
            text: text(),
        },
        b"ER" => Message::Error {
            code: number,
            text: text(),
        },
        b"WN" => Message::Warning {
            code: number,
            text: text(),
        },
        b"PR" => Message::Progress(number.min(100) as u8),
        other => Message::Unknown([other[0], other[1]]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode_all(bytes: &[u8], step: usize) -> Vec<Message> {
        let mut decoder = Decoder::default();
        let mut messages = Vec::new();
        for piece in bytes.chunks(step) {
            decoder.feed(piece);
            while let Some(message) = decoder.next_message().expect("framed") {
                messages.push(message);
            }
        }
        assert!(decoder.buffer.is_empty(), "bytes left over");
        messages
    }

    #[test]
    fn a_recorded_success_is_read_at_every_split() {
        let bytes = include_bytes!("../../tests/data/fw/framing/ok-stream.bin");
        let whole = decode_all(bytes, bytes.len());
        assert_eq!(whole.first(), Some(&Message::Progress(0)));
        assert_eq!(
            whole.last(),
            Some(&Message::Ok {
                code: 0,
                text: String::new()
            })
        );
        for step in [1, 2, 3, 5, 7, 11] {
            assert_eq!(decode_all(bytes, step), whole);
        }
    }

    #[test]
    fn a_recorded_refusal_carries_its_text() {
        let bytes = include_bytes!("../../tests/data/fw/framing/unsigned.bin");
        let text = "Expecting signed firmware archive.".to_owned();
        assert_eq!(
            decode_all(bytes, 9).last(),
            Some(&Message::Error { code: 0, text })
        );
    }

    #[test]
    fn text_instead_of_frames_is_an_error_and_unknown_types_are_not() {
        let mut decoder = Decoder::default();
        decoder.feed(b"fwup: usage");
        assert!(decoder.next_message().is_err());
        assert_eq!(decode_all(b"\0\0\0\x02ZZ", 6), [Message::Unknown(*b"ZZ")]);
    }
}
