//! One subnet of a network: its bounds, and which of its addresses are reserved.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

use super::address::{Family, bounds, number};

/// One subnet of a network with what IPAM must know of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pool {
    /// Network address and prefix; host bits are zero.
    pub subnet: IpNetwork,
    /// `None` where the network needs none (l3, l3s, internal) and none was given.
    pub gateway: Option<IpAddr>,
    /// Where dynamic addresses come from; the whole subnet if `None`.
    pub range: Option<IpNetwork>,
    /// Reserved by `--aux-address NAME=ADDR`.
    pub aux: BTreeMap<String, IpAddr>,
}

/// Why an address is never leased.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reserved<'p> {
    Network,
    Broadcast,
    /// The subnet-router anycast address (RFC 4291, 2.6.1).
    Anycast,
    Gateway,
    /// The name of an `--aux-address`.
    Aux(&'p str),
}

impl fmt::Display for Reserved<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Network => f.write_str("the network address"),
            Self::Broadcast => f.write_str("the broadcast address"),
            Self::Anycast => f.write_str("the subnet-router anycast address"),
            Self::Gateway => f.write_str("the gateway"),
            Self::Aux(name) => write!(f, "the auxiliary address {name:?}"),
        }
    }
}

impl Pool {
    /// A pool with nothing reserved but what every subnet reserves.
    pub fn new(subnet: IpNetwork) -> Self {
        Self {
            subnet,
            gateway: None,
            range: None,
            aux: BTreeMap::new(),
        }
    }

    pub fn family(&self) -> Family {
        Family::of(self.subnet.ip())
    }

    /// Where dynamic addresses come from. It may hold reserved addresses.
    pub fn dynamic(&self) -> IpNetwork {
        self.range.unwrap_or(self.subnet)
    }

    pub fn is_reserved(&self, address: IpAddr) -> bool {
        self.reserved_as(address).is_some()
    }

    /// Why `address`, which lies in the subnet, is never leased; `None` if it may be.
    pub fn reserved_as(&self, address: IpAddr) -> Option<Reserved<'_>> {
        if let Some(reserved) = self.reserved_by_format(address) {
            return Some(reserved);
        }
        if self.gateway == Some(address) {
            return Some(Reserved::Gateway);
        }
        self.aux
            .iter()
            .find(|(_, aux)| **aux == address)
            .map(|(name, _)| Reserved::Aux(name))
    }

    /// Is `address` the gateway or an auxiliary address?
    pub fn reserved_by_choice(&self, address: IpAddr) -> bool {
        self.gateway == Some(address) || self.aux.values().any(|aux| *aux == address)
    }

    /// The reservations that follow from the subnet alone. Two-address and one-address subnets
    /// have none (RFC 3021 for IPv4, RFC 6164 for IPv6).
    pub(super) fn reserved_by_format(&self, address: IpAddr) -> Option<Reserved<'static>> {
        let (first, last) = bounds(self.subnet);
        if last - first < 2 {
            return None;
        }
        match (self.family(), number(address)) {
            (Family::V4, n) if n == first => Some(Reserved::Network),
            (Family::V4, n) if n == last => Some(Reserved::Broadcast),
            (Family::V6, n) if n == first => Some(Reserved::Anycast),
            _ => None,
        }
    }

    /// Every address of the subnet that is never leased.
    pub fn reserved(&self) -> BTreeSet<IpAddr> {
        let (first, last) = bounds(self.subnet);
        [first, last]
            .into_iter()
            .map(|n| self.family().address(n))
            .filter(|address| self.reserved_by_format(*address).is_some())
            .chain(self.gateway)
            .chain(self.aux.values().copied())
            .collect()
    }

    /// How many addresses of the subnet an endpoint may have, by request or dynamically.
    pub fn capacity(&self) -> u128 {
        self.unreserved_in(self.subnet)
    }

    /// How many addresses serial allocation may give; less than [`Pool::capacity`] with an
    /// `--ip-range`.
    pub fn dynamic_capacity(&self) -> u128 {
        self.unreserved_in(self.dynamic())
    }

    fn unreserved_in(&self, part: IpNetwork) -> u128 {
        let (first, last) = bounds(part);
        let reserved = self.reserved().into_iter().filter(|a| part.contains(*a));
        // A subnet is never /0, so that the size fits.
        (last - first + 1) - reserved.count() as u128
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(subnet: &str) -> Pool {
        Pool::new(subnet.parse().unwrap())
    }

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn each_reservation_has_its_name() {
        let mut pool = pool("10.1.0.0/24");
        pool.gateway = Some(address("10.1.0.1"));
        pool.aux.insert("printer".into(), address("10.1.0.9"));
        for (text, expected) in [
            ("10.1.0.0", "the network address"),
            ("10.1.0.255", "the broadcast address"),
            ("10.1.0.1", "the gateway"),
            ("10.1.0.9", "the auxiliary address \"printer\""),
        ] {
            let reserved = pool.reserved_as(address(text)).unwrap();
            assert_eq!(reserved.to_string(), expected);
        }
        assert!(!pool.is_reserved(address("10.1.0.2")));
        let expected = ["10.1.0.0", "10.1.0.1", "10.1.0.9", "10.1.0.255"].map(address);
        assert!(pool.reserved().into_iter().eq(expected));
        assert_eq!(pool.capacity(), 252);
        pool.range = Some("10.1.0.128/25".parse().unwrap());
        assert_eq!((pool.capacity(), pool.dynamic_capacity()), (252, 127));
    }

    #[test]
    fn subnets_of_one_and_two_addresses_reserve_none() {
        for (subnet, capacity) in [
            ("10.0.0.0/32", 1),
            ("10.0.0.0/31", 2),
            ("10.0.0.0/30", 2),
            ("fd00::/128", 1),
            ("fd00::/127", 2),
            ("fd00::/126", 3),
            ("255.255.255.0/24", 254),
        ] {
            assert_eq!(pool(subnet).capacity(), capacity, "{subnet}");
        }
        let anycast = Some(Reserved::Anycast);
        assert_eq!(pool("fd00::/126").reserved_as(address("fd00::")), anycast);
        assert_eq!(pool("fd00::/126").reserved_as(address("fd00::3")), None);
        assert_eq!(pool("8000::/1").capacity(), (1 << 127) - 1);
    }
}
