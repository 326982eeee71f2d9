//! Networks, endpoints and addresses as values: validation and IPAM without any I/O.

pub mod id;
pub mod invalid;
pub mod ipam;
pub mod network;
pub mod parent;
pub mod pool;

mod find;
#[cfg(test)]
mod fixtures;
mod options;
mod pools;
mod same;

pub use find::{FindError, find};
pub use id::Id;
pub use invalid::Invalid;
pub use network::{
    AddressPlan, CreateRequest, DOCKERS_DOOR, DOOR_LABEL, Flag, HostView, LinkView, Mode, Network,
    Parent, Route,
};
pub use pool::{Pool, Reservation, Usage};
