//! What a network is, and how a user's words become one.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

use super::{Id, Invalid};

/// ipvlan mode of the parent's port (`IFLA_IPVLAN_MODE`); one per parent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    #[default]
    L2,
    L3,
    L3s,
}

/// ipvlan flag of the parent's port (`IFLA_IPVLAN_FLAGS`); one per parent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Flag {
    #[default]
    Bridge,
    Private,
    Vepa,
}

/// The device under a network's slaves, and who made it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Parent {
    /// A link that existed before; never removed by us.
    Existing { name: String },
    /// An 802.1Q sub-interface that we create on `base` and remove with its last network.
    Vlan {
        name: String,
        base: String,
        vid: u16,
    },
    /// A dummy that we create, named `di-` and the network's short id.
    Dummy { name: String },
}

impl Parent {
    pub fn name(&self) -> &str {
        match self {
            Self::Existing { name } | Self::Vlan { name, .. } | Self::Dummy { name } => name,
        }
    }
}

/// One subnet of a network with what IPAM must know of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pool {
    /// Network address and prefix; host bits are zero.
    pub subnet: IpNetwork,
    /// `None` where the network needs none (l3, l3s, internal) and none was given.
    pub gateway: Option<IpAddr>,
    /// Where dynamic addresses come from; the whole subnet if `None`.
    pub range: Option<IpNetwork>,
    /// Reserved by `--aux-address NAME=ADDR`.
    pub aux: BTreeMap<String, IpAddr>,
}

/// A network as stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    pub id: Id,
    pub name: String,
    /// Seconds since the epoch.
    pub created: u64,
    pub parent: Parent,
    pub mode: Mode,
    pub flag: Flag,
    /// Nothing whose source or destination is outside the pools passes.
    pub internal: bool,
    /// The host may reach the endpoints and they it (`-o host_access=true`).
    pub host_access: bool,
    /// The parent may be shared with other networks that say so too (`-o shared_parent=true`).
    pub shared_parent: bool,
    pub ipv4: bool,
    pub ipv6: bool,
    pub mtu: Option<u32>,
    pub pools: Vec<Pool>,
    pub labels: BTreeMap<String, String>,
    /// Driver options as given, for `inspect`.
    pub options: BTreeMap<String, String>,
}

/// `network create` as the user said it: nothing parsed yet, so that each error can name its flag.
#[derive(Debug, Clone, Default)]
pub struct CreateRequest {
    pub name: String,
    /// `-d`; empty or `ipvlan` (or `ipvlan-ctl`).
    pub driver: Option<String>,
    pub internal: bool,
    pub ipv4: Option<bool>,
    pub ipv6: bool,
    pub subnets: Vec<String>,
    pub gateways: Vec<String>,
    pub ip_ranges: Vec<String>,
    /// `NAME=ADDR`
    pub aux_addresses: Vec<String>,
    /// `KEY=VALUE`
    pub options: Vec<String>,
    /// `KEY` or `KEY=VALUE`
    pub labels: Vec<String>,
    pub mtu: Option<String>,
}

/// A link of the host as far as validation needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkView {
    pub index: u32,
    pub name: String,
    /// `IFLA_INFO_KIND`, such as `dummy` or `vlan`; `None` for physical devices and `lo`.
    pub kind: Option<String>,
    pub loopback: bool,
    /// It is an ipvlan slave itself.
    pub ipvlan: bool,
    /// Index of the bridge, bond or team it is enslaved to (`IFLA_MASTER`).
    pub master: Option<u32>,
    pub mtu: u32,
}

/// What validation must know of the host and of the networks that exist.
#[derive(Debug, Clone, Default)]
pub struct HostView {
    pub links: Vec<LinkView>,
    /// Every address and on-link or routed prefix of the host (default routes left out).
    pub used: Vec<IpNetwork>,
    pub networks: Vec<Network>,
    /// 40 random-looking bits of this host, for its ULA /48 (RFC 4193, 3.2).
    pub ula_seed: [u8; 5],
}

/// What an endpoint gets on a network: one address per family and its default routes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddressPlan {
    /// With the prefix length of its pool.
    pub v4: Option<IpNetwork>,
    pub v6: Option<IpNetwork>,
    /// L2, not internal: the gateway of the endpoint's own pool.
    pub gateway4: Option<IpAddr>,
    pub gateway6: Option<IpAddr>,
    /// L3 and L3s, not internal: `default dev ethN scope link`.
    pub device_default: bool,
}

impl CreateRequest {
    /// Checks every field against the rules of SEMANTICS and the host, and returns the network
    /// to be made. `id` and `created` are the caller's, so that this stays a pure function.
    pub fn resolve(&self, _host: &HostView, _id: Id, _created: u64) -> Result<Network, Invalid> {
        todo!()
    }
}
