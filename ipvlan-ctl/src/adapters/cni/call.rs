//! What the environment says: the command and the attachment that it is about.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::Result;
use super::error::{Code, Error};
use super::result::Version;

/// The variables of the environment, unless they are empty.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Variables {
    command: Option<String>,
    container: Option<String>,
    pub netns: Option<String>,
    ifname: Option<String>,
    args: Option<String>,
}

impl Variables {
    pub fn of_env() -> Self {
        let variable = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        Self {
            command: variable("CNI_COMMAND"),
            container: variable("CNI_CONTAINERID"),
            netns: variable("CNI_NETNS"),
            ifname: variable("CNI_IFNAME"),
            args: variable("CNI_ARGS"),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Command {
    Add,
    Del,
    Check,
    Status,
    Gc,
    Version,
}

impl Command {
    pub fn of(variables: &Variables) -> Result<Self> {
        let text = variables.command.as_deref().unwrap_or_default();
        match text {
            "ADD" => Ok(Self::Add),
            "DEL" => Ok(Self::Del),
            "CHECK" => Ok(Self::Check),
            "STATUS" => Ok(Self::Status),
            "GC" => Ok(Self::Gc),
            "VERSION" => Ok(Self::Version),
            _ => Err(Error::new(
                Code::Environment,
                format!(
                    "invalid CNI_COMMAND {text:?}: it is ADD, DEL, CHECK, STATUS, GC or VERSION; \
                     a container runtime sets it"
                ),
            )),
        }
    }

    /// Refuses a command that this version of the specification has not.
    pub fn check_version(self, version: Version) -> Result<()> {
        let (name, since) = match self {
            Self::Check => ("CHECK", Version::V0_4_0),
            Self::Status => ("STATUS", Version::V1_1_0),
            Self::Gc => ("GC", Version::V1_1_0),
            Self::Add | Self::Del | Self::Version => return Ok(()),
        };
        if version >= since {
            return Ok(());
        }
        Err(Error::new(
            Code::IncompatibleVersion,
            format!(
                "invalid cniVersion {:?}: {name} needs {} or later",
                version.text(),
                since.text()
            ),
        ))
    }
}

#[derive(Debug)]
pub(super) struct Call {
    pub command: Command,
    pub args: Args,
    container: Option<String>,
    netns: Option<String>,
    ifname: Option<String>,
}

impl Call {
    /// Those variables that the command needs must be there.
    pub fn of(command: Command, variables: Variables) -> Result<Self> {
        let call = Self {
            command,
            args: Args::parse(variables.args.as_deref().unwrap_or_default())?,
            container: variables.container,
            netns: variables.netns,
            ifname: variables.ifname,
        };
        let attachment = matches!(command, Command::Add | Command::Del | Command::Check);
        if attachment {
            call.container()?;
            call.ifname()?;
        }
        if attachment && command != Command::Del {
            call.netns()?;
        }
        Ok(call)
    }

    pub fn container(&self) -> Result<&str> {
        let id = needed("CNI_CONTAINERID", &self.container)?;
        let of_id = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
        if id.starts_with(|c: char| c.is_ascii_alphanumeric()) && id.chars().all(of_id) {
            return Ok(id);
        }
        Err(Error::new(
            Code::Environment,
            format!(
                "invalid CNI_CONTAINERID {id:?}: it is a letter or digit, then letters, digits, \
                 '_', '.' and '-'"
            ),
        ))
    }

    pub fn netns(&self) -> Result<PathBuf> {
        needed("CNI_NETNS", &self.netns).map(PathBuf::from)
    }

    pub fn ifname(&self) -> Result<&str> {
        needed("CNI_IFNAME", &self.ifname)
    }

    /// The attachment as messages name it.
    pub fn shown(&self) -> String {
        let text = |value: &Option<String>| value.clone().unwrap_or_default();
        format!("{} with {}", text(&self.container), text(&self.ifname))
    }
}

fn needed<'v>(name: &str, value: &'v Option<String>) -> Result<&'v str> {
    value.as_deref().ok_or_else(|| {
        Error::new(
            Code::Environment,
            format!("invalid {name} \"\": this command needs it"),
        )
    })
}

/// `CNI_ARGS`: `KEY=VALUE;KEY=VALUE`. Keys that are not ours are the runtime's business.
#[derive(Debug, Default)]
pub(super) struct Args(Vec<(String, String)>);

impl Args {
    fn parse(text: &str) -> Result<Self> {
        let pairs = text
            .split(';')
            .filter(|pair| !pair.is_empty())
            .map(|pair| match pair.split_once('=') {
                Some((key, value)) => Ok((key.to_owned(), value.to_owned())),
                None => Err(Error::new(
                    Code::Environment,
                    format!("invalid CNI_ARGS {pair:?}: it is KEY=VALUE;KEY=VALUE"),
                )),
            })
            .collect::<Result<Vec<_>>>()?;
        let args = Self(pairs);
        if let Some(mac) = args.get("MAC") {
            return Err(Error::new(
                Code::Environment,
                format!("invalid CNI_ARGS MAC={mac:?}: {NO_MAC}"),
            ));
        }
        Ok(args)
    }

    fn get(&self, key: &str) -> Option<&str> {
        let found = self.0.iter().find(|(name, _)| name == key);
        found
            .map(|(_, value)| value.as_str())
            .filter(|v| !v.is_empty())
    }

    pub fn pod_name(&self) -> Option<&str> {
        self.get("K8S_POD_NAME")
    }

    /// The addresses asked for: those of `IP=`, or else `configured`. One of each family.
    pub fn addresses(&self, configured: &[IpAddr]) -> Result<(Option<Ipv4Addr>, Option<Ipv6Addr>)> {
        let asked = match self.get("IP") {
            Some(ip) => vec![ip.parse().map_err(|_| {
                Error::new(
                    Code::Environment,
                    format!("invalid CNI_ARGS IP={ip:?}: it is an address such as 192.168.1.10"),
                )
            })?],
            None => configured.to_vec(),
        };
        let (mut v4, mut v6) = (None, None);
        for address in asked {
            let taken = match address {
                IpAddr::V4(address) => v4.replace(address).is_some(),
                IpAddr::V6(address) => v6.replace(address).is_some(),
            };
            if taken {
                return Err(Error::invalid(
                    "runtimeConfig.ips",
                    address,
                    "an endpoint has one IPv4 and one IPv6 address",
                ));
            }
        }
        Ok((v4, v6))
    }
}

pub(super) const NO_MAC: &str = "ipvlan interfaces have their master's hardware address";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments() {
        let args = Args::parse("IgnoreUnknown=1;K8S_POD_NAME=web-0;IP=10.0.0.7").unwrap();
        assert_eq!(args.pod_name(), Some("web-0"));
        let wanted = "10.0.0.7".parse().unwrap();
        let configured = ["10.0.0.9".parse().unwrap()];
        assert_eq!(args.addresses(&configured).unwrap(), (Some(wanted), None));
        for (text, word) in [("IP", "IP"), ("MAC=02:00:00:00:00:01", "MAC")] {
            let error = Args::parse(text).unwrap_err();
            assert_eq!(error.code, Code::Environment);
            assert!(error.message.contains(word), "{error}");
        }
        assert!(Args::parse("IP=x").unwrap().addresses(&[]).is_err());
    }

    #[test]
    fn one_address_of_each_family() {
        let ips = |list: &[&str]| {
            let list: Vec<IpAddr> = list.iter().map(|ip| ip.parse().unwrap()).collect();
            Args::default().addresses(&list)
        };
        assert!(ips(&["10.0.0.7", "fd00::7"]).is_ok());
        assert!(ips(&["10.0.0.7", "10.0.0.8"]).is_err());
    }

    #[test]
    fn commands_have_their_versions() {
        assert!(Command::Check.check_version(Version::V0_3_1).is_err());
        assert!(Command::Check.check_version(Version::V0_4_0).is_ok());
        assert!(Command::Gc.check_version(Version::V1_0_0).is_err());
        assert!(Command::Status.check_version(Version::V1_1_0).is_ok());
        assert!(Command::Add.check_version(Version::V0_3_0).is_ok());
    }
}
