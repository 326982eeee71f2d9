//! Address allocation: serial, per pool, over an abstract set of leases.

use std::fmt;
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use thiserror::Error;

use super::pool::{nth, number};
use super::{Network, Pool};

/// What allocation asks of the lease table.
///
/// An address is leased at most once on a host, whatever the network: subnets of two networks
/// overlap only where these share their addresses (l3 on different parents), and then the
/// prefixes need not even be equal. So occupancy is asked by address and never by pool; only the
/// cursor belongs to a pool.
///
/// For a cost that does not grow with the number of leases, keep the runs of neighbouring leases
/// beside the leases themselves, with addresses as big-endian blobs (4 or 16 bytes, so `length`
/// tells the families apart and byte order is address order):
///
/// ```sql
/// CREATE TABLE runs (family INTEGER, first BLOB, last BLOB, PRIMARY KEY (family, first))
///     WITHOUT ROWID;
/// -- leased_until(a): one descent of the index; leased if `last >= a`.
/// SELECT last FROM runs WHERE family = ?1 AND first <= ?2 ORDER BY first DESC LIMIT 1;
/// ```
///
/// [`lease`] and [`release`] say how one lease more or less changes the runs: at most two are
/// looked up and three written, in the transaction that writes the lease.
pub trait Leases {
    type Error;

    /// `None` if `address` is free, else the last address of the run of consecutive leases
    /// that it is part of. A shorter answer (such as `address` itself) is allowed and only slower.
    fn leased_until(&self, address: IpAddr) -> Result<Option<IpAddr>, Self::Error>;

    /// The address handed out last by [`next`] in the pool of `subnet`.
    fn cursor(&self, subnet: &IpNetwork) -> Result<Option<IpAddr>, Self::Error>;
}

/// Consecutive leased addresses of one family, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    pub first: IpAddr,
    pub last: IpAddr,
}

/// The run that `address` makes with the one that ends just before it and the one that begins
/// just after it. It replaces those two.
pub fn lease(before: Option<Run>, address: IpAddr, after: Option<Run>) -> Run {
    Run {
        first: before.map_or(address, |run| run.first),
        last: after.map_or(address, |run| run.last),
    }
}

/// What is left of `run` without `address`, which lies in it. The two replace it.
pub fn release(run: Run, address: IpAddr) -> (Option<Run>, Option<Run>) {
    let before = predecessor(address).filter(|_| run.first < address);
    let after = successor(address).filter(|_| address < run.last);
    (
        before.map(|last| Run { last, ..run }),
        after.map(|first| Run { first, ..run }),
    )
}

/// The address after this one in its family, if it is not the family's last.
pub fn successor(address: IpAddr) -> Option<IpAddr> {
    match address {
        IpAddr::V4(v4) => u32::from(v4).checked_add(1).map(|n| IpAddr::V4(n.into())),
        IpAddr::V6(v6) => u128::from(v6).checked_add(1).map(|n| IpAddr::V6(n.into())),
    }
}

/// The address before this one in its family, if it is not the family's first.
pub fn predecessor(address: IpAddr) -> Option<IpAddr> {
    match address {
        IpAddr::V4(v4) => u32::from(v4).checked_sub(1).map(|n| IpAddr::V4(n.into())),
        IpAddr::V6(v6) => u128::from(v6).checked_sub(1).map(|n| IpAddr::V6(n.into())),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    V4,
    V6,
}

impl Family {
    pub fn of(subnet: &IpNetwork) -> Self {
        match subnet {
            IpNetwork::V4(_) => Self::V4,
            IpNetwork::V6(_) => Self::V6,
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        })
    }
}

#[derive(Debug, Error)]
pub enum AllocError<E> {
    /// The ranges that are full, separated by commas.
    #[error("no address left in {0}")]
    Exhausted(String),
    #[error("network {network} has no {family} subnet")]
    NoSubnet { network: String, family: Family },
    #[error("invalid {field} {address}: {why}")]
    Requested {
        field: &'static str,
        address: IpAddr,
        why: String,
    },
    #[error(transparent)]
    Leases(#[from] E),
}

/// The next free address of `pool` after the cursor, round its range.
pub fn next<L: Leases>(pool: &Pool, leases: &L) -> Result<IpAddr, AllocError<L::Error>> {
    let (first, last) = pool.dynamic_bounds();
    let (first, last) = (number(first), number(last));
    let start = match leases.cursor(&pool.subnet)?.map(number) {
        Some(cursor) if (first..last).contains(&cursor) => cursor + 1,
        _ => first,
    };
    let reserved = pool.reserved();
    // Each step leaves at least one address behind, and a whole run or reserved address of it.
    let free = |from: u128, to: u128| -> Result<Option<IpAddr>, L::Error> {
        let mut candidate = from;
        while candidate <= to {
            let address = nth(candidate, &pool.subnet);
            let taken = if reserved.contains(&candidate) {
                candidate
            } else {
                match leases.leased_until(address)? {
                    None => return Ok(Some(address)),
                    Some(end) => number(end).max(candidate),
                }
            };
            match taken.checked_add(1) {
                Some(after) => candidate = after,
                None => break,
            }
        }
        Ok(None)
    };
    if let Some(address) = free(start, last)? {
        return Ok(address);
    }
    if start > first
        && let Some(address) = free(first, start - 1)?
    {
        return Ok(address);
    }
    Err(AllocError::Exhausted(
        pool.range.unwrap_or(pool.subnet).to_string(),
    ))
}

/// The next address of `family` on `network`, out of its first pool that has one.
pub fn allocate<'n, L: Leases>(
    network: &'n Network,
    family: Family,
    leases: &L,
) -> Result<(&'n Pool, IpAddr), AllocError<L::Error>> {
    let mut full = Vec::new();
    for pool in network.pools_of(family) {
        match next(pool, leases) {
            Ok(address) => return Ok((pool, address)),
            Err(AllocError::Exhausted(range)) => full.push(range),
            Err(other) => return Err(other),
        }
    }
    Err(if full.is_empty() {
        AllocError::NoSubnet {
            network: network.name.clone(),
            family,
        }
    } else {
        AllocError::Exhausted(full.join(", "))
    })
}

/// Checks that `address`, given as `field` (`--ip` or `--ip6`), may be leased: in one of the
/// network's pools (also outside its range), not reserved, free. Returns the pool it lies in.
pub fn requested<'n, L: Leases>(
    network: &'n Network,
    field: &'static str,
    address: IpAddr,
    leases: &L,
) -> Result<&'n Pool, AllocError<L::Error>> {
    let refuse = |why: String| AllocError::Requested {
        field,
        address,
        why,
    };
    let Some(pool) = network.pool_of(address) else {
        let subnets: Vec<_> = network.pools.iter().map(|p| p.subnet.to_string()).collect();
        return Err(refuse(format!(
            "it must lie in a subnet of network {}: {}",
            network.name,
            subnets.join(", ")
        )));
    };
    if let Some(why) = pool.reservation(address) {
        return Err(refuse(format!(
            "it is {why} in {}; name another",
            pool.subnet
        )));
    }
    if leases.leased_until(address)?.is_some() {
        return Err(refuse(format!(
            "it is in use; name a free address of {}",
            pool.subnet
        )));
    }
    Ok(pool)
}
