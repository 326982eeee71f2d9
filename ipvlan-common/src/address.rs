use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::HOST_BUCKETS;

/// An IPv6 address, or an IPv4 address in mapped form (`::ffff:a.b.c.d`), as four words that
/// hold the bytes in network order.
#[repr(C)]
#[derive(Clone, Copy, Debug, Eq)]
pub struct Address([u32; 4]);

const MAPPED: u32 = u32::from_be(0x0000_ffff);

impl Address {
    pub const UNSPECIFIED: Self = Self([0; 4]);
    pub const UNSPECIFIED_V4: Self = Self::v4([0; 4]);
    pub const BROADCAST_V4: Self = Self::v4([0xff; 4]);

    #[inline(always)]
    pub const fn v4(bytes: [u8; 4]) -> Self {
        Self([0, 0, MAPPED, u32::from_ne_bytes(bytes)])
    }

    #[inline(always)]
    pub const fn v6(b: [u8; 16]) -> Self {
        Self([
            u32::from_ne_bytes([b[0], b[1], b[2], b[3]]),
            u32::from_ne_bytes([b[4], b[5], b[6], b[7]]),
            u32::from_ne_bytes([b[8], b[9], b[10], b[11]]),
            u32::from_ne_bytes([b[12], b[13], b[14], b[15]]),
        ])
    }

    /// From the word that holds the four bytes in network order.
    #[inline(always)]
    pub const fn from_v4_word(word: u32) -> Self {
        Self([0, 0, MAPPED, word])
    }

    /// From the words that hold the sixteen bytes in network order.
    #[inline(always)]
    pub const fn from_v6_words(words: [u32; 4]) -> Self {
        Self(words)
    }

    /// The bytes in network order, IPv4 in mapped form.
    pub fn octets(self) -> [u8; 16] {
        let mut bytes = [0; 16];
        for (chunk, word) in bytes.chunks_exact_mut(4).zip(self.0) {
            chunk.copy_from_slice(&word.to_ne_bytes());
        }
        bytes
    }

    #[inline(always)]
    const fn is_v4(self) -> bool {
        self.0[0] == 0 && self.0[1] == 0 && self.0[2] == MAPPED
    }

    /// Of an IPv4 address, the word that holds its bytes in network order.
    #[inline(always)]
    pub(crate) const fn v4_word(self) -> u32 {
        self.0[3]
    }

    /// One of [`HOST_BUCKETS`]: two addresses of different buckets are two.
    #[inline(always)]
    pub const fn bucket(self) -> u32 {
        // 2^32 divided by the golden ratio: its upper bits depend on all of the factor's.
        const SPREAD: u32 = 0x9e37_79b9;
        let folded = self.0[0] ^ self.0[1] ^ self.0[2] ^ self.0[3];
        folded.wrapping_mul(SPREAD) >> (32 - HOST_BUCKETS.trailing_zeros())
    }

    /// `::` or `0.0.0.0`.
    #[inline(always)]
    pub fn is_unspecified(self) -> bool {
        self == Self::UNSPECIFIED || self == Self::UNSPECIFIED_V4
    }

    /// `fe80::/10` (RFC 4291, 2.5.6).
    #[inline(always)]
    pub const fn is_link_local(self) -> bool {
        u32::from_be(self.0[0]) >> 22 == 0xfe80 >> 6
    }

    /// A destination that never leaves the link: `255.255.255.255`, `224.0.0.0/24` (RFC 5771),
    /// `ff01::/16` and `ff02::/16` (RFC 4291, 2.7).
    #[inline(always)]
    pub const fn is_link_scope_group(self) -> bool {
        if self.is_v4() {
            let v4 = u32::from_be(self.0[3]);
            v4 == u32::MAX || v4 >> 8 == 0x00e0_0000
        } else {
            matches!(u32::from_be(self.0[0]) >> 16, 0xff01 | 0xff02)
        }
    }
}

impl PartialEq for Address {
    // Word by word: a derived comparison becomes a call that BPF does not have.
    #[inline(always)]
    fn eq(&self, other: &Self) -> bool {
        (self.0[3] ^ other.0[3])
            | (self.0[2] ^ other.0[2])
            | (self.0[1] ^ other.0[1])
            | (self.0[0] ^ other.0[0])
            == 0
    }
}

impl From<Ipv4Addr> for Address {
    fn from(address: Ipv4Addr) -> Self {
        Self::v4(address.octets())
    }
}

impl From<Ipv6Addr> for Address {
    fn from(address: Ipv6Addr) -> Self {
        Self::v6(address.octets())
    }
}

impl From<IpAddr> for Address {
    fn from(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(v4) => v4.into(),
            IpAddr::V6(v6) => v6.into(),
        }
    }
}

impl From<Address> for IpAddr {
    fn from(address: Address) -> Self {
        Ipv6Addr::from(address.octets()).to_canonical()
    }
}
