//! The words of a request that stand alone: name, driver, `-o` options, families, labels.

use std::collections::BTreeMap;

use super::{Flag, Invalid, Mode, Network};

pub const PARENT: &str = "parent";
pub const MODE: &str = "ipvlan_mode";
pub const FLAG: &str = "ipvlan_flag";
pub const MTU: &str = "com.docker.network.driver.mtu";
pub const HOST_ACCESS: &str = "host_access";
pub const SHARED_PARENT: &str = "shared_parent";
pub const LINK_IN_CONTAINER: &str = "link_in_container";
const KNOWN: [&str; 7] = [
    PARENT,
    MODE,
    FLAG,
    MTU,
    HOST_ACCESS,
    SHARED_PARENT,
    LINK_IN_CONTAINER,
];

const MAX_NAME: usize = 128;
/// The least an IPv4 and an IPv6 link must carry (RFC 791, RFC 8200), and what a length of 16
/// bits can say.
const MIN_MTU: u32 = 68;
const MIN_MTU_V6: u32 = 1280;
const MAX_MTU: u32 = 65535;

/// Which address families a network has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Families {
    pub v4: bool,
    pub v6: bool,
}

impl Families {
    /// The smallest MTU that these families work with.
    pub fn min_mtu(self) -> u32 {
        if self.v6 { MIN_MTU_V6 } else { MIN_MTU }
    }
}

/// The `-o` options (and `--mtu`), parsed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DriverOptions {
    /// `None` if left out or empty.
    pub parent: Option<String>,
    pub mode: Mode,
    pub flag: Flag,
    pub mtu: Option<u32>,
    /// The flag that gave the MTU.
    pub mtu_field: &'static str,
    pub host_access: bool,
    pub shared_parent: bool,
    /// The parent is a link of each container's own.
    pub link_in_container: bool,
    /// As the user said them.
    pub given: BTreeMap<String, String>,
}

/// How an option is named in an error.
pub fn field(key: &str) -> String {
    format!("-o {key}")
}

impl DriverOptions {
    pub fn parse(
        options: &[String],
        mtu_flag: Option<&str>,
        families: Families,
    ) -> Result<Self, Invalid> {
        let given = key_values(options)?;
        let get = |key: &str| given.get(key).map(String::as_str);
        let (mtu, mtu_field) = mtu(get(MTU), mtu_flag, families)?;
        let switch = |key: &str| get(key).map_or(Ok(false), |value| boolean(key, value));
        Ok(Self {
            parent: get(PARENT).filter(|name| !name.is_empty()).map(Into::into),
            mode: get(MODE).map_or(Ok(Mode::default()), mode)?,
            flag: get(FLAG).map_or(Ok(Flag::default()), flag)?,
            mtu,
            mtu_field,
            host_access: switch(HOST_ACCESS)?,
            shared_parent: switch(SHARED_PARENT)?,
            link_in_container: switch(LINK_IN_CONTAINER)?,
            given,
        })
    }
}

fn key_values(options: &[String]) -> Result<BTreeMap<String, String>, Invalid> {
    let mut given = BTreeMap::new();
    for option in options {
        let (key, value) = option.split_once('=').unwrap_or((option, ""));
        if !KNOWN.contains(&key) {
            let known = KNOWN.join(", ");
            return Err(Invalid::new(
                "-o",
                option,
                format!("the options are {known}"),
            ));
        }
        if !option.contains('=') {
            return Err(Invalid::new(
                "-o",
                option,
                format!("write it as {key}=VALUE"),
            ));
        }
        if given
            .insert(key.to_owned(), value.to_owned())
            .is_some_and(|before| before != value)
        {
            return Err(Invalid::new(field(key), value, "give it once only"));
        }
    }
    Ok(given)
}

fn mode(value: &str) -> Result<Mode, Invalid> {
    match value {
        "l2" => Ok(Mode::L2),
        "l3" => Ok(Mode::L3),
        "l3s" => Ok(Mode::L3s),
        // A digit in place of the letter, as some copies of Docker's tutorial have it.
        "12" | "13" | "13s" => Err(Invalid::new(
            field(MODE),
            value,
            format!(
                "it is one of l2, l3, l3s; did you mean {} with the letter l?",
                value.replacen('1', "l", 1)
            ),
        )),
        _ => Err(Invalid::new(field(MODE), value, "it is one of l2, l3, l3s")),
    }
}

fn flag(value: &str) -> Result<Flag, Invalid> {
    match value {
        "bridge" => Ok(Flag::Bridge),
        "private" => Ok(Flag::Private),
        "vepa" => Ok(Flag::Vepa),
        _ => Err(Invalid::new(
            field(FLAG),
            value,
            "it is one of bridge, private, vepa",
        )),
    }
}

fn boolean(key: &str, value: &str) -> Result<bool, Invalid> {
    match value {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err(Invalid::new(field(key), value, "it is true or false")),
    }
}

/// The MTU and the flag that gave it.
fn mtu(
    option: Option<&str>,
    flag: Option<&str>,
    families: Families,
) -> Result<(Option<u32>, &'static str), Invalid> {
    const OPTION_FIELD: &str = "-o com.docker.network.driver.mtu";
    const FLAG_FIELD: &str = "--mtu";
    let parse = |field: &str, value: &str| {
        decimal(value)
            .filter(|mtu| (families.min_mtu()..=MAX_MTU).contains(mtu))
            .ok_or_else(|| {
                let with = if families.v6 { " with IPv6" } else { "" };
                Invalid::new(
                    field,
                    value,
                    format!("it is {} to {MAX_MTU} bytes{with}", families.min_mtu()),
                )
            })
    };
    let option = option.map(|v| parse(OPTION_FIELD, v)).transpose()?;
    let flag = flag.map(|v| parse(FLAG_FIELD, v)).transpose()?;
    match (option, flag) {
        (Some(option), Some(flag)) if option != flag => Err(Invalid::new(
            FLAG_FIELD,
            flag.to_string(),
            format!("{OPTION_FIELD} says {option}; give one of them, or the same value"),
        )),
        (Some(_), _) => Ok((option, OPTION_FIELD)),
        (None, _) => Ok((flag, FLAG_FIELD)),
    }
}

/// Digits only: no sign, no space, no leading zero.
pub fn decimal(text: &str) -> Option<u32> {
    let plain = text.bytes().all(|b| b.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    if plain { text.parse().ok() } else { None }
}

pub fn check_name(name: &str, networks: &[Network]) -> Result<(), Invalid> {
    let invalid = |allowed: String| Err(Invalid::new("name", name, allowed));
    let starts_well = name.starts_with(|c: char| c.is_ascii_alphanumeric());
    let goes_on_well = name
        .chars()
        .all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'));
    if !starts_well || !goes_on_well || name.len() > MAX_NAME {
        return invalid(format!(
            "it is a letter or digit, then letters, digits, '_', '.' or '-', {MAX_NAME} at most"
        ));
    }
    if matches!(name, "host" | "none") {
        return invalid("that name is reserved; take another".into());
    }
    if let Some(other) = networks.iter().find(|n| n.name == name) {
        return invalid(format!(
            "network {} has that name; take another",
            other.id.short()
        ));
    }
    Ok(())
}

pub fn check_driver(driver: Option<&str>) -> Result<(), Invalid> {
    match driver {
        None | Some("" | "ipvlan" | "ipvlan-ctl") => Ok(()),
        Some(other) => Err(Invalid::new(
            "--driver",
            other,
            "it is ipvlan (or ipvlan-ctl), or left out",
        )),
    }
}

pub fn families(ipv4: Option<bool>, ipv6: bool) -> Result<Families, Invalid> {
    let v4 = ipv4.unwrap_or(true);
    if v4 || ipv6 {
        Ok(Families { v4, v6: ipv6 })
    } else {
        Err(Invalid::new(
            "--ipv4",
            "false",
            "a network without IPv4 needs --ipv6",
        ))
    }
}

pub fn labels(labels: &[String]) -> Result<BTreeMap<String, String>, Invalid> {
    labels
        .iter()
        .map(|label| match label.split_once('=').unwrap_or((label, "")) {
            ("", _) => Err(Invalid::new("--label", label, "it is KEY or KEY=VALUE")),
            (key, value) => Ok((key.to_owned(), value.to_owned())),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::{create, host, network, refused};
    use super::super::{Flag, Mode};

    #[test]
    fn names_are_docker_s() {
        let mut host = host();
        for name in ["a", "9", "db_net", "A.b-c_d", &"n".repeat(128)] {
            assert_eq!(network(name, &host).name, name);
        }
        for name in ["_a", ".a", "-", "a/b", "a:b", "é", "añ", &"n".repeat(129)] {
            let mut request = super::super::CreateRequest {
                name: name.into(),
                ..Default::default()
            };
            let bad = request
                .resolve(&host, super::super::Id::random(), 0)
                .unwrap_err();
            assert_eq!((bad.field.as_str(), bad.value.as_str()), ("name", name));
            assert!(bad.allowed.contains("128"));
            request.name.clear();
            assert!(
                request
                    .resolve(&host, super::super::Id::random(), 0)
                    .is_err()
            );
        }
        refused("host", &host, "name", "host", "reserved");
        refused("none", &host, "name", "none", "reserved");
        let other = create("db_net", &mut host);
        refused("db_net", &host, "name", "db_net", other.id.short());
    }

    #[test]
    fn driver_is_ours_or_left_out() {
        let host = host();
        for driver in ["", "-d ipvlan", "-d ipvlan-ctl"] {
            network(&format!("{driver} n"), &host);
        }
        refused("-d macvlan n", &host, "--driver", "macvlan", "ipvlan");
    }

    #[test]
    fn modes_and_flags() {
        let host = host();
        let plain = network("-o parent=eth0 n", &host);
        assert_eq!((plain.mode, plain.flag), (Mode::L2, Flag::Bridge));
        for (word, mode) in [("l2", Mode::L2), ("l3", Mode::L3), ("l3s", Mode::L3s)] {
            let net = network(&format!("-o parent=eth0 -o ipvlan_mode={word} n"), &host);
            assert_eq!((net.mode, net.mode.to_string()), (mode, word.into()));
            assert_eq!(net.options["ipvlan_mode"], word);
        }
        for (word, flag) in [
            ("bridge", Flag::Bridge),
            ("private", Flag::Private),
            ("vepa", Flag::Vepa),
        ] {
            let net = network(&format!("-o ipvlan_flag={word} n"), &host);
            assert_eq!((net.flag, net.flag.to_string()), (flag, word.into()));
        }
        for word in ["l9", "L2", ""] {
            let line = format!("-o ipvlan_mode={word} n");
            refused(&line, &host, "-o ipvlan_mode", word, "l2, l3, l3s");
        }
        // The typo in the seed page.
        refused(
            "-o ipvlan_mode=12 n",
            &host,
            "-o ipvlan_mode",
            "12",
            "mean l2",
        );
        let flags = "bridge, private, vepa";
        refused("-o ipvlan_flag=x n", &host, "-o ipvlan_flag", "x", flags);
    }

    #[test]
    fn options_are_known_and_have_values() {
        let host = host();
        refused("-o mode=l2 n", &host, "-o", "mode=l2", "ipvlan_mode");
        refused("-o =l2 n", &host, "-o", "=l2", "ipvlan_mode");
        refused("-o parent n", &host, "-o", "parent", "parent=VALUE");
        let twice = "-o ipvlan_mode=l2 -o ipvlan_mode=l3 n";
        refused(twice, &host, "-o ipvlan_mode", "l3", "once");
        network("-o ipvlan_mode=l2 -o ipvlan_mode=l2 n", &host);
        for key in ["host_access", "shared_parent"] {
            let field = format!("-o {key}");
            let line = format!("-o parent=eth0 -o {key}=yes n");
            refused(&line, &host, &field, "yes", "true or false");
        }
        let net = network("-o parent=eth0 -o host_access=true n", &host);
        assert!(net.host_access && !net.shared_parent);
    }

    #[test]
    fn mtu_has_two_names_and_the_parent_s_bound() {
        const KEY: &str = "com.docker.network.driver.mtu";
        let field = format!("-o {KEY}");
        let host = host();
        assert_eq!(network("n", &host).mtu, None);
        for line in [
            format!("-o {KEY}=1400 n"),
            "--mtu=1400 n".into(),
            format!("--mtu=1400 -o {KEY}=1400 n"),
        ] {
            assert_eq!(network(&line, &host).mtu, Some(1400));
        }
        let both = format!("--mtu=1400 -o {KEY}=1300 n");
        refused(&both, &host, "--mtu", "1400", "1300");
        for mtu in ["67", "65536", "-1", "+68", "068", "x", "", "99999999999"] {
            refused(
                &format!("--mtu={mtu} n"),
                &host,
                "--mtu",
                mtu,
                "68 to 65535",
            );
            refused(
                &format!("-o {KEY}={mtu} n"),
                &host,
                &field,
                mtu,
                "68 to 65535",
            );
        }
        refused(
            "--ipv6 --mtu=1279 n",
            &host,
            "--mtu",
            "1279",
            "1280 to 65535",
        );
        assert_eq!(network("--ipv6 --mtu=1280 n", &host).mtu, Some(1280));
        assert_eq!(network("--mtu=68 n", &host).mtu, Some(68));
        assert_eq!(network("--mtu=65535 n", &host).mtu, Some(65535));
        let over = "-o parent=eth0 --mtu=1501 n";
        refused(over, &host, "--mtu", "1501", "1500");
        let over = "-o parent=eth0.10 --mtu=1501 n";
        refused(over, &host, "--mtu", "1501", "1500");
        let inherited = "--ipv6 -o parent=slow n";
        refused(inherited, &host, "-o parent", "slow", "1280");
    }

    #[test]
    fn families() {
        let host = host();
        let net = network("n", &host);
        assert!(net.ipv4 && !net.ipv6);
        let net = network("--ipv4=false --ipv6 n", &host);
        assert!(!net.ipv4 && net.ipv6);
        assert!(net.pools.iter().all(|pool| pool.subnet.is_ipv6()));
        refused("--ipv4=false n", &host, "--ipv4", "false", "--ipv6");
    }

    #[test]
    fn labels() {
        let host = host();
        let net = network("--label=a --label=b=c=d n", &host);
        assert_eq!(net.labels["a"], "");
        assert_eq!(net.labels["b"], "c=d");
        refused("--label==x n", &host, "--label", "=x", "KEY=VALUE");
        refused("--label= n", &host, "--label", "", "KEY=VALUE");
    }
}
