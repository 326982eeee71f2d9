//! What joining a network costs, against how many endpoints it has.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::value_parser;

use super::{measured_in_vm, report};
use crate::cargo::{build_ipvlan_bench, build_ipvlan_ctl};
use crate::kernels::Line;
use crate::setup;

/// As many as make the first row and the last.
pub const FEWEST: u32 = 100;

#[derive(clap::Args)]
pub struct Args {
    /// Endpoints of the network in the end
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = value_parser!(u32).range(i64::from(FEWEST)..))]
    endpoints: u32,
    /// By our CNI plugin with the daemon running, instead of the command line without
    #[arg(long)]
    cni: bool,
    /// The kernel to boot
    #[arg(long, value_name = "K", default_value_t)]
    kernel: Line,
}

/// Measures in a VM, and prints the table.
pub fn bench(args: Args) -> Result<ExitCode> {
    let tools = setup::build_tools()?;
    let program = build_ipvlan_ctl(&tools)?;
    let bench = build_ipvlan_bench(&tools)?;
    let connect = measured(&bench, &program, args.endpoints, args.cni, args.kernel)?;
    report(&bench, &[connect], None)
}

/// The file with the table of so many endpoints.
pub fn measured(
    bench: &Path,
    program: &Path,
    endpoints: u32,
    cni: bool,
    line: Line,
) -> Result<PathBuf> {
    let program = program.to_str().context("the program's path is not text")?;
    let endpoints = endpoints.to_string();
    let mut words = vec!["connect", "--program", program, "--endpoints", &endpoints];
    words.extend(cni.then_some("--cni"));
    measured_in_vm(bench, &words, line)
}
