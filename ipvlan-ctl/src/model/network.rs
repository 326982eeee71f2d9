//! What a network is, and how a user's words become one.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

use super::ipam::Family;
use super::options::{self, DriverOptions};
use super::pools::{self, Needs};
use super::{Id, Invalid, Pool, parent};

/// ipvlan mode of the parent's port (`IFLA_IPVLAN_MODE`); one per parent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    #[default]
    L2,
    L3,
    L3s,
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::L2 => "l2",
            Self::L3 => "l3",
            Self::L3s => "l3s",
        })
    }
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

impl fmt::Display for Flag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bridge => "bridge",
            Self::Private => "private",
            Self::Vepa => "vepa",
        })
    }
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
    /// The link of this name in each endpoint's own namespace: what is in it may use the link
    /// itself, so only what goes by the slave is judged and counted.
    Inside { name: String },
}

impl Parent {
    pub fn name(&self) -> &str {
        match self {
            Self::Existing { name }
            | Self::Vlan { name, .. }
            | Self::Dummy { name }
            | Self::Inside { name } => name,
        }
    }

    /// Is it a link of the host, whose names are the host's?
    pub fn is_of_host(&self) -> bool {
        !matches!(self, Self::Inside { .. })
    }
}

/// Label of the networks that another engine made through a door of ours; its value names the
/// door. Such an engine answers for names itself.
pub const DOOR_LABEL: &str = "io.ipvlan-ctl.door";

/// The value of [`DOOR_LABEL`] on Docker's networks. Docker has a list of its own, so they are its
/// to remove.
pub const DOCKERS_DOOR: &str = "docker";

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
    /// Addresses come from someone else's IPAM, such as a CNI delegate: none is reserved or
    /// given here, and the pools are the subnets seen so far.
    #[serde(default)]
    pub external_ipam: bool,
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
    /// A new one if `None`.
    pub id: Option<Id>,
    pub name: String,
    /// Its pools were promised, with the ranges that they were asked for with.
    pub promised: bool,
    /// `-d`; empty or `ipvlan` (or `ipvlan-ctl`).
    pub driver: Option<String>,
    pub internal: bool,
    /// See [`Network::external_ipam`].
    pub external_ipam: bool,
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
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddressPlan {
    /// With the prefix length of its pool.
    pub v4: Option<IpNetwork>,
    pub v6: Option<IpNetwork>,
    /// L2, not internal: the gateway of the endpoint's own pool.
    pub gateway4: Option<IpAddr>,
    pub gateway6: Option<IpAddr>,
    /// L3 and L3s, not internal: `default dev ethN scope link`.
    pub device_default: bool,
    /// Of a namespace's endpoints, the one with the highest has the default route; among equals
    /// the first that came.
    #[serde(default)]
    pub gw_priority: i32,
    /// Routes that an external IPAM gave. One that the namespace has already stays as it is.
    #[serde(default)]
    pub routes: Vec<Route>,
    /// The address is asked for through the interface, and kept so, by a DHCP client.
    #[serde(default)]
    pub dhcp: bool,
}

/// A route of an endpoint's interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// Host bits are zero; prefix length 0 is a default route.
    pub to: IpNetwork,
    /// On the link if `None`.
    pub via: Option<IpAddr>,
}

impl AddressPlan {
    /// The addresses without their prefix lengths, IPv4 first.
    pub fn hosts(&self) -> impl Iterator<Item = IpAddr> + use<> {
        [self.v4, self.v6]
            .into_iter()
            .flatten()
            .map(|address| address.ip())
    }

    /// Every route that the interface has beside those of its own subnets.
    pub fn all_routes(&self) -> Vec<Route> {
        let mut routes = self.routes.clone();
        routes.extend(self.default_routes());
        routes
    }

    /// The default routes by which the network itself leads outside, at most one per family.
    pub fn default_routes(&self) -> Vec<Route> {
        let default = |family: Family, via: Option<IpAddr>| Route {
            to: family.everything(),
            via,
        };
        let by_device = |address: Option<IpNetwork>, family: Family| {
            (self.device_default && address.is_some()).then(|| default(family, None))
        };
        let mut routes = Vec::new();
        routes.extend(self.gateway4.map(|via| default(Family::V4, Some(via))));
        routes.extend(self.gateway6.map(|via| default(Family::V6, Some(via))));
        routes.extend(by_device(self.v4, Family::V4));
        routes.extend(by_device(self.v6, Family::V6));
        routes
    }
}

impl Network {
    /// Did another engine make it through the door of this name (see [`DOOR_LABEL`])?
    pub fn is_of_door(&self, name: &str) -> bool {
        self.labels.get(DOOR_LABEL).is_some_and(|door| door == name)
    }

    /// Did Docker make it?
    pub fn is_dockers(&self) -> bool {
        self.is_of_door(DOCKERS_DOOR)
    }

    /// The pool in whose subnet `address` lies.
    pub fn pool_of(&self, address: IpAddr) -> Option<&Pool> {
        self.pools.iter().find(|pool| pool.contains(address))
    }

    /// The pools of one family, in the order they are tried.
    pub fn pools_of(&self, family: Family) -> impl Iterator<Item = &Pool> {
        self.pools
            .iter()
            .filter(move |pool| Family::of(&pool.subnet) == family)
    }

    /// What an endpoint with these addresses sets up in its namespace. An address that is in no
    /// pool of the network (none that IPAM gave) stands alone: full prefix length, no gateway.
    pub fn address_plan(&self, v4: Option<IpAddr>, v6: Option<IpAddr>) -> AddressPlan {
        let gateway = |address: Option<IpAddr>| {
            self.pool_of(address?)?
                .gateway
                .filter(|_| self.mode == Mode::L2 && !self.internal)
        };
        let with_prefix = |address: IpAddr| match self.pool_of(address) {
            Some(pool) => IpNetwork::new(address, pool.subnet.prefix()).unwrap_or(address.into()),
            None => address.into(),
        };
        AddressPlan {
            v4: v4.map(with_prefix),
            v6: v6.map(with_prefix),
            gateway4: gateway(v4),
            gateway6: gateway(v6),
            device_default: self.mode != Mode::L2 && !self.internal,
            gw_priority: 0,
            routes: Vec::new(),
            dhcp: false,
        }
    }
}

impl CreateRequest {
    /// Checks every field against the rules of SEMANTICS and the host, and returns the network
    /// to be made. `id` and `created` are the caller's, so that this stays a pure function.
    pub fn resolve(&self, host: &HostView, id: Id, created: u64) -> Result<Network, Invalid> {
        options::check_name(&self.name, &host.networks)?;
        options::check_driver(self.driver.as_deref())?;
        let families = options::families(self.ipv4, self.ipv6)?;
        let options = DriverOptions::parse(&self.options, self.mtu.as_deref(), families)?;
        let placement = parent::place(&options, host, &id)?;
        parent::check_mtu(&options, placement.mtu, families)?;
        if self.internal && !placement.parent.is_of_host() {
            return Err(Invalid::new(
                "--internal",
                "true",
                "a container that has the parent itself is not kept inside",
            ));
        }
        let internal = self.internal || matches!(placement.parent, Parent::Dummy { .. });
        let pools = pools::resolve(
            self,
            host,
            &Needs {
                families,
                mode: options.mode,
                parent: placement.parent.name(),
                gateway: options.mode == Mode::L2 && !internal && !self.external_ipam,
            },
        )?;
        let network = Network {
            id,
            name: self.name.clone(),
            created,
            parent: placement.parent,
            mode: options.mode,
            flag: options.flag,
            internal,
            host_access: options.host_access,
            shared_parent: options.shared_parent,
            external_ipam: self.external_ipam,
            ipv4: families.v4,
            ipv6: families.v6,
            mtu: options.mtu,
            pools,
            labels: options::labels(&self.labels)?,
            options: options.given,
        };
        if network.is_dockers() && !network.parent.is_of_host() {
            return Err(Invalid::new(
                options::field(options::LINK_IN_CONTAINER),
                "true",
                "Docker makes endpoints before a container has links of its own",
            ));
        }
        Ok(network)
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::{host, network};
    use super::*;

    fn ip(text: &str) -> Option<IpAddr> {
        Some(text.parse().unwrap())
    }

    #[test]
    fn plans_by_mode() {
        let two = "--ipv6 --subnet=10.0.0.0/24 --subnet=10.0.1.0/25 --subnet=fd00::/64";
        let plan = |more: &str| {
            network(&format!("{two} {more} n"), &host()).address_plan(ip("10.0.1.9"), ip("fd00::9"))
        };
        let l2 = plan("-o parent=eth0");
        assert_eq!(l2.v4.unwrap().to_string(), "10.0.1.9/25");
        assert_eq!(l2.v6.unwrap().to_string(), "fd00::9/64");
        let gateways = (ip("10.0.1.1"), ip("fd00::1"));
        assert_eq!(
            (l2.gateway4, l2.gateway6),
            gateways,
            "of the endpoint's own subnets"
        );
        assert!(!l2.device_default);
        for mode in ["l3", "l3s"] {
            let l3 = plan(&format!(
                "-o parent=eth0 -o ipvlan_mode={mode} --gateway=10.0.1.1"
            ));
            assert_eq!((l3.gateway4, l3.gateway6), (None, None));
            assert!(l3.device_default);
        }
        for internal in [
            "",
            "--internal -o parent=eth0 --gateway=10.0.1.1",
            "--internal -o parent=eth0 -o ipvlan_mode=l3",
        ] {
            let none = plan(internal);
            assert_eq!((none.gateway4, none.gateway6), (None, None), "{internal}");
            assert!(!none.device_default, "{internal}");
        }
        let only_v4 = network("-o parent=eth0 n", &host()).address_plan(ip("172.18.0.2"), None);
        assert_eq!((only_v4.v6, only_v4.gateway6), (None, None));
        assert_eq!(only_v4.gateway4, ip("172.18.0.1"));
    }

    #[test]
    fn pools_by_address_and_family() {
        let line = "--ipv6 --subnet=10.0.0.0/24 --subnet=10.0.1.0/24 --subnet=fd00::/64 n";
        let net = network(line, &host());
        let of = |a: &str| {
            net.pool_of(a.parse().unwrap())
                .map(|p| p.subnet.to_string())
        };
        assert_eq!(of("10.0.1.200"), Some("10.0.1.0/24".into()));
        assert_eq!(of("fd00::1"), Some("fd00::/64".into()));
        assert_eq!(of("10.0.2.1"), None);
        assert_eq!(net.pools_of(Family::V4).count(), 2);
        assert_eq!(net.pools_of(Family::V6).count(), 1);
    }

    #[test]
    fn a_network_is_stored_as_json() {
        let line = "--ipv6 -o parent=eth0.10 -o ipvlan_mode=l3s --label=a=b --mtu=1400 n";
        let net = network(line, &host());
        let text = serde_json::to_string(&net).unwrap();
        assert_eq!(serde_json::from_str::<Network>(&text).unwrap(), net);
    }
}
