//! Keys and values of the maps. All are `repr(C)` without padding.

use crate::{Address, FIRST_IFINDEX, Family, MAX_ENDPOINTS, Packet, Reason};

/// What is allowed to an endpoint; bits of [`Endpoint::flags`].
#[derive(Clone, Copy)]
pub struct EndpointFlags;

impl EndpointFlags {
    /// The slot is in use.
    pub const PRESENT: u32 = 1;
    /// Its network is internal.
    pub const INTERNAL: u32 = 1 << 1;
    /// Host and endpoint may talk.
    pub const HOST_ACCESS: u32 = 1 << 2;
    /// Reflected packets between endpoints are the network's way (ipvlan flag vepa).
    pub const VEPA: u32 = 1 << 3;
    /// The parent carries other networks too.
    pub const SHARED: u32 = 1 << 4;
    /// The slave's own hooks do not see what comes from the wire (mode l3s delivers at
    /// `LOCAL_IN`): the parent's ingress program judges and counts it.
    pub const L3S: u32 = 1 << 5;
    /// What it sends beyond its parent's slaves goes through the host's routing (modes l3, l3s).
    pub const ROUTED: u32 = 1 << 6;
    /// It asks for its address by DHCP, so it speaks to servers before it has one.
    pub const DHCP: u32 = 1 << 7;
    /// Its parent is in its own namespace, where no program stamps what the wire brings.
    pub const UNSTAMPED: u32 = 1 << 8;
}

/// Value of `ENDPOINTS`, an array by slot. An address that the endpoint lacks is `::`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Endpoint {
    pub flags: u32,
    pub network: u32,
    /// Ifindex of the parent in the controller's namespace, or a number that none has there.
    pub parent: u32,
    pub v4: Address,
    pub v6: Address,
    pub link_local: Address,
}

impl Endpoint {
    pub const ABSENT: Self = Self {
        flags: 0,
        network: 0,
        parent: 0,
        v4: Address::UNSPECIFIED,
        v6: Address::UNSPECIFIED,
        link_local: Address::UNSPECIFIED,
    };

    #[inline(always)]
    pub const fn is(&self, flag: u32) -> bool {
        self.flags & flag != 0
    }

    /// Was the endpoint given this IPv4 address? No endpoint has `0.0.0.0`, and to lack one is `::`.
    #[inline(always)]
    pub const fn has_v4(&self, word: u32) -> bool {
        word == self.v4.v4_word() && word != 0
    }

    /// Is the packet to an address that the endpoint was given? No endpoint has `::`.
    #[inline(always)]
    pub fn is_meant_by(&self, packet: &Packet) -> bool {
        let address = packet.destination;
        match packet.family {
            Family::V4 | Family::Arp => self.has_v4(address.v4_word()),
            Family::V6 => {
                address != Address::UNSPECIFIED
                    && (address == self.v6 || address == self.link_local)
            }
            Family::Other => false,
        }
    }

    /// Slot of the slave with this ifindex in its namespace.
    #[inline(always)]
    pub const fn slot(ifindex: u32) -> Option<u32> {
        let slot = ifindex.wrapping_sub(FIRST_IFINDEX);
        if slot < MAX_ENDPOINTS {
            Some(slot)
        } else {
            None
        }
    }
}

/// Key of `ADDRESSES`: an address is unique among the slaves of one parent (the kernel refuses
/// a second), not among parents.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressKey {
    pub parent: u32,
    pub address: Address,
}

/// Value of `ADDRESSES`: who has this address.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressRecord {
    pub slot: u32,
    pub network: u32,
    /// [`EndpointFlags`] of the endpoint.
    pub flags: u32,
}

impl AddressRecord {
    #[inline(always)]
    pub const fn is(&self, flag: u32) -> bool {
        self.flags & flag != 0
    }
}

/// Data of a key of `SUBNETS`, a longest-prefix trie: the number of the network (32 bits, all
/// significant), then the address. Its presence says that the address is inside the network.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SubnetKey {
    pub network: u32,
    pub address: Address,
}

/// Packets, and bytes with their Ethernet headers.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    pub packets: u64,
    pub bytes: u64,
}

/// Value of `COUNTERS`, a per-CPU array by slot; both directions are indexed by
/// [`Family`](crate::Family).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    pub rx: [Count; 4],
    pub tx: [Count; 4],
}

/// Key of `DROPS`, a per-CPU hash.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DropKey {
    /// A slot, or a parent's ifindex with the top bit set.
    pub owner: u32,
    pub reason: u32,
}

impl DropKey {
    const PARENT: u32 = 1 << 31;

    #[inline(always)]
    pub const fn endpoint(slot: u32, reason: Reason) -> Self {
        Self {
            owner: slot,
            reason: reason as u32,
        }
    }

    #[inline(always)]
    pub const fn parent(ifindex: u32, reason: Reason) -> Self {
        Self {
            owner: ifindex | Self::PARENT,
            reason: reason as u32,
        }
    }

    pub const fn owner(&self) -> DropOwner {
        if self.owner & Self::PARENT == 0 {
            DropOwner::Endpoint(self.owner)
        } else {
            DropOwner::Parent(self.owner & !Self::PARENT)
        }
    }
}

/// Whose a dropped packet is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DropOwner {
    /// By slot.
    Endpoint(u32),
    /// By ifindex; the packet belongs to no endpoint.
    Parent(u32),
}

#[cfg(feature = "user")]
mod user {
    use super::*;

    // SAFETY: `repr(C)`, made of integers only, without padding: any bytes are a value.
    unsafe impl aya::Pod for Endpoint {}
    // SAFETY: as above.
    unsafe impl aya::Pod for AddressKey {}
    // SAFETY: as above.
    unsafe impl aya::Pod for AddressRecord {}
    // SAFETY: as above.
    unsafe impl aya::Pod for SubnetKey {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Counters {}
    // SAFETY: as above.
    unsafe impl aya::Pod for DropKey {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Address {}
}
