//! The maps, pinned by these names, and the constants set at load.

use aya_ebpf::{
    bindings::BPF_F_NO_PREALLOC,
    macros::map,
    maps::{Array, HashMap, LpmTrie, PerCpuArray, PerCpuHashMap},
};
use ipvlan_common::{
    Address, AddressKey, AddressRecord, Counters, DropKey, Endpoint, MAX_ENDPOINTS, SubnetKey,
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

#[map]
pub static SUBNETS: LpmTrie<SubnetKey, u32> = LpmTrie::pinned(65_536, BPF_F_NO_PREALLOC);

#[map]
pub static DROPS: PerCpuHashMap<DropKey, u64> = PerCpuHashMap::pinned(65_536, BPF_F_NO_PREALLOC);

/// Parents whose clsact qdisc is ours to remove; programs do not read it.
#[map]
pub static CLSACT: HashMap<u32, u32> = HashMap::pinned(4096, BPF_F_NO_PREALLOC);

/// Stamp of a packet that `endpoint_egress` passed; random per host, set at load.
#[unsafe(no_mangle)]
static ENDPOINT_STAMP: u32 = 0;

/// Stamp of a packet that `parent_ingress` passed.
#[unsafe(no_mangle)]
static WIRE_STAMP: u32 = 0;

#[inline(always)]
pub fn endpoint_stamp() -> u32 {
    // SAFETY: a static of this program; volatile, since the loader sets it after compilation.
    unsafe { core::ptr::read_volatile(&raw const ENDPOINT_STAMP) }
}

#[inline(always)]
pub fn wire_stamp() -> u32 {
    // SAFETY: as above.
    unsafe { core::ptr::read_volatile(&raw const WIRE_STAMP) }
}
