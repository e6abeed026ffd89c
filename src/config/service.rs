//! What the agent's supervisor and scripts around it want: a pid file, a log, signs of life,
//! alarms in files.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use super::reader::Reader;
use super::table::setting;

/// How the agent fits in with what starts it.
#[derive(Clone, Debug, Default)]
pub struct ServiceSettings {
    pub pid_file: Option<PathBuf>,
    /// Files there are alarms.
    pub alarms: Option<PathBuf>,
    pub log: LogTarget,
    /// `NOTIFY_SOCKET`: states are told there.
    pub notify: Option<OsString>,
    /// Restarted when it has told nothing for so long (`WATCHDOG_USEC`).
    pub watchdog: Option<Duration>,
}

/// Where log lines go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogTarget {
    #[default]
    Stderr,
    /// Standard error, read by systemd's journal.
    Journal,
    Syslog,
    Kmsg,
}

pub(super) fn read(r: &mut Reader) -> ServiceSettings {
    let text = |value: Option<OsString>| value?.into_string().ok();
    // A child of the watched process is not watched.
    let is_ours = text(r.foreign("WATCHDOG_PID"))
        .is_none_or(|pid| pid.trim() == std::process::id().to_string());
    let micros = text(r.foreign("WATCHDOG_USEC")).and_then(|text| text.trim().parse().ok());
    ServiceSettings {
        pid_file: r.path(setting!("NERVES_HUB_PID_FILE")),
        alarms: r.path(setting!("NERVES_HUB_ALARM_DIR")),
        log: match r.choice(setting!("NERVES_HUB_LOG_TARGET")) {
            "syslog" => LogTarget::Syslog,
            "kmsg" => LogTarget::Kmsg,
            _ if is_journal(text(r.foreign("JOURNAL_STREAM"))) => LogTarget::Journal,
            _ => LogTarget::Stderr,
        },
        notify: r.foreign("NOTIFY_SOCKET"),
        watchdog: micros
            .filter(|micros| *micros > 0 && is_ours)
            .map(Duration::from_micros),
    }
}

/// Every descendant of a service inherits the variable, whatever its standard error is.
fn is_journal(stream: Option<String>) -> bool {
    let stderr = nix::sys::stat::fstat(std::io::stderr());
    stderr.is_ok_and(|file| stream == Some(format!("{}:{}", file.st_dev, file.st_ino)))
}
