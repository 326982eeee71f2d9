//! What a packet costs in the datapath.

use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use nix::unistd::geteuid;

use super::{folder, measured, measured_in_vm, report};
use crate::cargo::{build_ipvlan_bench, build_ipvlan_ctl};
use crate::kernels::Line;
use crate::setup;

#[derive(clap::Args)]
pub struct Args {
    /// Samples of each case
    #[arg(long, value_name = "N", default_value_t = 15)]
    rounds: usize,
    /// Kernel of the VM in which containers are measured
    #[arg(long, value_name = "K", default_value_t)]
    kernel: Line,
    /// Only what is measured here, or only what is measured in the VM
    #[arg(long, value_name = "WHERE")]
    only: Option<Place>,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Place {
    Here,
    Vm,
}

/// Measures, prints the tables and draws them.
pub fn bench(args: Args) -> Result<ExitCode> {
    ensure!(
        geteuid().is_root(),
        "benchmarks load eBPF programs: run them as root"
    );
    let tools = setup::build_tools()?;
    let bench = build_ipvlan_bench(&tools)?;
    let rounds = args.rounds.to_string();
    let mut files = Vec::new();
    if args.only != Some(Place::Vm) {
        for what in ["programs", "veth"] {
            files.push(measured(&bench, &[what, "--rounds", &rounds])?);
        }
    }
    if args.only != Some(Place::Here) {
        let program = build_ipvlan_ctl(&tools)?;
        let program = program.to_str().context("the program's path is not text")?;
        let words = ["guest", "--program", program, "--rounds", &rounds];
        files.push(measured_in_vm(&bench, &words, args.kernel)?);
    }
    let plot = folder()?.join("datapath.svg");
    let code = report(&bench, &files, Some(&plot))?;
    println!("{}", plot.display());
    Ok(code)
}
