//! `ipvlan-ctl network …`, in docker's words.

use std::collections::HashSet;
use std::io::{self, BufRead};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::filter::Filter;
use super::inspect::{inspection, overview, plan, timestamp};
use super::table::table;
use super::{graph, print, report};
use crate::engine::{ConnectRequest, Engine, EngineError, netns_path};
use crate::model::{CreateRequest, FindError, Invalid, Network};
use crate::runtime::{RecordError, RunDir};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Make a network and print its id
    #[command(
        after_help = "Example:\n  ipvlan-ctl network create -d ipvlan --subnet 192.168.1.0/24 -o parent=eth0 db_net"
    )]
    Create(Create),
    /// List networks
    #[command(after_help = "Example:\n  ipvlan-ctl network ls --filter name=db")]
    #[command(visible_alias = "list")]
    Ls(Ls),
    /// Show networks in detail, as JSON
    #[command(after_help = "Example:\n  ipvlan-ctl network inspect db_net")]
    Inspect {
        /// json, on one line, or table
        #[arg(short, long, value_name = "FORMAT")]
        format: Option<String>,
        /// Names, ids or beginnings of ids
        #[arg(required = true, value_name = "NETWORK")]
        networks: Vec<String>,
    },
    Graph(graph::Command),
    /// Remove networks without endpoints
    #[command(after_help = "Example:\n  ipvlan-ctl network rm db_net")]
    #[command(visible_alias = "remove")]
    Rm {
        /// No error where there is no such network; remove one that is Docker's
        #[arg(short, long)]
        force: bool,
        /// Names, ids or beginnings of ids
        #[arg(required = true, value_name = "NETWORK")]
        networks: Vec<String>,
    },
    /// Give a network namespace an interface on a network
    #[command(after_help = "Example:\n  ipvlan-ctl network connect --ip 192.168.1.20 db_net web")]
    Connect(Connect),
    /// Take an endpoint off a network
    #[command(after_help = "Example:\n  ipvlan-ctl network disconnect db_net web")]
    Disconnect {
        /// Forget the endpoint even where the kernel refuses
        #[arg(short, long)]
        force: bool,
        network: String,
        /// Name or id of the endpoint, or what names its namespace
        #[arg(value_name = "ENDPOINT")]
        endpoint: String,
    },
    /// Remove every network without endpoints
    #[command(after_help = "Example:\n  ipvlan-ctl network prune -f --filter label=test")]
    Prune {
        /// Do not ask
        #[arg(short, long)]
        force: bool,
        /// Only these: label=KEY[=VALUE], label!=KEY[=VALUE], until=TIME (a date and time, seconds
        /// since 1970, or an age such as 24h)
        #[arg(long, value_name = "KEY=VALUE")]
        filter: Vec<String>,
    },
}

#[derive(Debug, Args)]
pub(super) struct Create {
    /// Driver: ipvlan
    #[arg(short, long)]
    driver: Option<String>,
    /// Subnet in CIDR form; again for more
    #[arg(long, value_delimiter = ',', value_name = "CIDR")]
    subnet: Vec<String>,
    /// Gateway of a subnet
    #[arg(long, value_delimiter = ',', value_name = "ADDRESS")]
    gateway: Vec<String>,
    /// Part of a subnet to take addresses from
    #[arg(long, value_delimiter = ',', value_name = "CIDR")]
    ip_range: Vec<String>,
    /// An address that no endpoint gets
    #[arg(long, value_name = "NAME=ADDRESS")]
    aux_address: Vec<String>,
    /// Driver option: parent, ipvlan_mode, ipvlan_flag, host_access, shared_parent,
    /// link_in_container
    #[arg(
        short,
        long = "opt",
        visible_alias = "option",
        value_name = "KEY=VALUE"
    )]
    opt: Vec<String>,
    /// Label of the network
    #[arg(long, value_name = "KEY=VALUE")]
    label: Vec<String>,
    /// Let nothing out of the network or in
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true",
          default_value_t = false, action = clap::ArgAction::Set, value_name = "BOOL")]
    internal: bool,
    /// Give endpoints IPv6 addresses
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true",
          default_value_t = false, action = clap::ArgAction::Set, value_name = "BOOL")]
    ipv6: bool,
    /// Give endpoints IPv4 addresses (the default)
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true",
          value_name = "BOOL")]
    ipv4: Option<bool>,
    /// MTU of the endpoints' interfaces
    #[arg(long, value_name = "BYTES")]
    mtu: Option<String>,
    /// Say what would be made, and make nothing
    #[arg(long)]
    dry_run: bool,
    name: String,
}

#[derive(Debug, Args)]
pub(super) struct Ls {
    /// Print ids only
    #[arg(short, long)]
    quiet: bool,
    /// Print ids in full
    #[arg(long)]
    no_trunc: bool,
    /// table, or json: one object per line
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// dangling=, driver=, id=, label=, name=, scope= or type=
    #[arg(short, long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Table,
    Json,
}

impl Format {
    fn parse(word: &str) -> Result<Self, Invalid> {
        match word {
            "table" => Ok(Self::Table),
            "json" => Ok(Self::Json),
            _ => {
                let hint = if word.contains("{{") {
                    "; Go templates are not supported"
                } else {
                    ""
                };
                let allowed = format!("it is table or json{hint}");
                Err(Invalid::new("--format", word, allowed))
            }
        }
    }
}

#[derive(Debug, Args)]
pub(super) struct Connect {
    /// IPv4 address to take
    #[arg(long, value_name = "ADDRESS")]
    ip: Option<Ipv4Addr>,
    /// IPv6 address to take
    #[arg(long, value_name = "ADDRESS")]
    ip6: Option<Ipv6Addr>,
    /// Another name of the endpoint on this network
    #[arg(long, value_name = "NAME")]
    alias: Vec<String>,
    /// Name of the interface [default: the first free ethN]
    #[arg(long, value_name = "NAME")]
    ifname: Option<String>,
    /// Of the networks of a container, the one with the highest number has the default route;
    /// among equals the first
    #[arg(
        long,
        value_name = "NUMBER",
        default_value_t = 0,
        allow_negative_numbers = true
    )]
    gw_priority: i32,
    /// Name of the endpoint [default: the container's or namespace's name, or pid-N]
    #[arg(long)]
    name: Option<String>,
    network: String,
    /// A container, or a network namespace: a path, a name of `ip netns`, or a pid
    target: String,
}

impl Command {
    pub(super) async fn run(
        mut self,
        engine: &Engine,
        run_dir: &RunDir,
    ) -> anyhow::Result<ExitCode> {
        if let Self::Connect(connect) = &mut self {
            connect.find_container(run_dir)?;
        }
        match self {
            Self::Create(create) => create.run(engine).await,
            Self::Ls(ls) => ls.run(engine),
            Self::Inspect { format, networks } => {
                inspect(engine, format.as_deref(), &networks).await
            }
            Self::Graph(graph) => graph.run(engine).await,
            Self::Rm { force, networks } => remove(engine, force, &networks).await,
            Self::Connect(connect) => connect.run(engine).await,
            Self::Disconnect {
                force,
                network,
                endpoint,
            } => {
                engine.disconnect(&network, &endpoint, force).await?;
                Ok(ExitCode::SUCCESS)
            }
            Self::Prune { force, filter } => prune(engine, force, &filter).await,
        }
    }
}

impl Create {
    async fn run(self, engine: &Engine) -> anyhow::Result<ExitCode> {
        let request = CreateRequest {
            id: None,
            promised: false,
            external_ipam: false,
            name: self.name,
            driver: self.driver,
            internal: self.internal,
            ipv4: self.ipv4,
            ipv6: self.ipv6,
            subnets: self.subnet,
            gateways: self.gateway,
            ip_ranges: self.ip_range,
            aux_addresses: self.aux_address,
            options: self.opt,
            labels: self.label,
            mtu: self.mtu,
        };
        if self.dry_run {
            print(&plan(&engine.plan_network(&request).await?))?;
            return Ok(ExitCode::SUCCESS);
        }
        let network = engine.create_network(&request).await?;
        print(&format!("{}\n", network.id))?;
        Ok(ExitCode::SUCCESS)
    }
}

impl Ls {
    fn run(self, engine: &Engine) -> anyhow::Result<ExitCode> {
        let filter = Filter::of_ls(&self.filter)?;
        let format = self
            .format
            .as_deref()
            .map_or(Ok(Format::Table), Format::parse)?;
        let mut networks = engine.networks()?;
        let used = match filter.asks_for("dangling") {
            true => engine.used_networks()?,
            false => HashSet::new(),
        };
        networks.retain(|network| filter.takes(network, used.contains(&network.id)));
        networks.sort_by(|a, b| a.name.cmp(&b.name));
        let id = |network: &Network| match self.no_trunc {
            true => network.id.to_string(),
            false => network.id.short().to_owned(),
        };
        let text = match format {
            _ if self.quiet => networks.iter().map(|n| id(n) + "\n").collect(),
            Format::Json => networks
                .iter()
                .map(|network| line_of(network, id(network)).to_string() + "\n")
                .collect(),
            Format::Table => table(
                ["NETWORK ID", "NAME", "DRIVER", "SCOPE"],
                networks
                    .iter()
                    .map(|n| [id(n), n.name.clone(), "ipvlan".into(), "local".into()]),
            ),
        };
        print(&text)?;
        Ok(ExitCode::SUCCESS)
    }
}

/// A line of `ls --format json`: docker has every value as a string.
fn line_of(network: &Network, id: String) -> Value {
    let labels: Vec<String> = network
        .labels
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    json!({
        "CreatedAt": timestamp(network.created),
        "Driver": "ipvlan",
        "ID": id,
        "IPv4": network.ipv4.to_string(),
        "IPv6": network.ipv6.to_string(),
        "Internal": network.internal.to_string(),
        "Labels": labels.join(","),
        "Name": network.name,
        "Scope": "local",
    })
}

impl Connect {
    /// Puts a running container's namespace in the place of its name; a namespace that is called
    /// so goes first.
    fn find_container(&mut self, run_dir: &RunDir) -> anyhow::Result<()> {
        if netns_path(&self.target).exists() {
            return Ok(());
        }
        match run_dir.find(&self.target) {
            Err(RecordError::NotFound(_)) => Ok(()),
            Err(error) => Err(error.into()),
            Ok(record) => {
                let name = &record.container.spec.name;
                let netns = record
                    .netns()
                    .with_context(|| format!("container {name} is not running"))?;
                self.name.get_or_insert_with(|| name.clone());
                self.target = netns.display().to_string();
                Ok(())
            }
        }
    }

    async fn run(self, engine: &Engine) -> anyhow::Result<ExitCode> {
        let request = ConnectRequest {
            id: None,
            given: None,
            network: self.network,
            netns: netns_path(&self.target),
            name: self.name,
            ip: self.ip,
            ip6: self.ip6,
            aliases: self.alias,
            servers: Vec::new(),
            ifname: self.ifname,
            gw_priority: self.gw_priority,
        };
        engine.connect(&request).await?;
        Ok(ExitCode::SUCCESS)
    }
}

async fn inspect(
    engine: &Engine,
    format: Option<&str>,
    words: &[String],
) -> anyhow::Result<ExitCode> {
    let format = format.map(Format::parse).transpose()?;
    let mut found = Vec::new();
    let mut code = ExitCode::SUCCESS;
    for word in words {
        match engine.inspect(word).await {
            Ok(view) => found.push(view),
            Err(error) => {
                report(&error.into());
                code = ExitCode::FAILURE;
            }
        }
    }
    let json = || Value::Array(found.iter().map(inspection).collect());
    print(&match format {
        None => format!("{:#}\n", json()),
        Some(Format::Json) => format!("{}\n", json()),
        Some(Format::Table) => overview(&found),
    })?;
    Ok(code)
}

async fn remove(engine: &Engine, force: bool, words: &[String]) -> anyhow::Result<ExitCode> {
    let mut code = ExitCode::SUCCESS;
    for word in words {
        match engine.remove_network(word, force).await {
            Ok(_) => print(&format!("{word}\n"))?,
            Err(EngineError::Find(FindError::NotFound { .. })) if force => {}
            Err(error) => {
                report(&error.into());
                code = ExitCode::FAILURE;
            }
        }
    }
    Ok(code)
}

async fn prune(engine: &Engine, force: bool, filter: &[String]) -> anyhow::Result<ExitCode> {
    let filter = Filter::of_prune(filter)?;
    if !force {
        print(
            "This removes every network without endpoints.\n\
             Are you sure you want to continue? [y/N] ",
        )?;
        let mut answer = String::new();
        io::stdin()
            .lock()
            .read_line(&mut answer)
            .context("cannot read the answer")?;
        if !matches!(answer.trim(), "y" | "Y" | "yes") {
            return Ok(ExitCode::SUCCESS);
        }
    }
    let removed = engine
        .prune_networks(|network| filter.takes(network, false))
        .await?;
    if !removed.is_empty() {
        print(&format!("Deleted Networks:\n{}\n", removed.join("\n")))?;
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::Format;

    #[test]
    fn a_format_is_a_word() {
        assert_eq!(Format::parse("json"), Ok(Format::Json));
        assert_eq!(Format::parse("table"), Ok(Format::Table));
        let refused = |word| Format::parse(word).unwrap_err().to_string();
        assert!(refused("yaml").contains("table or json"));
        assert!(refused("{{.Name}}").contains("Go templates"));
        assert!(refused("table {{.Name}}").contains("Go templates"));
    }
}
