//! The programs. Each returns "next": whatever else is attached to the device has its say too.

use aya_ebpf::{
    bindings::{TC_ACT_SHOT, TC_ACT_UNSPEC},
    macros::classifier,
    programs::TcContext,
};
use ipvlan_common::{
    DropKey, EndpointFlags, Family, Hook, Packet, PlainV4, Reason, Stamp, is_looped,
};

use crate::drops;
use crate::gso;
use crate::maps::COUNTERS;
use crate::origin::{Exit, is_foreign};
use crate::party::{Party, Verdict, owner, parse};
use crate::skb::Skb;

#[inline(always)]
fn run(ctx: &TcContext, hook: Hook, judge: impl FnOnce(&Skb) -> Verdict) -> i32 {
    let skb = Skb::new(ctx);
    match judge(&skb) {
        Ok(()) => TC_ACT_UNSPEC,
        Err(key) => {
            drops::record(skb, &key, hook);
            TC_ACT_SHOT
        }
    }
}

#[classifier]
pub fn endpoint_egress(ctx: TcContext) -> i32 {
    run(&ctx, Hook::EndpointEgress, |skb| {
        let sender = Party::here(skb)?;
        let family = match PlainV4::parse(skb) {
            Some(packet) if sender.may_send(&packet, skb) => Family::V4,
            _ => send(&sender, skb)?,
        };
        skb.set_stamp(Stamp::Endpoint(sender.slot));
        if let Some(counters) = COUNTERS.get_ptr_mut(sender.slot) {
            // SAFETY: this CPU's own value.
            let count = unsafe { &mut (*counters).tx[family as usize & 3] };
            let sent = gso::sent(skb);
            count.packets += sent.packets;
            count.bytes += sent.bytes;
        }
        Ok(())
    })
}

/// Judges any packet that the endpoint sends.
#[inline(always)]
fn send(sender: &Party, skb: &Skb) -> Result<Family, DropKey> {
    let packet = sender.parse(skb)?;
    // The driver trusts skb->protocol, the receiver the frame: they must agree, or a raw socket
    // could show us one packet and send another.
    if packet.ethertype != skb.protocol() {
        return Err(sender.drop(Reason::Malformed));
    }
    sender.speaks(&packet, skb)?;
    Ok(packet.family)
}

#[classifier]
pub fn endpoint_ingress(ctx: TcContext) -> i32 {
    run(&ctx, Hook::EndpointIngress, |skb| {
        let receiver = Party::here(skb)?;
        // What the container forwards is its own packet.
        let stamped = skb.take_stamp();
        if skb.is_handed_back() {
            return Ok(());
        }
        if let Some(packet) = PlainV4::parse(skb)
            && let Some(slot) = stamped.endpoint()
            && receiver.may_take(&packet, slot)
        {
            count_received(receiver.slot, Family::V4, 1, skb.len() + ETHERNET);
            return Ok(());
        }
        receive(&receiver, stamped.stamp(), skb)
    })
}

/// Counts and judges any packet that comes to the endpoint.
#[inline(always)]
fn receive(receiver: &Party, stamp: Stamp, skb: &Skb) -> Verdict {
    let packet = parse(skb);
    let family = match &packet {
        Ok(packet) => packet.family,
        Err(_) => Family::Other,
    };
    // Between slaves the driver counts the Ethernet header twice (ipvlan_rcv_frame and
    // ipvlan_process_multicast add it to a length that has it); so do we.
    let local = matches!(stamp, Stamp::Endpoint(_));
    let len = skb.len() + if local { ETHERNET } else { 0 };
    count_received(receiver.slot, family, 1, len);
    let packet = packet.map_err(|reason| receiver.drop(reason))?;
    match stamp {
        Stamp::Endpoint(_) => {
            let sender = Party::sender(stamp, receiver.endpoint.parent)
                .ok_or(receiver.drop(Reason::Unattached))?;
            sender.speaks_as_itself(&packet, skb)?;
            if sender.endpoint.network != receiver.endpoint.network {
                return Err(receiver.drop(Reason::OtherNetwork));
            }
        }
        Stamp::Wire => receiver.hears_wire(&packet)?,
        Stamp::None if receiver.endpoint.is(EndpointFlags::UNSTAMPED) => {
            receiver.hears_wire(&packet)?
        }
        Stamp::None | Stamp::Routed(_) => return Err(receiver.drop(Reason::Unattached)),
    }
    if packet.group || receiver.endpoint.is_meant_by(&packet) {
        Ok(())
    } else {
        Err(receiver.drop(Reason::Misaddressed))
    }
}

#[classifier]
pub fn parent_ingress(ctx: TcContext) -> i32 {
    run(&ctx, Hook::ParentIngress, |skb| {
        let stamp = skb.take_stamp().stamp();
        if skb.is_handed_back() {
            return Ok(());
        }
        let parent = skb.ifindex();
        // A frame to the MAC that they share is a slave's way to the host; or it is the host's own
        // to an endpoint, reflected, since the driver itself hands on what is to a slave's address.
        let looped = is_looped(skb);
        if looped && let Some(sender) = Party::sender(stamp, parent) {
            return sender.reaches_host(skb);
        }
        let unattached = Err(DropKey::parent(parent, Reason::Unattached));
        // Tagged packets have their own device and, there, their own program.
        let plain = if skb.is_tagged() {
            None
        } else {
            parse(skb).ok()
        };
        let Some(packet) = plain.filter(|packet| !matches!(packet.family, Family::Other)) else {
            // Not for us to judge what the host's stack makes of it; an endpoint will not take it.
            return if looped { unattached } else { Ok(()) };
        };
        let sender = owner(parent, packet.source);
        let receiver = owner(parent, packet.destination);
        match (sender, receiver) {
            (_, None) if looped => return unattached,
            // Reflected by the switch or a router; ipvlan's vepa flag wants that.
            (Some(sender), Some(receiver)) if sender.is(EndpointFlags::VEPA) => {
                if sender.network != receiver.network {
                    return Err(DropKey::endpoint(sender.slot, Reason::OtherNetwork));
                }
            }
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
            (None, Some(receiver)) if receiver.is(EndpointFlags::L3S) => {
                receive_l3s(skb, receiver.slot, &packet)?;
            }
            (None, _) => {}
        }
        skb.set_stamp(Stamp::Wire);
        Ok(())
    })
}

#[classifier]
pub fn parent_egress(ctx: TcContext) -> i32 {
    run(&ctx, Hook::ParentEgress, |skb| {
        let stamp = skb.take_stamp().stamp();
        let parent = skb.ifindex();
        if let Some(sender) = Party::sender(stamp, parent) {
            return sender.speaks(&sender.parse(skb)?, skb);
        }
        // The packets of the host's own VLAN devices, judged there; a slave's tag is in the frame.
        if skb.is_tagged() {
            return Ok(());
        }
        let packet = parse(skb).ok();
        if let Some(packet) = &packet {
            if let Some(receiver) = owner(parent, packet.destination)
                && !receiver.is(EndpointFlags::HOST_ACCESS)
            {
                return Err(DropKey::endpoint(receiver.slot, Reason::HostToEndpoint));
            }
            if let Some(sender) = owner(parent, packet.source) {
                return Err(DropKey::endpoint(sender.slot, Reason::Unattached));
            }
        }
        if is_foreign(skb, packet.as_ref(), Exit::Parent) {
            return Err(DropKey::parent(parent, Reason::Unattached));
        }
        Ok(())
    })
}

#[classifier]
pub fn loopback_egress(ctx: TcContext) -> i32 {
    run(&ctx, Hook::LoopbackEgress, |skb| {
        if let Some(sender) = Party::routed(skb.stamped().stamp()) {
            skb.take_stamp();
            return sender.reaches_host(skb);
        }
        if is_foreign(skb, None, Exit::Loopback) {
            return Err(DropKey::parent(skb.ifindex(), Reason::Unattached));
        }
        Ok(())
    })
}

/// What the driver adds to the length of what one slave hands to another.
const ETHERNET: u64 = 14;

/// In mode l3s the wire's packets reach a slave behind its hooks: count and judge them here.
#[inline(always)]
fn receive_l3s(skb: &Skb, slot: u32, packet: &Packet) -> Verdict {
    let Some(receiver) = Party::find(slot, EndpointFlags::PRESENT) else {
        return Ok(());
    };
    receiver.hears_wire(packet)?;
    // The host puts IPv4 fragments together before the slave has them: a packet is counted with
    // its first fragment, and with all of its payload.
    let (packets, headers) = match packet.later_fragment_v4(skb) {
        Some(headers) => (0, headers),
        None => (1, 0),
    };
    let len = skb.len().saturating_sub(headers.into());
    count_received(slot, packet.family, packets, len);
    Ok(())
}

#[inline(always)]
fn count_received(slot: u32, family: Family, packets: u64, len: u64) {
    if let Some(counters) = COUNTERS.get_ptr_mut(slot) {
        // SAFETY: this CPU's own value.
        let count = unsafe { &mut (*counters).rx[family as usize & 3] };
        count.packets += packets;
        count.bytes += len;
    }
}
