//! What the reading verbs see. They change nothing and make no store.

use std::collections::{BTreeMap, HashSet};

use super::parent::{find, is_routed};
use super::{Engine, EngineError, Result, find_network, not_found};
use crate::datapath::{Datapath, Figures};
use crate::kernel::Link;
use crate::model::{Id, Network, Usage};
use crate::store::{EndpointRow, NetworkRow, State, Store};

/// A network with what is on it now.
#[derive(Debug, Clone)]
pub struct NetworkView {
    pub network: Network,
    /// `None` if the parent is not there.
    pub parent: Option<Link>,
    pub endpoints: Vec<EndpointRow>,
    /// Of its pools, in their order.
    pub usage: Vec<Usage>,
}

#[derive(Debug, Clone)]
pub struct EndpointStats {
    pub endpoint: EndpointRow,
    /// Name of its network.
    pub network: String,
    pub figures: Figures,
}

/// Drops on a parent that belong to no endpoint, by reason.
#[derive(Debug, Clone)]
pub struct ParentStats {
    pub name: String,
    pub drops: BTreeMap<&'static str, u64>,
}

#[derive(Debug, Clone, Default)]
pub struct Stats {
    pub endpoints: Vec<EndpointStats>,
    pub parents: Vec<ParentStats>,
}

impl Engine {
    /// Every network, the oldest first, without what is on them.
    pub fn networks(&self) -> Result<Vec<Network>> {
        let Some(store) = Store::open_existing(&self.state_dir)? else {
            return Ok(Vec::new());
        };
        Ok(ready_networks(&store)?
            .into_iter()
            .map(|row| row.network)
            .collect())
    }

    /// The ids of the networks that have endpoints.
    pub fn used_networks(&self) -> Result<HashSet<Id>> {
        let Some(store) = Store::open_existing(&self.state_dir)? else {
            return Ok(HashSet::new());
        };
        let records = store.records();
        let used = records.networks_with_endpoints()?;
        let networks = records.networks()?.into_iter();
        Ok(networks
            .filter(|row| used.contains(&row.number))
            .map(|row| row.network.id)
            .collect())
    }

    /// The network that `word` means; see `docker network inspect`.
    pub async fn inspect(&self, word: &str) -> Result<NetworkView> {
        let Some(store) = Store::open_existing(&self.state_dir)? else {
            return Err(not_found(word).into());
        };
        let row = find_network(ready_networks(&store)?, word)?;
        let links = self.netlink.links().await?;
        let records = store.records();
        let usage = row
            .network
            .pools
            .iter()
            .map(|pool| {
                let in_subnet = records.leased_in(&pool.subnet)?;
                let in_range = match &pool.range {
                    Some(range) => records.leased_in(range)?,
                    None => in_subnet,
                };
                Ok(pool.usage(in_subnet, in_range))
            })
            .collect::<Result<_>>()?;
        Ok(NetworkView {
            parent: find(&row, &self.boot, &links).cloned(),
            endpoints: self.live(records.endpoints_of(row.number)?).await?,
            usage,
            network: row.network,
        })
    }

    /// Figures of the endpoints with these names or ids, or of all, and of the parents.
    pub async fn stats(&self, words: &[String]) -> Result<Stats> {
        let Some(store) = Store::open_existing(&self.state_dir)? else {
            return match words.first() {
                Some(word) => Err(no_endpoint(word)),
                None => Ok(Stats::default()),
            };
        };
        let networks = ready_networks(&store)?;
        let mut endpoints = self.live(store.records().endpoints()?).await?;
        for word in words {
            if !endpoints.iter().any(|row| is_meant(row, word)) {
                return Err(no_endpoint(word));
            }
        }
        if !words.is_empty() {
            endpoints.retain(|row| words.iter().any(|word| is_meant(row, word)));
        }
        // After a reboot nothing is pinned before the next verb that changes something.
        let parents: BTreeMap<u32, String> = networks
            .iter()
            .filter(|row| row.parent_boot == self.boot)
            .flat_map(|row| {
                let parent = (row.parent_index, row.network.parent.name().to_owned());
                let loopback = is_routed(row).then(|| (Datapath::LOOPBACK, "lo".to_owned()));
                [Some(parent), loopback].into_iter().flatten()
            })
            .collect();
        if parents.is_empty() {
            return Ok(Stats::default());
        }
        let Some(datapath) = self.loaded_datapath() else {
            return Ok(Stats::default());
        };
        let slots: Vec<u32> = endpoints.iter().map(|row| row.slot).collect();
        let figures = datapath.figures(&slots)?;
        let network_name = |number: u32| {
            networks
                .iter()
                .find(|row| row.number == number)
                .map_or_else(String::new, |row| row.network.name.clone())
        };
        Ok(Stats {
            endpoints: endpoints
                .into_iter()
                .zip(figures)
                .map(|(endpoint, figures)| EndpointStats {
                    network: network_name(endpoint.network),
                    endpoint,
                    figures,
                })
                .collect(),
            parents: parents
                .into_iter()
                .map(|(index, name)| {
                    Ok(ParentStats {
                        name,
                        drops: datapath.parent_drops(index)?,
                    })
                })
                .collect::<Result<_>>()?,
        })
    }

    /// Those endpoints that are whole and still there.
    async fn live(&self, rows: Vec<EndpointRow>) -> Result<Vec<EndpointRow>> {
        let mut live = Vec::with_capacity(rows.len());
        for row in rows {
            if row.state == State::Ready && self.is_alive(&row).await? {
                live.push(row);
            }
        }
        Ok(live)
    }
}

pub(super) fn ready_networks(store: &Store) -> Result<Vec<NetworkRow>> {
    let mut rows = store.records().networks()?;
    rows.retain(|row| row.state == State::Ready);
    Ok(rows)
}

/// Does `word` name this endpoint, by name, id or the beginning of its id?
pub(super) fn is_meant(row: &EndpointRow, word: &str) -> bool {
    row.name == word || (!word.is_empty() && row.id.as_str().starts_with(word))
}

pub(super) fn no_endpoint(word: &str) -> EngineError {
    EngineError::NoSuchEndpoint(word.to_owned())
}
