//! The parsed form of `meta.conf`: options, lists and (titled) sections.

use crate::VERSION;
use crate::failure::{Failure, Result};
use crate::lexer::{Lexer, Lookup, Token};

const TITLED: &[&str] = &[
    "file-resource",
    "mbr",
    "gpt",
    "partition",
    "osii",
    "task",
    "uboot-environment",
    "on-resource",
];
const UNTITLED: &[&str] = &["on-init", "on-finish", "on-error"];
const INTEGERS: &[&str] = &["block-count", "block-cache-size-mb", "length"];

/// One section; the whole file is the section without a name.
#[derive(Debug, Default, Clone)]
pub struct Section {
    pub name: String,
    pub title: String,
    values: Vec<(String, Vec<String>)>,
    pub sections: Vec<Section>,
}

impl Section {
    /// Parses a whole `meta.conf`. The failure is the line to print on stderr.
    pub fn parse(text: &[u8], defaults: &[(&str, &str)], lookup: Lookup) -> Result<Section> {
        let mut top = Section::default();
        for (name, value) in defaults {
            top.set(name, vec![value.to_string()], false);
        }
        let mut lexer = Lexer::new(text, lookup);
        top.fill(&mut lexer, true)?;
        Ok(top)
    }

    pub fn get(&self, name: &str) -> Option<&str> {
        self.list(name).last().map(String::as_str)
    }

    pub fn list(&self, name: &str) -> &[String] {
        self.values
            .iter()
            .find(|(key, _)| key == name)
            .map_or(&[], |(_, values)| values)
    }

    pub fn named<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Section> {
        self.sections.iter().filter(move |sec| sec.name == name)
    }

    pub fn titled(&self, name: &str, title: &str) -> Option<&Section> {
        self.sections
            .iter()
            .find(|sec| sec.name == name && sec.title == title)
    }

    fn set(&mut self, name: &str, values: Vec<String>, append: bool) {
        match self.values.iter_mut().find(|(key, _)| key == name) {
            Some((_, old)) if append => old.extend(values),
            Some((_, old)) => *old = values,
            None => self.values.push((name.to_string(), values)),
        }
    }

    fn fill(&mut self, lexer: &mut Lexer, top: bool) -> Result<()> {
        loop {
            let name = match lexer.next()? {
                Token::Text(name) => name,
                // An unclosed section at the end of the file is accepted by the original as well.
                Token::End => return Ok(()),
                Token::Close if top => return Err(lexer.failure("unexpected closing brace")),
                Token::Close => return Ok(()),
                other => return Err(unexpected(lexer, &other)),
            };
            if TITLED.contains(&name.as_str()) {
                self.titled_section(lexer, name)?;
            } else {
                self.option(lexer, name)?;
            }
        }
    }

    fn titled_section(&mut self, lexer: &mut Lexer, name: String) -> Result<()> {
        let title = match lexer.next()? {
            Token::Text(title) => title,
            _ => return Err(lexer.failure(format!("missing title for section '{name}'"))),
        };
        match lexer.next()? {
            Token::Open => {}
            _ => return Err(lexer.failure(format!("missing opening brace for section '{name}'"))),
        }
        if self.titled(&name, &title).is_some() {
            return Err(lexer.failure(format!("found duplicate title '{title}'")));
        }
        self.section(lexer, name, title)
    }

    fn section(&mut self, lexer: &mut Lexer, name: String, title: String) -> Result<()> {
        let mut section = Section {
            name,
            title,
            ..Section::default()
        };
        section.fill(lexer, false)?;
        self.sections.push(section);
        Ok(())
    }

    fn option(&mut self, lexer: &mut Lexer, name: String) -> Result<()> {
        match lexer.next()? {
            Token::Assign => self.assign(lexer, &name, false),
            Token::Append => self.assign(lexer, &name, true),
            Token::Open => self.section(lexer, name, String::new()),
            Token::ParenOpen => skip_arguments(lexer),
            Token::Text(_) if known(&name) => {
                Err(lexer.failure(format!("missing equal sign after option '{name}'")))
            }
            // After an unknown word the original lets one more pass before it complains.
            Token::Text(_) => match lexer.next()? {
                Token::End => Ok(()),
                other => Err(unexpected(lexer, &other)),
            },
            other => Err(unexpected(lexer, &other)),
        }
    }

    fn assign(&mut self, lexer: &mut Lexer, name: &str, append: bool) -> Result<()> {
        let values = match lexer.next()? {
            Token::Text(value) => vec![value],
            Token::Open => list_values(lexer)?,
            other => return Err(unexpected(lexer, &other)),
        };
        if INTEGERS.contains(&name) {
            for value in &values {
                check_integer(lexer, name, value)?;
            }
        }
        if name == "require-fwup-version" {
            check_version(lexer, &values.concat())?;
        }
        self.set(name, values, append);
        Ok(())
    }
}

fn known(name: &str) -> bool {
    name.starts_with("meta-")
        || UNTITLED.contains(&name)
        || INTEGERS.contains(&name)
        || matches!(
            name,
            "funlist" | "reqlist" | "blake2b-256" | "require-fwup-version" | "block-offset"
        )
}

fn unexpected(lexer: &Lexer, token: &Token) -> Failure {
    let shown = match token {
        Token::Text(text) => text.as_str(),
        Token::Assign => "=",
        Token::Append => "+=",
        Token::Open => "{",
        Token::Close => "}",
        Token::Comma => ",",
        Token::ParenOpen => "(",
        Token::ParenClose => ")",
        Token::End => return lexer.failure("premature end of file"),
    };
    lexer.failure(format!("unexpected token '{shown}'"))
}

fn list_values(lexer: &mut Lexer) -> Result<Vec<String>> {
    let mut values = Vec::new();
    loop {
        match lexer.next()? {
            Token::Text(value) => values.push(value),
            Token::Comma => {}
            Token::Close => return Ok(values),
            other => return Err(unexpected(lexer, &other)),
        }
    }
}

fn skip_arguments(lexer: &mut Lexer) -> Result<()> {
    loop {
        match lexer.next()? {
            Token::ParenClose => return Ok(()),
            Token::Text(_) | Token::Comma => {}
            other => return Err(unexpected(lexer, &other)),
        }
    }
}

fn check_integer(lexer: &Lexer, name: &str, value: &str) -> Result<()> {
    if parse_number(value).is_some() {
        return Ok(());
    }
    // The original keeps lengths in floating point on every machine, and says so.
    let kind = match name {
        "length" => "floating point",
        _ => "integer",
    };
    Err(lexer.failure(format!("invalid {kind} value for option '{name}'")))
}

fn check_version(lexer: &Lexer, wanted: &str) -> Result<()> {
    let Some(needed) = version_parts(wanted) else {
        return Err(lexer.failure(format!(
            "Invalid version '{wanted}' passed to require-fwup-version"
        )));
    };
    // The constant is three numbers; an empty tuple can only make every archive acceptable.
    let have = version_parts(VERSION).unwrap_or_default();
    if needed > have {
        return Err(lexer.failure(format!(
            "fwup version '{wanted}' required. This is fwup version '{VERSION}'."
        )));
    }
    Ok(())
}

/// Major, minor, patch; a pre-release sorts just below its release.
fn version_parts(text: &str) -> Option<(u64, u64, u64, bool)> {
    let (numbers, released) = match text.split_once('-') {
        Some((numbers, _)) => (numbers, false),
        None => (text.split('+').next().unwrap_or(text), true),
    };
    let mut parts = numbers.split('.').map(|part| part.parse::<u64>());
    let major = parts.next()?.ok()?;
    let minor = parts.next().unwrap_or(Ok(0)).ok()?;
    let patch = parts.next().unwrap_or(Ok(0)).ok()?;
    Some((major, minor, patch, released))
}

/// A C-style number: decimal, 0x hexadecimal or 0 octal.
pub fn parse_number(text: &str) -> Option<u64> {
    let text = text.trim();
    if let Some(hex) = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        u64::from_str_radix(hex, 16).ok()
    } else if text.len() > 1 && text.starts_with('0') {
        u64::from_str_radix(&text[1..], 8).ok()
    } else {
        text.parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Section> {
        Section::parse(text.as_bytes(), &[], &|name| {
            (name == "ID").then(|| "abc".to_string())
        })
    }

    #[test]
    fn reads_sections_lists_and_substitutions() {
        let conf = parse(
            "# note\nmeta-version=1.0\ntask \"a.b\" {\non-init {\nfunlist={2,info,\"x ${ID} ${NO:-d} \\\"q\\\"\"}\n}\n}\n",
        )
        .expect("valid");
        assert_eq!(conf.get("meta-version"), Some("1.0"));
        let task = conf.titled("task", "a.b").expect("task");
        let init = task.named("on-init").next().expect("on-init");
        assert_eq!(init.list("funlist"), ["2", "info", "x abc d \"q\""]);
    }

    #[test]
    fn errors_name_the_line() {
        let failure = |text| parse(text).expect_err("invalid").0;
        assert_eq!(
            failure("meta-product=x\nrequire-fwup-version=99.0.0\n"),
            "[buf]:2: fwup version '99.0.0' required. This is fwup version '1.16.0'."
        );
        assert_eq!(
            failure("task \"a\" {\n}\ntask \"a\" {\n}\n"),
            "[buf]:3: found duplicate title 'a'"
        );
        assert_eq!(
            failure("meta-product \"x\"\n"),
            "[buf]:1: missing equal sign after option 'meta-product'"
        );
        assert_eq!(failure("}\n"), "[buf]:1: unexpected closing brace");
    }

    #[test]
    fn numbers_and_versions_follow_c() {
        assert_eq!(parse_number("0x10"), Some(16));
        assert_eq!(parse_number("010"), Some(8));
        assert_eq!(parse_number("0"), Some(0));
        assert_eq!(parse_number("x"), None);
        assert!(version_parts("1.17.0-rc1") > version_parts("1.16.0"));
        assert!(version_parts("1.16.0-rc1") < version_parts("1.16.0"));
        assert!(parse("require-fwup-version=\"1.2\"\n").is_ok());
    }
}
