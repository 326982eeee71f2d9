//! Addresses of both families as numbers, and prefixes as intervals of them.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::IpNetwork;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
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

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> IpNetwork {
        text.parse().unwrap()
    }

    #[test]
    fn bounds_hold_at_the_extremes() {
        let all_v4 = u128::from(u32::MAX);
        assert_eq!(bounds(net("0.0.0.0/1")), (0, all_v4 >> 1));
        assert_eq!(bounds(net("128.0.0.0/1")), (1 << 31, all_v4));
        assert_eq!(bounds(net("255.255.255.255/32")), (all_v4, all_v4));
        assert_eq!(bounds(net("::/0")), (0, u128::MAX));
        assert_eq!(bounds(net("8000::/1")), (1 << 127, u128::MAX));
        let last = net("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff/128");
        assert_eq!(bounds(last), (u128::MAX, u128::MAX));
        assert_eq!(bounds(net("10.1.2.3/8")), bounds(net("10.0.0.0/8")));
    }

    #[test]
    fn prefixes_overlap_when_one_encloses_the_other() {
        assert!(overlap(net("10.0.0.0/8"), net("10.255.0.0/16")));
        assert!(overlap(net("10.255.0.0/16"), net("10.0.0.0/8")));
        assert!(!overlap(net("10.0.0.0/9"), net("10.128.0.0/9")));
        assert!(!overlap(net("0.0.0.0/0"), net("::/0")));
        assert!(encloses(net("fd00::/8"), net("fd12::/64")));
        assert!(!encloses(net("fd12::/64"), net("fd00::/8")));
    }

    #[test]
    fn numbers_and_addresses_are_inverse() {
        for text in [
            "0.0.0.0",
            "10.0.0.1",
            "255.255.255.255",
            "::",
            "fd00::1",
            "ffff::ffff",
        ] {
            let address: IpAddr = text.parse().unwrap();
            assert_eq!(Family::of(address).address(number(address)), address);
        }
    }
}
