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
