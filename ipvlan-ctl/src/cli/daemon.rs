//! `ipvlan-ctl daemon`.

use std::io::{self, IsTerminal};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand, ValueEnum};
use serde_json::json;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::prelude::*;

use super::{Places, print};
use crate::adapters::docker;
use crate::daemon::{self, Listen};

/// Answer for names, be Docker's driver, and follow the host: its addresses, parents, namespaces
///
/// Endpoints ask 127.0.0.11. Without the daemon everything but names works, and what a change
/// on the host asks for waits for the next command. SIGHUP reads /etc/resolv.conf again.
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Example:\n  ipvlan-ctl daemon --log-format json"
)]
pub(super) struct Command {
    /// Least severity that is logged, on standard error
    #[arg(long, value_enum, value_name = "LEVEL", env = "IPVLAN_CTL_LOG", default_value_t = Level::Info)]
    log: Level,
    /// How a line of the log looks
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = Format::Text)]
    log_format: Format,
    /// End ten seconds after the last endpoint and network of Docker's, as `run` starts it
    #[arg(long)]
    until_idle: bool,
    /// Where metrics and the page are served: ADDRESS:PORT, or off
    ///
    /// Whoever reaches the address may read them. [default: 127.0.0.1:9786, if it is free]
    #[arg(long, value_name = "ADDRESS", env = "IPVLAN_CTL_HTTP", value_parser = http)]
    http: Option<Listen>,
    /// Socket on which Docker finds its driver, by the file's name, or off
    ///
    /// [default: /run/docker/plugins/ipvlan-ctl.sock, if it can be made]
    #[arg(long, value_name = "SOCKET", env = "IPVLAN_CTL_DOCKER_PLUGIN")]
    docker_plugin: Option<PathBuf>,
    /// Socket of Docker's own, which is asked what its containers are called
    #[arg(
        long,
        value_name = "SOCKET",
        env = "IPVLAN_CTL_DOCKER_API",
        default_value = "/run/docker.sock"
    )]
    docker_api: PathBuf,
    #[command(subcommand)]
    command: Option<Sub>,
}

fn http(text: &str) -> Result<Listen, &'static str> {
    match text {
        "off" => Ok(Listen::Off),
        _ => text
            .parse()
            .map(Listen::At)
            .map_err(|_| "an address with a port, such as 127.0.0.1:9786 or [::1]:80, or off"),
    }
}

#[derive(Debug, Subcommand)]
enum Sub {
    /// Show how the running daemon is
    #[command(after_help = "Example:\n  ipvlan-ctl daemon status --json")]
    Status {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Level {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Format {
    Text,
    /// One JSON object per line
    Json,
}

impl Command {
    pub(super) fn run(self, places: &Places) -> anyhow::Result<ExitCode> {
        match self.command {
            Some(Sub::Status { json }) => status(places, json),
            None => {
                log(self.log, self.log_format);
                let sockets = docker::Sockets {
                    plugin: match self.docker_plugin {
                        None => docker::Listen::Usual,
                        Some(path) if path.as_os_str() == "off" => docker::Listen::Off,
                        Some(path) => docker::Listen::At(path),
                    },
                    api: self.docker_api,
                };
                places.with_engine(async |engine| {
                    let http = self.http.unwrap_or(Listen::Usual);
                    let (home, place) = (places.daemon(), places.place()?);
                    daemon::serve(engine, &home, place, http, sockets, self.until_idle).await?;
                    Ok(ExitCode::SUCCESS)
                })
            }
        }
    }
}

fn status(places: &Places, json: bool) -> anyhow::Result<ExitCode> {
    let status = places.daemon().status()?;
    print(&match json {
        true => format!("{:#}\n", json!(status)),
        false => format!(
            "running, pid {}, version {}, {} namespaces served\n",
            status.pid, status.version, status.namespaces
        ),
    })?;
    Ok(ExitCode::SUCCESS)
}

/// What others put into a query must not fill the log: of the crates below ours, errors only.
fn log(level: Level, format: Format) {
    let level = match level {
        Level::Error => LevelFilter::ERROR,
        Level::Warn => LevelFilter::WARN,
        Level::Info => LevelFilter::INFO,
        Level::Debug => LevelFilter::DEBUG,
        Level::Trace => LevelFilter::TRACE,
    };
    let wanted = Targets::new()
        .with_target(env!("CARGO_CRATE_NAME"), level)
        .with_default(level.min(LevelFilter::ERROR));
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .with_target(false);
    let lines = match format {
        Format::Text => lines.boxed(),
        Format::Json => lines.json().boxed(),
    };
    tracing_subscriber::registry()
        .with(lines.with_filter(wanted))
        .init();
}
