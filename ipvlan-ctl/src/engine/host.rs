//! What the daemon does when the host changes.

use std::collections::HashMap;

use super::parent::rests_on;
use super::{Engine, Result, privilege};
use crate::model::{DOOR_LABEL, Network};
use crate::store::{EndpointRow, State, Store};

/// A whole endpoint of this boot, as the names need it.
#[derive(Debug, Clone)]
pub struct NamedEndpoint {
    pub endpoint: EndpointRow,
    /// Name of its network.
    pub network: String,
    pub internal: bool,
}

impl Engine {
    /// Refuses who may not change networks, before anything else is tried.
    pub fn require_privileges(&self) -> Result<()> {
        privilege::require()
    }

    /// Tells the programs the host's addresses as they are now; nothing where none are loaded.
    pub async fn follow_host_addresses(&self) -> Result<()> {
        match self.loaded_datapath() {
            Some(datapath) => self.refresh_host_addresses(&datapath).await,
            None => Ok(()),
        }
    }

    /// Every whole endpoint of this boot, the oldest first, without those of other engines, which
    /// have names of their own. Its namespace may be gone.
    pub fn named_endpoints(&self) -> Result<Vec<NamedEndpoint>> {
        let Some(store) = Store::open_existing(&self.state_dir)? else {
            return Ok(Vec::new());
        };
        // In this order: a network is there before its endpoints and after them.
        let endpoints = store.records().endpoints()?;
        let networks: HashMap<u32, Network> = store
            .records()
            .networks()?
            .into_iter()
            .map(|row| (row.number, row.network))
            .filter(|(_, network)| !network.labels.contains_key(DOOR_LABEL))
            .collect();
        Ok(endpoints
            .into_iter()
            .filter(|endpoint| endpoint.state == State::Ready && endpoint.boot == self.boot)
            .filter_map(|endpoint| {
                let network = networks.get(&endpoint.network)?;
                Some(NamedEndpoint {
                    network: network.name.clone(),
                    internal: network.internal,
                    endpoint,
                })
            })
            .collect())
    }

    /// Is a network on the link of this name?
    pub fn rests_on(&self, link: &str) -> Result<bool> {
        let Some(store) = Store::open_existing(&self.state_dir)? else {
            return Ok(false);
        };
        let networks = store.records().networks()?;
        Ok(networks.iter().any(|row| rests_on(&row.network, link)))
    }
}
