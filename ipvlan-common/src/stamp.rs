//! How one program tells the next that it has passed a packet.

use crate::MAX_ENDPOINTS;

/// Which program has passed a packet on this host; in a socket buffer it is two words,
/// `__sk_buff::cb[3]` and `cb[4]` (`qdisc_skb_cb`, bytes 20 to 28 of `skb->cb`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stamp {
    /// None of ours.
    None,
    /// `parent_ingress`: it came from the wire.
    Wire,
    /// `endpoint_egress` of this slot.
    Endpoint(u32),
    /// The same after the driver's modes l3 and l3s, which clear the first 24 bytes of `skb->cb`
    /// (`IPCB`, drivers/net/ipvlan/ipvlan_core.c) and with them the first word. To be believed
    /// only of an endpoint of such a network.
    Routed(u32),
}

/// The secret of this host's stamps, drawn when the programs are loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StampKey([u32; 2]);

/// The slot's place in the second word. The byte below belongs to the key: the qdisc `choke` keeps
/// a byte of the packet's own there (`choke_skb_cb`, net/sched/sch_choke.c).
const SLOT: u32 = 8;

/// What a wire's stamp has in the place of a slot.
const WIRE: u32 = MAX_ENDPOINTS;

/// Bits of the second word that no slot changes and that other users of `skb->cb` leave zero:
/// TCP keeps a count of 21 bits there (`tcp_skb_cb::tx`, include/net/tcp.h).
const DISTINCT: u32 = !((MAX_ENDPOINTS << (SLOT + 1)) - 1);

impl StampKey {
    /// A key of random words; `None` where they would make stamps of what others leave behind.
    pub const fn new(random: [u32; 2]) -> Option<Self> {
        if random[0] != 0 && random[1] & DISTINCT != 0 {
            Some(Self(random))
        } else {
            None
        }
    }

    /// The key as a program's constant holds it.
    #[inline(always)]
    pub const fn from_words(words: [u32; 2]) -> Self {
        Self(words)
    }

    pub const fn words(self) -> [u32; 2] {
        self.0
    }

    #[inline(always)]
    pub const fn encode(self, stamp: Stamp) -> [u32; 2] {
        let Self([first, second]) = self;
        match stamp {
            Stamp::None => [0, 0],
            Stamp::Wire => [first, second ^ (WIRE << SLOT)],
            Stamp::Endpoint(slot) => [first, second ^ (slot << SLOT)],
            Stamp::Routed(slot) => [0, second ^ (slot << SLOT)],
        }
    }

    /// The slot of an endpoint's stamp, which most are; `None` of all others.
    #[inline(always)]
    pub const fn decode_endpoint(self, words: [u32; 2]) -> Option<u32> {
        let Self([first, second]) = self;
        let slot = (words[1] ^ second).rotate_right(SLOT);
        if words[0] == first && slot < WIRE {
            Some(slot)
        } else {
            None
        }
    }

    #[inline(always)]
    pub const fn decode(self, words: [u32; 2]) -> Stamp {
        let Self([first, second]) = self;
        // What is left of the second word, turned so that the key's byte is the highest.
        let who = (words[1] ^ second).rotate_right(SLOT);
        if who > WIRE {
            Stamp::None
        } else if words[0] == first {
            if who == WIRE {
                Stamp::Wire
            } else {
                Stamp::Endpoint(who)
            }
        } else if words[0] == 0 && who != WIRE {
            Stamp::Routed(who)
        } else {
            Stamp::None
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn keys() -> impl Strategy<Value = StampKey> {
        any::<[u32; 2]>().prop_filter_map("a weak key", StampKey::new)
    }

    fn stamps() -> impl Strategy<Value = Stamp> {
        prop_oneof![
            Just(Stamp::None),
            Just(Stamp::Wire),
            (0..MAX_ENDPOINTS).prop_map(Stamp::Endpoint),
            (0..MAX_ENDPOINTS).prop_map(Stamp::Routed),
        ]
    }

    proptest! {
        #[test]
        fn a_stamp_is_read_as_it_was_written(key in keys(), stamp in stamps()) {
            prop_assert_eq!(key.decode(key.encode(stamp)), stamp);
        }

        #[test]
        fn an_endpoints_stamp_is_read_in_either_way(key in keys(), words: [u32; 2], stamp in stamps()) {
            for words in [words, key.encode(stamp)] {
                let slot = match key.decode(words) {
                    Stamp::Endpoint(slot) => Some(slot),
                    _ => None,
                };
                prop_assert_eq!(key.decode_endpoint(words), slot);
            }
        }

        #[test]
        fn what_others_leave_behind_is_no_stamp(key in keys(), first: u32, small in 0u32..1 << 21) {
            prop_assert_eq!(key.decode([first, small]), Stamp::None);
        }

        #[test]
        fn one_byte_of_a_containers_own_makes_no_other_stamp(
            key in keys(), stamp in stamps(), byte: u8,
        ) {
            let [first, second] = key.encode(stamp);
            let read = key.decode([first, second & !0xff | u32::from(byte)]);
            prop_assert!(read == stamp || read == Stamp::None);
        }

        #[test]
        fn the_second_word_alone_is_at_most_a_routed_stamp(key in keys(), second: u32) {
            let read = key.decode([0, second]);
            prop_assert!(matches!(read, Stamp::None | Stamp::Routed(_)));
        }
    }
}
