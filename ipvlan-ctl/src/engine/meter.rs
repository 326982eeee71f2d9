//! Rates: how two readings of the figures differ.

use std::collections::HashMap;
use std::time::Instant;

use serde::Serialize;

use super::Stats;
use crate::datapath::{Figure, Figures};
use crate::model::Id;

/// Per second.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Rate {
    pub packets: f64,
    pub bytes: f64,
}

/// Rates of one endpoint; drops are packets per second, for whatever reason.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Rates {
    pub rx: Rate,
    pub tx: Rate,
    pub drops: f64,
}

/// Remembers the last reading.
#[derive(Debug, Default)]
pub struct Meter {
    last: Option<(Instant, HashMap<Id, Figures>)>,
}

impl Meter {
    /// Rates of the endpoints of `stats`, read at `now`, since the reading before, in their
    /// order. `None` for an endpoint that was not there then.
    pub fn rates(&mut self, stats: &Stats, now: Instant) -> Vec<Option<Rates>> {
        let figures: HashMap<Id, Figures> = stats
            .endpoints
            .iter()
            .map(|row| (row.endpoint.id.clone(), row.figures.clone()))
            .collect();
        let last = self.last.replace((now, figures));
        stats
            .endpoints
            .iter()
            .map(|row| {
                let (then, figures) = last.as_ref()?;
                let seconds = now.duration_since(*then).as_secs_f64();
                (seconds > 0.0).then_some(())?;
                Some(between(
                    figures.get(&row.endpoint.id)?,
                    &row.figures,
                    seconds,
                ))
            })
            .collect()
    }
}

fn between(then: &Figures, now: &Figures, seconds: f64) -> Rates {
    let per_second = |then: u64, now: u64| now.saturating_sub(then) as f64 / seconds;
    let rate = |then: &Figure, now: &Figure| Rate {
        packets: per_second(then.packets, now.packets),
        bytes: per_second(then.bytes, now.bytes),
    };
    Rates {
        rx: rate(&then.total.rx, &now.total.rx),
        tx: rate(&then.total.tx, &now.total.tx),
        drops: per_second(then.dropped(), now.dropped()),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::datapath::Traffic;

    #[test]
    fn a_rate_is_what_was_added_by_the_second() {
        let figures = |packets, drops| Figures {
            total: Traffic {
                rx: Figure {
                    packets,
                    bytes: packets * 100,
                },
                ..Traffic::default()
            },
            drops: [("malformed", drops)].into(),
            ..Figures::default()
        };
        let rates = between(&figures(10, 1), &figures(30, 2), 2.0);
        let expected = Rate {
            packets: 10.0,
            bytes: 1000.0,
        };
        assert_eq!((rates.rx, rates.drops), (expected, 0.5));
        assert_eq!(rates.tx, Rate::default());
        // Figures that begin anew give no negative rate.
        assert_eq!(
            between(&figures(30, 2), &figures(10, 0), 1.0),
            Rates::default()
        );
    }

    #[test]
    fn there_is_no_rate_before_the_second_reading() {
        let mut meter = Meter::default();
        let stats = Stats::default();
        let now = Instant::now();
        assert!(meter.rates(&stats, now).is_empty());
        assert!(meter.rates(&stats, now + Duration::from_secs(1)).is_empty());
    }
}
