//! Leases, and the runs of consecutive addresses that they form; promised pools.
//!
//! The only writers are [`Records::lease`] and [`Records::release`], which keep both tables in
//! step inside the caller's transaction.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ToSql, ToSqlOutput, ValueRef};
use rusqlite::{OptionalExtension, params};

use super::{Records, StoreError};
use crate::model::ipam::{self, Leases, Run};
use crate::model::{Id, Pool};

/// An address as a column: its bytes in network order, whose order is the addresses'.
struct Column(IpAddr);

impl ToSql for Column {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(match self.0 {
            IpAddr::V4(v4) => v4.octets().to_vec().into(),
            IpAddr::V6(v6) => v6.octets().to_vec().into(),
        })
    }
}

impl FromSql for Column {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        let bytes = value.as_blob()?;
        let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
        let v6 = <[u8; 16]>::try_from(bytes).map(IpAddr::from);
        v4.or(v6)
            .map(Column)
            .map_err(|error| FromSqlError::Other(error.into()))
    }
}

/// How many seconds a pool stays promised.
const PROMISED: u64 = 60;

fn network(text: &str) -> Result<IpNetwork, StoreError> {
    text.parse()
        .map_err(|_| StoreError::Corrupt(format!("{text} is no network")))
}

/// Keeps the runs of the families apart, as the schema's `family` has it.
fn family(address: IpAddr) -> u8 {
    if address.is_ipv4() { 4 } else { 6 }
}

impl Records<'_> {
    /// Leases a free `address` to an endpoint.
    pub fn lease(&self, address: IpAddr, endpoint: &Id) -> Result<(), StoreError> {
        self.execute(
            "INSERT INTO leases (family, address, endpoint) VALUES (?1, ?2, ?3)",
            params![family(address), Column(address), endpoint.as_str()],
        )?;
        let run_at = |neighbour: Option<IpAddr>| match neighbour {
            Some(neighbour) => self.run_at(neighbour),
            None => Ok(None),
        };
        let before = run_at(ipam::predecessor(address))?;
        let after = run_at(ipam::successor(address))?;
        for run in before.iter().chain(&after) {
            self.delete_run(run)?;
        }
        self.insert_run(&ipam::lease(before, address, after))
    }

    /// Notes `address` as the one handed out last in the pool of `subnet`.
    pub fn set_cursor(&self, subnet: &IpNetwork, address: IpAddr) -> Result<(), StoreError> {
        self.execute(
            "INSERT INTO cursors (subnet, address) VALUES (?1, ?2)
             ON CONFLICT (subnet) DO UPDATE SET address = excluded.address",
            params![subnet.to_string(), Column(address)],
        )?;
        Ok(())
    }

    /// Forgets which address of `subnet` was handed out last: its last network is gone.
    pub fn delete_cursor(&self, subnet: &IpNetwork) -> Result<(), StoreError> {
        self.execute(
            "DELETE FROM cursors WHERE subnet = ?1",
            [subnet.to_string()],
        )?;
        Ok(())
    }

    /// Releases every address of an endpoint.
    pub fn release(&self, endpoint: &Id) -> Result<(), StoreError> {
        let leases: Vec<Column> = self
            .0
            .prepare_cached("SELECT address FROM leases WHERE endpoint = ?1")?
            .query_map([endpoint.as_str()], |row| row.get(0))?
            .collect::<Result<_, _>>()?;
        for Column(address) in leases {
            let run = self
                .run_at(address)?
                .ok_or_else(|| StoreError::Corrupt(format!("the lease of {address} has no run")))?;
            self.delete_run(&run)?;
            let (before, after) = ipam::release(run, address);
            for run in before.iter().chain(&after) {
                self.insert_run(run)?;
            }
            self.execute(
                "DELETE FROM leases WHERE family = ?1 AND address = ?2",
                params![family(address), Column(address)],
            )?;
        }
        Ok(())
    }

    /// How many addresses of `subnet` are leased.
    pub fn leased_in(&self, subnet: &IpNetwork) -> Result<u64, StoreError> {
        let (first, last) = (subnet.network(), subnet.broadcast());
        let count: i64 = self.0.query_row(
            "SELECT count(*) FROM leases WHERE family = ?1 AND address BETWEEN ?2 AND ?3",
            params![family(first), Column(first), Column(last)],
            |row| row.get(0),
        )?;
        Ok(count as u64)
    }

    /// Notes that another engine was promised `pool`, in the place of an older promise.
    pub fn promise(&self, pool: &Pool, now: u64) -> Result<(), StoreError> {
        self.execute(
            "INSERT OR REPLACE INTO promises (subnet, range, since) VALUES (?1, ?2, ?3)",
            params![
                pool.subnet.to_string(),
                pool.range.map(|range| range.to_string()),
                now as i64
            ],
        )?;
        Ok(())
    }

    /// The subnets that are promised. What was promised too long ago is forgotten.
    pub fn promised(&self, now: u64) -> Result<Vec<IpNetwork>, StoreError> {
        self.execute(
            "DELETE FROM promises WHERE since NOT BETWEEN ?1 AND ?2",
            params![now.saturating_sub(PROMISED) as i64, now as i64],
        )?;
        self.0
            .prepare_cached("SELECT subnet FROM promises")?
            .query_map([], |row| row.get::<_, String>(0))?
            .map(|subnet| network(&subnet?))
            .collect()
    }

    /// Ends a promise. Returns the range of the pool, if it was promised with one.
    pub fn take_promise(&self, subnet: &IpNetwork) -> Result<Option<IpNetwork>, StoreError> {
        let range: Option<Option<String>> = self
            .0
            .prepare_cached("DELETE FROM promises WHERE subnet = ?1 RETURNING range")?
            .query_row([subnet.to_string()], |row| row.get(0))
            .optional()?;
        range.flatten().map(|range| network(&range)).transpose()
    }

    /// The run that holds `address`.
    fn run_at(&self, address: IpAddr) -> Result<Option<Run>, StoreError> {
        let run = self
            .0
            .prepare_cached(
                "SELECT first, last FROM runs WHERE family = ?1 AND first <= ?2
                 ORDER BY first DESC LIMIT 1",
            )?
            .query_row(params![family(address), Column(address)], |row| {
                let (Column(first), Column(last)) = (row.get(0)?, row.get(1)?);
                Ok(Run { first, last })
            })
            .optional()?;
        Ok(run.filter(|run| address <= run.last))
    }

    fn insert_run(&self, run: &Run) -> Result<(), StoreError> {
        self.0
            .prepare_cached("INSERT INTO runs (family, first, last) VALUES (?1, ?2, ?3)")?
            .execute(params![
                family(run.first),
                Column(run.first),
                Column(run.last)
            ])?;
        Ok(())
    }

    fn delete_run(&self, run: &Run) -> Result<(), StoreError> {
        self.0
            .prepare_cached("DELETE FROM runs WHERE family = ?1 AND first = ?2")?
            .execute(params![family(run.first), Column(run.first)])?;
        Ok(())
    }
}

impl Leases for Records<'_> {
    type Error = StoreError;

    fn leased_until(&self, address: IpAddr) -> Result<Option<IpAddr>, StoreError> {
        Ok(self.run_at(address)?.map(|run| run.last))
    }

    fn cursor(&self, subnet: &IpNetwork) -> Result<Option<IpAddr>, StoreError> {
        let cursor: Option<Column> = self
            .0
            .prepare_cached("SELECT address FROM cursors WHERE subnet = ?1")?
            .query_row([subnet.to_string()], |row| row.get(0))
            .optional()?;
        Ok(cursor.map(|Column(address)| address))
    }
}
