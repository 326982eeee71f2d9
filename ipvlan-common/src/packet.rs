//! The parser: an Ethernet frame to the facts that policy asks for.

use crate::Address;

/// A frame's bytes, wherever they are: a socket buffer or a slice.
pub trait Bytes {
    /// `N` bytes from `offset`, `None` past the end. `offset` is a constant where this is used.
    fn head<const N: usize>(&self, offset: usize) -> Option<[u8; N]>;

    /// `N` words from `offset`, in the frame's byte order: what a program loads in one go.
    fn words<const N: usize>(&self, offset: usize) -> Option<[u32; N]>;

    /// The same as [`Bytes::words`] where that costs next to nothing; `None` says nothing about the
    /// frame.
    fn near<const N: usize>(&self, offset: usize) -> Option<[u32; N]>;

    /// The same as [`Bytes::head`] for an offset that was read from the frame.
    fn at<const N: usize>(&self, offset: usize) -> Option<[u8; N]>;
}

impl Bytes for [u8] {
    fn head<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        self.get(offset..offset.checked_add(N)?)?.try_into().ok()
    }

    fn words<const N: usize>(&self, offset: usize) -> Option<[u32; N]> {
        let bytes = self.get(offset..offset.checked_add(4 * N)?)?;
        let mut words = [0; N];
        for (word, chunk) in words.iter_mut().zip(bytes.chunks_exact(4)) {
            *word = u32::from_ne_bytes(chunk.try_into().ok()?);
        }
        Some(words)
    }

    fn near<const N: usize>(&self, offset: usize) -> Option<[u32; N]> {
        self.words(offset)
    }

    fn at<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        self.head(offset)
    }
}

/// What a frame carries; also the index of its counter.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    V4 = 0,
    V6 = 1,
    Arp = 2,
    Other = 3,
}

impl Family {
    pub const ALL: [Self; 4] = [Self::V4, Self::V6, Self::Arp, Self::Other];

    /// The name that `stats`, `trace` and the metrics print.
    pub const fn name(self) -> &'static str {
        match self {
            Self::V4 => "ipv4",
            Self::V6 => "ipv6",
            Self::Arp => "arp",
            Self::Other => "other",
        }
    }
}

/// What an IPv6 packet says about the neighbourhood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Neighbour {
    None,
    /// Neighbour solicitation (RFC 4861, 4.3) for this target.
    Solicitation(Address),
    /// Neighbour advertisement (RFC 4861, 4.4): the sender claims this target.
    Advertisement(Address),
    /// Router advertisement or redirect (RFC 4861, 4.2 and 4.5): for routers only.
    Router,
    /// Multicast listener report or done (RFC 2710, RFC 3810).
    Listener,
}

/// Headers that are cut short or contradict each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    pub family: Family,
    /// EtherType, host order.
    pub ethertype: u16,
    /// Sender protocol address of ARP; `::` for [`Family::Other`].
    pub source: Address,
    /// Target protocol address of ARP; `::` for [`Family::Other`].
    pub destination: Address,
    /// The Ethernet destination is a group address.
    pub group: bool,
    /// IPv6: the first next-header field.
    pub(crate) next_header: u8,
}

pub(crate) const ETHERNET: usize = 14;
const IPV6: usize = ETHERNET + 40;

/// More extension headers than this are not worth a packet (RFC 8200 names six kinds).
const MAX_EXTENSIONS: usize = 6;

impl Packet {
    /// Parses a frame that begins with its Ethernet header. A non-IP frame is
    /// [`Family::Other`], not an error.
    #[inline(always)]
    pub fn parse<B: Bytes + ?Sized>(frame: &B) -> Result<Self, Malformed> {
        let ethernet: [u8; ETHERNET] = frame.head(0).ok_or(Malformed)?;
        let ethertype = u16::from_be_bytes([ethernet[12], ethernet[13]]);
        let mut packet = Self {
            family: Family::Other,
            ethertype,
            source: Address::UNSPECIFIED,
            destination: Address::UNSPECIFIED,
            group: ethernet[0] & 1 != 0,
            next_header: 0,
        };
        match ethertype {
            0x0800 => packet.parse_v4(frame)?,
            0x86dd => packet.parse_v6(frame)?,
            0x0806 => packet.parse_arp(frame)?,
            _ => {}
        }
        Ok(packet)
    }

    #[inline(always)]
    fn parse_v4<B: Bytes + ?Sized>(&mut self, frame: &B) -> Result<(), Malformed> {
        let [first, _, _, source, destination] = frame.words(ETHERNET).ok_or(Malformed)?;
        let [version_and_length, ..] = first.to_ne_bytes();
        if version_and_length >> 4 != 4 || version_and_length & 0xf < 5 {
            return Err(Malformed);
        }
        self.family = Family::V4;
        self.source = Address::from_v4_word(source);
        self.destination = Address::from_v4_word(destination);
        Ok(())
    }

    /// RFC 826 for Ethernet and IPv4; no other hardware or protocol is Ethernet ARP.
    #[inline(always)]
    fn parse_arp<B: Bytes + ?Sized>(&mut self, frame: &B) -> Result<(), Malformed> {
        let arp: [u8; 28] = frame.head(ETHERNET).ok_or(Malformed)?;
        if [arp[0], arp[1], arp[2], arp[3], arp[4], arp[5]] != [0, 1, 8, 0, 6, 4] {
            return Err(Malformed);
        }
        self.family = Family::Arp;
        self.source = Address::v4([arp[14], arp[15], arp[16], arp[17]]);
        self.destination = Address::v4([arp[24], arp[25], arp[26], arp[27]]);
        Ok(())
    }

    #[inline(always)]
    fn parse_v6<B: Bytes + ?Sized>(&mut self, frame: &B) -> Result<(), Malformed> {
        let [first, second, s0, s1, s2, s3, d0, d1, d2, d3] =
            frame.words(ETHERNET).ok_or(Malformed)?;
        if first.to_ne_bytes()[0] >> 4 != 6 {
            return Err(Malformed);
        }
        self.family = Family::V6;
        self.source = Address::from_v6_words([s0, s1, s2, s3]);
        self.destination = Address::from_v6_words([d0, d1, d2, d3]);
        self.next_header = second.to_ne_bytes()[2];
        Ok(())
    }

    /// If it is an IPv4 fragment but not its packet's first: the bytes of its headers, which the
    /// packet that is put together does not have (RFC 791, 3.2).
    #[inline(always)]
    pub fn later_fragment_v4<B: Bytes + ?Sized>(&self, frame: &B) -> Option<u32> {
        const OFFSET: u16 = 0x1fff;
        if !matches!(self.family, Family::V4) {
            return None;
        }
        let header: [u8; 8] = frame.head(ETHERNET)?;
        let fragment = u16::from_be_bytes([header[6], header[7]]);
        (fragment & OFFSET != 0).then_some(ETHERNET as u32 + u32::from(header[0] & 0xf) * 4)
    }

    /// Does a client that has no address yet ask all DHCP servers (RFC 2131, 4.1)? Its header has
    /// no options, and the packet is whole.
    #[inline(always)]
    pub fn is_for_dhcp_servers<B: Bytes + ?Sized>(&self, frame: &B) -> bool {
        const PLAIN: u8 = 0x45;
        const UDP: u8 = 17;
        const PORTS: [u8; 4] = [0, 68, 0, 67];
        let Some(header) = frame.head::<24>(ETHERNET) else {
            return false;
        };
        matches!(self.family, Family::V4)
            && self.group
            && self.source == Address::UNSPECIFIED_V4
            && self.destination == Address::BROADCAST_V4
            && header[0] == PLAIN
            // Neither an offset nor more fragments.
            && header[6] & 0x3f == 0
            && header[7] == 0
            && header[9] == UDP
            && [header[20], header[21], header[22], header[23]] == PORTS
    }

    /// What this packet, parsed from `frame`, says about the neighbourhood.
    #[inline(always)]
    pub fn neighbour<B: Bytes + ?Sized>(&self, frame: &B) -> Result<Neighbour, Malformed> {
        match self.family {
            Family::V6 => neighbour(frame, self.next_header),
            _ => Ok(Neighbour::None),
        }
    }
}

/// The most frequent frame: IPv4 without options, whose header is near. Programs look for it first:
/// what they need to know of it are two words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlainV4 {
    /// The addresses, as the words that hold their bytes in network order.
    pub source: u32,
    pub destination: u32,
    /// The Ethernet destination is a group address.
    pub group: bool,
}

impl PlainV4 {
    #[inline(always)]
    pub fn parse<B: Bytes + ?Sized>(frame: &B) -> Option<Self> {
        let [source, destination] = frame.near(ETHERNET + 12)?;
        // EtherType, version and length; then the type of service.
        let [kind] = frame.near(ETHERNET - 2)?;
        if kind & u32::from_be(0xffff_ff00) != u32::from_be(0x0800_4500) {
            return None;
        }
        let [station] = frame.near(0)?;
        Some(Self {
            source,
            destination,
            group: station & u32::from_be(0x0100_0000) != 0,
        })
    }
}

/// Are the Ethernet source and destination the same? All slaves share their parent's address, so
/// such a frame never comes from another station.
#[inline(always)]
pub fn is_looped<B: Bytes + ?Sized>(frame: &B) -> bool {
    let Some(stations) = frame.head::<12>(0) else {
        return false;
    };
    let mut difference = 0;
    let mut i = 0;
    while i < 6 {
        difference |= stations[i] ^ stations[i + 6];
        i += 1;
    }
    difference == 0
}

/// What an IP header carries.
pub(crate) struct Upper {
    /// IP protocol, behind the extension headers.
    pub protocol: u8,
    /// Where it begins in the frame.
    pub offset: usize,
    /// Offset of a fragment in bytes; 0 for a first fragment and a whole packet.
    pub fragment: u16,
}

pub(crate) fn upper_v4<B: Bytes + ?Sized>(frame: &B) -> Result<Upper, Malformed> {
    let [version_and_length] = frame.head(ETHERNET).ok_or(Malformed)?;
    let fragment: [u8; 2] = frame.head(ETHERNET + 6).ok_or(Malformed)?;
    let [protocol] = frame.head(ETHERNET + 9).ok_or(Malformed)?;
    Ok(Upper {
        protocol,
        offset: ETHERNET + usize::from(version_and_length & 0xf) * 4,
        fragment: (u16::from_be_bytes(fragment) & 0x1fff) << 3,
    })
}

/// Walks the extension headers (RFC 8200, 4), of which `first` is the first.
#[inline(always)]
pub(crate) fn upper_v6<B: Bytes + ?Sized>(frame: &B, first: u8) -> Result<Upper, Malformed> {
    const HOP_BY_HOP: u8 = 0;
    const ROUTING: u8 = 43;
    const FRAGMENT: u8 = 44;
    const AUTHENTICATION: u8 = 51;
    const DESTINATION: u8 = 60;
    const MOBILITY: u8 = 135;

    let mut protocol = first;
    let mut offset = IPV6;
    for _ in 0..=MAX_EXTENSIONS {
        match protocol {
            HOP_BY_HOP | ROUTING | DESTINATION | MOBILITY => {
                let [next, length] = frame.at(offset).ok_or(Malformed)?;
                protocol = next;
                offset += (length as usize + 1) * 8;
            }
            AUTHENTICATION => {
                let [next, length] = frame.at(offset).ok_or(Malformed)?;
                protocol = next;
                offset += (length as usize + 2) * 4;
            }
            FRAGMENT => {
                let [next, _, high, low] = frame.at(offset).ok_or(Malformed)?;
                let fragment = u16::from_be_bytes([high, low]) & 0xfff8;
                protocol = next;
                offset += 8;
                // What follows in a later fragment is no header.
                if fragment != 0 {
                    return Ok(Upper {
                        protocol,
                        offset,
                        fragment,
                    });
                }
            }
            _ => {
                return Ok(Upper {
                    protocol,
                    offset,
                    fragment: 0,
                });
            }
        }
    }
    Err(Malformed)
}

/// What an IPv6 packet says about the neighbourhood. A later fragment says nothing: receivers
/// take no neighbour discovery out of fragments (RFC 6980).
#[inline(always)]
fn neighbour<B: Bytes + ?Sized>(frame: &B, first: u8) -> Result<Neighbour, Malformed> {
    const ICMPV6: u8 = 58;

    let Upper {
        protocol,
        offset,
        fragment,
    } = upper_v6(frame, first)?;
    if protocol != ICMPV6 || fragment != 0 {
        return Ok(Neighbour::None);
    }
    let [kind] = frame.at(offset).ok_or(Malformed)?;
    Ok(match kind {
        135 => Neighbour::Solicitation(target(frame, offset)?),
        136 => Neighbour::Advertisement(target(frame, offset)?),
        134 | 137 => Neighbour::Router,
        131 | 132 | 143 => Neighbour::Listener,
        _ => Neighbour::None,
    })
}

#[inline(always)]
fn target<B: Bytes + ?Sized>(frame: &B, icmp: usize) -> Result<Address, Malformed> {
    Ok(Address::v6(frame.at(icmp + 8).ok_or(Malformed)?))
}
