//! The network side of `run`: an endpoint of the engine's.

use std::net::IpAddr;

use super::Places;
use super::run::Endpoint;
use crate::engine::ConnectRequest;
use crate::kernel::Netns;
use crate::runtime::{Attach, Container};

/// A container's one connection.
pub(super) struct Connection {
    places: Places,
    request: ConnectRequest,
    /// Id of the endpoint, once there is one.
    endpoint: Option<String>,
}

impl Connection {
    pub(super) fn new(places: Places, endpoint: &Endpoint) -> Self {
        let request = ConnectRequest {
            network: endpoint.network.clone(),
            ip: endpoint.ip,
            ip6: endpoint.ip6,
            aliases: endpoint.aliases.clone(),
            ..ConnectRequest::default()
        };
        Self {
            places,
            request,
            endpoint: None,
        }
    }
}

impl Attach for Connection {
    fn attach(&mut self, container: &Container, netns: &Netns) -> anyhow::Result<Vec<IpAddr>> {
        self.request.name = Some(container.name.clone());
        self.request.netns = netns.path().to_owned();
        let request = &self.request;
        let row = self
            .places
            .with_engine(async |engine| Ok(engine.connect(request).await?))?;
        self.endpoint = Some(row.id.to_string());
        let addresses = [row.addresses.v4, row.addresses.v6];
        Ok(addresses
            .into_iter()
            .flatten()
            .map(|address| address.ip())
            .collect())
    }

    fn running(&mut self, _: &Container) -> anyhow::Result<()> {
        Ok(())
    }

    fn detach(&mut self, _: &Container, _: &Netns) -> anyhow::Result<()> {
        let Some(endpoint) = self.endpoint.take() else {
            return Ok(());
        };
        let network = &self.request.network;
        self.places
            .with_engine(async |engine| Ok(engine.disconnect(network, &endpoint, true).await?))
    }
}
