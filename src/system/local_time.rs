//! The time zone: how far local time is from UTC (`TZ`, `/etc/localtime`).
//!
//! Reads files: not for the dispatcher thread.

use nix::libc;

/// Reads the zone again; [`offset`] goes by it.
pub fn read_zone() {
    // SAFETY: no other thread of this process changes the environment, and only this
    // function sets the C library's zone.
    unsafe { tzset() }
}

unsafe extern "C" {
    fn tzset();
}

/// Seconds east of UTC at that unix time; zero where the C library does not know.
#[allow(
    clippy::useless_conversion,
    reason = "32-bit systems have a shorter offset"
)]
pub fn offset(unix_seconds: u64) -> i64 {
    let Ok(time) = libc::time_t::try_from(unix_seconds) else {
        return 0;
    };
    // SAFETY: `tm` is plain data for which all zeros (null included) is a value.
    let mut local: libc::tm = unsafe { std::mem::zeroed() };
    // SAFETY: both pointers are to values that live throughout the call.
    let known = unsafe { libc::localtime_r(&raw const time, &raw mut local) };
    match known.is_null() {
        true => 0,
        false => i64::from(local.tm_gmtoff),
    }
}
