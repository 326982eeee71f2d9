//! What a network is.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

use super::address::Family;
use super::{Id, Pool};

/// ipvlan mode of the parent's port (`IFLA_IPVLAN_MODE`); one per parent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    #[default]
    L2,
    L3,
    L3s,
}

impl Mode {
    /// As `-o ipvlan_mode=` and `ip link` spell it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::L2 => "l2",
            Self::L3 => "l3",
            Self::L3s => "l3s",
        }
    }

    /// Does the kernel route between slaves (l3, l3s), rather than switch (l2)?
    pub fn is_l3(self) -> bool {
        self != Self::L2
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
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

impl Flag {
    /// As `-o ipvlan_flag=` and `ip link` spell it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Bridge => "bridge",
            Self::Private => "private",
            Self::Vepa => "vepa",
        }
    }
}

impl fmt::Display for Flag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
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
}

impl Parent {
    pub fn name(&self) -> &str {
        match self {
            Self::Existing { name } | Self::Vlan { name, .. } | Self::Dummy { name } => name,
        }
    }
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

impl Network {
    pub fn pools_of(&self, family: Family) -> impl Iterator<Item = &Pool> {
        self.pools.iter().filter(move |p| p.family() == family)
    }

    /// The pool whose subnet `address` lies in.
    pub fn pool_of(&self, address: IpAddr) -> Option<&Pool> {
        self.pools.iter().find(|pool| pool.subnet.contains(address))
    }

    /// Do endpoints get a default route by a gateway? So it is in l2, unless internal: there the
    /// gateway is the next hop on the wire; l3 and l3s route by the device.
    pub fn needs_gateway(&self) -> bool {
        self.mode == Mode::L2 && !self.internal
    }

    /// What an endpoint with these addresses, each in one of the pools, is given.
    pub fn address_plan(&self, v4: Option<IpAddr>, v6: Option<IpAddr>) -> AddressPlan {
        let with_prefix = |address: Option<IpAddr>| {
            let address = address?;
            let prefix = self.pool_of(address)?.subnet.prefix();
            Some(IpNetwork::new(address, prefix).expect("the prefix of a pool fits its family"))
        };
        let gateway = |address: Option<IpAddr>| {
            let gateway = self.pool_of(address?)?.gateway?;
            self.needs_gateway().then_some(gateway)
        };
        AddressPlan {
            v4: with_prefix(v4),
            v6: with_prefix(v6),
            gateway4: gateway(v4),
            gateway6: gateway(v6),
            device_default: self.mode.is_l3() && !self.internal,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::fixtures::{host, made};

    fn plan(line: &str) -> (Option<String>, Option<String>, Option<String>, bool) {
        let network = made(
            &format!(
                "n --ipv6 --subnet 10.1.0.0/24 --subnet 10.2.0.0/16 --subnet fd00::/64 {line}"
            ),
            &host(),
        );
        let plan = network.address_plan(
            Some("10.2.0.9".parse().unwrap()),
            Some("fd00::9".parse().unwrap()),
        );
        assert_eq!(plan.v6.unwrap().to_string(), "fd00::9/64");
        let text = |gateway: Option<IpAddr>| gateway.map(|g| g.to_string());
        (
            plan.v4.map(|v4| v4.to_string()),
            text(plan.gateway4),
            text(plan.gateway6),
            plan.device_default,
        )
    }

    #[test]
    fn l2_routes_by_the_gateway_of_the_endpoints_own_subnet() {
        let expected = (
            Some("10.2.0.9/16".into()),
            Some("10.2.0.1".into()),
            Some("fd00::1".into()),
            false,
        );
        assert_eq!(plan("-o parent=eth0"), expected);
    }

    #[test]
    fn l3_routes_by_the_device_even_with_a_gateway() {
        let expected = (Some("10.2.0.9/16".into()), None, None, true);
        assert_eq!(plan("-o parent=eth0 -o ipvlan_mode=l3"), expected);
        assert_eq!(
            plan("-o parent=eth0 -o ipvlan_mode=l3s --gateway 10.2.0.1"),
            expected
        );
    }

    #[test]
    fn an_internal_network_has_no_default_route() {
        let expected = (Some("10.2.0.9/16".into()), None, None, false);
        for line in [
            "",
            "-o ipvlan_mode=l3",
            "-o parent=eth0 --internal --gateway 10.2.0.1",
        ] {
            assert_eq!(plan(line), expected, "{line}");
        }
    }

    #[test]
    fn a_network_survives_its_stored_form() {
        let line = "n -o parent=eth0.5 -o ipvlan_mode=l3s --ipv6 --label a=b --mtu 1300 \
                    --subnet 10.1.0.0/24 --ip-range 10.1.0.0/28 --aux-address x=10.1.0.3";
        let network = made(line, &host());
        let text = serde_json::to_string(&network).unwrap();
        assert_eq!(serde_json::from_str::<Network>(&text).unwrap(), network);
    }
}
