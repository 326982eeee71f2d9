//! Results, in the shape of each version of the specification.

use std::net::IpAddr;
use std::path::Path;
use std::str::FromStr;

use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::Result;
use super::error::{Code, Error};
use crate::kernel::Link;
use crate::model::ipam::Family;
use crate::model::{self, AddressPlan};
use crate::store::EndpointRow;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
#[allow(non_camel_case_types)]
pub(super) enum Version {
    V0_3_0,
    V0_3_1,
    V0_4_0,
    V1_0_0,
    #[default]
    V1_1_0,
}

impl Version {
    pub const ALL: [Self; 5] = [
        Self::V0_3_0,
        Self::V0_3_1,
        Self::V0_4_0,
        Self::V1_0_0,
        Self::V1_1_0,
    ];

    pub fn text(self) -> &'static str {
        match self {
            Self::V0_3_0 => "0.3.0",
            Self::V0_3_1 => "0.3.1",
            Self::V0_4_0 => "0.4.0",
            Self::V1_0_0 => "1.0.0",
            Self::V1_1_0 => "1.1.0",
        }
    }
}

impl FromStr for Version {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let found = Self::ALL.into_iter().find(|version| version.text() == text);
        found.ok_or_else(|| {
            Error::new(
                Code::IncompatibleVersion,
                format!(
                    "invalid cniVersion {text:?}: it is one of {}",
                    Self::ALL.map(Self::text).join(", ")
                ),
            )
        })
    }
}

/// A result, of this plugin or another. What only others know is kept as it is.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Success {
    #[serde(default)]
    pub interfaces: Vec<Interface>,
    #[serde(default)]
    pub ips: Vec<Ip>,
    #[serde(default)]
    pub routes: Vec<Route>,
    #[serde(default)]
    pub dns: Option<Value>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Interface {
    pub name: String,
    /// Empty where the interface is the host's.
    #[serde(default)]
    pub sandbox: String,
    #[serde(flatten)]
    more: Map<String, Value>,
}

impl Interface {
    pub fn inside(name: &str, link: &Link, netns: &Path) -> Self {
        let mut more = Map::new();
        if let Some(mac) = link.mac_text() {
            more.insert("mac".into(), mac.into());
        }
        more.insert("mtu".into(), link.view.mtu.into());
        Self {
            name: name.to_owned(),
            sandbox: netns.display().to_string(),
            more,
        }
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Ip {
    pub address: IpNetwork,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<IpAddr>,
    /// Position in `interfaces`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<usize>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Route {
    dst: IpNetwork,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    gw: Option<IpAddr>,
    /// Metrics and the like of later versions.
    #[serde(flatten)]
    more: Map<String, Value>,
}

impl From<model::Route> for Route {
    fn from(route: model::Route) -> Self {
        Self {
            dst: route.to,
            gw: route.via,
            more: Map::new(),
        }
    }
}

impl Success {
    pub fn addressing(self) -> Addressing {
        Addressing {
            ips: self.ips,
            routes: self.routes,
            dns: self.dns,
        }
    }

    /// In the shape that this version of the specification has.
    pub fn to_json(&self, version: Version) -> Value {
        let mut json = json!(self);
        json["cniVersion"] = version.text().into();
        if json["dns"].is_null() {
            json["dns"] = json!({});
        }
        let items = |json: &mut Value, key: &str, change: &dyn Fn(&mut Map<String, Value>)| {
            let list = json[key].as_array_mut().into_iter().flatten();
            list.filter_map(Value::as_object_mut).for_each(change);
        };
        items(&mut json, "interfaces", &|interface| {
            if interface["sandbox"] == "" {
                interface.remove("sandbox");
            }
            if version < Version::V1_1_0 {
                interface.remove("mtu");
            }
        });
        if version < Version::V1_0_0 {
            items(&mut json, "ips", &|ip| {
                let text = ip["address"].as_str().unwrap_or_default();
                let family = if text.contains(':') { "6" } else { "4" };
                ip.insert("version".into(), family.into());
            });
        }
        json
    }

    /// What of this result, which `ADD` gave, the endpoint does not have.
    pub fn differences(&self, row: &EndpointRow) -> Vec<String> {
        let Some(position) = self
            .interfaces
            .iter()
            .position(|interface| interface.name == row.ifname && !interface.sandbox.is_empty())
        else {
            return vec![format!("prevResult has no interface {}", row.ifname)];
        };
        let has = |address| row.addresses.v4 == Some(address) || row.addresses.v6 == Some(address);
        self.ips
            .iter()
            .filter(|ip| ip.interface == Some(position) && !has(ip.address))
            .map(|ip| format!("{} was not given the address {}", row.ifname, ip.address))
            .collect()
    }
}

/// The part of a result that IPAM decides.
#[derive(Debug, Clone)]
pub(super) struct Addressing {
    pub ips: Vec<Ip>,
    pub routes: Vec<Route>,
    pub dns: Option<Value>,
}

impl Addressing {
    /// What the endpoint sets up. Routes go by the gateway of their family where they name none,
    /// as the reference plugins have it.
    pub fn plan(&self) -> Result<AddressPlan> {
        let mut plan = AddressPlan::default();
        for ip in &self.ips {
            let place = match Family::of(&ip.address) {
                Family::V4 => &mut plan.v4,
                Family::V6 => &mut plan.v6,
            };
            if let Some(before) = place.replace(ip.address) {
                return Err(Error::new(
                    Code::Config,
                    format!(
                        "invalid IPAM address {}: the endpoint has {before} already; it gets one \
                         IPv4 and one IPv6 address",
                        ip.address
                    ),
                ));
            }
        }
        for route in &self.routes {
            plan.routes.push(self.route(route)?);
        }
        Ok(plan)
    }

    pub fn has_route(&self, route: &Route) -> bool {
        let mut own = self.routes.iter();
        own.any(|own| (own.dst, own.gw) == (route.dst, route.gw))
    }

    fn route(&self, route: &Route) -> Result<model::Route> {
        let metric = route.more.iter().find(|(_, value)| !is_zero(value));
        if let Some((key, value)) = metric {
            return Err(Error::new(
                Code::UnsupportedField,
                format!("invalid route {key} {value}: a route has dst and gw"),
            ));
        }
        let family = Family::of(&route.dst);
        let to = IpNetwork::new(route.dst.network(), route.dst.prefix())
            .map_err(|error| Error::invalid("route dst", route.dst, &error.to_string()))?;
        let gateway = self
            .ips
            .iter()
            .filter(|ip| Family::of(&ip.address) == family)
            .find_map(|ip| ip.gateway);
        let via = route.gw.or(gateway).filter(|via| !via.is_unspecified());
        match via {
            Some(via) if via.is_ipv4() != (family == Family::V4) => Err(Error::invalid(
                "route gw",
                via,
                "it is of the family of dst",
            )),
            via => Ok(model::Route { to, via }),
        }
    }
}

fn is_zero(value: &Value) -> bool {
    value.is_null() || value.as_u64() == Some(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn result(value: Value) -> Success {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn each_version_has_its_shape() {
        let result = result(json!({
            "interfaces": [
                {"name": "br0", "mac": "02:00:00:00:00:01"},
                {"name": "eth0", "sandbox": "/run/netns/x", "mtu": 1500},
            ],
            "ips": [{"address": "10.0.0.5/24", "interface": 1}, {"address": "fd00::5/64"}],
        }));
        let new = result.to_json(Version::V1_1_0);
        assert_eq!(new["cniVersion"], "1.1.0");
        assert_eq!(new["interfaces"][1]["mtu"], 1500);
        assert!(new["interfaces"][0].get("sandbox").is_none());
        assert!(new["ips"][0].get("version").is_none());
        let old = result.to_json(Version::V0_4_0);
        assert_eq!(old["ips"][0]["version"], "4");
        assert_eq!(old["ips"][1]["version"], "6");
        assert!(old["interfaces"][1].get("mtu").is_none());
        assert!("0.2.0".parse::<Version>().is_err());
    }

    #[test]
    fn routes_go_by_the_gateway_of_their_family() {
        let addressing = result(json!({
            "ips": [
                {"address": "10.0.0.5/24", "gateway": "10.0.0.1"},
                {"address": "fd00::5/64", "gateway": "fd00::1"},
            ],
            "routes": [
                {"dst": "0.0.0.0/0"},
                {"dst": "10.9.0.7/16", "gw": "10.0.0.2"},
                {"dst": "::/0", "priority": 0},
            ],
        }))
        .addressing();
        let plan = addressing.plan().unwrap();
        let shown: Vec<String> = plan
            .all_routes()
            .iter()
            .map(|route| format!("{} {}", route.to, route.via.unwrap()))
            .collect();
        assert_eq!(
            shown,
            ["0.0.0.0/0 10.0.0.1", "10.9.0.0/16 10.0.0.2", "::/0 fd00::1"]
        );
    }

    #[test]
    fn what_an_endpoint_cannot_have_is_refused() {
        for (value, word) in [
            (
                json!({"ips": [{"address": "10.0.0.5/24"}, {"address": "10.0.1.5/24"}]}),
                "10.0.1.5/24",
            ),
            (
                json!({"ips": [], "routes": [{"dst": "0.0.0.0/0", "mtu": 1400}]}),
                "mtu 1400",
            ),
            (
                json!({"ips": [], "routes": [{"dst": "0.0.0.0/0", "gw": "fd00::1"}]}),
                "fd00::1",
            ),
        ] {
            let error = result(value).addressing().plan().unwrap_err();
            assert!(error.message.contains(word), "{error}");
        }
    }
}
