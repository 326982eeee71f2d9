//! The host, as far as validation needs it.

use ipnetwork::IpNetwork;

use super::Network;

/// A link of the host as far as validation needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkView {
    pub index: u32,
    pub name: String,
    /// `IFLA_INFO_KIND`, such as `dummy` or `vlan`; `None` for physical devices and `lo`.
    pub kind: Option<String>,
    pub loopback: bool,
    /// It is an ipvlan slave itself.
    pub ipvlan: bool,
    /// Index of the bridge, bond or team it is enslaved to (`IFLA_MASTER`).
    pub master: Option<u32>,
    pub mtu: u32,
}

/// What validation must know of the host and of the networks that exist.
#[derive(Debug, Clone, Default)]
pub struct HostView {
    pub links: Vec<LinkView>,
    /// Every address and on-link or routed prefix of the host (default routes left out).
    pub used: Vec<IpNetwork>,
    pub networks: Vec<Network>,
    /// 40 random-looking bits of this host, for its ULA /48 (RFC 4193, 3.2).
    pub ula_seed: [u8; 5],
}

impl HostView {
    pub fn link(&self, name: &str) -> Option<&LinkView> {
        self.links.iter().find(|link| link.name == name)
    }
}
