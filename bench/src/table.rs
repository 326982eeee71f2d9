//! Samples, taken in turn, and what they say.

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

/// Things of one kind, measured in turn on one machine.
#[derive(Debug, Serialize, Deserialize)]
pub struct Table {
    pub title: String,
    /// Of the samples, such as `ns/packet`.
    pub unit: String,
    /// How a row compares with its baseline.
    pub compare: Compare,
    pub rows: Vec<Row>,
    /// What these figures are to be.
    #[serde(default)]
    pub targets: Vec<Target>,
}

/// A figure with its limit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Target {
    pub what: String,
    pub got: f64,
    pub limit: f64,
    /// Else it is to be at least the limit.
    pub at_most: bool,
}

impl Target {
    pub fn at_most(what: impl Into<String>, got: f64, limit: f64) -> Self {
        Self {
            what: what.into(),
            got,
            limit,
            at_most: true,
        }
    }

    pub fn at_least(what: impl Into<String>, got: f64, limit: f64) -> Self {
        Self {
            at_most: false,
            ..Self::at_most(what, got, limit)
        }
    }

    pub fn is_met(&self) -> bool {
        if self.at_most {
            self.got <= self.limit
        } else {
            self.got >= self.limit
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Compare {
    /// Row minus baseline.
    Difference,
    /// Row over baseline.
    Ratio,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Row {
    pub what: String,
    /// The row that this one is compared with, if any.
    pub baseline: Option<String>,
    /// One per round, in the table's unit.
    pub samples: Vec<f64>,
}

impl Table {
    pub fn row(&self, what: &str) -> Option<&Row> {
        self.rows.iter().find(|row| row.what == what)
    }

    /// The row against its baseline, round by round, since the two were sampled one after the other
    /// then: the median of that.
    pub fn compared(&self, row: &Row) -> Option<f64> {
        let baseline = self.row(row.baseline.as_deref()?)?;
        let rounds = row.samples.iter().zip(&baseline.samples);
        let compared = rounds.map(|(sample, baseline)| match self.compare {
            Compare::Difference => sample - baseline,
            Compare::Ratio => sample / baseline,
        });
        Some(median(compared.collect()))
    }

    /// [`Table::compared`] of a row that is known to be there.
    pub fn against(&self, what: &str) -> Result<f64> {
        self.row(what)
            .and_then(|row| self.compared(row))
            .with_context(|| format!("nothing was measured of {what}"))
    }
}

impl Row {
    pub fn median(&self) -> f64 {
        median(self.samples.clone())
    }

    /// The least and the greatest sample.
    pub fn range(&self) -> (f64, f64) {
        let least = self.samples.iter().copied().fold(f64::INFINITY, f64::min);
        let greatest = self.samples.iter().copied().fold(0.0, f64::max);
        (least, greatest)
    }
}

/// Of an even number, the mean of the two in the middle.
fn median(mut samples: Vec<f64>) -> f64 {
    samples.sort_by(f64::total_cmp);
    let middle = samples.len() / 2;
    if samples.len() % 2 == 1 {
        samples[middle]
    } else {
        (samples[middle - 1] + samples[middle]) / 2.0
    }
}

/// Something to be measured over and over.
pub struct Case<'a> {
    pub what: String,
    pub baseline: Option<String>,
    /// Takes one sample.
    pub sample: Box<dyn FnMut() -> Result<f64> + 'a>,
}

impl<'a> Case<'a> {
    pub fn new(
        what: impl Into<String>,
        baseline: Option<&str>,
        sample: impl FnMut() -> Result<f64> + 'a,
    ) -> Self {
        Self {
            what: what.into(),
            baseline: baseline.map(Into::into),
            sample: Box::new(sample),
        }
    }
}

/// Samples all cases in turn, `rounds` times (at least once), after a round that warms up: what
/// else the machine does then falls on all of them alike.
pub fn in_turn(rounds: usize, mut cases: Vec<Case>) -> Result<Vec<Row>> {
    let mut samples = vec![Vec::new(); cases.len()];
    for round in 0..=rounds.max(1) {
        for (case, samples) in cases.iter_mut().zip(&mut samples) {
            let sample = (case.sample)().with_context(|| case.what.clone())?;
            if round > 0 {
                samples.push(sample);
            }
        }
    }
    let rows = cases.into_iter().zip(samples);
    Ok(rows
        .map(|(case, samples)| Row {
            what: case.what,
            baseline: case.baseline,
            samples,
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cases_are_sampled_in_turn_after_a_warm_up() {
        let clock = std::cell::Cell::new(0.0);
        let tick = || {
            clock.set(clock.get() + 1.0);
            Ok(clock.get())
        };
        let cases = vec![Case::new("a", None, tick), Case::new("b", Some("a"), tick)];
        let rows = in_turn(4, cases).unwrap();
        assert_eq!(rows[0].samples, [3.0, 5.0, 7.0, 9.0]);
        assert_eq!(rows[1].samples, [4.0, 6.0, 8.0, 10.0]);
        assert_eq!((rows[0].median(), rows[0].range()), (6.0, (3.0, 9.0)));

        let table = |compare| Table {
            title: "t".into(),
            unit: "s".into(),
            compare,
            rows: rows.clone(),
            targets: vec![],
        };
        let difference = table(Compare::Difference);
        assert_eq!(difference.compared(&rows[1]), Some(1.0));
        assert_eq!(difference.compared(&rows[0]), None);
        // 4/3, 6/5, 8/7 and 10/9.
        let ratio = table(Compare::Ratio).against("b").unwrap();
        assert!((ratio - (6.0 / 5.0 + 8.0 / 7.0) / 2.0).abs() < 1e-9);
    }

    #[test]
    fn a_target_is_met_up_to_its_limit() {
        for (got, most, least) in [(0.9, true, false), (1.0, true, true), (1.1, false, true)] {
            assert_eq!(Target::at_most("", got, 1.0).is_met(), most);
            assert_eq!(Target::at_least("", got, 1.0).is_met(), least);
        }
    }
}
