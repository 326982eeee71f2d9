//! The command line.

mod run;

use std::process::ExitCode;

use anyhow::bail;
use clap::{Parser, Subcommand};

use crate::runtime::{self, Attach};

/// Container networks on Linux ipvlan with an eBPF datapath.
#[derive(Debug, Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Run(run::RunArgs),
    #[command(name = runtime::init::SUBCOMMAND, hide = true)]
    Init {
        control: i32,
    },
    #[command(name = runtime::shim::SUBCOMMAND, hide = true)]
    Shim,
}

pub fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Run(args) => run::run(args, connect),
        Command::Init { control } => runtime::init::main(control),
        Command::Shim => run::run_shim(connect),
    }
}

fn connect(request: &run::Request) -> anyhow::Result<Box<dyn Attach>> {
    match &request.endpoint {
        Some(endpoint) => bail!("network {:?} not found", endpoint.network),
        None => unreachable!("nothing to connect"),
    }
}
