//! `ipvlan-ctl run`.

use std::io::IsTerminal;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use serde::{Deserialize, Serialize};

use crate::kernel::Netns;
use crate::model::{Id, Invalid};
use crate::runtime::{self, Attach, Container, Output, RunError, Spec, shim};

use super::Places;
use super::connection::Connection;

/// Run a command in a network, in namespaces of its own.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  ipvlan-ctl run --net db_net --name ipv1 -d sleep 600")]
pub(super) struct RunArgs {
    /// Connect to this network; `none` for nothing but loopback
    #[arg(long = "net", visible_alias = "network", value_name = "NETWORK")]
    net: String,
    /// Name of the container [default: its short id]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// IPv4 address in the network [default: the next free one]
    #[arg(long, value_name = "ADDRESS")]
    ip: Option<Ipv4Addr>,
    /// IPv6 address in the network [default: the next free one]
    #[arg(long, value_name = "ADDRESS")]
    ip6: Option<Ipv6Addr>,
    /// Another name for the container in the network (repeatable)
    #[arg(long = "alias", visible_alias = "network-alias", value_name = "NAME")]
    aliases: Vec<String>,
    /// Host name inside the container [default: its name]
    #[arg(long, value_name = "NAME")]
    hostname: Option<String>,
    /// Forget the container when it ends
    #[arg(long)]
    rm: bool,
    /// Run in the background and print the container's id
    #[arg(short, long)]
    detach: bool,
    /// The command and its arguments
    #[arg(
        required = true,
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "COMMAND"
    )]
    command: Vec<String>,
}

/// One container with its network: all that a shim needs to know.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Request {
    pub spec: Spec,
    /// None for `--net none`.
    pub endpoint: Option<Endpoint>,
    /// The engine's, for the shim too.
    pub(super) places: Places,
}

/// How a container asks to be connected.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Endpoint {
    /// Name or id of the network.
    pub network: String,
    pub ip: Option<Ipv4Addr>,
    pub ip6: Option<Ipv6Addr>,
    pub aliases: Vec<String>,
}

impl RunArgs {
    fn into_request(self, places: Places) -> Result<Request, Invalid> {
        let id = Id::random();
        let name = match self.name {
            Some(name) => valid_name("--name", name)?,
            None => id.short().to_owned(),
        };
        let hostname = match self.hostname {
            Some(hostname) => valid_name("--hostname", hostname)?,
            None => name.clone(),
        };
        let endpoint = Endpoint {
            network: self.net,
            ip: self.ip,
            ip6: self.ip6,
            aliases: self
                .aliases
                .into_iter()
                .map(|alias| valid_name("--alias", alias))
                .collect::<Result<_, _>>()?,
        };
        let endpoint = match endpoint.network.as_str() {
            "none" => {
                endpoint.nothing_asked()?;
                None
            }
            _ => Some(endpoint),
        };
        let spec = Spec {
            id,
            name,
            env: environment(&hostname, !self.detach),
            hostname,
            command: self.command,
            remove: self.rm,
            run_dir: places.run_dir(),
        };
        Ok(Request {
            spec,
            endpoint,
            places,
        })
    }
}

impl Endpoint {
    /// `--net none` has no room for the options of an endpoint.
    fn nothing_asked(&self) -> Result<(), Invalid> {
        let asked = [
            ("--ip", self.ip.map(|ip| ip.to_string())),
            ("--ip6", self.ip6.map(|ip| ip.to_string())),
            ("--alias", self.aliases.first().cloned()),
        ];
        match asked
            .into_iter()
            .find_map(|(flag, value)| Some((flag, value?)))
        {
            Some((flag, value)) => Err(Invalid::new(flag, value, "not possible with --net none")),
            None => Ok(()),
        }
    }
}

/// A name that can stand in /etc/hosts and as one label in DNS.
fn valid_name(flag: &str, name: String) -> Result<String, Invalid> {
    let inner = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    let valid = name.len() <= 63
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.chars().all(inner);
    if valid {
        Ok(name)
    } else {
        let allowed =
            "1 to 63 of letters, digits, '_', '-' and '.', beginning with a letter or digit";
        Err(Invalid::new(flag, name, allowed))
    }
}

/// As little as Docker gives: nothing of the caller's leaks in.
fn environment(hostname: &str, foreground: bool) -> Vec<(String, String)> {
    let mut env = vec![
        (
            "PATH".to_owned(),
            "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned(),
        ),
        ("HOSTNAME".to_owned(), hostname.to_owned()),
        ("HOME".to_owned(), "/root".to_owned()),
    ];
    if foreground && std::io::stdout().is_terminal() {
        let term = std::env::var("TERM").unwrap_or_else(|_| "xterm".to_owned());
        env.push(("TERM".to_owned(), term));
    }
    env
}

/// Runs the command.
pub(super) fn run(args: RunArgs, places: Places) -> ExitCode {
    let detach = args.detach;
    let result = args
        .into_request(places)
        .map_err(anyhow::Error::from)
        .and_then(|request| {
            if detach {
                run_detached(&request)
            } else {
                supervise(&request, Output::Inherit, &mut || {}).map_err(Into::into)
            }
        });
    match result {
        Ok(status) => ExitCode::from(status),
        Err(e) => {
            eprintln!("ipvlan-ctl: {e:#}");
            ExitCode::from(e.downcast_ref().map_or(125, RunError::exit_status))
        }
    }
}

/// The shim's side of `run --detach`.
pub(super) fn run_shim() -> ExitCode {
    shim::main(|request: Request, started| {
        let state = request.spec.run_dir.container(&request.spec.id);
        let log = state.log().map_err(|error| RunError::State {
            path: state.path().to_owned(),
            error,
        })?;
        supervise(&request, Output::Log(log), started)
    })
}

fn supervise(request: &Request, output: Output, started: &mut dyn FnMut()) -> Result<u8, RunError> {
    let mut network: Box<dyn Attach> = match &request.endpoint {
        Some(endpoint) => Box::new(Connection::new(request.places.clone(), endpoint)),
        None => Box::new(NoNetwork),
    };
    runtime::run(&request.spec, network.as_mut(), output, |_| started())
}

fn run_detached(request: &Request) -> anyhow::Result<u8> {
    runtime::require_root()?;
    let state = request.spec.run_dir.container(&request.spec.id);
    let outcome = state
        .create()
        .and_then(|()| state.shim_log())
        .with_context(|| format!("cannot use {}", state.path().display()))
        .and_then(|log| shim::start(request, log).context("cannot start a shim"));
    match outcome {
        Ok(shim::Outcome::Started) => {
            println!("{}", request.spec.id);
            Ok(0)
        }
        Ok(shim::Outcome::Failed { status, message }) => {
            state.remove()?;
            eprintln!("ipvlan-ctl: {message}");
            Ok(status)
        }
        Err(e) => {
            state.remove()?;
            Err(e)
        }
    }
}

/// `--net none`: loopback, which every container has, and nothing else.
struct NoNetwork;

impl Attach for NoNetwork {
    fn attach(&mut self, _: &Container, _: &Netns) -> anyhow::Result<Vec<IpAddr>> {
        Ok(Vec::new())
    }

    fn running(&mut self, _: &Container) -> anyhow::Result<()> {
        Ok(())
    }

    fn detach(&mut self, _: &Container, _: &Netns) -> anyhow::Result<()> {
        Ok(())
    }
}
