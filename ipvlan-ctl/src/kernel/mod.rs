//! The kernel's side of a network: netlink and network namespaces.

mod netns;

pub use netns::{Netns, NetnsError};
