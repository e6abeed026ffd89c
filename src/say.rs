//! Log lines with little code: `error!`, `warn!`, `info!` and `debug!` as the log crate has
//! them, through one function. Its own leave file and line behind at every place, which no
//! target of ours shows. Must not know where lines go: see [`crate::logging`].

use std::fmt::Arguments;

use log::{Level, Record};

/// Hands a line of this module to the logger.
pub fn say(level: Level, module: &'static str, text: Arguments) {
    if level <= log::max_level() {
        let mut record = Record::builder();
        record.level(level).target(module).args(text);
        log::logger().log(&record.module_path_static(Some(module)).build());
    }
}

macro_rules! error {
    ($($text:tt)+) => {
        $crate::say::say(log::Level::Error, module_path!(), format_args!($($text)+))
    };
}

macro_rules! warn {
    ($($text:tt)+) => {
        $crate::say::say(log::Level::Warn, module_path!(), format_args!($($text)+))
    };
}

macro_rules! info {
    ($($text:tt)+) => {
        $crate::say::say(log::Level::Info, module_path!(), format_args!($($text)+))
    };
}

/// Its arguments are not even computed when nobody wants to hear.
macro_rules! debug {
    ($($text:tt)+) => {
        if log::Level::Debug <= log::max_level() {
            $crate::say::say(log::Level::Debug, module_path!(), format_args!($($text)+));
        }
    };
}
