//! How a user's words become a network.

use super::{HostView, Id, Invalid, Network};

/// `network create` as the user said it: nothing parsed yet, so that each error can name its flag.
#[derive(Debug, Clone, Default)]
pub struct CreateRequest {
    pub name: String,
    /// `-d`; empty or `ipvlan` (or `ipvlan-ctl`).
    pub driver: Option<String>,
    pub internal: bool,
    pub ipv4: Option<bool>,
    pub ipv6: bool,
    pub subnets: Vec<String>,
    pub gateways: Vec<String>,
    pub ip_ranges: Vec<String>,
    /// `NAME=ADDR`
    pub aux_addresses: Vec<String>,
    /// `KEY=VALUE`
    pub options: Vec<String>,
    /// `KEY` or `KEY=VALUE`
    pub labels: Vec<String>,
    pub mtu: Option<String>,
}

impl CreateRequest {
    /// Checks every field against the rules of SEMANTICS and the host, and returns the network
    /// to be made. `id` and `created` are the caller's, so that this stays a pure function.
    pub fn resolve(&self, _host: &HostView, _id: Id, _created: u64) -> Result<Network, Invalid> {
        todo!()
    }
}
