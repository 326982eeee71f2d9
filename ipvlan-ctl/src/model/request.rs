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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::address::{encloses, overlap};
    use crate::model::fixtures::{add, host, id, link, made, refused};

    #[test]
    fn the_pages_networks() {
        let mut host = host();
        host.links.push(link(4, "enp3s0"));
        let db_net = made(
            "db_net -d ipvlan --subnet 192.168.1.0/24 --gateway 192.168.1.1 -o ipvlan_mode=l2 \
             -o parent=enp3s0",
            &host,
        );
        // `exactly the same network`, by the defaults.
        let defaults = made(
            "db_net -d ipvlan --subnet 192.168.1.0/24 -o parent=enp3s0",
            &host,
        );
        let without_options = |network: Network| Network {
            options: BTreeMap::new(),
            ..network
        };
        assert_eq!(without_options(db_net.clone()), without_options(defaults));
        assert_eq!(db_net.pools[0].gateway, Some([192, 168, 1, 1].into()));
        assert!(!db_net.internal && db_net.ipv4 && !db_net.ipv6);

        add(
            "isolated1 -d ipvlan --subnet 192.168.10.0/24",
            'b',
            &mut host,
        );
        add(
            "isolated2 -d ipvlan --subnet 192.168.11.0/24 --internal",
            'c',
            &mut host,
        );
        add("isolated3 -d ipvlan", 'd', &mut host);
        let subnets: Vec<_> = host
            .networks
            .iter()
            .inspect(|n| assert!(n.internal && n.pools[0].gateway.is_none()))
            .map(|n| n.pools[0].subnet.to_string())
            .collect();
        assert_eq!(
            subnets,
            ["192.168.10.0/24", "192.168.11.0/24", "172.18.0.0/16"]
        );
    }

    #[test]
    fn the_pages_mistyped_commands_are_refused_with_a_hint() {
        let line = "db_net -o ipvlan_mode=12 -o parent=eth0";
        refused(line, &host(), "-o ipvlan_mode", "12", &["did you mean l2?"]);
        let line = "n --subnet 192.168.1.0./24 -o parent=eth0";
        refused(
            line,
            &host(),
            "--subnet",
            "192.168.1.0./24",
            &["192.168.1.0/24"],
        );
    }

    #[test]
    fn what_is_given_is_kept() {
        let network = made("web.1-x_Y --label a --label b=c=d --label b=e", &host());
        assert_eq!((network.name.as_str(), network.created), ("web.1-x_Y", 7));
        assert_eq!(network.id, id('a'));
        let labels = [("a", ""), ("b", "e")].map(|(k, v)| (k.into(), v.into()));
        assert_eq!(network.labels, BTreeMap::from(labels));
    }

    #[test]
    fn a_bad_name_is_refused() {
        let field = "network name";
        for name in ["", "-a", ".a", "_a", "a/b", "a:b", "é", "aé", "a b"] {
            let request = CreateRequest {
                name: name.into(),
                ..Default::default()
            };
            let error = request.resolve(&host(), id('a'), 0).unwrap_err();
            assert_eq!((error.field.as_str(), error.value.as_str()), (field, name));
            assert!(error.allowed.contains("begins with a letter or digit"));
        }
        let long = "n".repeat(129);
        refused(&long, &host(), field, &long, &["128"]);
        made(&long[1..], &host());
        for name in ["host", "none"] {
            refused(name, &host(), field, name, &["reserved"]);
        }
        let mut host = host();
        add("db", 'b', &mut host);
        refused("db", &host, field, "db", &["network bbbbbbbbbbbb has it"]);
    }

    #[test]
    fn only_our_driver_is_known() {
        for line in ["n -d ipvlan", "n -d ipvlan-ctl"] {
            made(line, &host());
        }
        refused("n -d bridge", &host(), "--driver", "bridge", &["ipvlan"]);
    }

    #[test]
    fn a_label_has_a_key() {
        refused("n --label =x", &host(), "--label", "=x", &["KEY=VALUE"]);
    }

    #[test]
    fn one_family_is_on() {
        refused("n --ipv4=false", &host(), "--ipv4", "false", &["--ipv6"]);
    }

    #[test]
    fn mtu_by_flag_or_option() {
        let option = "com.docker.network.driver.mtu";
        assert_eq!(made("n", &host()).mtu, None);
        assert_eq!(made("n -o parent=eth0 --mtu 1400", &host()).mtu, Some(1400));
        let both = format!("n -o parent=eth0.5 --mtu 68 -o {option}=68");
        assert_eq!(made(&both, &host()).mtu, Some(68));
        // A dummy takes any.
        assert_eq!(
            made(&format!("n -o {option}=65535"), &host()).mtu,
            Some(65535)
        );
        let differ = format!("n --mtu 1400 -o {option}=1300");
        let field = format!("-o {option}");
        refused(&differ, &host(), &field, "1300", &["--mtu says 1400"]);
        refused(
            &format!("n -o {option}"),
            &host(),
            &field,
            "",
            &["68 to 65535"],
        );
    }

    #[test]
    fn a_bad_mtu_is_refused() {
        for value in ["67", "0", "-1", "65536", "x", "99999999999"] {
            refused(
                &format!("n --mtu {value}"),
                &host(),
                "--mtu",
                value,
                &["68 to 65535"],
            );
        }
        refused(
            "n --ipv6 --mtu 1279",
            &host(),
            "--mtu",
            "1279",
            &["IPv6", "1280"],
        );
        made("n --ipv6 --mtu 1280", &host());
        for parent in ["eth0", "eth0.7"] {
            let line = format!("n -o parent={parent} --mtu 1501");
            refused(
                &line,
                &host(),
                "--mtu",
                "1501",
                &["68 to 1500 (the MTU of eth0)"],
            );
        }
    }

    /// Words as users might type them: some good, some near misses, some anything.
    fn word(good: &'static [&'static str]) -> impl Strategy<Value = String> {
        prop_oneof![
            4 => proptest::sample::select(good).prop_map(str::to_owned),
            1 => "[0-9a-f.:/=]{0,24}",
            1 => any::<String>(),
        ]
    }

    fn words(good: &'static [&'static str]) -> impl Strategy<Value = Vec<String>> {
        proptest::collection::vec(word(good), 0..3)
    }

    fn any_request() -> impl Strategy<Value = CreateRequest> {
        let subnets: &[&str] = &[
            "192.168.1.0/24",
            "10.0.0.0/8",
            "10.0.0.0/31",
            "10.3.0.0/30",
            "128.0.0.0/1",
            "255.255.255.0/24",
            "fd00::/64",
            "fd00:1::/126",
            "fd00::8/127",
            "4000::/2",
            "10.0.0.7/32",
            "fd01::1/128",
            "0.0.0.0/0",
            "::/0",
            "10.1.1.1/8",
        ];
        let addresses: &[&str] = &["192.168.1.1", "10.0.0.1", "fd00::1", "10.0.0.0", "fd00::9"];
        let ranges: &[&str] = &["192.168.1.0/25", "10.0.0.0/30", "fd00::/80", "10.0.0.1/32"];
        let aux: &[&str] = &["a=192.168.1.1", "b=10.0.0.1", "c=fd00::1", "d=", "=1.2.3.4"];
        let options: &[&str] = &[
            "parent=eth0",
            "parent=eth0.9",
            "ipvlan_mode=l3",
            "ipvlan_mode=l3s",
            "parent",
            "ipvlan_flag=vepa",
            "shared_parent=true",
            "com.docker.network.driver.mtu=1300",
        ];
        (
            (
                word(&["n", "db_net"]),
                words(subnets),
                words(addresses),
                words(ranges),
            ),
            (words(aux), words(options), words(&["k", "k=v"])),
            (any::<bool>(), any::<Option<bool>>(), any::<bool>()),
            proptest::option::of(word(&["1280", "1500", "68"])),
        )
            .prop_map(|(ip, lists, (internal, ipv4, ipv6), mtu)| CreateRequest {
                name: ip.0,
                driver: None,
                internal,
                ipv4,
                ipv6,
                subnets: ip.1,
                gateways: ip.2,
                ip_ranges: ip.3,
                aux_addresses: lists.0,
                options: lists.1,
                labels: lists.2,
                mtu,
            })
    }

    /// A subnet, with gateways, ranges and auxiliary addresses that fit it and each other.
    type Row = (
        &'static str,
        &'static [&'static str],
        &'static [&'static str],
        &'static [&'static str],
    );

    const ROWS: [Row; 8] = [
        (
            "192.168.1.0/24",
            &["192.168.1.1", "192.168.1.254"],
            &["192.168.1.0/25", "192.168.1.64/26"],
            &["192.168.1.2", "192.168.1.77"],
        ),
        (
            "10.0.0.0/8",
            &["10.0.0.1", "10.255.255.254"],
            &["10.5.0.0/16", "10.0.0.0/31"],
            &["10.0.0.2", "10.5.0.0"],
        ),
        (
            "172.16.0.0/30",
            &["172.16.0.1", "172.16.0.2"],
            &["172.16.0.0/31"],
            &[],
        ),
        ("172.16.0.8/31", &["172.16.0.9"], &["172.16.0.8/32"], &[]),
        (
            "255.255.255.0/24",
            &["255.255.255.9"],
            &["255.255.255.128/25"],
            &["255.255.255.1"],
        ),
        (
            "fd00:1::/64",
            &["fd00:1::9", "fd00:1::ffff:ffff:ffff:ffff"],
            &["fd00:1::/80", "fd00:1:0:0:8000::/65"],
            &["fd00:1::1", "fd00:1::2"],
        ),
        (
            "fd00:2::/126",
            &["fd00:2::3"],
            &["fd00:2::/127", "fd00:2::2/127"],
            &[],
        ),
        ("fd00:2::8/127", &["fd00:2::8"], &[], &[]),
    ];

    /// A request that must be good.
    fn good_request() -> impl Strategy<Value = CreateRequest> {
        let rows = proptest::sample::subsequence(ROWS.to_vec(), 0..=ROWS.len()).prop_shuffle();
        let picks = proptest::collection::vec((0..3usize, 0..3usize, 0..4usize), ROWS.len());
        let parent = proptest::sample::select(vec!["", "eth0", "eth0.9"]);
        let mode = proptest::sample::select(vec!["", "l2", "l3", "l3s"]);
        let switches = (any::<bool>(), any::<bool>(), any::<bool>());
        (rows, picks, parent, mode, switches).prop_map(
            |(rows, picks, parent, mode, (internal, v4, v6))| {
                let v6 = v6 || rows.iter().any(|row| row.0.contains(':'));
                let v4 = v4 || !v6 || rows.iter().any(|row| row.0.contains('.'));
                let mut request = CreateRequest {
                    name: "n".into(),
                    internal,
                    ipv4: Some(v4),
                    ipv6: v6,
                    options: vec![format!("parent={parent}"), format!("ipvlan_mode={mode}")],
                    ..Default::default()
                };
                for (row, (gateway, range, aux)) in rows.iter().zip(picks) {
                    let text = |list: &[&str], at: usize| list.get(at).map(|s| s.to_string());
                    request.subnets.push(row.0.into());
                    request.gateways.extend(text(row.1, gateway));
                    request.ip_ranges.extend(text(row.2, range));
                    let aux = row
                        .3
                        .iter()
                        .take(aux)
                        .map(|address| format!("{address}={address}"));
                    request.aux_addresses.extend(aux);
                }
                request
            },
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1000))]

        /// Whatever is typed, there is a network or one line that says what is wrong.
        #[test]
        fn any_words_make_a_network_or_one_line(request in any_request()) {
            if let Err(error) = request.resolve(&host(), id('a'), 0) {
                prop_assert!(!error.to_string().contains('\n'), "{}", error);
            }
        }

        #[test]
        fn good_words_make_a_sound_network(request in good_request()) {
            let network = request
                .resolve(&host(), id('a'), 0)
                .map_err(|error| TestCaseError::fail(error.to_string()))?;
            prop_assert_eq!(network.ipv4, network.pools_of(Family::V4).next().is_some());
            prop_assert_eq!(network.ipv6, network.pools_of(Family::V6).next().is_some());
            let (mut gateways, mut ranges, mut aux) = (0, 0, 0);
            for (i, pool) in network.pools.iter().enumerate() {
                prop_assert!(pool.subnet.network() == pool.subnet.ip());
                prop_assert!(!network.pools[..i].iter().any(|p| overlap(p.subnet, pool.subnet)));
                prop_assert!(pool.range.is_none_or(|range| encloses(pool.subnet, range)));
                prop_assert!(!network.needs_gateway() || pool.gateway.is_some());
                let chosen = pool.gateway.into_iter().chain(pool.aux.values().copied());
                let chosen: Vec<_> = chosen.collect();
                for (j, address) in chosen.iter().enumerate() {
                    prop_assert!(pool.subnet.contains(*address));
                    prop_assert!(pool.reserved_by_format(*address).is_none());
                    prop_assert!(!chosen[..j].contains(address));
                }
                prop_assert!(pool.capacity() > 0);
                gateways += usize::from(pool.gateway.is_some());
                ranges += usize::from(pool.range.is_some());
                aux += pool.aux.len();
            }
            // Nothing that was said is lost.
            prop_assert_eq!(ranges, request.ip_ranges.len());
            prop_assert_eq!(aux, request.aux_addresses.len());
            let expected = match network.needs_gateway() {
                true => network.pools.len(),
                false => request.gateways.len(),
            };
            prop_assert_eq!(gateways, expected);
        }
    }
}
