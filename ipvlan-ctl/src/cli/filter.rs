//! `--filter`, with docker's keys.

use std::time::{Duration, SystemTime};

use crate::model::{Invalid, Network};

/// What `--filter` asks of a network: one of the values of each key, but every label.
#[derive(Debug)]
pub(super) struct Filter(Vec<(String, Wanted)>);

#[derive(Debug)]
enum Wanted {
    Text(String),
    Truth(bool),
    /// Made before this many seconds since 1970.
    Before(u64),
}

const LS: [&str; 7] = ["dangling", "driver", "id", "label", "name", "scope", "type"];
const PRUNE: [&str; 3] = ["label", "label!", "until"];

impl Filter {
    pub(super) fn of_ls(words: &[String]) -> Result<Self, Invalid> {
        Self::parse(words, &LS)
    }

    pub(super) fn of_prune(words: &[String]) -> Result<Self, Invalid> {
        Self::parse(words, &PRUNE)
    }

    fn parse(words: &[String], keys: &[&str]) -> Result<Self, Invalid> {
        let invalid = |word: &str, allowed: String| Invalid::new("--filter", word, allowed);
        words
            .iter()
            .map(|word| {
                let Some((key, value)) = word.split_once('=').filter(|(key, _)| keys.contains(key))
                else {
                    let allowed = format!("KEY=VALUE, where KEY is {}", keys.join(", "));
                    return Err(invalid(word, allowed));
                };
                let one_of = |values: &[&str]| match values.contains(&value) {
                    true => Ok(Wanted::Text(value.to_owned())),
                    false => Err(invalid(word, format!("{key} is {}", values.join(", ")))),
                };
                let wanted = match key {
                    "type" => one_of(&["custom", "builtin"])?,
                    "scope" => one_of(&["local", "global", "swarm"])?,
                    "dangling" => match value {
                        "true" | "1" => Wanted::Truth(true),
                        "false" | "0" => Wanted::Truth(false),
                        _ => return Err(invalid(word, "dangling is true or false".into())),
                    },
                    "until" => Wanted::Before(time(value).ok_or_else(|| {
                        let allowed = "until is a time as 2026-01-31T12:00:00Z, seconds since \
                                       1970, or an age as 24h or 1h30m";
                        invalid(word, allowed.into())
                    })?),
                    _ => Wanted::Text(value.to_owned()),
                };
                Ok((key.to_owned(), wanted))
            })
            .collect::<Result<_, _>>()
            .map(Self)
    }

    pub(super) fn asks_for(&self, key: &str) -> bool {
        self.0.iter().any(|(asked, _)| asked == key)
    }

    /// `used`: it has endpoints.
    pub(super) fn takes(&self, network: &Network, used: bool) -> bool {
        self.0.iter().all(|(key, wanted)| {
            let is_met = |wanted: &Wanted| is_met(key, wanted, network, used);
            match key.as_str() {
                "label" | "label!" => is_met(wanted),
                _ => self
                    .0
                    .iter()
                    .any(|(other, wanted)| other == key && is_met(wanted)),
            }
        })
    }
}

fn is_met(key: &str, wanted: &Wanted, network: &Network, used: bool) -> bool {
    let has_label = |label: &str| match label.split_once('=') {
        Some((key, value)) => network.labels.get(key).is_some_and(|has| has == value),
        None => network.labels.contains_key(label),
    };
    match (key, wanted) {
        (_, Wanted::Truth(dangling)) => *dangling != used,
        (_, Wanted::Before(time)) => network.created < *time,
        ("label", Wanted::Text(label)) => has_label(label),
        ("label!", Wanted::Text(label)) => !has_label(label),
        ("driver", Wanted::Text(value)) => value == "ipvlan",
        ("id", Wanted::Text(value)) => network.id.as_str().starts_with(value),
        ("name", Wanted::Text(value)) => network.name.contains(value),
        ("scope", Wanted::Text(value)) => value == "local",
        (_, Wanted::Text(value)) => value == "custom",
    }
}

/// A point in time as docker takes it, in seconds since 1970.
fn time(text: &str) -> Option<u64> {
    // Whatever is older than 1970 is as old.
    let seconds = |time: SystemTime| {
        time.duration_since(SystemTime::UNIX_EPOCH)
            .map_or(0, |since| since.as_secs())
    };
    let before = |age: Duration| SystemTime::now().checked_sub(age).map_or(0, seconds);
    let time = match text.contains('T') {
        true => text.to_owned(),
        false => format!("{text}T00:00:00"),
    };
    let date = || humantime::parse_rfc3339_weak(&time).ok().map(seconds);
    let age = || humantime::parse_duration(text).ok().map(before);
    text.parse().ok().or_else(date).or_else(age)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Flag, Id, Mode, Parent};

    fn network() -> Network {
        Network {
            id: Id::from_stored("ab".repeat(32)),
            name: "db_net".into(),
            created: 1_700_000_000,
            parent: Parent::Existing {
                name: "eth0".into(),
            },
            mode: Mode::L2,
            flag: Flag::Bridge,
            internal: false,
            host_access: false,
            shared_parent: false,
            external_ipam: false,
            ipv4: true,
            ipv6: false,
            mtu: None,
            pools: Vec::new(),
            labels: [("env".into(), "test".into())].into(),
            options: Default::default(),
        }
    }

    fn words(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| word.to_string()).collect()
    }

    #[test]
    fn filters_take_as_dockers_do() {
        for (asked, taken) in [
            (&["name=db"][..], true),
            (&["name=web"], false),
            (&["name=web", "name=net"], true),
            (&["name=db", "driver=bridge"], false),
            (&["label=env", "label=env=test"], true),
            (&["label=env", "label=other"], false),
            (&["id=abab", "scope=local", "type=custom"], true),
            (&["id=ba"], false),
            (&["type=builtin"], false),
            (&["dangling=true"], false),
            (&["dangling=0"], true),
            (&["scope=swarm"], false),
        ] {
            let filter = Filter::of_ls(&words(asked)).unwrap();
            assert_eq!(filter.takes(&network(), true), taken, "{asked:?}");
        }
        for (asked, taken) in [
            ("label!=env=prod", true),
            ("label!=env", false),
            ("until=1700000001", true),
            ("until=1700000000", false),
            ("until=2023-11-15", true),
            ("until=2023-11-14T22:13:00Z", false),
            ("until=24h", true),
            ("until=876000h", false),
        ] {
            let filter = Filter::of_prune(&words(&[asked])).unwrap();
            assert_eq!(filter.takes(&network(), false), taken, "{asked}");
        }
    }

    #[test]
    fn what_is_unknown_is_refused_with_what_is_known() {
        for (word, allowed) in [
            ("name", "dangling, driver, id"),
            ("colour=red", "dangling, driver, id"),
            ("type=mine", "custom, builtin"),
            ("scope=far", "local, global, swarm"),
            ("dangling=maybe", "true or false"),
        ] {
            let error = Filter::of_ls(&words(&[word])).unwrap_err().to_string();
            assert!(error.contains(allowed) && error.contains(word), "{error}");
        }
        for (word, allowed) in [
            ("until=soon", "an age as 24h"),
            ("until=", "an age as 24h"),
            ("name=a", "label, label!, until"),
        ] {
            let error = Filter::of_prune(&words(&[word])).unwrap_err().to_string();
            assert!(error.contains(allowed) && error.contains(word), "{error}");
        }
    }
}
