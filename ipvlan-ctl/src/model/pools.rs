//! Subnets with their gateways, ranges and aux addresses, and the pools taken when none is named.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::{IpNetwork, Ipv4Network, Ipv6Network};

use super::ipam::Family;
use super::options::{self, Families};
use super::pool::{Reservation, covers, edges, overlap};
use super::{CreateRequest, HostView, Invalid, Mode, Network, Pool};

const SUBNET: &str = "--subnet";
const GATEWAY: &str = "--gateway";
const IP_RANGE: &str = "--ip-range";
const AUX_ADDRESS: &str = "--aux-address";

/// What the rest of the request asks of the pools.
#[derive(Debug)]
pub struct Needs<'n> {
    pub families: Families,
    pub mode: Mode,
    /// The parent's name.
    pub parent: &'n str,
    /// Each pool needs a gateway: l2, not internal.
    pub gateway: bool,
}

pub fn resolve(
    request: &CreateRequest,
    host: &HostView,
    needs: &Needs<'_>,
) -> Result<Vec<Pool>, Invalid> {
    let mut pools: Vec<Pool> = Vec::new();
    for text in &request.subnets {
        let subnet = parse_subnet(text)?;
        check_family(text, &subnet, needs.families)?;
        check_overlap(text, &subnet, &pools, host, needs)?;
        pools.push(Pool::new(subnet));
    }
    give_gateways(&request.gateways, &mut pools)?;
    give_ranges(&request.ip_ranges, &mut pools)?;
    give_aux(&request.aux_addresses, &mut pools)?;
    if request.external_ipam {
        return Ok(pools);
    }
    if needs.families.v4 && !pools.iter().any(|pool| pool.subnet.is_ipv4()) {
        pools.insert(0, Pool::new(default_v4(host)?));
    }
    if needs.families.v6 && !pools.iter().any(|pool| pool.subnet.is_ipv6()) {
        pools.push(Pool::new(default_v6(host)?));
    }
    for pool in &mut pools {
        if needs.gateway && pool.gateway.is_none() {
            pool.gateway = pool.first_usable();
        }
        if pool.capacity() == 0 {
            let needed = if needs.gateway {
                "it needs room for a gateway and one endpoint"
            } else {
                "it needs room for one endpoint"
            };
            return Err(Invalid::new(
                SUBNET,
                pool.subnet.to_string(),
                format!("{needed} beside its reserved addresses; take a larger one"),
            ));
        }
    }
    Ok(pools)
}

impl Pool {
    /// The pool of this subnet and range, or the first default one of the family that is free,
    /// before there is a network that it is for. What that asks is asked when it is made.
    pub fn asked_for(
        subnet: Option<&str>,
        range: Option<&str>,
        family: Family,
        host: &HostView,
    ) -> Result<Self, Invalid> {
        let request = CreateRequest {
            subnets: subnet.into_iter().map(Into::into).collect(),
            ip_ranges: range.into_iter().map(Into::into).collect(),
            ..CreateRequest::default()
        };
        let needs = Needs {
            families: Families {
                v4: family == Family::V4,
                v6: family == Family::V6,
            },
            // Of the modes, it may share the most.
            mode: Mode::L3,
            parent: "",
            gateway: false,
        };
        let mut pools = resolve(&request, host, &needs)?;
        Ok(pools.swap_remove(0))
    }
}

impl Network {
    /// Takes in an address that an external IPAM has given, and its subnet if that is new.
    /// `networks` are those of the host.
    pub fn admit(&mut self, address: IpNetwork, networks: &[Network]) -> Result<(), Invalid> {
        if self.pool_of(address.ip()).is_some() {
            return Ok(());
        }
        let subnet = parse_subnet(&masked(&address).to_string())?;
        let host = HostView {
            networks: networks
                .iter()
                .filter(|other| other.id != self.id)
                .cloned()
                .collect(),
            ..HostView::default()
        };
        let needs = Needs {
            families: Families { v4: true, v6: true },
            mode: self.mode,
            parent: self.parent.name(),
            gateway: false,
        };
        check_overlap(&subnet.to_string(), &subnet, &self.pools, &host, &needs)?;
        self.ipv4 |= subnet.is_ipv4();
        self.ipv6 |= subnet.is_ipv6();
        self.pools.push(Pool::new(subnet));
        Ok(())
    }
}

/// The pools that a request names, whatever else the host has; none if it leaves them to us.
pub fn named(request: &CreateRequest, needs: &Needs<'_>) -> Result<Vec<Pool>, Invalid> {
    if request.subnets.is_empty() {
        return Ok(Vec::new());
    }
    resolve(request, &HostView::default(), needs)
}

/// `ADDRESS/PREFIX` with no host bits set.
fn parse_prefix(field: &str, text: &str) -> Result<IpNetwork, Invalid> {
    let parsed = text.split_once('/').and_then(|(address, prefix)| {
        let address: IpAddr = address.parse().ok()?;
        let prefix = u8::try_from(options::decimal(prefix)?).ok()?;
        IpNetwork::new(address, prefix).ok()
    });
    let Some(net) = parsed else {
        return Err(Invalid::new(
            field,
            text,
            "it is ADDRESS/PREFIX, such as 192.168.1.0/24 or fd00:1::/64",
        ));
    };
    if net.prefix() == 0 {
        return Err(Invalid::new(
            field,
            text,
            "the whole address space is no subnet; the prefix is 1 or more",
        ));
    }
    let masked = masked(&net);
    if masked != net {
        return Err(Invalid::new(
            field,
            text,
            format!("it has host bits set; write {masked}"),
        ));
    }
    Ok(net)
}

fn masked(net: &IpNetwork) -> IpNetwork {
    match net {
        IpNetwork::V4(v4) => Ipv4Network::new(v4.network(), v4.prefix()).map(IpNetwork::V4),
        IpNetwork::V6(v6) => Ipv6Network::new(v6.network(), v6.prefix()).map(IpNetwork::V6),
    }
    .unwrap_or(*net)
}

fn parse_subnet(text: &str) -> Result<IpNetwork, Invalid> {
    let subnet = parse_prefix(SUBNET, text)?;
    match not_unicast().iter().find(|(net, _)| overlap(net, &subnet)) {
        Some((net, what)) => Err(Invalid::new(
            SUBNET,
            text,
            format!("it overlaps {net}, which is for {what}; take unicast addresses"),
        )),
        None => Ok(subnet),
    }
}

/// Prefixes whose addresses no interface can have (IANA special-purpose registries).
fn not_unicast() -> [(IpNetwork, &'static str); 6] {
    let v4 = |a, prefix| IpNetwork::V4(Ipv4Network::new_checked(a, prefix).expect("prefix <= 32"));
    let v6 = |a, prefix| IpNetwork::V6(Ipv6Network::new_checked(a, prefix).expect("prefix <= 128"));
    [
        (v4(Ipv4Addr::UNSPECIFIED, 8), "\"this network\""),
        (v4(Ipv4Addr::new(127, 0, 0, 0), 8), "loopback"),
        (v4(Ipv4Addr::new(224, 0, 0, 0), 4), "multicast"),
        (v6(Ipv6Addr::UNSPECIFIED, 127), "unspecified and loopback"),
        (
            v6(Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0, 0), 96),
            "mapped IPv4",
        ),
        (
            v6(Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0), 8),
            "multicast",
        ),
    ]
}

fn check_family(text: &str, subnet: &IpNetwork, families: Families) -> Result<(), Invalid> {
    match subnet {
        IpNetwork::V4(_) if !families.v4 => Err(Invalid::new(
            SUBNET,
            text,
            "IPv4 is off; leave out --ipv4=false, or this subnet",
        )),
        IpNetwork::V6(_) if !families.v6 => Err(Invalid::new(
            SUBNET,
            text,
            "an IPv6 subnet needs --ipv6; add it, or take an IPv4 subnet",
        )),
        _ => Ok(()),
    }
}

fn check_overlap(
    text: &str,
    subnet: &IpNetwork,
    pools: &[Pool],
    host: &HostView,
    needs: &Needs<'_>,
) -> Result<(), Invalid> {
    if let Some(pool) = pools.iter().find(|pool| overlap(&pool.subnet, subnet)) {
        return Err(Invalid::new(
            SUBNET,
            text,
            format!(
                "it overlaps --subnet {} of the same network; take disjoint ones",
                pool.subnet
            ),
        ));
    }
    let taken = host
        .networks
        .iter()
        .filter(|other| !may_overlap(needs, other))
        .flat_map(|other| other.pools.iter().map(move |pool| (other, pool)))
        .find(|(_, pool)| overlap(&pool.subnet, subnet));
    match taken {
        Some((other, pool)) => Err(Invalid::new(
            SUBNET,
            text,
            format!(
                "it overlaps {} of network {} ({}); take another",
                pool.subnet,
                other.name,
                other.id.short()
            ),
        )),
        None => Ok(()),
    }
}

/// Routed networks on different parents may share a subnet, and then its leases.
fn may_overlap(needs: &Needs<'_>, other: &Network) -> bool {
    needs.mode != Mode::L2 && other.mode != Mode::L2 && needs.parent != other.parent.name()
}

fn give_gateways(texts: &[String], pools: &mut [Pool]) -> Result<(), Invalid> {
    for text in texts {
        let gateway = parse_address(GATEWAY, text)?;
        let pool = pool_for(GATEWAY, text, pools, |pool| pool.contains(gateway))?;
        check_host_address(GATEWAY, text, gateway, pool)?;
        if let Some(before) = pool.gateway {
            return Err(Invalid::new(
                GATEWAY,
                text,
                format!("subnet {} has gateway {before}; give one", pool.subnet),
            ));
        }
        pool.gateway = Some(gateway);
    }
    Ok(())
}

fn give_ranges(texts: &[String], pools: &mut [Pool]) -> Result<(), Invalid> {
    for text in texts {
        let range = parse_prefix(IP_RANGE, text)?;
        let pool = pool_for(IP_RANGE, text, pools, |pool| covers(&pool.subnet, &range))?;
        if let Some(before) = pool.range {
            return Err(Invalid::new(
                IP_RANGE,
                text,
                format!("subnet {} has range {before}; give one", pool.subnet),
            ));
        }
        pool.range = Some(range);
    }
    Ok(())
}

fn give_aux(texts: &[String], pools: &mut [Pool]) -> Result<(), Invalid> {
    for text in texts {
        let invalid = |allowed: String| Err(Invalid::new(AUX_ADDRESS, text, allowed));
        let Some((name, address)) = text.split_once('=').filter(|(name, _)| !name.is_empty())
        else {
            return invalid("it is NAME=ADDRESS".into());
        };
        let address = parse_address(AUX_ADDRESS, address)
            .map_err(|bad| Invalid::new(AUX_ADDRESS, text, bad.allowed))?;
        if pools.iter().any(|pool| pool.aux.contains_key(name)) {
            return invalid(format!("the name {name:?} is given twice; take another"));
        }
        let pool = pool_for(AUX_ADDRESS, text, pools, |pool| pool.contains(address))?;
        check_host_address(AUX_ADDRESS, text, address, pool)?;
        match pool.reservation(address) {
            Some(why @ (Reservation::Gateway | Reservation::Aux(_))) => {
                return invalid(format!("that address is {why}; take another"));
            }
            _ => pool.aux.insert(name.to_owned(), address),
        };
    }
    Ok(())
}

fn parse_address(field: &str, text: &str) -> Result<IpAddr, Invalid> {
    text.parse()
        .map_err(|_| Invalid::new(field, text, "the address is one such as 192.168.1.1"))
}

/// The pool that a field's value belongs to, of those given by `--subnet`.
fn pool_for<'p>(
    field: &str,
    text: &str,
    pools: &'p mut [Pool],
    belongs: impl Fn(&Pool) -> bool,
) -> Result<&'p mut Pool, Invalid> {
    if pools.is_empty() {
        return Err(Invalid::new(
            field,
            text,
            "it needs the --subnet that it lies in",
        ));
    }
    match pools.iter().position(belongs) {
        Some(at) => Ok(&mut pools[at]),
        None => {
            let subnets: Vec<_> = pools.iter().map(|pool| pool.subnet.to_string()).collect();
            Err(Invalid::new(
                field,
                text,
                format!("it must lie in a subnet given: {}", subnets.join(", ")),
            ))
        }
    }
}

/// Refuses the network and broadcast address of an IPv4 subnet. The anycast address of an IPv6
/// subnet is its routers' own, so it may be a gateway.
fn check_host_address(
    field: &str,
    text: &str,
    address: IpAddr,
    pool: &Pool,
) -> Result<(), Invalid> {
    let edge = edges(&pool.subnet)
        .into_iter()
        .find(|(edge, why)| *edge == address && *why != Reservation::Anycast);
    match edge {
        Some((_, why)) => Err(Invalid::new(
            field,
            text,
            format!("it is {why}; take one between the ends of {}", pool.subnet),
        )),
        None => Ok(()),
    }
}

/// Docker's local pools in its order, without 172.17.0.0/16: that is its docker0's.
fn default_v4_pools() -> impl Iterator<Item = IpNetwork> {
    let sixteens = (18..=31).map(|n| (Ipv4Addr::new(172, n, 0, 0), 16));
    let twenties = (0..16).map(|n| (Ipv4Addr::new(192, 168, n * 16, 0), 20));
    sixteens
        .chain(twenties)
        .filter_map(|(address, prefix)| Ipv4Network::new_checked(address, prefix))
        .map(IpNetwork::V4)
}

fn default_v4(host: &HostView) -> Result<IpNetwork, Invalid> {
    default_v4_pools()
        .find(|pool| is_free(pool, host))
        .ok_or_else(|| {
            Invalid::new(
                SUBNET,
                "",
                "each default pool (172.18.0.0/16 to 192.168.240.0/20) overlaps a network, an \
                 address or a route of this host; name a subnet",
            )
        })
}

/// The first free /64 of the host's ULA /48 (RFC 4193): `fd`, 40 bits of the host, 16 to count.
fn default_v6(host: &HostView) -> Result<IpNetwork, Invalid> {
    let [a, b, c, d, e] = host.ula_seed;
    (0..=u16::MAX)
        .filter_map(|n| {
            let [hi, lo] = n.to_be_bytes();
            let prefix = [0xfd, a, b, c, d, e, hi, lo, 0, 0, 0, 0, 0, 0, 0, 0];
            Ipv6Network::new_checked(prefix.into(), 64).map(IpNetwork::V6)
        })
        .find(|pool| is_free(pool, host))
        .ok_or_else(|| {
            Invalid::new(
                SUBNET,
                "",
                "no /64 of this host's unique local /48 is free; name an IPv6 subnet",
            )
        })
}

fn is_free(pool: &IpNetwork, host: &HostView) -> bool {
    let ours = host
        .networks
        .iter()
        .flat_map(|n| &n.pools)
        .map(|p| &p.subnet);
    !ours.chain(&host.used).any(|taken| overlap(taken, pool))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::fixtures::{create, host, network, refused, resolve};
    use super::super::{CreateRequest, Id, Mode, Parent};
    use super::*;

    fn subnets(network: &Network) -> Vec<String> {
        network.pools.iter().map(|p| p.subnet.to_string()).collect()
    }

    fn gateways(network: &Network) -> Vec<Option<String>> {
        let text = |pool: &Pool| pool.gateway.map(|gateway| gateway.to_string());
        network.pools.iter().map(text).collect()
    }

    fn gateway(line: &str) -> Option<String> {
        gateways(&network(line, &host()))[0].clone()
    }

    #[test]
    fn the_page_s_networks() {
        let mut host = host();
        let db_net = create(
            "-d ipvlan --subnet=192.168.1.0/24 --gateway=192.168.1.1 -o ipvlan_mode=l2 \
             -o parent=enp3s0 db_net",
            &mut host,
        );
        assert_eq!((db_net.mode, db_net.internal), (Mode::L2, false));
        assert_eq!(db_net.parent.name(), "enp3s0");
        assert_eq!(subnets(&db_net), ["192.168.1.0/24"]);
        host.networks.clear();
        let by_default = create(
            "-d ipvlan --subnet=192.168.1.0/24 -o parent=enp3s0 db_net_ipv",
            &mut host,
        );
        assert_eq!(by_default.pools, db_net.pools);
        assert_eq!(
            (by_default.mode, by_default.flag),
            (db_net.mode, db_net.flag)
        );

        let isolated = [
            create("-d ipvlan --subnet=192.168.10.0/24 isolated1", &mut host),
            create(
                "-d ipvlan --subnet=192.168.11.0/24 --internal isolated2",
                &mut host,
            ),
            create("-d ipvlan isolated3", &mut host),
        ];
        for net in &isolated {
            assert!(net.internal && matches!(net.parent, Parent::Dummy { .. }));
            assert_eq!(gateways(net), [None]);
        }
        assert_eq!(subnets(&isolated[2]), ["172.18.0.0/16"]);
        // The typos of the page.
        let typo = "--subnet=192.168.1.0./24 -o parent=eth0 n";
        refused(typo, &host, SUBNET, "192.168.1.0./24", "192.168.1.0/24");
    }

    #[test]
    fn subnets_are_canonical_prefixes() {
        let host = host();
        for bad in [
            "",
            "/",
            "x",
            "10.0.0.0",
            "10.0.0.0/",
            "10.0.0.0/33",
            "10.0.0.0/-1",
            "10.0.0.0/+8",
            "10.0.0.0/08",
            "10.0.0/8",
            "10.0.0.0/255.0.0.0",
            "10.0.0.0/8/8",
            "fd00::/129",
            "fd00::%1/64",
            "10.0.0.0/999999999999",
        ] {
            let line = format!("--ipv6 --subnet={bad} n");
            refused(&line, &host, SUBNET, bad, "192.168.1.0/24");
        }
        let field = SUBNET;
        refused(
            "--subnet=192.168.1.7/24 n",
            &host,
            field,
            "192.168.1.7/24",
            "write 192.168.1.0/24",
        );
        refused(
            "--ipv6 --subnet=fd00::1/64 n",
            &host,
            field,
            "fd00::1/64",
            "write fd00::/64",
        );
        for all in ["0.0.0.0/0", "1.2.3.4/0", "::/0"] {
            let line = format!("--ipv6 --subnet={all} n");
            refused(&line, &host, field, all, "1 or more");
        }
        for (subnet, what) in [
            ("127.0.0.0/24", "loopback"),
            ("224.0.0.0/24", "multicast"),
            ("0.0.0.0/1", "this network"),
            ("ff02::/64", "multicast"),
            ("::/64", "loopback"),
            ("::ffff:10.0.0.0/104", "mapped"),
        ] {
            let line = format!("--ipv6 --subnet={subnet} n");
            refused(&line, &host, field, subnet, what);
        }
    }

    #[test]
    fn families_and_their_default_pools() {
        let host = host();
        refused("--subnet=fd00::/64 n", &host, SUBNET, "fd00::/64", "--ipv6");
        let off = "--ipv4=false --ipv6 --subnet=10.0.0.0/8 n";
        refused(off, &host, SUBNET, "10.0.0.0/8", "--ipv4=false");
        let ula = "fd11:2233:4455::/64";
        assert_eq!(subnets(&network("--ipv6 n", &host)), ["172.18.0.0/16", ula]);
        assert_eq!(subnets(&network("--ipv6 --ipv4=false n", &host)), [ula]);
        let v6 = "--ipv6 --subnet=fd00::/64 n";
        assert_eq!(subnets(&network(v6, &host)), ["172.18.0.0/16", "fd00::/64"]);
        let v4 = "--ipv6 --subnet=10.0.0.0/8 n";
        assert_eq!(subnets(&network(v4, &host)), ["10.0.0.0/8", ula]);
        let dual = "--ipv6 --subnet=fd00::/64 --subnet=10.0.0.0/8 -o parent=eth0 n";
        let dual = network(dual, &host);
        assert_eq!(subnets(&dual), ["fd00::/64", "10.0.0.0/8"]);
        assert_eq!(
            gateways(&dual),
            [Some("fd00::1".into()), Some("10.0.0.1".into())]
        );
    }

    #[test]
    fn default_pools_in_docker_s_order_until_none_is_left() {
        let mut host = host();
        let mut given = Vec::new();
        for n in 0..29 {
            given.extend(subnets(&create(&format!("n{n}"), &mut host)));
        }
        let mut expected: Vec<_> = (18..=31).map(|n| format!("172.{n}.0.0/16")).collect();
        // 192.168.0.0/20 holds the host's own 192.168.1.0/24.
        expected.extend((1..16).map(|n| format!("192.168.{}.0/20", n * 16)));
        assert_eq!(given, expected);
        refused("n", &host, SUBNET, "", "name a subnet");
        host.used.clear();
        assert_eq!(subnets(&network("n", &host)), ["192.168.0.0/20"]);
    }

    #[test]
    fn default_pools_avoid_what_overlaps_them() {
        let mut host = host();
        host.used.push("172.18.5.4/32".parse().unwrap());
        host.used.push("172.20.0.0/14".parse().unwrap());
        create("--subnet=172.19.128.0/24 small", &mut host);
        assert_eq!(subnets(&network("n", &host)), ["172.24.0.0/16"]);
        host.used.push("fd11:2233:4455::1/128".parse().unwrap());
        create("--ipv6 --ipv4=false six", &mut host);
        let next = network("--ipv6 --ipv4=false n", &host);
        assert_eq!(subnets(&next), ["fd11:2233:4455:2::/64"]);
        host.used.push("fd11:2233:4455::/48".parse().unwrap());
        refused("--ipv6 n", &host, SUBNET, "", "IPv6 subnet");
    }

    #[test]
    fn overlaps() {
        let mut host = host();
        for (a, b) in [
            ("10.0.0.0/8", "10.1.0.0/16"),
            ("10.1.0.0/16", "10.0.0.0/8"),
            ("10.1.0.0/16", "10.1.0.0/16"),
        ] {
            let line = format!("--subnet={a} --subnet={b} n");
            refused(&line, &host, SUBNET, b, &format!("overlaps --subnet {a}"));
        }
        create("--subnet=10.1.0.0/16 -o parent=eth0 lan", &mut host);
        create(
            "--subnet=10.2.0.0/16 -o ipvlan_mode=l3 -o parent=enp3s0 routed",
            &mut host,
        );
        let lan = "10.1.0.0/16 of network lan";
        let routed = "10.2.0.0/16 of network routed";
        let refuse = |mode: &str, parent: &str, subnet: &str, other: &str| {
            let line = format!("--subnet={subnet} -o ipvlan_mode={mode} -o parent={parent} n");
            refused(&line, &host, SUBNET, subnet, other);
        };
        refuse("l2", "br0", "10.1.2.0/24", lan);
        refuse("l2", "br0", "10.0.0.0/8", lan);
        refuse("l3", "br0", "10.1.2.0/24", lan);
        refuse("l2", "br0", "10.2.0.0/16", routed);
        for mode in ["l3", "l3s"] {
            let line = format!("--subnet=10.2.3.0/24 -o ipvlan_mode={mode} -o parent=br0 n");
            network(&line, &host);
        }
        // The host's own subnet is what the page uses.
        network("--subnet=192.168.1.0/24 -o parent=br0 n", &host);
    }

    #[test]
    fn shared_parents_have_disjoint_subnets() {
        let mut host = host();
        let shared = "-o ipvlan_mode=l3 -o shared_parent=true -o parent=eth0";
        create(&format!("{shared} --subnet=10.1.0.0/16 a"), &mut host);
        let line = format!("{shared} --subnet=10.1.0.0/16 b");
        refused(&line, &host, SUBNET, "10.1.0.0/16", "network a");
        network(&format!("{shared} --subnet=10.2.0.0/16 b"), &host);
    }

    #[test]
    fn default_gateways() {
        let first = |more: &str| gateway(&format!("--subnet=10.0.0.0/24 {more} n"));
        assert_eq!(first("-o parent=eth0"), Some("10.0.0.1".into()));
        assert_eq!(
            first("-o parent=eth0 --aux-address=a=10.0.0.1 --aux-address=b=10.0.0.2"),
            Some("10.0.0.3".into())
        );
        // The range does not move it.
        assert_eq!(
            first("-o parent=eth0 --ip-range=10.0.0.128/25"),
            Some("10.0.0.1".into())
        );
        for none in [
            "",
            "--internal -o parent=eth0",
            "-o parent=eth0 -o ipvlan_mode=l3",
        ] {
            assert_eq!(first(none), None, "{none}");
        }
        let given = "-o parent=eth0 -o ipvlan_mode=l3s --gateway=10.0.0.9";
        assert_eq!(first(given), Some("10.0.0.9".into()));
        assert_eq!(
            gateway("--ipv4=false --ipv6 --subnet=fd00::/64 -o parent=eth0 n"),
            Some("fd00::1".into())
        );
        assert_eq!(
            gateway("--subnet=10.0.0.4/31 -o parent=eth0 n"),
            Some("10.0.0.4".into())
        );
        assert_eq!(
            gateway("--ipv4=false --ipv6 --subnet=fd00::4/127 -o parent=eth0 n"),
            Some("fd00::4".into())
        );
    }

    #[test]
    fn a_pool_has_room_for_an_endpoint() {
        let host = host();
        let refuse = |line: &str, subnet: &str, why: &str| {
            refused(line, &host, SUBNET, subnet, why);
        };
        let both = "a gateway and one endpoint";
        refuse("--subnet=10.0.0.1/32 -o parent=eth0 n", "10.0.0.1/32", both);
        refuse(
            "--ipv6 --subnet=fd00::1/128 -o parent=eth0 n",
            "fd00::1/128",
            both,
        );
        refuse(
            "--subnet=10.0.0.0/30 --aux-address=a=10.0.0.2 -o parent=eth0 n",
            "10.0.0.0/30",
            both,
        );
        refuse(
            "--subnet=10.0.0.0/31 --aux-address=a=10.0.0.0 --aux-address=b=10.0.0.1 n",
            "10.0.0.0/31",
            "one endpoint",
        );
        network("--subnet=10.0.0.1/32 n", &host);
        network("--subnet=10.0.0.0/31 -o parent=eth0 n", &host);
        network(
            "--subnet=10.0.0.0/31 -o ipvlan_mode=l3 -o parent=eth0 n",
            &host,
        );
    }

    #[test]
    fn gateways_belong_to_a_subnet() {
        let host = host();
        let two = "--ipv6 --subnet=10.0.0.0/24 --subnet=10.0.2.0/24 --subnet=fd00::/64";
        let order = format!("{two} --gateway=fd00::9 --gateway=10.0.2.9 -o parent=eth0 n");
        assert_eq!(
            gateways(&network(&order, &host)),
            ["10.0.0.1", "10.0.2.9", "fd00::9"].map(|g| Some(g.into()))
        );
        let refuse = |value: &str, allowed: &str| {
            let line = format!("{two} --gateway=10.0.0.7 --gateway={value} n");
            refused(&line, &host, GATEWAY, value, allowed);
        };
        refuse("10.0.1.1", "10.0.0.0/24, 10.0.2.0/24, fd00::/64");
        refuse("fd01::1", "10.0.0.0/24, 10.0.2.0/24, fd00::/64");
        refuse("10.0.0.8", "gateway 10.0.0.7");
        refuse("10.0.2.0", "network address");
        refuse("10.0.2.255", "broadcast address");
        refuse("10.0.2.300", "such as");
        refuse("", "such as");
        refused(
            "--gateway=10.0.0.1 n",
            &host,
            GATEWAY,
            "10.0.0.1",
            "--subnet",
        );
    }

    #[test]
    fn ranges_lie_in_a_subnet() {
        let host = host();
        let two = "--subnet=10.0.0.0/24 --subnet=10.0.2.0/24";
        let net = network(&format!("{two} --ip-range=10.0.2.64/26 n"), &host);
        assert_eq!(net.pools[0].range, None);
        assert_eq!(net.pools[1].range, Some("10.0.2.64/26".parse().unwrap()));
        network(&format!("{two} --ip-range=10.0.2.0/24 n"), &host);
        // The gateway may lie outside the range.
        network(
            &format!("{two} --ip-range=10.0.0.64/26 --gateway=10.0.0.1 n"),
            &host,
        );
        let refuse = |value: &str, allowed: &str| {
            let line = format!("{two} --ip-range=10.0.0.0/25 --ip-range={value} n");
            refused(&line, &host, IP_RANGE, value, allowed);
        };
        refuse("10.0.0.0/23", "10.0.0.0/24, 10.0.2.0/24");
        refuse("10.0.9.0/26", "10.0.0.0/24, 10.0.2.0/24");
        refuse("10.0.2.65/26", "write 10.0.2.64/26");
        refuse("10.0.0.128/25", "range 10.0.0.0/25");
        refuse("10.0.2.64", "ADDRESS/PREFIX");
        refused(
            "--ip-range=10.0.0.0/25 n",
            &host,
            IP_RANGE,
            "10.0.0.0/25",
            "--subnet",
        );
    }

    #[test]
    fn aux_addresses_are_named_and_unique() {
        let host = host();
        let net = network(
            "--subnet=10.0.0.0/24 --aux-address=router=10.0.0.5 n",
            &host,
        );
        assert_eq!(net.pools[0].aux["router"].to_string(), "10.0.0.5");
        let refuse = |value: &str, allowed: &str| {
            let line = format!(
                "--subnet=10.0.0.0/24 --gateway=10.0.0.9 --subnet=10.0.2.0/24 \
                 --aux-address=a=10.0.0.5 --aux-address={value} n"
            );
            refused(&line, &host, AUX_ADDRESS, value, allowed);
        };
        refuse("10.0.0.6", "NAME=ADDRESS");
        refuse("=10.0.0.6", "NAME=ADDRESS");
        refuse("b=", "such as");
        refuse("b=x", "such as");
        refuse("a=10.0.2.6", "given twice");
        refuse("b=10.0.0.5", "aux address \"a\"");
        refuse("b=10.0.0.9", "gateway");
        refuse("b=10.0.0.0", "network address");
        refuse("b=10.0.1.1", "10.0.0.0/24, 10.0.2.0/24");
        let alone = "--aux-address=a=10.0.0.5 n";
        refused(alone, &host, AUX_ADDRESS, "a=10.0.0.5", "--subnet");
    }

    #[test]
    fn a_pool_alone_follows_the_same_rules() {
        let mut host = host();
        create("--subnet=10.0.0.0/24 l2", &mut host);
        create(
            "--subnet=10.1.0.0/24 -o parent=eth0 -o ipvlan_mode=l3 l3",
            &mut host,
        );
        let ask = |subnet, range, family| Pool::asked_for(subnet, range, family, &host);
        let default = ask(None, None, Family::V4).unwrap();
        assert_eq!(default.subnet.to_string(), "172.18.0.0/16");
        let default = ask(None, None, Family::V6).unwrap();
        assert_eq!(default.subnet.to_string(), "fd11:2233:4455::/64");
        let named = ask(Some("10.2.0.0/24"), Some("10.2.0.128/25"), Family::V4).unwrap();
        assert_eq!(named.to_string(), "10.2.0.0/24 (range 10.2.0.128/25)");
        // Whether it can be shared is seen when the mode and the parent are known.
        ask(Some("10.1.0.0/24"), None, Family::V4).unwrap();
        for (subnet, range, field) in [
            (Some("10.0.0.0/16"), None, SUBNET),
            (Some("10.2.0.1/24"), None, SUBNET),
            (Some("fd00::/64"), None, SUBNET),
            (Some("10.2.0.0/24"), Some("10.3.0.0/25"), IP_RANGE),
            (None, Some("10.3.0.0/25"), IP_RANGE),
        ] {
            assert_eq!(ask(subnet, range, Family::V4).unwrap_err().field, field);
        }
    }

    proptest! {
        /// Whatever the words, an answer and no panic; a refusal is one line about one of them.
        #[test]
        fn any_words_get_an_answer(
            name in ".{0,20}",
            words in prop::collection::vec(".{0,40}", 7),
            families in any::<(Option<bool>, bool)>(),
        ) {
            let request = CreateRequest {
                name,
                ipv4: families.0,
                ipv6: families.1,
                subnets: vec![words[0].clone()],
                gateways: vec![words[1].clone()],
                ip_ranges: vec![words[2].clone()],
                aux_addresses: vec![words[3].clone()],
                options: vec![format!("parent={}", words[4])],
                labels: vec![words[5].clone()],
                mtu: Some(words[6].clone()),
                ..Default::default()
            };
            if let Err(bad) = request.resolve(&host(), Id::random(), 0) {
                prop_assert!(!bad.to_string().contains('\n'));
            }
            for text in &words {
                // Each parser by itself, as an earlier error would hide the later ones.
                let _ = parse_subnet(text);
                let _ = parse_address(GATEWAY, text);
                let mut pools = [Pool::new("10.0.0.0/8".parse().unwrap())];
                let _ = give_ranges(std::slice::from_ref(text), &mut pools);
                let _ = give_aux(&[format!("a={text}")], &mut pools);
                for option in [text.clone(), format!("parent={text}"), format!("parent=eth0.{text}")] {
                    let request = CreateRequest {
                        name: "n".into(),
                        options: vec![option],
                        ..Default::default()
                    };
                    let _ = request.resolve(&host(), Id::random(), 0);
                }
            }
        }

        /// Near misses: the shape of a prefix with any numbers in it.
        #[test]
        fn any_prefix_gets_an_answer(
            a in any::<[u8; 4]>(), b in any::<u128>(), prefix in 0u16..140, internal in any::<bool>(),
        ) {
            let more = if internal { "" } else { "-o parent=eth0" };
            for address in [Ipv4Addr::from(a).to_string(), Ipv6Addr::from(b).to_string()] {
                let line = format!("--ipv6 --subnet={address}/{prefix} {more} n");
                if let Ok(net) = resolve(&line, &host()) {
                    for pool in &net.pools {
                        prop_assert_eq!(masked(&pool.subnet), pool.subnet);
                        prop_assert!(pool.capacity() > 0);
                        prop_assert_eq!(pool.gateway.is_some(), !internal);
                        prop_assert!(pool.gateway.is_none_or(|g| pool.contains(g)));
                    }
                }
            }
        }
    }
}
