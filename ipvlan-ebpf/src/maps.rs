//! The maps, pinned by these names, and the constants set at load.

use aya_ebpf::{
    bindings::BPF_F_NO_PREALLOC,
    macros::map,
    maps::{Array, HashMap, LpmTrie, PerCpuArray, PerCpuHashMap, RingBuf},
};
use ipvlan_common::{
    Address, AddressKey, AddressRecord, Counters, DropKey, Dropped, Endpoint, MAX_ENDPOINTS,
    StampKey, SubnetKey, Trace,
};

/// An endpoint has a v4, a v6 and a link-local address.
const MAX_ADDRESSES: u32 = 3 * MAX_ENDPOINTS;

#[map]
pub static ENDPOINTS: Array<Endpoint> = Array::pinned(MAX_ENDPOINTS, 0);

#[map]
pub static COUNTERS: PerCpuArray<Counters> = PerCpuArray::pinned(MAX_ENDPOINTS, 0);

#[map]
pub static ADDRESSES: HashMap<AddressKey, AddressRecord> =
    HashMap::pinned(MAX_ADDRESSES, BPF_F_NO_PREALLOC);

#[map]
pub static HOST_ADDRESSES: HashMap<Address, u32> = HashMap::pinned(4096, BPF_F_NO_PREALLOC);

/// Not zero where [`HOST_ADDRESSES`] has, or had, an address of that bucket.
#[map]
pub static HOST_BUCKETS: Array<u32> = Array::pinned(ipvlan_common::HOST_BUCKETS, 0);

#[map]
pub static SUBNETS: LpmTrie<SubnetKey, u32> = LpmTrie::pinned(65_536, BPF_F_NO_PREALLOC);

#[map]
pub static DROPS: PerCpuHashMap<DropKey, Dropped> =
    PerCpuHashMap::pinned(65_536, BPF_F_NO_PREALLOC);

#[map]
pub static TRACE: Array<Trace> = Array::pinned(1, 0);

/// Room for more than a thousand events.
#[map]
pub static EVENTS: RingBuf = RingBuf::pinned(256 * 1024, 0);

/// Parents whose clsact qdisc is ours to remove; programs do not read it.
#[map]
pub static CLSACT: HashMap<u32, u32> = HashMap::pinned(4096, BPF_F_NO_PREALLOC);

/// The words of [`StampKey`], for programs that are loaded later; programs do not read it.
#[map]
pub static KEY: Array<[u32; 2]> = Array::pinned(1, 0);

/// The words of [`StampKey`]; random per host, set at load.
#[unsafe(no_mangle)]
static STAMP_KEY: [u32; 2] = [0; 2];

#[inline(always)]
pub fn stamp_key() -> StampKey {
    // SAFETY: a static of this program; volatile, since the loader sets it after compilation.
    StampKey::from_words(unsafe { core::ptr::read_volatile(&raw const STAMP_KEY) })
}
