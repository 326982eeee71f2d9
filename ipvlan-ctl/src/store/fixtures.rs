//! Rows for tests.

use super::{EndpointRow, State};
use crate::kernel::NetnsIdentity;
use crate::model::{AddressPlan, Id};

/// An endpoint of which every field says something.
pub(crate) fn endpoint(network: u32, name: &str, slot: u32) -> EndpointRow {
    EndpointRow {
        id: Id::random(),
        network,
        name: name.into(),
        aliases: vec!["alias".into()],
        servers: vec!["192.0.2.1".parse().unwrap()],
        slot,
        ifname: "eth0".into(),
        netns: "/run/netns/x".into(),
        nsid: 3,
        identity: NetnsIdentity {
            cookie: u64::MAX,
            inode: 5,
        },
        boot: "b".into(),
        parent_index: 7,
        addresses: AddressPlan {
            v4: Some("10.0.0.2/24".parse().unwrap()),
            v6: None,
            gateway4: None,
            gateway6: None,
            device_default: false,
            gw_priority: -3,
            routes: Vec::new(),
            dhcp: false,
        },
        link_local: Some("fe80::1".parse().unwrap()),
        state: State::Creating,
        created: 9,
    }
}
