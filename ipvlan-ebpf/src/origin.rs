//! Whose is a packet without a stamp, the host's or a container's?
//!
//! A container can put a slave of its own on our parent, whose packets come to the parent, and in
//! modes l3 and l3s to the host's loop-back, as if they were the host's. What the kernel notes
//! about them on their way tells them apart; a packet's bytes cannot.

use ipvlan_common::{Family, KernelLayout, Packet};

use crate::memory::{kernel_layout, read};
use crate::party::is_host;
use crate::skb::Skb;

/// `PACKET_BROADCAST` and `PACKET_MULTICAST` (linux/if_packet.h).
const BROADCAST: u32 = 1;
const MULTICAST: u32 = 2;

/// Where the packet leaves the host's stack.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    Parent,
    Loopback,
}

/// Does the packet come from another network namespace than the device's? `packet` is `None` where
/// it could not be parsed.
#[inline(always)]
pub fn is_foreign(skb: &Skb, packet: Option<&Packet>, exit: Exit) -> bool {
    let Some(layout) = kernel_layout() else {
        return false;
    };
    let evidence = Evidence { skb, layout };
    let net = evidence.net_of_device(evidence.field(layout.skb_device));
    let socket = evidence.field(layout.skb_socket);
    // A user's socket holds its namespace. One of the kernel's may serve all of them in turn
    // (sock_net_set in net/ipv4/icmp.c), so that by now it may be in another.
    if socket != 0
        && read::<u8>(socket, layout.socket_holds_net) as u32 & layout.socket_holds_net_bit != 0
    {
        return read::<u64>(socket, layout.socket_net) != net;
    }
    // The lowest bit says whether the reference is counted (SKB_DST_NOREF).
    let route = evidence.field(layout.skb_route) & !1;
    let device = if route == 0 {
        0
    } else {
        read(route, layout.route_device)
    };
    if device == 0 {
        return !evidence.is_host_arp(packet);
    }
    if evidence.net_of_device(device) != net {
        return true;
    }
    // Routed by the host though it came by another device, and was not received: a tunnel of the
    // host's, whose packets have an address of the host's; or a slave in mode l3.
    evidence.crossed_a_device()
        && skb.ingress_ifindex() == 0
        && match (exit, packet) {
            (Exit::Parent, Some(packet)) => !is_host(packet.source),
            _ => true,
        }
}

struct Evidence<'a> {
    skb: &'a Skb,
    layout: KernelLayout,
}

impl Evidence<'_> {
    /// A pointer in the `sk_buff`.
    #[inline(always)]
    fn field(&self, offset: u32) -> u64 {
        read(self.skb.address(), offset)
    }

    #[inline(always)]
    fn net_of_device(&self, device: u64) -> u64 {
        read(device, self.layout.device_net)
    }

    /// `netdev_core_pick_tx` notes the CPU, counted from one, at the first device that sends the
    /// packet (net/core/dev.c); larger numbers are a receiving queue's.
    #[inline(always)]
    fn crossed_a_device(&self) -> bool {
        let cpu: u32 = read(self.skb.address(), self.layout.skb_sender_cpu);
        cpu != 0 && cpu <= self.layout.cpus
    }

    /// Of what has neither route nor user's socket, only ARP is the host's own. ipvlan notes the
    /// kind of a group packet (ipvlan_process_multicast), which the host's own does not have.
    #[inline(always)]
    fn is_host_arp(&self, packet: Option<&Packet>) -> bool {
        packet.is_some_and(|packet| matches!(packet.family, Family::Arp))
            && !matches!(self.skb.packet_type(), BROADCAST | MULTICAST)
            && self.skb.ingress_ifindex() == 0
            && !self.crossed_a_device()
    }
}
