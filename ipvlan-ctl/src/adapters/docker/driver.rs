//! The calls of the `NetworkDriver` protocol.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::str::FromStr;

use serde_json::{Map, Value, json};

use super::messages::{
    CreateEndpoint, CreateNetwork, EndpointOnly, InterfaceName, IpamData, Join, Joined,
    NetworkOnly, StaticRoute,
};
use super::{Answer, Call, ipam, told};
use crate::engine::{Engine, EngineError};
use crate::model::ipam::Family;
use crate::model::{CreateRequest, DOCKERS_DOOR, DOOR_LABEL, Id};

/// Where Docker puts what `-o` says.
const GENERIC: &str = "com.docker.network.generic";
/// What `--internal` says, beside it.
const INTERNAL: &str = "com.docker.network.internal";

/// Does what dockerd asks for.
pub async fn answer(engine: &Engine, call: &Call) -> Answer {
    let nothing = || Ok(json!({}));
    match call.method.as_str() {
        "NetworkDriver.GetCapabilities" => Ok(json!({
            "Scope": "local",
            "ConnectivityScope": "local",
        })),
        "NetworkDriver.CreateNetwork" => create_network(engine, call.read()?).await,
        "NetworkDriver.DeleteNetwork" => delete_network(engine, call.read()?).await,
        "NetworkDriver.CreateEndpoint" => create_endpoint(engine, call.read()?).await,
        "NetworkDriver.DeleteEndpoint" => delete_endpoint(engine, call.read()?).await,
        "NetworkDriver.Join" => join(engine, call.read()?),
        "NetworkDriver.EndpointOperInfo" => Ok(json!({ "Value": {} })),
        // Docker carries the link back by itself. Of ports and neighbours there is nothing to do.
        "NetworkDriver.Leave"
        | "NetworkDriver.DiscoverNew"
        | "NetworkDriver.DiscoverDelete"
        | "NetworkDriver.ProgramExternalConnectivity"
        | "NetworkDriver.RevokeExternalConnectivity" => nothing(),
        _ => Err(call.unknown()),
    }
}

async fn create_network(engine: &Engine, asked: CreateNetwork) -> Answer {
    let request = network_request(asked)?;
    match engine.create_network(&request).await {
        Ok(_) => Ok(json!({})),
        Err(error) => Err(told(error)),
    }
}

async fn delete_network(engine: &Engine, asked: NetworkOnly) -> Answer {
    match engine
        .remove_network(id(&asked.network)?.as_str(), true)
        .await
    {
        // What is gone is deleted.
        Ok(_) | Err(EngineError::Find(_)) => Ok(json!({})),
        Err(error) => Err(told(error)),
    }
}

async fn create_endpoint(engine: &Engine, asked: CreateEndpoint) -> Answer {
    let interface = asked.interface.unwrap_or_default();
    if !interface.mac.is_empty() {
        let mac = interface.mac;
        return Err(format!(
            "invalid --mac-address {mac}: ipvlan interfaces have their parent's"
        ));
    }
    let ip: Option<Ipv4Addr> = address("Address", &interface.v4)?;
    let ip6: Option<Ipv6Addr> = address("AddressIPv6", &interface.v6)?;
    let (network, endpoint) = (id(&asked.network)?, id(&asked.endpoint)?);
    match engine.prepare_endpoint(&network, &endpoint, ip, ip6).await {
        Ok(_) => Ok(json!({ "Interface": {} })),
        Err(error) => Err(told(error)),
    }
}

async fn delete_endpoint(engine: &Engine, asked: EndpointOnly) -> Answer {
    let (network, endpoint) = (id(&asked.network)?, id(&asked.endpoint)?);
    match engine
        .disconnect(network.as_str(), endpoint.as_str(), false)
        .await
    {
        Ok(()) | Err(EngineError::NoEndpoint { .. } | EngineError::Find(_)) => Ok(json!({})),
        Err(error) => Err(told(error)),
    }
}

fn join(engine: &Engine, asked: Join) -> Answer {
    let (network, endpoint) = (id(&asked.network)?, id(&asked.endpoint)?);
    let row = engine
        .expect_endpoint(&network, &endpoint, Path::new(&asked.sandbox))
        .map_err(told)?;
    let plan = &row.addresses;
    let by_device = |family: Family| StaticRoute {
        destination: family.everything().to_string(),
        route_type: StaticRoute::CONNECTED,
        next_hop: String::new(),
    };
    let families = [(plan.v4, Family::V4), (plan.v6, Family::V6)];
    let joined = Joined {
        gateway: plan.gateway4.map(|gateway| gateway.to_string()),
        gateway6: plan.gateway6.map(|gateway| gateway.to_string()),
        static_routes: families
            .into_iter()
            .filter(|(address, _)| plan.device_default && address.is_some())
            .map(|(_, family)| by_device(family))
            .collect(),
        interface_name: InterfaceName {
            src_name: row.ifname,
            dst_prefix: "eth",
        },
        disable_gateway_service: true,
    };
    Ok(json!(joined))
}

fn network_request(asked: CreateNetwork) -> Result<CreateRequest, String> {
    let id = id(&asked.network)?;
    let mut said = asked.options.unwrap_or_default();
    let internal = said.remove(INTERNAL) == Some(Value::Bool(true));
    let options = match said.remove(GENERIC) {
        Some(Value::Object(options)) => options,
        _ => Map::new(),
    };
    let (v4, v6) = (asked.v4.unwrap_or_default(), asked.v6.unwrap_or_default());
    let families = (!v4.is_empty(), !v6.is_empty());
    let pools: Vec<IpamData> = v4.into_iter().chain(v6).collect();
    Ok(CreateRequest {
        name: id.short().to_owned(),
        id: Some(id),
        promised: pools.iter().any(|pool| pool.address_space == ipam::SPACE),
        internal,
        ipv4: Some(families.0),
        ipv6: families.1,
        gateways: pools
            .iter()
            .filter_map(|pool| pool.gateway.as_deref())
            .filter(|gateway| !gateway.is_empty())
            .map(bare)
            .collect(),
        aux_addresses: pools
            .iter()
            .flat_map(|pool| pool.aux_addresses.iter().flatten())
            .map(|(name, address)| format!("{name}={}", bare(address)))
            .collect(),
        subnets: pools.into_iter().map(|pool| pool.pool).collect(),
        options: options
            .into_iter()
            .map(|(key, value)| match value {
                Value::String(value) => format!("{key}={value}"),
                other => format!("{key}={other}"),
            })
            .collect(),
        labels: vec![format!("{DOOR_LABEL}={DOCKERS_DOOR}")],
        ..CreateRequest::default()
    })
}

/// An address without the length of its prefix.
fn bare(address: &str) -> String {
    let bare = address.split_once('/').map_or(address, |(bare, _)| bare);
    bare.to_owned()
}

/// The address of an interface, which may have none.
fn address<T: FromStr>(field: &str, text: &str) -> Result<Option<T>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    match bare(text).parse() {
        Ok(address) => Ok(Some(address)),
        Err(_) => Err(format!("invalid {field} {text:?}: it is no such address")),
    }
}

fn id(text: &str) -> Result<Id, String> {
    Id::parse(text).ok_or_else(|| format!("invalid id {text:?}: it is 64 hexadecimal digits"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "7d86d31b1478e7cca9ebed7e73aa0fdeec46c5ca29497431d3007d2d9e15ed99";

    fn request(value: Value) -> Result<CreateRequest, String> {
        network_request(serde_json::from_value(value).unwrap())
    }

    #[test]
    fn docker_s_words_become_ours() {
        let request = request(json!({
            "NetworkID": ID,
            "Options": {
                "com.docker.network.enable_ipv6": true,
                "com.docker.network.internal": true,
                "com.docker.network.generic": {"parent": "eth1", "ipvlan_mode": "l3"},
            },
            "IPv4Data": [{
                "AddressSpace": "LocalDefault",
                "Pool": "192.168.1.0/24",
                "Gateway": "192.168.1.1/24",
                "AuxAddresses": {"nas": "192.168.1.9/24"},
            }],
            "IPv6Data": [{"AddressSpace": "LocalDefault", "Pool": "fd00::/64"}],
        }))
        .unwrap();
        assert_eq!(request.id.unwrap().as_str(), ID);
        assert_eq!(request.name, ID[..12]);
        assert!(request.internal && request.ipv6 && !request.promised);
        assert_eq!(request.ipv4, Some(true));
        assert_eq!(request.subnets, ["192.168.1.0/24", "fd00::/64"]);
        assert_eq!(request.gateways, ["192.168.1.1"]);
        assert_eq!(request.aux_addresses, ["nas=192.168.1.9"]);
        let mut options = request.options;
        options.sort();
        assert_eq!(options, ["ipvlan_mode=l3", "parent=eth1"]);
    }

    #[test]
    fn without_options_there_is_only_what_our_ipam_promised() {
        let pools = json!([{"AddressSpace": "ipvlan-ctl", "Pool": "172.18.0.0/16"}]);
        let asked = json!({"NetworkID": ID, "Options": {}, "IPv4Data": pools, "IPv6Data": null});
        let request = request(asked).unwrap();
        assert!(request.promised && request.options.is_empty() && !request.ipv6);
    }

    #[test]
    fn what_is_no_id_or_address_is_named() {
        let error = request(json!({"NetworkID": "x"})).unwrap_err();
        assert!(error.contains("\"x\""), "{error}");
        let error = address::<Ipv4Addr>("Address", "10.0.0.300/24").unwrap_err();
        assert!(error.contains("Address \"10.0.0.300/24\""), "{error}");
        assert_eq!(address::<Ipv4Addr>("Address", "").unwrap(), None);
    }
}
