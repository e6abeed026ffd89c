//! NervesHub device agent. See `README.md` for the tour.

pub mod auth;
pub mod config;
pub mod wire;
