//! Dropped packets as they are dropped, with the names of what they belong to.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use ipvlan_common::{DropOwner, Event, Flow, Hook, Malformed, Reason};
use nix::time::{ClockId, clock_gettime};

use super::view::ready_networks;
use super::{Engine, EngineError, Result, Selection};
use crate::datapath::Tracer;
use crate::store::{EndpointRow, NetworkRow, Store};

/// Which drops to tell; an empty list means all.
#[derive(Debug, Clone, Default)]
pub struct TraceFilter {
    /// Must be there at the start.
    pub selection: Selection,
    pub reasons: Vec<Reason>,
}

/// One packet that a program dropped.
#[derive(Debug, Clone)]
pub struct DroppedPacket {
    pub time: SystemTime,
    /// Name of the endpoint that the drop is counted for; `None` for a parent's.
    pub endpoint: Option<String>,
    /// Name of its network.
    pub network: Option<String>,
    /// Name of the parent; `None` if it is not known any more.
    pub parent: Option<String>,
    /// Which program dropped it; `None` for one that this version does not know.
    pub hook: Option<Hook>,
    /// `None` for a reason that this version does not know.
    pub reason: Option<Reason>,
    pub flow: Result<Flow, Malformed>,
    /// Bytes, with the Ethernet header.
    pub length: u32,
    /// Drops of the same endpoint and reason before this one that were not told.
    pub suppressed: u32,
}

/// Tells drops until it is dropped itself.
pub struct Trace {
    tracer: Tracer,
    names: Names,
    filter: TraceFilter,
    /// Numbers of the selected networks, those that come later too if none was asked for.
    networks: Vec<u32>,
}

/// What numbers in events mean. Kept as it was last known, so that what is gone keeps its name.
struct Names {
    store: Store,
    revision: u32,
    boot: String,
    /// By slot.
    endpoints: BTreeMap<u32, EndpointRow>,
    /// By number.
    networks: BTreeMap<u32, NetworkRow>,
}

impl Engine {
    /// Starts to listen to the programs; only one listener per host.
    pub fn trace(&self, filter: TraceFilter) -> Result<Trace> {
        let store =
            Store::open_existing(self.store.directory())?.ok_or(EngineError::NothingToTrace)?;
        let mut names = Names {
            revision: store.revision()?,
            store,
            boot: self.boot.clone(),
            endpoints: BTreeMap::new(),
            networks: BTreeMap::new(),
        };
        names.read()?;
        let selection = &filter.selection;
        let networks = selection.networks_of(ready_networks(&names.store)?)?;
        selection.endpoints_of(names.endpoints.values().cloned().collect())?;
        let datapath = self.loaded_datapath().ok_or(EngineError::NothingToTrace)?;
        Ok(Trace {
            tracer: datapath.trace()?,
            networks: networks.iter().map(|row| row.number).collect(),
            names,
            filter,
        })
    }
}

impl Trace {
    /// The next drop that passes the filter. May be cancelled without losing one.
    pub async fn next(&mut self) -> Result<DroppedPacket> {
        loop {
            let event = self.tracer.next().await?;
            if let Some(packet) = self.names.describe(&event, &self.filter, &self.networks)? {
                return Ok(packet);
            }
        }
    }
}

impl Names {
    fn read(&mut self) -> Result<()> {
        let records = self.store.records();
        let endpoints = records.endpoints()?;
        self.endpoints
            .extend(endpoints.into_iter().map(|row| (row.slot, row)));
        let networks = records.networks()?;
        self.networks
            .extend(networks.into_iter().map(|row| (row.number, row)));
        Ok(())
    }

    /// The event with its names, if it passes the filter.
    fn describe(
        &mut self,
        event: &Event,
        filter: &TraceFilter,
        wanted: &[u32],
    ) -> Result<Option<DroppedPacket>> {
        let revision = self.store.revision()?;
        if revision != self.revision {
            self.revision = revision;
            self.read()?;
        }
        let reason = Reason::from_number(event.key.reason);
        let (endpoint, on_parent) = match event.key.owner() {
            DropOwner::Endpoint(slot) => {
                let endpoint = self.endpoints.get(&slot);
                (endpoint, endpoint.map(|row| row.parent_index))
            }
            DropOwner::Parent(index) => (None, Some(index)),
        };
        // Networks that the drop may belong to.
        let networks: Vec<&NetworkRow> = match endpoint {
            Some(row) => self.networks.get(&row.network).into_iter().collect(),
            None => self
                .networks
                .values()
                .filter(|row| row.parent_boot == self.boot && Some(row.parent_index) == on_parent)
                .collect(),
        };
        let selection = &filter.selection;
        let passes = (filter.reasons.is_empty()
            || reason.is_some_and(|reason| filter.reasons.contains(&reason)))
            && (selection.endpoints.is_empty()
                || endpoint.is_some_and(|row| selection.takes(row, self.endpoints.values())))
            && (selection.networks.is_empty()
                || networks.iter().any(|row| wanted.contains(&row.number)));
        if !passes {
            return Ok(None);
        }
        Ok(Some(DroppedPacket {
            time: wall_clock(event.time)?,
            endpoint: endpoint.map(|row| row.name.clone()),
            network: endpoint
                .and(networks.first())
                .map(|row| row.network.name.clone()),
            parent: networks
                .first()
                .map(|row| row.network.parent.name().to_owned()),
            hook: Hook::from_number(event.hook),
            reason,
            flow: Flow::parse(event.frame()),
            length: event.length,
            suppressed: event.suppressed,
        }))
    }
}

/// When it was `monotonic` nanoseconds of `CLOCK_MONOTONIC`.
fn wall_clock(monotonic: u64) -> Result<SystemTime> {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map_err(EngineError::Clock)?;
    let ago = Duration::from(now).saturating_sub(Duration::from_nanos(monotonic));
    Ok(SystemTime::now() - ago)
}
