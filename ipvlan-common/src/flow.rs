//! What a person asks about a packet: who, to whom, about what.

use crate::packet::{ETHERNET, Upper, upper_v4, upper_v6};
use crate::{Address, Bytes, Family, Malformed, Neighbour, Packet};

/// The five-tuple of a packet, or what its ARP or ICMP message is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    pub family: Family,
    /// EtherType, host order.
    pub ethertype: u16,
    /// Sender protocol address of ARP; `::` for [`Family::Other`].
    pub source: Address,
    /// Target protocol address of ARP; `::` for [`Family::Other`].
    pub destination: Address,
    /// IP protocol behind all extension headers; `None` for other families, and where the
    /// headers are longer than what is there of the frame.
    pub protocol: Option<u8>,
    /// Offset of a fragment in bytes; 0 for a first fragment and a whole packet.
    pub fragment: u16,
    pub message: Message,
}

/// What follows the network header, if it is all there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message {
    /// Nothing that is known, a later fragment, or cut short.
    Opaque,
    /// TCP, UDP, UDP-Lite, DCCP or SCTP.
    Ports {
        source: u16,
        destination: u16,
    },
    /// Type and code of ICMP and ICMPv6.
    Icmp {
        kind: u8,
        code: u8,
    },
    /// A neighbour solicitation or advertisement, and its target.
    Solicitation(Address),
    Advertisement(Address),
    /// Operation of ARP (RFC 826): 1 request, 2 reply.
    Arp {
        operation: u16,
    },
}

impl Flow {
    /// Parses a frame that begins with its Ethernet header and may be cut after any header.
    pub fn parse<B: Bytes + ?Sized>(frame: &B) -> Result<Self, Malformed> {
        let packet = Packet::parse(frame)?;
        let mut flow = Self {
            family: packet.family,
            ethertype: packet.ethertype,
            source: packet.source,
            destination: packet.destination,
            protocol: None,
            fragment: 0,
            message: Message::Opaque,
        };
        let upper = match packet.family {
            Family::V4 => upper_v4(frame),
            Family::V6 => upper_v6(frame, packet.next_header),
            Family::Arp => {
                if let Some(operation) = frame.at(ETHERNET + 6) {
                    flow.message = Message::Arp {
                        operation: u16::from_be_bytes(operation),
                    };
                }
                return Ok(flow);
            }
            Family::Other => return Ok(flow),
        };
        // What is behind the cut is not known; what is before it is.
        if let Ok(upper) = upper {
            flow.protocol = Some(upper.protocol);
            flow.fragment = upper.fragment;
            if upper.fragment == 0 {
                flow.message = message(frame, &packet, &upper);
            }
        }
        Ok(flow)
    }
}

fn message<B: Bytes + ?Sized>(frame: &B, packet: &Packet, upper: &Upper) -> Message {
    const ICMP: u8 = 1;
    const TCP: u8 = 6;
    const UDP: u8 = 17;
    const DCCP: u8 = 33;
    const ICMPV6: u8 = 58;
    const SCTP: u8 = 132;
    const UDP_LITE: u8 = 136;

    let known = match (packet.family, upper.protocol) {
        (_, TCP | UDP | DCCP | SCTP | UDP_LITE) => {
            frame.at(upper.offset).map(|[a, b, c, d]| Message::Ports {
                source: u16::from_be_bytes([a, b]),
                destination: u16::from_be_bytes([c, d]),
            })
        }
        (Family::V4, ICMP) | (Family::V6, ICMPV6) => match packet.neighbour(frame) {
            Ok(Neighbour::Solicitation(target)) => Some(Message::Solicitation(target)),
            Ok(Neighbour::Advertisement(target)) => Some(Message::Advertisement(target)),
            _ => frame
                .at(upper.offset)
                .map(|[kind, code]| Message::Icmp { kind, code }),
        },
        _ => None,
    };
    known.unwrap_or(Message::Opaque)
}
