//! A network as JSON, with docker's field names where the thing is the same.

use std::time::{Duration, UNIX_EPOCH};

use ipnetwork::IpNetwork;
use serde_json::{Map, Value, json};

use crate::engine::NetworkView;
use crate::model::{Parent, Pool, Usage};

/// Seconds since the epoch as RFC 3339.
pub(super) fn timestamp(seconds: u64) -> String {
    humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(seconds)).to_string()
}

pub(super) fn inspection(view: &NetworkView) -> Value {
    let network = &view.network;
    let config: Vec<Value> = network.pools.iter().map(config).collect();
    let address = |address: Option<IpNetwork>| address.map_or(String::new(), |a| a.to_string());
    let containers: Map<String, Value> = view
        .endpoints
        .iter()
        .map(|endpoint| {
            let container = json!({
                "Name": endpoint.name,
                "EndpointID": endpoint.id,
                // A slave has its parent's; docker leaves it out too.
                "MacAddress": "",
                "IPv4Address": address(endpoint.addresses.v4),
                "IPv6Address": address(endpoint.addresses.v6),
                // Ours: where its interface is.
                "Netns": endpoint.netns,
                "Interface": endpoint.ifname,
            });
            (endpoint.id.to_string(), container)
        })
        .collect();
    let usage: Map<String, Value> = network
        .pools
        .iter()
        .zip(&view.usage)
        .map(|(pool, usage)| (pool.subnet.to_string(), use_of(usage)))
        .collect();
    json!({
        "Name": network.name,
        "Id": network.id,
        "Created": timestamp(network.created),
        "Scope": "local",
        "Driver": "ipvlan",
        "EnableIPv4": network.ipv4,
        "EnableIPv6": network.ipv6,
        "IPAM": {
            "Driver": "default",
            "Options": {},
            "Config": config,
        },
        "Internal": network.internal,
        "Attachable": false,
        "Ingress": false,
        "Containers": containers,
        "Options": network.options,
        "Labels": network.labels,
        "IpvlanCtl": {
            "Parent": network.parent.name(),
            "ParentKind": match network.parent {
                Parent::Existing { .. } => "existing",
                Parent::Vlan { .. } => "vlan",
                Parent::Dummy { .. } => "dummy",
            },
            "ParentState": match &view.parent {
                None => "absent",
                Some(link) if !link.up => "down",
                Some(link) => &link.state,
            },
            "Mode": network.mode,
            "Flag": network.flag,
            "HostAccess": network.host_access,
            "SharedParent": network.shared_parent,
            "MTU": network.mtu,
            "Subnets": usage,
        },
    })
}

fn config(pool: &Pool) -> Value {
    let mut config = Map::new();
    config.insert("Subnet".into(), json!(pool.subnet));
    if let Some(range) = pool.range {
        config.insert("IPRange".into(), json!(range));
    }
    if let Some(gateway) = pool.gateway {
        config.insert("Gateway".into(), json!(gateway));
    }
    if !pool.aux.is_empty() {
        config.insert("AuxiliaryAddresses".into(), json!(pool.aux));
    }
    config.into()
}

/// JSON's numbers end at 64 bits for most readers; a larger count is given as that bound.
fn use_of(usage: &Usage) -> Value {
    let bounded = |count: u128| u64::try_from(count).unwrap_or(u64::MAX);
    json!({
        "IPsInUse": bounded(usage.in_use),
        "DynamicIPsAvailable": bounded(usage.available),
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_timestamp_is_rfc_3339() {
        assert_eq!(super::timestamp(1_700_000_000), "2023-11-14T22:13:20Z");
    }
}
