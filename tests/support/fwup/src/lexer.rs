//! Tokens of a `meta.conf` file, by libconfuse's quoting and substitution rules.

use crate::failure::{Failure, Result, fail};

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Token {
    Text(String),
    Assign,
    Append,
    Open,
    Close,
    Comma,
    ParenOpen,
    ParenClose,
    End,
}

/// Looks up `${NAME}`; `None` when it is not defined.
pub type Lookup<'a> = &'a dyn Fn(&str) -> Option<String>;

pub struct Lexer<'a> {
    text: &'a [u8],
    at: usize,
    pub line: usize,
    lookup: Lookup<'a>,
}

impl<'a> Lexer<'a> {
    pub fn new(text: &'a [u8], lookup: Lookup<'a>) -> Self {
        Lexer {
            text,
            at: 0,
            line: 1,
            lookup,
        }
    }

    /// A failure in the form the parser prints on stderr.
    pub fn failure(&self, message: impl std::fmt::Display) -> Failure {
        Failure(format!("[buf]:{}: {message}", self.line))
    }

    fn peek(&self, ahead: usize) -> u8 {
        self.text.get(self.at + ahead).copied().unwrap_or(0)
    }

    fn bump(&mut self) -> u8 {
        let byte = self.peek(0);
        if byte == b'\n' {
            self.line += 1;
        }
        self.at += 1;
        byte
    }

    fn done(&self) -> bool {
        self.at >= self.text.len()
    }

    fn skip_blank(&mut self) {
        while !self.done() {
            match (self.peek(0), self.peek(1)) {
                (b' ' | b'\t' | b'\r' | b'\n', _) => {
                    self.bump();
                }
                (b'#', _) | (b'/', b'/') => {
                    while !self.done() && self.peek(0) != b'\n' {
                        self.bump();
                    }
                }
                (b'/', b'*') => {
                    while !self.done() && (self.peek(0), self.peek(1)) != (b'*', b'/') {
                        self.bump();
                    }
                    self.at += 2;
                }
                _ => return,
            }
        }
    }

    pub fn next(&mut self) -> Result<Token> {
        self.skip_blank();
        if self.done() {
            return Ok(Token::End);
        }
        let single = match self.peek(0) {
            b'=' => Token::Assign,
            b'{' => Token::Open,
            b'}' => Token::Close,
            b',' => Token::Comma,
            b'(' => Token::ParenOpen,
            b')' => Token::ParenClose,
            b'+' if self.peek(1) == b'=' => {
                self.at += 2;
                return Ok(Token::Append);
            }
            b'"' => return self.double_quoted(),
            b'\'' => return self.single_quoted(),
            _ => return self.bare(),
        };
        self.bump();
        Ok(single)
    }

    fn bare(&mut self) -> Result<Token> {
        let mut out = Vec::new();
        while !self.done() {
            match self.peek(0) {
                b'$' if self.peek(1) == b'{' => self.substitute(&mut out),
                b' ' | b'\t' | b'\r' | b'\n' | b'{' | b'}' | b'(' | b')' | b'"' | b'\'' | b'='
                | b',' | b'#' => break,
                b'+' if self.peek(1) == b'=' => break,
                _ => out.push(self.bump()),
            }
        }
        Ok(Token::Text(text_of(out)))
    }

    fn single_quoted(&mut self) -> Result<Token> {
        self.bump();
        let mut out = Vec::new();
        while !self.done() {
            match (self.bump(), self.peek(0)) {
                (b'\'', _) => return Ok(Token::Text(text_of(out))),
                (b'\\', b'\\' | b'\'') => out.push(self.bump()),
                (byte, _) => out.push(byte),
            }
        }
        Err(self.failure("unterminated string constant"))
    }

    fn double_quoted(&mut self) -> Result<Token> {
        self.bump();
        let mut out = Vec::new();
        while !self.done() {
            if (self.peek(0), self.peek(1)) == (b'$', b'{') {
                self.substitute(&mut out);
                continue;
            }
            match self.bump() {
                b'"' => return Ok(Token::Text(text_of(out))),
                b'\\' => self.escape(&mut out)?,
                byte => out.push(byte),
            }
        }
        Err(self.failure("unterminated string constant"))
    }

    fn escape(&mut self, out: &mut Vec<u8>) -> Result<()> {
        let byte = match self.bump() {
            b'\n' => return Ok(()),
            b'n' => b'\n',
            b't' => b'\t',
            b'b' => 8,
            b'r' => b'\r',
            b'f' => 12,
            b'a' => 7,
            b'e' => 27,
            b'v' => 11,
            b'x' => self.digits(16, 2)?,
            digit @ b'0'..=b'7' => {
                self.at -= 1;
                let _ = digit;
                self.digits(8, 3)?
            }
            other => other,
        };
        out.push(byte);
        Ok(())
    }

    fn digits(&mut self, radix: u32, most: usize) -> Result<u8> {
        let start = self.at;
        while self.at - start < most && (self.peek(0) as char).is_digit(radix) {
            self.at += 1;
        }
        let text = String::from_utf8_lossy(&self.text[start..self.at]);
        match u32::from_str_radix(&text, radix) {
            Ok(value) if value <= 255 => Ok(value as u8),
            _ => fail(self.failure("invalid escape sequence in string").0),
        }
    }

    /// Replaces `${NAME}` or `${NAME:-default}`; an undefined name leaves nothing.
    fn substitute(&mut self, out: &mut Vec<u8>) {
        let rest = &self.text[self.at + 2..];
        let Some(length) = rest.iter().position(|byte| *byte == b'}') else {
            out.push(self.bump());
            return;
        };
        let inner = String::from_utf8_lossy(&rest[..length]).into_owned();
        self.at += length + 3;
        let (name, default) = match inner.split_once(":-") {
            Some((name, default)) => (name, default),
            None => (inner.as_str(), ""),
        };
        let value = (self.lookup)(name).unwrap_or_else(|| default.to_string());
        out.extend_from_slice(value.as_bytes());
    }
}

fn text_of(bytes: Vec<u8>) -> String {
    String::from_utf8_lossy(&bytes).into_owned()
}
