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

#[cfg(test)]
mod tests {
    use super::*;

    /// The zone belongs to the process, so the real test runs in one of its own.
    #[test]
    fn summer_time_counts() {
        let name = "system::local_time::tests::in_central_europe";
        let status = std::process::Command::new(std::env::current_exe().expect("test binary"))
            .args(["--exact", name, "--ignored", "--nocapture"])
            .env("TZ", "CET-1CEST,M3.5.0,M10.5.0/3")
            .stdout(std::process::Stdio::null())
            .status()
            .expect("test binary");
        assert_eq!(status.code(), Some(42));
    }

    #[test]
    #[ignore = "run by summer_time_counts"]
    fn in_central_europe() {
        read_zone();
        let (january, july) = (1_767_225_600, 1_782_864_000);
        // 2026-03-29, 01:00 UTC.
        let change = 1_774_746_000;
        let offsets = [january, july, change - 1, change].map(offset);
        let right = offsets == [3600, 7200, 3600, 7200];
        std::process::exit(if right { 42 } else { 1 });
    }
}
