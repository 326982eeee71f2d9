//! `ipvlan-ctl run`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use clap::builder::FalseyValueParser;
use serde::{Deserialize, Serialize};

use super::connection::{Connections, Endpoint, valid_name};
use super::task::TaskArgs;
use super::{Places, report};
use crate::model::{Id, Invalid};
use crate::runtime::{self, Console, Dns, Limits, RunError, Spec, Task, User, shim};

/// Run a command on networks, in namespaces of its own
///
/// The container sees the host's files read-only, with /tmp and /run of its own, unless --rootfs
/// gives it another root. There are no images.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  ipvlan-ctl run --net db_net --name ipv1 -itd sh\n  ipvlan-ctl run --net db_net --rm -it --rootfs /srv/alpine /bin/sh"
)]
pub(super) struct RunArgs {
    /// Connect to this network, as eth0, eth1 and so on (repeatable); `none` for nothing but
    /// loopback; name=NETWORK,ip=ADDRESS,ip6=ADDRESS,alias=NAME,gw-priority=NUMBER for one with
    /// options
    #[arg(
        long = "net",
        visible_alias = "network",
        value_name = "NETWORK",
        required = true
    )]
    networks: Vec<String>,
    /// Name of the container [default: its short id]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// IPv4 address in the first network [default: the next free one]
    #[arg(long, value_name = "ADDRESS")]
    ip: Option<Ipv4Addr>,
    /// IPv6 address in the first network [default: the next free one]
    #[arg(long, value_name = "ADDRESS")]
    ip6: Option<Ipv6Addr>,
    /// Another name for the container in the first network (repeatable)
    #[arg(long = "network-alias", visible_alias = "alias", value_name = "NAME")]
    aliases: Vec<String>,
    /// Host name inside the container [default: its name]
    #[arg(long, value_name = "NAME")]
    hostname: Option<String>,
    /// Ask this server for names outside, instead of the host's (repeatable)
    #[arg(long, value_name = "ADDRESS")]
    dns: Vec<IpAddr>,
    /// Look for names in this domain too, instead of the host's; `.` for none (repeatable)
    #[arg(long, value_name = "DOMAIN")]
    dns_search: Vec<String>,
    /// Option for resolv.conf, instead of the host's (repeatable)
    #[arg(long = "dns-opt", visible_alias = "dns-option", value_name = "OPTION")]
    dns_options: Vec<String>,
    /// Do not start a daemon where none runs: without one there are no names
    #[arg(long, env = "IPVLAN_CTL_NO_DAEMON", value_parser = FalseyValueParser::new())]
    no_daemon: bool,
    /// Forget the container when it ends
    #[arg(long)]
    rm: bool,
    /// Run in the background and print the container's id
    #[arg(short, long)]
    detach: bool,
    /// The container's root, which it may write [default: the host's, read-only]
    #[arg(long, value_name = "DIR")]
    rootfs: Option<PathBuf>,
    /// Give it a capability more than docker does, or ALL (repeatable); SYS_ADMIN and ALL give it
    /// the host
    #[arg(long, value_name = "CAPABILITY")]
    cap_add: Vec<String>,
    /// Take a capability from it, or ALL (repeatable)
    #[arg(long, value_name = "CAPABILITY")]
    cap_drop: Vec<String>,
    /// Memory it may use, in bytes or with b, k, m or g
    #[arg(short, long, value_name = "BYTES")]
    memory: Option<String>,
    /// Processors it may use, such as 1.5
    #[arg(long, value_name = "NUMBER")]
    cpus: Option<String>,
    /// Ignored: an endpoint is reached at its own address
    #[arg(short, long, value_name = "PORTS")]
    publish: Vec<String>,
    /// Ignored, as --publish
    #[arg(short = 'P', long)]
    publish_all: bool,
    /// Ignored, as --publish
    #[arg(long, value_name = "PORT")]
    expose: Vec<String>,
    #[command(flatten)]
    task: TaskArgs,
}

/// One container with its network: all that a shim needs to know.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Request {
    spec: Spec,
    /// None for `--net none`.
    endpoints: Vec<Endpoint>,
    no_daemon: bool,
    /// The engine's, for the shim too.
    places: Places,
}

impl RunArgs {
    fn into_request(self, places: Places) -> Result<Request, Invalid> {
        let id = Id::random();
        let name = match &self.name {
            Some(name) => valid_name("--name", name)?,
            None => id.short().to_owned(),
        };
        let hostname = match &self.hostname {
            Some(hostname) => valid_name("--hostname", hostname)?,
            None => name.clone(),
        };
        let defaults = Task {
            command: Vec::new(),
            env: environment(&hostname),
            workdir: None,
            user: User::default(),
            capabilities: runtime::capabilities(&self.cap_add, &self.cap_drop)?,
            tty: false,
            interactive: false,
        };
        let endpoints = self.endpoints()?;
        let spec = Spec {
            limits: Limits::parse(self.memory.as_deref(), self.cpus.as_deref())?,
            rootfs: self.rootfs.as_deref().map(folder).transpose()?,
            task: self.task.apply(defaults, !self.detach)?,
            networks: endpoints
                .iter()
                .map(|endpoint| endpoint.network.clone())
                .collect(),
            id,
            name,
            hostname,
            dns: Dns {
                search: words("--dns-search", self.dns_search)?,
                options: words("--dns-opt", self.dns_options)?,
                servers: self.dns,
            },
            remove: self.rm,
        };
        Ok(Request {
            spec,
            endpoints,
            no_daemon: self.no_daemon,
            places,
        })
    }

    /// Options outside `--net` are the first network's, as docker's.
    fn endpoints(&self) -> Result<Vec<Endpoint>, Invalid> {
        let mut endpoints = self
            .networks
            .iter()
            .map(|text| Endpoint::parse(text))
            .collect::<Result<Vec<_>, _>>()?;
        if let Some(first) = endpoints.first_mut() {
            first.ip = self.ip.or(first.ip);
            first.ip6 = self.ip6.or(first.ip6);
            for alias in &self.aliases {
                first.aliases.push(valid_name("--network-alias", alias)?);
            }
        }
        for (index, endpoint) in endpoints.iter().enumerate() {
            if endpoint.is_none()? {
                return match endpoints.len() {
                    1 => Ok(Vec::new()),
                    _ => Err(Invalid::new("--net", "none", "alone, if at all")),
                };
            }
            if endpoints[..index]
                .iter()
                .any(|earlier| earlier.network == endpoint.network)
            {
                return Err(Invalid::new(
                    "--net",
                    &endpoint.network,
                    "each network once",
                ));
            }
        }
        Ok(endpoints)
    }

    fn warn_of_ports(&self) {
        let port = self.publish.first().or(self.expose.first());
        if port.is_some() || self.publish_all {
            eprintln!(
                "WARNING: published ports are ignored: an ipvlan endpoint is reached at its own address"
            );
        }
    }
}

/// Words that can stand in a line of resolv.conf.
fn words(flag: &str, words: Vec<String>) -> Result<Vec<String>, Invalid> {
    let bad = words
        .iter()
        .find(|word| word.is_empty() || !word.chars().all(|c| c.is_ascii_graphic()));
    match bad {
        None => Ok(words),
        Some(word) => Err(Invalid::new(flag, word, "one word of visible characters")),
    }
}

fn folder(path: &Path) -> Result<PathBuf, Invalid> {
    match path.canonicalize() {
        Ok(path) if path.is_dir() => Ok(path),
        _ => Err(Invalid::new(
            "--rootfs",
            path.display().to_string(),
            "a directory that is there",
        )),
    }
}

/// As little as Docker gives: nothing of the caller's leaks in.
fn environment(hostname: &str) -> Vec<(String, String)> {
    let path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    vec![
        ("PATH".to_owned(), path.to_owned()),
        ("HOSTNAME".to_owned(), hostname.to_owned()),
    ]
}

/// Runs the command.
pub(super) fn run(args: RunArgs, places: Places) -> ExitCode {
    let detach = args.detach;
    args.warn_of_ports();
    let result = args
        .into_request(places)
        .map_err(anyhow::Error::from)
        .and_then(|request| {
            if detach {
                run_detached(&request)
            } else {
                supervise(&request, Console::Caller, &mut || {}).map_err(Into::into)
            }
        });
    match result {
        Ok(status) => ExitCode::from(status),
        Err(e) => {
            report(&e);
            ExitCode::from(e.downcast_ref().map_or(125, RunError::exit_status))
        }
    }
}

/// The shim's side of `run --detach`.
pub(super) fn run_shim() -> ExitCode {
    shim::main(|request: Request, started| supervise(&request, Console::Detached, started))
}

fn supervise(
    request: &Request,
    console: Console,
    started: &mut dyn FnMut(),
) -> Result<u8, RunError> {
    let mut network = Connections::new(
        request.places.clone(),
        request.endpoints.clone(),
        request.no_daemon,
    );
    let run_dir = request.places.run_dir();
    runtime::run(&run_dir, &request.spec, &mut network, console, started)
}

fn run_detached(request: &Request) -> anyhow::Result<u8> {
    runtime::require_root()?;
    match shim::start(request).context("cannot start a shim")? {
        shim::Outcome::Started => {
            println!("{}", request.spec.id);
            Ok(0)
        }
        shim::Outcome::Failed { status, message } => {
            eprintln!("ipvlan-ctl: {message}");
            Ok(status)
        }
    }
}
