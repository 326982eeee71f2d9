//! What an address costs.

use std::process::ExitCode;

use anyhow::Result;

use super::{measured, report};
use crate::cargo::build_ipvlan_bench;
use crate::setup;

#[derive(clap::Args)]
pub struct Args {
    /// Samples of each case
    #[arg(long, value_name = "N", default_value_t = 15)]
    rounds: usize,
}

/// Measures, and prints the tables.
pub fn bench(args: Args) -> Result<ExitCode> {
    let bench = build_ipvlan_bench(&setup::build_tools()?)?;
    let ipam = measured(&bench, &["ipam", "--rounds", &args.rounds.to_string()])?;
    report(&bench, &[ipam], None)
}
