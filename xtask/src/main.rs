//! `cargo xtask`: builds, runs and tests ipvlan-ctl, on this host or on real kernels in QEMU.

mod apt;
mod bench;
mod cargo;
mod docker;
mod initramfs;
mod kernels;
mod podman;
mod progress;
mod run;
mod setup;
mod tests;
mod tour;
mod vm;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use kernels::Line;

#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", about, version)]
struct Args {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Install or download everything this machine lacks
    Setup {
        /// Fetch only these test kernels [default: all]
        #[arg(long = "kernel", value_name = "K")]
        kernels: Vec<Line>,
    },
    /// Build ipvlan-ctl with its eBPF datapath
    Build,
    /// Show the main job as a tour, or run ipvlan-ctl with ARGS
    Run(run::Args),
    /// Open a shell on a real kernel, with ipvlan-ctl on PATH
    Shell {
        /// The kernel to boot
        #[arg(long, value_name = "K", default_value_t)]
        kernel: Line,
    },
    /// Run the unit tests here and the kernel tests on each kernel
    Test(tests::Args),
    /// Measure how fast it is
    #[command(subcommand)]
    Bench(bench::Bench),
    /// Write the man pages to target/man
    Man,
    /// The tour itself, where ipvlan is at hand
    #[command(hide = true)]
    Tour,
}

fn main() -> ExitCode {
    match dispatch(Args::parse().task) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn dispatch(task: Task) -> Result<ExitCode> {
    match task {
        Task::Setup { kernels } => setup::everything(&kernels),
        Task::Build => setup::build_tools().and_then(|tools| {
            let binary = cargo::build_ipvlan_ctl(&tools)?;
            println!("{}", binary.display());
            Ok(ExitCode::SUCCESS)
        }),
        Task::Run(args) => run::run(args),
        Task::Shell { kernel } => run::shell(kernel),
        Task::Test(args) => tests::test(args),
        Task::Bench(bench) => bench.run(),
        Task::Man => setup::build_tools().and_then(|tools| cargo::write_manual(&tools)),
        Task::Tour => tour::tour(),
    }
}
