//! A network as JSON, with docker's field names where the thing is the same.

use std::time::{Duration, UNIX_EPOCH};

use ipnetwork::IpNetwork;
use serde_json::{Map, Value, json};

use super::table::table;
use crate::engine::{NetworkPlan, NetworkView};
use crate::model::{Network, Parent, Pool, Usage};

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
                Parent::Inside { .. } => "inside",
            },
            "ParentState": parent_state(view),
            "Mode": network.mode,
            "Flag": network.flag,
            "HostAccess": network.host_access,
            "SharedParent": network.shared_parent,
            "MTU": network.mtu,
            "Subnets": usage,
        },
    })
}

/// Networks as lines, with what the JSON says in more detail.
pub(super) fn overview(views: &[NetworkView]) -> String {
    table(
        ["NAME", "MODE", "PARENT", "STATE", "SUBNETS", "ENDPOINTS"],
        views.iter().map(|view| {
            let network = &view.network;
            let subnets: Vec<_> = network.pools.iter().map(|p| p.subnet.to_string()).collect();
            [
                network.name.clone(),
                mode(network),
                network.parent.name().to_owned(),
                parent_state(view).to_owned(),
                subnets.join(","),
                view.endpoints.len().to_string(),
            ]
        }),
    )
}

/// What `create --dry-run` prints.
pub(super) fn plan(plan: &NetworkPlan) -> String {
    let network = &plan.network;
    let parent = network.parent.name();
    let parent = match &network.parent {
        Parent::Existing { .. } => format!("{parent}, which exists and stays"),
        Parent::Inside { .. } => format!("{parent}, in each container"),
        _ if !plan.makes_parent => format!("{parent}, made by another network of ours"),
        Parent::Vlan { base, vid, .. } => format!("{parent}, to be made: VLAN {vid} on {base}"),
        Parent::Dummy { .. } => "a dummy, to be made: di- and the network's short id".into(),
    };
    let internal = if network.internal { ", internal" } else { "" };
    let loads = if plan.loads_programs {
        "to be loaded and pinned, then attached to the parent"
    } else {
        "loaded already, to be attached to the parent"
    };
    let loads = match &network.parent {
        Parent::Inside { .. } => loads.replace("the parent", "each endpoint"),
        _ => loads.to_owned(),
    };
    let mut lines = vec![
        format!("network   {}: {}{internal}", network.name, mode(network)),
        format!("parent    {parent}"),
    ];
    lines.extend(network.pools.iter().zip(&plan.usage).map(|(pool, usage)| {
        let mut line = format!("subnet    {}", pool.subnet);
        let mut add = |what: &str, value: String| line.push_str(&format!(", {what} {value}"));
        if let Some(gateway) = pool.gateway {
            add("gateway", gateway.to_string());
        }
        if let Some(range) = pool.range {
            add("range", range.to_string());
        }
        for (name, address) in &pool.aux {
            add("aux", format!("{name}={address}"));
        }
        add("room for", format!("{} endpoints", usage.available));
        line
    }));
    if let Some(mtu) = network.mtu {
        lines.push(format!("mtu       {mtu}"));
    }
    lines.push(format!("programs  {loads}"));
    lines.join("\n") + "\n"
}

fn mode(network: &Network) -> String {
    format!("{} {}", network.mode, network.flag)
}

fn parent_state(view: &NetworkView) -> &str {
    match &view.parent {
        None if !view.network.parent.is_of_host() => "inside",
        None => "absent",
        Some(link) if !link.up => "down",
        Some(link) => &link.state,
    }
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
