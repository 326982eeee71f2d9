//! The command line: words into verbs, results into text.

mod connection;
mod daemon;
mod inspect;
mod network;
mod run;
mod stats;
mod table;

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, Parser, Subcommand};
use serde::{Deserialize, Serialize};

use crate::daemon::Home;
use crate::engine::Engine;
use crate::runtime::{self, RunDir};

/// Container networks on Linux ipvlan with an eBPF datapath
#[derive(Debug, Parser)]
#[command(name = "ipvlan-ctl", version, propagate_version = true)]
struct Cli {
    #[command(flatten)]
    places: Places,
    #[command(subcommand)]
    command: Command,
}

/// Where the host's state is.
#[derive(Debug, Clone, Args, Serialize, Deserialize)]
pub(crate) struct Places {
    /// Directory of the store
    #[arg(
        long,
        global = true,
        value_name = "DIR",
        env = "IPVLAN_CTL_STATE_DIR",
        default_value = "/var/lib/ipvlan-ctl"
    )]
    state_dir: PathBuf,
    /// Directory of a bpffs for the programs and maps
    #[arg(
        long,
        global = true,
        value_name = "DIR",
        env = "IPVLAN_CTL_PIN_DIR",
        default_value = "/sys/fs/bpf/ipvlan-ctl"
    )]
    pin_dir: PathBuf,
    /// Directory of what lives no longer than this boot: containers, the daemon's socket
    #[arg(
        long,
        global = true,
        value_name = "DIR",
        env = "IPVLAN_CTL_RUN_DIR",
        default_value = RunDir::DEFAULT
    )]
    run_dir: PathBuf,
}

impl Places {
    /// The same folder for a process that works elsewhere.
    pub(crate) fn run_dir(&self) -> RunDir {
        RunDir::new(std::path::absolute(&self.run_dir).unwrap_or_else(|_| self.run_dir.clone()))
    }

    pub(crate) fn daemon(&self) -> Home {
        Home::new(self.run_dir().path())
    }

    /// Does some work with an engine, on one thread: it stays in the host's network namespace.
    pub(crate) fn with_engine<T>(
        &self,
        work: impl AsyncFnOnce(&Engine) -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("cannot start the runtime")?;
        runtime.block_on(async { work(&Engine::new(&self.state_dir, &self.pin_dir)?).await })
    }
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make, list, inspect, join, leave and remove networks
    #[command(subcommand)]
    Network(network::Command),
    /// Show packets and bytes of endpoints, and what was dropped and why
    Stats(stats::Command),
    /// Bring the store, the kernel and the pins back to agreement
    Repair,
    Run(run::RunArgs),
    Daemon(daemon::Command),
    #[command(name = runtime::init::SUBCOMMAND, hide = true)]
    Init {
        control: i32,
    },
    #[command(name = runtime::shim::SUBCOMMAND, hide = true)]
    Shim,
}

pub fn main() -> ExitCode {
    // clap itself ends with 2 where the words make no command.
    let cli = Cli::parse();
    match cli.run() {
        Ok(code) => code,
        // The reader has what it wanted, as in `ipvlan-ctl network ls | head -1`.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            report(&error);
            ExitCode::FAILURE
        }
    }
}

impl Cli {
    fn run(self) -> anyhow::Result<ExitCode> {
        match self.command {
            Command::Network(command) => self
                .places
                .with_engine(async |engine| command.run(engine).await),
            Command::Stats(command) => self
                .places
                .with_engine(async |engine| command.run(engine).await),
            Command::Repair => self.places.with_engine(repair),
            Command::Run(args) => Ok(run::run(args, self.places)),
            Command::Daemon(command) => command.run(&self.places),
            Command::Init { control } => Ok(runtime::init::main(control)),
            Command::Shim => Ok(run::run_shim()),
        }
    }
}

async fn repair(engine: &Engine) -> anyhow::Result<ExitCode> {
    let mut text = String::new();
    for done in engine.repair().await? {
        text.push_str(&done);
        text.push('\n');
    }
    print(&text)?;
    Ok(ExitCode::SUCCESS)
}

/// Writes to standard output.
pub(crate) fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// Tells an error on standard error, in one line.
pub(crate) fn report(error: &anyhow::Error) {
    let mut line = String::new();
    for cause in error.chain().map(|cause| cause.to_string()) {
        // Most messages end with their cause already.
        if !line.ends_with(&cause) {
            let link = if line.is_empty() { "" } else { ": " };
            line = line + link + &cause;
        }
    }
    let line = line.replace('\n', " ");
    // There is no one left to tell if this fails.
    let _ = writeln!(io::stderr(), "ipvlan-ctl: {line}");
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<io::Error>()
        .is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        super::Cli::command().debug_assert();
    }
}
