//! The calls of the `IpamDriver` protocol (moby, `libnetwork/docs/ipam.md`).
//!
//! A pool's id is its subnet, followed by its range if it has one, so nothing is kept here either.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use serde_json::json;

use super::messages::{PoolOnly, RequestAddress, RequestPool};
use super::{Answer, Call, told};
use crate::engine::Engine;
use crate::model::Pool;
use crate::model::ipam::Family;

/// The one address space: subnets are the host's.
pub const SPACE: &str = "ipvlan-ctl";

const REQUEST_TYPE: &str = "RequestAddressType";
const GATEWAY: &str = "com.docker.network.gateway";

/// Does what dockerd asks for.
pub async fn answer(engine: &Engine, call: &Call) -> Answer {
    match call.method.as_str() {
        // What is given stays given when dockerd starts anew.
        "IpamDriver.GetCapabilities" => Ok(json!({
            "RequiresMACAddress": false,
            "RequiresRequestReplay": false,
        })),
        "IpamDriver.GetDefaultAddressSpaces" => Ok(json!({
            "LocalDefaultAddressSpace": SPACE,
            "GlobalDefaultAddressSpace": SPACE,
        })),
        "IpamDriver.RequestPool" => request_pool(engine, call.read()?).await,
        "IpamDriver.ReleasePool" => release_pool(engine, call.read()?),
        "IpamDriver.RequestAddress" => request_address(engine, call.read()?).await,
        // The endpoint has leased it, and releases it.
        "IpamDriver.ReleaseAddress" => Ok(json!({})),
        _ => Err(call.unknown()),
    }
}

async fn request_pool(engine: &Engine, asked: RequestPool) -> Answer {
    if let Some((key, value)) = asked.options.unwrap_or_default().first_key_value() {
        return Err(format!("invalid --ipam-opt {key}={value}: there are none"));
    }
    let said = |text: Option<String>| text.filter(|text| !text.is_empty());
    let (subnet, range) = (said(asked.pool), said(asked.sub_pool));
    let family = if asked.v6 { Family::V6 } else { Family::V4 };
    let pool = engine
        .promise_pool(subnet.as_deref(), range.as_deref(), family)
        .await
        .map_err(told)?;
    Ok(json!({ "PoolID": id(&pool), "Pool": pool.subnet, "Data": {} }))
}

fn release_pool(engine: &Engine, asked: PoolOnly) -> Answer {
    engine.take_back_pool(&pool(&asked.pool)?).map_err(told)?;
    Ok(json!({}))
}

async fn request_address(engine: &Engine, asked: RequestAddress) -> Answer {
    let pool = pool(&asked.pool)?;
    let options = asked.options.unwrap_or_default();
    let is_gateway = options
        .get(REQUEST_TYPE)
        .is_some_and(|what| what == GATEWAY);
    let wanted: Option<IpAddr> = match asked.address.as_deref() {
        None | Some("") => None,
        Some(text) => {
            let parsed = text.parse();
            Some(parsed.map_err(|_| format!("invalid Address {text:?}: it is no address"))?)
        }
    };
    let address = match wanted.filter(|_| is_gateway) {
        // Whether it may be the gateway is asked of the network.
        Some(gateway) => gateway,
        None if is_gateway => pool.first_usable().ok_or_else(|| {
            let subnet = pool.subnet;
            format!("invalid --subnet {subnet}: it has no room for a gateway; take a larger one")
        })?,
        None => engine.propose_address(&pool, wanted).await.map_err(told)?,
    };
    let prefix = pool.subnet.prefix();
    Ok(json!({ "Address": format!("{address}/{prefix}"), "Data": {} }))
}

fn id(pool: &Pool) -> String {
    match pool.range {
        Some(range) => format!("{},{range}", pool.subnet),
        None => pool.subnet.to_string(),
    }
}

fn pool(id: &str) -> Result<Pool, String> {
    let (subnet, range) = match id.split_once(',') {
        Some((subnet, range)) => (subnet, Some(range)),
        None => (id, None),
    };
    let network = |text: &str| -> Result<IpNetwork, String> {
        text.parse()
            .map_err(|_| format!("invalid PoolID {id:?}: it is SUBNET or SUBNET,RANGE"))
    };
    Ok(Pool {
        range: range.map(network).transpose()?,
        ..Pool::new(network(subnet)?)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_is_its_id() {
        for text in ["10.0.0.0/24", "10.0.0.0/24,10.0.0.128/25", "fd00::/64"] {
            assert_eq!(id(&pool(text).unwrap()), text);
        }
        for text in ["", "10.0.0.0/33", "10.0.0.0/24,", "10.0.0.0/24,x"] {
            let error = pool(text).unwrap_err();
            assert!(error.contains("PoolID"), "{error}");
        }
    }
}
