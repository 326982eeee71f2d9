//! An endpoint as the programs judge it: what it may say, and what it may hear.

use aya_ebpf::maps::lpm_trie;
use ipvlan_common::{
    Address, AddressKey, AddressRecord, DropKey, Endpoint, EndpointFlags, Family, Malformed,
    Packet, PlainV4, Reason, Stamp, SubnetKey, may_hear, may_speak,
};

use crate::maps::{ADDRESSES, ENDPOINTS, HOST_ADDRESSES, HOST_BUCKETS, SUBNETS};
use crate::skb::Skb;

/// A packet to drop, and whose figure it is.
pub type Verdict = Result<(), DropKey>;

/// An endpoint by its record, and the slot that its figures are under.
pub struct Party {
    pub slot: u32,
    pub endpoint: &'static Endpoint,
}

impl Party {
    /// The endpoint in this slot, if it has this flag.
    #[inline(always)]
    pub fn find(slot: u32, flag: u32) -> Option<Self> {
        let endpoint = ENDPOINTS.get(slot)?;
        endpoint.is(flag).then_some(Self { slot, endpoint })
    }

    /// The endpoint whose slave this program runs on.
    #[inline(always)]
    pub fn here(skb: &Skb) -> Result<Self, DropKey> {
        let ifindex = skb.ifindex();
        Endpoint::slot(ifindex)
            .and_then(|slot| Self::find(slot, EndpointFlags::PRESENT))
            .ok_or(DropKey::parent(ifindex, Reason::Unattached))
    }

    /// The endpoint on this parent whose program passed the packet, if the stamp says so.
    #[inline(always)]
    pub fn sender(stamp: Stamp, parent: u32) -> Option<Self> {
        let sender = match stamp {
            Stamp::Endpoint(slot) => Self::find(slot, EndpointFlags::PRESENT),
            _ => Self::routed(stamp),
        };
        sender.filter(|sender| sender.endpoint.parent == parent)
    }

    /// The endpoint whose packet the host has routed, if the stamp says so.
    #[inline(always)]
    pub fn routed(stamp: Stamp) -> Option<Self> {
        match stamp {
            Stamp::Routed(slot) => Self::find(slot, EndpointFlags::ROUTED),
            _ => None,
        }
    }

    #[inline(always)]
    pub fn drop(&self, reason: Reason) -> DropKey {
        DropKey::endpoint(self.slot, reason)
    }

    /// A packet that it sends. Endpoints send no VLAN tags: where the driver loops a tagged frame
    /// back to the parent, the host's own VLAN device would take it.
    #[inline(always)]
    pub fn parse(&self, skb: &Skb) -> Result<Packet, DropKey> {
        if skb.is_tagged() {
            return Err(self.drop(Reason::UnknownProtocol));
        }
        parse(skb).map_err(|reason| self.drop(reason))
    }

    /// May it send this packet? `false` says nothing: [`Party::speaks`] judges all packets, and is
    /// as strict with what this lets pass.
    #[inline(always)]
    pub fn may_send(&self, packet: &PlainV4, skb: &Skb) -> bool {
        const IPV4: u16 = 0x0800;
        let endpoint = self.endpoint;
        endpoint.has_v4(packet.source)
            && skb.protocol() == IPV4
            && !skb.is_tagged()
            && !endpoint.is(EndpointFlags::INTERNAL | EndpointFlags::SHARED)
            && (endpoint.is(EndpointFlags::HOST_ACCESS)
                || !may_be_host(Address::from_v4_word(packet.destination)))
    }

    /// May it take this packet, which the endpoint in `slot` has sent? `false` says nothing, as above.
    #[inline(always)]
    pub fn may_take(&self, packet: &PlainV4, slot: u32) -> bool {
        let endpoint = self.endpoint;
        ENDPOINTS.get(slot).is_some_and(|sender| {
            sender.is(EndpointFlags::PRESENT)
                && sender.parent == endpoint.parent
                && sender.network == endpoint.network
                && sender.has_v4(packet.source)
                && (endpoint.has_v4(packet.destination) || packet.group)
        })
    }

    /// Does it speak as itself, and to whom it may?
    #[inline(always)]
    pub fn speaks(&self, packet: &Packet, skb: &Skb) -> Verdict {
        let wanted = self.speaks_as_itself(packet, skb)?;
        self.reaches(wanted).map_err(|reason| self.drop(reason))
    }

    /// Does it speak as itself? Returns whom the packet is for.
    #[inline(always)]
    pub fn speaks_as_itself(&self, packet: &Packet, skb: &Skb) -> Result<Address, DropKey> {
        may_speak(self.endpoint, packet, skb).map_err(|reason| self.drop(reason))
    }

    #[inline(always)]
    fn reaches(&self, wanted: Address) -> Result<(), Reason> {
        if !self.endpoint.is(EndpointFlags::HOST_ACCESS) && is_host(wanted) {
            return Err(Reason::EndpointToHost);
        }
        if !self
            .endpoint
            .is(EndpointFlags::INTERNAL | EndpointFlags::SHARED)
        {
            return Ok(());
        }
        if self.endpoint.is(EndpointFlags::INTERNAL) {
            self.stays_inside(wanted)?;
        }
        // The receiver's program says so too; without TCX, a container can take that one off.
        if self.endpoint.is(EndpointFlags::SHARED)
            && let Some(receiver) = owner(self.endpoint.parent, wanted)
            && receiver.network != self.endpoint.network
        {
            return Err(Reason::OtherNetwork);
        }
        Ok(())
    }

    /// May the host's stack have this packet of its?
    #[inline(always)]
    pub fn reaches_host(&self, skb: &Skb) -> Verdict {
        if !self.endpoint.is(EndpointFlags::HOST_ACCESS) {
            return Err(self.drop(Reason::EndpointToHost));
        }
        self.speaks(&self.parse(skb)?, skb)
    }

    /// May it take this packet, which the wire brought?
    #[inline(always)]
    pub fn hears_wire(&self, packet: &Packet) -> Verdict {
        self.may_hear(packet).map_err(|reason| self.drop(reason))
    }

    #[inline(always)]
    fn may_hear(&self, packet: &Packet) -> Result<(), Reason> {
        if matches!(packet.family, Family::Other) {
            return Err(Reason::UnknownProtocol);
        }
        if !self.endpoint.is(EndpointFlags::HOST_ACCESS) && is_host(packet.source) {
            return Err(Reason::HostToEndpoint);
        }
        if self.endpoint.is(EndpointFlags::INTERNAL) {
            self.stays_inside(packet.source)?;
        }
        Ok(())
    }

    #[inline(always)]
    fn stays_inside(&self, address: Address) -> Result<(), Reason> {
        let network = self.endpoint.network;
        may_hear(address, |address| {
            SUBNETS
                .get(lpm_trie::Key::new(160, SubnetKey { network, address }))
                .is_some()
        })
    }
}

#[inline(always)]
pub fn parse(skb: &Skb) -> Result<Packet, Reason> {
    Packet::parse(skb).map_err(|Malformed| Reason::Malformed)
}

/// Who on this parent has this address?
#[inline(always)]
pub fn owner(parent: u32, address: Address) -> Option<&'static AddressRecord> {
    // SAFETY: entries are not pre-allocated, so a removed one stays intact until a grace period
    // has passed, which this program ends before.
    unsafe { ADDRESSES.get(AddressKey { parent, address }) }
}

#[inline(always)]
pub fn is_host(address: Address) -> bool {
    may_be_host(address) && HOST_ADDRESSES.get_ptr(address).is_some()
}

#[inline(always)]
fn may_be_host(address: Address) -> bool {
    HOST_BUCKETS.get(address.bucket()) != Some(&0)
}
