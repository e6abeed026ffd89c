//! An update's two threads, download and installer: their start and stop.

use super::Agent;
use crate::config::Secret;
use crate::core::effect::InstallOrder;
use crate::core::event::{Event, JobId, Worker};
use crate::system::channel::{Receiver, Sender, bounded};
use crate::system::http::Cancel;
use crate::update::feed::{self, Feed, Filler};
use crate::update::means::Means;
use crate::wire::Offer;
use crate::workers::{download, installer};

/// The running installation.
pub(super) struct Running {
    job: JobId,
    cancel: Cancel,
    /// Where its download waits for fresh URLs.
    urls: Sender<Secret>,
}

impl Agent {
    pub(super) fn start_install(&mut self, job: JobId, order: InstallOrder) {
        let cancel = match Cancel::new() {
            Ok(cancel) => cancel,
            Err(error) => {
                let lost = Err(format!("no descriptor for the update: {error}"));
                return self
                    .own
                    .push_back(Event::WorkerExited(Worker::Installer(job), lost));
            }
        };
        let (urls, fresh_urls) = bounded(1);
        self.install = Some(Running {
            job,
            cancel: cancel.clone(),
            urls,
        });
        let (chunks, firmware) = feed::channel();
        match order.file.clone() {
            Some(path) => {
                let file = Feed::File {
                    path,
                    proven: false,
                };
                // The channel is empty: there is room.
                chunks.send(file, &cancel);
            }
            None => self.start_download(job, &order.offer, chunks, cancel.clone(), fresh_urls),
        }
        let (journal, guard) = (self.journal.clone(), self.guard.clone());
        let inbox = self.crew.inbox();
        self.spawn("installer", Worker::Installer(job), move || {
            installer::run(job, order, firmware, &cancel, &journal, &guard, &inbox)
        });
    }

    fn start_download(
        &mut self,
        job: JobId,
        offer: &Offer,
        chunks: Filler,
        stop: Cancel,
        fresh_urls: Receiver<Secret>,
    ) {
        let (offer, inbox) = (offer.clone(), self.crew.inbox());
        let (dialer, settings) = (self.access.download.clone(), self.config.download);
        let cache = self.config.cache.clone();
        let allow_insecure = self.config.allow_insecure;
        self.spawn("download", Worker::Download(job), move || {
            let tell = |event| {
                // The dispatcher is gone only when the process leaves.
                let _ = inbox.send(Event::Install(job, event));
            };
            let means = Means {
                settings,
                dialer,
                allow_insecure,
                cancel: &stop,
                feed: &chunks,
                tell: &tell,
                fresh_urls,
            };
            download::run(job, &offer, &cache, &means, &inbox)
        });
    }

    pub(super) fn cancel_install(&mut self, job: JobId) {
        if let Some(install) = self.install.take_if(|install| install.job == job) {
            install.cancel.cancel();
        }
    }

    pub(super) fn renew_url(&mut self, job: JobId, url: Secret) {
        if let Some(install) = self.install.as_ref().filter(|install| install.job == job) {
            // The download waits for it, or is gone.
            let _ = install.urls.try_send(url);
        }
    }
}
