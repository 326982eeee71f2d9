//! Telling neighbours where an IPv6 address is now.

use std::io;
use std::net::{Ipv6Addr, SocketAddrV6};

use socket2::{Domain, Protocol, Socket, Type};

use super::{KernelError, Netns};

const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
/// Neighbours take no advertisement that a router has passed on (RFC 4861, 7.1.2).
const HOP_LIMIT: u32 = 255;

/// Sends an unsolicited neighbour advertisement of `address`, which the link `index` of `netns`
/// has: what `arp_notify` does for IPv4. The kernel's own `ndisc_notify` only follows duplicate
/// address detection, which such an address does without.
pub(super) fn announce(
    netns: &Netns,
    index: u32,
    name: &str,
    hardware: [u8; 6],
    address: Ipv6Addr,
) -> Result<(), KernelError> {
    let send = || -> io::Result<()> {
        let socket = Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::ICMPV6))?;
        socket.set_multicast_hops_v6(HOP_LIMIT)?;
        socket.set_multicast_if_v6(index)?;
        socket.bind(&SocketAddrV6::new(address, 0, 0, index).into())?;
        let all_nodes = SocketAddrV6::new(ALL_NODES, 0, 0, index);
        socket.send_to(&advertisement(address, hardware), &all_nodes.into())?;
        Ok(())
    };
    netns
        .run(send)?
        .map_err(|error| KernelError::io("announce the address of", name, error))
}

/// RFC 4861, 4.4, with the option of 4.6.1. The kernel fills in the checksum.
fn advertisement(target: Ipv6Addr, hardware: [u8; 6]) -> [u8; 32] {
    const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
    const OVERRIDE: u8 = 0x20;
    const TARGET_LINK_LAYER_ADDRESS: u8 = 2;
    let mut message = [0; 32];
    message[0] = NEIGHBOUR_ADVERTISEMENT;
    message[4] = OVERRIDE;
    message[8..24].copy_from_slice(&target.octets());
    // The option's length counts units of eight bytes.
    message[24..26].copy_from_slice(&[TARGET_LINK_LAYER_ADDRESS, 1]);
    message[26..].copy_from_slice(&hardware);
    message
}
