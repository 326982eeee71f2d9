//! Links and addresses of the controller's own namespace.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{
    InfoData, InfoIpVlan, InfoKind, IpVlanMode, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
    State,
};
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteType};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use nix::errno::Errno;
use rtnetlink::{LinkDummy, LinkUnspec, LinkVlan};

use super::{KernelError, Netlink};
use crate::model::ipam::Family;
use crate::model::{LinkView, Mode, Route};

/// A link of a namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    pub view: LinkView,
    /// `IFF_UP`: someone set it up.
    pub up: bool,
    /// Operational state as `ip link` prints it, such as `up`, `down` or `unknown`.
    pub state: String,
    /// Index of the device under it (`IFLA_LINK`), perhaps in another namespace.
    pub below: Option<u32>,
    /// Its MAC address.
    pub mac: Option<[u8; 6]>,
    /// Neighbours ask for its MAC address (no `IFF_NOARP`).
    pub arp: bool,
    /// Of an ipvlan slave.
    pub mode: Option<Mode>,
}

impl Link {
    /// Its MAC address as `ip link` prints it.
    pub fn mac_text(&self) -> Option<String> {
        Some(self.mac?.map(|byte| format!("{byte:02x}")).join(":"))
    }

    pub(super) fn read(message: LinkMessage) -> Self {
        let flags = message.header.flags;
        let mut link = Self {
            view: LinkView {
                index: message.header.index,
                name: String::new(),
                kind: None,
                loopback: flags.contains(LinkFlags::Loopback),
                ipvlan: false,
                master: None,
                mtu: 0,
            },
            up: flags.contains(LinkFlags::Up),
            state: "unknown".into(),
            below: None,
            mac: None,
            arp: !flags.contains(LinkFlags::Noarp),
            mode: None,
        };
        for attribute in message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => link.view.name = name,
                LinkAttribute::Mtu(mtu) => link.view.mtu = mtu,
                LinkAttribute::Controller(master) => link.view.master = Some(master),
                LinkAttribute::Link(below) => link.below = Some(below),
                LinkAttribute::Address(bytes) => link.mac = bytes.try_into().ok(),
                LinkAttribute::OperState(state) => link.state = state_name(state).into(),
                LinkAttribute::LinkInfo(infos) => {
                    for info in infos {
                        match info {
                            LinkInfo::Kind(kind) => {
                                link.view.ipvlan =
                                    matches!(kind, InfoKind::IpVlan | InfoKind::IpVtap);
                                link.view.kind = Some(kind.to_string());
                            }
                            LinkInfo::Data(InfoData::IpVlan(data)) => link.mode = mode_of(&data),
                            _ => {}
                        }
                    }
                }
                _ => {}
            }
        }
        link
    }
}

fn mode_of(data: &[InfoIpVlan]) -> Option<Mode> {
    data.iter().find_map(|info| match info {
        InfoIpVlan::Mode(IpVlanMode::L2) => Some(Mode::L2),
        InfoIpVlan::Mode(IpVlanMode::L3) => Some(Mode::L3),
        InfoIpVlan::Mode(IpVlanMode::L3S) => Some(Mode::L3s),
        _ => None,
    })
}

fn state_name(state: State) -> &'static str {
    match state {
        State::Up => "up",
        State::Down => "down",
        State::Dormant => "dormant",
        State::LowerLayerDown => "lowerlayerdown",
        State::NotPresent => "notpresent",
        State::Testing => "testing",
        _ => "unknown",
    }
}

impl Netlink {
    /// Every link of the namespace.
    pub async fn links(&self) -> Result<Vec<Link>, KernelError> {
        let replies = self
            .dump(
                "links",
                RouteNetlinkMessage::GetLink(LinkMessage::default()),
            )
            .await?;
        Ok(replies
            .into_iter()
            .filter_map(|reply| match reply {
                RouteNetlinkMessage::NewLink(message) => Some(Link::read(message)),
                _ => None,
            })
            .collect())
    }

    /// The link of this name, if there is one.
    /// The link with this index; `None` if there is none.
    pub async fn link(&self, index: u32) -> Result<Option<Link>, KernelError> {
        let link = LinkUnspec::new_with_index(index).build();
        let replies = match self
            .request(
                "find",
                &format!("link {index}"),
                RouteNetlinkMessage::GetLink(link),
                0,
            )
            .await
        {
            Err(error) if error.errno() == Some(Errno::ENODEV) => return Ok(None),
            other => other?,
        };
        Ok(replies.into_iter().find_map(|reply| match reply {
            RouteNetlinkMessage::NewLink(message) => Some(Link::read(message)),
            _ => None,
        }))
    }

    pub async fn link_named(&self, name: &str) -> Result<Option<Link>, KernelError> {
        Ok(self
            .links()
            .await?
            .into_iter()
            .find(|link| link.view.name == name))
    }

    /// Every address with its prefix, by the index of its link.
    pub async fn addresses_by_link(&self) -> Result<Vec<(u32, IpNetwork)>, KernelError> {
        let replies = self
            .dump(
                "addresses",
                RouteNetlinkMessage::GetAddress(AddressMessage::default()),
            )
            .await?;
        let mut addresses = Vec::new();
        for reply in replies {
            let RouteNetlinkMessage::NewAddress(message) = reply else {
                continue;
            };
            // On point-to-point links `Address` is the peer's, and `Local` ours.
            let mut own = None;
            for attribute in &message.attributes {
                match attribute {
                    AddressAttribute::Local(address) => own = Some(*address),
                    AddressAttribute::Address(address) => own = own.or(Some(*address)),
                    _ => {}
                }
            }
            if let Some(address) =
                own.and_then(|own| IpNetwork::new(own, message.header.prefix_len).ok())
            {
                addresses.push((message.header.index, address));
            }
        }
        Ok(addresses)
    }

    /// The namespace's own addresses without those of the loopback range.
    pub async fn addresses(&self) -> Result<Vec<IpAddr>, KernelError> {
        let mut addresses: Vec<IpAddr> = self
            .addresses_by_link()
            .await?
            .into_iter()
            .map(|(_, address)| address.ip())
            .filter(|address| !address.is_loopback())
            .collect();
        addresses.sort_unstable();
        addresses.dedup();
        Ok(addresses)
    }

    /// Every prefix that an address or a route of the namespace uses; default routes left out.
    pub async fn used_prefixes(&self) -> Result<Vec<IpNetwork>, KernelError> {
        let mut used: Vec<IpNetwork> = self
            .addresses_by_link()
            .await?
            .into_iter()
            .map(|(_, address)| address)
            .collect();
        let routes = self.routes().await?;
        used.extend(
            routes
                .into_iter()
                .map(|(_, route)| route.to)
                .filter(|to| to.prefix() > 0),
        );
        used.sort_unstable();
        used.dedup();
        Ok(used)
    }

    /// Every unicast route of the namespace in the order of the kernel's tables, by the index of
    /// its link; those that have several links left out.
    pub async fn routes(&self) -> Result<Vec<(u32, Route)>, KernelError> {
        let replies = self
            .dump(
                "routes",
                RouteNetlinkMessage::GetRoute(RouteMessage::default()),
            )
            .await?;
        Ok(replies
            .into_iter()
            .filter_map(|reply| match reply {
                RouteNetlinkMessage::NewRoute(message) => read_route(&message),
                _ => None,
            })
            .collect())
    }

    /// Makes a dummy link and sets it up. Returns its index.
    pub async fn make_dummy(&self, name: &str, mtu: Option<u32>) -> Result<u32, KernelError> {
        let mut link = LinkDummy::new(name).up();
        if let Some(mtu) = mtu {
            link = link.mtu(mtu);
        }
        self.make_link("make the dummy link", name, link.build())
            .await
    }

    /// Makes an 802.1Q sub-interface of the link `base` and sets it up. Returns its index.
    pub async fn make_vlan(&self, name: &str, base: u32, vid: u16) -> Result<u32, KernelError> {
        let link = LinkVlan::new(name, base, vid).up().build();
        self.make_link("make the VLAN link", name, link).await
    }

    async fn make_link(
        &self,
        operation: &'static str,
        name: &str,
        link: LinkMessage,
    ) -> Result<u32, KernelError> {
        self.request(
            operation,
            name,
            RouteNetlinkMessage::NewLink(link),
            NLM_F_CREATE | NLM_F_EXCL,
        )
        .await?;
        match self.link_named(name).await? {
            Some(link) => Ok(link.view.index),
            None => Err(KernelError::Unexpected {
                operation,
                device: name.to_owned(),
                why: "it was gone at once".into(),
            }),
        }
    }

    pub async fn set_up(&self, index: u32, name: &str) -> Result<(), KernelError> {
        let link = LinkUnspec::new_with_index(index).up().build();
        self.request("set up", name, RouteNetlinkMessage::SetLink(link), 0)
            .await
            .map(drop)
    }

    pub async fn set_down(&self, index: u32, name: &str) -> Result<(), KernelError> {
        let link = LinkUnspec::new_with_index(index).down().build();
        self.request("set down", name, RouteNetlinkMessage::SetLink(link), 0)
            .await
            .map(drop)
    }

    /// Deletes a link; it may be gone already.
    pub async fn delete_link(&self, index: u32, name: &str) -> Result<(), KernelError> {
        let link = LinkUnspec::new_with_index(index).build();
        match self
            .request("delete", name, RouteNetlinkMessage::DelLink(link), 0)
            .await
        {
            Err(error) if error.errno() == Some(Errno::ENODEV) => Ok(()),
            other => other.map(drop),
        }
    }
}

fn read_route(message: &RouteMessage) -> Option<(u32, Route)> {
    if message.header.kind != RouteType::Unicast {
        return None;
    }
    let address = |address: &RouteAddress| match address {
        RouteAddress::Inet(v4) => Some(IpAddr::V4(*v4)),
        RouteAddress::Inet6(v6) => Some(IpAddr::V6(*v6)),
        _ => None,
    };
    let family = match message.header.address_family {
        AddressFamily::Inet => Family::V4,
        AddressFamily::Inet6 => Family::V6,
        _ => return None,
    };
    let (mut link, mut to, mut via) = (None, family.everything(), None);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Oif(index) => link = Some(*index),
            RouteAttribute::Gateway(gateway) => via = address(gateway),
            RouteAttribute::Destination(destination) => {
                let length = message.header.destination_prefix_length;
                to = IpNetwork::new(address(destination)?, length).ok()?;
            }
            _ => {}
        }
    }
    Some((link?, Route { to, via }))
}
