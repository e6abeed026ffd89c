//! From an offer to bytes in the installer.
//!
//! * [`response`] decides what an HTTP answer means for a download in progress. Pure.
//! * [`feed`] is the bounded way from the download to the installer.
//! * [`patience`] counts attempts and time.
//! * [`streaming`] is the strategy that keeps nothing on disk.

pub mod feed;
pub mod patience;
pub mod response;
pub mod streaming;
