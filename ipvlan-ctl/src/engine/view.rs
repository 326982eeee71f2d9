//! What the reading verbs see. They change nothing and make no store.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;

use ipnetwork::IpNetwork;

use super::parent::{find, is_routed};
use super::{Engine, Result, Selection, find_network, not_found};
use crate::datapath::{Datapath, Figures};
use crate::kernel::Link;
use crate::model::ipam::Leases;
use crate::model::{Id, Network, Parent, Pool, Usage};
use crate::store::{EndpointRow, NetworkRow, Records, State, Store, StoreError};

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

/// A network as the host's topology has it.
#[derive(Debug, Clone)]
pub struct Branch {
    pub network: Network,
    /// `None` if the parent is not there.
    pub parent: Option<Link>,
    /// Name of the link whose VLAN the parent is.
    pub base: Option<String>,
    pub endpoints: Vec<EndpointStats>,
}

impl Branch {
    /// `None` where each endpoint has a parent of its own.
    pub fn parent_is_up(&self) -> Option<bool> {
        let is_up = || self.parent.as_ref().is_some_and(|link| link.up);
        self.network.parent.is_of_host().then(is_up)
    }
}

/// What is on what, with its figures.
#[derive(Debug, Clone, Default)]
pub struct Topology {
    pub branches: Vec<Branch>,
    pub parents: Vec<ParentStats>,
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
        let Some(store) = self.store.open_existing()? else {
            return Ok(Vec::new());
        };
        Ok(ready_networks(&store)?
            .into_iter()
            .map(|row| row.network)
            .collect())
    }

    /// The ids of the networks that have endpoints.
    pub fn used_networks(&self) -> Result<HashSet<Id>> {
        let Some(store) = self.store.open_existing()? else {
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
        let Some(store) = self.store.open_existing()? else {
            return Err(not_found(word).into());
        };
        let row = find_network(ready_networks(&store)?, word)?;
        let links = self.netlink.links().await?;
        let records = store.records();
        let host = self.netlink.addresses().await?;
        let usage = usage(&row.network, Some(&records), &host)?;
        Ok(NetworkView {
            parent: find(&row, &self.boot, &links).cloned(),
            endpoints: self.live(records.endpoints_of(row.number)?).await?,
            usage,
            network: row.network,
        })
    }

    /// Figures of the selected endpoints, and of the parents of their networks.
    pub async fn stats(&self, selection: &Selection) -> Result<Stats> {
        let (_, stats) = self.networks_with_stats(selection).await?;
        Ok(stats)
    }

    /// [`Engine::stats`] and the selected networks, by one reading of the store.
    async fn networks_with_stats(&self, selection: &Selection) -> Result<(Vec<NetworkRow>, Stats)> {
        let (networks, endpoints) = match self.store.open_existing()? {
            Some(store) => (ready_networks(&store)?, store.records().endpoints()?),
            None => Default::default(),
        };
        let networks = selection.networks_of(networks)?;
        let names: HashMap<u32, &str> = networks
            .iter()
            .map(|row| (row.number, row.network.name.as_str()))
            .collect();
        let mut endpoints = self.reachable(endpoints).await?;
        endpoints.retain(|row| names.contains_key(&row.network));
        let endpoints = selection.endpoints_of(endpoints)?;
        // After a reboot nothing is pinned before the next verb that changes something.
        let mut pinned = networks.iter().filter(|row| row.parent_boot == self.boot);
        let parents: BTreeMap<u32, String> = pinned
            .clone()
            .filter(|row| row.network.parent.is_of_host())
            .flat_map(|row| {
                let parent = (row.parent_index, row.network.parent.name().to_owned());
                let loopback = is_routed(row).then(|| (Datapath::LOOPBACK, "lo".to_owned()));
                [Some(parent), loopback].into_iter().flatten()
            })
            .collect();
        if pinned.next().is_none() {
            return Ok((networks, Stats::default()));
        }
        let Some(datapath) = self.loaded_datapath() else {
            return Ok((networks, Stats::default()));
        };
        let slots: Vec<u32> = endpoints.iter().map(|row| row.slot).collect();
        let figures = datapath.figures(&slots)?;
        let stats = Stats {
            endpoints: endpoints
                .into_iter()
                .zip(figures)
                .map(|(endpoint, figures)| EndpointStats {
                    network: names[&endpoint.network].to_owned(),
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
        };
        Ok((networks, stats))
    }

    /// The selected networks with their parents and the figures of their endpoints, the oldest
    /// first.
    pub async fn topology(&self, selection: &Selection) -> Result<Topology> {
        let (networks, stats) = self.networks_with_stats(selection).await?;
        if networks.is_empty() {
            return Ok(Topology::default());
        }
        let links = self.netlink.links().await?;
        let mut endpoints: HashMap<u32, Vec<EndpointStats>> = HashMap::new();
        for row in stats.endpoints {
            endpoints.entry(row.endpoint.network).or_default().push(row);
        }
        let branches = networks
            .into_iter()
            .map(|row| {
                let parent = find(&row, &self.boot, &links).cloned();
                Branch {
                    base: base(&row.network, parent.as_ref(), &links),
                    parent,
                    endpoints: endpoints.remove(&row.number).unwrap_or_default(),
                    network: row.network,
                }
            })
            .collect();
        Ok(Topology {
            branches,
            parents: stats.parents,
        })
    }

    /// Those endpoints that are whole and whose namespace is there, by one question to the
    /// kernel. Not asked is whether a container has deleted its interface, or another namespace
    /// has been given the number since: what the endpoint had is told until the next repair.
    async fn reachable(&self, mut rows: Vec<EndpointRow>) -> Result<Vec<EndpointRow>> {
        if !rows.is_empty() {
            let nsids = self.netlink.nsids().await?;
            rows.retain(|row| {
                row.state == State::Ready && row.boot == self.boot && nsids.contains(&row.nsid)
            });
        }
        Ok(rows)
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

/// A VLAN of our own is on its base by name; of another's the kernel tells the index.
fn base(network: &Network, parent: Option<&Link>, links: &[Link]) -> Option<String> {
    if let Parent::Vlan { base, .. } = &network.parent {
        return Some(base.clone());
    }
    let vlan = parent.filter(|link| link.view.kind.as_deref() == Some("vlan"))?;
    let base = links
        .iter()
        .find(|link| Some(link.view.index) == vlan.below)?;
    Some(base.view.name.clone())
}

/// The figures of a network's pools, in their order. What the host has itself is in use too.
pub(super) fn usage(
    network: &Network,
    records: Option<&Records<'_>>,
    host: &[IpAddr],
) -> Result<Vec<Usage>, StoreError> {
    let leased = |part: &IpNetwork| records.map_or(Ok(0), |records| records.leased_in(part));
    let is_leased = |address: IpAddr| -> Result<bool, StoreError> {
        let Some(records) = records else {
            return Ok(false);
        };
        Ok(records.leased_until(address)?.is_some())
    };
    let of_pool = |pool: &Pool| {
        let mut foreign = Vec::new();
        for address in host.iter().copied() {
            if pool.contains(address) && !pool.is_reserved(address) && !is_leased(address)? {
                foreign.push(address);
            }
        }
        let taken = |part: &IpNetwork| {
            let foreign = foreign.iter().filter(|address| part.contains(**address));
            Ok::<_, StoreError>(leased(part)? + foreign.count() as u64)
        };
        let in_subnet = taken(&pool.subnet)?;
        let in_range = pool.range.as_ref().map_or(Ok(in_subnet), taken)?;
        Ok(pool.usage(in_subnet, in_range))
    };
    network.pools.iter().map(of_pool).collect()
}

pub(super) fn ready_networks(store: &Store) -> Result<Vec<NetworkRow>> {
    let mut rows = store.records().networks()?;
    rows.retain(|row| row.state == State::Ready);
    Ok(rows)
}
