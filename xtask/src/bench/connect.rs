//! What joining a network costs.

use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::value_parser;

use super::{measured_in_vm, report};
use crate::cargo::{build_ipvlan_bench, build_ipvlan_ctl};
use crate::kernels::Line;
use crate::setup;

#[derive(clap::Args)]
pub struct Args {
    /// Endpoints of the network in the end
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = value_parser!(u32).range(100..))]
    endpoints: u32,
    /// The kernel to boot
    #[arg(long, value_name = "K", default_value_t)]
    kernel: Line,
}

/// Measures in a VM, and prints the table.
pub fn bench(args: Args) -> Result<ExitCode> {
    let tools = setup::build_tools()?;
    let program = build_ipvlan_ctl(&tools)?;
    let bench = build_ipvlan_bench(&tools)?;
    let program = program.to_str().context("the program's path is not text")?;
    let endpoints = args.endpoints.to_string();
    let words = ["connect", "--program", program, "--endpoints", &endpoints];
    let connect = measured_in_vm(&bench, &words, args.kernel)?;
    report(&bench, &[connect], None)
}
