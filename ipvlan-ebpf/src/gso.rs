//! As how many packets the device will count what an endpoint sends.

use ipvlan_common::Count;

use crate::memory::{kernel_layout, read};
use crate::skb::Skb;

/// A GSO packet is one packet to the driver, unless it is beyond the limits of the device: then
/// the kernel cuts it, between this program and the driver (`validate_xmit_skb`, net/core/dev.c).
#[inline(always)]
pub fn sent(skb: &Skb) -> Count {
    let len = skb.len();
    let wire_len = skb.wire_len();
    if wire_len == len || !is_cut(*skb) {
        return Count {
            packets: 1,
            bytes: len,
        };
    }
    Count {
        packets: skb.gso_segments().max(1).into(),
        bytes: wire_len,
    }
}

/// As `gso_features_check` decides. Of the other features that segmentation asks for, ipvlan has
/// all, and none can be switched off (`IPVLAN_ALWAYS_ON`).
#[inline(never)]
fn is_cut(skb: Skb) -> bool {
    const IPV6: u16 = 0x86dd;
    let Some(layout) = kernel_layout() else {
        return false;
    };
    let device: u64 = read(skb.address(), layout.skb_device);
    let max_size = match skb.protocol() {
        IPV6 => layout.device_max_size,
        _ => layout.device_max_size_v4,
    };
    let max_segments: u16 = read(device, layout.device_max_segments);
    let max_size: u32 = read(device, max_size);
    skb.gso_segments() > max_segments.into() || skb.len() >= max_size.into()
}
