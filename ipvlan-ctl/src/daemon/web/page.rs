//! The page, embedded, and its data.

use axum::http::header;
use serde_json::{Value, json};

use crate::engine::{EndpointStats, Topology};

type Asset = ([(header::HeaderName, &'static str); 1], &'static str);

pub(super) const INDEX: Asset = asset("text/html; charset=utf-8", include_str!("page/index.html"));
pub(super) const STYLE: Asset = asset("text/css; charset=utf-8", include_str!("page/page.css"));
pub(super) const SCRIPT: Asset = asset(
    "text/javascript; charset=utf-8",
    include_str!("page/page.js"),
);

const fn asset(kind: &'static str, text: &'static str) -> Asset {
    ([(header::CONTENT_TYPE, kind)], text)
}

pub(super) fn data(topology: &Topology) -> Value {
    let networks: Vec<Value> = topology
        .branches
        .iter()
        .map(|branch| {
            let network = &branch.network;
            let subnets: Vec<_> = network.pools.iter().map(|pool| pool.subnet).collect();
            json!({
                "name": network.name,
                "mode": network.mode,
                "flag": network.flag,
                "internal": network.internal,
                "subnets": subnets,
                "parent": network.parent.name(),
                "parent_up": branch.parent_is_up() != Some(false),
                "endpoints": branch.endpoints.iter().map(endpoint).collect::<Vec<_>>(),
            })
        })
        .collect();
    let parents: Vec<Value> = topology
        .parents
        .iter()
        .map(|parent| json!({ "name": parent.name, "drops": parent.drops }))
        .collect();
    json!({ "networks": networks, "parents": parents })
}

fn endpoint(row: &EndpointStats) -> Value {
    let addresses: Vec<_> = row.endpoint.addresses.hosts().collect();
    json!({
        "id": row.endpoint.id,
        "name": row.endpoint.name,
        "addresses": addresses,
        "rx": row.figures.total.rx,
        "tx": row.figures.total.tx,
        "drops": row.figures.drops,
    })
}
