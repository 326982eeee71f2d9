//! `ipvlan-ctl top`: the endpoints live on a terminal.

mod draw;
mod state;

use std::io::{self, IsTerminal};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use clap::Args;
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyEventKind};

use super::reading::{Reader, Sort, interval};
use super::selection::Selection;
use crate::engine::Engine;
use state::{Reaction, State};

/// Watch the endpoints' traffic live on a terminal
///
/// Keys are shown at the foot of the screen. NO_COLOR switches colours off.
#[derive(Debug, Args)]
pub(super) struct Command {
    /// Time between readings
    #[arg(long, value_name = "TIME", value_parser = interval, default_value = "1s")]
    interval: Duration,
    /// By what to sort at first
    #[arg(long, value_enum, default_value_t = Sort::Rate)]
    sort: Sort,
    #[command(flatten)]
    selection: Selection,
}

impl Command {
    pub(super) async fn run(self, engine: &Engine) -> anyhow::Result<ExitCode> {
        ensure!(
            io::stdout().is_terminal() && io::stdin().is_terminal(),
            "top needs a terminal; `ipvlan-ctl stats --interval {}` does not",
            humantime::format_duration(self.interval)
        );
        let mut reader = Reader::new(self.selection);
        let mut state = State::new(self.interval, self.sort);
        // What is refused is told before the screen changes.
        state.take(reader.read(engine).await?);
        let mut terminal = ratatui::try_init().context("cannot use the terminal")?;
        let done = async {
            loop {
                if act(&mut terminal, &mut state)? == Reaction::Quit {
                    return anyhow::Ok(());
                }
                if !state.paused {
                    state.take(reader.read(engine).await?);
                }
            }
        }
        .await;
        ratatui::try_restore().context("cannot restore the terminal")?;
        done.map(|()| ExitCode::SUCCESS)
    }
}

/// Shows the state and follows keys until the next reading is due.
fn act(terminal: &mut DefaultTerminal, state: &mut State) -> io::Result<Reaction> {
    let due = Instant::now() + state.interval;
    loop {
        terminal.draw(|frame| draw::draw(frame, state))?;
        let left = due.saturating_duration_since(Instant::now());
        if left.is_zero() || !event::poll(left)? {
            return Ok(Reaction::Go);
        }
        if let Event::Key(key) = event::read()?
            && key.kind != KeyEventKind::Release
            && state.press(key) == Reaction::Quit
        {
            return Ok(Reaction::Quit);
        }
    }
}
