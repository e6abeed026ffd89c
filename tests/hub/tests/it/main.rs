//! Tests of the development hub, in one binary: a raw device client against a real hub.

mod client;
mod control;
mod gate;
mod operator;
mod pure;
mod relay;
mod replay;
mod store;
mod strict;
mod tls;
