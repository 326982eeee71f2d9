//! Networks, endpoints and addresses as values: validation and IPAM without any I/O.

mod address;
#[cfg(test)]
mod fixtures;
mod host;
mod id;
mod invalid;
pub mod ipam;
mod network;
mod options;
mod parent;
mod pool;
pub mod reference;
mod request;
mod subnets;

pub use address::Family;
pub use host::{HostView, LinkView};
pub use id::Id;
pub use invalid::Invalid;
pub use network::{AddressPlan, Flag, Mode, Network, Parent};
pub use pool::{Pool, Reserved};
pub use request::CreateRequest;
