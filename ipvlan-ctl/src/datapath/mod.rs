//! The eBPF side: programs loaded and pinned once per host, map entries, links and figures.
//!
//! Everything here is idempotent: the engine may repeat any call after a crash.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};

use ipnetwork::IpNetwork;
use thiserror::Error;

use crate::kernel::Netns;

#[derive(Debug, Error)]
pub enum DatapathError {
    #[error("{what}: {why}")]
    Failed { what: String, why: String },
}

type Result<T> = std::result::Result<T, DatapathError>;

/// What the programs must know of a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkPolicy {
    /// Small integer unique among the host's networks (the store's row number).
    pub number: u32,
    pub parent_index: u32,
    pub subnets: Vec<IpNetwork>,
    pub internal: bool,
    pub host_access: bool,
    pub l3: bool,
    pub vepa: bool,
}

/// What the programs must know of an endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointPolicy {
    /// Slot in the maps, `0..MAX_ENDPOINTS`; the slave's ifindex is `FIRST_IFINDEX + slot`.
    pub slot: u32,
    pub network: u32,
    pub parent_index: u32,
    pub v4: Option<Ipv4Addr>,
    pub v6: Option<Ipv6Addr>,
    /// The slave's link-local address, where it has one.
    pub link_local: Option<Ipv6Addr>,
}

/// Packets and bytes of one direction, as the slave's own kernel counters have them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Figure {
    pub packets: u64,
    pub bytes: u64,
}

/// Figures of one endpoint since it was attached.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Figures {
    pub rx: Figure,
    pub tx: Figure,
    /// Dropped packets by reason (`ipvlan_common::Reason::name`); only reasons that occurred.
    pub drops: BTreeMap<&'static str, u64>,
}

/// The programs and maps of this host, open.
#[derive(Debug)]
pub struct Datapath {
    root: PathBuf,
}

impl Datapath {
    /// First ifindex of slaves: slot `n` is ifindex `FIRST_IFINDEX + n` in its namespace.
    pub const FIRST_IFINDEX: u32 = 100_000;
    pub const MAX_ENDPOINTS: u32 = 16_384;

    /// Opens the pinned programs and maps under `root` (a folder of a bpffs, mounted if need
    /// be), loading and pinning them first where this host has none yet. Many processes may
    /// call this at once.
    pub fn open(_root: &Path) -> Result<Self> {
        todo!()
    }

    /// Attaches the parent programs to a device of the current namespace.
    pub fn attach_parent(&self, _index: u32, _name: &str) -> Result<()> {
        todo!()
    }

    /// Detaches them; the device may be gone already.
    pub fn detach_parent(&self, _index: u32, _name: &str) -> Result<()> {
        todo!()
    }

    /// Are the parent programs attached to this device?
    pub fn parent_attached(&self, _index: u32, _name: &str) -> Result<bool> {
        todo!()
    }

    pub fn put_network(&self, _network: &NetworkPolicy) -> Result<()> {
        todo!()
    }

    pub fn remove_network(&self, _network: &NetworkPolicy) -> Result<()> {
        todo!()
    }

    /// Writes the endpoint's map entries with figures at zero.
    pub fn put_endpoint(&self, _endpoint: &EndpointPolicy) -> Result<()> {
        todo!()
    }

    /// Attaches the endpoint programs to its slave, `ifname` in `netns`. Spawns the thread
    /// that enters the namespace itself.
    pub fn attach_endpoint(&self, _slot: u32, _netns: &Netns, _ifname: &str) -> Result<()> {
        todo!()
    }

    /// Removes the endpoint's links and map entries; its slave may be gone already.
    pub fn remove_endpoint(&self, _endpoint: &EndpointPolicy) -> Result<()> {
        todo!()
    }

    /// Slots that have a pinned link, for repair.
    pub fn attached_slots(&self) -> Result<Vec<u32>> {
        todo!()
    }

    /// The host's own addresses: what endpoints may not talk to.
    pub fn set_host_addresses(&self, _addresses: &[std::net::IpAddr]) -> Result<()> {
        todo!()
    }

    /// Figures of these slots, in their order.
    pub fn figures(&self, _slots: &[u32]) -> Result<Vec<Figures>> {
        todo!()
    }

    /// Drops by reason that belong to no endpoint, of the parent with this ifindex.
    pub fn parent_drops(&self, _index: u32) -> Result<BTreeMap<&'static str, u64>> {
        todo!()
    }

    /// Removes pins and, when the folder is then empty, the folder: after the last network.
    pub fn unpin_all(&self) -> Result<()> {
        let _ = &self.root;
        todo!()
    }
}
