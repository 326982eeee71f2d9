//! What the daemon does when the host changes.

use std::collections::HashMap;

use super::parent::rests_on;
use super::{Engine, Result, privilege};
use crate::model::{DOOR_LABEL, Id};
use crate::store::{EndpointRow, NetworkRow, State};

/// A whole endpoint of this boot, as the names need it.
#[derive(Debug, Clone)]
pub struct NamedEndpoint {
    pub endpoint: EndpointRow,
    /// Name of its network.
    pub network: String,
    pub internal: bool,
}

/// Which changes of endpoints somebody has seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen(u64);

/// Endpoints by their ids, each as it is now; `None` if it is gone.
pub type ChangedEndpoints = Vec<(Id, Option<NamedEndpoint>)>;

impl Engine {
    /// Refuses who may not change networks, before anything else is tried.
    pub fn require_privileges(&self) -> Result<()> {
        privilege::require()
    }

    /// Tells the programs the host's addresses as they are now; nothing where none are loaded.
    pub async fn follow_host_addresses(&self) -> Result<()> {
        match self.loaded_datapath() {
            Some(datapath) => self.refresh_host_addresses(&datapath).await.map(drop),
            None => Ok(()),
        }
    }

    /// Every whole endpoint of this boot, the oldest first, without those of other engines, which
    /// have names of their own. Its namespace may be gone.
    pub fn named_endpoints(&self) -> Result<(Seen, Vec<NamedEndpoint>)> {
        let Some(store) = self.store.open_existing()? else {
            return Ok((Seen(0), Vec::new()));
        };
        let records = store.records();
        // What changes while we read is read again.
        let seen = Seen(records.newest_change()?);
        let networks: HashMap<u32, NetworkRow> = records
            .networks()?
            .into_iter()
            .map(|row| (row.number, row))
            .collect();
        let endpoints = records
            .endpoints()?
            .into_iter()
            .filter_map(|row| self.named(networks.get(&row.network)?, row))
            .collect();
        Ok((seen, endpoints))
    }

    /// What has changed among [`Engine::named_endpoints`] since, at the cost of what has changed.
    /// `None` after so many changes that all must be read anew.
    pub fn changed_endpoints(&self, since: Seen) -> Result<Option<(Seen, ChangedEndpoints)>> {
        let Some(store) = self.store.open_existing()? else {
            return Ok(None);
        };
        let records = store.records();
        let Some((newest, ids)) = records.changes_since(since.0)? else {
            return Ok(None);
        };
        let mut changed = Vec::with_capacity(ids.len());
        for id in ids {
            let now = match records.endpoint(&id)? {
                // Another process may have removed both meanwhile.
                Some(row) => records
                    .network_numbered(row.network)?
                    .and_then(|network| self.named(&network, row)),
                None => None,
            };
            changed.push((id, now));
        }
        Ok(Some((Seen(newest), changed)))
    }

    fn named(&self, network: &NetworkRow, endpoint: EndpointRow) -> Option<NamedEndpoint> {
        let network = &network.network;
        let whole = endpoint.state == State::Ready && endpoint.boot == self.boot;
        (whole && !network.labels.contains_key(DOOR_LABEL)).then(|| NamedEndpoint {
            network: network.name.clone(),
            internal: network.internal,
            endpoint,
        })
    }

    /// Is a network on the link of this name?
    pub fn rests_on(&self, link: &str) -> Result<bool> {
        let Some(store) = self.store.open_existing()? else {
            return Ok(false);
        };
        let networks = store.records().networks()?;
        Ok(networks.iter().any(|row| rests_on(&row.network, link)))
    }
}
