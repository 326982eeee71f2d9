//! Counters and drops, read out of the maps.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

use aya::maps::{MapData, MapError, PerCpuArray, PerCpuHashMap, PerCpuValues};
use aya::util::nr_cpus;
use ipvlan_common::{Count, Counters, DropKey, Dropped, Family, Reason};
use serde::Serialize;

use super::batch::PerCpu;
use super::{Datapath, DatapathError, Result, absent_is_fine, map_error};

/// Packets and bytes of one direction, as the slave's own kernel counters have them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Figure {
    pub packets: u64,
    pub bytes: u64,
}

impl Figure {
    fn add(&mut self, count: &Count) {
        self.packets += count.packets;
        self.bytes += count.bytes;
    }
}

/// Dropped packets by reason; only reasons that occurred.
pub type Drops = BTreeMap<&'static str, u64>;

/// Both directions, as the endpoint sees them: `rx` is what the driver delivered to it, including
/// what its ingress program then dropped; `tx` is what its egress program passed to the driver.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Traffic {
    pub rx: Figure,
    pub tx: Figure,
}

/// Figures of one endpoint since it was attached.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Figures {
    pub total: Traffic,
    pub families: Families,
    pub drops: Drops,
}

/// The total by what the Ethernet frames carry.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Families {
    pub ipv4: Traffic,
    pub ipv6: Traffic,
    pub arp: Traffic,
    pub other: Traffic,
}

impl Figures {
    /// Dropped packets, for whatever reason.
    pub fn dropped(&self) -> u64 {
        self.drops.values().sum()
    }
}

/// Unused slots that are read along with used ones rather than making a call of their own.
const GAP: u32 = 16;

/// Reads a run of neighbouring slots by one call, and all drops in one pass: the cost is that of
/// the endpoints that are asked for, and of what was dropped on the host.
pub fn read(datapath: &Datapath, slots: &[u32]) -> Result<Vec<Figures>> {
    let counters: PerCpu<u32, Counters> = datapath.per_cpu("COUNTERS")?;
    let mut found: HashMap<u32, Figures> = HashMap::with_capacity(slots.len());
    for run in runs(slots) {
        let entries = counters.range(run).map_err(map_error("read", "COUNTERS"))?;
        found.extend(entries.into_iter().map(|(slot, cpus)| {
            let figures = Figures {
                total: traffic(&cpus, &Family::ALL),
                families: Families {
                    ipv4: traffic(&cpus, &[Family::V4]),
                    ipv6: traffic(&cpus, &[Family::V6]),
                    arp: traffic(&cpus, &[Family::Arp]),
                    other: traffic(&cpus, &[Family::Other]),
                },
                drops: Drops::new(),
            };
            (slot, figures)
        }));
    }
    let drops: PerCpu<DropKey, Dropped> = datapath.per_cpu("DROPS")?;
    for (key, cpus) in drops.all().map_err(map_error("read", "DROPS"))? {
        if let Some(figures) = found.get_mut(&key.owner)
            && let Some(reason) = Reason::from_number(key.reason)
        {
            figures
                .drops
                .insert(reason.name(), cpus.iter().map(|cpu| cpu.packets).sum());
        }
    }
    Ok(slots
        .iter()
        .map(|slot| found.get(slot).cloned().unwrap_or_default())
        .collect())
}

/// Ranges that hold these slots and little else.
fn runs(slots: &[u32]) -> Vec<Range<u32>> {
    let mut slots = slots.to_vec();
    slots.sort_unstable();
    let mut runs: Vec<Range<u32>> = Vec::new();
    for slot in slots {
        match runs.last_mut() {
            Some(run) if slot <= run.end + GAP => run.end = slot + 1,
            _ => runs.push(slot..slot + 1),
        }
    }
    runs
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
    let mut drops: PerCpuHashMap<MapData, DropKey, Dropped> = datapath.map("DROPS")?;
    for reason in Reason::ALL {
        absent_is_fine(drops.remove(&DropKey::endpoint(slot, reason)), "DROPS")?;
    }
    Ok(())
}

/// The sum over these families.
fn traffic(cpus: &[Counters], families: &[Family]) -> Traffic {
    let mut traffic = Traffic::default();
    for counters in cpus {
        for family in families {
            traffic.rx.add(&counters.rx[*family as usize]);
            traffic.tx.add(&counters.tx[*family as usize]);
        }
    }
    traffic
}

fn drops_of(
    map: &PerCpuHashMap<MapData, DropKey, Dropped>,
    key: impl Fn(Reason) -> DropKey,
) -> Result<Drops> {
    let mut drops = Drops::new();
    for reason in Reason::ALL {
        match map.get(&key(reason), 0) {
            Ok(cpus) => drops.insert(reason.name(), cpus.iter().map(|cpu| cpu.packets).sum()),
            Err(MapError::KeyNotFound) => None,
            Err(e) => return Err(map_error("read", "DROPS")(e)),
        };
    }
    Ok(drops)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_are_read_together() {
        for (slots, ranges) in [
            (&[][..], &[][..]),
            (&[7], &[(7, 8)]),
            (&[4, 2, 3, 3, 10], &[(2, 11)]),
            (&[0, 16_383], &[(0, 1), (16_383, 16_384)]),
        ] {
            let runs: Vec<_> = runs(slots).iter().map(|run| (run.start, run.end)).collect();
            assert_eq!(runs, ranges, "{slots:?}");
        }
    }
}
