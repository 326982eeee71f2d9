//! Who is called what, and who may know.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use super::Upstream;

/// An endpoint as its network knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    pub name: String,
    /// What else it is called, such as its aliases and its short id.
    pub others: Vec<String>,
    pub addresses: Vec<IpAddr>,
}

/// The names of one network. They are case-insensitive, as all of DNS (RFC 4343).
#[derive(Debug, Default)]
pub struct Zone {
    network: String,
    addresses: HashMap<String, Vec<IpAddr>>,
    names: HashMap<IpAddr, String>,
}

impl Zone {
    pub fn new(network: &str, members: &[Member]) -> Self {
        let mut zone = Self {
            network: network.to_ascii_lowercase(),
            ..Self::default()
        };
        for member in members {
            for name in std::iter::once(&member.name).chain(&member.others) {
                let known = zone.addresses.entry(name.to_ascii_lowercase()).or_default();
                for address in &member.addresses {
                    if !known.contains(address) {
                        known.push(*address);
                    }
                }
            }
            for address in &member.addresses {
                let name = format!("{}.{network}", member.name);
                zone.names.insert(*address, name);
            }
        }
        zone
    }

    /// The addresses of `name` or `name.network`, which is in lower case and has no final dot.
    fn addresses(&self, name: &str) -> Option<&[IpAddr]> {
        let qualified = || {
            let label = name.strip_suffix(&self.network)?.strip_suffix('.')?;
            self.addresses.get(label)
        };
        let found = self.addresses.get(name).or_else(qualified)?;
        Some(found)
    }
}

/// What one namespace may see.
#[derive(Debug, Clone, Default)]
pub struct View {
    /// Of its networks, in the order in which it joined them.
    pub zones: Vec<Arc<Zone>>,
    /// `None` if it has internal networks only.
    pub upstream: Option<Arc<Upstream>>,
}

impl View {
    /// The addresses of a name in one family, of the first of the networks that has any; none
    /// if the name has addresses of the other family only, and `None` if it is no endpoint's.
    /// `name` may end with a dot.
    pub fn addresses(&self, name: &str, v6: bool) -> Option<Vec<IpAddr>> {
        let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
        let mut known = None;
        for zone in &self.zones {
            if let Some(all) = zone.addresses(&name) {
                let found: Vec<IpAddr> = all
                    .iter()
                    .copied()
                    .filter(|address| address.is_ipv6() == v6)
                    .collect();
                if !found.is_empty() {
                    return Some(found);
                }
                known = Some(found);
            }
        }
        known
    }

    /// The name of the endpoint with this address, as `name.network`.
    pub fn name(&self, address: IpAddr) -> Option<&str> {
        let mut found = self
            .zones
            .iter()
            .filter_map(|zone| zone.names.get(&address));
        found.next().map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(name: &str, others: &[&str], addresses: &[&str]) -> Member {
        Member {
            name: name.into(),
            others: others.iter().map(|other| other.to_string()).collect(),
            addresses: addresses.iter().map(|a| a.parse().unwrap()).collect(),
        }
    }

    fn view(zones: Vec<Zone>) -> View {
        View {
            zones: zones.into_iter().map(Arc::new).collect(),
            upstream: None,
        }
    }

    fn addresses(view: &View, name: &str, v6: bool) -> Option<Vec<String>> {
        let found = view.addresses(name, v6)?;
        Some(found.iter().map(|address| address.to_string()).collect())
    }

    #[test]
    fn every_name_of_a_member_is_found_in_any_case() {
        let web = member("Web.1", &["www", "0123456789ab"], &["10.0.0.2", "fd00::2"]);
        let view = view(vec![Zone::new("Net", &[web])]);
        for name in [
            "web.1",
            "WEB.1.",
            "www",
            "0123456789ab",
            "web.1.net",
            "WWW.nET.",
        ] {
            assert_eq!(
                addresses(&view, name, false),
                Some(vec!["10.0.0.2".into()]),
                "{name}"
            );
            assert_eq!(
                addresses(&view, name, true),
                Some(vec!["fd00::2".into()]),
                "{name}"
            );
        }
        for name in [
            "",
            ".",
            "web",
            "1",
            "net",
            ".net",
            "www.",
            "xwww",
            "wwwnet",
            "www.net.net",
        ] {
            let known = matches!(name, "www.");
            assert_eq!(view.addresses(name, false).is_some(), known, "{name:?}");
        }
        assert_eq!(view.name("10.0.0.2".parse().unwrap()), Some("Web.1.Net"));
        assert_eq!(view.name("10.0.0.3".parse().unwrap()), None);
    }

    #[test]
    fn a_shared_alias_has_all_addresses_and_a_missing_family_none() {
        let zone = Zone::new(
            "net",
            &[
                member("a", &["db", "db"], &["10.0.0.2"]),
                member("b", &["db"], &["10.0.0.3"]),
            ],
        );
        let view = view(vec![zone]);
        let both = Some(vec!["10.0.0.2".to_owned(), "10.0.0.3".to_owned()]);
        assert_eq!(addresses(&view, "db", false), both);
        assert_eq!(addresses(&view, "db", true), Some(vec![]));
        assert_eq!(addresses(&view, "c", true), None);
    }

    #[test]
    fn the_first_network_that_has_an_address_answers() {
        let view = view(vec![
            Zone::new("one", &[member("db", &[], &["10.0.0.2"])]),
            Zone::new("two", &[member("db", &[], &["10.0.1.2", "fd00::2"])]),
        ]);
        assert_eq!(addresses(&view, "db", false), Some(vec!["10.0.0.2".into()]));
        assert_eq!(addresses(&view, "db", true), Some(vec!["fd00::2".into()]));
        assert_eq!(
            addresses(&view, "db.two", false),
            Some(vec!["10.0.1.2".into()])
        );
    }
}
