//! What `ipvlan-ctl` and its eBPF programs agree on: map records, the packet parser, the policy
//! that both can evaluate, the stamps, and the names of drop reasons.
#![no_std]

mod address;
mod event;
mod flow;
mod layout;
mod packet;
mod policy;
mod reason;
mod record;
mod stamp;

pub use address::Address;
pub use event::{Dropped, Event, Hook, SNAP, Sample, Trace};
pub use flow::{Flow, Message};
pub use layout::KernelLayout;
pub use packet::{Bytes, Family, Malformed, Neighbour, Packet, PlainV4, is_looped};
pub use policy::{may_hear, may_speak};
pub use reason::Reason;
pub use record::{
    AddressKey, AddressRecord, Count, Counters, DropKey, DropOwner, Endpoint, EndpointFlags,
    SubnetKey,
};
pub use stamp::{Stamp, StampKey};

/// Version of the map layouts. It names the folder of the pins, so that a program never meets a
/// map of another layout.
pub const ABI: u32 = 4;

/// A slave's ifindex in its namespace is `FIRST_IFINDEX + slot`: one array look-up finds its
/// record, and a container can neither change nor choose an ifindex of a device that we made.
pub const FIRST_IFINDEX: u32 = 100_000;

/// Endpoints on one host; the length of the arrays indexed by slot.
pub const MAX_ENDPOINTS: u32 = 16_384;

/// Length of `HOST_BUCKETS`, an array by [`Address::bucket`]: is any address of the host's in this
/// bucket? It spares most packets the look-up in the hash `HOST_ADDRESSES`.
pub const HOST_BUCKETS: u32 = 8192;
