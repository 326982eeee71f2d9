//! One subnet of a network: its bounds, and the addresses that no endpoint gets.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

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

/// Why an address of a pool is never leased.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reservation<'p> {
    /// The first address of an IPv4 subnet of more than two.
    Network,
    /// The last address of an IPv4 subnet of more than two.
    Broadcast,
    /// The subnet-router anycast address of an IPv6 subnet (RFC 4291, 2.6.1); a /127 and a /128
    /// have none (RFC 6164).
    Anycast,
    Gateway,
    /// By the name given with `--aux-address`.
    Aux(&'p str),
}

impl fmt::Display for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.subnet)?;
        if let Some(gateway) = self.gateway {
            write!(f, " (gateway {gateway})")?;
        }
        if let Some(range) = self.range {
            write!(f, " (range {range})")?;
        }
        Ok(())
    }
}

impl fmt::Display for Reservation<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Network => f.write_str("the subnet's network address"),
            Self::Broadcast => f.write_str("the subnet's broadcast address"),
            Self::Anycast => f.write_str("the subnet's router anycast address"),
            Self::Gateway => f.write_str("the subnet's gateway"),
            Self::Aux(name) => write!(f, "reserved as the aux address {name:?}"),
        }
    }
}

/// A pool's figures, as `network inspect` shows them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Leased and reserved addresses of the subnet.
    pub in_use: u128,
    /// Addresses that can still be given dynamically.
    pub available: u128,
}

impl Pool {
    /// The pool of `subnet` with nothing reserved by the user.
    pub fn new(subnet: IpNetwork) -> Self {
        Self {
            subnet,
            gateway: None,
            range: None,
            aux: BTreeMap::new(),
        }
    }

    pub fn contains(&self, address: IpAddr) -> bool {
        self.subnet.contains(address)
    }

    /// Why `address` is not for endpoints, or `None` if it is (or lies outside the subnet).
    pub fn reservation(&self, address: IpAddr) -> Option<Reservation<'_>> {
        if self.gateway == Some(address) {
            return Some(Reservation::Gateway);
        }
        if let Some((name, _)) = self.aux.iter().find(|(_, aux)| **aux == address) {
            return Some(Reservation::Aux(name));
        }
        edges(&self.subnet)
            .into_iter()
            .find_map(|(edge, why)| (edge == address).then_some(why))
    }

    /// Network and broadcast address, IPv6 router anycast, gateway or aux address.
    pub fn is_reserved(&self, address: IpAddr) -> bool {
        self.reservation(address).is_some()
    }

    /// First and last address from which dynamic ones are taken; reserved ones may be among them.
    pub fn dynamic_bounds(&self) -> (IpAddr, IpAddr) {
        let range = self.range.as_ref().unwrap_or(&self.subnet);
        (range.network(), range.broadcast())
    }

    /// How many endpoints the subnet can hold.
    pub fn capacity(&self) -> u128 {
        self.room_in(&self.subnet)
    }

    /// The pool's figures, given how many leases lie in its subnet and how many of them in its
    /// dynamic range.
    pub fn usage(&self, leased_in_subnet: u64, leased_in_range: u64) -> Usage {
        let range = self.range.as_ref().unwrap_or(&self.subnet);
        Usage {
            in_use: (self.reserved().len() as u128).saturating_add(leased_in_subnet.into()),
            available: self.room_in(range).saturating_sub(leased_in_range.into()),
        }
    }

    /// The lowest address that may be the gateway: no edge of the subnet and no aux address.
    pub fn first_usable(&self) -> Option<IpAddr> {
        let (first, last) = span(&self.subnet);
        let reserved = self.reserved();
        (first..=last)
            .find(|n| !reserved.contains(n))
            .map(|n| nth(n, &self.subnet))
    }

    /// Every reserved address of the subnet, as a number: two at most, the gateway and the aux.
    pub(super) fn reserved(&self) -> BTreeSet<u128> {
        edges(&self.subnet)
            .into_iter()
            .map(|(edge, _)| edge)
            .chain(self.gateway)
            .chain(self.aux.values().copied())
            .map(number)
            .collect()
    }

    fn room_in(&self, part: &IpNetwork) -> u128 {
        let (first, last) = span(part);
        let reserved = self.reserved().range(first..=last).count() as u128;
        (last - first).saturating_add(1).saturating_sub(reserved)
    }
}

/// The addresses that a subnet's shape alone keeps from hosts.
pub(super) fn edges(subnet: &IpNetwork) -> Vec<(IpAddr, Reservation<'static>)> {
    match subnet {
        IpNetwork::V4(v4) if v4.prefix() < 31 => vec![
            (subnet.network(), Reservation::Network),
            (subnet.broadcast(), Reservation::Broadcast),
        ],
        IpNetwork::V6(v6) if v6.prefix() < 127 => vec![(subnet.network(), Reservation::Anycast)],
        _ => Vec::new(),
    }
}

/// An address in the order of its family; IPv4 as its 32 bits.
pub(super) fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u32::from(v4).into(),
        IpAddr::V6(v6) => v6.into(),
    }
}

/// The address numbered `n`, in the family of `subnet`, in which it lies.
pub(super) fn nth(n: u128, subnet: &IpNetwork) -> IpAddr {
    match subnet {
        IpNetwork::V4(_) => Ipv4Addr::from(n as u32).into(),
        IpNetwork::V6(_) => Ipv6Addr::from(n).into(),
    }
}

/// The first and last address of `net`, as numbers.
pub(super) fn span(net: &IpNetwork) -> (u128, u128) {
    (number(net.network()), number(net.broadcast()))
}

pub(super) fn overlap(a: &IpNetwork, b: &IpNetwork) -> bool {
    a.contains(b.network()) || b.contains(a.network())
}

/// Whether all of `inner` lies in `outer`.
pub(super) fn covers(outer: &IpNetwork, inner: &IpNetwork) -> bool {
    outer.prefix() <= inner.prefix() && outer.contains(inner.network())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn what_is_reserved_and_why() {
        let mut pool = Pool::new("10.0.0.0/24".parse().unwrap());
        pool.gateway = Some(ip("10.0.0.9"));
        pool.aux.insert("nas".into(), ip("10.0.0.5"));
        for (address, why) in [
            ("10.0.0.0", Some(Reservation::Network)),
            ("10.0.0.255", Some(Reservation::Broadcast)),
            ("10.0.0.9", Some(Reservation::Gateway)),
            ("10.0.0.5", Some(Reservation::Aux("nas"))),
            ("10.0.0.1", None),
            ("10.0.1.0", None),
            ("::", None),
        ] {
            assert_eq!(pool.reservation(ip(address)), why, "{address}");
            assert_eq!(pool.is_reserved(ip(address)), why.is_some());
        }
        let six = Pool::new("fd00::/64".parse().unwrap());
        assert_eq!(six.reservation(ip("fd00::")), Some(Reservation::Anycast));
        assert!(!six.is_reserved(ip("fd00::ffff:ffff:ffff:ffff")));
        for bare in ["10.0.0.0/31", "10.0.0.0/32", "fd00::/127", "fd00::/128"] {
            let pool = Pool::new(bare.parse().unwrap());
            assert!(!pool.is_reserved(pool.subnet.network()), "{bare}");
            assert!(!pool.is_reserved(pool.subnet.broadcast()), "{bare}");
        }
    }

    #[test]
    fn figures() {
        let mut pool = Pool::new("10.0.0.0/24".parse().unwrap());
        assert_eq!(pool.capacity(), 254);
        pool.gateway = Some(ip("10.0.0.1"));
        pool.aux.insert("nas".into(), ip("10.0.0.129"));
        pool.range = Some("10.0.0.128/25".parse().unwrap());
        assert_eq!(pool.capacity(), 252);
        let bounds = (ip("10.0.0.128"), ip("10.0.0.255"));
        assert_eq!(pool.dynamic_bounds(), bounds);
        let usage = pool.usage(3, 2);
        assert_eq!((usage.in_use, usage.available), (4 + 3, 128 - 2 - 2));
        let most = Pool::new("::/0".parse().unwrap());
        assert!(most.capacity() >= u128::MAX - 1);
        let half = Pool::new("8000::/1".parse().unwrap());
        assert_eq!(half.capacity(), (1 << 127) - 1);
    }

    #[test]
    fn a_pool_is_stored_as_json() {
        let mut pool = Pool::new("fd00::/64".parse().unwrap());
        pool.gateway = Some(ip("fd00::1"));
        let text = serde_json::to_string(&pool).unwrap();
        assert!(text.contains("\"fd00::/64\""), "{text}");
        assert_eq!(serde_json::from_str::<Pool>(&text).unwrap(), pool);
    }
}
