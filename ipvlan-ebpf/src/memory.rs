//! The kernel's own memory, where the packet's context does not say what it knows.

use aya_ebpf::helpers::bpf_probe_read_kernel;
use ipvlan_common::KernelLayout;

/// Set at load, as the running kernel has it.
#[unsafe(no_mangle)]
static KERNEL_LAYOUT: KernelLayout = KernelLayout::UNKNOWN;

/// `None` where the loader could not tell, or nothing can be read.
#[inline(always)]
pub fn kernel_layout() -> Option<KernelLayout> {
    // SAFETY: a static of this program; volatile, since the loader sets it after compilation.
    let layout = unsafe { core::ptr::read_volatile(&raw const KERNEL_LAYOUT) };
    (layout.skb_socket != 0).then_some(layout)
}

/// The value there; zero where nothing can be read.
#[inline(always)]
pub fn read<T: Copy + Default>(base: u64, offset: u32) -> T {
    // SAFETY: the helper takes any address, and fails where nothing can be read.
    unsafe { bpf_probe_read_kernel((base + u64::from(offset)) as *const T) }.unwrap_or_default()
}
