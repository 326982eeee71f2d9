//! Subnets with their gateways, ranges and aux addresses, and the pools taken when none is named.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::{IpNetwork, Ipv4Network, Ipv6Network};

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
