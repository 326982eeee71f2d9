//! How a user's words become a network.

use std::collections::BTreeMap;

use super::address::Family;
use super::options::{Options, mtu_field};
use super::subnets::{self, Setting};
use super::{HostView, Id, Invalid, Network, Parent, parent};

/// `network create` as the user said it: nothing parsed yet, so that each error can name its flag.
#[derive(Debug, Clone, Default)]
pub struct CreateRequest {
    pub name: String,
    /// `-d`; empty or `ipvlan` (or `ipvlan-ctl`).
    pub driver: Option<String>,
    pub internal: bool,
    pub ipv4: Option<bool>,
    pub ipv6: bool,
    pub subnets: Vec<String>,
    pub gateways: Vec<String>,
    pub ip_ranges: Vec<String>,
    /// `NAME=ADDR`
    pub aux_addresses: Vec<String>,
    /// `KEY=VALUE`
    pub options: Vec<String>,
    /// `KEY` or `KEY=VALUE`
    pub labels: Vec<String>,
    pub mtu: Option<String>,
}

/// Longest name of a network.
const MAX_NAME: usize = 128;
/// Smallest MTU of a link that carries IPv4 (RFC 791) and IPv6 (RFC 8200), and the largest.
const MIN_MTU: u32 = 68;
const MIN_MTU_V6: u32 = 1280;
const MAX_MTU: u32 = 65535;

impl CreateRequest {
    /// Checks every field against the rules of SEMANTICS and the host, and returns the network
    /// to be made. `id` and `created` are the caller's, so that this stays a pure function.
    pub fn resolve(&self, host: &HostView, id: Id, created: u64) -> Result<Network, Invalid> {
        check_name(&self.name, host)?;
        check_driver(self.driver.as_deref())?;
        let (ipv4, ipv6) = self.families()?;
        let labels = labels(&self.labels)?;
        let options = Options::parse(&self.options)?;
        let parent = parent::resolve(&options, host, &id)?;
        let internal = self.internal || matches!(parent, Parent::Dummy { .. });
        let setting = Setting {
            mode: options.mode,
            internal,
            parent: parent.name(),
            ipv4,
            ipv6,
        };
        let pools = subnets::resolve(self, setting, host)?;
        let mtu = self.mtu(&options, &parent, ipv6, host)?;
        Ok(Network {
            id,
            name: self.name.clone(),
            created,
            parent,
            mode: options.mode,
            flag: options.flag,
            internal,
            host_access: options.host_access,
            shared_parent: options.shared_parent,
            ipv4,
            ipv6,
            mtu,
            pools,
            labels,
            options: options.given,
        })
    }

    /// Are IPv4 and IPv6 on? One of them is.
    fn families(&self) -> Result<(bool, bool), Invalid> {
        let ipv4 = self.ipv4.unwrap_or(true);
        if !ipv4 && !self.ipv6 {
            let allowed = "a network has IPv4 or IPv6 on; give --ipv6 too";
            return Err(Invalid::new("--ipv4", "false", allowed));
        }
        Ok((ipv4, self.ipv6))
    }

    fn mtu(
        &self,
        options: &Options,
        parent: &Parent,
        ipv6: bool,
        host: &HostView,
    ) -> Result<Option<u32>, Invalid> {
        let flag = self.mtu.as_deref().map(|text| ("--mtu".to_owned(), text));
        let option = options.mtu.as_deref().map(|text| (mtu_field(), text));
        let mut chosen = None;
        for (field, text) in flag.into_iter().chain(option) {
            let mtu = parse_mtu(&field, text, parent, ipv6, host)?;
            if let Some(other) = chosen.filter(|other| *other != mtu) {
                let allowed = format!("--mtu says {other}; give one of them");
                return Err(Invalid::new(field, text, allowed));
            }
            chosen = Some(mtu);
        }
        Ok(chosen)
    }
}

fn check_name(name: &str, host: &HostView) -> Result<(), Invalid> {
    let refuse = |why: String| Err(Invalid::new("network name", name, why));
    let inner = |b: u8| b.is_ascii_alphanumeric() || b"_.-".contains(&b);
    if !name.starts_with(|c: char| c.is_ascii_alphanumeric()) || !name.bytes().all(inner) {
        return refuse(
            "it begins with a letter or digit; then letters, digits, '_', '.', '-'".into(),
        );
    }
    if name.len() > MAX_NAME {
        return refuse(format!("it has at most {MAX_NAME} characters"));
    }
    if ["host", "none"].contains(&name) {
        return refuse("host and none are reserved; choose another name".into());
    }
    match host.networks.iter().find(|n| n.name == name) {
        Some(other) => refuse(format!(
            "network {} has it already; choose another name",
            other.id.short()
        )),
        None => Ok(()),
    }
}

fn check_driver(driver: Option<&str>) -> Result<(), Invalid> {
    match driver {
        None | Some("" | "ipvlan" | "ipvlan-ctl") => Ok(()),
        Some(other) => Err(Invalid::new("--driver", other, "the driver is ipvlan")),
    }
}

fn labels(words: &[String]) -> Result<BTreeMap<String, String>, Invalid> {
    let mut labels = BTreeMap::new();
    for word in words {
        let (key, value) = word.split_once('=').unwrap_or((word, ""));
        if key.is_empty() {
            return Err(Invalid::new("--label", word, "give KEY or KEY=VALUE"));
        }
        // The last one counts, as in Docker.
        labels.insert(key.to_owned(), value.to_owned());
    }
    Ok(labels)
}

fn parse_mtu(
    field: &str,
    text: &str,
    parent: &Parent,
    ipv6: bool,
    host: &HostView,
) -> Result<u32, Invalid> {
    let (least, for_family) = match ipv6 {
        true => (MIN_MTU_V6, Family::V6),
        false => (MIN_MTU, Family::V4),
    };
    // A slave's packets leave by the parent, whole. A VLAN that is still to be made takes its
    // base's MTU, a dummy any.
    let under = match parent {
        Parent::Existing { name } => host.link(name),
        Parent::Vlan { name, base, .. } => host.link(name).or_else(|| host.link(base)),
        Parent::Dummy { .. } => None,
    };
    let most = under.map_or(MAX_MTU, |link| link.mtu.min(MAX_MTU));
    text.parse()
        .ok()
        .filter(|mtu| (least..=most).contains(mtu))
        .ok_or_else(|| {
            let limit = match under {
                Some(link) => format!(" (the MTU of {})", link.name),
                None => String::new(),
            };
            let allowed = format!("with {for_family} it is {least} to {most}{limit}");
            Invalid::new(field, text, allowed)
        })
}
