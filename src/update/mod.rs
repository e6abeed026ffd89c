//! From an offer to bytes in the installer.
//!
//! * [`response`] decides what an HTTP answer means for a download in progress. Pure.
//! * [`means`] is what a download works with, [`sink`] where its bytes go.
//! * [`fetch`] makes the requests; [`patience`] counts attempts and time, `pace` keeps to a
//!   rate.
//! * [`journal`] is what an update must not forget when the agent dies.
//! * [`feed`] is the bounded way from the download to the installer.
//! * [`streaming`], [`caching`] and [`parts`] are the strategies: where the bytes go, and
//!   what is proven before the installer sees them. [`store`] is the file of the second,
//!   [`plan`] does the arithmetic of the third, [`cache`] looks after their folder.
//! * [`archive`] gets files that are not installed to their place; [`ledger`] remembers
//!   which ones were handled.

pub mod archive;
pub mod cache;
pub mod caching;
pub mod feed;
pub mod fetch;
pub mod journal;
pub mod ledger;
pub mod means;
mod pace;
pub mod parts;
pub mod patience;
pub mod plan;
pub mod progress;
pub mod response;
pub mod sink;
pub mod store;
pub mod streaming;

#[cfg(test)]
mod tests;
