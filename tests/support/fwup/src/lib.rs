//! A stand-in for `fwup`: reads, checks and applies real `.fw` archives, and builds them for tests.
//!
//! It follows the recorded behaviour of fwup 1.16.0: same frames, same messages, same exit codes.

mod apply;
pub mod archive;
pub mod cli;
mod conf;
mod disk;
mod failure;
mod functions;
mod input;
mod lexer;
mod meta;
mod options;
mod output;
mod pattern;
mod resource;
mod uboot;
mod verify;
mod zip;
mod zipheader;
mod zipwrite;

/// The version the stand-in answers to `--version` and `require-fwup-version`.
pub const VERSION: &str = "1.16.0";
