//! The commands beside running the agent. Each file owns one; none touches the network.

pub mod check;
pub mod settings;
pub mod slots;
