//! The kernel's side of a network: netlink, its events, network namespaces, and who is at work.

mod announce;
mod events;
mod link;
mod netlink;
mod netns;
mod process;
mod slave;

pub use events::{HostEvent, HostEvents};
pub use link::Link;
pub use netlink::{KernelError, Netlink};
pub use netns::{Netns, NetnsError, NetnsIdentity};
pub use process::started;
pub use slave::{Slave, SlaveAddresses, SlaveRequest};
