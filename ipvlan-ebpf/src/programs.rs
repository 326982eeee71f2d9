//! The programs. Each returns "next": whatever else is attached to the device has its say too.

use aya_ebpf::{
    bindings::{BPF_NOEXIST, TC_ACT_SHOT, TC_ACT_UNSPEC},
    macros::classifier,
    maps::lpm_trie,
    programs::TcContext,
};
use ipvlan_common::{
    Address, AddressKey, AddressRecord, DropKey, Endpoint, EndpointFlags, Family, Malformed,
    Packet, Reason, SubnetKey, may_hear, may_speak,
};

use crate::maps::{
    ADDRESSES, COUNTERS, DROPS, ENDPOINTS, HOST_ADDRESSES, SUBNETS, endpoint_stamp, wire_stamp,
};
use crate::skb::Skb;

/// A packet to drop, and whose figure it is.
type Verdict = Result<(), DropKey>;

#[inline(always)]
fn run(ctx: &TcContext, judge: impl FnOnce(&Skb) -> Verdict) -> i32 {
    match judge(&Skb::new(ctx)) {
        Ok(()) => TC_ACT_UNSPEC,
        Err(key) => {
            count_drop(&key);
            TC_ACT_SHOT
        }
    }
}

#[classifier]
pub fn endpoint_egress(ctx: TcContext) -> i32 {
    run(&ctx, |skb| {
        let (slot, endpoint) = own_record(skb)?;
        let drop = |reason| DropKey::endpoint(slot, reason);
        let packet = parse(skb).map_err(drop)?;
        // The driver trusts skb->protocol, the receiver the frame: they must agree, or a raw
        // socket could show us one packet and send another.
        if packet.ethertype != skb.protocol() {
            return Err(drop(Reason::Malformed));
        }
        let wanted = may_speak(endpoint, &packet, skb).map_err(drop)?;
        if !endpoint.is(EndpointFlags::HOST_ACCESS) && is_host(wanted) {
            return Err(drop(Reason::EndpointToHost));
        }
        if endpoint.is(EndpointFlags::INTERNAL) {
            stay_inside(endpoint, wanted).map_err(drop)?;
        }
        skb.set_stamp(endpoint_stamp());
        if let Some(counters) = COUNTERS.get_ptr_mut(slot) {
            // SAFETY: this CPU's own value.
            let count = unsafe { &mut (*counters).tx[packet.family as usize & 3] };
            count.packets += 1;
            count.bytes += skb.len();
        }
        Ok(())
    })
}

#[classifier]
pub fn endpoint_ingress(ctx: TcContext) -> i32 {
    run(&ctx, |skb| {
        let (slot, endpoint) = own_record(skb)?;
        let drop = |reason| DropKey::endpoint(slot, reason);
        let stamp = skb.stamp();
        let local = stamp == endpoint_stamp();
        // A stamp is good for one crossing: what the container forwards is its own packet.
        skb.set_stamp(0);
        let packet = parse(skb);
        let family = match &packet {
            Ok(packet) => packet.family,
            Err(_) => Family::Other,
        };
        // Between slaves the driver counts the Ethernet header twice (ipvlan_rcv_frame and
        // ipvlan_process_multicast add it to a length that has it); so do we.
        let len = skb.len() + if local { ETHERNET } else { 0 };
        count_received(slot, family, len);
        if !local && stamp != wire_stamp() {
            return Err(drop(Reason::Unattached));
        }
        hear(endpoint, &packet.map_err(drop)?, local).map_err(drop)
    })
}

#[classifier]
pub fn parent_ingress(ctx: TcContext) -> i32 {
    run(&ctx, |skb| {
        // Whatever came in stamped, from another namespace or a slave's loop-back, is the
        // wire's now; tagged packets have their own device and, there, their own program.
        skb.set_stamp(0);
        if skb.is_tagged() {
            return Ok(());
        }
        let parent = skb.ifindex();
        // Not for us to judge what the host's stack makes of it; an endpoint will not take it.
        let Ok(packet) = parse(skb) else {
            return Ok(());
        };
        if matches!(packet.family, Family::Other) {
            return Ok(());
        }
        let sender = owner(parent, packet.source);
        let receiver = owner(parent, packet.destination);
        match (sender, receiver) {
            // Reflected by the switch or a router; ipvlan's vepa flag wants that.
            (Some(sender), Some(_)) if sender.is(EndpointFlags::VEPA) => {}
            // An announcement of its own address has the same sender and target.
            (Some(sender), Some(_)) => {
                return Err(DropKey::endpoint(sender.slot, Reason::Reflected));
            }
            (Some(sender), None) if sender.is(EndpointFlags::HOST_ACCESS) => {}
            (Some(sender), None) if packet.group => {
                return Err(DropKey::endpoint(sender.slot, Reason::Reflected));
            }
            (Some(sender), None) => {
                return Err(DropKey::endpoint(sender.slot, Reason::EndpointToHost));
            }
            // A slave that is none of ours, addressing the host by the MAC they share.
            (None, None) if packet.looped => {
                return Err(DropKey::parent(parent, Reason::Unattached));
            }
            (None, Some(receiver)) if receiver.is(EndpointFlags::L3S) => {
                receive_l3s(skb, receiver, &packet)?;
            }
            (None, _) => {}
        }
        skb.set_stamp(wire_stamp());
        Ok(())
    })
}

#[classifier]
pub fn parent_egress(ctx: TcContext) -> i32 {
    run(&ctx, |skb| {
        let passed = skb.stamp() == endpoint_stamp();
        skb.set_stamp(0);
        if passed || skb.is_tagged() {
            return Ok(());
        }
        let Ok(packet) = parse(skb) else {
            return Ok(());
        };
        let parent = skb.ifindex();
        if let Some(receiver) = owner(parent, packet.destination)
            && !receiver.is(EndpointFlags::HOST_ACCESS)
        {
            return Err(DropKey::endpoint(receiver.slot, Reason::HostToEndpoint));
        }
        if let Some(sender) = owner(parent, packet.source) {
            return Err(DropKey::endpoint(sender.slot, Reason::Unattached));
        }
        Ok(())
    })
}

const ETHERNET: u64 = 14;

/// The record of the slave that this program runs on.
#[inline(always)]
fn own_record(skb: &Skb) -> Result<(u32, &'static Endpoint), DropKey> {
    let ifindex = skb.ifindex();
    Endpoint::slot(ifindex)
        .and_then(|slot| Some((slot, ENDPOINTS.get(slot)?)))
        .filter(|(_, endpoint)| endpoint.is(EndpointFlags::PRESENT))
        .ok_or(DropKey::parent(ifindex, Reason::Unattached))
}

#[inline(always)]
fn parse(skb: &Skb) -> Result<Packet, Reason> {
    Packet::parse(skb).map_err(|Malformed| Reason::Malformed)
}

/// May the endpoint take this packet, which a program has passed?
#[inline(always)]
fn hear(endpoint: &Endpoint, packet: &Packet, local: bool) -> Result<(), Reason> {
    if matches!(packet.family, Family::Other) {
        return Err(Reason::UnknownProtocol);
    }
    if !local {
        if !endpoint.is(EndpointFlags::HOST_ACCESS) && is_host(packet.source) {
            return Err(Reason::HostToEndpoint);
        }
    } else if endpoint.is(EndpointFlags::SHARED)
        && let Some(sender) = owner(endpoint.parent, packet.source)
        && sender.network != endpoint.network
    {
        return Err(Reason::OtherNetwork);
    }
    if endpoint.is(EndpointFlags::INTERNAL) {
        stay_inside(endpoint, packet.source)?;
    }
    Ok(())
}

/// In mode l3s the wire's packets reach a slave behind its hooks: count and judge them here.
#[inline(always)]
fn receive_l3s(skb: &Skb, receiver: &AddressRecord, packet: &Packet) -> Verdict {
    let Some(endpoint) = ENDPOINTS.get(receiver.slot) else {
        return Ok(());
    };
    hear(endpoint, packet, false).map_err(|reason| DropKey::endpoint(receiver.slot, reason))?;
    count_received(receiver.slot, packet.family, skb.len());
    Ok(())
}

#[inline(always)]
fn stay_inside(endpoint: &Endpoint, address: Address) -> Result<(), Reason> {
    let network = endpoint.network;
    may_hear(address, |address| {
        SUBNETS
            .get(lpm_trie::Key::new(160, SubnetKey { network, address }))
            .is_some()
    })
}

#[inline(always)]
fn is_host(address: Address) -> bool {
    HOST_ADDRESSES.get_ptr(address).is_some()
}

/// Who on this parent has this address?
#[inline(always)]
fn owner(parent: u32, address: Address) -> Option<&'static AddressRecord> {
    // SAFETY: entries are not pre-allocated, so a removed one stays intact until a grace period
    // has passed, which this program ends before.
    unsafe { ADDRESSES.get(AddressKey { parent, address }) }
}

#[inline(always)]
fn count_received(slot: u32, family: Family, len: u64) {
    if let Some(counters) = COUNTERS.get_ptr_mut(slot) {
        // SAFETY: this CPU's own value.
        let count = unsafe { &mut (*counters).rx[family as usize & 3] };
        count.packets += 1;
        count.bytes += len;
    }
}

#[inline(never)]
fn count_drop(key: &DropKey) {
    if let Some(count) = DROPS.get_ptr_mut(key) {
        // SAFETY: this CPU's own value.
        unsafe { *count += 1 };
        return;
    }
    // Another CPU may have made the entry meanwhile: then ours is there to be counted up.
    if DROPS.insert(key, 1, u64::from(BPF_NOEXIST)).is_err()
        && let Some(count) = DROPS.get_ptr_mut(key)
    {
        // SAFETY: this CPU's own value.
        unsafe { *count += 1 };
    }
}
