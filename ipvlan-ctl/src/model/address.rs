//! Addresses of both families as numbers, and prefixes as intervals of them.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::IpNetwork;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Family {
    V4,
    V6,
}

impl Family {
    pub fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }

    /// Length of an address in bits.
    pub fn width(self) -> u8 {
        match self {
            Self::V4 => 32,
            Self::V6 => 128,
        }
    }

    /// The address with this number, of which IPv4 takes the low 32 bits.
    pub fn address(self, number: u128) -> IpAddr {
        match self {
            Self::V4 => Ipv4Addr::from_bits(number as u32).into(),
            Self::V6 => Ipv6Addr::from_bits(number).into(),
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        })
    }
}

/// The address as a number; IPv4 as its 32 bits.
pub fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => v4.to_bits().into(),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

/// First and last address of a prefix, as numbers.
pub fn bounds(prefix: IpNetwork) -> (u128, u128) {
    let host_bits = u32::from(Family::of(prefix.ip()).width() - prefix.prefix());
    let host_mask = u128::MAX.checked_shr(128 - host_bits).unwrap_or(0);
    let first = number(prefix.ip()) & !host_mask;
    (first, first | host_mask)
}

/// Have the two prefixes an address in common?
pub fn overlap(a: IpNetwork, b: IpNetwork) -> bool {
    encloses(a, b) || encloses(b, a)
}

/// Does `outer` contain all of `inner`?
pub fn encloses(outer: IpNetwork, inner: IpNetwork) -> bool {
    outer.prefix() <= inner.prefix() && outer.contains(inner.ip())
}
