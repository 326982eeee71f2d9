//! The kernel's side of a network: netlink, its events, and network namespaces.

mod announce;
mod events;
mod link;
mod netlink;
mod netns;
mod slave;

pub use events::{HostEvent, HostEvents};
pub use link::Link;
pub use netlink::{KernelError, Netlink};
pub use netns::{Netns, NetnsError, NetnsIdentity};
pub use slave::{Slave, SlaveAddresses, SlaveRequest};
