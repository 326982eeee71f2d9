//! `network create` and `network rm`.

use std::borrow::Cow;

use super::parent::{is_routed, others_on_parent, policy};
use super::{
    Engine, EngineError, Result, Session, find_network, not_found, now, privilege, view, with_undo,
};
use crate::datapath::Datapath;
use crate::model::{CreateRequest, HostView, Id, Network, Usage};
use crate::store::{NetworkRow, Records, State, StoreError};

const ULA_SEED: &str = "ula_seed";

impl Engine {
    /// Makes a network. Nothing has changed when this fails.
    pub async fn create_network(&self, request: &CreateRequest) -> Result<Network> {
        privilege::require()?;
        let id = request.id.clone().unwrap_or_else(Id::random);
        let created = now();
        let mut host = self.host_view().await?;
        if self.store.open_existing()?.is_none() {
            // A wrong request makes no store.
            request.resolve(&host, id.clone(), created)?;
        }
        let mut session = self.session().await?;
        let owner = session.owner.clone();
        let row = session.store.transaction(|records| {
            host.networks = networks(records)?;
            host.ula_seed = stored_seed(records, host.ula_seed)?;
            let request = kept_promises(request, records)?;
            host.used.extend(records.promised(created)?);
            let network = request.resolve(&host, id, created)?;
            records.begin(&network.id, "network create", &owner)?;
            Ok::<_, EngineError>(NetworkRow {
                number: records.insert_network(&network)?,
                network,
                state: State::Creating,
                parent_index: 0,
                parent_boot: String::new(),
            })
        })?;
        match session.build_network(row.clone()).await {
            Ok(()) => Ok(row.network),
            Err(error) => Err(with_undo(error, session.tear_down_network(&row).await)),
        }
    }

    /// What [`Engine::create_network`] would do, with another id; changes nothing.
    pub async fn plan_network(&self, request: &CreateRequest) -> Result<NetworkPlan> {
        let mut host = self.host_view().await?;
        let store = self.store.open_existing()?;
        let records = store.as_ref().map(|store| store.records());
        if let Some(records) = &records {
            host.networks = networks(records)?;
            if records.meta(ULA_SEED)?.is_some() {
                host.ula_seed = seed(records)?;
            }
        }
        let network = request.resolve(&host, Id::random(), now())?;
        let is_there = |name: &str| host.links.iter().any(|link| link.name == name);
        Ok(NetworkPlan {
            makes_parent: network.parent.is_of_host() && !is_there(network.parent.name()),
            loads_programs: self.loaded_datapath().is_none(),
            usage: view::usage(&network, records.as_ref(), &self.netlink.addresses().await?)?,
            network,
        })
    }

    /// What validation must know of the host; no networks yet, and a seed that is not stored.
    pub(super) async fn host_view(&self) -> Result<HostView> {
        let links = self.netlink.links().await?;
        Ok(HostView {
            links: links.into_iter().map(|link| link.view).collect(),
            used: self.netlink.used_prefixes().await?,
            networks: Vec::new(),
            ula_seed: rand::random(),
        })
    }

    /// Removes a network that has no endpoints; with `force`, also one that Docker has in its list.
    /// Returns its name.
    pub async fn remove_network(&self, word: &str, force: bool) -> Result<String> {
        privilege::require()?;
        let Some(mut session) = self.existing_session().await? else {
            return Err(not_found(word).into());
        };
        let owner = session.owner.clone();
        let reserve = |records: &Records<'_>| {
            let row = find_network(records.networks()?, word)?;
            let name = row.network.name.clone();
            if row.state != State::Ready {
                return Err(EngineError::NetworkBusy(name));
            }
            if row.network.is_dockers() && !force {
                return Err(EngineError::Dockers(name));
            }
            let endpoints = records.endpoints_of(row.number)?;
            if !endpoints.is_empty() {
                return Err(EngineError::InUse {
                    network: name,
                    endpoints: endpoints.into_iter().map(|row| row.name).collect(),
                });
            }
            records.begin(&row.network.id, "network rm", &owner)?;
            records.set_network_state(row.number, State::Removing)?;
            Ok(row)
        };
        let row = session.reserve(reserve).await?;
        session.tear_down_network(&row).await?;
        Ok(row.network.name)
    }

    /// Removes every network that has no endpoints and that `chosen` takes. Returns their names.
    pub async fn prune_networks(&self, chosen: impl Fn(&Network) -> bool) -> Result<Vec<String>> {
        privilege::require()?;
        let Some(session) = self.existing_session().await? else {
            return Ok(Vec::new());
        };
        let networks = session.store.records().networks()?;
        drop(session);
        let mut removed = Vec::new();
        for row in networks.into_iter().filter(|row| chosen(&row.network)) {
            match self.remove_network(row.network.id.as_str(), false).await {
                Ok(name) => removed.push(name),
                // In use, not ours to remove, or someone else was quicker.
                Err(
                    EngineError::InUse { .. }
                    | EngineError::Dockers(_)
                    | EngineError::NetworkBusy(_)
                    | EngineError::Find(_),
                ) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(removed)
    }
}

/// What making a network takes.
#[derive(Debug, Clone)]
pub struct NetworkPlan {
    pub network: Network,
    pub makes_parent: bool,
    /// It is the first since the host's start.
    pub loads_programs: bool,
    /// Of its pools, in their order.
    pub usage: Vec<Usage>,
}

/// The request with the ranges that its pools were promised with.
fn kept_promises<'r>(
    request: &'r CreateRequest,
    records: &Records<'_>,
) -> Result<Cow<'r, CreateRequest>, StoreError> {
    let mut request = Cow::Borrowed(request);
    if request.promised {
        for subnet in request.subnets.clone() {
            let Ok(subnet) = subnet.parse() else { continue };
            if let Some(range) = records.take_promise(&subnet)? {
                request.to_mut().ip_ranges.push(range.to_string());
            }
        }
    }
    Ok(request)
}

pub(super) fn networks(records: &Records<'_>) -> Result<Vec<Network>, StoreError> {
    let rows = records.networks()?;
    Ok(rows.into_iter().map(|row| row.network).collect())
}

impl Session<'_> {
    async fn build_network(&mut self, row: NetworkRow) -> Result<()> {
        let datapath = self.engine.datapath()?;
        let (row, _) = self.ensure_parent(row, &datapath).await?;
        self.engine.refresh_host_addresses(&datapath).await?;
        self.store.transaction(|records| {
            records.set_network_state(row.number, State::Ready)?;
            records.end(&row.network.id)
        })?;
        Ok(())
    }

    /// Takes back [`Session::build_network`] and the reservation, however far they got.
    pub(super) async fn tear_down_network(&mut self, row: &NetworkRow) -> Result<()> {
        let torn_down = self.dismantle_network(row).await;
        self.or_abandon(&row.network.id, torn_down)
    }

    async fn dismantle_network(&mut self, row: &NetworkRow) -> Result<()> {
        // Building may have changed the row.
        let Some(row) = self.store.records().network(&row.network.id)? else {
            return Ok(());
        };
        self.delete_parent(&row).await?;
        // Within the transaction, so that no network can be reserved between the look at the
        // others and the removal of what they would share.
        let engine = self.engine;
        self.store.transaction(|records| {
            let others = others_on_parent(records.networks()?, &row);
            let datapath = engine.loaded_datapath();
            if let Some(datapath) = &datapath
                && row.parent_boot == engine.boot
            {
                if row.parent_index != 0 && others.is_empty() {
                    datapath.detach_parent(row.parent_index, row.network.parent.name())?;
                }
                datapath.remove_network(&policy(&row))?;
            }
            records.end(&row.network.id)?;
            records.delete_network(row.number)?;
            let left = records.networks()?;
            for pool in &row.network.pools {
                let is_shared = |other: &NetworkRow| {
                    let mut pools = other.network.pools.iter();
                    pools.any(|other| other.subnet == pool.subnet)
                };
                if !left.iter().any(is_shared) {
                    records.delete_cursor(&pool.subnet)?;
                }
            }
            if let Some(datapath) = &datapath
                && is_routed(&row)
                && !left.iter().any(is_routed)
            {
                datapath.detach_loopback()?;
            }
            if left.is_empty() {
                Datapath::unpin_all(&engine.pin_dir)?;
            }
            Ok::<_, EngineError>(())
        })
    }
}

/// The host's ULA seed: the one stored, or `fresh`, which is stored then.
pub(super) fn stored_seed(records: &Records<'_>, fresh: [u8; 5]) -> Result<[u8; 5], StoreError> {
    let encode = |seed: [u8; 5]| -> String { seed.iter().map(|b| format!("{b:02x}")).collect() };
    match records.meta(ULA_SEED)? {
        None => {
            records.set_meta(ULA_SEED, &encode(fresh))?;
            Ok(fresh)
        }
        Some(_) => seed(records),
    }
}

/// The host's ULA seed, stored with its first network.
pub(super) fn seed(records: &Records<'_>) -> Result<[u8; 5], StoreError> {
    let corrupt = || StoreError::Corrupt("the ULA seed is not ten hex digits".into());
    let text = records.meta(ULA_SEED)?.ok_or_else(corrupt)?;
    let number = u64::from_str_radix(&text, 16).map_err(|_| corrupt())?;
    let bytes = number.to_be_bytes();
    match bytes {
        [0, 0, 0, a, b, c, d, e] if text.len() == 10 => Ok([a, b, c, d, e]),
        _ => Err(corrupt()),
    }
}
