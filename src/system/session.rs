//! A child in a session of its own, and the end of everything in it.
//!
//! Owns what such a child starts with (its session, no descriptor of ours, none of our
//! secrets, an end when its thread ends) and the search for whatever it has started. Its
//! leader must not be reaped before that: until then its number names this session only.

use std::fs;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::libc;
use nix::sys::prctl;
use nix::sys::signal::{Signal, kill, killpg};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::{Pid, setsid};

use super::command::without_secrets;

/// Descriptors beyond this are not looked for on kernels without `close_range(2)`.
const DESCRIPTORS: i32 = 4096;
/// How long everything in a session may take to die of SIGKILL.
const DEATH: Duration = Duration::from_secs(1);
/// Pause between searches.
const SEARCH_PAUSE: Duration = Duration::from_millis(2);
/// Searches in a row that must find nothing: one process may pass another's number by.
const QUIET: u32 = 2;

/// The child will lead a session of its own, hold none of the descriptors that the agent
/// was started with, and die when the thread that starts it ends.
pub fn detach(command: &mut Command) {
    // SAFETY: between fork and exec only setsid(2), prctl(2), close_range(2) and fcntl(2)
    // are called, which are async-signal-safe and allocate nothing.
    unsafe { command.pre_exec(prepare) };
}

fn prepare() -> io::Result<()> {
    setsid()?;
    prctl::set_pdeathsig(Signal::SIGKILL)?;
    leave_descriptors();
    Ok(())
}

/// Whatever is open beside standard input, output and error is closed by exec, also what a
/// library opened without saying so. Not before: one of them reports to the parent that exec
/// failed. For children between fork and exec: async-signal-safe.
pub fn leave_descriptors() {
    const FIRST: libc::c_uint = 3;
    // SAFETY: plain system calls on numbers; descriptors that do not exist are errors.
    unsafe {
        let all = libc::c_uint::MAX;
        let flags = libc::CLOSE_RANGE_CLOEXEC;
        if libc::syscall(libc::SYS_close_range, FIRST, all, flags) == 0 {
            return;
        }
        for descriptor in FIRST.cast_signed()..DESCRIPTORS {
            libc::fcntl(descriptor, libc::F_SETFD, libc::FD_CLOEXEC);
        }
    }
}

/// Takes secrets out of what the child inherits: the agent's own, and proxies' passwords.
pub fn scrub(command: &mut Command) {
    without_secrets(command);
    for (name, value) in std::env::vars_os() {
        let is_proxy = name
            .to_string_lossy()
            .to_ascii_lowercase()
            .ends_with("_proxy");
        if is_proxy && value.to_string_lossy().contains('@') {
            command.env_remove(name);
        }
    }
}

/// How a child ended, or that it is still alive; it is left to be reaped, so that its number
/// stays its own.
///
/// # Errors
/// It is no child, or ended by a signal without a name.
pub fn peek(child: Pid) -> nix::Result<WaitStatus> {
    let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT | WaitPidFlag::WNOHANG;
    waitid(Id::Pid(child), flags)
}

/// Whether a child has ended, by whatever signal; see [`peek`].
pub fn has_ended(child: Pid) -> bool {
    !matches!(peek(child), Ok(WaitStatus::StillAlive) | Err(Errno::EINTR))
}

/// Kills whatever is left of the session that `leader` leads. False when something would
/// not die in time.
pub fn end(leader: Pid) -> bool {
    let deadline = Instant::now() + DEATH;
    let mut quiet = 0;
    loop {
        // At once for all of the group; the search is for those that left it.
        let _ = killpg(leader, Signal::SIGKILL);
        let members = members(leader);
        for member in &members {
            let _ = kill(*member, Signal::SIGKILL);
        }
        quiet = if members.is_empty() { quiet + 1 } else { 0 };
        if quiet == QUIET {
            return true;
        }
        if Instant::now() >= deadline {
            return false;
        }
        std::thread::sleep(SEARCH_PAUSE);
    }
}

/// Every process of the session that is not dead yet.
pub fn members(leader: Pid) -> Vec<Pid> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    pids.filter(|pid: &i32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"));
        stat.is_ok_and(|stat| session_of(&stat) == Some(leader.as_raw()))
    })
    .map(Pid::from_raw)
    .collect()
}

/// The session in `/proc/PID/stat`; `None` of a process that has ended.
fn session_of(stat: &str) -> Option<i32> {
    // The name before it may hold anything.
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace();
    let state = fields.next()?;
    let session = fields.nth(2)?.parse().ok()?;
    (!matches!(state, "Z" | "X")).then_some(session)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader};
    use std::process::Stdio;

    #[test]
    fn sessions_are_read_behind_any_name() {
        let live = "42 (a) b (c) S 1 42 40 0 -1";
        assert_eq!(session_of(live), Some(40));
        assert_eq!(session_of("42 (sh) Z 1 42 40 0"), None);
        assert_eq!(session_of("42 (sh"), None);
        assert_eq!(session_of(""), None);
    }

    #[test]
    fn everything_in_the_session_dies_also_what_left_the_group() {
        let text = "import os, signal, time\n\
                    signal.signal(signal.SIGTERM, signal.SIG_IGN)\n\
                    for n in range(3):\n\
                    \x20   if os.fork() == 0: break\n\
                    else: print('ready', flush=True)\n\
                    if os.getpid() != os.getsid(0): os.setpgid(0, 0)\n\
                    time.sleep(60)";
        let mut command = Command::new("python3");
        command.args(["-c", text]).stdout(Stdio::piped());
        detach(&mut command);
        let mut child = command.spawn().unwrap();
        let leader = Pid::from_raw(child.id().cast_signed());
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let deadline = Instant::now() + Duration::from_secs(10);
        while members(leader).len() < 4 {
            assert!(Instant::now() < deadline, "{:?}", members(leader));
        }
        let in_group = |pid: &Pid| nix::unistd::getpgid(Some(*pid)) == Ok(leader);
        while members(leader).iter().filter(|pid| in_group(pid)).count() > 1 {
            assert!(Instant::now() < deadline, "nobody left the group");
        }
        assert!(end(leader));
        assert_eq!(members(leader), []);
        child.wait().unwrap();
    }

    #[test]
    fn a_detached_child_holds_no_descriptor_of_ours() {
        use std::os::fd::AsRawFd;
        let file = fs::File::open("/dev/null").unwrap();
        nix::fcntl::fcntl(
            &file,
            nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::empty()),
        )
        .unwrap();
        let inherited = format!("/proc/self/fd/{}", file.as_raw_fd());
        let holds = |detached: bool| {
            let mut command = Command::new("readlink");
            command.arg(&inherited).stdout(Stdio::piped());
            if detached {
                detach(&mut command);
            }
            let output = command.output().unwrap();
            String::from_utf8_lossy(&output.stdout).contains("/dev/null")
        };
        assert!(holds(false), "the test shows nothing");
        assert!(!holds(true));
    }
}
