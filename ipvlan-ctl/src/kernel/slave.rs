//! ipvlan slaves: made straight in their namespace, and found again without entering it.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, AsRawFd};

use ipnetwork::{IpNetwork, Ipv6Network};
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::{AddressAttribute, AddressFlags};
use netlink_packet_route::link::{
    AfSpecInet6, AfSpecUnspec, In6AddrGenMode, InfoData, InfoIpVlan, InfoKind, IpVlanFlags,
    IpVlanMode, LinkAttribute, LinkInfo, LinkMessage,
};
use netlink_packet_route::nsid::{NsidAttribute, NsidMessage};
use netlink_packet_route::route::{RouteMessage, RouteProtocol, RouteScope};
use nix::errno::Errno;
use rtnetlink::{AddressMessageBuilder, LinkUnspec, RouteMessageBuilder};

use super::announce::announce;
use super::{KernelError, Link, Netlink, Netns};
use crate::model::{AddressPlan, Flag, Mode, Route};

/// A slave to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlaveRequest {
    /// The parent, in the namespace of the socket.
    pub parent: u32,
    /// The slave's index in its own namespace.
    pub index: u32,
    pub name: String,
    pub mode: Mode,
    pub flag: Flag,
    pub mtu: Option<u32>,
}

/// Where a slave is, seen from the controller's namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slave {
    /// Number of the slave's namespace in ours (`RTM_GETNSID`).
    pub nsid: i32,
    pub index: u32,
    pub parent: u32,
}

/// What a slave gets besides itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlaveAddresses {
    pub plan: AddressPlan,
    /// Given where the network has IPv6; without it the device has IPv6 disabled.
    pub link_local: Option<Ipv6Addr>,
}

impl Netlink {
    /// The number of `netns` in the socket's namespace, given to it now if it has none.
    pub async fn nsid(&self, netns: &Netns) -> Result<i32, KernelError> {
        let device = netns.path().display().to_string();
        let fd = NsidAttribute::Fd(netns.as_fd().as_raw_fd() as u32);
        let mut assign = NsidMessage::default();
        assign.attributes = vec![fd.clone(), NsidAttribute::Id(-1)];
        let assigned = self
            .request(
                "number the namespace",
                &device,
                RouteNetlinkMessage::NewNsId(assign),
                0,
            )
            .await;
        if let Err(error) = assigned
            && error.errno() != Some(Errno::EEXIST)
        {
            return Err(error);
        }
        let mut ask = NsidMessage::default();
        ask.attributes = vec![fd];
        let operation = "read the number of the namespace";
        let replies = self
            .request(operation, &device, RouteNetlinkMessage::GetNsId(ask), 0)
            .await?;
        replies
            .into_iter()
            .find_map(number)
            .ok_or_else(|| KernelError::Unexpected {
                operation,
                device,
                why: "the kernel gave none".into(),
            })
    }

    /// The numbers of all namespaces that have one in the socket's.
    pub async fn nsids(&self) -> Result<HashSet<i32>, KernelError> {
        let replies = self
            .dump(
                "numbers of namespaces",
                RouteNetlinkMessage::GetNsId(NsidMessage::default()),
            )
            .await?;
        Ok(replies.into_iter().filter_map(number).collect())
    }

    /// Makes an ipvlan slave in `netns`, down. The kernel's `EEXIST` or `EBUSY` says that its
    /// index (in either namespace) or its name is taken.
    pub async fn make_slave(
        &self,
        request: &SlaveRequest,
        netns: &Netns,
    ) -> Result<(), KernelError> {
        let mode = match request.mode {
            Mode::L2 => IpVlanMode::L2,
            Mode::L3 => IpVlanMode::L3,
            Mode::L3s => IpVlanMode::L3S,
        };
        let flags = match request.flag {
            Flag::Bridge => IpVlanFlags::empty(),
            Flag::Private => IpVlanFlags::Private,
            Flag::Vepa => IpVlanFlags::Vepa,
        };
        let mut link = LinkMessage::default();
        link.header.index = request.index;
        link.attributes = vec![
            LinkAttribute::IfName(request.name.clone()),
            LinkAttribute::Link(request.parent),
            LinkAttribute::NetNsFd(netns.as_fd().as_raw_fd()),
            LinkAttribute::LinkInfo(vec![
                LinkInfo::Kind(InfoKind::IpVlan),
                LinkInfo::Data(InfoData::IpVlan(vec![
                    InfoIpVlan::Mode(mode),
                    InfoIpVlan::Flags(flags),
                ])),
            ]),
        ];
        link.attributes.extend(request.mtu.map(LinkAttribute::Mtu));
        self.request(
            "make the ipvlan link",
            &request.name,
            RouteNetlinkMessage::NewLink(link),
            NLM_F_CREATE | NLM_F_EXCL,
        )
        .await
        .map(drop)
    }

    /// The slave's link; `None` if it or its namespace is gone, or if the link with its index
    /// is not an ipvlan slave of its parent.
    pub async fn slave(&self, slave: Slave) -> Result<Option<Link>, KernelError> {
        let replies = match self
            .request(
                "find",
                &slave.device(),
                RouteNetlinkMessage::GetLink(slave.message()),
                0,
            )
            .await
        {
            Err(error) if slave_is_gone(&error) => return Ok(None),
            other => other?,
        };
        Ok(replies
            .into_iter()
            .find_map(|reply| match reply {
                RouteNetlinkMessage::NewLink(message) => Some(Link::read(message)),
                _ => None,
            })
            .filter(|link| {
                link.view.index == slave.index
                    && link.view.kind.as_deref() == Some("ipvlan")
                    && link.below == Some(slave.parent)
            }))
    }

    /// Deletes the slave if it is still there.
    pub async fn delete_slave(&self, slave: Slave) -> Result<(), KernelError> {
        if self.slave(slave).await?.is_none() {
            return Ok(());
        }
        match self
            .request(
                "delete",
                &slave.device(),
                RouteNetlinkMessage::DelLink(slave.message()),
                0,
            )
            .await
        {
            Err(error) if slave_is_gone(&error) => Ok(()),
            other => other.map(drop),
        }
    }
}

fn number(reply: RouteNetlinkMessage) -> Option<i32> {
    let RouteNetlinkMessage::NewNsId(message) = reply else {
        return None;
    };
    message
        .attributes
        .into_iter()
        .find_map(|attribute| match attribute {
            NsidAttribute::Id(id) if id >= 0 => Some(id),
            _ => None,
        })
}

impl Slave {
    fn device(&self) -> String {
        format!("ipvlan link {} of namespace {}", self.index, self.nsid)
    }

    fn message(&self) -> LinkMessage {
        let mut message = LinkMessage::default();
        message.header.index = self.index;
        // IFLA_TARGET_NETNSID is the later name of IFLA_IF_NETNSID.
        message.attributes = vec![LinkAttribute::IfNetnsId(self.nsid)];
        message
    }
}

/// A namespace without this number gives `EINVAL`, a link without this index `ENODEV`.
fn slave_is_gone(error: &KernelError) -> bool {
    matches!(
        error.errno(),
        Some(Errno::EINVAL | Errno::ENODEV | Errno::ENOENT)
    )
}

/// Sets switches of a device to 1, each named by its family and itself. Their folder
/// (`/proc/sys/net/FAMILY/conf/NAME`) is that of the reading thread's namespace.
fn switch_on(netns: &Netns, name: &str, switches: &[(&str, &str)]) -> Result<(), KernelError> {
    let set = |(family, switch): &(&str, &str)| {
        let path = format!("/proc/sys/net/{family}/conf/{name}/{switch}");
        match fs::write(&path, "1") {
            // A kernel without IPv6 has nothing to switch.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    };
    netns
        .run(|| switches.iter().try_for_each(set))?
        .map_err(|e| KernelError::io("configure", name, e))
}

impl Netlink {
    /// Gives a slave its addresses and its default route, and sets it and `lo` up. The socket is
    /// one of its namespace, `netns`; see [`SlaveAddresses`].
    pub async fn configure_slave(
        &self,
        netns: &Netns,
        index: u32,
        name: &str,
        addresses: &SlaveAddresses,
    ) -> Result<(), KernelError> {
        let plan = &addresses.plan;
        // The kernel announces the IPv4 address when the link comes up: a neighbour may still
        // remember where it was before.
        let mut switches = vec![("ipv4", "arp_notify")];
        match addresses.link_local {
            // Without `--ipv6` the interface has no link-local address either, as Docker's.
            None => switches.push(("ipv6", "disable_ipv6")),
            Some(link_local) => {
                self.add_link_local(index, name, link_local).await?;
            }
        }
        switch_on(netns, name, &switches)?;
        for address in plan.v4.into_iter().chain(plan.v6) {
            self.add_address(index, name, address).await?;
        }
        // `lo` is index 1 in every namespace.
        self.set_up(1, "lo").await?;
        self.set_up(index, name).await?;
        if let Some(IpNetwork::V6(v6)) = plan.v6
            && let Some(mac) = self.mac_asked_for(index).await?
        {
            announce(netns, index, name, mac, v6.ip())?;
        }
        self.add_routes(index, name, plan).await
    }

    /// Gives `netns` the routes of one of its slaves, where it has none. A slave that was taken
    /// down inside, or has lost its address there, can carry none.
    pub async fn give_routes(
        netns: &Netns,
        index: u32,
        name: &str,
        plan: &AddressPlan,
    ) -> Result<(), KernelError> {
        match Self::open_in(netns)?.add_routes(index, name, plan).await {
            Err(error) if is_no_way(&error) => Ok(()),
            other => other,
        }
    }

    /// Takes routes of one of the slaves of `netns` away, where it has them.
    pub async fn take_routes(
        netns: &Netns,
        index: u32,
        name: &str,
        routes: impl IntoIterator<Item = Route>,
    ) -> Result<(), KernelError> {
        let inside = Self::open_in(netns)?;
        for route in routes {
            let message = RouteNetlinkMessage::DelRoute(route_message(index, route));
            match inside
                .request("remove the route", &title(route, name), message, 0)
                .await
            {
                Err(error) if error.errno() == Some(Errno::ESRCH) || is_no_way(&error) => {}
                other => drop(other?),
            }
        }
        Ok(())
    }

    /// Stops the kernel from making a link-local address for a slave once it comes up.
    pub async fn withhold_link_local(
        netns: &Netns,
        index: u32,
        name: &str,
    ) -> Result<(), KernelError> {
        Self::open_in(netns)?.generate_no_address(index, name).await
    }

    /// Gives a slave that is up its link-local address, in the place of the kernel's own.
    pub async fn give_link_local(
        netns: &Netns,
        index: u32,
        name: &str,
        link_local: Ipv6Addr,
    ) -> Result<(), KernelError> {
        let inside = Self::open_in(netns)?;
        match inside.add_link_local(index, name, link_local).await {
            Err(error) if error.errno() == Some(Errno::EEXIST) => {}
            other => other?,
        }
        for (of, address) in inside.addresses_by_link().await? {
            if let IpNetwork::V6(v6) = address
                && of == index
                && v6.ip().is_unicast_link_local()
                && v6.ip() != link_local
            {
                inside.remove_address(index, name, v6).await?;
            }
        }
        Ok(())
    }

    /// No error where it is gone.
    async fn remove_address(
        &self,
        index: u32,
        name: &str,
        address: Ipv6Network,
    ) -> Result<(), KernelError> {
        let message = AddressMessageBuilder::<Ipv6Addr>::new()
            .index(index)
            .address(address.ip(), address.prefix())
            .build();
        match self
            .request(
                "remove an address from",
                &format!("{name} ({address})"),
                RouteNetlinkMessage::DelAddress(message),
                0,
            )
            .await
        {
            Err(error) if error.errno() == Some(Errno::EADDRNOTAVAIL) => Ok(()),
            other => other.map(drop),
        }
    }

    async fn add_link_local(
        &self,
        index: u32,
        name: &str,
        link_local: Ipv6Addr,
    ) -> Result<(), KernelError> {
        self.generate_no_address(index, name).await?;
        let network =
            IpNetwork::V6(Ipv6Network::new(link_local, 64).expect("64 is a prefix length"));
        self.add_address(index, name, network).await
    }

    async fn add_routes(
        &self,
        index: u32,
        name: &str,
        plan: &AddressPlan,
    ) -> Result<(), KernelError> {
        for route in plan.all_routes() {
            self.add_route(index, name, route).await?;
        }
        Ok(())
    }

    /// The first free `ethN` of the socket's namespace.
    pub async fn free_name(&self) -> Result<String, KernelError> {
        let links = self.links().await?;
        let taken = |name: &str| links.iter().any(|link| link.view.name == name);
        Ok((0..)
            .map(|n| format!("eth{n}"))
            .find(|name| !taken(name))
            .expect("a namespace has fewer links than there are numbers"))
    }

    /// The MAC address of a link where neighbours ask for it.
    async fn mac_asked_for(&self, index: u32) -> Result<Option<[u8; 6]>, KernelError> {
        let links = self.links().await?;
        let link = links.into_iter().find(|link| link.view.index == index);
        Ok(link.filter(|link| link.arp).and_then(|link| link.mac))
    }

    /// Stops the kernel from making a link-local address of its own.
    async fn generate_no_address(&self, index: u32, name: &str) -> Result<(), KernelError> {
        let mut link = LinkUnspec::new_with_index(index).build();
        link.attributes
            .push(LinkAttribute::AfSpecUnspec(vec![AfSpecUnspec::Inet6(
                vec![AfSpecInet6::AddrGenMode(In6AddrGenMode::None)],
            )]));
        self.request(
            "stop address generation of",
            name,
            RouteNetlinkMessage::SetLink(link),
            0,
        )
        .await
        .map(drop)
    }

    async fn add_address(
        &self,
        index: u32,
        name: &str,
        address: IpNetwork,
    ) -> Result<(), KernelError> {
        let message = match address {
            IpNetwork::V4(v4) => AddressMessageBuilder::<Ipv4Addr>::new()
                .index(index)
                .address(v4.ip(), v4.prefix())
                .build(),
            IpNetwork::V6(v6) => {
                let mut message = AddressMessageBuilder::<Ipv6Addr>::new()
                    .index(index)
                    .address(v6.ip(), v6.prefix())
                    .build();
                // IPAM has made sure that no one else has it.
                message
                    .attributes
                    .push(AddressAttribute::Flags(AddressFlags::Nodad));
                message
            }
        };
        self.request(
            "add an address to",
            &format!("{name} ({address})"),
            RouteNetlinkMessage::NewAddress(message),
            NLM_F_CREATE | NLM_F_EXCL,
        )
        .await
        .map(drop)
    }

    /// Of two routes to one destination the first stays: a namespace with several networks has
    /// its default route from the first, as Docker's.
    async fn add_route(&self, index: u32, name: &str, route: Route) -> Result<(), KernelError> {
        match self
            .request(
                "add the route",
                &title(route, name),
                RouteNetlinkMessage::NewRoute(route_message(index, route)),
                NLM_F_CREATE | NLM_F_EXCL,
            )
            .await
        {
            Err(error) if error.errno() == Some(Errno::EEXIST) => Ok(()),
            other => other.map(drop),
        }
    }
}

/// A route as errors name it.
fn title(Route { to, via }: Route, name: &str) -> String {
    let via = via.map_or(String::new(), |via| format!(" via {via}"));
    format!("{to}{via} on {name}")
}

fn route_message(index: u32, route: Route) -> RouteMessage {
    let mut message = match (route.to, route.via) {
        (IpNetwork::V4(to), via) => {
            let builder = RouteMessageBuilder::<Ipv4Addr>::new()
                .output_interface(index)
                .destination_prefix(to.network(), to.prefix());
            match via {
                Some(IpAddr::V4(via)) => builder.gateway(via),
                _ => builder.scope(RouteScope::Link),
            }
            .build()
        }
        (IpNetwork::V6(to), via) => {
            let builder = RouteMessageBuilder::<Ipv6Addr>::new()
                .output_interface(index)
                .destination_prefix(to.network(), to.prefix());
            match via {
                Some(IpAddr::V6(via)) => builder.gateway(via),
                _ => builder,
            }
            .build()
        }
    };
    // As `ip route add` and Docker.
    message.header.protocol = RouteProtocol::Boot;
    message
}

/// The interface is down or gone, or has no address from which the gateway is reached.
fn is_no_way(error: &KernelError) -> bool {
    matches!(
        error.errno(),
        Some(Errno::ENETUNREACH | Errno::EHOSTUNREACH | Errno::ENETDOWN | Errno::ENODEV)
    )
}
