//! The kernel's side of a network: netlink and network namespaces.

mod link;
mod netlink;
mod netns;
mod slave;

pub use link::Link;
pub use netlink::{KernelError, Netlink};
pub use netns::{Netns, NetnsError, NetnsIdentity};
pub use slave::{Slave, SlaveAddresses, SlaveRequest};
