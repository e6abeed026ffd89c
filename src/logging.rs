//! Log lines on standard error: UTC time, level, text.

use std::io::Write;

use env_logger::Builder;
use log::LevelFilter;

use crate::system::time;

/// Libraries whose own log would show signed URLs or handshakes.
const QUIET: [&str; 4] = ["ureq", "ureq_proto", "tungstenite", "rustls"];

/// Starts logging with an env_logger filter.
pub fn start(filter: &str) {
    let mut builder = Builder::new();
    builder.parse_filters(filter);
    for library in QUIET {
        builder.filter_module(library, LevelFilter::Warn);
    }
    builder.format(|out, record| {
        let now = time::iso8601(time::unix_now());
        writeln!(out, "{now} {:<5} {}", record.level(), record.args())
    });
    // Only tests start it twice.
    let _ = builder.try_init();
}
