//! A pseudo-terminal with a program on it: a session of its own, nothing of the agent's
//! beyond what it is given. Owns how it is started; `session` how it ends.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use nix::fcntl::{OFlag, open};
use nix::libc;
use nix::pty::{PtyMaster, Winsize, grantpt, posix_openpt, ptsname_r, unlockpt};
use nix::sys::stat::{Mode, umask};
use nix::sys::termios::{InputFlags, SetArg, tcgetattr, tcsetattr};
use nix::unistd::{Pid, fchown, setgid, setgroups, setsid, setuid};

use super::account::{Account, Identity};
use crate::config::ShellSettings;
use crate::system::session;
use crate::wire::WindowSize;

nix::ioctl_write_ptr_bad!(set_window_size, libc::TIOCSWINSZ, Winsize);
nix::ioctl_write_int_bad!(take_terminal, libc::TIOCSCTTY);

/// Signals there are, real-time ones too.
const SIGNALS: std::ops::RangeInclusive<i32> = 1..=64;

/// A program on its terminal.
pub(super) struct Pty {
    pub child: Child,
    /// Does not block.
    pub master: PtyMaster,
    /// Kept open: the terminal then does not hang up while the program changes its own
    /// descriptors, and only the program's end counts as one.
    pub slave: OwnedFd,
    /// Readable when the child has ended; kernels before 5.3 have none.
    pub exit: Option<OwnedFd>,
    /// What was started.
    pub program: String,
}

/// What the child does between fork and exec.
struct Plan {
    identity: Option<Identity>,
    home: CString,
}

impl Pty {
    /// Whether the program has ended; it is not reaped yet.
    pub(super) fn has_ended(&self) -> bool {
        session::has_ended(Pid::from_raw(self.child.id().cast_signed()))
    }

    /// # Errors
    /// Why not, in words for a person who wants the shell.
    pub(super) fn start(settings: &ShellSettings, size: WindowSize) -> Result<Self, String> {
        let account = Account::find(settings)?;
        let no_terminal =
            |error| format!("no pseudo-terminal: {error}; is devpts mounted on /dev/pts?");
        let (master, slave) = terminal().map_err(no_terminal)?;
        resize(&master, size);
        if let Some(identity) = &account.identity {
            // Programs open their terminal again by its name.
            let _ = fchown(&slave, Some(identity.uid), None);
        }
        let (mut command, program) = command(settings, &account);
        command.env_clear().envs(account.environment(settings));
        for hand in [Command::stdin, Command::stdout, Command::stderr] {
            let copy = slave.try_clone().map_err(|error| error.to_string())?;
            hand(&mut command, Stdio::from(copy));
        }
        let home = CString::new(account.home.as_os_str().as_bytes()).unwrap_or_default();
        let plan = Plan {
            identity: account.identity,
            home,
        };
        // SAFETY: between fork and exec `enter` makes system calls only, all of them
        // async-signal-safe; it allocates nothing and takes no lock.
        unsafe { command.pre_exec(move || enter(&plan)) };
        let child = command
            .spawn()
            .map_err(|error| format!("{program}: {error}; see NERVES_HUB_CONSOLE_COMMAND"))?;
        let exit = exit_descriptor(&child);
        Ok(Self {
            child,
            master,
            slave,
            exit,
            program,
        })
    }

    pub(super) fn pid(&self) -> i32 {
        self.child.id().cast_signed()
    }

    pub(super) fn resize(&self, size: WindowSize) {
        resize(&self.master, size);
    }
}

fn terminal() -> io::Result<(PtyMaster, OwnedFd)> {
    let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    let master = posix_openpt(flags | OFlag::O_NONBLOCK)?;
    grantpt(&master)?;
    unlockpt(&master)?;
    let slave = open(Path::new(&ptsname_r(&master)?), flags, Mode::empty())?;
    // So that a whole character goes when one is erased.
    let mut modes = tcgetattr(&slave)?;
    modes.input_flags.insert(InputFlags::IUTF8);
    tcsetattr(&slave, SetArg::TCSANOW, &modes)?;
    Ok((master, slave))
}

fn resize(master: &PtyMaster, size: WindowSize) {
    let window = Winsize {
        ws_row: size.rows,
        ws_col: size.cols,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    // SAFETY: the descriptor is open and the structure outlives the call.
    if let Err(error) = unsafe { set_window_size(master.as_raw_fd(), &raw const window) } {
        debug!("window size: {error}");
    }
}

/// The command, and its name for people.
fn command(settings: &ShellSettings, account: &Account) -> (Command, String) {
    let is_path = |text: &&String| {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._+-".contains(&byte);
        text.starts_with('/') && text.bytes().all(plain)
    };
    let given = settings.command.as_ref();
    if let Some(text) = given.filter(|text| !is_path(text)) {
        let mut command = Command::new("/bin/sh");
        command.arg("-c").arg(text);
        return (command, text.clone());
    }
    let path = given.map_or(account.shell.as_path(), Path::new);
    let name = path.file_name().unwrap_or(path.as_os_str());
    let mut command = Command::new(path);
    // By the dash a shell knows that it is a login's.
    command.arg0(format!("-{}", name.to_string_lossy()));
    (command, path.display().to_string())
}

/// In the child, before the program.
fn enter(plan: &Plan) -> io::Result<()> {
    setsid()?;
    // SAFETY: descriptor 0 is the terminal.
    unsafe { take_terminal(0, 0) }?;
    for signal in SIGNALS {
        // SAFETY: sets a default; those that cannot be set have it.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
    // SAFETY: the set is initialised before it is used.
    unsafe {
        let mut none = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
    }
    umask(Mode::from_bits_truncate(0o022));
    if let Some(identity) = &plan.identity {
        setgroups(&identity.groups)?;
        setgid(identity.gid)?;
        setuid(identity.uid)?;
    }
    enter_folder(&plan.home);
    session::leave_descriptors();
    Ok(())
}

/// The home, or the root where there is none.
fn enter_folder(home: &CStr) {
    // SAFETY: both are strings that end with NUL.
    unsafe {
        if libc::chdir(home.as_ptr()) != 0 {
            libc::chdir(c"/".as_ptr());
        }
    }
}

fn exit_descriptor(child: &Child) -> Option<OwnedFd> {
    // SAFETY: the number is a child's that is not reaped yet, and a descriptor that comes
    // back is nobody else's; it is closed on exec by definition.
    unsafe {
        let descriptor = libc::syscall(libc::SYS_pidfd_open, child.id(), 0);
        let descriptor = i32::try_from(descriptor)
            .ok()
            .filter(|number| *number >= 0)?;
        Some(OwnedFd::from_raw_fd(descriptor))
    }
}

impl AsFd for Pty {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.master.as_fd()
    }
}
