//! A netavark plugin, which Podman's networks of another driver are made by (netavark,
//! `plugin-API.md`): a verb, the path of a namespace, and JSON on standard input and output.
//!
//! A network of Podman's is a network of ours with its name, made when a container first needs it
//! and removed with the last one, since Podman does not tell when it removes its own. So nothing
//! is kept here.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::Subcommand;
use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::engine::{ConnectRequest, Engine, EngineError};
use crate::model::{CreateRequest, DOOR_LABEL, Invalid, Network};
use crate::store::EndpointRow;

/// The value of [`DOOR_LABEL`] on the networks that Podman made.
const DOOR: &str = "podman";

/// The verbs of the plugin API.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Complete the configuration of a network
    #[command(after_help = "Example:\n  ipvlan-ctl netavark create <network.json")]
    Create,
    /// Give a container its interface
    #[command(after_help = "Example:\n  ipvlan-ctl netavark setup /run/netns/ipv1 <container.json")]
    Setup { netns: PathBuf },
    /// Take it away
    #[command(
        after_help = "Example:\n  ipvlan-ctl netavark teardown /run/netns/ipv1 <container.json"
    )]
    Teardown { netns: PathBuf },
    /// Print the versions of the plugin and of the API
    #[command(after_help = "Example:\n  ipvlan-ctl netavark info")]
    Info,
}

/// Does what the verb and standard input ask for, and prints the result or the error as JSON.
pub fn main(
    verb: Verb,
    with_engine: impl FnOnce(Work) -> anyhow::Result<Option<Value>>,
) -> ExitCode {
    let (output, code) = match run(verb, with_engine) {
        Ok(None) => return ExitCode::SUCCESS,
        Ok(Some(value)) => (value, ExitCode::SUCCESS),
        Err(error) => {
            let error = format!("{error:#}").replace('\n', " ");
            (json!({ "error": error }), ExitCode::FAILURE)
        }
    };
    match writeln!(io::stdout().lock(), "{output}") {
        Ok(()) => code,
        Err(_) => ExitCode::FAILURE,
    }
}

fn run(
    verb: Verb,
    with_engine: impl FnOnce(Work) -> anyhow::Result<Option<Value>>,
) -> anyhow::Result<Option<Value>> {
    let asked = match verb {
        Verb::Info => {
            return Ok(Some(json!({
                "version": env!("CARGO_PKG_VERSION"),
                "api_version": "1.0.0",
            })));
        }
        Verb::Create => Asked::Create(read()?),
        Verb::Setup { netns } => Asked::Setup(read()?, netns),
        Verb::Teardown { netns } => Asked::Teardown(read()?, netns),
    };
    with_engine(Work(asked))
}

fn read<T: for<'de> Deserialize<'de>>() -> anyhow::Result<T> {
    let mut input = Vec::new();
    io::stdin()
        .lock()
        .read_to_end(&mut input)
        .context("standard input")?;
    serde_json::from_slice(&input).context("the configuration on standard input")
}

/// A call that can be read.
#[derive(Debug)]
pub struct Work(Asked);

#[derive(Debug)]
enum Asked {
    Create(Config),
    Setup(Container<Config>, PathBuf),
    Teardown(Container<Named>, PathBuf),
}

impl Work {
    /// Does the work. Returns what is to be printed.
    pub async fn run(self, engine: &Engine) -> anyhow::Result<Option<Value>> {
        Ok(match self.0 {
            Asked::Create(config) => Some(create(engine, config).await?),
            Asked::Setup(container, netns) => Some(setup(engine, container, netns).await?),
            Asked::Teardown(container, netns) => {
                teardown(engine, &container.network.name, &netns.to_string_lossy()).await?;
                None
            }
        })
    }
}

/// What `setup` and `teardown` are given. `teardown` needs no more of the network than its name:
/// it must not fail because of what `setup` would refuse.
#[derive(Debug, Deserialize)]
struct Container<N> {
    container_name: String,
    network: N,
    network_options: ContainerOptions,
}

#[derive(Debug, Deserialize)]
struct Named {
    name: String,
}

#[derive(Debug, Deserialize)]
struct ContainerOptions {
    interface_name: String,
    #[serde(default)]
    static_ips: Option<Vec<IpAddr>>,
    #[serde(default)]
    static_mac: Option<String>,
    #[serde(default)]
    options: Option<BTreeMap<String, String>>,
}

/// A network's configuration. What only Podman knows is kept as it is.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Config {
    name: String,
    /// The parent, by Podman's `--interface-name`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    network_interface: Option<String>,
    #[serde(default)]
    subnets: Option<Vec<Subnet>>,
    #[serde(default)]
    ipv6_enabled: bool,
    #[serde(default)]
    internal: bool,
    #[serde(default)]
    dns_enabled: bool,
    #[serde(default)]
    options: Option<BTreeMap<String, String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ipam_options: Option<BTreeMap<String, String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    routes: Option<Vec<Value>>,
    #[serde(flatten)]
    more: Map<String, Value>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Subnet {
    subnet: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    gateway: Option<String>,
    /// Such as the range that Podman takes its addresses from.
    #[serde(flatten)]
    more: Map<String, Value>,
}

/// Says what the network will be; it is made when a container needs it.
async fn create(engine: &Engine, mut config: Config) -> anyhow::Result<Value> {
    let plan = engine.plan_network(&config.request()?).await;
    let network = plan.map_err(|error| config.in_its_words(error))?.network;
    for subnet in config.subnets.iter_mut().flatten() {
        let pool = network
            .pools
            .iter()
            .find(|pool| pool.subnet.to_string() == subnet.subnet);
        subnet.gateway = pool
            .and_then(|pool| pool.gateway)
            .map(|gateway| gateway.to_string());
    }
    config.ipv6_enabled = network.ipv6;
    config.internal = network.internal;
    // Of the names on this network nobody answers.
    config.dns_enabled = false;
    Ok(json!(config))
}

async fn setup(
    engine: &Engine,
    container: Container<Config>,
    netns: PathBuf,
) -> anyhow::Result<Value> {
    let (ip, ip6) = container.network_options.addresses()?;
    let config = container.network;
    let connect = ConnectRequest {
        netns,
        name: Some(container.container_name),
        ip,
        ip6,
        ifname: Some(container.network_options.interface_name),
        ..ConnectRequest::default()
    };
    let joined = match engine.join(&config.request()?, &connect).await {
        Ok(joined) => joined,
        Err(error) => {
            // It may have been made for this container.
            let undone = remove_if_idle(engine, &config.name).await;
            let error = anyhow::Error::from(config.in_its_words(error));
            return Err(match undone {
                Ok(()) => error,
                Err(undo) => error.context(format!("taking it back failed too: {undo}")),
            });
        }
    };
    let mac = joined.link.mac_text();
    Ok(status(&joined.network, &joined.endpoint, mac))
}

/// Succeeds where there is nothing left.
async fn teardown(engine: &Engine, network: &str, netns: &str) -> anyhow::Result<()> {
    let Some(found) = engine.network_of_door(network, DOOR)? else {
        return Ok(());
    };
    match engine.disconnect(found.id.as_str(), netns, false).await {
        Ok(()) | Err(EngineError::NoEndpoint { .. } | EngineError::Find(_)) => {}
        Err(error) => return Err(error.into()),
    }
    Ok(remove_if_idle(engine, network).await?)
}

async fn remove_if_idle(engine: &Engine, network: &str) -> Result<(), EngineError> {
    let Some(network) = engine.network_of_door(network, DOOR)? else {
        return Ok(());
    };
    match engine.remove_network(network.id.as_str(), false).await {
        Ok(_)
        // Another container is on it, or its own call removes it.
        | Err(EngineError::InUse { .. } | EngineError::NetworkBusy(_) | EngineError::Find(_)) => {
            Ok(())
        }
        Err(error) => Err(error),
    }
}

fn status(network: &Network, row: &EndpointRow, mac: Option<String>) -> Value {
    let plan = &row.addresses;
    let subnet = |address: IpNetwork| {
        let gateway = network.pool_of(address.ip()).and_then(|pool| pool.gateway);
        json!({ "ipnet": address, "gateway": gateway })
    };
    let addresses = [plan.v4, plan.v6].into_iter().flatten();
    let subnets: Vec<Value> = addresses.map(subnet).collect();
    let interface = json!({ "mac_address": mac.unwrap_or_default(), "subnets": subnets });
    json!({
        "dns_search_domains": [],
        "dns_server_ips": [],
        "interfaces": { row.ifname.as_str(): interface },
    })
}

impl ContainerOptions {
    /// The addresses that Podman gave, one of each family at most.
    fn addresses(&self) -> Result<(Option<Ipv4Addr>, Option<Ipv6Addr>), Invalid> {
        if let Some(mac) = &self.static_mac {
            let allowed = "leave it out; ipvlan interfaces have their parent's hardware address";
            return Err(Invalid::new("--mac-address", mac, allowed));
        }
        if let Some((key, value)) = self.options.iter().flatten().next() {
            let allowed = "there is no such option; ip and interface_name there are";
            return Err(Invalid::new(format!("--network {key}"), value, allowed));
        }
        let (mut v4, mut v6) = (None, None);
        for address in self.static_ips.iter().flatten() {
            let is_second = match address {
                IpAddr::V4(address) => v4.replace(*address).is_some(),
                IpAddr::V6(address) => v6.replace(*address).is_some(),
            };
            if is_second {
                let allowed = "a container has one IPv4 and one IPv6 address on a network";
                return Err(Invalid::new("--ip", address.to_string(), allowed));
            }
        }
        Ok((v4, v6))
    }
}

impl Config {
    fn request(&self) -> Result<CreateRequest, Invalid> {
        let subnets = self.subnets.as_deref().unwrap_or_default();
        let v6 = subnets.iter().filter(|subnet| subnet.subnet.contains(':'));
        let v6 = v6.count();
        self.check(subnets.is_empty(), v6 > 0)?;
        let mut mtu = None;
        let mut options: Vec<String> = Vec::new();
        options.extend(
            self.network_interface
                .iter()
                .map(|parent| format!("parent={parent}")),
        );
        for (key, value) in self.options.iter().flatten() {
            match key.as_str() {
                // As Podman's own ipvlan driver calls them.
                "mode" => options.push(format!("ipvlan_mode={value}")),
                "mtu" => mtu = Some(value.clone()),
                _ => options.push(format!("{key}={value}")),
            }
        }
        Ok(CreateRequest {
            name: self.name.clone(),
            internal: self.internal,
            ipv4: (v6 > 0 && v6 == subnets.len()).then_some(false),
            ipv6: v6 > 0,
            subnets: subnets.iter().map(|s| s.subnet.clone()).collect(),
            gateways: subnets.iter().filter_map(|s| s.gateway.clone()).collect(),
            options,
            labels: vec![format!("{DOOR_LABEL}={DOOR}")],
            mtu,
            ..CreateRequest::default()
        })
    }

    /// Refuses what Podman has words for and we have not.
    fn check(&self, no_subnet: bool, has_v6: bool) -> Result<(), Invalid> {
        let ipam = self.ipam_options.as_ref().and_then(|o| o.get("driver"));
        if let Some(driver) = ipam.filter(|driver| !matches!(driver.as_str(), "" | "host-local")) {
            let allowed = "it is host-local; an endpoint sends nothing before it has an address";
            return Err(Invalid::new("--ipam-driver", driver, allowed));
        }
        // Before a container runs, two networks could be given the same one.
        if no_subnet {
            return Err(Invalid::new("--subnet", "", "a network here needs one"));
        }
        if self.ipv6_enabled && !has_v6 {
            let allowed = "it needs an IPv6 --subnet, too";
            return Err(Invalid::new("--ipv6", "true", allowed));
        }
        let parent = self.options.as_ref().and_then(|given| given.get("parent"));
        if let (Some(interface), Some(parent)) = (&self.network_interface, parent)
            && interface != parent
        {
            let allowed = format!("--interface-name is \"{interface}\"; give one of them");
            return Err(Invalid::new("-o parent", parent, allowed));
        }
        match self.routes.iter().flatten().next() {
            Some(route) => {
                let allowed = "a network has the routes of its mode only; leave it out";
                Err(Invalid::new("--route", route.to_string(), allowed))
            }
            None => Ok(()),
        }
    }

    /// An error about a field that was given by Podman's name for it.
    fn in_its_words(&self, error: EngineError) -> EngineError {
        let EngineError::Invalid(mut bad) = error else {
            return error;
        };
        // By its value: a field may be given by our name for it, too.
        let mode = self.options.as_ref().and_then(|given| given.get("mode"));
        match bad.field.as_str() {
            "-o ipvlan_mode" if mode == Some(&bad.value) => bad.field = "-o mode".into(),
            "--mtu" => bad.field = "-o mtu".into(),
            "-o parent" if self.network_interface.as_ref() == Some(&bad.value) => {
                bad.field = "--interface-name".into();
            }
            _ => {}
        }
        EngineError::Invalid(bad)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(more: Value) -> Config {
        let mut config = json!({
            "name": "n", "id": "2f", "driver": "ipvlan-ctl",
            "subnets": [{"subnet": "10.0.0.0/24", "lease_range": {"start_ip": "10.0.0.9"}}],
        });
        for (key, value) in more.as_object().unwrap() {
            config[key] = value.clone();
        }
        serde_json::from_value(config).unwrap()
    }

    #[test]
    fn podmans_words_become_ours() {
        let request = config(json!({
            "network_interface": "eth1", "internal": true,
            "options": {"mode": "l3", "mtu": "1400", "host_access": "true"},
            "subnets": [{"subnet": "fd00::/64", "gateway": "fd00::9"}],
        }))
        .request()
        .unwrap();
        let options = ["parent=eth1", "host_access=true", "ipvlan_mode=l3"];
        assert_eq!(request.options, options);
        assert_eq!(request.mtu.as_deref(), Some("1400"));
        assert_eq!(request.gateways, ["fd00::9"]);
        assert!(request.internal && request.ipv6 && request.ipv4 == Some(false));
    }

    #[test]
    fn what_only_podman_knows_stays() {
        let config = json!(config(json!({"created": "2026-11-24T00:00:00Z"})));
        assert_eq!(config["id"], "2f");
        assert_eq!(config["created"], "2026-11-24T00:00:00Z");
        let subnet = &config["subnets"][0];
        assert_eq!(subnet["lease_range"]["start_ip"], "10.0.0.9");
    }

    #[test]
    fn what_cannot_be_is_refused_by_name_and_value() {
        for (more, field, value) in [
            (
                json!({"ipam_options": {"driver": "dhcp"}}),
                "--ipam-driver",
                "dhcp",
            ),
            (json!({"subnets": null}), "--subnet", ""),
            (json!({"ipv6_enabled": true}), "--ipv6", "true"),
            (
                json!({"routes": [{"destination": "10.9.0.0/16"}]}),
                "--route",
                r#"{"destination":"10.9.0.0/16"}"#,
            ),
            (
                json!({"network_interface": "eth1", "options": {"parent": "eth2"}}),
                "-o parent",
                "eth2",
            ),
        ] {
            let bad = config(more).request().unwrap_err();
            assert_eq!((bad.field.as_str(), bad.value.as_str()), (field, value));
        }
        for (options, field) in [
            (json!({"static_mac": "02:00:00:00:00:01"}), "--mac-address"),
            (json!({"options": {"vrf": "red"}}), "--network vrf"),
            (json!({"static_ips": ["10.0.0.1", "10.0.0.2"]}), "--ip"),
        ] {
            let mut all = options;
            all["interface_name"] = "eth0".into();
            let options: ContainerOptions = serde_json::from_value(all).unwrap();
            assert_eq!(options.addresses().unwrap_err().field, field);
        }
    }
}
