//! `ipvlan-ctl network …`, in docker's words.

use std::io::{self, BufRead};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};

use super::inspect::{inspection, timestamp};
use super::table::table;
use super::{print, report};
use crate::engine::{ConnectRequest, Engine, netns_path};
use crate::model::{CreateRequest, Invalid, Network};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Make a network and print its id
    Create(Create),
    /// List networks
    #[command(visible_alias = "list")]
    Ls(Ls),
    /// Show networks in detail, as JSON
    Inspect {
        /// Names, ids or beginnings of ids
        #[arg(required = true, value_name = "NETWORK")]
        networks: Vec<String>,
    },
    /// Remove networks without endpoints
    #[command(visible_alias = "remove")]
    Rm {
        /// Names, ids or beginnings of ids
        #[arg(required = true, value_name = "NETWORK")]
        networks: Vec<String>,
    },
    /// Give a network namespace an interface on a network
    Connect(Connect),
    /// Take an endpoint off a network
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
    Prune {
        /// Do not ask
        #[arg(short, long)]
        force: bool,
        /// Only these: label=KEY, label=KEY=VALUE, label!=KEY or label!=KEY=VALUE
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
    /// Driver option: parent, ipvlan_mode, ipvlan_flag, host_access, shared_parent
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
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
    /// driver=, id=, name=, label=, scope= or type=
    #[arg(short, long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Format {
    Table,
    /// One JSON object per line
    Json,
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
    /// Name of the endpoint [default: the namespace's name, or pid-N]
    #[arg(long)]
    name: Option<String>,
    network: String,
    /// A network namespace: a path, a name of `ip netns`, or a pid
    target: String,
}

impl Command {
    pub(super) async fn run(self, engine: &Engine) -> anyhow::Result<ExitCode> {
        match self {
            Self::Create(create) => create.run(engine).await,
            Self::Ls(ls) => ls.run(engine),
            Self::Inspect { networks } => inspect(engine, &networks).await,
            Self::Rm { networks } => remove(engine, &networks).await,
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
        let network = engine.create_network(&request).await?;
        print(&format!("{}\n", network.id))?;
        Ok(ExitCode::SUCCESS)
    }
}

impl Ls {
    fn run(self, engine: &Engine) -> anyhow::Result<ExitCode> {
        let filter = Filter::parse(&self.filter, &Filter::OF_LS)?;
        let mut networks = engine.networks()?;
        networks.retain(|network| filter.takes(network));
        networks.sort_by(|a, b| a.name.cmp(&b.name));
        let id = |network: &Network| match self.no_trunc {
            true => network.id.to_string(),
            false => network.id.short().to_owned(),
        };
        let text = match self.format {
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
    async fn run(self, engine: &Engine) -> anyhow::Result<ExitCode> {
        let request = ConnectRequest {
            network: self.network,
            netns: netns_path(&self.target),
            name: self.name,
            ip: self.ip,
            ip6: self.ip6,
            aliases: self.alias,
            ifname: self.ifname,
        };
        engine.connect(&request).await?;
        Ok(ExitCode::SUCCESS)
    }
}

async fn inspect(engine: &Engine, words: &[String]) -> anyhow::Result<ExitCode> {
    let mut found = Vec::new();
    let mut code = ExitCode::SUCCESS;
    for word in words {
        match engine.inspect(word).await {
            Ok(view) => found.push(inspection(&view)),
            Err(error) => {
                report(&error.into());
                code = ExitCode::FAILURE;
            }
        }
    }
    print(&format!("{:#}\n", Value::Array(found)))?;
    Ok(code)
}

async fn remove(engine: &Engine, words: &[String]) -> anyhow::Result<ExitCode> {
    let mut code = ExitCode::SUCCESS;
    for word in words {
        match engine.remove_network(word).await {
            Ok(_) => print(&format!("{word}\n"))?,
            Err(error) => {
                report(&error.into());
                code = ExitCode::FAILURE;
            }
        }
    }
    Ok(code)
}

async fn prune(engine: &Engine, force: bool, filter: &[String]) -> anyhow::Result<ExitCode> {
    let filter = Filter::parse(filter, &Filter::OF_PRUNE)?;
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
        .prune_networks(|network| filter.takes(network))
        .await?;
    if !removed.is_empty() {
        print(&format!("Deleted Networks:\n{}\n", removed.join("\n")))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// What `--filter` asks of a network: one of the values of each key, but every label.
#[derive(Debug, Default)]
struct Filter(Vec<(String, String)>);

impl Filter {
    const OF_LS: [&str; 6] = ["driver", "id", "label", "name", "scope", "type"];
    const OF_PRUNE: [&str; 2] = ["label", "label!"];

    fn parse(words: &[String], keys: &[&str]) -> Result<Self, Invalid> {
        words
            .iter()
            .map(|word| match word.split_once('=') {
                Some((key, value)) if keys.contains(&key) => Ok((key.into(), value.into())),
                _ => {
                    let allowed = format!("KEY=VALUE, where KEY is {}", keys.join(", "));
                    Err(Invalid::new("--filter", word, allowed))
                }
            })
            .collect::<Result<_, _>>()
            .map(Self)
    }

    fn takes(&self, network: &Network) -> bool {
        let has_label = |wanted: &str| match wanted.split_once('=') {
            Some((key, value)) => network.labels.get(key).is_some_and(|has| has == value),
            None => network.labels.contains_key(wanted),
        };
        self.0.iter().all(|(key, value)| match key.as_str() {
            "label" => has_label(value),
            "label!" => !has_label(value),
            _ => self
                .0
                .iter()
                .filter(|(other, _)| other == key)
                .any(|(_, value)| match key.as_str() {
                    "driver" => value == "ipvlan",
                    "id" => network.id.as_str().starts_with(value.as_str()),
                    "name" => network.name.contains(value.as_str()),
                    "scope" => value == "local",
                    _ => value == "custom",
                }),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Flag, Id, Mode, Parent};

    fn network() -> Network {
        Network {
            id: Id::from_stored("ab".repeat(32)),
            name: "db_net".into(),
            created: 0,
            parent: Parent::Existing {
                name: "eth0".into(),
            },
            mode: Mode::L2,
            flag: Flag::Bridge,
            internal: false,
            host_access: false,
            shared_parent: false,
            ipv4: true,
            ipv6: false,
            mtu: None,
            pools: Vec::new(),
            labels: [("env".into(), "test".into())].into(),
            options: Default::default(),
        }
    }

    #[test]
    fn filters_take_as_dockers_do() {
        for (words, taken) in [
            (&["name=db"][..], true),
            (&["name=web"], false),
            (&["name=web", "name=net"], true),
            (&["name=db", "driver=bridge"], false),
            (&["label=env", "label=env=test"], true),
            (&["label=env", "label=other"], false),
            (&["id=abab", "scope=local", "type=custom"], true),
            (&["id=ba"], false),
            (&["type=builtin"], false),
        ] {
            let words: Vec<String> = words.iter().map(|word| word.to_string()).collect();
            let filter = Filter::parse(&words, &Filter::OF_LS).unwrap();
            assert_eq!(filter.takes(&network()), taken, "{words:?}");
        }
        let words = ["label!=env=prod".to_owned()];
        let filter = Filter::parse(&words, &Filter::OF_PRUNE).unwrap();
        assert!(filter.takes(&network()));
    }

    #[test]
    fn an_unknown_filter_is_refused_with_the_known_ones() {
        for word in ["name", "colour=red"] {
            let error = Filter::parse(&[word.into()], &Filter::OF_LS).unwrap_err();
            assert!(error.to_string().contains("driver, id, label"), "{error}");
        }
    }
}
