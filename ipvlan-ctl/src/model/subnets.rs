//! The pools of a new network: what `--subnet`, `--gateway`, `--ip-range` and `--aux-address`
//! say, and the defaults for what they leave out.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::{IpNetwork, Ipv4Network, Ipv6Network};

use super::address::{Family, bounds, encloses, overlap};
use super::{CreateRequest, HostView, Invalid, Mode, Network, Pool};

/// What the pools depend on besides the request.
#[derive(Debug, Clone, Copy)]
pub struct Setting<'a> {
    pub mode: Mode,
    pub internal: bool,
    /// Name of the parent.
    pub parent: &'a str,
    pub ipv4: bool,
    pub ipv6: bool,
}

pub fn resolve(
    request: &CreateRequest,
    setting: Setting,
    host: &HostView,
) -> Result<Vec<Pool>, Invalid> {
    let mut pools = Vec::new();
    for text in &request.subnets {
        let subnet = parse_subnet(text)?;
        check_family(text, subnet, setting)?;
        check_overlap(subnet, &pools, setting, &host.networks)?;
        pools.push(Pool::new(subnet));
    }
    for text in &request.gateways {
        set_gateway(text, &mut pools)?;
    }
    for text in &request.ip_ranges {
        set_range(text, &mut pools)?;
    }
    for text in &request.aux_addresses {
        add_aux(text, &mut pools)?;
    }
    if setting.ipv4 && !pools.iter().any(|p| p.family() == Family::V4) {
        pools.insert(0, Pool::new(default_v4(host)?));
    }
    if setting.ipv6 && !pools.iter().any(|p| p.family() == Family::V6) {
        pools.push(Pool::new(default_v6(host)?));
    }
    for pool in &mut pools {
        if setting.mode == Mode::L2 && !setting.internal && pool.gateway.is_none() {
            pool.gateway = Some(default_gateway(pool)?);
        }
        if pool.capacity() == 0 {
            return Err(Invalid::new(
                "--subnet",
                pool.subnet.to_string(),
                "it leaves no address for an endpoint beside the gateway and the reserved ones",
            ));
        }
    }
    Ok(pools)
}

/// Prefixes whose addresses no endpoint can use, and why.
const UNUSABLE: [(IpNetwork, &str); 6] = [
    (v4([0, 0, 0, 0], 8), "which names no host"),
    (v4([127, 0, 0, 0], 8), "which is loopback"),
    (v4([224, 0, 0, 0], 4), "which is multicast"),
    (v6([0, 0, 0, 0, 0, 0, 0, 0], 127), "which is loopback"),
    (
        v6([0, 0, 0, 0, 0, 0xffff, 0, 0], 96),
        "which is IPv4 in IPv6",
    ),
    (v6([0xff00, 0, 0, 0, 0, 0, 0, 0], 8), "which is multicast"),
];

const fn v4(octets: [u8; 4], prefix: u8) -> IpNetwork {
    let [a, b, c, d] = octets;
    match Ipv4Network::new_checked(Ipv4Addr::new(a, b, c, d), prefix) {
        Some(network) => IpNetwork::V4(network),
        None => panic!("an IPv4 prefix is at most 32"),
    }
}

const fn v6(segments: [u16; 8], prefix: u8) -> IpNetwork {
    let [a, b, c, d, e, f, g, h] = segments;
    match Ipv6Network::new_checked(Ipv6Addr::new(a, b, c, d, e, f, g, h), prefix) {
        Some(network) => IpNetwork::V6(network),
        None => panic!("an IPv6 prefix is at most 128"),
    }
}

fn parse_subnet(text: &str) -> Result<IpNetwork, Invalid> {
    let subnet = parse_prefix("--subnet", text)?;
    let refuse = |why: String| Err(Invalid::new("--subnet", text, why));
    if subnet.prefix() == 0 {
        return refuse("it is the whole address space; the prefix is at least /1".into());
    }
    match UNUSABLE.iter().find(|(block, _)| overlap(*block, subnet)) {
        Some((block, why)) => refuse(format!("it has addresses of {block}, {why}")),
        None => Ok(subnet),
    }
}

/// A prefix in CIDR notation without host bits.
fn parse_prefix(field: &str, text: &str) -> Result<IpNetwork, Invalid> {
    let expected = "give a prefix in CIDR notation, such as 192.168.1.0/24 or fd00:1::/64";
    let (_, length) = text
        .split_once('/')
        .ok_or_else(|| Invalid::new(field, text, expected))?;
    let prefix: IpNetwork = match length.bytes().all(|b| b.is_ascii_digit()) {
        true => text.parse().ok(),
        false => None,
    }
    .ok_or_else(|| Invalid::new(field, text, expected))?;
    let canonical = masked(prefix);
    if prefix != canonical {
        let allowed = format!("it has bits set after the prefix; did you mean {canonical}?");
        return Err(Invalid::new(field, text, allowed));
    }
    Ok(prefix)
}

fn masked(prefix: IpNetwork) -> IpNetwork {
    IpNetwork::new(prefix.network(), prefix.prefix()).expect("the prefix is of the same family")
}

fn check_family(text: &str, subnet: IpNetwork, setting: Setting) -> Result<(), Invalid> {
    let why = match Family::of(subnet.ip()) {
        Family::V4 if !setting.ipv4 => "IPv4 is off (--ipv4=false); leave this subnet out",
        Family::V6 if !setting.ipv6 => "IPv6 is off; give --ipv6 too",
        _ => return Ok(()),
    };
    Err(Invalid::new("--subnet", text, why))
}

fn check_overlap(
    subnet: IpNetwork,
    pools: &[Pool],
    setting: Setting,
    networks: &[Network],
) -> Result<(), Invalid> {
    let refuse = |why: String| Err(Invalid::new("--subnet", subnet.to_string(), why));
    if let Some(other) = pools.iter().find(|p| overlap(p.subnet, subnet)) {
        return refuse(format!(
            "it overlaps {}; the subnets of a network are disjoint",
            other.subnet
        ));
    }
    for network in networks {
        // Endpoints on two l3 parents never meet on a wire, and their networks share one set of
        // leases.
        if setting.mode.is_l3() && network.mode.is_l3() && network.parent.name() != setting.parent {
            continue;
        }
        if let Some(other) = network.pools.iter().find(|p| overlap(p.subnet, subnet)) {
            return refuse(format!(
                "it overlaps {} of network {} ({}); only l3 or l3s networks on different parents \
                 may overlap",
                other.subnet,
                network.name,
                network.id.short()
            ));
        }
    }
    Ok(())
}

fn set_gateway(text: &str, pools: &mut [Pool]) -> Result<(), Invalid> {
    let refuse = |why: String| Err(Invalid::new("--gateway", text, why));
    let gateway = parse_address("--gateway", text, text)?;
    let Some(at) = pools.iter().position(|p| p.subnet.contains(gateway)) else {
        return refuse(must_lie_in(pools));
    };
    let pool = &mut pools[at];
    if let Some(reserved) = pool.reserved_by_format(gateway) {
        return refuse(format!(
            "it is {reserved} of {}; give another address of it",
            pool.subnet
        ));
    }
    if let Some(other) = pool.gateway {
        return refuse(format!(
            "{} has the gateway {other}; a subnet has one",
            pool.subnet
        ));
    }
    pool.gateway = Some(gateway);
    Ok(())
}

fn set_range(text: &str, pools: &mut [Pool]) -> Result<(), Invalid> {
    let refuse = |why: String| Err(Invalid::new("--ip-range", text, why));
    let range = parse_prefix("--ip-range", text)?;
    let Some(at) = pools.iter().position(|p| encloses(p.subnet, range)) else {
        return refuse(must_lie_in(pools));
    };
    let pool = &mut pools[at];
    if let Some(other) = pool.range {
        return refuse(format!(
            "{} has the range {other}; a subnet has one",
            pool.subnet
        ));
    }
    pool.range = Some(range);
    Ok(())
}

fn add_aux(text: &str, pools: &mut [Pool]) -> Result<(), Invalid> {
    const FIELD: &str = "--aux-address";
    let refuse = |why: String| Err(Invalid::new(FIELD, text, why));
    let Some((name, address)) = text.split_once('=').filter(|(name, _)| !name.is_empty()) else {
        return refuse("give NAME=ADDRESS, such as router=192.168.1.2".into());
    };
    let address = parse_address(FIELD, text, address)?;
    if pools.iter().any(|p| p.aux.contains_key(name)) {
        return refuse(format!("the name {name:?} is given twice"));
    }
    let Some(at) = pools.iter().position(|p| p.subnet.contains(address)) else {
        return refuse(must_lie_in(pools));
    };
    let pool = &mut pools[at];
    if let Some(reserved) = pool.reserved_as(address) {
        return refuse(format!("{address} is {reserved} of {}", pool.subnet));
    }
    pool.aux.insert(name.to_owned(), address);
    Ok(())
}

fn parse_address(field: &str, text: &str, address: &str) -> Result<IpAddr, Invalid> {
    address
        .parse()
        .map_err(|_| Invalid::new(field, text, "give an IPv4 or IPv6 address without prefix"))
}

fn must_lie_in(pools: &[Pool]) -> String {
    if pools.is_empty() {
        return "it needs a --subnet that contains it".into();
    }
    let subnets: Vec<_> = pools.iter().map(|p| p.subnet.to_string()).collect();
    format!("it must lie in {}", subnets.join(" or "))
}

/// The first address that is not reserved: of the subnet, or of its `--ip-range` as in Docker
/// (moby's `defaultipam` requests the gateway from the sub-pool like any other address). Unlike
/// Docker, an auxiliary address in its place is passed over rather than refused.
fn default_gateway(pool: &Pool) -> Result<IpAddr, Invalid> {
    let (first, last) = bounds(pool.dynamic());
    (first..=last)
        .map(|n| pool.family().address(n))
        .find(|address| !pool.is_reserved(*address))
        .ok_or_else(|| {
            let field = match pool.range {
                Some(_) => "--ip-range",
                None => "--subnet",
            };
            let allowed = "it has no address left for a gateway; give a wider one, or --gateway";
            Invalid::new(field, pool.dynamic().to_string(), allowed)
        })
}

/// The first of Docker's default pools that overlaps no network and nothing of the host.
/// 172.17.0.0/16 is left to docker0, whether or not Docker is here: so the first is always
/// 172.18.0.0/16.
fn default_v4(host: &HostView) -> Result<IpNetwork, Invalid> {
    let sixteens = (18..=31).map(|b| v4([172, b, 0, 0], 16));
    let twenties = (0..=240).step_by(16).map(|c| v4([192, 168, c, 0], 20));
    first_unused(sixteens.chain(twenties), host).ok_or_else(|| {
        let allowed = "every default subnet overlaps a network, route or address of this host; \
                       give one";
        Invalid::new("--subnet", "", allowed)
    })
}

/// The first free /64 of the host's ULA /48 (RFC 4193).
fn default_v6(host: &HostView) -> Result<IpNetwork, Invalid> {
    let [a, b, c, d, e] = host.ula_seed.map(u16::from);
    let sixty_fours =
        (0..=u16::MAX).map(|n| v6([0xfd00 | a, b << 8 | c, d << 8 | e, n, 0, 0, 0, 0], 64));
    first_unused(sixty_fours, host).ok_or_else(|| {
        let allowed = "every default IPv6 subnet overlaps a network, route or address of this \
                       host; give one";
        Invalid::new("--subnet", "", allowed)
    })
}

fn first_unused(
    mut candidates: impl Iterator<Item = IpNetwork>,
    host: &HostView,
) -> Option<IpNetwork> {
    let of_networks = host
        .networks
        .iter()
        .flat_map(|n| &n.pools)
        .map(|p| p.subnet);
    let taken: Vec<_> = of_networks.chain(host.used.iter().copied()).collect();
    candidates.find(|candidate| !taken.iter().any(|t| overlap(*t, *candidate)))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use crate::model::fixtures::{add, host, made, refused};
    use crate::model::{HostView, Pool};

    fn pools(line: &str) -> Vec<Pool> {
        made(&format!("n {line}"), &host()).pools
    }

    fn gateway(line: &str) -> Option<String> {
        pools(line)[0].gateway.map(|address| address.to_string())
    }

    #[test]
    fn bad_subnets_are_refused() {
        let field = "--subnet";
        for text in [
            "x",
            "",
            "192.168.1.0",
            "192.168.1.0./24",
            "300.1.1.0/24",
            "10.0.0.0/33",
            "10.0.0.0/",
            "10.0.0.0/-1",
            "10.0.0.0/+8",
            "fd00::/129",
            "fd00::1::/64",
            "/24",
            "10.0.0.0/8/8",
            "10.0.0.0/255.0.0.0",
        ] {
            let request = crate::model::CreateRequest {
                name: "n".into(),
                subnets: vec![text.into()],
                ipv6: true,
                ..Default::default()
            };
            let error = request
                .resolve(&host(), crate::model::fixtures::id('a'), 0)
                .unwrap_err();
            assert_eq!((error.field.as_str(), error.value.as_str()), (field, text));
            assert!(error.allowed.contains("192.168.1.0/24"), "{error}");
        }
        let line = "n --subnet 192.168.1.5/24";
        refused(
            line,
            &host(),
            field,
            "192.168.1.5/24",
            &["did you mean 192.168.1.0/24?"],
        );
        let line = "n --ipv6 --subnet fd00::1/64";
        refused(
            line,
            &host(),
            field,
            "fd00::1/64",
            &["did you mean fd00::/64?"],
        );
        for text in ["0.0.0.0/0", "::/0"] {
            refused(
                &format!("n --ipv6 --subnet {text}"),
                &host(),
                field,
                text,
                &["/1"],
            );
        }
        for (text, why) in [
            ("127.5.0.0/16", "loopback"),
            ("224.0.0.0/8", "multicast"),
            ("0.0.0.0/8", "no host"),
            ("64.0.0.0/2", "loopback"),
            ("ff02::/64", "multicast"),
            ("::1/128", "loopback"),
            ("::ffff:10.0.0.0/104", "IPv4 in IPv6"),
        ] {
            refused(
                &format!("n --ipv6 --subnet {text}"),
                &host(),
                field,
                text,
                &[why],
            );
        }
    }

    #[test]
    fn subnets_of_a_family_that_is_off_are_refused() {
        let line = "n --subnet fd00::/64";
        refused(line, &host(), "--subnet", "fd00::/64", &["--ipv6"]);
        let line = "n --ipv4=false --ipv6 --subnet 10.0.0.0/8";
        refused(line, &host(), "--subnet", "10.0.0.0/8", &["--ipv4=false"]);
    }

    #[test]
    fn subnets_of_one_network_are_disjoint() {
        let line = "n --subnet 10.0.0.0/8 --subnet 10.1.0.0/16";
        refused(
            line,
            &host(),
            "--subnet",
            "10.1.0.0/16",
            &["10.0.0.0/8", "disjoint"],
        );
        let line = "n --subnet 10.1.0.0/16 --subnet 10.1.0.0/16";
        refused(line, &host(), "--subnet", "10.1.0.0/16", &["disjoint"]);
    }

    #[test]
    fn subnets_of_two_networks_are_disjoint_but_in_l3() {
        let mut host = host();
        add(
            "first -o parent=eth0 -o ipvlan_mode=l3 --subnet 10.1.0.0/16",
            'b',
            &mut host,
        );
        let other = |mode: &str, parent: &str| {
            format!("n --subnet 10.1.2.0/24 -o ipvlan_mode={mode} -o parent={parent}")
        };
        let named = ["10.1.0.0/16 of network first (bbbbbbbbbbbb)"];
        refused(
            &other("l2", "eth1"),
            &host,
            "--subnet",
            "10.1.2.0/24",
            &named,
        );
        made(&other("l3", "eth1"), &host);
        made(&other("l3s", "eth1.4"), &host);
        add("second -o parent=eth1 --subnet 10.2.0.0/16", 'c', &mut host);
        let line = "n --subnet 10.0.0.0/8 -o ipvlan_mode=l3 -o parent=eth0.1";
        refused(
            line,
            &host,
            "--subnet",
            "10.0.0.0/8",
            &["10.2.0.0/16 of network second"],
        );
    }

    #[test]
    fn the_hosts_own_subnet_may_be_given() {
        assert_eq!(
            gateway("-o parent=eth0 --subnet 10.9.0.0/16"),
            Some("10.9.0.1".into())
        );
    }

    #[test]
    fn only_l2_that_is_not_internal_needs_a_gateway() {
        let subnet = "--subnet 10.1.0.0/24";
        assert_eq!(
            gateway(&format!("-o parent=eth0 {subnet}")),
            Some("10.1.0.1".into())
        );
        for other in [
            "",
            "-o parent=eth0 --internal",
            "-o parent=eth0 -o ipvlan_mode=l3",
        ] {
            assert_eq!(gateway(&format!("{other} {subnet}")), None);
            // But it may be given, and is reserved then.
            let given = format!("{other} {subnet} --gateway 10.1.0.9");
            assert_eq!(gateway(&given), Some("10.1.0.9".into()));
        }
    }

    #[test]
    fn the_default_gateway_is_the_first_usable_address() {
        for (line, expected) in [
            ("--subnet 192.168.1.0/24", "192.168.1.1"),
            ("--subnet 10.0.0.4/30", "10.0.0.5"),
            ("--subnet 10.0.0.4/31", "10.0.0.4"),
            ("--ipv4=false --ipv6 --subnet fd00::/64", "fd00::1"),
            ("--ipv4=false --ipv6 --subnet fd00::/126", "fd00::1"),
            ("--ipv4=false --ipv6 --subnet fd00::2/127", "fd00::2"),
            // Of the range, as in moby; its first address is an ordinary one of the subnet.
            (
                "--subnet 172.28.0.0/16 --ip-range 172.28.5.0/24",
                "172.28.5.0",
            ),
            (
                "--subnet 172.28.0.0/16 --ip-range 172.28.0.0/24",
                "172.28.0.1",
            ),
            ("--subnet 10.1.0.0/24 --aux-address a=10.1.0.1", "10.1.0.2"),
        ] {
            let line = format!("-o parent=eth0 {line}");
            assert_eq!(gateway(&line).as_deref(), Some(expected), "{line}");
        }
    }

    #[test]
    fn bad_gateways_are_refused() {
        let field = "--gateway";
        let two = "n --subnet 10.1.0.0/24 --subnet 10.2.0.0/24";
        let line = format!("{two} --gateway 10.3.0.1");
        refused(
            &line,
            &host(),
            field,
            "10.3.0.1",
            &["10.1.0.0/24 or 10.2.0.0/24"],
        );
        let line = format!("{two} --gateway 10.2.0.1 --gateway 10.2.0.2");
        refused(
            &line,
            &host(),
            field,
            "10.2.0.2",
            &["10.2.0.0/24 has the gateway 10.2.0.1"],
        );
        let line = format!("{two} --gateway 10.1.0.0");
        refused(
            &line,
            &host(),
            field,
            "10.1.0.0",
            &["network address of 10.1.0.0/24"],
        );
        let line = format!("{two} --gateway 10.2.0.255");
        refused(
            &line,
            &host(),
            field,
            "10.2.0.255",
            &["broadcast address of 10.2.0.0/24"],
        );
        let line = "n --ipv6 --subnet fd00::/64 --gateway fd00::";
        refused(line, &host(), field, "fd00::", &["anycast"]);
        refused(
            "n --gateway 10.1.0.1",
            &host(),
            field,
            "10.1.0.1",
            &["--subnet"],
        );
        for text in ["x", "10.1.0.1/24", "10.1.0", "10.1.0.1%eth0"] {
            refused(
                &format!("{two} --gateway {text}"),
                &host(),
                field,
                text,
                &["address"],
            );
        }
        // A family without a given subnet has none for it either.
        let line = "n --ipv6 --subnet fd00::/64 --gateway 172.18.0.1";
        refused(
            line,
            &host(),
            field,
            "172.18.0.1",
            &["must lie in fd00::/64"],
        );
    }

    #[test]
    fn gateways_find_their_subnet_in_any_order() {
        let pools = pools(
            "-o parent=eth0 --ipv6 --subnet 10.1.0.0/24 --subnet 10.2.0.0/24 --subnet fd00::/64 \
             --gateway fd00::9 --gateway 10.2.0.9",
        );
        let gateways: Vec<_> = pools
            .iter()
            .map(|p| p.gateway.unwrap().to_string())
            .collect();
        assert_eq!(gateways, ["10.1.0.1", "10.2.0.9", "fd00::9"]);
    }

    #[test]
    fn a_gateway_may_lie_outside_the_range() {
        let line = "-o parent=eth0 --subnet 10.1.0.0/24 --ip-range 10.1.0.128/25 \
                    --gateway 10.1.0.1";
        assert_eq!(gateway(line), Some("10.1.0.1".into()));
    }

    #[test]
    fn bad_ranges_are_refused() {
        let field = "--ip-range";
        let one = "n --subnet 10.1.0.0/24";
        for text in ["10.2.0.0/25", "10.1.0.0/16", "fd00::/80"] {
            let line = format!("{one} --ip-range {text}");
            refused(&line, &host(), field, text, &["must lie in 10.1.0.0/24"]);
        }
        let line = format!("{one} --ip-range 10.1.0.5/25");
        refused(
            &line,
            &host(),
            field,
            "10.1.0.5/25",
            &["did you mean 10.1.0.0/25?"],
        );
        let line = format!("{one} --ip-range 10.1.0.0/25 --ip-range 10.1.0.128/25");
        refused(
            &line,
            &host(),
            field,
            "10.1.0.128/25",
            &["has the range 10.1.0.0/25"],
        );
        refused(
            "n --ip-range 10.1.0.0/25",
            &host(),
            field,
            "10.1.0.0/25",
            &["--subnet"],
        );
        let line = format!("{one} --ip-range 10.1.0.7");
        refused(&line, &host(), field, "10.1.0.7", &["CIDR"]);
        let line = format!("{one} -o parent=eth0 --ip-range 10.1.0.0/32");
        refused(
            &line,
            &host(),
            field,
            "10.1.0.0/32",
            &["no address left for a gateway"],
        );
    }

    #[test]
    fn aux_addresses_are_kept_with_their_subnet() {
        let pools = pools(
            "--subnet 10.1.0.0/24 --subnet 10.2.0.0/24 --aux-address a=10.2.0.7 \
             --aux-address b=10.1.0.7",
        );
        assert_eq!(
            pools[0].aux,
            BTreeMap::from([("b".into(), [10, 1, 0, 7].into())])
        );
        assert_eq!(
            pools[1].aux,
            BTreeMap::from([("a".into(), [10, 2, 0, 7].into())])
        );
    }

    #[test]
    fn bad_aux_addresses_are_refused() {
        let field = "--aux-address";
        let one = "n --subnet 10.1.0.0/24 --gateway 10.1.0.1 --aux-address a=10.1.0.7";
        for (text, why) in [
            ("10.1.0.8", "NAME=ADDRESS"),
            ("=10.1.0.8", "NAME=ADDRESS"),
            ("b=x", "address"),
            ("b=", "address"),
            ("b=10.2.0.8", "must lie in 10.1.0.0/24"),
            ("a=10.1.0.8", "the name \"a\" is given twice"),
            ("b=10.1.0.7", "10.1.0.7 is the auxiliary address \"a\""),
            ("b=10.1.0.1", "10.1.0.1 is the gateway"),
            ("b=10.1.0.0", "network address"),
            ("b=10.1.0.255", "broadcast address"),
        ] {
            refused(
                &format!("{one} {field} {text}"),
                &host(),
                field,
                text,
                &[why],
            );
        }
        refused(
            "n --aux-address a=10.1.0.7",
            &host(),
            field,
            "a=10.1.0.7",
            &["--subnet"],
        );
    }

    #[test]
    fn a_subnet_has_room_for_an_endpoint() {
        let l2 = "n -o parent=eth0 --subnet 10.0.0.7/32";
        refused(
            l2,
            &host(),
            "--subnet",
            "10.0.0.7/32",
            &["beside the gateway"],
        );
        let l3 = "-o parent=eth0 -o ipvlan_mode=l3 --subnet 10.0.0.7/32";
        assert_eq!(pools(l3)[0].capacity(), 1);
        assert_eq!(
            pools("-o parent=eth0 --subnet 10.0.0.6/31")[0].capacity(),
            1
        );
        assert_eq!(pools("--subnet 10.0.0.6/31")[0].capacity(), 2);
        let line = "n --subnet 10.0.0.6/31 --aux-address a=10.0.0.6 --aux-address b=10.0.0.7";
        refused(line, &host(), "--subnet", "10.0.0.6/31", &["reserved"]);
    }

    #[test]
    fn default_subnets_come_in_dockers_order() {
        let mut host = host();
        let mut taken = Vec::new();
        let error = loop {
            let name = format!("n{}", taken.len());
            let request = crate::model::fixtures::request(&name);
            match request.resolve(&host, crate::model::fixtures::id('b'), 0) {
                Ok(network) => {
                    taken.push(network.pools[0].subnet.to_string());
                    host.networks.push(network);
                }
                Err(error) => break error,
            }
        };
        let sixteens = (18..=31).map(|b| format!("172.{b}.0.0/16"));
        let twenties = (0..16).map(|n| format!("192.168.{}.0/20", n * 16));
        assert_eq!(taken, sixteens.chain(twenties).collect::<Vec<_>>());
        assert_eq!(error.field, "--subnet");
        assert!(error.allowed.contains("give one"));
    }

    #[test]
    fn default_subnets_leave_out_what_the_host_uses() {
        let host = HostView {
            used: ["172.18.5.0/24", "172.19.0.1/32", "172.20.0.0/14"]
                .map(|prefix| prefix.parse().unwrap())
                .into(),
            ..host()
        };
        assert_eq!(
            made("n", &host).pools[0].subnet.to_string(),
            "172.24.0.0/16"
        );
    }

    #[test]
    fn ipv6_gets_a_free_64_of_the_hosts_48() {
        let mut host = host();
        host.used.push("fd12:3456:789a:1::/64".parse().unwrap());
        let first = add("n -o parent=eth0 --ipv6", 'b', &mut host);
        let subnets: Vec<_> = first.pools.iter().map(|p| p.subnet.to_string()).collect();
        assert_eq!(subnets, ["172.18.0.0/16", "fd12:3456:789a::/64"]);
        assert_eq!(
            first.pools[1].gateway.unwrap().to_string(),
            "fd12:3456:789a::1"
        );
        let second = made("m --ipv6 --ipv4=false", &host);
        assert_eq!(second.pools.len(), 1);
        assert_eq!(second.pools[0].subnet.to_string(), "fd12:3456:789a:2::/64");
        // A given one comes first in its family, and the other family's default is added.
        let third = made("m --ipv6 --subnet fd77::/64", &host);
        let subnets: Vec<_> = third.pools.iter().map(|p| p.subnet.to_string()).collect();
        assert_eq!(subnets, ["172.19.0.0/16", "fd77::/64"]);
    }
}
