//! The command line: words into verbs, results into text.

mod connection;
mod container;
mod daemon;
mod door;
mod filter;
mod graph;
mod inspect;
mod inspect_container;
mod manual;
mod network;
mod reading;
mod run;
mod selection;
mod stats;
mod table;
mod task;
mod top;
mod trace;
mod units;

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, Parser, Subcommand};
use serde::{Deserialize, Serialize};

use crate::adapters;
use crate::daemon::{AskError, Home, Place};
use crate::engine::Engine;
use crate::runtime::{self, RunDir};
use door::Door;

/// Container networks on Linux ipvlan with an eBPF datapath
#[derive(Debug, Parser)]
#[command(name = "ipvlan-ctl", version, propagate_version = true)]
struct Cli {
    #[command(flatten)]
    places: Places,
    #[command(subcommand)]
    command: Command,
}

/// A folder that a variable of the environment may name.
struct Folder {
    variable: &'static str,
    usual: &'static str,
}

const STATE_DIR: Folder = Folder {
    variable: "IPVLAN_CTL_STATE_DIR",
    usual: "/var/lib/ipvlan-ctl",
};
const PIN_DIR: Folder = Folder {
    variable: "IPVLAN_CTL_PIN_DIR",
    usual: "/sys/fs/bpf/ipvlan-ctl",
};
const RUN_DIR: Folder = Folder {
    variable: "IPVLAN_CTL_RUN_DIR",
    usual: RunDir::DEFAULT,
};

impl Folder {
    /// `None` if the variable is there and empty, which is a user's mistake.
    fn chosen(&self) -> Option<PathBuf> {
        match std::env::var_os(self.variable) {
            Some(path) if path.is_empty() => None,
            Some(path) => Some(path.into()),
            None => Some(self.usual.into()),
        }
    }
}

/// Where the host's state is.
#[derive(Debug, Clone, Args, Serialize, Deserialize)]
pub(crate) struct Places {
    /// Directory of the store
    #[arg(
        long,
        global = true,
        value_name = "DIR",
        env = STATE_DIR.variable,
        default_value = STATE_DIR.usual
    )]
    state_dir: PathBuf,
    /// Directory of a bpffs for the programs and maps
    #[arg(
        long,
        global = true,
        value_name = "DIR",
        env = PIN_DIR.variable,
        default_value = PIN_DIR.usual
    )]
    pin_dir: PathBuf,
    /// Directory of what lives no longer than this boot: containers, the daemon's socket
    #[arg(
        long,
        global = true,
        value_name = "DIR",
        env = RUN_DIR.variable,
        default_value = RUN_DIR.usual
    )]
    run_dir: PathBuf,
}

impl Places {
    /// What an empty command line means. `None` where clap has something to say about it.
    fn without_words() -> Option<Self> {
        if std::env::args_os().len() > 1 {
            return None;
        }
        Some(Self {
            state_dir: STATE_DIR.chosen()?,
            pin_dir: PIN_DIR.chosen()?,
            run_dir: RUN_DIR.chosen()?,
        })
    }

    pub(crate) fn run_dir(&self) -> RunDir {
        RunDir::new(&self.run_dir)
    }

    /// The same folders for a process that works elsewhere.
    fn absolute(&self) -> io::Result<Self> {
        Ok(Self {
            state_dir: std::path::absolute(&self.state_dir)?,
            pin_dir: std::path::absolute(&self.pin_dir)?,
            run_dir: std::path::absolute(&self.run_dir)?,
        })
    }

    /// The words of a command of ours in the same places.
    pub(crate) fn words(&self, command: impl IntoIterator<Item = &'static str>) -> Vec<OsString> {
        let mut words: Vec<OsString> = command.into_iter().map(Into::into).collect();
        for (flag, folder) in [
            ("--state-dir", &self.state_dir),
            ("--pin-dir", &self.pin_dir),
            ("--run-dir", &self.run_dir),
        ] {
            words.push(flag.into());
            let absolute = std::path::absolute(folder).unwrap_or_else(|_| folder.clone());
            words.push(absolute.into());
        }
        words
    }

    pub(crate) fn daemon(&self) -> Home {
        Home::new(self.run_dir().path())
    }

    /// What a daemon must share that is to do our work.
    pub(crate) fn place(&self) -> anyhow::Result<Place> {
        let here = Place::here(self.state_dir.clone(), self.pin_dir.clone());
        here.context("cannot tell in which network namespace this is")
    }

    /// Returns when the daemon, if one runs, knows of what was changed. The work is done: that
    /// names are late is no reason to fail.
    fn tell_daemon(&self) {
        match self.daemon().refresh() {
            Ok(()) | Err(AskError::NotRunning) => {}
            Err(error) => report(&anyhow::Error::from(error).context("names may be old")),
        }
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
        runtime.block_on(async {
            let engine = Engine::new(&self.state_dir, &self.pin_dir)?;
            let done = work(&engine).await;
            if engine.has_changed() {
                self.tell_daemon();
            }
            done
        })
    }
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make, list, inspect, join, leave and remove networks
    #[command(subcommand)]
    Network(network::Command),
    #[command(after_help = "Example:\n  ipvlan-ctl stats --json ipv1")]
    Stats(stats::Command),
    #[command(after_help = "Example:\n  ipvlan-ctl top --network db_net")]
    Top(top::Command),
    /// Show packets as they are dropped: whose, where, why, and their five-tuple
    #[command(after_help = "Example:\n  ipvlan-ctl trace --reason spoofed-source ipv1")]
    Trace(trace::Command),
    /// Bring the store, the kernel and the pins back to agreement
    #[command(after_help = "Example:\n  ipvlan-ctl repair")]
    Repair {
        /// Replace the eBPF programs even where they are a newer version's
        #[arg(long)]
        downgrade: bool,
    },
    Run(Box<run::RunArgs>),
    Exec(container::Exec),
    Ps(container::Ps),
    Stop(container::Stop),
    Kill(container::Kill),
    Rm(container::Rm),
    Logs(container::Logs),
    Wait(container::Wait),
    Inspect(inspect_container::Inspect),
    Daemon(daemon::Command),
    Completion(manual::Completion),
    #[command(name = manual::SUBCOMMAND, hide = true)]
    Manual {
        folder: PathBuf,
    },
    /// Be a CNI plugin, as when called by the name ipvlan-ctl-cni
    #[command(after_help = "Example:\n  CNI_COMMAND=VERSION ipvlan-ctl cni </dev/null")]
    Cni,
    /// Be a netavark plugin, for Podman, as when called in a folder named netavark
    #[command(subcommand)]
    Netavark(adapters::netavark::Verb),
    #[command(name = runtime::init::SUBCOMMAND, hide = true)]
    Init {
        control: i32,
    },
    #[command(name = runtime::shim::SUBCOMMAND, hide = true)]
    Shim,
}

pub fn main() -> ExitCode {
    // clap itself ends with 2 where the words make no command.
    let done = match Door::called() {
        Some(door) => door.run(),
        None => Cli::parse().run(),
    };
    match done {
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
        let places = self.places.absolute().context("cannot tell where we are")?;
        match self.command {
            Command::Network(command) => {
                places.with_engine(async |engine| command.run(engine, &places.run_dir()).await)
            }
            Command::Stats(command) => places.with_engine(async |engine| command.run(engine).await),
            Command::Trace(command) => places.with_engine(async |engine| command.run(engine).await),
            Command::Top(command) => places.with_engine(async |engine| command.run(engine).await),
            Command::Repair { downgrade } => repair(&places, downgrade),
            Command::Run(args) => Ok(run::run(*args, places)),
            Command::Exec(command) => Ok(command.run(&places)),
            Command::Ps(command) => command.run(&places),
            Command::Stop(command) => command.run(&places),
            Command::Kill(command) => command.run(&places),
            Command::Rm(command) => command.run(&places),
            Command::Logs(command) => command.run(&places),
            Command::Wait(command) => command.run(&places),
            Command::Inspect(command) => command.run(&places),
            Command::Daemon(command) => command.run(&places),
            Command::Completion(command) => command.run(),
            Command::Manual { folder } => manual::write(&folder),
            Command::Cni => Ok(door::be_cni(&places)),
            Command::Netavark(verb) => Ok(door::be_netavark(verb, &places)),
            Command::Init { control } => Ok(runtime::init::main(control)),
            Command::Shim => Ok(run::run_shim()),
        }
    }
}

fn repair(places: &Places, downgrade: bool) -> anyhow::Result<ExitCode> {
    let mut done = places.with_engine(async |engine| {
        let downgraded = if downgrade { engine.downgrade()? } else { None };
        let repaired = engine.repair().await?;
        Ok(downgraded.into_iter().chain(repaired).collect::<Vec<_>>())
    })?;
    done.extend(places.run_dir().sweep()?);
    let lines: String = done.into_iter().map(|line| line + "\n").collect();
    print(&lines)?;
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

    #[test]
    fn every_command_has_an_example() {
        let mut left = vec![super::Cli::command()];
        while let Some(command) = left.pop() {
            let below: Vec<_> = command
                .get_subcommands()
                .filter(|below| !below.is_hide_set())
                .cloned()
                .collect();
            let example = command.get_after_help().map(|help| help.to_string());
            assert!(
                !below.is_empty() || example.is_some_and(|help| help.starts_with("Example")),
                "{}",
                command.get_name()
            );
            left.extend(below);
        }
    }
}
