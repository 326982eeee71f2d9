//! Policy that needs nothing but the endpoint's record and the packet.

use crate::{
    Address, Bytes, Endpoint, EndpointFlags, Family, Malformed, Neighbour, Packet, Reason,
};

/// May this endpoint send this packet, parsed from `frame`, as far as its own identity goes: does
/// it speak from, and claim, only the addresses that it was given? Returns whom the packet is
/// for: its destination, or the target that it asks for.
#[inline(always)]
pub fn may_speak<B: Bytes + ?Sized>(
    endpoint: &Endpoint,
    packet: &Packet,
    frame: &B,
) -> Result<Address, Reason> {
    match packet.family {
        Family::V4 if endpoint.has_v4(packet.source.v4_word()) => Ok(packet.destination),
        Family::V4 if endpoint.is(EndpointFlags::DHCP) && packet.is_for_dhcp_servers(frame) => {
            Ok(packet.destination)
        }
        Family::V4 => Err(Reason::SpoofedSource),
        Family::Arp if has(endpoint.v4, packet.source) => Ok(packet.destination),
        // A probe for its own address (RFC 5227, 2.1.1).
        Family::Arp
            if packet.source == Address::UNSPECIFIED_V4 && has(endpoint.v4, packet.destination) =>
        {
            Ok(packet.destination)
        }
        Family::Arp => Err(Reason::SpoofedNeighbour),
        Family::V6 => {
            let neighbour = packet
                .neighbour(frame)
                .map_err(|Malformed| Reason::Malformed)?;
            may_speak_v6(endpoint, packet, neighbour)
        }
        Family::Other => Err(Reason::UnknownProtocol),
    }
}

#[inline(always)]
fn may_speak_v6(
    endpoint: &Endpoint,
    packet: &Packet,
    neighbour: Neighbour,
) -> Result<Address, Reason> {
    let own = |address| has(endpoint.v6, address) || has(endpoint.link_local, address);
    match neighbour {
        Neighbour::Router => return Err(Reason::SpoofedNeighbour),
        Neighbour::Advertisement(target) if !own(target) => return Err(Reason::SpoofedNeighbour),
        // Duplicate address detection (RFC 4862, 5.4.2) and reports sent before an address is
        // valid (RFC 3590) come from `::`.
        Neighbour::Solicitation(target) if packet.source == Address::UNSPECIFIED => {
            return if own(target) {
                Ok(target)
            } else {
                Err(Reason::SpoofedNeighbour)
            };
        }
        Neighbour::Listener
            if packet.source == Address::UNSPECIFIED && endpoint.v6 != Address::UNSPECIFIED =>
        {
            return Ok(packet.destination);
        }
        _ => {}
    }
    let wanted = match neighbour {
        Neighbour::Solicitation(target) => target,
        _ => packet.destination,
    };
    if own(packet.source) {
        Ok(wanted)
    } else {
        Err(Reason::SpoofedSource)
    }
}

/// Is `address` this one of the endpoint's addresses? `::` stands for none.
#[inline(always)]
fn has(mine: Address, address: Address) -> bool {
    mine == address && address != Address::UNSPECIFIED
}

/// May an internal network's endpoint hear or be heard at this address? `inside` tells whether
/// the network's subnets hold an address; link-scope groups and link-local addresses always
/// belong to the link itself.
#[inline(always)]
pub fn may_hear(address: Address, inside: impl Fn(Address) -> bool) -> Result<(), Reason> {
    if address.is_link_scope_group()
        || address.is_link_local()
        || address.is_unspecified()
        || inside(address)
    {
        Ok(())
    } else {
        Err(Reason::OutsideInternal)
    }
}
