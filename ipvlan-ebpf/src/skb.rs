//! The socket buffer as the programs see it.

use core::mem::MaybeUninit;

use aya_ebpf::{bindings::__sk_buff, helpers::generated::bpf_skb_load_bytes, programs::TcContext};
use ipvlan_common::{Bytes, Stamp};

use crate::maps::stamp_key;

/// By value where a function is called, not inlined: a reference would keep it in memory.
#[derive(Clone, Copy)]
pub struct Skb(*mut __sk_buff);

impl Skb {
    #[inline(always)]
    pub fn new(ctx: &TcContext) -> Self {
        Self(ctx.skb.skb)
    }

    #[inline(always)]
    pub fn raw(&self) -> *mut __sk_buff {
        self.0
    }

    /// With the Ethernet header; a GSO packet is one packet, as the driver counts it.
    #[inline(always)]
    pub fn len(&self) -> u64 {
        // SAFETY: the context is valid for the whole program.
        u64::from(unsafe { (*self.raw()).len })
    }

    /// The sum over the packets that a GSO packet would be cut into, each with headers of its own
    /// (`qdisc_pkt_len_init`). Known on the way out only.
    #[inline(always)]
    pub fn wire_len(&self) -> u64 {
        // SAFETY: as above.
        u64::from(unsafe { (*self.raw()).wire_len })
    }

    /// How many these would be; 0 if the packet is none of GSO, or of a raw socket that did not say.
    #[inline(always)]
    pub fn gso_segments(&self) -> u32 {
        // SAFETY: as above.
        unsafe { (*self.raw()).gso_segs }
    }

    #[inline(always)]
    pub fn ifindex(&self) -> u32 {
        // SAFETY: as above.
        unsafe { (*self.raw()).ifindex }
    }

    /// EtherType by which the kernel will treat the packet, host order.
    #[inline(always)]
    pub fn protocol(&self) -> u16 {
        // SAFETY: as above.
        u16::from_be(unsafe { (*self.raw()).protocol } as u16)
    }

    /// Carries an out-of-band VLAN tag: it belongs to the VLAN's own device.
    #[inline(always)]
    pub fn is_tagged(&self) -> bool {
        // SAFETY: as above.
        unsafe { (*self.raw()).vlan_present != 0 }
    }

    /// The device that the packet was received by; 0 if it was made here, or by a device on the way
    /// that hides where it comes from (`skb_scrub_packet`).
    #[inline(always)]
    pub fn ingress_ifindex(&self) -> u32 {
        // SAFETY: as above.
        unsafe { (*self.raw()).ingress_ifindex }
    }

    /// `PACKET_HOST` and others of linux/if_packet.h.
    #[inline(always)]
    pub fn packet_type(&self) -> u32 {
        // SAFETY: as above.
        unsafe { (*self.raw()).pkt_type }
    }

    /// A group packet of the device's own, handed back to its IP layer: it has no Ethernet header,
    /// and no device has received it (`dev_loopback_xmit`, net/core/dev.c).
    #[inline(always)]
    pub fn is_handed_back(&self) -> bool {
        const PACKET_LOOPBACK: u32 = 5;
        self.packet_type() == PACKET_LOOPBACK
    }

    /// Of the kernel's `sk_buff`, which the context stands for.
    #[inline(always)]
    pub fn address(&self) -> u64 {
        self.raw() as u64
    }

    #[inline(always)]
    pub fn stamped(&self) -> Stamped {
        // SAFETY: as above.
        Stamped(unsafe { [(*self.raw()).cb[3], (*self.raw()).cb[4]] })
    }

    /// A stamp is good for one crossing.
    #[inline(always)]
    pub fn take_stamp(&self) -> Stamped {
        let stamped = self.stamped();
        self.write_stamp([0; 2]);
        stamped
    }

    #[inline(always)]
    pub fn set_stamp(&self, stamp: Stamp) {
        self.write_stamp(stamp_key().encode(stamp));
    }

    #[inline(always)]
    fn write_stamp(&self, [first, second]: [u32; 2]) {
        // SAFETY: as above; `cb` is writable for classifiers.
        unsafe {
            (*self.raw()).cb[3] = first;
            (*self.raw()).cb[4] = second;
        }
    }
}

/// What was in the stamp's place.
#[derive(Clone, Copy)]
pub struct Stamped([u32; 2]);

impl Stamped {
    #[inline(always)]
    pub fn stamp(self) -> Stamp {
        stamp_key().decode(self.0)
    }

    /// The endpoint's slot, if it is an endpoint's.
    #[inline(always)]
    pub fn endpoint(self) -> Option<u32> {
        stamp_key().decode_endpoint(self.0)
    }
}

impl Skb {
    /// Direct packet access to a `T` at a constant offset; a header outside the linear part (a
    /// raw socket can place it there) is copied out.
    ///
    /// # Safety
    ///
    /// Any bytes must be a valid `T`.
    #[inline(always)]
    unsafe fn read<T: Copy>(&self, offset: usize) -> Option<T> {
        // SAFETY: the caller's.
        unsafe { self.peek(offset).or_else(|| self.copy(offset)) }
    }

    /// # Safety
    ///
    /// Any bytes must be a valid `T`.
    #[inline(always)]
    unsafe fn peek<T: Copy>(&self, offset: usize) -> Option<T> {
        // SAFETY: the context is valid for the whole program.
        let (data, end) = unsafe { ((*self.raw()).data as usize, (*self.raw()).data_end as usize) };
        let start = data + offset;
        if start + size_of::<T>() > end {
            return None;
        }
        // SAFETY: the verifier has seen the check against `data_end`, and refuses a load whose
        // alignment the machine would not take.
        Some(unsafe { *(start as *const T) })
    }

    /// # Safety
    ///
    /// Any bytes must be a valid `T`.
    #[inline(always)]
    unsafe fn copy<T: Copy>(&self, offset: usize) -> Option<T> {
        let mut value = MaybeUninit::<T>::uninit();
        // SAFETY: the helper writes the whole value or fails.
        unsafe {
            let failed = bpf_skb_load_bytes(
                self.raw().cast(),
                offset as u32,
                value.as_mut_ptr().cast(),
                size_of::<T>() as u32,
            );
            (failed == 0).then(|| value.assume_init())
        }
    }
}

impl Bytes for Skb {
    #[inline(always)]
    fn head<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        // SAFETY: an array of integers.
        unsafe { self.read(offset) }
    }

    #[inline(always)]
    fn words<const N: usize>(&self, offset: usize) -> Option<[u32; N]> {
        // SAFETY: an array of integers.
        unsafe { self.read(offset) }
    }

    #[inline(always)]
    fn near<const N: usize>(&self, offset: usize) -> Option<[u32; N]> {
        // SAFETY: an array of integers.
        unsafe { self.peek(offset) }
    }

    #[inline(always)]
    fn at<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        // SAFETY: an array of integers.
        unsafe { self.copy(offset) }
    }
}
