//! The network configuration on standard input.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::Result;
use super::call::NO_MAC;
use super::delegate::DHCP;
use super::error::{Code, Error};
use super::result::{Addressing, Interface, Success, Version};
use crate::model::CreateRequest;

/// The IPAM type that means our own.
const OWN_IPAM: &str = "ipvlan-ctl";

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum IpamChoice {
    Ours,
    Delegated(String),
    /// Ours too, unless the plugin before has given addresses.
    None,
}

/// What every command needs. The rest may be anything: a `DEL` must not fail because of a field
/// that `ADD` would refuse.
#[derive(Debug)]
pub(super) struct Head {
    pub version: Version,
    pub name: String,
    pub ipam: IpamChoice,
    attachments: Option<Value>,
}

impl Head {
    pub fn parse(input: &[u8]) -> Result<Self> {
        let mut fields = Fields::of(input)?;
        // The specification's default, which no one writes any more.
        let version: Option<String> = fields.take("cniVersion")?;
        let version = version.as_deref().unwrap_or("0.1.0").parse()?;
        let name: Option<String> = fields.take("name")?;
        let name = name
            .filter(|name| !name.is_empty())
            .ok_or_else(|| Error::invalid("name", "\"\"", "the network needs one"))?;
        let valid = fields.0.remove("cni.dev/valid-attachments");
        let bugged = fields.0.remove("cni.dev/attachments");
        Ok(Self {
            version,
            name,
            ipam: match fields.ipam()?.kind.as_deref() {
                None | Some("") => IpamChoice::None,
                Some(OWN_IPAM) => IpamChoice::Ours,
                Some(other) => IpamChoice::Delegated(other.to_owned()),
            },
            attachments: valid.or(bugged),
        })
    }

    /// Containers and interfaces that `GC` is to leave.
    pub fn valid_attachments(&self) -> Result<Vec<(String, String)>> {
        #[derive(Deserialize)]
        struct Attachment {
            #[serde(rename = "containerID")]
            container: String,
            ifname: String,
        }
        const FIELD: &str = "cni.dev/valid-attachments";
        let list = self
            .attachments
            .clone()
            .ok_or_else(|| Error::invalid(FIELD, "\"\"", "GC needs the list of what is to stay"))?;
        let list: Vec<Attachment> = serde_json::from_value(list.clone())
            .map_err(|error| Error::invalid(FIELD, list, &error.to_string()))?;
        Ok(list
            .into_iter()
            .map(|attachment| (attachment.container, attachment.ifname))
            .collect())
    }
}

#[derive(Debug, Default, Deserialize)]
struct IpamConf {
    #[serde(rename = "type")]
    kind: Option<String>,
    #[serde(flatten)]
    more: Map<String, Value>,
}

/// A subnet of our own IPAM.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Subnet {
    subnet: String,
    gateway: Option<String>,
    /// Where addresses are taken from.
    range: Option<String>,
    /// Addresses that are someone else's, by name.
    #[serde(default)]
    reserved: BTreeMap<String, String>,
}

/// The whole configuration of a network.
#[derive(Debug, Default)]
pub(super) struct Conf {
    master: Option<String>,
    mode: Option<String>,
    flag: Option<String>,
    mtu: Option<u64>,
    internal: bool,
    host_access: bool,
    shared_parent: bool,
    pub link_in_container: bool,
    subnets: Vec<Subnet>,
    dns: Option<Value>,
    aliases: Vec<String>,
    pub requested_addresses: Vec<IpAddr>,
    pub previous: Option<Success>,
}

impl Conf {
    /// Refuses fields that this plugin does not know: a misspelt `internal` must not pass.
    pub fn parse(input: &[u8]) -> Result<Self> {
        let mut fields = Fields::of(input)?;
        let name: Option<String> = fields.take("name")?;
        if fields.switch("ipMasq")? {
            return Err(Error::new(
                Code::UnsupportedField,
                "invalid ipMasq true: packets of ipvlan interfaces do not pass the host's netfilter",
            ));
        }
        let ipam = fields.ipam()?;
        let mut conf = Self {
            master: fields.text("master")?,
            mode: fields.text("mode")?,
            flag: fields.text("flag")?,
            mtu: fields.take("mtu")?,
            internal: fields.switch("internal")?,
            host_access: fields.switch("hostAccess")?,
            shared_parent: fields.switch("sharedParent")?,
            link_in_container: fields.switch("linkInContainer")?,
            dns: fields.take("dns")?,
            previous: fields.take("prevResult")?,
            ..Self::default()
        };
        if ipam.kind.as_deref() == Some(OWN_IPAM) {
            let mut own = Fields(ipam.more);
            conf.subnets = own.take("subnets")?.unwrap_or_default();
            own.end("ipam.")?;
        }
        if ipam.kind.as_deref() == Some(DHCP) {
            conf.check_dhcp()?;
        }
        conf.take_runtime(fields.take("runtimeConfig")?.unwrap_or_default(), name)?;
        for known in ["cniVersion", "type", "args", "capabilities", "ipam"] {
            fields.0.remove(known);
        }
        fields.0.retain(|key, _| !key.starts_with("cni.dev/"));
        fields.end("")?;
        Ok(conf)
    }

    /// A DHCP client speaks by broadcast, to a server whose subnet is not known before it answers.
    fn check_dhcp(&self) -> Result<()> {
        if let Some(mode) = self.mode.as_deref().filter(|mode| *mode != "l2") {
            let why = "with ipam.type dhcp it is l2: the others carry no broadcast";
            return Err(Error::invalid("mode", format!("{mode:?}"), why));
        }
        if self.internal {
            let why = "ipam.type dhcp asks outside the network's subnets; take host-local, static \
                       or ipvlan-ctl";
            return Err(Error::invalid("internal", true, why));
        }
        Ok(())
    }

    fn take_runtime(&mut self, runtime: Map<String, Value>, network: Option<String>) -> Result<()> {
        let unsupported = |key: &str, value: &Value, why: &str| {
            Err(Error::new(
                Code::UnsupportedField,
                format!("invalid runtimeConfig.{key} {value}: {why}"),
            ))
        };
        let mut runtime = Fields(runtime);
        if let Some(mac) = runtime.0.remove("mac").filter(|mac| mac != "") {
            return unsupported("mac", &mac, NO_MAC);
        }
        if let Some(bandwidth) = runtime.0.remove("bandwidth") {
            return unsupported(
                "bandwidth",
                &bandwidth,
                "this plugin does not shape traffic; chain the bandwidth plugin",
            );
        }
        // `ADDRESS` or `ADDRESS/PREFIX`, as in the conventions.
        let ips: Vec<String> = runtime.take("ips")?.unwrap_or_default();
        for ip in &ips {
            let address = ip
                .split_once('/')
                .map_or(ip.as_str(), |(address, _)| address);
            let address = address.parse().map_err(|_| {
                Error::invalid(
                    "runtimeConfig.ips",
                    format!("{ip:?}"),
                    "it is an address such as 192.168.1.10",
                )
            })?;
            self.requested_addresses.push(address);
        }
        let mut aliases: BTreeMap<String, Vec<String>> =
            runtime.take("aliases")?.unwrap_or_default();
        self.aliases = network
            .and_then(|network| aliases.remove(&network))
            .unwrap_or_default();
        runtime.end("runtimeConfig.")
    }

    /// Does the configuration say what the network is on? An internal network needs no master.
    pub fn names_parent(&self) -> bool {
        self.master.is_some() || self.internal
    }

    /// A chained plugin's one interface, if it is where the master is to be.
    pub fn previous_master(&self) -> Option<String> {
        match self.previous.as_ref()?.interfaces.as_slice() {
            [one] if one.sandbox.is_empty() != self.link_in_container => Some(one.name.clone()),
            _ => None,
        }
    }

    /// The addresses of the plugin before, where the configuration has no `ipam`.
    pub fn previous_addressing(&self, head: &Head) -> Option<Addressing> {
        let previous = self.previous.as_ref()?;
        let chained = head.ipam == IpamChoice::None && !previous.ips.is_empty();
        chained.then(|| previous.clone().addressing())
    }

    /// The request that makes the network, without its name.
    pub fn network_request(&self) -> CreateRequest {
        let option = |key: &str, value: &Option<String>| {
            value.as_ref().map(|value| format!("{key}={value}"))
        };
        let switch = |key: &str, on: bool| on.then(|| format!("{key}=true"));
        let is_v6 = |subnet: &Subnet| subnet.subnet.contains(':');
        let v6 = self.subnets.iter().any(is_v6);
        CreateRequest {
            internal: self.internal,
            ipv4: (v6 && self.subnets.iter().all(is_v6)).then_some(false),
            ipv6: v6,
            subnets: self.subnets.iter().map(|s| s.subnet.clone()).collect(),
            gateways: self
                .subnets
                .iter()
                .filter_map(|s| s.gateway.clone())
                .collect(),
            ip_ranges: self
                .subnets
                .iter()
                .filter_map(|s| s.range.clone())
                .collect(),
            aux_addresses: self
                .subnets
                .iter()
                .flat_map(|s| &s.reserved)
                .map(|(name, address)| format!("{name}={address}"))
                .collect(),
            options: [
                option("parent", &self.master),
                option("ipvlan_mode", &self.mode),
                option("ipvlan_flag", &self.flag),
                switch("host_access", self.host_access),
                switch("shared_parent", self.shared_parent),
                switch("link_in_container", self.link_in_container),
            ]
            .into_iter()
            .flatten()
            .collect(),
            // 0 is the reference plugin's word for the master's.
            mtu: self.mtu.filter(|mtu| *mtu != 0).map(|mtu| mtu.to_string()),
            ..CreateRequest::default()
        }
    }

    /// Names beside the container's id: those of the runtime, and the pod's.
    pub fn aliases(&self, pod: Option<&str>) -> Vec<String> {
        let mut aliases = self.aliases.clone();
        aliases.extend(pod.map(str::to_owned));
        aliases
    }

    /// The result of `ADD`: what the plugins before had, and the interface with its addresses.
    pub fn result(&self, interface: Interface, addressing: Addressing) -> Success {
        let mut result = self.previous.clone().unwrap_or_default();
        let position = result.interfaces.len();
        result.interfaces.push(interface);
        // Addresses and routes taken over from before are this interface's now.
        let is_new = |ip: &super::Ip| addressing.ips.iter().all(|own| own.address != ip.address);
        result.ips.retain(is_new);
        result.routes.retain(|route| !addressing.has_route(route));
        result.ips.extend(addressing.ips.into_iter().map(|mut ip| {
            ip.interface = Some(position);
            ip
        }));
        result.routes.extend(addressing.routes);
        result.dns = self.dns.clone().or(addressing.dns).or(result.dns);
        result
    }
}

/// The fields of an object that have not been taken yet.
struct Fields(Map<String, Value>);

impl Fields {
    fn of(input: &[u8]) -> Result<Self> {
        match serde_json::from_slice(input) {
            Ok(Value::Object(fields)) => Ok(Self(fields)),
            Ok(_) => Err(Error::new(
                Code::Decode,
                "the network configuration on stdin is not a JSON object",
            )),
            Err(error) => Err(Error::new(
                Code::Decode,
                format!("the network configuration on stdin: {error}"),
            )),
        }
    }

    /// `null` counts as left out.
    fn take<T: DeserializeOwned>(&mut self, key: &str) -> Result<Option<T>> {
        match self.0.remove(key) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => match serde_json::from_value(value.clone()) {
                Ok(value) => Ok(Some(value)),
                Err(error) => Err(Error::invalid(key, value, &error.to_string())),
            },
        }
    }

    /// An empty text counts as left out.
    fn text(&mut self, key: &str) -> Result<Option<String>> {
        Ok(self.take(key)?.filter(|text: &String| !text.is_empty()))
    }

    fn switch(&mut self, key: &str) -> Result<bool> {
        Ok(self.take(key)?.unwrap_or(false))
    }

    fn ipam(&mut self) -> Result<IpamConf> {
        Ok(self.take("ipam")?.unwrap_or_default())
    }

    fn end(&self, path: &str) -> Result<()> {
        match self.0.iter().next() {
            None => Ok(()),
            Some((key, value)) => Err(Error::new(
                Code::UnsupportedField,
                format!("invalid {path}{key} {value}: there is no such field"),
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn conf(more: Value) -> Result<Conf> {
        let mut conf = json!({"cniVersion": "1.1.0", "name": "n", "type": "ipvlan-ctl-cni"});
        for (key, value) in more.as_object().unwrap() {
            conf[key] = value.clone();
        }
        Conf::parse(conf.to_string().as_bytes())
    }

    #[test]
    fn the_fields_become_a_request() {
        let conf = conf(json!({
            "master": "eth1", "mode": "l3s", "mtu": 1400, "hostAccess": true,
            "sharedParent": true, "internal": true, "linkInContainer": false,
            "ipam": {"type": "ipvlan-ctl", "subnets": [
                {"subnet": "10.1.0.0/16", "gateway": "10.1.0.1", "range": "10.1.4.0/24",
                 "reserved": {"nas": "10.1.0.9"}},
                {"subnet": "fd00::/64"},
            ]},
            "capabilities": {"ips": true}, "args": {"any": "thing"},
            "runtimeConfig": {"ips": ["10.1.0.7/16", "fd00::7"], "aliases": {"n": ["web"]}},
        }))
        .unwrap();
        let request = conf.network_request();
        assert_eq!(
            request.options,
            [
                "parent=eth1",
                "ipvlan_mode=l3s",
                "host_access=true",
                "shared_parent=true"
            ]
        );
        assert_eq!(request.mtu.as_deref(), Some("1400"));
        assert_eq!(request.subnets, ["10.1.0.0/16", "fd00::/64"]);
        assert_eq!(request.aux_addresses, ["nas=10.1.0.9"]);
        assert!(request.internal && request.ipv6 && request.ipv4.is_none());
        assert_eq!(conf.requested_addresses.len(), 2);
        assert_eq!(conf.aliases(Some("web-0")), ["web", "web-0"]);
    }

    #[test]
    fn what_cannot_be_is_refused_by_name_and_value() {
        for (more, code, words) in [
            (
                json!({"intrenal": true}),
                Code::UnsupportedField,
                ["intrenal", "true"],
            ),
            (json!({"mtu": "big"}), Code::Config, ["mtu", "big"]),
            (
                json!({"ipMasq": true}),
                Code::UnsupportedField,
                ["ipMasq", "true"],
            ),
            (
                json!({"runtimeConfig": {"mac": "02:00:00:00:00:01"}}),
                Code::UnsupportedField,
                ["mac", "02:00:00:00:00:01"],
            ),
            (
                json!({"runtimeConfig": {"bandwidth": {"ingressRate": 8}}}),
                Code::UnsupportedField,
                ["bandwidth", "ingressRate"],
            ),
            (
                json!({"runtimeConfig": {"ips": ["x"]}}),
                Code::Config,
                ["ips", "x"],
            ),
            (
                json!({"ipam": {"type": "ipvlan-ctl", "subnet": "10.0.0.0/8"}}),
                Code::UnsupportedField,
                ["ipam.subnet", "10.0.0.0/8"],
            ),
        ] {
            let error = conf(more).unwrap_err();
            assert_eq!(error.code, code, "{error}");
            for word in words {
                assert!(error.message.contains(word), "{error}");
            }
        }
    }

    #[test]
    fn the_head_takes_what_the_whole_would_refuse() {
        let head = |text: &str| Head::parse(text.as_bytes());
        let good = head(r#"{"cniVersion":"0.4.0","name":"n","intrenal":true}"#).unwrap();
        assert_eq!(good.version, Version::V0_4_0);
        assert_eq!(good.ipam, IpamChoice::None);
        for (text, code) in [
            ("", Code::Decode),
            ("[]", Code::Decode),
            (
                r#"{"cniVersion":"9.9.9","name":"n"}"#,
                Code::IncompatibleVersion,
            ),
            (r#"{"name":"n"}"#, Code::IncompatibleVersion),
            (r#"{"cniVersion":"1.0.0"}"#, Code::Config),
            (
                r#"{"cniVersion":"1.0.0","name":"n","ipam":7}"#,
                Code::Config,
            ),
        ] {
            assert_eq!(head(text).unwrap_err().code, code, "{text}");
        }
        assert!(
            good.valid_attachments().is_err(),
            "no list is not an empty list"
        );
    }

    #[test]
    fn the_master_before_is_where_it_is_to_be() {
        for (inside, sandbox, found) in [
            (false, "", true),
            (false, "/run/netns/pod", false),
            (true, "", false),
            (true, "/run/netns/pod", true),
        ] {
            let conf = conf(json!({
                "linkInContainer": inside,
                "prevResult": {"interfaces": [{"name": "net1", "sandbox": sandbox}]},
            }))
            .unwrap();
            assert_eq!(
                conf.previous_master().is_some(),
                found,
                "{inside} {sandbox:?}"
            );
        }
    }

    #[test]
    fn dhcp_needs_broadcast_and_a_server_outside() {
        let dhcp = |more: Value| {
            let mut all = json!({"ipam": {"type": "dhcp"}});
            for (key, value) in more.as_object().unwrap() {
                all[key] = value.clone();
            }
            conf(all)
        };
        dhcp(json!({})).unwrap();
        dhcp(json!({"mode": "l2"})).unwrap();
        for (more, word) in [
            (json!({"mode": "l3"}), "mode"),
            (json!({"mode": "l3s"}), "mode"),
            (json!({"internal": true}), "internal"),
        ] {
            let error = dhcp(more).unwrap_err();
            assert!(error.message.contains(word), "{error}");
        }
    }

    #[test]
    fn a_chain_keeps_what_was_before() {
        let conf = conf(json!({"prevResult": {
            "interfaces": [{"name": "eth1", "mac": "02:00:00:00:00:01"}],
            "ips": [{"address": "10.0.0.5/24", "gateway": "10.0.0.1"}],
            "routes": [{"dst": "0.0.0.0/0"}],
        }}))
        .unwrap();
        assert_eq!(conf.previous_master().as_deref(), Some("eth1"));
        let head = Head::parse(br#"{"cniVersion":"1.0.0","name":"n"}"#).unwrap();
        let addressing = conf.previous_addressing(&head).unwrap();
        let interface = serde_json::from_value(json!({"name": "eth0", "sandbox": "/x"})).unwrap();
        let result = conf.result(interface, addressing).to_json(Version::V1_0_0);
        assert_eq!(result["interfaces"][1]["name"], "eth0");
        assert_eq!(result["ips"].as_array().unwrap().len(), 1);
        assert_eq!(result["ips"][0]["interface"], 1);
        assert_eq!(result["routes"].as_array().unwrap().len(), 1);
    }
}
