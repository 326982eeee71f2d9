//! Driver options: `-o KEY=VALUE`.

use std::collections::BTreeMap;

use super::{Flag, Invalid, Mode};

const PARENT: &str = "parent";
const MODE: &str = "ipvlan_mode";
const FLAG: &str = "ipvlan_flag";
const MTU: &str = "com.docker.network.driver.mtu";
const HOST_ACCESS: &str = "host_access";
const SHARED_PARENT: &str = "shared_parent";
const KNOWN: [&str; 6] = [PARENT, MODE, FLAG, MTU, HOST_ACCESS, SHARED_PARENT];

const IFNAME: &str = "com.docker.network.endpoint.ifname";

/// The options of `network create`, each checked by itself.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// `None` where it is left out or empty, which mean the same.
    pub parent: Option<String>,
    pub mode: Mode,
    pub flag: Flag,
    pub mtu: Option<String>,
    pub host_access: bool,
    pub shared_parent: bool,
    /// As given.
    pub given: BTreeMap<String, String>,
}

impl Options {
    /// Docker ignores a key that it does not know; here it is refused, so that a typing error
    /// does not make another network than the one meant.
    pub fn parse(words: &[String]) -> Result<Self, Invalid> {
        let given = collect(words)?;
        let get = |key: &str| given.get(key).map(String::as_str);
        // Docker takes an empty mode, flag or parent for one left out.
        let filled = |key: &str| get(key).filter(|value| !value.is_empty());
        Ok(Self {
            parent: filled(PARENT).map(str::to_owned),
            mode: filled(MODE).map(mode).transpose()?.unwrap_or_default(),
            flag: filled(FLAG).map(flag).transpose()?.unwrap_or_default(),
            mtu: get(MTU).map(str::to_owned),
            host_access: switch(HOST_ACCESS, get(HOST_ACCESS))?,
            shared_parent: switch(SHARED_PARENT, get(SHARED_PARENT))?,
            given,
        })
    }
}

/// The field name of an option in messages.
pub fn field(key: &str) -> String {
    format!("-o {key}")
}

pub fn parent_field() -> String {
    field(PARENT)
}

pub fn mtu_field() -> String {
    field(MTU)
}

fn collect(words: &[String]) -> Result<BTreeMap<String, String>, Invalid> {
    let mut given = BTreeMap::new();
    for word in words {
        let (key, value) = word.split_once('=').unwrap_or((word, ""));
        if key == IFNAME {
            return Err(Invalid::new(
                "-o",
                word,
                "the interface name belongs to an endpoint: give --ifname to network connect",
            ));
        }
        if !KNOWN.contains(&key) {
            let allowed = format!("an option is KEY=VALUE, with a key of {}", KNOWN.join(", "));
            return Err(Invalid::new("-o", word, allowed));
        }
        match given.insert(key.to_owned(), value.to_owned()) {
            Some(before) if before != value => {
                let allowed = format!("it is also given as {before:?}; give it once");
                return Err(Invalid::new(field(key), value, allowed));
            }
            _ => {}
        }
    }
    Ok(given)
}

fn mode(value: &str) -> Result<Mode, Invalid> {
    [Mode::L2, Mode::L3, Mode::L3s]
        .into_iter()
        .find(|mode| mode.as_str() == value)
        .ok_or_else(|| {
            let mut allowed = String::from("the mode is l2, l3 or l3s");
            if let Some(meant) = misread_mode(value) {
                allowed += &format!("; did you mean {meant}?");
            }
            Invalid::new(field(MODE), value, allowed)
        })
}

/// The mode in capitals, or with its `l` typed as `1` or `i` (manuals print them alike).
fn misread_mode(value: &str) -> Option<Mode> {
    let lower = value.to_lowercase();
    let rest = lower.strip_prefix(['l', '1', 'i'])?;
    [Mode::L2, Mode::L3, Mode::L3s]
        .into_iter()
        .find(|mode| mode.as_str().strip_prefix('l') == Some(rest))
}

fn flag(value: &str) -> Result<Flag, Invalid> {
    [Flag::Bridge, Flag::Private, Flag::Vepa]
        .into_iter()
        .find(|flag| flag.as_str() == value)
        .ok_or_else(|| Invalid::new(field(FLAG), value, "the flag is bridge, private or vepa"))
}

fn switch(key: &str, value: Option<&str>) -> Result<bool, Invalid> {
    match value {
        None | Some("false") => Ok(false),
        Some("true") => Ok(true),
        Some(other) => Err(Invalid::new(field(key), other, "give true or false")),
    }
}

#[cfg(test)]
mod tests {
    use crate::model::fixtures::{host, made, refused};
    use crate::model::{Flag, Mode};

    #[test]
    fn mode_and_flag_have_dockers_defaults() {
        for line in [
            "n -o parent=eth0",
            "n -o parent=eth0 -o ipvlan_mode= -o ipvlan_flag",
        ] {
            let network = made(line, &host());
            assert_eq!((network.mode, network.flag), (Mode::L2, Flag::Bridge));
            assert!(!network.host_access && !network.shared_parent);
        }
    }

    #[test]
    fn modes_flags_and_switches_are_read() {
        for mode in [Mode::L2, Mode::L3, Mode::L3s] {
            for flag in [Flag::Bridge, Flag::Private, Flag::Vepa] {
                let line = format!(
                    "n -o parent=eth0 -o ipvlan_mode={mode} -o ipvlan_flag={flag} \
                     -o host_access=true -o shared_parent=true"
                );
                let network = made(&line, &host());
                assert_eq!((network.mode, network.flag), (mode, flag));
                assert!(network.host_access && network.shared_parent);
                assert_eq!(network.options["ipvlan_mode"], mode.as_str());
                assert_eq!(network.options.len(), 5);
            }
        }
    }

    #[test]
    fn a_bad_mode_is_refused() {
        let field = "-o ipvlan_mode";
        let allowed = "l2, l3 or l3s";
        refused("n -o ipvlan_mode=l9", &host(), field, "l9", &[allowed]);
        for (typed, meant) in [("12", "l2"), ("13s", "l3s"), ("L3", "l3"), ("I2", "l2")] {
            let hint = format!("did you mean {meant}?");
            let line = format!("n -o ipvlan_mode={typed}");
            refused(&line, &host(), field, typed, &[allowed, &hint]);
        }
    }

    #[test]
    fn a_bad_flag_or_switch_is_refused() {
        let allowed = ["bridge, private or vepa"];
        refused(
            "n -o ipvlan_flag=open",
            &host(),
            "-o ipvlan_flag",
            "open",
            &allowed,
        );
        for key in ["host_access", "shared_parent"] {
            let field = format!("-o {key}");
            for value in ["yes", "", "TRUE"] {
                let line = format!("n -o {key}={value}");
                refused(&line, &host(), &field, value, &["true or false"]);
            }
            refused(
                &format!("n -o {key}"),
                &host(),
                &field,
                "",
                &["true or false"],
            );
        }
    }

    #[test]
    fn an_unknown_option_is_refused_with_the_known_ones() {
        for word in ["ipvlan_mod=l2", "Parent=eth0", "=x", "foo", "parent =eth0"] {
            let request = crate::model::CreateRequest {
                name: "n".into(),
                options: vec![word.into()],
                ..Default::default()
            };
            let error = request
                .resolve(&host(), crate::model::fixtures::id('a'), 0)
                .unwrap_err();
            assert_eq!((error.field.as_str(), error.value.as_str()), ("-o", word));
            assert!(error.allowed.contains("parent, ipvlan_mode, ipvlan_flag"));
        }
        let word = "com.docker.network.endpoint.ifname=net7";
        refused(&format!("n -o {word}"), &host(), "-o", word, &["--ifname"]);
    }

    #[test]
    fn an_option_given_twice_must_say_the_same() {
        made("n -o parent=eth0 -o parent=eth0", &host());
        let line = "n -o parent=eth0 -o parent=eth1";
        refused(line, &host(), "-o parent", "eth1", &["\"eth0\""]);
    }
}
