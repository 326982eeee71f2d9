//! Whether an endpoint is as it was made.

use std::path::Path;

use super::endpoint::{policy, slave};
use super::parent::find;
use super::{Engine, EngineError, Result, find_network, not_found, privilege};
use crate::kernel::{Netlink, Netns};
use crate::store::{EndpointRow, NetworkRow, State};

impl Engine {
    /// The endpoint with this very name, if it is whole in the store.
    pub fn endpoint_named(&self, network: &str, name: &str) -> Result<Option<EndpointRow>> {
        let Some(store) = self.store.open_existing()? else {
            return Ok(None);
        };
        let records = store.records();
        let Some(network) = records.network_named(network)? else {
            return Ok(None);
        };
        let row = records.endpoint_named(network.number, name)?;
        Ok(row.filter(|row| row.state == State::Ready))
    }

    /// Compares an endpoint, which is to be in `netns`, with the kernel: its parent, its interface, addresses and routes, and
    /// the programs. Returns one line for each damage; changes nothing.
    pub async fn check_endpoint(
        &self,
        network: &str,
        name: &str,
        netns: &Path,
    ) -> Result<Vec<String>> {
        privilege::require()?;
        let Some(store) = self.store.open_existing()? else {
            return Err(not_found(network).into());
        };
        let network = find_network(store.records().networks()?, network)?;
        let row = store
            .records()
            .endpoint_named(network.number, name)?
            .filter(|row| row.state == State::Ready)
            .ok_or_else(|| EngineError::NoEndpoint {
                network: network.network.name.clone(),
                endpoint: name.to_owned(),
            })?;
        let mut damage = self.parent_damage(&network).await?;
        damage.extend(self.endpoint_damage(&network, &row, netns).await?);
        Ok(damage)
    }

    async fn parent_damage(&self, network: &NetworkRow) -> Result<Vec<String>> {
        if !network.network.parent.is_of_host() {
            // Without it there is no interface either.
            return Ok(Vec::new());
        }
        let links = self.netlink.links().await?;
        let name = network.network.parent.name();
        let Some(parent) = find(network, &self.boot, &links) else {
            return Ok(vec![format!("the parent {name} is gone")]);
        };
        let mut damage = Vec::new();
        if !parent.up {
            damage.push(format!("the parent {name} is down"));
        }
        let attached = match self.loaded_datapath() {
            Some(datapath) => datapath.parent_attached(parent.view.index, &parent.view.name)?,
            None => false,
        };
        if !attached {
            damage.push(format!("the programs of the parent {name} are off"));
        }
        Ok(damage)
    }

    async fn endpoint_damage(
        &self,
        network: &NetworkRow,
        row: &EndpointRow,
        netns: &Path,
    ) -> Result<Vec<String>> {
        let ifname = &row.ifname;
        let Some(link) = self.netlink.slave(slave(row)).await? else {
            return Ok(vec![format!("the interface {ifname} is gone")]);
        };
        let netns = match Netns::open(netns) {
            Ok(netns) if netns.identity()? == row.identity => netns,
            _ => {
                let path = netns.display();
                return Ok(vec![format!("{path} is not the endpoint's namespace")]);
            }
        };
        let mut damage = Vec::new();
        if link.view.name != *ifname {
            damage.push(format!("{ifname} is named {}", link.view.name));
        }
        if !link.up {
            damage.push(format!("{ifname} is down"));
        }
        if link.mode != Some(network.network.mode) {
            damage.push(format!("{ifname} is not in mode {}", network.network.mode));
        }
        if let Some(mtu) = network.network.mtu
            && link.view.mtu != mtu
        {
            damage.push(format!("{ifname} has MTU {}, not {mtu}", link.view.mtu));
        }
        let inside = Netlink::open_in(&netns)?;
        let addresses = inside.addresses_by_link().await?;
        let plan = &row.addresses;
        for address in plan.v4.into_iter().chain(plan.v6) {
            if !addresses.contains(&(link.view.index, address)) {
                damage.push(format!("{ifname} lacks the address {address}"));
            }
        }
        let routes = inside.routes().await?;
        for wanted in plan.all_routes() {
            // Another interface may have had the route before.
            if !routes.iter().any(|(_, route)| route.to == wanted.to) {
                damage.push(format!("the route to {} is gone", wanted.to));
            }
        }
        if let Some(datapath) = self.loaded_datapath() {
            match datapath.endpoint_attached(row.slot, &netns, &link.view.name) {
                Ok(true) => {}
                Ok(false) => damage.push(format!("the programs of {ifname} are off")),
                Err(error) => damage.push(format!("the programs of {ifname}: {error}")),
            }
            if !datapath.has_endpoint(&policy(row))? {
                damage.push(format!("{ifname} has no record in the programs' maps"));
            }
        }
        Ok(damage)
    }
}
