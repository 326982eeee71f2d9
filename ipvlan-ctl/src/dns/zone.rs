//! Who is called what, and who may know.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::IpAddr;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use super::Upstream;

/// An endpoint as its network knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    pub name: String,
    /// What else it is called, such as its aliases and its short id.
    pub others: Vec<String>,
    pub addresses: Vec<IpAddr>,
}

/// The names of one network, which all who see it share. They are case-insensitive, as all of
/// DNS (RFC 4343).
#[derive(Debug)]
pub struct Zone {
    network: String,
    known: RwLock<Known>,
}

#[derive(Debug, Default)]
struct Known {
    addresses: HashMap<String, Vec<IpAddr>>,
    names: HashMap<IpAddr, String>,
}

impl Zone {
    pub fn new(network: &str, members: &[Member]) -> Self {
        let zone = Self {
            network: network.to_owned(),
            known: RwLock::default(),
        };
        zone.change(&[], members);
        zone
    }

    /// Forgets some members and learns others, in one step for who asks meanwhile. Its cost is
    /// that of these members.
    pub fn change(&self, gone: &[Member], come: &[Member]) {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        gone.iter().for_each(|member| known.forget(member));
        come.iter()
            .for_each(|member| known.learn(member, &self.network));
    }

    pub fn is_empty(&self) -> bool {
        self.read().addresses.is_empty()
    }

    fn read(&self) -> RwLockReadGuard<'_, Known> {
        self.known.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The addresses in one family of `name` or `name.network`, which is in lower case and has no
    /// final dot.
    fn addresses(&self, name: &str, v6: bool) -> Option<Vec<IpAddr>> {
        let known = self.read();
        let qualified = || {
            let at = name.len().checked_sub(self.network.len())?;
            let network = name.get(at..)?;
            let label = name.get(..at)?.strip_suffix('.')?;
            network.eq_ignore_ascii_case(&self.network).then_some(label)
        };
        let found = known
            .addresses
            .get(name)
            .or_else(|| known.addresses.get(qualified()?))?;
        let of_family = found.iter().filter(|address| address.is_ipv6() == v6);
        Some(of_family.copied().collect())
    }

    fn name(&self, address: IpAddr) -> Option<String> {
        self.read().names.get(&address).cloned()
    }
}

impl Known {
    fn learn(&mut self, member: &Member, network: &str) {
        for name in member.names() {
            let known = self.addresses.entry(name).or_default();
            for address in &member.addresses {
                if !known.contains(address) {
                    known.push(*address);
                }
            }
        }
        for address in &member.addresses {
            let name = format!("{}.{network}", member.name);
            self.names.insert(*address, name);
        }
    }

    fn forget(&mut self, member: &Member) {
        for name in member.names() {
            if let Entry::Occupied(mut known) = self.addresses.entry(name) {
                known
                    .get_mut()
                    .retain(|address| !member.addresses.contains(address));
                if known.get().is_empty() {
                    known.remove();
                }
            }
        }
        for address in &member.addresses {
            self.names.remove(address);
        }
    }
}

impl Member {
    /// In lower case.
    fn names(&self) -> impl Iterator<Item = String> {
        std::iter::once(&self.name)
            .chain(&self.others)
            .map(|name| name.to_ascii_lowercase())
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
            if let Some(found) = zone.addresses(&name, v6) {
                if !found.is_empty() {
                    return Some(found);
                }
                known = Some(found);
            }
        }
        known
    }

    /// The name of the endpoint with this address, as `name.network`.
    pub fn name(&self, address: IpAddr) -> Option<String> {
        self.zones.iter().find_map(|zone| zone.name(address))
    }
}

#[cfg(test)]
mod tests {
    use std::slice::from_ref;

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
        assert_eq!(
            view.name("10.0.0.2".parse().unwrap()).as_deref(),
            Some("Web.1.Net")
        );
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
    fn members_come_and_go() {
        let [a, b] = [("a", "10.0.0.2"), ("b", "10.0.0.3")]
            .map(|(name, address)| member(name, &["db", name], &[address]));
        let both = [a.clone(), b.clone()];
        let view = view(vec![Zone::new("net", &both)]);
        let moved = member("a", &["cache"], &["10.0.0.4"]);
        view.zones[0].change(from_ref(&a), from_ref(&moved));
        assert_eq!(addresses(&view, "a", false), Some(vec!["10.0.0.4".into()]));
        assert_eq!(addresses(&view, "db", false), Some(vec!["10.0.0.3".into()]));
        assert_eq!(view.name("10.0.0.2".parse().unwrap()), None);
        // One gives the other its address.
        let heir = member("b", &[], &["10.0.0.4"]);
        view.zones[0].change(&[moved, b], from_ref(&heir));
        assert_eq!(
            view.name("10.0.0.4".parse().unwrap()).as_deref(),
            Some("b.net")
        );
        for gone in ["a", "db", "cache"] {
            assert_eq!(addresses(&view, gone, false), None, "{gone}");
        }
        view.zones[0].change(&[heir], &[]);
        assert!(view.zones[0].is_empty());
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
