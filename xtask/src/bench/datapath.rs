//! What a packet costs in the datapath.

use std::process::ExitCode;

use anyhow::{Result, ensure};
use nix::unistd::geteuid;

use super::{folder, measured, report};
use crate::cargo::build_ipvlan_bench;
use crate::setup;

#[derive(clap::Args)]
pub struct Args {
    /// Samples of each case
    #[arg(long, value_name = "N", default_value_t = 15)]
    rounds: usize,
}

/// Measures, prints the tables and draws them.
pub fn bench(args: Args) -> Result<ExitCode> {
    ensure!(
        geteuid().is_root(),
        "benchmarks load eBPF programs: run them as root"
    );
    let bench = build_ipvlan_bench(&setup::build_tools()?)?;
    let rounds = args.rounds.to_string();
    let mut files = Vec::new();
    for what in ["programs", "veth"] {
        files.push(measured(&bench, &[what, "--rounds", &rounds])?);
    }
    let plot = folder()?.join("datapath.svg");
    let code = report(&bench, &files, Some(&plot))?;
    println!("{}", plot.display());
    Ok(code)
}
