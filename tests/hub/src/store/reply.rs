//! Decides what to answer: status, headers and the part of the file to send. Pure.

use super::{Fault, File};
use crate::http::Request;
use std::ops::Range;

/// The date of every file in the store; it never changes.
const LAST_MODIFIED: &str = "Sat, 01 Aug 2026 12:00:00 GMT";

/// An answer ready to be sent.
#[derive(Debug, PartialEq)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Body,
}

#[derive(Debug, PartialEq)]
pub enum Body {
    /// That part of the file.
    File(Range<u64>),
    Text(String),
}

/// The answer to `request` under `faults`.
pub fn reply(request: &Request, file: Option<&File>, faults: &[Fault]) -> Reply {
    if let Some(reply) = faults.iter().find_map(preempt) {
        return reply;
    }
    let Some(file) = file else {
        return text(404, vec![]);
    };
    if request.method != "GET" && request.method != "HEAD" {
        return text(405, vec![("allow".into(), "GET, HEAD".into())]);
    }
    let size = file.data.len() as u64;
    let etag = faults.iter().find_map(|fault| match fault {
        Fault::Etag(etag) => Some(etag.clone()),
        _ => None,
    });
    let etag = etag.unwrap_or_else(|| file.etag.clone());
    let asked = asked_range(request, &etag, faults);
    match asked.map(|range| resolve(range, size)) {
        Some(None) => text(
            416,
            vec![("content-range".into(), format!("bytes */{size}"))],
        ),
        Some(Some(range)) => partial(range, size, &etag, faults),
        None => Reply {
            status: 200,
            headers: headers(0..size, &etag, faults),
            body: Body::File(0..size),
        },
    }
}

fn preempt(fault: &Fault) -> Option<Reply> {
    match fault {
        Fault::Redirect(status, location) => {
            Some(text(*status, vec![("location".into(), location.clone())]))
        }
        Fault::Status(status) => Some(text(*status, vec![])),
        Fault::StatusWith(status, headers) => Some(text(*status, headers.clone())),
        _ => None,
    }
}

fn text(status: u16, mut headers: Vec<(String, String)>) -> Reply {
    let body = format!("status {status}\n");
    headers.push(("content-length".into(), body.len().to_string()));
    Reply {
        status,
        headers,
        body: Body::Text(body),
    }
}

fn partial(range: Range<u64>, size: u64, etag: &str, faults: &[Fault]) -> Reply {
    let shift = faults.iter().find_map(|fault| match fault {
        Fault::ShiftRange(by) => Some(*by),
        _ => None,
    });
    let range = (range.start + shift.unwrap_or(0)).min(range.end)..range.end;
    let lie = faults.iter().find_map(|fault| match fault {
        Fault::ContentRange(text) => Some(text.clone()),
        _ => None,
    });
    let truth = format!(
        "bytes {}-{}/{size}",
        range.start,
        range.end.saturating_sub(1)
    );
    let mut headers = headers(range.clone(), etag, faults);
    headers.push(("content-range".into(), lie.unwrap_or(truth)));
    Reply {
        status: 206,
        headers,
        body: Body::File(range),
    }
}

fn headers(range: Range<u64>, etag: &str, faults: &[Fault]) -> Vec<(String, String)> {
    let mut headers = vec![("content-type".into(), "application/octet-stream".into())];
    let has = |wanted: &Fault| faults.contains(wanted);
    if !has(&Fault::NoRange) {
        headers.push(("accept-ranges".into(), "bytes".into()));
    }
    if !has(&Fault::NoValidators) {
        headers.push(("etag".into(), etag.into()));
        headers.push(("last-modified".into(), LAST_MODIFIED.into()));
    }
    let off = faults.iter().find_map(|fault| match fault {
        Fault::LengthOff(by) => Some(*by),
        _ => None,
    });
    if has(&Fault::Chunked) {
        headers.push(("transfer-encoding".into(), "chunked".into()));
    } else if !has(&Fault::NoLength) {
        let length = (range.end - range.start).saturating_add_signed(off.unwrap_or(0));
        headers.push(("content-length".into(), length.to_string()));
    }
    headers.extend(faults.iter().filter_map(|fault| match fault {
        Fault::Header(name, value) => Some((name.clone(), value.clone())),
        _ => None,
    }));
    headers
}

/// First and last byte as asked for; several ranges, or none, mean the whole file.
fn asked_range(
    request: &Request,
    etag: &str,
    faults: &[Fault],
) -> Option<(Option<u64>, Option<u64>)> {
    if faults.contains(&Fault::NoRange) {
        return None;
    }
    let condition = request.header("if-range");
    let matches = condition.is_none_or(|value| value == etag || value == LAST_MODIFIED);
    if !matches && !faults.contains(&Fault::IgnoreIfRange) {
        return None;
    }
    let (first, last) = request
        .header("range")?
        .strip_prefix("bytes=")?
        .split_once('-')?;
    let number = |text: &str| match text {
        "" => Some(None),
        digits => digits.parse().ok().map(Some),
    };
    let (first, last) = (number(first)?, number(last)?);
    (first.is_some() || last.is_some()).then_some((first, last))
}

/// `None`: nothing of the file is in the range.
fn resolve((first, last): (Option<u64>, Option<u64>), size: u64) -> Option<Range<u64>> {
    let (start, end) = match (first, last) {
        (Some(first), Some(last)) => (first, last.saturating_add(1).min(size)),
        (Some(first), None) => (first, size),
        (None, suffix) => (size.saturating_sub(suffix.unwrap_or(0)), size),
    };
    (start < size && start < end).then_some(start..end)
}
