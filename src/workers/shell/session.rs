//! The end of a session: everything that was started in it goes with it, whatever groups it
//! is in. What has left the session (setsid) has left.

use std::process::Child;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::core::event::ShellEnd;
use crate::system::session::{has_ended, members};

/// Between hanging up and killing.
const GRACE: Duration = Duration::from_secs(1);
/// How long what was killed may take to go.
const REAP: Duration = Duration::from_secs(1);
/// Between looks while something is going.
const LOOK: Duration = Duration::from_millis(10);

/// Ends the session of `child` and reaps it. `meanwhile` is called while something is still
/// going: a process that waits for its output to be taken cannot end.
pub(super) fn end(child: &mut Child, mut meanwhile: impl FnMut()) -> ShellEnd {
    let session = Pid::from_raw(child.id().cast_signed());
    let mut signals = [Signal::SIGHUP, Signal::SIGCONT].as_slice();
    let mut deadline = Instant::now() + GRACE;
    let mut told = Vec::new();
    loop {
        let members = members(session);
        if members.is_empty() && has_ended(session) {
            break;
        }
        // Nobody is hung up twice, and everybody is killed until they are gone.
        let killing = signals.contains(&Signal::SIGKILL);
        for pid in members.iter().filter(|pid| killing || !told.contains(*pid)) {
            for signal in signals {
                let _ = kill(*pid, *signal);
            }
        }
        told = members;
        if Instant::now() >= deadline {
            if killing {
                break;
            }
            signals = [Signal::SIGKILL].as_slice();
            deadline = Instant::now() + REAP;
            continue;
        }
        meanwhile();
        std::thread::sleep(LOOK);
    }
    reap(child)
}

fn reap(child: &mut Child) -> ShellEnd {
    use std::os::unix::process::ExitStatusExt;
    match child.try_wait() {
        Ok(Some(status)) => match (status.code(), status.signal()) {
            (Some(code), _) => ShellEnd::Exited(code),
            (None, signal) => ShellEnd::Signalled(signal.unwrap_or_default()),
        },
        Ok(None) => ShellEnd::Lost(format!("killed process {} does not go away", child.id())),
        Err(error) => ShellEnd::Lost(error.to_string()),
    }
}
