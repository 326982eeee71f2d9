//! What `top` shows and how keys change it.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use crate::cli::reading::{INTERVALS, Reading, Row, Sort};
use crate::engine::{ParentStats, Rates};
use crate::model::Id;

/// Readings that are remembered of each endpoint.
pub(super) const HISTORY: usize = 120;

const SORTS: [Sort; 8] = [
    Sort::Rate,
    Sort::Rx,
    Sort::Tx,
    Sort::Packets,
    Sort::Drops,
    Sort::Name,
    Sort::Network,
    Sort::Address,
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reaction {
    Go,
    Quit,
}

#[derive(Debug)]
pub(super) struct State {
    pub interval: Duration,
    pub sort: Sort,
    pub paused: bool,
    /// In the order of `sort`.
    pub rows: Vec<Row>,
    pub parents: Vec<ParentStats>,
    history: HashMap<Id, VecDeque<Rates>>,
    /// The endpoint under the cursor, which it follows wherever sorting puts it.
    selected: Option<Id>,
    /// The selected endpoint fills the screen.
    pub alone: bool,
}

impl State {
    pub(super) fn new(interval: Duration, sort: Sort) -> Self {
        Self {
            interval,
            sort,
            paused: false,
            rows: Vec::new(),
            parents: Vec::new(),
            history: HashMap::new(),
            selected: None,
            alone: false,
        }
    }

    /// Takes a new reading. Endpoints that are gone are forgotten.
    pub(super) fn take(&mut self, reading: Reading) {
        let mut history = HashMap::with_capacity(reading.rows.len());
        for row in &reading.rows {
            let id = &row.stats.endpoint.id;
            let mut rates = self.history.remove(id).unwrap_or_default();
            if let Some(now) = row.rates {
                rates.truncate(HISTORY - 1);
                rates.push_front(now);
            }
            history.insert(id.clone(), rates);
        }
        self.history = history;
        self.rows = reading.rows;
        self.parents = reading.parents;
        self.sort.sort(&mut self.rows);
        if self.selected.is_none() || self.cursor().is_none() {
            self.alone = false;
            self.select(0);
        }
    }

    /// Where the selected endpoint is.
    pub(super) fn cursor(&self) -> Option<usize> {
        let selected = self.selected.as_ref()?;
        self.rows
            .iter()
            .position(|row| row.stats.endpoint.id == *selected)
    }

    /// Its rates, the latest first.
    pub(super) fn history(&self, row: &Row) -> impl Iterator<Item = &Rates> {
        self.history
            .get(&row.stats.endpoint.id)
            .into_iter()
            .flatten()
    }

    fn select(&mut self, at: usize) {
        let at = at.min(self.rows.len().saturating_sub(1));
        self.selected = self.rows.get(at).map(|row| row.stats.endpoint.id.clone());
    }

    fn step(&mut self, by: isize) {
        self.select(self.cursor().unwrap_or(0).saturating_add_signed(by));
    }

    pub(super) fn press(&mut self, key: KeyEvent) -> Reaction {
        match key.code {
            KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => {
                return Reaction::Quit;
            }
            KeyCode::Char('q') => return Reaction::Quit,
            KeyCode::Esc if self.alone => self.alone = false,
            KeyCode::Esc => return Reaction::Quit,
            KeyCode::Enter | KeyCode::Right => self.alone = self.cursor().is_some(),
            KeyCode::Left | KeyCode::Backspace => self.alone = false,
            KeyCode::Up | KeyCode::Char('k') => self.step(-1),
            KeyCode::Down | KeyCode::Char('j') => self.step(1),
            KeyCode::PageUp => self.step(-10),
            KeyCode::PageDown => self.step(10),
            KeyCode::Home => self.select(0),
            KeyCode::End => self.select(usize::MAX),
            KeyCode::Char('s') => {
                let at = SORTS.iter().position(|sort| *sort == self.sort);
                self.sort = SORTS[at.map_or(0, |at| at + 1) % SORTS.len()];
                self.sort.sort(&mut self.rows);
            }
            KeyCode::Char('p' | ' ') => self.paused = !self.paused,
            KeyCode::Char('+') => self.set_interval(self.interval * 2),
            KeyCode::Char('-') => self.set_interval(self.interval / 2),
            _ => {}
        }
        Reaction::Go
    }

    fn set_interval(&mut self, interval: Duration) {
        let (shortest, longest) = INTERVALS;
        self.interval = interval.clamp(shortest, longest);
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::cli::reading::tests::row;

    pub(in crate::cli::top) fn state() -> State {
        let mut state = State::new(Duration::from_secs(1), Sort::Rate);
        for _ in 0..3 {
            state.take(reading(&[("db1", 11, 125_000), ("web1", 12, 1000)]));
        }
        state
    }

    fn reading(rows: &[(&str, u8, u64)]) -> Reading {
        Reading {
            rows: rows
                .iter()
                .map(|(name, last, rx)| row(name, *last, *rx))
                .collect(),
            parents: Vec::new(),
        }
    }

    fn press(state: &mut State, code: KeyCode) -> Reaction {
        state.press(KeyEvent::new(code, KeyModifiers::NONE))
    }

    fn selected(state: &State) -> &str {
        &state.rows[state.cursor().unwrap()].stats.endpoint.name
    }

    #[test]
    fn the_cursor_follows_its_endpoint() {
        let mut state = state();
        assert_eq!(selected(&state), "db1");
        press(&mut state, KeyCode::Down);
        assert_eq!(selected(&state), "web1");
        // It becomes the busiest, and first.
        state.take(reading(&[("db1", 11, 1), ("web1", 12, 2)]));
        assert_eq!((selected(&state), state.cursor()), ("web1", Some(0)));
        press(&mut state, KeyCode::Enter);
        assert!(state.alone);
        // It goes away.
        state.take(reading(&[("db1", 11, 1)]));
        assert_eq!((selected(&state), state.alone), ("db1", false));
        assert_eq!(state.history(&state.rows[0]).count(), 5);
        state.take(reading(&[]));
        press(&mut state, KeyCode::Enter);
        assert!(state.cursor().is_none() && !state.alone);
    }

    #[test]
    fn keys() {
        let mut state = state();
        press(&mut state, KeyCode::Char('s'));
        assert_eq!(state.sort, Sort::Rx);
        press(&mut state, KeyCode::Char('p'));
        assert!(state.paused);
        for _ in 0..9 {
            press(&mut state, KeyCode::Char('-'));
        }
        assert_eq!(state.interval, Duration::from_millis(100));
        press(&mut state, KeyCode::Enter);
        assert_eq!(press(&mut state, KeyCode::Esc), Reaction::Go);
        assert_eq!(press(&mut state, KeyCode::Esc), Reaction::Quit);
        assert_eq!(press(&mut state, KeyCode::Char('q')), Reaction::Quit);
    }
}
