//! The strategy that keeps parts: each proven on arrival, then installed in order.
//!
//! Rounds: the missing parts are shared out among a few connections, each fetching its
//! neighbours in one request; what is missing after a round is the next round's. A part
//! becomes a file of its own only once it is proven and synced; an unfinished one is
//! continued while the agent runs, and forgotten when it restarts.

mod run;

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Instant;

use sha2::{Digest, Sha256};

use super::cache::{self, Names};
use super::caching;
use super::feed::{CHUNK, Feed};
use super::fetch::{Ended, Fetcher, Request};
use super::means::Means;
use super::patience::{self, Failure, Patience};
use super::plan::Plan;
use super::progress::Progress;
use super::response::Known;
use super::sink;
use super::streaming::{checksum_mismatch, is_wrong};
use crate::config::CacheSettings;
use crate::core::event::InstallEvent;
use crate::system::{durable, thread};
use crate::wire::Offer;
use run::{Run, Unfinished};

/// Downloads the parts of `offer`, proves them, and feeds them to the installer.
///
/// # Errors
/// See [`Failure`].
pub fn run(offer: &Offer, settings: &CacheSettings, means: &Means) -> Result<(), Failure> {
    let plan = match plan(offer)? {
        Some(plan) => plan,
        None => return caching::run(offer, settings, means),
    };
    let names = Names::new(settings, &offer.uuid);
    cache::claim(&names)?;
    let folder = names.parts();
    cache::make_parts(&folder)?;
    let mut parts = Parts {
        offer,
        settings,
        means,
        tries: vec![0; plan.parts()],
        unfinished: Vec::new(),
        wrong: 0,
        is_spoilt: false,
        plan,
        folder,
        begun: Instant::now(),
    };
    let ended = parts.run();
    if parts.is_spoilt {
        // They only take up room; the reason of the failure stands.
        let _ = cache::remove(&parts.folder);
    }
    ended
}

/// `None`: one part, the whole file.
fn plan(offer: &Offer) -> Result<Option<Plan>, Failure> {
    let problem = match (offer.size, offer.partials.len()) {
        (_, 0) => "the hub names no checksums of parts".to_owned(),
        (None, _) => "the hub names no size".to_owned(),
        (Some(size), parts) => match Plan::new(size, parts) {
            Ok(plan) => return Ok(Some(plan)),
            Err(problem) if offer.checksum.is_none() => {
                return Err(Failure::Failed(format!(
                    "the offer makes no sense: {problem}"
                )));
            }
            Err(problem) => problem,
        },
    };
    warn!("{problem}: downloading the firmware as one part");
    Ok(None)
}

struct Parts<'a> {
    offer: &'a Offer,
    settings: &'a CacheSettings,
    means: &'a Means<'a>,
    folder: PathBuf,
    plan: Plan,
    /// How often each part was wrong.
    tries: Vec<u32>,
    /// Begun in earlier rounds.
    unfinished: Vec<Unfinished>,
    /// Parts that were wrong in the last round.
    wrong: usize,
    /// The disk took no more.
    is_spoilt: bool,
    begun: Instant,
}

impl Parts<'_> {
    fn run(&mut self) -> Result<(), Failure> {
        self.take_stock()?;
        loop {
            self.fetch()?;
            if self.prove()? {
                return self.feed();
            }
        }
    }

    /// Proves what an earlier run left, and removes what is not a part.
    fn take_stock(&mut self) -> Result<(), Failure> {
        let unreadable = |error: io::Error| cache::unusable("read", &self.folder, &error);
        for entry in fs::read_dir(&self.folder).map_err(unreadable)? {
            let path = entry.map_err(unreadable)?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let part: Option<usize> = name.parse().ok();
            let part = part.filter(|part| run::path_of(&self.folder, *part) == path);
            let held = part.filter(|part| *part < self.plan.parts());
            match held {
                Some(part) if self.is_proven(part, &mut |_| {}) => self.plan.set_held(part, true),
                _ => {
                    debug!("{} is not, or no longer, a part", path.display());
                    cache::remove(&path)?;
                }
            }
        }
        match self.plan.held_bytes() {
            0 => {}
            held => info!("{held} bytes are here already"),
        }
        let size = self.plan.bytes(self.plan.parts() - 1).end;
        cache::make_sure_of_room(self.settings, size, size - self.plan.held_bytes())
    }

    /// Reads a part's file, shows its bytes to `see`, and compares its SHA-256.
    fn is_proven(&self, part: usize, see: &mut dyn FnMut(&[u8])) -> bool {
        let length = self.plan.length(part);
        let mut hasher = Sha256::new();
        let mut buffer = vec![0; CHUNK];
        let whole = open(&run::path_of(&self.folder, part)).and_then(|mut file| {
            sink::read_off(&mut file, length, &mut buffer, |bytes| {
                hasher.update(bytes);
                see(bytes);
            })?;
            Ok(file.read(&mut buffer[..1])? == 0)
        });
        let found: [u8; 32] = hasher.finalize().into();
        whole.unwrap_or(false) && found == self.offer.partials[part]
    }

    fn held_bytes(&self) -> u64 {
        let begun: u64 = self.unfinished.iter().map(|part| part.received).sum();
        self.plan.held_bytes() + begun
    }

    /// Rounds until no part is missing.
    fn fetch(&mut self) -> Result<(), Failure> {
        let most = self.settings.concurrent_parts;
        let progress = Progress::new(self.means.tell, self.offer.size, self.held_bytes());
        let patience = Patience::new(self.means.settings, self.held_bytes());
        let mut patience = patience.since(self.begun);
        let fetcher = Fetcher::new(self.means, &progress, most as u64, patience.ends());
        let mut url = self.offer.url.clone();
        // One connection from the start of the file is all that a server without ranges can.
        let mut ranged = true;
        loop {
            let runs = match ranged {
                true => self.plan.runs(most),
                false => self.plan.span(),
            };
            if runs.is_empty() {
                return Ok(());
            }
            let request = Request {
                url: &url,
                number: patience.retries,
                ranged,
                // Each part proves itself.
                guarded: false,
            };
            let outcome = self.round(runs, &fetcher, &request)?;
            ranged = true;
            patience.note_progress(self.held_bytes());
            progress.set(self.held_bytes());
            match outcome {
                Ok(()) => patience.retries += u32::from(self.wrong > 0),
                Err(Ended::Final(failure)) => return Err(failure),
                Err(Ended::Refused(reason)) => {
                    url = self
                        .means
                        .fresh_url(reason, self.held_bytes(), patience.ends())?;
                    patience.retries += 1;
                }
                Err(Ended::WithoutRange(reason)) => {
                    ranged = false;
                    patience::sleep(patience.next_pause(reason, None)?, self.means.cancel)?;
                }
                Err(Ended::Again { reason, after }) => {
                    patience::sleep(patience.next_pause(reason, after)?, self.means.cancel)?;
                }
            }
        }
    }

    /// One request for each run, all at once; the worst that happened comes back.
    fn round(
        &mut self,
        runs: Vec<Range<usize>>,
        fetcher: &Fetcher,
        request: &Request,
    ) -> Result<Result<(), Ended>, Failure> {
        let size = self.offer.size;
        let is_sole = runs.len() == 1;
        let mut sinks: Vec<Run> = Vec::new();
        for run in runs {
            sinks.push(self.start(run, is_sole));
        }
        self.unfinished.clear();
        let ended = thread::each("part", &mut sinks, |sink| {
            fetcher.attempt(request, &mut Known::offered(size), sink)
        });
        self.wrong = 0;
        for sink in sinks {
            self.is_spoilt |= sink.is_spoilt;
            for part in sink.done {
                self.plan.set_held(part, true);
            }
            self.unfinished.extend(sink.unfinished);
            for part in sink.wrong {
                self.count_wrong(part)?;
            }
        }
        Ok(ended.into_iter().fold(Ok(()), worse))
    }

    fn start(&mut self, parts: Range<usize>, is_sole: bool) -> Run {
        let begun = self.unfinished.iter();
        let begun = begun
            .map(|begun| begun.part)
            .position(|part| part == parts.start);
        Run {
            plan: self.plan.clone(),
            sums: self.offer.partials[parts.clone()].to_vec(),
            folder: self.folder.clone(),
            part: parts.start,
            unfinished: begun.map(|index| self.unfinished.swap_remove(index)),
            parts,
            is_sole,
            passed: 0,
            buffer: vec![0; CHUNK],
            done: Vec::new(),
            wrong: Vec::new(),
            is_spoilt: false,
        }
    }

    fn count_wrong(&mut self, part: usize) -> Result<(), Failure> {
        self.wrong += 1;
        self.tries[part] += 1;
        let tries = self.tries[part];
        warn!("part {part} is wrong, {tries} time(s) so far");
        if tries < self.settings.part_attempts {
            return Ok(());
        }
        let bytes = self.plan.bytes(part);
        Err(Failure::Failed(format!(
            "checksum mismatch: part {part} (bytes {} to {}) was wrong {tries} times",
            bytes.start,
            bytes.end - 1
        )))
    }

    /// Reads everything back, the parts and the whole. False: something is missing again.
    fn prove(&mut self) -> Result<bool, Failure> {
        let mut hasher = Sha256::new();
        for part in 0..self.plan.parts() {
            if !self.is_proven(part, &mut |bytes| hasher.update(bytes)) {
                self.plan.set_held(part, false);
                cache::remove(&run::path_of(&self.folder, part))?;
                self.count_wrong(part)?;
                return Ok(false);
            }
        }
        let found: [u8; 32] = hasher.finalize().into();
        if is_wrong(self.offer, &found) {
            // Its own parts make up another file: no attempt can mend that.
            self.is_spoilt = true;
            return Err(checksum_mismatch(&found));
        }
        Ok(true)
    }

    fn feed(&self) -> Result<(), Failure> {
        let mut chunk = self.means.feed.chunk();
        for part in 0..self.plan.parts() {
            let path = run::path_of(&self.folder, part);
            let unreadable = |error: io::Error| cache::unusable("read", &path, &error);
            let mut file = open(&path).map_err(unreadable)?;
            let mut left = self.plan.length(part);
            while left > 0 {
                if chunk.room() == 0 {
                    let full = std::mem::replace(&mut chunk, self.means.feed.chunk());
                    self.means.send(Feed::Chunk(full))?;
                }
                match chunk.read_from(&mut file, left).map_err(unreadable)?.len() {
                    0 => return Err(unreadable(io::ErrorKind::UnexpectedEof.into())),
                    count => left -= count as u64,
                }
            }
        }
        // Told first: the installer may be through before the next line runs.
        (self.means.tell)(InstallEvent::Downloaded);
        self.means.send(Feed::Chunk(chunk))?;
        self.means.send(Feed::End)
    }
}

fn open(path: &Path) -> io::Result<File> {
    durable::open(path, OpenOptions::new().read(true))
}

/// Of two connections' ends, the one that decides what comes next.
fn worse(first: Result<(), Ended>, second: Result<(), Ended>) -> Result<(), Ended> {
    let weight = |ended: &Result<(), Ended>| match ended {
        Ok(()) => 0,
        Err(Ended::Again { .. }) => 1,
        Err(Ended::WithoutRange(_)) => 2,
        Err(Ended::Refused(_)) => 3,
        Err(Ended::Final(_)) => 4,
    };
    match weight(&second) > weight(&first) {
        true => second,
        false => first,
    }
}
