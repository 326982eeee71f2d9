//! Address allocation: serial, per pool, over an abstract set of leases.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use thiserror::Error;

use super::{Network, Pool};

/// What allocation asks of the lease table. The store implements it with indexed queries, so
/// that cost does not grow with the number of leases; tests implement it over a `BTreeSet`.
/// Addresses of both families are ordered as `u128` (IPv4 as its 32 bits).
pub trait Leases {
    type Error;

    fn is_leased(&self, pool: &IpNetwork, address: IpAddr) -> Result<bool, Self::Error>;

    /// The last address of the run of consecutive leases that begins at `from` (which is
    /// leased), no further than `to`.
    fn end_of_run(&self, pool: &IpNetwork, from: IpAddr, to: IpAddr)
    -> Result<IpAddr, Self::Error>;

    /// The address handed out last in `pool`.
    fn cursor(&self, pool: &IpNetwork) -> Result<Option<IpAddr>, Self::Error>;
}

#[derive(Debug, Error)]
pub enum AllocError<E> {
    #[error("no address left in {0}")]
    Exhausted(String),
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
pub fn next<L: Leases>(_pool: &Pool, _leases: &L) -> Result<IpAddr, AllocError<L::Error>> {
    todo!()
}

/// Checks that `address` may be leased: in one of the network's pools, not reserved, free.
/// Returns the pool it lies in.
pub fn requested<'n, L: Leases>(
    _network: &'n Network,
    _field: &'static str,
    _address: IpAddr,
    _leases: &L,
) -> Result<&'n Pool, AllocError<L::Error>> {
    todo!()
}
