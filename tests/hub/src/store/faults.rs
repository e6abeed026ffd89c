//! What can go wrong with a download, and for which requests.

/// Which requests for a path a fault meets; requests are counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    Always,
    Nth(u32),
    /// The first so many.
    First(u32),
    /// From this one on.
    From(u32),
}

impl When {
    pub(crate) fn meets(self, nth: u32) -> bool {
        match self {
            When::Always => true,
            When::Nth(only) => nth == only,
            When::First(count) => nth <= count,
            When::From(first) => nth >= first,
        }
    }
}

/// One fault.
#[derive(Debug, Clone, PartialEq)]
pub enum Fault {
    /// Close (FIN) before this offset of the file.
    CutAt(u64),
    /// Close (FIN) after that many body bytes of this answer.
    CutAfter(u64),
    /// Reset after that many body bytes of this answer.
    ResetAfter(u64),
    /// Send nothing from this offset of the file on, until released or closed.
    StallAt(u64),
    /// Send nothing after that many body bytes of this answer, until released or closed.
    StallAfter(u64),
    /// Send no head until released or closed.
    HangBeforeHeaders,
    /// Answer 200 with everything, whatever range was asked for.
    NoRange,
    /// Claim a Content-Length that is off by that much.
    LengthOff(i64),
    /// Flip the byte at this offset of the file.
    WrongByteAt(u64),
    /// Redirect; a location without a scheme is relative.
    Redirect(u16, String),
    /// Answer with this status and a short body.
    Status(u16),
    /// The same with headers, such as Retry-After.
    StatusWith(u16, Vec<(String, String)>),
    /// At most so many bytes a second.
    Slow(u64),
    /// This Content-Range instead of the true one.
    ContentRange(String),
    /// Answer 206 for a range that starts that many bytes later than asked.
    ShiftRange(u64),
    /// This ETag instead of the true one.
    Etag(String),
    /// No ETag and no Last-Modified.
    NoValidators,
    /// Answer 206 even though If-Range does not match.
    IgnoreIfRange,
    /// These bytes behind the end of the body, outside the Content-Length.
    Extra(Vec<u8>),
    /// Chunked, without a Content-Length.
    Chunked,
    /// No Content-Length: the end of the connection ends the body.
    NoLength,
    /// A header added to a good answer.
    Header(String, String),
    /// These bytes instead of an HTTP answer.
    Garbage(Vec<u8>),
}
