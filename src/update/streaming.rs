//! Streaming: HTTP to installer, nothing on disk. A dropped connection resumes with a
//! range into the same installer.
//!
//! What it guarantees before the first byte is written: that a public key exists; the
//! installer itself checks the signature first. The SHA-256 of the whole file is checked
//! before the *last* [`HELD_BACK`] bytes are handed over, and the installer cannot finish
//! without them: a stream that differs from the offer never switches slots.

use std::collections::VecDeque;
use std::io::Read;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};

use super::feed::{Chunk, Feed, Filler};
pub use super::patience::Failure;
use super::patience::{self, Patience};
use super::response::{self, Head, Known, Verdict, judge};
use crate::config::DownloadSettings;
use crate::core::event::InstallEvent;
use crate::system::dial::Dialer;
use crate::system::http::{self, Cancel};
use crate::wire::Offer;

/// More than a zip's directory takes: without these bytes a part of the last file is
/// missing. About 60 bytes a file, and a comment may follow.
pub const HELD_BACK: usize = 64 * 1024;
/// No attempt gets less than this (PROTOCOL §5).
const MIN_ATTEMPT: Duration = Duration::from_secs(300);
/// A file whose checksum is wrong is fetched once more.
const CHECKSUM_TRIES: u32 = 2;

/// What a download needs besides its offer.
pub struct Means<'a> {
    pub settings: DownloadSettings,
    pub dialer: Arc<Dialer>,
    pub allow_insecure: bool,
    pub cancel: &'a Cancel,
    pub feed: &'a Filler,
    pub tell: &'a dyn Fn(InstallEvent),
}

/// Downloads `offer` into the feed, to its end.
///
/// # Errors
/// See [`Failure`].
pub fn run(offer: &Offer, means: &Means) -> Result<(), Failure> {
    let client = http::client(
        means.dialer.clone(),
        means.settings.idle_timeout,
        means.allow_insecure,
        means.cancel.clone(),
    );
    let mut transfer = Transfer::new(offer, means);
    let mut patience = Patience::new(means.settings);
    loop {
        let ended = transfer.attempt(&client, patience.retries);
        patience.note_progress(transfer.furthest);
        match ended {
            Ok(()) => match transfer.finish()? {
                true => return Ok(()),
                false => patience.failed("the checksum was wrong".to_owned())?,
            },
            Err(Ended::Final(failure)) => return Err(failure),
            Err(Ended::Again { reason, after }) => {
                let pause = patience.next_pause(reason, after)?;
                patience::sleep(pause, means.cancel)?;
            }
        }
    }
}

/// Why one attempt ended early.
enum Ended {
    Again { reason: String, after: Option<u64> },
    Final(Failure),
}

fn again(reason: impl Into<String>) -> Ended {
    Ended::Again {
        reason: reason.into(),
        after: None,
    }
}

/// The file so far.
struct Transfer<'a> {
    offer: &'a Offer,
    means: &'a Means<'a>,
    known: Known,
    /// Bytes received and kept, handed over or held back.
    received: u64,
    /// The most that was ever received, over all fresh starts.
    furthest: u64,
    hasher: Sha256,
    /// Not yet full; outlives attempts, so that many short ones fill no more memory.
    filling: Chunk,
    held_back: VecDeque<Chunk>,
    held_bytes: usize,
    percent: u8,
    checksum_tries: u32,
    /// The whole download's last moment.
    ends: Instant,
}

impl<'a> Transfer<'a> {
    fn new(offer: &'a Offer, means: &'a Means<'a>) -> Self {
        Self {
            offer,
            means,
            known: Known {
                size: offer.size,
                ..Known::default()
            },
            received: 0,
            furthest: 0,
            hasher: Sha256::new(),
            filling: Chunk::default(),
            held_back: VecDeque::new(),
            held_bytes: 0,
            percent: 0,
            checksum_tries: 0,
            ends: Instant::now() + means.settings.max_timeout,
        }
    }

    /// One request and its body, as far as it goes.
    fn attempt(&mut self, client: &ureq::Agent, retries: u32) -> Result<(), Ended> {
        let mut request = client
            .get(self.offer.url.expose())
            .header("X-Retry-Number", retries.to_string());
        if self.received > 0 {
            log::info!("resuming the download at byte {}", self.received);
            request = request.header("Range", format!("bytes={}-", self.received));
            if let Some(guard) = self.known.if_range() {
                request = request.header("If-Range", guard);
            }
        }
        let response = request.call().map_err(|error| self.explain(error))?;
        let head = read_head(&response);
        log::debug!(
            "{}: HTTP {}",
            http::without_query(self.offer.url.expose()),
            head.status
        );
        match judge(self.received, &self.known, &head) {
            Verdict::Append => self.remember(&head),
            Verdict::Whole => {
                self.remember(&head);
                let mut body = response.into_body().into_reader();
                self.skip_held(&mut body)?;
                return self.receive(&mut body, &head);
            }
            Verdict::StartOver(reason) => {
                self.start_over()?;
                return Err(again(reason));
            }
            Verdict::Retry { reason, after } => return Err(Ended::Again { reason, after }),
            Verdict::Fatal(reason) => {
                let text = format!("download failed: {reason}");
                return Err(Ended::Final(Failure::Failed(text)));
            }
        }
        self.receive(&mut response.into_body().into_reader(), &head)
    }

    fn explain(&self, error: ureq::Error) -> Ended {
        if self.means.cancel.is_cancelled() {
            return Ended::Final(Failure::Abandoned);
        }
        match error {
            ureq::Error::TooManyRedirects
            | ureq::Error::BadUri(_)
            | ureq::Error::RedirectFailed => Ended::Final(Failure::Failed(format!(
                "download failed: {}",
                without_url(&error)
            ))),
            ureq::Error::Io(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
                Ended::Final(Failure::Failed(format!("download failed: {error}")))
            }
            error => again(without_url(&error)),
        }
    }

    fn remember(&mut self, head: &Head) {
        if self.received == 0 {
            self.known.etag.clone_from(&head.etag);
            self.known.last_modified.clone_from(&head.last_modified);
        }
        if self.known.size.is_none() {
            self.known.size = match head.status {
                200 => head.content_length,
                _ => head
                    .content_range
                    .as_deref()
                    .and_then(response::size_in_range),
            };
        }
    }

    /// The answer is the whole file although a part was asked for: what is held already
    /// must be its beginning.
    fn skip_held(&mut self, body: &mut impl Read) -> Result<(), Ended> {
        let mut hasher = Sha256::new();
        let mut left = self.received;
        let mut chunk = self.means.feed.chunk();
        while left > 0 {
            let mut limited = body.by_ref().take(left);
            let bytes = chunk
                .read_from(&mut limited)
                .map_err(|error| self.broken(&error))?;
            if bytes.is_empty() {
                return Err(again("the connection ended early"));
            }
            hasher.update(bytes);
            left -= bytes.len() as u64;
            chunk.clear();
        }
        if hasher.finalize() == self.hasher.clone().finalize() {
            return Ok(());
        }
        self.start_over()?;
        Err(again("the file changed"))
    }

    fn receive(&mut self, body: &mut impl Read, head: &Head) -> Result<(), Ended> {
        let deadline = self.attempt_deadline(head.content_length);
        loop {
            let left = self
                .known
                .size
                .map_or(u64::MAX, |size| size.saturating_sub(self.received));
            let read = self.filling.read_from(&mut body.by_ref().take(left));
            let bytes = match read {
                Ok([]) => return self.check_length(),
                Ok(bytes) => bytes,
                Err(error) => return Err(self.broken(&error)),
            };
            self.hasher.update(bytes);
            self.received += bytes.len() as u64;
            self.furthest = self.furthest.max(self.received);
            if self.filling.room() == 0 {
                self.hand_over().map_err(Ended::Final)?;
            }
            if Instant::now() >= deadline {
                let text = "download failed: too slow, out of time".to_owned();
                return Err(Ended::Final(Failure::Failed(text)));
            }
            self.tell_percent();
        }
    }

    fn attempt_deadline(&self, content_length: Option<u64>) -> Instant {
        let bytes = content_length.or(self.known.size).unwrap_or(0);
        let speed = self.means.settings.worst_case_speed.max(1);
        let worst = Duration::from_secs(bytes.saturating_mul(8) / speed).max(MIN_ATTEMPT);
        self.ends.min(Instant::now() + worst)
    }

    fn check_length(&self) -> Result<(), Ended> {
        match self.known.size {
            Some(size) if self.received < size => Err(again(format!(
                "the connection ended at byte {} of {size}",
                self.received
            ))),
            _ => Ok(()),
        }
    }

    fn broken(&self, error: &std::io::Error) -> Ended {
        if self.means.cancel.is_cancelled() {
            return Ended::Final(Failure::Abandoned);
        }
        again(format!("at byte {}: {error}", self.received))
    }

    /// Queues what has been filled, keeping the last [`HELD_BACK`] bytes here.
    fn hand_over(&mut self) -> Result<(), Failure> {
        let chunk = std::mem::replace(&mut self.filling, self.means.feed.chunk());
        self.held_bytes += chunk.payload().len();
        self.held_back.push_back(chunk);
        while let Some(first) = self.held_back.front().map(|first| first.payload().len()) {
            if self.held_bytes - first < HELD_BACK {
                break;
            }
            self.release_first()?;
        }
        Ok(())
    }

    fn release_first(&mut self) -> Result<(), Failure> {
        if let Some(chunk) = self.held_back.pop_front() {
            self.held_bytes -= chunk.payload().len();
            self.send(Feed::Chunk(chunk))?;
        }
        Ok(())
    }

    fn send(&self, feed: Feed) -> Result<(), Failure> {
        match self.means.feed.send(feed) {
            true => Ok(()),
            false => Err(Failure::Abandoned),
        }
    }

    /// Forgets everything; the installer begins anew, too.
    fn start_over(&mut self) -> Result<(), Ended> {
        log::warn!("starting the download over");
        self.send(Feed::Restart).map_err(Ended::Final)?;
        self.filling.clear();
        self.held_back.clear();
        self.held_bytes = 0;
        self.received = 0;
        self.hasher = Sha256::new();
        self.known = Known {
            size: self.offer.size,
            ..Known::default()
        };
        Ok(())
    }

    /// All bytes are here: proves them and lets the last ones go. False: to be fetched
    /// again from the start.
    fn finish(&mut self) -> Result<bool, Failure> {
        let found: [u8; 32] = self.hasher.clone().finalize().into();
        if self
            .offer
            .checksum
            .is_some_and(|expected| expected != found)
        {
            self.checksum_tries += 1;
            if self.checksum_tries >= CHECKSUM_TRIES {
                let text = format!(
                    "checksum mismatch: the file's SHA-256 begins {}",
                    hex(&found[..8])
                );
                return Err(Failure::Failed(text));
            }
            log::warn!("the file's SHA-256 is not the offered one; fetching it again");
            return match self.start_over() {
                Err(Ended::Final(failure)) => Err(failure),
                _ => Ok(false),
            };
        }
        // Told first: the installer may be through before the next line runs.
        (self.means.tell)(InstallEvent::Downloaded);
        if !self.filling.payload().is_empty() {
            self.hand_over()?;
        }
        while !self.held_back.is_empty() {
            self.release_first()?;
        }
        self.send(Feed::End)?;
        Ok(true)
    }

    fn tell_percent(&mut self) {
        let Some(size) = self.known.size.filter(|size| *size > 0) else {
            return;
        };
        let percent = (self.received.saturating_mul(100) / size).min(100) as u8;
        if percent != self.percent {
            self.percent = percent;
            (self.means.tell)(InstallEvent::Downloading { percent });
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// ureq names the URL in some errors; its query must not get into a log.
fn without_url(error: &ureq::Error) -> String {
    match error {
        ureq::Error::BadUri(_) => "the URL is not usable".to_owned(),
        ureq::Error::TooManyRedirects => "too many redirects".to_owned(),
        ureq::Error::RedirectFailed => "redirect without a usable location".to_owned(),
        ureq::Error::Io(error) => error.to_string(),
        // Some quote what the server sent, such as a location.
        ureq::Error::Protocol(error) => {
            let text = error.to_string();
            let cause = text.split(": ").next().unwrap_or_default();
            format!("not proper HTTP: {cause}")
        }
        other => other.to_string(),
    }
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
