//! What `stats` and `top` show: endpoints with their rates, in some order.

use std::cmp::Reverse;
use std::time::{Duration, Instant};

use clap::ValueEnum;

use crate::engine::{EndpointStats, Engine, Meter, ParentStats, Rates, Selection};

/// By what endpoints are sorted: names from the first, figures from the largest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Sort {
    Name,
    Network,
    Address,
    /// Bytes received
    Rx,
    /// Bytes sent
    Tx,
    /// Packets in and out
    Packets,
    /// Dropped packets
    Drops,
    /// Bytes per second, in and out
    Rate,
}

#[derive(Debug)]
pub(super) struct Row {
    pub stats: EndpointStats,
    /// `None` before the second reading.
    pub rates: Option<Rates>,
}

/// One look at the endpoints that are meant.
#[derive(Debug)]
pub(super) struct Reading {
    pub rows: Vec<Row>,
    pub parents: Vec<ParentStats>,
}

/// Reads again and again.
#[derive(Debug)]
pub(super) struct Reader {
    selection: Selection,
    meter: Meter,
}

impl Reader {
    pub(super) fn new(selection: impl Into<Selection>) -> Self {
        Self {
            selection: selection.into(),
            meter: Meter::default(),
        }
    }

    pub(super) async fn read(&mut self, engine: &Engine) -> anyhow::Result<Reading> {
        let stats = engine.stats(&self.selection).await?;
        let rates = self.meter.rates(&stats, Instant::now());
        Ok(Reading {
            rows: stats
                .endpoints
                .into_iter()
                .zip(rates)
                .map(|(stats, rates)| Row { stats, rates })
                .collect(),
            parents: stats.parents,
        })
    }
}

impl Row {
    pub(super) fn addresses(&self) -> String {
        let addresses: Vec<String> = self
            .stats
            .endpoint
            .addresses
            .hosts()
            .map(|address| address.to_string())
            .collect();
        addresses.join(",")
    }
}

impl Sort {
    pub(super) fn sort(self, rows: &mut [Row]) {
        let total = |row: &Row| row.stats.figures.total;
        match self {
            Self::Name => rows.sort_by(|a, b| a.stats.endpoint.name.cmp(&b.stats.endpoint.name)),
            Self::Network => rows.sort_by(|a, b| {
                let (a, b) = (&a.stats, &b.stats);
                (&a.network, &a.endpoint.name).cmp(&(&b.network, &b.endpoint.name))
            }),
            Self::Address => rows.sort_by_key(|row| row.stats.endpoint.addresses.hosts().next()),
            Self::Rx => rows.sort_by_key(|row| Reverse(total(row).rx.bytes)),
            Self::Tx => rows.sort_by_key(|row| Reverse(total(row).tx.bytes)),
            Self::Packets => {
                rows.sort_by_key(|row| Reverse(total(row).rx.packets + total(row).tx.packets));
            }
            Self::Drops => rows.sort_by_key(|row| Reverse(row.stats.figures.dropped())),
            Self::Rate => rows.sort_by(|a, b| {
                let rate = |row: &Row| row.rates.map_or(0.0, |r| r.rx.bytes + r.tx.bytes);
                rate(b).total_cmp(&rate(a))
            }),
        }
    }
}

/// Shortest and longest time between readings.
pub(super) const INTERVALS: (Duration, Duration) =
    (Duration::from_millis(100), Duration::from_secs(3600));

/// A time such as `500ms` or `2s`; a bare number is seconds, as for `watch`.
pub(super) fn interval(text: &str) -> Result<Duration, String> {
    let time = match text.parse::<u32>() {
        Ok(seconds) => Some(Duration::from_secs(seconds.into())),
        Err(_) => humantime::parse_duration(text).ok(),
    };
    let (shortest, longest) = INTERVALS;
    time.filter(|time| (shortest..=longest).contains(time))
        .ok_or_else(|| "a time from 100ms to 1h, such as 500ms or 2s".into())
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::datapath::{Figure, Figures, Traffic};
    use crate::engine::Rate;
    use crate::model::{AddressPlan, Id};
    use crate::store::EndpointRow;
    use crate::store::fixtures::endpoint;

    /// An endpoint of `db_net` that got `rx` bytes and as many bytes per second.
    pub(in crate::cli) fn row(name: &str, last: u8, rx: u64) -> Row {
        let endpoint = EndpointRow {
            id: Id::from_stored(format!("{last:02x}").repeat(32)),
            netns: format!("/run/netns/{name}").into(),
            addresses: AddressPlan {
                v4: Some(format!("10.0.0.{last}/24").parse().unwrap()),
                ..AddressPlan::default()
            },
            ..endpoint(1, name, last.into())
        };
        let figures = Figures {
            total: Traffic {
                rx: Figure {
                    packets: rx / 100,
                    bytes: rx,
                },
                ..Traffic::default()
            },
            drops: [("spoofed-source", u64::from(last))].into(),
            ..Figures::default()
        };
        let rates = Rates {
            rx: Rate {
                packets: rx as f64 / 100.0,
                bytes: rx as f64,
            },
            ..Rates::default()
        };
        Row {
            stats: EndpointStats {
                endpoint,
                network: "db_net".into(),
                figures,
            },
            rates: Some(rates),
        }
    }

    #[test]
    fn names_from_the_first_and_figures_from_the_largest() {
        let mut rows = [row("c", 2, 300), row("a", 30, 100), row("b", 4, 200)];
        for (sort, order) in [
            (Sort::Name, "abc"),
            (Sort::Network, "abc"),
            (Sort::Address, "cba"),
            (Sort::Rx, "cba"),
            (Sort::Packets, "cba"),
            (Sort::Drops, "abc"),
            (Sort::Rate, "cba"),
        ] {
            sort.sort(&mut rows);
            let sorted: String = rows
                .iter()
                .map(|row| row.stats.endpoint.name.as_str())
                .collect();
            assert_eq!(sorted, order, "{sort:?}");
        }
    }

    #[test]
    fn intervals() {
        assert_eq!(interval("2"), Ok(Duration::from_secs(2)));
        assert_eq!(interval("500ms"), Ok(Duration::from_millis(500)));
        for wrong in ["", "0", "10ms", "-1", "2h", "soon"] {
            assert!(interval(wrong).unwrap_err().contains("100ms"), "{wrong}");
        }
    }
}
