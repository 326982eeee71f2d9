//! Bringing the store and the kernel back to agreement.

use std::collections::HashSet;
use std::sync::atomic::Ordering;

use super::endpoint::{policy, slave};
use super::parent::{self, is_as_known};
use super::{Engine, EngineError, Result, Session, privilege};
use crate::datapath::{Datapath, Device, Programs, Replacement};
use crate::kernel::Netns;
use crate::model::Id;
use crate::store::{EndpointRow, Intent, Owner, Records, State};

/// How many endpoints a verb looks at by the way.
const GLANCE: u32 = 8;

/// The boot in which all endpoints were looked at last.
const LAST_BOOT: &str = "last_boot";

/// What is compared with the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Which {
    All,
    /// So many that the cost stays the same on a host with many.
    Some,
}

impl Engine {
    /// Compares everything with the kernel and repairs; returns one line for each thing done.
    pub async fn repair(&self) -> Result<Vec<String>> {
        let Some(mut session) = self.repairing_session()? else {
            return Ok(Vec::new());
        };
        let mut done = session.release_gone().await?;
        done.extend(session.upgrade_programs()?);
        done.extend(session.restore_parents(Which::All).await?);
        let networks = session.store.records().networks()?;
        if let Some(datapath) = self.loaded_datapath() {
            datapath.remove_leftovers()?;
            if let Some(newer) = datapath.newer_programs(&Programs::built_in())? {
                done.push(format!(
                    "left the programs {newer}, which are newer than this ipvlan-ctl; \
                     `repair --downgrade` replaces them"
                ));
            }
            self.refresh_host_addresses(&datapath).await?;
            session.attach_again(&datapath, &mut done)?;
            session.clear_unknown_slots(&datapath, &mut done)?;
        }
        let links = self.netlink.links().await?;
        for row in networks {
            if row.network.parent.is_of_host() && parent::find(&row, &self.boot, &links).is_none() {
                done.push(format!(
                    "network {} waits for its parent {}, which is not there",
                    row.network.name,
                    row.network.parent.name()
                ));
            }
        }
        Ok(done)
    }

    /// Releases the endpoints that are gone, and ends what others left unfinished; returns one line
    /// for each thing done. Costs a request for each endpoint, and much less than
    /// [`Engine::repair`].
    pub async fn release_gone(&self) -> Result<Vec<String>> {
        match self.repairing_session()? {
            Some(mut session) => session.release_gone().await,
            None => Ok(Vec::new()),
        }
    }

    /// A session that has not looked for what is wrong yet; `None` where there is no store.
    fn repairing_session(&self) -> Result<Option<Session<'_>>> {
        privilege::require()?;
        let store = self.store.open_existing()?;
        store.map(|store| Session::new(self, store)).transpose()
    }

    /// Has a parent gone, come back or lost its programs, so that [`Engine::repair`] is due?
    pub async fn parents_are_hurt(&self) -> Result<bool> {
        let Some(store) = self.store.open_existing()? else {
            return Ok(false);
        };
        let mut rows = store.records().networks()?;
        rows.retain(|row| row.state == State::Ready);
        if rows.is_empty() {
            return Ok(false);
        }
        let Some(datapath) = self.loaded_datapath() else {
            return Ok(true);
        };
        let links = self.netlink.links().await?;
        for row in rows {
            if !parent::is_well(&row, &self.boot, &links, &datapath)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Puts this version's programs in the place of a newer one's; returns what was done.
    pub fn downgrade(&self) -> Result<Option<String>> {
        privilege::require()?;
        let Some(store) = self.store.open_existing()? else {
            return Ok(None);
        };
        let Some(datapath) = self.loaded_datapath() else {
            return Ok(None);
        };
        finish_replacement(datapath.downgrade(&Programs::built_in())?, &store.records())
    }
}

impl Session<'_> {
    /// What every verb does first: ends what others left unfinished, and looks for what is gone,
    /// at a cost that does not grow with the number of endpoints. Of many endpoints it looks at
    /// some, and at all in the first verb after a reboot; [`Session::reserve`] looks at all where
    /// one is in the way. Where it is told of what goes, it does not look. Returns one line for
    /// each thing done.
    pub(super) async fn put_right(&mut self) -> Result<Vec<String>> {
        let mut done = self.finish_abandoned().await?;
        let boot = self.engine.boot.as_str();
        let told = self.engine.told.load(Ordering::Relaxed);
        if self.store.records().meta(LAST_BOOT)?.as_deref() != Some(boot) {
            done.extend(self.release_lost(Which::All).await?);
            self.store.records().set_meta(LAST_BOOT, boot)?;
        } else if !told {
            done.extend(self.release_lost(Which::Some).await?);
        }
        done.extend(self.upgrade_programs()?);
        if !told {
            done.extend(self.restore_parents(Which::Some).await?);
        }
        Ok(done)
    }

    async fn release_gone(&mut self) -> Result<Vec<String>> {
        let mut done = self.finish_abandoned().await?;
        done.extend(self.release_lost(Which::All).await?);
        Ok(done)
    }

    /// Undoes unfinished makings and completes unfinished removals of processes that are gone:
    /// both are the same tear-down. Endpoints go before networks, which they are part of.
    async fn finish_abandoned(&mut self) -> Result<Vec<String>> {
        let mut done = Vec::new();
        let mut abandoned = Vec::new();
        for intent in self.store.records().intents()? {
            if !intent.owner.is_alive()? {
                abandoned.push(intent);
            }
        }
        let mut networks = Vec::new();
        for intent in abandoned {
            let endpoint = self.store.records().endpoint(&intent.subject)?;
            let network = self.store.records().network(&intent.subject)?;
            match (endpoint, network) {
                (Some(endpoint), _) => {
                    if self.take_over(&intent)? {
                        self.tear_down_endpoint(&endpoint.id).await?;
                        done.push(format!(
                            "removed endpoint {}, left by an interrupted {}",
                            endpoint.name, intent.verb
                        ));
                    }
                }
                (None, Some(network)) => networks.push((intent, network)),
                (None, None) => self.store.records().end(&intent.subject)?,
            }
        }
        for (intent, network) in networks {
            if self.take_over(&intent)? {
                self.tear_down_network(&network).await?;
                done.push(format!(
                    "removed network {}, left by an interrupted {}",
                    network.network.name, intent.verb
                ));
            }
        }
        Ok(done)
    }

    /// Makes abandoned work ours, unless another process was quicker.
    fn take_over(&mut self, intent: &Intent) -> Result<bool> {
        let owner = &self.owner;
        self.store.transaction(|records| {
            let still = records.intents()?.contains(intent);
            if still {
                records.begin(&intent.subject, &intent.verb, owner)?;
            }
            Ok(still)
        })
    }

    /// Releases endpoints whose slave or namespace is gone, or that a reboot ended.
    pub(super) async fn release_lost(&mut self, which: Which) -> Result<Vec<String>> {
        let mut done = Vec::new();
        let rows = match which {
            Which::All => self.store.records().endpoints()?,
            Which::Some => {
                let from = rand::random_range(..Datapath::MAX_ENDPOINTS);
                self.store.records().some_endpoints(from, GLANCE)?
            }
        };
        for row in rows {
            if row.state != State::Ready || self.engine.is_alive(&row).await? {
                continue;
            }
            if self.follow(&row).await?.is_some() {
                done.push(format!("followed endpoint {} to where it is now", row.name));
                continue;
            }
            let owner = &self.owner;
            let claimed = self
                .store
                .transaction(|records| claim(records, &row.id, owner))?;
            if claimed {
                self.tear_down_endpoint(&row.id).await?;
                done.push(format!(
                    "released endpoint {}, whose interface {} is gone",
                    row.name, row.ifname
                ));
            }
        }
        Ok(done)
    }

    /// Puts this version's programs in the place of an older one's, or completes what another
    /// process was killed in. Returns what was done, if anything.
    fn upgrade_programs(&self) -> Result<Option<String>> {
        let Some(datapath) = self.engine.loaded_datapath() else {
            return Ok(None);
        };
        let due = datapath.upgrade(&Programs::built_in())?;
        finish_replacement(due, &self.store.records())
    }

    /// Re-makes parents of ours that are gone, and guards parents again that came back, were
    /// renamed or (asked of all only) lost the programs. A parent that is its owner's to bring
    /// back is left for then.
    async fn restore_parents(&mut self, which: Which) -> Result<Vec<String>> {
        let mut done = Vec::new();
        let mut rows = self.store.records().networks()?;
        rows.retain(|row| row.state == State::Ready);
        if rows.is_empty() {
            return Ok(done);
        }
        let datapath = self.engine.datapath()?;
        if which == Which::Some {
            let links = self.engine.netlink.links().await?;
            rows.retain(|row| !is_as_known(row, &self.engine.boot, &links));
        }
        for row in rows {
            let name = row.network.name.clone();
            match self.ensure_parent(row, &datapath).await {
                Ok((_, false)) | Err(EngineError::ParentGone { .. }) => {}
                Ok((row, true)) => {
                    self.engine.refresh_host_addresses(&datapath).await?;
                    done.push(format!(
                        "restored network {name} on {}",
                        row.network.parent.name()
                    ));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }
}

impl Session<'_> {
    /// Attaches the programs of endpoints again where something took them off: a clsact qdisc,
    /// which kernels without TCX use, can be deleted from inside the namespace; pins by the host.
    fn attach_again(&self, datapath: &Datapath, done: &mut Vec<String>) -> Result<()> {
        let networks = self.store.records().networks()?;
        for (row, netns) in reachable_endpoints(&self.store.records())? {
            let network = networks
                .iter()
                .find(|network| network.number == row.network);
            if let Some(network) = network
                && !datapath.has_endpoint(&policy(&row))?
            {
                datapath.put_endpoint(&parent::policy(network), &policy(&row))?;
            }
            if !datapath.endpoint_attached(row.slot, &netns, &row.ifname)? {
                datapath.attach_endpoint(row.slot, &netns, &row.ifname)?;
                done.push(format!(
                    "attached the programs of endpoint {} again",
                    row.name
                ));
            }
        }
        Ok(())
    }

    /// Removes map entries and links that no endpoint owns.
    fn clear_unknown_slots(&mut self, datapath: &Datapath, done: &mut Vec<String>) -> Result<()> {
        // A slot is written down before it is used, so within a transaction none is newer than
        // the rows.
        self.store.transaction(|records| {
            let known: HashSet<u32> = records.endpoints()?.iter().map(|row| row.slot).collect();
            for slot in datapath.used_slots()? {
                if !known.contains(&slot) {
                    datapath.clear_slot(slot)?;
                    done.push(format!("cleared slot {slot}, which no endpoint owns"));
                }
            }
            Ok(())
        })
    }
}

impl Engine {
    /// Is the endpoint's slave still there?
    pub(super) async fn is_alive(&self, row: &EndpointRow) -> Result<bool> {
        Ok(row.boot == self.boot && self.netlink.slave(slave(row)).await?.is_some())
    }
}

/// Whole endpoints whose namespace can be entered.
fn reachable_endpoints(records: &Records<'_>) -> Result<Vec<(EndpointRow, Netns)>> {
    let mut reachable = Vec::new();
    for row in records.endpoints()? {
        // The path may be gone, or lead to another namespace by now.
        if row.state == State::Ready
            && let Ok(netns) = Netns::open(&row.netns)
            && netns.identity()? == row.identity
        {
            reachable.push((row, netns));
        }
    }
    Ok(reachable)
}

/// Replaces programs on all devices where that is due; returns what was done.
fn finish_replacement(due: Option<Replacement>, records: &Records<'_>) -> Result<Option<String>> {
    due.map(|due| Ok(due.finish(&devices(records)?)?))
        .transpose()
}

/// Where programs are attached.
fn devices(records: &Records<'_>) -> Result<Vec<Device>> {
    let parents = records
        .networks()?
        .into_iter()
        .filter(|row| row.network.parent.is_of_host())
        .map(|row| Device::Parent(row.network.parent.name().to_owned()));
    let loopback = [Device::Loopback];
    let endpoints = reachable_endpoints(records)?
        .into_iter()
        .map(|(row, netns)| Device::Endpoint {
            netns,
            ifname: row.ifname,
        });
    Ok(parents.chain(loopback).chain(endpoints).collect())
}

/// Marks a whole endpoint as being removed by us, unless another process was quicker.
fn claim(records: &Records<'_>, id: &Id, owner: &Owner) -> Result<bool> {
    let ready = records
        .endpoint(id)?
        .is_some_and(|row| row.state == State::Ready);
    if ready {
        records.begin(id, "repair", owner)?;
        records.set_endpoint_state(id, State::Removing)?;
    }
    Ok(ready)
}
