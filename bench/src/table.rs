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
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Compare {
    /// Row minus baseline.
    Difference,
    /// Row over baseline.
    Ratio,
}

#[derive(Debug, Serialize, Deserialize)]
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

    /// The row's median against its baseline's.
    pub fn compared(&self, row: &Row) -> Option<f64> {
        let baseline = self.row(row.baseline.as_deref()?)?;
        Some(match self.compare {
            Compare::Difference => row.median() - baseline.median(),
            Compare::Ratio => row.median() / baseline.median(),
        })
    }
}

impl Row {
    /// Of an even number of samples, the mean of the two in the middle.
    pub fn median(&self) -> f64 {
        let sorted = self.sorted();
        let middle = sorted.len() / 2;
        if sorted.len() % 2 == 1 {
            sorted[middle]
        } else {
            (sorted[middle - 1] + sorted[middle]) / 2.0
        }
    }

    /// The least and the greatest sample.
    pub fn range(&self) -> (f64, f64) {
        let sorted = self.sorted();
        (sorted[0], sorted[sorted.len() - 1])
    }

    fn sorted(&self) -> Vec<f64> {
        let mut sorted = self.samples.clone();
        sorted.sort_by(f64::total_cmp);
        sorted
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
            rows: vec![],
        };
        let mut difference = table(Compare::Difference);
        difference.rows = rows;
        assert_eq!(difference.compared(&difference.rows[1]), Some(1.0));
        assert_eq!(difference.compared(&difference.rows[0]), None);
        let mut ratio = table(Compare::Ratio);
        ratio.rows = difference.rows;
        assert_eq!(ratio.compared(&ratio.rows[1]), Some(7.0 / 6.0));
    }
}
