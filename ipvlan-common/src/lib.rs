//! What `ipvlan-ctl` and its eBPF programs agree on: map records, the packet parser, the policy
//! that both can evaluate, and the names of drop reasons.
#![no_std]

mod address;
mod packet;
mod policy;
mod reason;
mod record;

pub use address::Address;
pub use packet::{Bytes, Family, Malformed, Neighbour, Packet};
pub use policy::{may_hear, may_speak};
pub use reason::Reason;
pub use record::{
    AddressKey, AddressRecord, Count, Counters, DropKey, Endpoint, EndpointFlags, SubnetKey,
};

/// Version of the map layouts. It names the folder of the pins, so that a program never meets a
/// map of another layout.
pub const ABI: u32 = 1;

/// A slave's ifindex in its namespace is `FIRST_IFINDEX + slot`: one array look-up finds its
/// record, and a container can neither change nor choose an ifindex of a device that we made.
pub const FIRST_IFINDEX: u32 = 100_000;

/// Endpoints on one host; the length of the arrays indexed by slot.
pub const MAX_ENDPOINTS: u32 = 16_384;

/// The part of `skb->tc_index` that carries a stamp. Only BPF programs write these bits from
/// kernel 6.3 on (GRED writes the low four, `net/sched/sch_gred.c`), and no scrub between
/// namespaces clears them: a stamp proves which of our programs passed a packet.
pub const STAMP_MASK: u32 = 0xfff0;
