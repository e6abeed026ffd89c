//! HTTP requests for a file until somebody has all of it.
//!
//! Owns requests, their answers and the loop around them: resuming, pauses, fresh URLs,
//! deadlines and the rate. Where the bytes go is the [`Sink`]'s matter.

use std::fmt;
use std::io::{self, Read};
use std::time::{Duration, Instant};

use super::means::Means;
use super::pace::Paced;
use super::patience::{self, Failure, Patience};
use super::progress::Progress;
use super::response::{self, Asked, Head, Known, Verdict, judge};
use super::sink::{Sink, TakeError};
use crate::config::Secret;
use crate::system::http::{self, Limits};

/// Why one attempt ended early.
pub(super) enum Ended {
    Again {
        reason: String,
        after: Option<u64>,
    },
    /// Ranges do not work: the next request has none.
    WithoutRange(String),
    /// Another URL is needed.
    Refused(String),
    Final(Failure),
}

pub(super) fn again(reason: impl Into<String>) -> Ended {
    Ended::Again {
        reason: reason.into(),
        after: None,
    }
}

fn failed(reason: impl fmt::Display) -> Ended {
    Ended::Final(Failure::Failed(format!("download failed: {reason}")))
}

/// One request.
pub(super) struct Request<'a> {
    pub(super) url: &'a Secret,
    /// For `X-Retry-Number`.
    pub(super) number: u32,
    /// False when the server has shown that it cannot.
    pub(super) ranged: bool,
    /// Name the file's validators, so that another one comes whole.
    pub(super) guarded: bool,
}

/// How long one answer may take.
pub(super) struct Time {
    pub(super) until: Instant,
    /// Its own share of the whole download's.
    pub(super) limit: Duration,
}

/// Makes requests.
pub(super) struct Fetcher<'a> {
    client: ureq::Agent,
    means: &'a Means<'a>,
    progress: &'a Progress<'a>,
    /// The whole download's last moment.
    ends: Instant,
    /// Bytes per second, 0 for no limit.
    rate: u64,
}

impl<'a> Fetcher<'a> {
    /// `connections` share the rate.
    pub(super) fn new(
        means: &'a Means<'a>,
        progress: &'a Progress<'a>,
        connections: u64,
        ends: Instant,
    ) -> Self {
        let settings = &means.settings;
        let rate = match settings.rate_limit {
            0 => 0,
            limit => (limit / connections).max(1),
        };
        Self {
            client: http::client(
                means.dialer.clone(),
                Limits {
                    idle: settings.idle_timeout,
                    ends,
                },
                means.allow_insecure,
                means.cancel.clone(),
            ),
            means,
            progress,
            ends,
            rate,
        }
    }

    /// One request and its body, as far as it goes.
    pub(super) fn attempt(
        &self,
        request: &Request,
        known: &mut Known,
        sink: &mut dyn Sink,
    ) -> Result<(), Ended> {
        let (mut offset, end) = (sink.position(), sink.end());
        let url = request.url.expose();
        let ranged = request.ranged && (offset > 0 || end.is_some());
        let mut get = self
            .client
            .get(url)
            .header("X-Retry-Number", request.number.to_string());
        if ranged {
            let last = end.map_or(String::new(), |end| (end - 1).to_string());
            debug!("asking for bytes {offset}-{last}");
            get = get.header("Range", format!("bytes={offset}-{last}"));
            if let Some(guard) = known.if_range().filter(|_| request.guarded) {
                get = get.header("If-Range", guard);
            }
        }
        let response = get.call().map_err(|error| self.explain(error))?;
        let head = read_head(&response);
        debug!("{}: HTTP {}", http::without_query(url), head.status);
        let whole = match judge(Asked { offset, ranged }, known, &head) {
            Verdict::Append => false,
            Verdict::Whole if ranged && offset > 0 && !sink.takes_whole() => {
                let reason = "HTTP 200 to a range request".to_owned();
                return Err(Ended::WithoutRange(reason));
            }
            Verdict::Whole => true,
            Verdict::Anew(reason) => {
                forget(known, sink, &reason).map_err(Ended::Final)?;
                offset = 0;
                true
            }
            Verdict::StartOver(reason) => return Err(start_over(known, sink, reason)),
            Verdict::WithoutRange(reason) => return Err(Ended::WithoutRange(reason)),
            Verdict::Retry { reason, after } => return Err(Ended::Again { reason, after }),
            Verdict::Refused(reason) => return Err(Ended::Refused(reason)),
            Verdict::Fatal(reason) => return Err(failed(reason)),
        };
        let learnt = remember(known, offset, &head);
        self.progress.learn(known.size);
        if learnt {
            sink.on_known(known).map_err(Ended::Final)?;
        }
        let time = self.time_for(head.content_length.or(known.size));
        let mut body = response.into_body().into_reader();
        let mut body = Paced::new(&mut body, self.rate, time.until, self.means.cancel);
        if whole && offset > 0 {
            let same = sink.skip_held(&mut body);
            if !same.map_err(|error| self.broken(offset, &error, &time))? {
                return Err(start_over(known, sink, "the file changed".to_owned()));
            }
        }
        self.receive(&mut body, known, sink, &time)
    }

    fn receive(
        &self,
        body: &mut dyn Read,
        known: &Known,
        sink: &mut dyn Sink,
        time: &Time,
    ) -> Result<(), Ended> {
        let end = [sink.end(), known.size].into_iter().flatten().min();
        loop {
            let left = end.map_or(u64::MAX, |end| end.saturating_sub(sink.position()));
            if left == 0 {
                return Ok(());
            }
            let count = match sink.take(body, left) {
                Ok(count) => count,
                Err(TakeError::Network(error)) => {
                    return Err(self.broken(sink.position(), &error, time));
                }
                Err(TakeError::Own(failure)) => return Err(Ended::Final(failure)),
            };
            match (count, end) {
                (0, None) => return Ok(()),
                (0, Some(end)) => {
                    let at = sink.position();
                    return Err(again(format!("the connection ended at byte {at} of {end}")));
                }
                _ => {}
            }
            self.progress.add(count as u64);
        }
    }

    /// From now on, for an answer of so many bytes.
    fn time_for(&self, bytes: Option<u64>) -> Time {
        let limit = patience::attempt_limit(&self.means.settings, self.rate, bytes);
        Time {
            until: self.ends.min(Instant::now() + limit),
            limit,
        }
    }

    pub(super) fn broken(&self, at: u64, error: &io::Error, time: &Time) -> Ended {
        if self.means.cancel.is_cancelled() {
            return Ended::Final(Failure::Abandoned);
        }
        let limit = time.limit;
        match self.out_of_time() {
            Some(ended) => ended,
            None if Instant::now() >= time.until => {
                failed(format!("too slow: one attempt took longer than {limit:?}"))
            }
            None => again(format!("at byte {at}: {error}")),
        }
    }

    /// The end, if the whole download has no more time.
    fn out_of_time(&self) -> Option<Ended> {
        let limit = self.means.settings.max_timeout;
        let is_over = Instant::now() >= self.ends;
        is_over.then(|| failed(format!("not finished in {limit:?}")))
    }

    fn explain(&self, error: ureq::Error) -> Ended {
        if self.means.cancel.is_cancelled() {
            return Ended::Final(Failure::Abandoned);
        }
        if let Some(ended) = self.out_of_time() {
            return ended;
        }
        match error {
            ureq::Error::TooManyRedirects
            | ureq::Error::BadUri(_)
            | ureq::Error::RedirectFailed => failed(http::explain(&error)),
            ureq::Error::Io(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                failed(error)
            }
            error => again(http::explain(&error)),
        }
    }
}

/// Fetches a file from its first missing byte to its proven end.
///
/// # Errors
/// See [`Failure`].
pub(super) fn pursue(
    url: &Secret,
    mut known: Known,
    means: &Means,
    progress: &Progress,
    sink: &mut dyn Sink,
) -> Result<(), Failure> {
    let mut patience = Patience::new(means.settings, sink.position());
    let fetcher = Fetcher::new(means, progress, 1, patience.ends());
    let mut url = url.clone();
    let mut ranged = true;
    loop {
        let request = Request {
            url: &url,
            number: patience.retries,
            ranged,
            guarded: true,
        };
        let complete = known.size.is_some_and(|size| sink.position() >= size);
        let ended = match complete {
            true => Ok(()),
            false => fetcher.attempt(&request, &mut known, sink),
        };
        ranged = true;
        patience.note_progress(sink.position());
        match ended {
            Ok(()) => match sink.finish()? {
                true => return Ok(()),
                false => {
                    progress.set(sink.position());
                    patience.failed("the checksum was wrong".to_owned())?;
                }
            },
            Err(Ended::Final(failure)) => return Err(failure),
            Err(Ended::Refused(reason)) => {
                url = means.fresh_url(reason, sink.position(), patience.ends())?;
                patience.retries += 1;
            }
            Err(Ended::WithoutRange(reason)) => {
                ranged = false;
                // Learnt from an answer, it may be what is wrong.
                known.size = known.offered_size;
                patience::sleep(patience.next_pause(reason, None)?, means.cancel)?;
            }
            Err(Ended::Again { reason, after }) => {
                progress.set(sink.position());
                patience::sleep(patience.next_pause(reason, after)?, means.cancel)?;
            }
        }
    }
}

fn start_over(known: &mut Known, sink: &mut dyn Sink, reason: String) -> Ended {
    match forget(known, sink, &reason) {
        Ok(()) => again(reason),
        Err(failure) => Ended::Final(failure),
    }
}

fn forget(known: &mut Known, sink: &mut dyn Sink, reason: &str) -> Result<(), Failure> {
    warn!("starting the download over: {reason}");
    *known = Known::offered(known.offered_size);
    sink.start_over()
}

/// True when something was learnt at the file's start.
fn remember(known: &mut Known, offset: u64, head: &Head) -> bool {
    if offset == 0 {
        known.etag.clone_from(&head.etag);
        known.last_modified.clone_from(&head.last_modified);
    }
    if known.size.is_none() {
        known.size = match head.status {
            200 => head.content_length,
            _ => head
                .content_range
                .as_deref()
                .and_then(response::size_in_range),
        };
    }
    offset == 0
}

fn read_head<B>(response: &ureq::http::Response<B>) -> Head {
    let header = |name: &str| {
        response
            .headers()
            .get(name)?
            .to_str()
            .ok()
            .map(str::to_owned)
    };
    Head {
        status: response.status().as_u16(),
        content_length: header("content-length").and_then(|text| text.parse().ok()),
        content_range: header("content-range"),
        etag: header("etag").and_then(|text| response::strong_etag(&text)),
        last_modified: header("last-modified"),
        retry_after: header("retry-after").and_then(|text| text.parse().ok()),
    }
}
