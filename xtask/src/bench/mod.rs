//! `bench`: how fast it is. The measuring itself is done by the crate `ipvlan-bench`, which is
//! built and run from here.

mod attach;
mod connect;
mod datapath;
mod dns;
mod ipam;
mod stats;

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result, ensure};
use clap::Subcommand;

use crate::cargo::workspace;
use crate::kernels::{Kernel, Line};
use crate::progress::step;
use crate::setup;
use crate::vm::{Job, Stream, Vm};

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
    /// What it costs that a container joins a network, by ours and by others; in a VM
    Attach(attach::Args),
    /// What a connect costs, by ours, against how many there are; in a VM
    Connect(connect::Args),
}

impl Bench {
    pub fn run(self) -> Result<ExitCode> {
        match self {
            Bench::Datapath(args) => datapath::bench(args),
            Bench::Ipam(args) => ipam::bench(args),
            Bench::Dns(args) => dns::bench(args),
            Bench::Stats(args) => stats::bench(args),
            Bench::Attach(args) => attach::bench(args),
            Bench::Connect(args) => connect::bench(args),
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

/// The file for the tables of a subcommand, and the same opened.
fn tables(subcommand: &str) -> Result<(PathBuf, File)> {
    let path = folder()?.join(subcommand).with_extension("json");
    let file = File::create(&path).with_context(|| path.display().to_string())?;
    Ok((path, file))
}

/// The file with the tables that a subcommand of `ipvlan-bench` measured here.
fn measured(bench: &Path, words: &[&str]) -> Result<PathBuf> {
    let (file, output) = tables(words[0])?;
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

/// As [`measured`], in a VM, where ipvlan is at hand.
fn measured_in_vm(bench: &Path, words: &[&str], line: Line) -> Result<PathBuf> {
    let vm = Vm::new(Kernel::ready(line)?, None, &setup::vm_tools()?)?;
    let program = [bench.as_os_str().to_owned()];
    let job = Job {
        command: program
            .into_iter()
            .chain(words.iter().map(OsString::from))
            .collect(),
        ..Job::default()
    };
    let (file, mut output) = tables(words[0])?;
    step(format!("Measuring {} on kernel {line}", words[0]), |_| {
        let status = vm.run(&job, &mut |stream, bytes| match stream {
            Stream::Out => output.write_all(bytes),
            Stream::Err => io::stderr().write_all(bytes),
        })?;
        ensure!(status == 0, "ipvlan-bench {} ended with {status}", words[0]);
        Ok(())
    })?;
    Ok(file)
}
