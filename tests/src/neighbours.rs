//! What a namespace knows of its neighbours, without a process for each look: attacks look often.

use std::net::IpAddr;
use std::path::Path;

use futures_util::TryStreamExt;
use ipvlan_ctl::kernel::Netns;
use nix::net::if_::if_nametoindex;
use rtnetlink::Handle;
use rtnetlink::packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState,
};
use tokio::runtime::{Builder, Runtime};

use crate::Namespace;

/// The neighbours by one device of a namespace.
pub struct Neighbours {
    runtime: Runtime,
    handle: Handle,
    device: u32,
}

impl Neighbours {
    pub fn of(namespace: &Namespace, device: &str) -> Self {
        let runtime = Builder::new_current_thread().enable_all().build();
        let runtime = runtime.expect("a runtime");
        let opened =
            Netns::open(&Path::new("/run/netns").join(&namespace.name)).and_then(|netns| {
                netns.run(|| {
                    let _inside = runtime.enter();
                    let socket = rtnetlink::new_connection().expect("a netlink socket");
                    (socket, if_nametoindex(device).expect("a device"))
                })
            });
        let ((connection, handle, _), device) = opened.expect("a namespace to enter");
        runtime.spawn(connection);
        Self {
            runtime,
            handle,
            device,
        }
    }

    /// Has it know, from now on, that an address is at a MAC.
    pub fn set(&self, address: IpAddr, mac: [u8; 6]) {
        let entry = self.handle.neighbours().add(self.device, address);
        let entry = entry
            .link_layer_address(&mac)
            .state(NeighbourState::Reachable)
            .replace();
        self.runtime.block_on(entry.execute()).expect("an entry");
    }

    /// The MAC that it believes an address to be at.
    pub fn mac_of(&self, address: IpAddr) -> Option<Vec<u8>> {
        let dump = self.handle.neighbours().get().execute();
        let entries: Vec<_> = self
            .runtime
            .block_on(dump.try_collect())
            .expect("the neighbours");
        let is_it = |entry: &&NeighbourMessage| {
            entry.header.ifindex == self.device && destination(entry) == Some(address)
        };
        let entry = entries.iter().find(is_it)?;
        entry
            .attributes
            .iter()
            .find_map(|attribute| match attribute {
                NeighbourAttribute::LinkLayerAddress(mac) => Some(mac.clone()),
                _ => None,
            })
    }
}

fn destination(entry: &NeighbourMessage) -> Option<IpAddr> {
    entry
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(address)) => {
                Some((*address).into())
            }
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(address)) => {
                Some((*address).into())
            }
            _ => None,
        })
}
