//! Exit codes, from `sysexits.h`. Documented in the README; part of the interface.

/// Told to stop, and did.
pub const OK: u8 = 0;
/// The command line makes no sense (EX_USAGE).
pub const USAGE: u8 = 64;
/// A slot command that is not possible on this device, or not now (EX_UNAVAILABLE).
pub const UNAVAILABLE: u8 = 69;
/// A fault in the agent (EX_SOFTWARE).
pub const SOFTWARE: u8 = 70;
/// The system gave no thread, descriptor or signal handler, or does not reboot (EX_OSERR).
pub const OS_ERROR: u8 = 71;
/// A slot command failed at writing, or the program that does it failed (EX_IOERR).
pub const IO_ERROR: u8 = 74;
/// Settings, files they name, or the device's identity are unusable (EX_CONFIG).
pub const CONFIG: u8 = 78;
