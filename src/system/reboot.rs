//! The last resort when the reboot command does not reboot: the kernel's own call.
//!
//! Blocks: not for the dispatcher thread. Stops no service and unmounts nothing. Must only
//! be called when the settings allow it: it takes the whole machine down, or the container.

use std::io;
use std::time::Duration;

use nix::sys::reboot::{RebootMode, reboot};

use super::channel::bounded;
use super::thread;

/// Flushes disks, but not for longer than `limit`: one that is stuck must not keep a
/// device from the reboot that may cure it.
pub fn flush(limit: Duration) {
    let (sender, receiver) = bounded(1);
    let work = move || {
        nix::unistd::sync();
        // Nobody listens any more after the deadline.
        let _ = sender.send(());
    };
    match thread::spawn("sync", |_| {}, work) {
        Ok(_) if receiver.recv_timeout(limit).is_ok() => {}
        Ok(_) => error!("the disks took longer than {limit:?} to flush; going on"),
        Err(error) => {
            warn!("no thread to flush disks on ({error}); doing it here");
            nix::unistd::sync();
        }
    }
}

/// Flushes disks and reboots; comes back only when the kernel refused.
pub fn force(flush_limit: Duration) -> io::Error {
    flush(flush_limit);
    match reboot(RebootMode::RB_AUTOBOOT) {
        Ok(never) => match never {},
        Err(error) => io::Error::other(format!("reboot(2): {}", error.desc())),
    }
}
