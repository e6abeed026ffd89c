//! Exit codes, from `sysexits.h`. Documented in the README; part of the interface.

/// Told to stop, and did.
pub const OK: u8 = 0;
/// A question answered with no: the hub is not reached.
pub const NO: u8 = 1;
/// The command line makes no sense (EX_USAGE).
pub const USAGE: u8 = 64;
/// A file that is to be sent cannot be read (EX_NOINPUT).
pub const NO_INPUT: u8 = 66;
/// Not possible on this device, or not now; or no agent is running (EX_UNAVAILABLE).
pub const UNAVAILABLE: u8 = 69;
/// A fault in the agent (EX_SOFTWARE).
pub const SOFTWARE: u8 = 70;
/// The system gave no thread, descriptor or signal handler, or does not reboot (EX_OSERR).
pub const OS_ERROR: u8 = 71;
/// A slot command failed at writing, or the program that does it failed (EX_IOERR).
pub const IO_ERROR: u8 = 74;
/// The agent has enough to do, or another one has the data folder; try again (EX_TEMPFAIL).
pub const TRY_AGAIN: u8 = 75;
/// The control socket is not for this user (EX_NOPERM).
pub const NO_PERMISSION: u8 = 77;
/// Settings, files they name, or the device's identity are unusable (EX_CONFIG).
pub const CONFIG: u8 = 78;
