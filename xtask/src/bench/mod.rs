//! `bench`: how fast it is. The measuring itself is done by the crate `ipvlan-bench`, which is
//! built and run from here.

mod datapath;
mod dns;
mod ipam;
mod stats;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result, ensure};
use clap::Subcommand;

use crate::cargo::workspace;
use crate::progress::step;

#[derive(Subcommand)]
pub enum Bench {
    /// What a packet costs
    Datapath(datapath::Args),
    /// What an address costs, against the number of leases
    Ipam(ipam::Args),
    /// How many names are resolved in a second, beside aardvark-dns
    Dns(dns::Args),
    /// What it costs to read the figures of many endpoints
    Stats(stats::Args),
}

impl Bench {
    pub fn run(self) -> Result<ExitCode> {
        match self {
            Bench::Datapath(args) => datapath::bench(args),
            Bench::Ipam(args) => ipam::bench(args),
            Bench::Dns(args) => dns::bench(args),
            Bench::Stats(args) => stats::bench(args),
        }
    }
}

/// Shows what subcommands measured, and draws it if asked to.
fn report(bench: &Path, measured: &[PathBuf], plot: Option<&Path>) -> Result<ExitCode> {
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
fn measured(bench: &Path, words: &[&str]) -> Result<PathBuf> {
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
