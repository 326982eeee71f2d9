//! The network side of `run`: endpoints of the engine's.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

use super::{Places, report};
use crate::daemon::{AskError, LaunchError};
use crate::dns;
use crate::engine::ConnectRequest;
use crate::kernel::Netns;
use crate::model::Invalid;
use crate::runtime::{Attach, Attached, Container};

/// How a container asks to be connected to one network.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Endpoint {
    /// Name or id of the network.
    pub network: String,
    pub ip: Option<Ipv4Addr>,
    pub ip6: Option<Ipv6Addr>,
    pub aliases: Vec<String>,
    pub gw_priority: i32,
}

impl Endpoint {
    /// `--net NETWORK`, or docker's `--network name=NETWORK,ip=…,ip6=…,alias=…,gw-priority=…`.
    pub(super) fn parse(text: &str) -> Result<Self, Invalid> {
        if !text.contains('=') {
            return Ok(Self {
                network: text.to_owned(),
                ..Self::default()
            });
        }
        let invalid = |word: &str| {
            let allowed =
                "NETWORK, or name=NETWORK with ip=, ip6=, alias= and gw-priority= after commas";
            Invalid::new("--net", word, allowed)
        };
        let mut endpoint = Self::default();
        for word in text.split(',') {
            match word.split_once('=') {
                Some(("name", name)) => endpoint.network = name.to_owned(),
                Some(("ip", ip)) => endpoint.ip = Some(ip.parse().map_err(|_| invalid(word))?),
                Some(("ip6", ip)) => endpoint.ip6 = Some(ip.parse().map_err(|_| invalid(word))?),
                Some(("gw-priority", number)) => {
                    endpoint.gw_priority = number.parse().map_err(|_| invalid(word))?;
                }
                Some(("alias", alias)) => endpoint.aliases.push(valid_name("--net", alias)?),
                _ => return Err(invalid(word)),
            }
        }
        match endpoint.network.is_empty() {
            true => Err(invalid(text)),
            false => Ok(endpoint),
        }
    }

    /// `none` means no network, and has no room for the options of an endpoint.
    pub(super) fn is_none(&self) -> Result<bool, Invalid> {
        if self.network != "none" {
            return Ok(false);
        }
        let asked = [
            ("--ip", self.ip.map(|ip| ip.to_string())),
            ("--ip6", self.ip6.map(|ip| ip.to_string())),
            ("--network-alias", self.aliases.first().cloned()),
            (
                "gw-priority",
                (self.gw_priority != 0).then(|| self.gw_priority.to_string()),
            ),
        ];
        match asked
            .into_iter()
            .find_map(|(flag, value)| Some((flag, value?)))
        {
            Some((flag, value)) => Err(Invalid::new(flag, value, "not possible with --net none")),
            None => Ok(true),
        }
    }
}

/// A name that can stand in /etc/hosts and as one label in DNS.
pub(super) fn valid_name(flag: &str, name: &str) -> Result<String, Invalid> {
    let inner = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    let valid = name.len() <= 63
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.chars().all(inner);
    if valid {
        Ok(name.to_owned())
    } else {
        let allowed =
            "1 to 63 of letters, digits, '_', '-' and '.', beginning with a letter or digit";
        Err(Invalid::new(flag, name, allowed))
    }
}

/// A container's connections, in the order of its interfaces.
pub(super) struct Connections {
    places: Places,
    wanted: Vec<Endpoint>,
    no_daemon: bool,
    /// Networks and endpoints by name and id, as far as they have been made.
    made: Vec<(String, String)>,
}

impl Connections {
    pub(super) fn new(places: Places, wanted: Vec<Endpoint>, no_daemon: bool) -> Self {
        Self {
            places,
            wanted,
            no_daemon,
            made: Vec::new(),
        }
    }

    /// What answers for names in the namespace, which is there already. A container is worth
    /// having without.
    fn resolver(&self) -> Option<IpAddr> {
        let daemon = self.places.daemon();
        let ready = match self.no_daemon {
            true => daemon.refresh().map_err(LaunchError::from),
            false => daemon.ensure(&self.places.words(["daemon", "--until-idle"])),
        };
        match ready {
            Ok(()) => Some(dns::ADDRESS.into()),
            Err(LaunchError::Ask(AskError::NotRunning)) => None,
            Err(error) => {
                report(&anyhow::Error::from(error).context("no names in the container"));
                None
            }
        }
    }

    /// Takes back what has been made, the last first; goes on after an error, and returns the
    /// first one.
    fn release(&mut self) -> anyhow::Result<()> {
        let mut made = std::mem::take(&mut self.made);
        if made.is_empty() {
            return Ok(());
        }
        self.places.with_engine(async |engine| {
            let mut result = Ok(());
            while let Some((network, endpoint)) = made.pop() {
                let done = engine.disconnect(&network, &endpoint, true).await;
                result = result.and(done.map_err(anyhow::Error::from));
            }
            result
        })
    }
}

impl Attach for Connections {
    fn attach(&mut self, container: &Container, netns: &Netns) -> anyhow::Result<Attached> {
        if self.wanted.is_empty() {
            return Ok(Attached::default());
        }
        let spec = &container.spec;
        let made = &mut self.made;
        let wanted = &self.wanted;
        let connected = self.places.with_engine(async |engine| {
            let mut addresses = Vec::new();
            for endpoint in wanted {
                let mut aliases = endpoint.aliases.clone();
                // As docker: a container is also known by its short id.
                aliases.push(spec.id.short().to_owned());
                aliases.retain(|alias| *alias != spec.name);
                let request = ConnectRequest {
                    network: endpoint.network.clone(),
                    netns: netns.path().to_owned(),
                    name: Some(spec.name.clone()),
                    ip: endpoint.ip,
                    ip6: endpoint.ip6,
                    aliases,
                    servers: spec.dns.servers.clone(),
                    gw_priority: endpoint.gw_priority,
                    ..ConnectRequest::default()
                };
                let row = engine.connect(&request).await?;
                made.push((endpoint.network.clone(), row.id.to_string()));
                addresses.extend(row.addresses.hosts());
            }
            Ok(addresses)
        });
        if connected.is_err()
            && let Err(e) = self.release()
        {
            report(&e);
        }
        Ok(Attached {
            addresses: connected?,
            resolver: self.resolver(),
        })
    }

    fn detach(&mut self, _: &Container, _: &Netns) -> anyhow::Result<()> {
        self.release()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_by_name_or_with_options() {
        let plain = Endpoint::parse("db_net").unwrap();
        assert_eq!(plain.network, "db_net");
        let full =
            Endpoint::parse("name=db_net,ip=10.0.0.2,ip6=fd00::2,alias=a,alias=b,gw-priority=-1")
                .unwrap();
        assert_eq!(
            full,
            Endpoint {
                network: "db_net".into(),
                ip: Some(Ipv4Addr::new(10, 0, 0, 2)),
                ip6: "fd00::2".parse().ok(),
                aliases: vec!["a".into(), "b".into()],
                gw_priority: -1,
            }
        );
        for wrong in [
            "ip=10.0.0.2",
            "name=",
            "name=x,ip=ten",
            "name=x,mac=1",
            "name=x,gw-priority=high",
            "name=x,alias=a b",
            "name=x,",
        ] {
            assert_eq!(
                Endpoint::parse(wrong).unwrap_err().field,
                "--net",
                "{wrong}"
            );
        }
    }

    #[test]
    fn no_network_takes_no_options() {
        let none = Endpoint::parse("none").unwrap();
        assert_eq!(none.is_none(), Ok(true));
        let refused = Endpoint {
            ip: Some(Ipv4Addr::LOCALHOST),
            ..none
        };
        assert_eq!(refused.is_none().unwrap_err().field, "--ip");
    }
}
