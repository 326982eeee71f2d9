//! Address allocation: serial, per pool, over an abstract set of leases.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::IpNetwork;
use thiserror::Error;

use super::address::{Family, bounds, number};
use super::{AddressPlan, Network, Pool};

/// What allocation asks of the lease table.
///
/// Leases are the host's, not a network's: overlapping subnets exist only where two l3 networks
/// share one set of leases, so an address is leased once or not at all.
pub trait Leases {
    type Error;

    /// `None` if `address` is free. Else the last address of the run of consecutive leases that
    /// it lies in, or any leased address from `address` up to there. Cost must not grow with the
    /// number of leases: keep maximal runs (first, last), looked up by their first address.
    fn leased_until(&self, address: IpAddr) -> Result<Option<IpAddr>, Self::Error>;

    /// The address of `subnet` that serial allocation handed out last (a requested address does
    /// not move it), whether or not it has been released since.
    fn cursor(&self, subnet: &IpNetwork) -> Result<Option<IpAddr>, Self::Error>;
}

#[derive(Debug, Error, PartialEq, Eq)]
pub enum AllocError<E> {
    /// The pools of that family that are full, as a list.
    #[error("no address left in {0}")]
    Exhausted(String),
    #[error("invalid {field} {address}: {why}")]
    Requested {
        field: &'static str,
        address: IpAddr,
        why: String,
    },
    #[error(transparent)]
    Leases(E),
}

/// The addresses that the user asked for; the others are allocated.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Wanted {
    /// `--ip`
    pub v4: Option<Ipv4Addr>,
    /// `--ip6`
    pub v6: Option<Ipv6Addr>,
}

/// Addresses and default routes for a new endpoint of `network`: what is `wanted`, where it may
/// be leased, and the next free address elsewhere. The caller records the leases, and moves the
/// cursor of the pools that allocated.
pub fn plan<L: Leases>(
    network: &Network,
    wanted: Wanted,
    leases: &L,
) -> Result<AddressPlan, AllocError<L::Error>> {
    let v4 = match wanted.v4 {
        Some(address) => Some(requested(network, "--ip", address.into(), leases)?.1),
        None if network.ipv4 => Some(allocate(network, Family::V4, leases)?.1),
        None => None,
    };
    let v6 = match wanted.v6 {
        Some(address) => Some(requested(network, "--ip6", address.into(), leases)?.1),
        None if network.ipv6 => Some(allocate(network, Family::V6, leases)?.1),
        None => None,
    };
    Ok(network.address_plan(v4, v6))
}

/// The next free address of the network's first pool of this family that has room.
pub fn allocate<'n, L: Leases>(
    network: &'n Network,
    family: Family,
    leases: &L,
) -> Result<(&'n Pool, IpAddr), AllocError<L::Error>> {
    let mut full = Vec::new();
    for pool in network.pools_of(family) {
        match next(pool, leases) {
            Ok(address) => return Ok((pool, address)),
            Err(AllocError::Exhausted(subnet)) => full.push(subnet),
            Err(other) => return Err(other),
        }
    }
    if full.is_empty() {
        full.push(format!(
            "network {}: it has no {family} subnet",
            network.name
        ));
    }
    Err(AllocError::Exhausted(full.join(", ")))
}

/// The next free address of `pool` after the cursor, round its range.
pub fn next<L: Leases>(pool: &Pool, leases: &L) -> Result<IpAddr, AllocError<L::Error>> {
    let (first, last) = bounds(pool.dynamic());
    let cursor = leases.cursor(&pool.subnet).map_err(AllocError::Leases)?;
    let start = match cursor.map(number) {
        Some(cursor) if (first..last).contains(&cursor) => cursor + 1,
        // At the end of the range, or left outside it: begin anew.
        _ => first,
    };
    let mut found = first_free(pool, start, last, leases)?;
    if found.is_none() && start > first {
        found = first_free(pool, first, start - 1, leases)?;
    }
    found.ok_or_else(|| AllocError::Exhausted(pool.dynamic().to_string()))
}

/// The first address from `from` to `to` that is neither reserved nor leased. Each step passes a
/// reserved address or a whole run of leases, so that steps are bounded by the reservations when
/// runs are maximal.
fn first_free<L: Leases>(
    pool: &Pool,
    from: u128,
    to: u128,
    leases: &L,
) -> Result<Option<IpAddr>, AllocError<L::Error>> {
    let family = Family::of(pool.subnet.network());
    let mut at = from;
    while at <= to {
        let address = family.address(at);
        let passed = if pool.is_reserved(address) {
            at
        } else {
            match leases.leased_until(address).map_err(AllocError::Leases)? {
                None => return Ok(Some(address)),
                Some(end) => number(end).max(at),
            }
        };
        match passed.checked_add(1) {
            Some(next) => at = next,
            None => break,
        }
    }
    Ok(None)
}

/// Checks that `address` may be leased: in one of the network's subnets (its `--ip-range` does
/// not matter), not reserved, free. Returns the pool it lies in, and the address.
pub fn requested<'n, L: Leases>(
    network: &'n Network,
    field: &'static str,
    address: IpAddr,
    leases: &L,
) -> Result<(&'n Pool, IpAddr), AllocError<L::Error>> {
    let refuse = |why: String| {
        Err(AllocError::Requested {
            field,
            address,
            why,
        })
    };
    let family = Family::of(address);
    let Some(pool) = network.pool_of(address) else {
        let subnets: Vec<_> = network
            .pools_of(family)
            .map(|pool| pool.subnet.to_string())
            .collect();
        return refuse(if subnets.is_empty() {
            format!("network {} has no {family} subnet", network.name)
        } else {
            format!("it must lie in {}", subnets.join(" or "))
        });
    };
    if let Some(reserved) = pool.reserved_as(address) {
        return refuse(format!("it is {reserved} of {}", pool.subnet));
    }
    if leases
        .leased_until(address)
        .map_err(AllocError::Leases)?
        .is_some()
    {
        return refuse("another endpoint has it".into());
    }
    Ok((pool, address))
}

/// Leases in a host where networks may overlap (l3 on different parents): what one network
/// reserves as gateway or auxiliary address counts as leased for the others.
#[derive(Debug, Clone, Copy)]
pub struct WithReservations<'a, L> {
    pub leases: &'a L,
    /// Every network of the host.
    pub networks: &'a [Network],
}

impl<L: Leases> Leases for WithReservations<'_, L> {
    type Error = L::Error;

    fn leased_until(&self, address: IpAddr) -> Result<Option<IpAddr>, Self::Error> {
        let mut pools = self.networks.iter().filter_map(|n| n.pool_of(address));
        if pools.any(|pool| pool.reserved_by_choice(address)) {
            return Ok(Some(address));
        }
        self.leases.leased_until(address)
    }

    fn cursor(&self, subnet: &IpNetwork) -> Result<Option<IpAddr>, Self::Error> {
        self.leases.cursor(subnet)
    }
}

/// Checks that nobody has what a new network reserves; in an overlapping l3 network an endpoint
/// may.
pub fn check_reservations<L: Leases>(
    network: &Network,
    leases: &L,
) -> Result<(), AllocError<L::Error>> {
    for pool in &network.pools {
        let gateway = pool.gateway.map(|address| ("--gateway", address));
        let aux = pool.aux.values().map(|address| ("--aux-address", *address));
        for (field, address) in gateway.into_iter().chain(aux) {
            if leases
                .leased_until(address)
                .map_err(AllocError::Leases)?
                .is_some()
            {
                return Err(AllocError::Requested {
                    field,
                    address,
                    why: "an endpoint of a network that overlaps this one has it".into(),
                });
            }
        }
    }
    Ok(())
}
