//! The eBPF side: programs loaded and pinned once per host, map entries, links and figures.
//!
//! Everything here is idempotent: the engine may repeat any call after a crash.
//!
//! Pins, under a root folder in a bpffs:
//!
//! ```text
//! ROOT/abi4/ENDPOINTS …               maps
//! ROOT/abi4/programs-0_1_0-HASH/…     programs of one build
//! ROOT/links/slot-7-egress            TCX links of the endpoint in slot 7
//! ROOT/links/parent-2-ingress         TCX links of the parent with ifindex 2
//! ROOT/links/loopback-egress          TCX link of the host's loop-back
//! ```

mod batch;
mod btf;
mod clsact;
mod figures;
mod hook;
mod pins;
mod programs;
mod trace;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};

use aya::Pod;
use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{Array, HashMap, Map, MapData, MapError};
use ipnetwork::IpNetwork;
use ipvlan_common::{Address, AddressKey, AddressRecord, Endpoint, EndpointFlags, SubnetKey};
use thiserror::Error;

pub use figures::{Families, Figure, Figures, Traffic};
pub use programs::{Device, Programs, Replacement, Set};
pub use trace::Tracer;

use crate::kernel::{Netns, NetnsError};
use batch::PerCpu;
use hook::Owner;

#[derive(Debug, Error)]
pub enum DatapathError {
    #[error("{path} is not on a BPF filesystem: mount one with `mount -t bpf bpf /sys/fs/bpf`")]
    NotBpffs { path: PathBuf },
    #[error("cannot {what} {path}: {source}")]
    Io {
        what: &'static str,
        path: PathBuf,
        source: std::io::Error,
    },
    #[error(
        "the programs under {root} have map ABI {found}, this ipvlan-ctl has {}: remove the networks \
         with the version that made them, or reboot",
        ipvlan_common::ABI
    )]
    OtherAbi { root: PathBuf, found: String },
    #[error("cannot load the eBPF programs: {0}")]
    Load(String),
    #[error("cannot {what} map {name}: {source}")]
    Map {
        what: &'static str,
        name: &'static str,
        source: MapError,
    },
    #[error("cannot attach {program} to {device}: {why}")]
    Attach {
        program: &'static str,
        device: String,
        why: String,
    },
    #[error("cannot detach from {device}: {why}")]
    Detach { device: String, why: String },
    #[error("another `ipvlan-ctl trace` is at work; only one can listen at a time")]
    Traced,
    #[error("the programs were unloaded with the last network")]
    Unloaded,
    #[error("cannot read the clock: {0}")]
    Clock(std::io::Error),
    #[error(transparent)]
    Netns(#[from] NetnsError),
}

type Result<T> = std::result::Result<T, DatapathError>;

const LOOPBACK: &str = "lo";

/// What the programs must know of a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkPolicy {
    /// Small integer unique among the host's networks (the store's row number).
    pub number: u32,
    pub subnets: Vec<IpNetwork>,
    pub internal: bool,
    pub host_access: bool,
    /// Other networks may use the same parent.
    pub shared: bool,
    pub vepa: bool,
    pub l3s: bool,
    /// Packets leave by the host's routing (modes l3 and l3s).
    pub routed: bool,
    /// The parents are in the endpoints' own namespaces, without programs.
    pub unstamped: bool,
}

impl NetworkPolicy {
    fn flags(&self) -> u32 {
        [
            (self.internal, EndpointFlags::INTERNAL),
            (self.host_access, EndpointFlags::HOST_ACCESS),
            (self.shared, EndpointFlags::SHARED),
            (self.vepa, EndpointFlags::VEPA),
            (self.l3s, EndpointFlags::L3S),
            (self.routed, EndpointFlags::ROUTED),
            (self.unstamped, EndpointFlags::UNSTAMPED),
        ]
        .into_iter()
        .filter(|(set, _)| *set)
        .fold(EndpointFlags::PRESENT, |flags, (_, flag)| flags | flag)
    }
}

/// What the programs must know of an endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointPolicy {
    /// Slot in the maps, `0..MAX_ENDPOINTS`; the slave's ifindex is `FIRST_IFINDEX + slot`.
    pub slot: u32,
    /// Ifindex of the parent in the controller's namespace, or a number that none has there.
    pub parent_index: u32,
    pub v4: Option<Ipv4Addr>,
    pub v6: Option<Ipv6Addr>,
    /// The slave's link-local address, where it has one.
    pub link_local: Option<Ipv6Addr>,
    /// It may ask DHCP servers for its address.
    pub dhcp: bool,
}

impl EndpointPolicy {
    fn flags(&self) -> u32 {
        if self.dhcp { EndpointFlags::DHCP } else { 0 }
    }

    fn addresses(&self) -> impl Iterator<Item = AddressKey> {
        [
            self.v4.map(Address::from),
            self.v6.map(Address::from),
            self.link_local.map(Address::from),
        ]
        .into_iter()
        .flatten()
        .map(|address| AddressKey {
            parent: self.parent_index,
            address,
        })
    }
}

/// The programs and maps of this host.
#[derive(Debug)]
pub struct Datapath {
    root: PathBuf,
}

impl Datapath {
    /// First ifindex of slaves: slot `n` is ifindex `FIRST_IFINDEX + n` in its namespace.
    pub const FIRST_IFINDEX: u32 = ipvlan_common::FIRST_IFINDEX;
    pub const MAX_ENDPOINTS: u32 = ipvlan_common::MAX_ENDPOINTS;
    /// Ifindex of the host's loop-back, for [`Datapath::parent_drops`].
    pub const LOOPBACK: u32 = hook::LOOPBACK_INDEX;

    /// Opens the pinned programs and maps under `root` (a folder of a bpffs, mounted if need
    /// be), loading and pinning them first where this host has none yet. Many processes may
    /// call this at once.
    pub fn open(root: &Path) -> Result<Self> {
        pins::ensure(root)?;
        Ok(Self {
            root: root.to_owned(),
        })
    }

    /// Opens what is pinned, if anything is: for reading figures.
    pub fn open_existing(root: &Path) -> Option<Self> {
        pins::exist(root).then(|| Self {
            root: root.to_owned(),
        })
    }

    /// Attaches the parent programs to a device of the current namespace.
    pub fn attach_parent(&self, index: u32, name: &str) -> Result<()> {
        hook::attach(&self.root, Owner::Parent(index), name)
    }

    /// Detaches them; the device may be gone already.
    pub fn detach_parent(&self, index: u32, name: &str) -> Result<()> {
        hook::detach(&self.root, Owner::Parent(index), Some(name))
    }

    /// Removes what is left of a parent whose device is gone.
    pub fn forget_parent(&self, index: u32) -> Result<()> {
        hook::detach(&self.root, Owner::Parent(index), None)
    }

    /// Are the parent programs attached to this device?
    pub fn parent_attached(&self, index: u32, name: &str) -> Result<bool> {
        hook::attached(&self.root, Owner::Parent(index), name)
    }

    /// Keeps endpoints of modes l3 and l3s from the host's stack, which their packets reach by the
    /// host's loop-back.
    pub fn attach_loopback(&self) -> Result<()> {
        hook::attach(&self.root, Owner::Loopback, LOOPBACK)
    }

    pub fn detach_loopback(&self) -> Result<()> {
        hook::detach(&self.root, Owner::Loopback, Some(LOOPBACK))
    }

    pub fn loopback_attached(&self) -> Result<bool> {
        hook::attached(&self.root, Owner::Loopback, LOOPBACK)
    }

    pub fn put_network(&self, network: &NetworkPolicy) -> Result<()> {
        let mut subnets: LpmTrie<MapData, SubnetKey, u32> = self.map("SUBNETS")?;
        for subnet in &network.subnets {
            subnets
                .insert(&subnet_key(network.number, subnet), network.number, 0)
                .map_err(map_error("write", "SUBNETS"))?;
        }
        Ok(())
    }

    pub fn remove_network(&self, network: &NetworkPolicy) -> Result<()> {
        let mut subnets: LpmTrie<MapData, SubnetKey, u32> = self.map("SUBNETS")?;
        for subnet in &network.subnets {
            absent_is_fine(
                subnets.remove(&subnet_key(network.number, subnet)),
                "SUBNETS",
            )?;
        }
        Ok(())
    }

    /// Writes the endpoint's map entries, with figures at zero.
    pub fn put_endpoint(&self, network: &NetworkPolicy, endpoint: &EndpointPolicy) -> Result<()> {
        figures::reset(self, endpoint.slot)?;
        self.change_endpoint(network, endpoint)
    }

    /// As [`Datapath::put_endpoint`], where it has got its addresses only now: its figures go on.
    pub fn change_endpoint(
        &self,
        network: &NetworkPolicy,
        endpoint: &EndpointPolicy,
    ) -> Result<()> {
        let flags = network.flags() | endpoint.flags();
        let v6 = |address: Option<Ipv6Addr>| address.map_or(Address::UNSPECIFIED, Into::into);
        let record = Endpoint {
            flags,
            network: network.number,
            parent: endpoint.parent_index,
            v4: endpoint.v4.map_or(Address::UNSPECIFIED, Into::into),
            v6: v6(endpoint.v6),
            link_local: v6(endpoint.link_local),
        };
        self.set_record(endpoint.slot, record)?;
        let mut addresses: HashMap<MapData, AddressKey, AddressRecord> = self.map("ADDRESSES")?;
        let owner = AddressRecord {
            slot: endpoint.slot,
            network: network.number,
            flags,
        };
        for key in endpoint.addresses() {
            addresses
                .insert(key, owner, 0)
                .map_err(map_error("write", "ADDRESSES"))?;
        }
        Ok(())
    }

    /// Attaches the endpoint programs to its slave, `ifname` in `netns`, from a thread inside.
    pub fn attach_endpoint(&self, slot: u32, netns: &Netns, ifname: &str) -> Result<()> {
        netns.run(|| hook::attach(&self.root, Owner::Endpoint(slot), ifname))?
    }

    /// Are the endpoint programs attached to this slave?
    pub fn endpoint_attached(&self, slot: u32, netns: &Netns, ifname: &str) -> Result<bool> {
        netns.run(|| hook::attached(&self.root, Owner::Endpoint(slot), ifname))?
    }

    /// Do the maps know of this endpoint and its addresses? Not where pins were deleted by hand.
    pub fn has_endpoint(&self, endpoint: &EndpointPolicy) -> Result<bool> {
        let endpoints: Array<MapData, Endpoint> = self.map("ENDPOINTS")?;
        let record = endpoints
            .get(&endpoint.slot, 0)
            .map_err(map_error("read", "ENDPOINTS"))?;
        let addresses: HashMap<MapData, AddressKey, AddressRecord> = self.map("ADDRESSES")?;
        let owns = |key| {
            let owner = addresses.get(&key, 0);
            owner.is_ok_and(|owner| owner.slot == endpoint.slot)
        };
        Ok(record.is(EndpointFlags::PRESENT) && endpoint.addresses().all(owns))
    }

    /// Removes the endpoint's links and map entries; its slave may be gone already.
    pub fn remove_endpoint(&self, endpoint: &EndpointPolicy) -> Result<()> {
        hook::detach(&self.root, Owner::Endpoint(endpoint.slot), None)?;
        let mut addresses: HashMap<MapData, AddressKey, AddressRecord> = self.map("ADDRESSES")?;
        for key in endpoint.addresses() {
            // After a crash the address may have a new owner already.
            if addresses
                .get(&key, 0)
                .is_ok_and(|owner| owner.slot == endpoint.slot)
            {
                absent_is_fine(addresses.remove(&key), "ADDRESSES")?;
            }
        }
        self.set_record(endpoint.slot, Endpoint::ABSENT)?;
        figures::reset(self, endpoint.slot)
    }

    /// Slots that own an address or a link, for repair.
    pub fn used_slots(&self) -> Result<Vec<u32>> {
        let addresses: HashMap<MapData, AddressKey, AddressRecord> = self.map("ADDRESSES")?;
        let mut slots = hook::linked_slots(&self.root)?;
        for entry in addresses.iter() {
            let (_, owner) = entry.map_err(map_error("read", "ADDRESSES"))?;
            slots.push(owner.slot);
        }
        slots.sort_unstable();
        slots.dedup();
        Ok(slots)
    }

    /// Removes whatever the datapath holds of a slot that the store does not know.
    pub fn clear_slot(&self, slot: u32) -> Result<()> {
        let addresses: HashMap<MapData, AddressKey, AddressRecord> = self.map("ADDRESSES")?;
        let stale: Vec<AddressKey> = addresses
            .iter()
            .filter_map(|entry| entry.ok())
            .filter(|(_, owner)| owner.slot == slot)
            .map(|(key, _)| key)
            .collect();
        let mut addresses = addresses;
        for key in stale {
            absent_is_fine(addresses.remove(&key), "ADDRESSES")?;
        }
        let nothing = EndpointPolicy {
            slot,
            parent_index: 0,
            v4: None,
            v6: None,
            link_local: None,
            dhcp: false,
        };
        self.remove_endpoint(&nothing)
    }

    /// The host's own addresses: what endpoints may not talk to.
    pub fn set_host_addresses(&self, wanted: &[IpAddr]) -> Result<()> {
        let wanted: Vec<Address> = wanted.iter().copied().map(Into::into).collect();
        let mut map: HashMap<MapData, Address, u32> = self.map("HOST_ADDRESSES")?;
        let present: Vec<Address> = map
            .keys()
            .collect::<std::result::Result<_, _>>()
            .map_err(map_error("read", "HOST_ADDRESSES"))?;
        let mut buckets: Array<MapData, u32> = self.map("HOST_BUCKETS")?;
        for address in wanted.iter().filter(|address| !present.contains(address)) {
            // First: where its bucket is not in use, nobody asks for the address. It stays in use, or
            // a process that takes the last address out could hide one that another is putting in.
            buckets
                .set(address.bucket(), 1, 0)
                .map_err(map_error("write", "HOST_BUCKETS"))?;
            map.insert(address, 1, 0)
                .map_err(map_error("write", "HOST_ADDRESSES"))?;
        }
        for address in present.iter().filter(|address| !wanted.contains(address)) {
            absent_is_fine(map.remove(address), "HOST_ADDRESSES")?;
        }
        Ok(())
    }

    /// Figures of these slots, in their order.
    pub fn figures(&self, slots: &[u32]) -> Result<Vec<Figures>> {
        figures::read(self, slots)
    }

    /// Drops by reason that belong to no endpoint, of the parent with this ifindex.
    pub fn parent_drops(&self, index: u32) -> Result<figures::Drops> {
        figures::parent_drops(self, index)
    }

    /// Removes every pin and the folder, if there is one: after the last network.
    pub fn unpin_all(root: &Path) -> Result<()> {
        pins::remove_all(root)
    }

    /// Removes what processes left that were killed while loading or unpinning.
    pub fn remove_leftovers(&self) -> Result<()> {
        pins::remove_orphaned_drafts(&self.root)
    }

    fn set_record(&self, slot: u32, record: Endpoint) -> Result<()> {
        let mut endpoints: Array<MapData, Endpoint> = self.map("ENDPOINTS")?;
        endpoints
            .set(slot, record, 0)
            .map_err(map_error("write", "ENDPOINTS"))
    }

    fn map<M: TryFrom<Map, Error = MapError>>(&self, name: &'static str) -> Result<M> {
        open_map(&pins::abi_folder(&self.root), name)
    }

    fn per_cpu<K: Pod, V: Pod>(&self, name: &'static str) -> Result<PerCpu<K, V>> {
        MapData::from_pin(pins::abi_folder(&self.root).join(name))
            .and_then(PerCpu::new)
            .map_err(map_error("open", name))
    }
}

fn open_map<M: TryFrom<Map, Error = MapError>>(folder: &Path, name: &'static str) -> Result<M> {
    MapData::from_pin(folder.join(name))
        .and_then(Map::from_map_data)
        .and_then(M::try_from)
        .map_err(map_error("open", name))
}

/// The network's number is part of the prefix, so that each network has a trie of its own.
fn subnet_key(network: u32, subnet: &IpNetwork) -> Key<SubnetKey> {
    let prefix = match subnet {
        IpNetwork::V4(v4) => 96 + u32::from(v4.prefix()),
        IpNetwork::V6(v6) => u32::from(v6.prefix()),
    };
    Key::new(
        32 + prefix,
        SubnetKey {
            network,
            address: subnet.network().into(),
        },
    )
}

fn map_error(what: &'static str, name: &'static str) -> impl Fn(MapError) -> DatapathError {
    move |source| DatapathError::Map { what, name, source }
}

/// Removing what is not there is no error: an undo may run twice.
fn absent_is_fine(removed: std::result::Result<(), MapError>, name: &'static str) -> Result<()> {
    match removed {
        Err(MapError::SyscallError(e)) if e.io_error.kind() == std::io::ErrorKind::NotFound => {
            Ok(())
        }
        Err(MapError::KeyNotFound) => Ok(()),
        other => other.map_err(map_error("delete from", name)),
    }
}
