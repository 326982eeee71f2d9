//! What a packet costs in the datapath.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result, ensure};
use nix::unistd::geteuid;

use crate::cargo::{build_ipvlan_bench, workspace};
use crate::progress::step;
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

/// Shows what subcommands measured, and draws it if asked to.
pub(super) fn report(bench: &Path, measured: &[PathBuf], plot: Option<&Path>) -> Result<ExitCode> {
    let mut report = Command::new(bench);
    report.arg("report").args(measured);
    if let Some(plot) = plot {
        report.arg("--plot").arg(plot);
    }
    let report = report.status().context("cannot start ipvlan-bench")?;
    ensure!(report.success(), "the report ended with {report}");
    Ok(ExitCode::SUCCESS)
}

fn folder() -> Result<PathBuf> {
    let folder = workspace().join("target/bench");
    fs::create_dir_all(&folder)?;
    Ok(folder)
}

/// The file with the tables that a subcommand of `ipvlan-bench` measured here.
pub(super) fn measured(bench: &Path, words: &[&str]) -> Result<PathBuf> {
    let file = folder()?.join(words[0]).with_extension("json");
    let output = File::create(&file).with_context(|| file.display().to_string())?;
    step(format!("Measuring {}", words[0]), |_| {
        let status = Command::new(bench)
            .args(words)
            .stdin(Stdio::null())
            .stdout(output)
            .status()
            .context("cannot start ipvlan-bench")?;
        ensure!(
            status.success(),
            "ipvlan-bench {} ended with {status}",
            words[0]
        );
        Ok(())
    })?;
    Ok(file)
}
