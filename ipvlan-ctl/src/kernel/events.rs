//! What changes on the host, as the kernel tells it.

use std::fmt;
use std::pin::Pin;

use futures_util::{Stream, StreamExt};
use netlink_packet_core::{NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{LinkAttribute, LinkMessage};
use rtnetlink::MulticastGroup;

use super::KernelError;

/// A change in the controller's own namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostEvent {
    /// An address came or went.
    Address,
    /// The link of this name came, changed or went.
    Link(String),
    /// A namespace that had a number in ours is gone.
    NamespaceGone,
    /// Events were lost: anything may have changed.
    Lost,
}

/// The events since the value was made, by netlink multicast. Needs a tokio runtime.
pub struct HostEvents(Pin<Box<dyn Stream<Item = HostEvent> + Send>>);

impl HostEvents {
    /// Listens in the namespace of the calling thread.
    pub fn listen() -> Result<Self, KernelError> {
        let (connection, _, messages) = rtnetlink::new_multicast_connection(&[
            MulticastGroup::Link,
            MulticastGroup::Ipv4Ifaddr,
            MulticastGroup::Ipv6Ifaddr,
            MulticastGroup::Nsid,
        ])
        .map_err(KernelError::Socket)?;
        tokio::spawn(connection);
        let events = messages.filter_map(async |(message, _)| read(message));
        Ok(Self(Box::pin(events)))
    }

    /// The next event; `None` once the socket has failed. May be cancelled.
    pub async fn next(&mut self) -> Option<HostEvent> {
        self.0.next().await
    }
}

impl fmt::Debug for HostEvents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HostEvents")
    }
}

fn read(message: NetlinkMessage<RouteNetlinkMessage>) -> Option<HostEvent> {
    use RouteNetlinkMessage::{DelAddress, DelLink, DelNsId, NewAddress, NewLink};
    match message.payload {
        NetlinkPayload::Overrun(_) => Some(HostEvent::Lost),
        NetlinkPayload::InnerMessage(NewAddress(_) | DelAddress(_)) => Some(HostEvent::Address),
        NetlinkPayload::InnerMessage(NewLink(link) | DelLink(link)) => {
            Some(HostEvent::Link(name_of(link)))
        }
        NetlinkPayload::InnerMessage(DelNsId(_)) => Some(HostEvent::NamespaceGone),
        _ => None,
    }
}

fn name_of(link: LinkMessage) -> String {
    link.attributes
        .into_iter()
        .find_map(|attribute| match attribute {
            LinkAttribute::IfName(name) => Some(name),
            _ => None,
        })
        // The kernel names every link.
        .unwrap_or_default()
}
