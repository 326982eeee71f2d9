//! What it costs to read the figures of many endpoints.

use std::process::ExitCode;

use anyhow::{Context, Result};

use super::{measured, report};
use crate::cargo::{build_ipvlan_bench, build_ipvlan_ctl};
use crate::setup;

#[derive(clap::Args)]
pub struct Args {
    /// Samples of each case
    #[arg(long, value_name = "N", default_value_t = 15)]
    rounds: usize,
}

/// Measures, and prints the table.
pub fn bench(args: Args) -> Result<ExitCode> {
    let tools = setup::build_tools()?;
    let program = build_ipvlan_ctl(&tools)?;
    let bench = build_ipvlan_bench(&tools)?;
    let program = program.to_str().context("the program's path is not text")?;
    let rounds = args.rounds.to_string();
    let stats = measured(
        &bench,
        &["stats", "--program", program, "--rounds", &rounds],
    )?;
    report(&bench, &[stats], None)
}
