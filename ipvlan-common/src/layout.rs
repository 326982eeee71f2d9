/// Where the running kernel keeps what tells whose packet it is, and in how many it is sent: byte
/// offsets of members, taken from the kernel's BTF.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KernelLayout {
    /// `sk_buff.sk`
    pub skb_socket: u32,
    /// `sk_buff.dev`
    pub skb_device: u32,
    /// `sk_buff._skb_refdst`
    pub skb_route: u32,
    /// `sk_buff.sender_cpu`
    pub skb_sender_cpu: u32,
    /// `sock_common.skc_net`
    pub socket_net: u32,
    /// The byte of `sock_common.skc_net_refcnt`, and the bit in it.
    pub socket_holds_net: u32,
    pub socket_holds_net_bit: u32,
    /// `net_device.nd_net`
    pub device_net: u32,
    /// `net_device.gso_max_segs`
    pub device_max_segments: u32,
    /// `net_device.gso_max_size`
    pub device_max_size: u32,
    /// `net_device.gso_ipv4_max_size`, or the same where there is one limit for all
    pub device_max_size_v4: u32,
    /// `dst_entry.dev`
    pub route_device: u32,
    /// How many CPUs there may be.
    pub cpus: u32,
}

impl KernelLayout {
    pub const UNKNOWN: Self = Self {
        skb_socket: 0,
        skb_device: 0,
        skb_route: 0,
        skb_sender_cpu: 0,
        socket_net: 0,
        socket_holds_net: 0,
        socket_holds_net_bit: 0,
        device_net: 0,
        device_max_segments: 0,
        device_max_size: 0,
        device_max_size_v4: 0,
        route_device: 0,
        cpus: 0,
    };
}

#[cfg(feature = "user")]
// SAFETY: `repr(C)`, made of integers only, without padding: any bytes are a value.
unsafe impl aya::Pod for KernelLayout {}
