//! The doors for other engines: each translates a protocol's words into the engine's verbs and
//! their results back. No logic, no state.

pub mod cni;
pub mod docker;
pub mod netavark;
