//! The one error type: the text the user will read.

/// A failed operation, carrying the message that goes out in the `ER` frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure(pub String);

pub type Result<T> = std::result::Result<T, Failure>;

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// Shorthand for returning a failure with a formatted message.
pub fn fail<T>(message: impl Into<String>) -> Result<T> {
    Err(Failure(message.into()))
}

/// The operating system's own words for an error, without Rust's "(os error N)" tail.
pub fn os_text(error: &std::io::Error) -> String {
    let text = error.to_string();
    match text.find(" (os error") {
        Some(cut) => text[..cut].to_string(),
        None => text,
    }
}
