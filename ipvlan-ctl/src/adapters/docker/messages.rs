//! What dockerd sends and takes.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

#[derive(Debug, Deserialize)]
pub struct CreateNetwork {
    #[serde(rename = "NetworkID")]
    pub network: String,
    #[serde(rename = "Options", default)]
    pub options: Option<Map<String, Value>>,
    #[serde(rename = "IPv4Data", default)]
    pub v4: Option<Vec<IpamData>>,
    #[serde(rename = "IPv6Data", default)]
    pub v6: Option<Vec<IpamData>>,
}

/// A subnet. Addresses have the subnet's prefix length.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct IpamData {
    /// Whose IPAM gave it.
    #[serde(default)]
    pub address_space: String,
    pub pool: String,
    #[serde(default)]
    pub gateway: Option<String>,
    #[serde(default)]
    pub aux_addresses: Option<BTreeMap<String, String>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct RequestPool {
    #[serde(default)]
    pub pool: Option<String>,
    #[serde(default)]
    pub sub_pool: Option<String>,
    #[serde(default)]
    pub options: Option<BTreeMap<String, String>>,
    #[serde(default, rename = "V6")]
    pub v6: bool,
}

#[derive(Debug, Deserialize)]
pub struct PoolOnly {
    #[serde(rename = "PoolID")]
    pub pool: String,
}

#[derive(Debug, Deserialize)]
pub struct RequestAddress {
    #[serde(rename = "PoolID")]
    pub pool: String,
    #[serde(rename = "Address", default)]
    pub address: Option<String>,
    #[serde(rename = "Options", default)]
    pub options: Option<BTreeMap<String, String>>,
}

#[derive(Debug, Deserialize)]
pub struct NetworkOnly {
    #[serde(rename = "NetworkID")]
    pub network: String,
}

#[derive(Debug, Deserialize)]
pub struct CreateEndpoint {
    #[serde(rename = "NetworkID")]
    pub network: String,
    #[serde(rename = "EndpointID")]
    pub endpoint: String,
    #[serde(rename = "Interface", default)]
    pub interface: Option<Interface>,
}

/// Empty where there is none.
#[derive(Debug, Default, Deserialize)]
pub struct Interface {
    #[serde(rename = "Address", default)]
    pub v4: String,
    #[serde(rename = "AddressIPv6", default)]
    pub v6: String,
    #[serde(rename = "MacAddress", default)]
    pub mac: String,
}

#[derive(Debug, Deserialize)]
pub struct EndpointOnly {
    #[serde(rename = "NetworkID")]
    pub network: String,
    #[serde(rename = "EndpointID")]
    pub endpoint: String,
}

#[derive(Debug, Deserialize)]
pub struct Join {
    #[serde(rename = "NetworkID")]
    pub network: String,
    #[serde(rename = "EndpointID")]
    pub endpoint: String,
    #[serde(rename = "SandboxKey")]
    pub sandbox: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Joined {
    pub interface_name: InterfaceName,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gateway: Option<String>,
    #[serde(rename = "GatewayIPv6", skip_serializing_if = "Option::is_none")]
    pub gateway6: Option<String>,
    pub static_routes: Vec<StaticRoute>,
    /// Docker adds no bridge of its own for the way out.
    pub disable_gateway_service: bool,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct InterfaceName {
    pub src_name: String,
    pub dst_prefix: &'static str,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct StaticRoute {
    pub destination: String,
    pub route_type: u8,
    pub next_hop: String,
}

impl StaticRoute {
    /// `RouteType` of what is on the link.
    pub const CONNECTED: u8 = 1;
}
