//! Names: a resolver at 127.0.0.11 in the namespace of every endpoint, as Docker's.
//!
//! ```text
//! packet ─► answer ─► View: the zones of the networks the asker is on
//!             └─────► Upstream: what is no endpoint's name, for whom may ask outside
//! ```
//!
//! A [`Zone`] is what the endpoints of one network are called; a [`View`] is what one
//! namespace may see: the zones of its own networks and no other. [`answer()`] is a function of
//! a packet and a view. [`Server`] does the input and output.

mod answer;
mod server;
mod upstream;
mod zone;

use std::net::Ipv4Addr;

pub use answer::{Answer, Forward, Transport, answer};
pub use server::{Server, ServerError};
pub use upstream::{Outcome, Upstream};
pub use zone::{Member, View, Zone};

/// Where the resolver is in each namespace; the port is 53.
pub const ADDRESS: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 11);
