//! Ethernet frames as endpoints send them.

use std::net::{Ipv4Addr, Ipv6Addr};

/// The shortest frame without its checksum; with it, 64 bytes.
const SHORTEST: usize = 60;

const SOURCE_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
const DESTINATION_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];
const UDP: u8 = 17;

/// UDP over IPv4, 64 bytes on the wire.
pub fn udp_v4(source: Ipv4Addr, destination: Ipv4Addr) -> Vec<u8> {
    let mut frame = ethernet(DESTINATION_MAC, 0x0800);
    let total = (SHORTEST - frame.len()) as u16;
    frame.extend([0x45, 0]);
    frame.extend(total.to_be_bytes());
    frame.extend([0, 1, 0, 0, 64, UDP, 0, 0]);
    frame.extend(source.octets());
    frame.extend(destination.octets());
    frame.extend(udp(total - 20));
    padded(frame)
}

/// UDP over IPv6: its headers alone are longer than the shortest frame.
pub fn udp_v6(source: Ipv6Addr, destination: Ipv6Addr) -> Vec<u8> {
    let mut frame = ethernet(DESTINATION_MAC, 0x86dd);
    frame.extend([0x60, 0, 0, 0]);
    frame.extend(8_u16.to_be_bytes());
    frame.extend([UDP, 64]);
    frame.extend(source.octets());
    frame.extend(destination.octets());
    frame.extend(udp(8));
    padded(frame)
}

/// An ARP request (RFC 826).
pub fn arp(source: Ipv4Addr, target: Ipv4Addr) -> Vec<u8> {
    arp_to([0xff; 6], source, target)
}

/// An ARP request to the one who had the address before (RFC 1122, 2.3.2.1).
pub fn arp_probe(source: Ipv4Addr, target: Ipv4Addr) -> Vec<u8> {
    arp_to(DESTINATION_MAC, source, target)
}

fn arp_to(mac: [u8; 6], source: Ipv4Addr, target: Ipv4Addr) -> Vec<u8> {
    let mut frame = ethernet(mac, 0x0806);
    frame.extend([0, 1, 8, 0, 6, 4, 0, 1]);
    frame.extend(SOURCE_MAC);
    frame.extend(source.octets());
    frame.extend([0; 6]);
    frame.extend(target.octets());
    padded(frame)
}

fn ethernet(destination: [u8; 6], ethertype: u16) -> Vec<u8> {
    let mut frame = Vec::with_capacity(SHORTEST);
    frame.extend(destination);
    frame.extend(SOURCE_MAC);
    frame.extend(ethertype.to_be_bytes());
    frame
}

fn udp(length: u16) -> Vec<u8> {
    [4000_u16, 4001, length, 0]
        .into_iter()
        .flat_map(u16::to_be_bytes)
        .collect()
}

fn padded(mut frame: Vec<u8>) -> Vec<u8> {
    frame.resize(frame.len().max(SHORTEST), 0);
    frame
}

#[cfg(test)]
mod tests {
    use ipvlan_common::{Family, Packet};

    use super::*;

    #[test]
    fn the_parser_reads_them_as_meant() {
        let (a, b) = (Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2));
        let (c, d) = (Ipv6Addr::from_bits(1), Ipv6Addr::from_bits(2));
        for (frame, family, length, group) in [
            (udp_v4(a, b), Family::V4, 60, false),
            (arp(a, b), Family::Arp, 60, true),
            (arp_probe(a, b), Family::Arp, 60, false),
            (udp_v6(c, d), Family::V6, 62, false),
        ] {
            let packet = Packet::parse(frame.as_slice()).unwrap();
            assert_eq!((packet.family, packet.group), (family, group));
            assert_eq!(frame.len(), length);
            let ends = match family {
                Family::V6 => (c.into(), d.into()),
                _ => (a.into(), b.into()),
            };
            assert_eq!((packet.source, packet.destination), ends);
        }
    }
}
