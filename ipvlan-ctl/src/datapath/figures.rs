//! Counters and drops, read out of the maps.

use std::collections::BTreeMap;

use aya::maps::{MapData, MapError, PerCpuArray, PerCpuHashMap, PerCpuValues};
use aya::util::nr_cpus;
use ipvlan_common::{Count, Counters, DropKey, Reason};
use serde::Serialize;

use super::{Datapath, DatapathError, Result, absent_is_fine, map_error};

/// Packets and bytes of one direction, as the slave's own kernel counters have them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Figure {
    pub packets: u64,
    pub bytes: u64,
}

/// Dropped packets by reason; only reasons that occurred.
pub type Drops = BTreeMap<&'static str, u64>;

/// Figures of one endpoint since it was attached. `rx` and `tx` are the endpoint's: `rx` is
/// what the driver delivered to it, including what its ingress program then dropped; `tx` is
/// what its egress program passed to the driver.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Figures {
    pub rx: Figure,
    pub tx: Figure,
    pub drops: Drops,
}

pub fn read(datapath: &Datapath, slots: &[u32]) -> Result<Vec<Figures>> {
    let counters: PerCpuArray<MapData, Counters> = datapath.map("COUNTERS")?;
    let drops: PerCpuHashMap<MapData, DropKey, u64> = datapath.map("DROPS")?;
    slots
        .iter()
        .map(|slot| {
            let cpus = counters
                .get(slot, 0)
                .map_err(map_error("read", "COUNTERS"))?;
            Ok(Figures {
                rx: sum(&cpus, |counters| &counters.rx),
                tx: sum(&cpus, |counters| &counters.tx),
                drops: drops_of(&drops, |reason| DropKey::endpoint(*slot, reason))?,
            })
        })
        .collect()
}

pub fn parent_drops(datapath: &Datapath, index: u32) -> Result<Drops> {
    let drops = datapath.map("DROPS")?;
    drops_of(&drops, |reason| DropKey::parent(index, reason))
}

/// Sets a slot's figures to zero, for its next endpoint.
pub fn reset(datapath: &Datapath, slot: u32) -> Result<()> {
    let mut counters: PerCpuArray<MapData, Counters> = datapath.map("COUNTERS")?;
    let cpus = nr_cpus().map_err(|(path, source)| DatapathError::Io {
        what: "read",
        path: path.into(),
        source,
    })?;
    let zero = PerCpuValues::try_from(vec![Counters::default(); cpus])
        .map_err(|e| map_error("write", "COUNTERS")(MapError::IoError(e)))?;
    counters
        .set(slot, zero, 0)
        .map_err(map_error("write", "COUNTERS"))?;
    let mut drops: PerCpuHashMap<MapData, DropKey, u64> = datapath.map("DROPS")?;
    for reason in Reason::ALL {
        absent_is_fine(drops.remove(&DropKey::endpoint(slot, reason)), "DROPS")?;
    }
    Ok(())
}

fn sum(cpus: &PerCpuValues<Counters>, direction: impl Fn(&Counters) -> &[Count; 4]) -> Figure {
    cpus.iter()
        .flat_map(|counters| direction(counters).iter().copied())
        .fold(Figure::default(), |sum, count| Figure {
            packets: sum.packets + count.packets,
            bytes: sum.bytes + count.bytes,
        })
}

fn drops_of(
    map: &PerCpuHashMap<MapData, DropKey, u64>,
    key: impl Fn(Reason) -> DropKey,
) -> Result<Drops> {
    let mut drops = Drops::new();
    for reason in Reason::ALL {
        match map.get(&key(reason), 0) {
            Ok(cpus) => drops.insert(reason.name(), cpus.iter().sum()),
            Err(MapError::KeyNotFound) => None,
            Err(e) => return Err(map_error("read", "DROPS")(e)),
        };
    }
    Ok(drops)
}
