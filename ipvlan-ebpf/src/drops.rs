//! Counting what is dropped, and telling a tracer of it.

use core::hint::black_box;

use aya_ebpf::{
    bindings::BPF_NOEXIST,
    helpers::generated::{bpf_ktime_get_ns, bpf_skb_load_bytes},
};
use ipvlan_common::{DropKey, Dropped, Event, Hook, SNAP, Sample};

use crate::maps::{DROPS, EVENTS, TRACE};
use crate::skb::Skb;

/// No frame is shorter. The verifier knows by this that the length to copy is not zero.
const ETHERNET: u64 = 14;

#[inline(never)]
pub fn record(skb: Skb, key: &DropKey, hook: Hook) {
    let mut dropped = DROPS.get_ptr_mut(key);
    if dropped.is_none() {
        // This fails where another CPU made the entry meanwhile: then ours is there as well.
        let _ = DROPS.insert(key, Dropped::NONE, u64::from(BPF_NOEXIST));
        dropped = DROPS.get_ptr_mut(key);
    }
    if let Some(dropped) = dropped {
        // SAFETY: this CPU's own value.
        let dropped = unsafe { &mut *dropped };
        dropped.packets += 1;
        tell(&skb, key, hook, &mut dropped.sample);
    }
}

/// Sends an event if somebody listens.
#[inline(always)]
fn tell(skb: &Skb, key: &DropKey, hook: Hook, sample: &mut Sample) {
    let Some(trace) = TRACE.get(0) else { return };
    if trace.until == 0 {
        return;
    }
    // SAFETY: the helper takes nothing.
    let now = unsafe { bpf_ktime_get_ns() };
    if now >= trace.until {
        return;
    }
    let Some(suppressed) = sample.take(now, trace.since) else {
        return;
    };
    let Some(mut entry) = EVENTS.reserve::<Event>(0) else {
        sample.suppress(suppressed);
        return;
    };
    let event = entry.as_mut_ptr();
    // Kernel 6.1 does not relate a copy to what 32 bits of the original are compared with, so the
    // compiler must not see that they suffice.
    let length = black_box(skb.len());
    let captured = length.clamp(ETHERNET, SNAP as u64) as u32;
    // SAFETY: the entry is ours and as long as an event; the helper writes at most `SNAP` bytes.
    unsafe {
        (*event).time = now;
        (*event).key = *key;
        (*event).hook = hook as u32;
        (*event).length = length as u32;
        (*event).suppressed = suppressed;
        let failed = bpf_skb_load_bytes(
            skb.raw().cast(),
            0,
            (&raw mut (*event).bytes).cast(),
            captured,
        );
        (*event).captured = if failed == 0 { captured } else { 0 };
    }
    entry.submit(0);
}
