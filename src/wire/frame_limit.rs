//! Skips WebSocket messages that are too large, so that one of them costs neither memory
//! nor the connection. Sits between the transport and the WebSocket library, which can
//! only refuse such a message by giving up the connection.
//!
//! Follows RFC 6455 §5.2 framing just far enough to find where frames end. Only whole
//! messages in one frame are skipped; a fragmented message that grows past the limit is
//! left to the library's own limit (the link is then made anew).

use std::io::{self, Read, Write};

const BUFFER: usize = 4096;
/// Length of `HTTP/1.1 101`.
const STATUS: usize = 12;
const END_OF_HEAD: &[u8; 4] = b"\r\n\r\n";

/// A reader that drops frames above a limit. Writing passes through.
///
/// It is in place from the first byte: the HTTP head of the upgrade passes unchanged, and
/// no read returns bytes of both head and frames.
pub struct FrameLimit<S> {
    inner: S,
    limit: u64,
    state: State,
    /// Bytes read from `inner` and not yet looked at: `buffer[position..filled]`.
    buffer: Box<[u8]>,
    position: usize,
    filled: usize,
    /// Bytes of a header not yet complete, or complete and not yet handed on.
    header: Vec<u8>,
    handed: usize,
    skipped: u64,
    /// The first bytes of the head: `HTTP/1.1 101`.
    status: Vec<u8>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// In the HTTP head; so many bytes of its closing `\r\n\r\n` seen.
    Head {
        matched: usize,
    },
    /// The upgrade was refused: what follows is a body, not frames.
    Refused,
    Header,
    Hand {
        payload: u64,
    },
    Payload(u64),
    Skip(u64),
}

impl<S> FrameLimit<S> {
    pub fn new(inner: S, limit: u64) -> Self {
        Self {
            inner,
            limit,
            state: State::Head { matched: 0 },
            buffer: vec![0; BUFFER].into_boxed_slice(),
            position: 0,
            filled: 0,
            header: Vec::with_capacity(14),
            handed: 0,
            skipped: 0,
            status: Vec::with_capacity(STATUS),
        }
    }

    pub fn get_ref(&self) -> &S {
        &self.inner
    }

    pub fn get_mut(&mut self) -> &mut S {
        &mut self.inner
    }

    /// How many frames were dropped since the last call.
    pub fn take_skipped(&mut self) -> u64 {
        std::mem::take(&mut self.skipped)
    }

    fn header_done(&mut self) -> Option<State> {
        let second = *self.header.get(1)?;
        let extended = match second & 0x7f {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let mask = if second & 0x80 == 0 { 0 } else { 4 };
        if self.header.len() < 2 + extended + mask {
            return None;
        }
        let payload = match extended {
            0 => u64::from(second & 0x7f),
            _ => self.header[2..2 + extended]
                .iter()
                .fold(0, |sum, byte| sum << 8 | u64::from(*byte)),
        };
        let whole_message = self.header[0] & 0x80 != 0 && self.header[0] & 0x0f != 0;
        if payload > self.limit && whole_message {
            self.header.clear();
            self.skipped += 1;
            return Some(State::Skip(payload));
        }
        Some(State::Hand { payload })
    }

    fn hand(&mut self, payload: u64, out: &mut [u8]) -> usize {
        let rest = &self.header[self.handed..];
        let count = rest.len().min(out.len());
        out[..count].copy_from_slice(&rest[..count]);
        self.handed += count;
        if self.handed == self.header.len() {
            self.header.clear();
            self.handed = 0;
            self.state = if payload == 0 {
                State::Header
            } else {
                State::Payload(payload)
            };
        }
        count
    }
}

impl<S: Read> FrameLimit<S> {
    /// Makes sure there is something to look at; false at the end of the stream.
    fn fill(&mut self) -> io::Result<bool> {
        if self.position == self.filled {
            self.position = 0;
            self.filled = 0;
            self.filled = self.inner.read(&mut self.buffer)?;
        }
        Ok(self.position < self.filled)
    }

    fn read_head(&mut self, mut matched: usize, out: &mut [u8]) -> usize {
        let mut count = 0;
        while count < out.len() && self.position < self.filled && matched < END_OF_HEAD.len() {
            let byte = self.buffer[self.position];
            matched = match byte {
                _ if byte == END_OF_HEAD[matched] => matched + 1,
                b'\r' => 1,
                _ => 0,
            };
            if self.status.len() < STATUS {
                self.status.push(byte);
            }
            out[count] = byte;
            count += 1;
            self.position += 1;
        }
        self.state = match matched {
            4 if !self.status.ends_with(b" 101") => {
                // The rest of the body that is here goes along: it may say why.
                count += self.take(u64::MAX, Some(&mut out[count..]));
                State::Refused
            }
            4 => State::Header,
            _ => State::Head { matched },
        };
        count
    }

    fn read_header_byte(&mut self) {
        self.header.push(self.buffer[self.position]);
        self.position += 1;
        if let Some(state) = self.header_done() {
            self.state = state;
        }
    }

    /// Takes at most `left` bytes: copied out, or dropped when `out` is `None`.
    fn take(&mut self, left: u64, out: Option<&mut [u8]>) -> usize {
        let available = &self.buffer[self.position..self.filled];
        let count = available
            .len()
            .min(usize::try_from(left).unwrap_or(usize::MAX));
        let count = match out {
            Some(out) => {
                let count = count.min(out.len());
                out[..count].copy_from_slice(&available[..count]);
                count
            }
            None => count,
        };
        self.position += count;
        count
    }
}

impl<S: Read> Read for FrameLimit<S> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if out.is_empty() {
            return Ok(0);
        }
        loop {
            if let State::Hand { payload } = self.state {
                return Ok(self.hand(payload, out));
            }
            if !self.fill()? {
                return Ok(0);
            }
            match self.state {
                State::Head { matched } => return Ok(self.read_head(matched, out)),
                State::Refused => return Ok(self.take(u64::MAX, Some(out))),
                State::Header => self.read_header_byte(),
                State::Hand { .. } => {}
                State::Payload(left) => {
                    let left_after = |count: usize| left - count as u64;
                    let count = self.take(left, Some(out));
                    self.state = match left_after(count) {
                        0 => State::Header,
                        left => State::Payload(left),
                    };
                    return Ok(count);
                }
                State::Skip(left) => {
                    let count = self.take(left, None) as u64;
                    self.state = match left - count {
                        0 => State::Header,
                        left => State::Skip(left),
                    };
                }
            }
        }
    }
}

impl<S: Write> Write for FrameLimit<S> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.inner.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Trickle(Vec<u8>, usize);

    impl Read for Trickle {
        fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
            let count = out.len().min(self.1).min(self.0.len());
            out[..count].copy_from_slice(&self.0[..count]);
            self.0.drain(..count);
            Ok(count)
        }
    }

    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut bytes = vec![first];
        match payload.len() {
            length @ 0..126 => bytes.push(length as u8),
            length @ 126..65536 => {
                bytes.push(126);
                bytes.extend((length as u16).to_be_bytes());
            }
            length => {
                bytes.push(127);
                bytes.extend((length as u64).to_be_bytes());
            }
        }
        bytes.extend(payload);
        bytes
    }

    fn through(input: Vec<u8>, step: usize, limit: u64) -> (Vec<u8>, u64) {
        let head = b"HTTP/1.1 101 x\r\na: b\r\n\r\n";
        let mut reader = FrameLimit::new(Trickle([head, &input[..]].concat(), step), limit);
        let mut out = Vec::new();
        reader.read_to_end(&mut out).expect("read");
        assert_eq!(&out[..head.len()], head);
        (out.split_off(head.len()), reader.take_skipped())
    }

    #[test]
    fn frames_within_the_limit_pass_unchanged_at_every_split() {
        let input = [
            frame(0x81, b"hello"),
            frame(0x82, &[7; 300]),
            frame(0x89, b""),
            frame(0x81, &[9; 70_000]),
        ]
        .concat();
        for step in [1, 2, 3, 7, 4096] {
            assert_eq!(through(input.clone(), step, 100_000), (input.clone(), 0));
        }
    }

    #[test]
    fn a_frame_above_the_limit_vanishes_and_its_neighbours_stay() {
        let (before, after) = (frame(0x81, b"a"), frame(0x81, b"b"));
        let input = [before.clone(), frame(0x81, &[b'x'; 70_000]), after.clone()].concat();
        for step in [1, 5, 4096] {
            assert_eq!(
                through(input.clone(), step, 1000),
                ([before.clone(), after.clone()].concat(), 1)
            );
        }
    }

    #[test]
    fn fragments_are_left_to_the_library() {
        let input = [frame(0x01, &[b'x'; 2000]), frame(0x80, b"end")].concat();
        assert_eq!(through(input.clone(), 64, 1000), (input, 0));
    }
}
