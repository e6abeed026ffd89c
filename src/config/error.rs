//! What can be wrong with the configuration, in words a person can act on.
//!
//! Owns the error types and their wording. Must not print: the caller decides where the
//! list goes. The value of a secret never gets in here.

use std::fmt;

/// One problem: the variable, its value (never of a secret) and the fix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConfigError {
    /// A value that makes no sense.
    Invalid {
        name: String,
        /// `None` for secrets.
        value: Option<String>,
        problem: String,
        fix: String,
    },
    /// Bytes that are not UTF-8.
    NotUtf8 { name: String },
    /// The file named by a `…_FILE` variable cannot be used.
    File {
        name: String,
        path: String,
        problem: String,
    },
    /// Two variables that exclude each other.
    Conflict {
        first: String,
        second: String,
        fix: String,
    },
    /// A variable that another setting needs.
    Missing {
        name: String,
        why: String,
        fix: String,
    },
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Invalid {
                name,
                value: Some(value),
                problem,
                fix,
            } => write!(f, "{name}: {:?} {problem}; {fix}", shortened(value)),
            Self::Invalid {
                name,
                value: None,
                problem,
                fix,
            } => write!(f, "{name}: the value {problem}; {fix}"),
            Self::NotUtf8 { name } => {
                write!(f, "{name}: the value is not UTF-8; write it as plain text")
            }
            Self::File {
                name,
                path,
                problem,
            } => write!(
                f,
                "{name}: cannot use {path:?}: {problem}; name a readable file with the value in it"
            ),
            Self::Conflict { first, second, fix } => {
                write!(f, "{first} and {second} are both set; {fix}")
            }
            Self::Missing { name, why, fix } => write!(f, "{name} is not set, but {why}; {fix}"),
        }
    }
}

/// Long values only need to be recognised.
fn shortened(value: &str) -> String {
    const SHOWN: usize = 80;
    if value.chars().count() <= SHOWN {
        return value.to_owned();
    }
    value.chars().take(SHOWN).chain(['…']).collect()
}

/// Every problem found, in the order of the table. Never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigErrors(pub Vec<ConfigError>);

impl fmt::Display for ConfigErrors {
    /// One problem per line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{error}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}
impl std::error::Error for ConfigErrors {}

/// Why one value cannot be used, before it is known which variable it came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Completes `"VALUE" …`, such as `is not a boolean`.
    pub what: String,
    /// What to write instead.
    pub fix: String,
}

impl Problem {
    pub(super) fn new(what: impl Into<String>, fix: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            fix: fix.into(),
        }
    }
}
