//! Leases, and the runs of consecutive addresses that they form.
//!
//! The only writers are [`Records::lease`] and [`Records::release`], which keep both tables in
//! step inside the caller's transaction.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::IpNetwork;
use rusqlite::{OptionalExtension, params};

use super::{Records, StoreError};
use crate::model::Id;
use crate::model::ipam::Leases;

type Key = [u8; 16];

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u32::from(v4).into(),
        IpAddr::V6(v6) => v6.into(),
    }
}

fn key(address: IpAddr) -> Key {
    number(address).to_be_bytes()
}

fn address(pool: &IpNetwork, key: Key) -> IpAddr {
    let number = u128::from_be_bytes(key);
    match pool {
        IpNetwork::V4(_) => Ipv4Addr::from(number as u32).into(),
        IpNetwork::V6(_) => Ipv6Addr::from(number).into(),
    }
}

/// The first and the last address of a run.
#[derive(Clone, Copy)]
struct Run {
    first: Key,
    last: Key,
}

impl Records<'_> {
    /// Leases `address` to an endpoint.
    pub fn lease(
        &self,
        pool: &IpNetwork,
        address: IpAddr,
        endpoint: &Id,
    ) -> Result<(), StoreError> {
        let (name, own) = (pool.to_string(), key(address));
        self.0.execute(
            "INSERT INTO leases (pool, address, endpoint) VALUES (?1, ?2, ?3)",
            params![name, own, endpoint.as_str()],
        )?;
        let n = u128::from_be_bytes(own);
        let left = match n.checked_sub(1) {
            Some(before) => self.run_at(&name, before.to_be_bytes())?,
            None => None,
        };
        let right = match n.checked_add(1) {
            Some(after) => self.run_at(&name, after.to_be_bytes())?,
            None => None,
        };
        for run in left.iter().chain(&right) {
            self.delete_run(&name, run.first)?;
        }
        self.insert_run(
            &name,
            Run {
                first: left.map_or(own, |run| run.first),
                last: right.map_or(own, |run| run.last),
            },
        )
    }

    /// Notes `address` as the one handed out last in the pool.
    pub fn set_cursor(&self, pool: &IpNetwork, address: IpAddr) -> Result<(), StoreError> {
        self.0.execute(
            "INSERT INTO cursors (pool, address) VALUES (?1, ?2)
             ON CONFLICT (pool) DO UPDATE SET address = excluded.address",
            params![pool.to_string(), key(address)],
        )?;
        Ok(())
    }

    /// Releases every address of an endpoint.
    pub fn release(&self, endpoint: &Id) -> Result<(), StoreError> {
        let leases: Vec<(String, Key)> = self
            .0
            .prepare_cached("SELECT pool, address FROM leases WHERE endpoint = ?1")?
            .query_map([endpoint.as_str()], |row| Ok((row.get(0)?, row.get(1)?)))?
            .collect::<Result<_, _>>()?;
        for (pool, own) in leases {
            let run = self.run_at(&pool, own)?.ok_or_else(|| {
                StoreError::Corrupt(format!("a lease of {pool} is in none of its runs"))
            })?;
            self.delete_run(&pool, run.first)?;
            let n = u128::from_be_bytes(own);
            if run.first < own {
                let last = (n - 1).to_be_bytes();
                self.insert_run(&pool, Run { last, ..run })?;
            }
            if own < run.last {
                let first = (n + 1).to_be_bytes();
                self.insert_run(&pool, Run { first, ..run })?;
            }
            self.0.execute(
                "DELETE FROM leases WHERE pool = ?1 AND address = ?2",
                params![pool, own],
            )?;
        }
        Ok(())
    }

    /// How many addresses of the pool are leased.
    pub fn leased(&self, pool: &IpNetwork) -> Result<u64, StoreError> {
        let count: i64 = self.0.query_row(
            "SELECT count(*) FROM leases WHERE pool = ?1",
            [pool.to_string()],
            |row| row.get(0),
        )?;
        Ok(count as u64)
    }

    /// The run that holds `key`.
    fn run_at(&self, pool: &str, key: Key) -> Result<Option<Run>, StoreError> {
        let run = self
            .0
            .prepare_cached(
                "SELECT first, last FROM runs WHERE pool = ?1 AND first <= ?2
                 ORDER BY first DESC LIMIT 1",
            )?
            .query_row(params![pool, key], |row| {
                Ok(Run {
                    first: row.get(0)?,
                    last: row.get(1)?,
                })
            })
            .optional()?;
        Ok(run.filter(|run| key <= run.last))
    }

    fn insert_run(&self, pool: &str, run: Run) -> Result<(), StoreError> {
        self.0
            .prepare_cached("INSERT INTO runs (pool, first, last) VALUES (?1, ?2, ?3)")?
            .execute(params![pool, run.first, run.last])?;
        Ok(())
    }

    fn delete_run(&self, pool: &str, first: Key) -> Result<(), StoreError> {
        self.0
            .prepare_cached("DELETE FROM runs WHERE pool = ?1 AND first = ?2")?
            .execute(params![pool, first])?;
        Ok(())
    }
}

impl Leases for Records<'_> {
    type Error = StoreError;

    fn is_leased(&self, pool: &IpNetwork, address: IpAddr) -> Result<bool, StoreError> {
        Ok(self.run_at(&pool.to_string(), key(address))?.is_some())
    }

    fn end_of_run(&self, pool: &IpNetwork, from: IpAddr, to: IpAddr) -> Result<IpAddr, StoreError> {
        let last = self
            .run_at(&pool.to_string(), key(from))?
            .map_or(key(from), |run| run.last);
        Ok(address(pool, last.min(key(to))))
    }

    fn cursor(&self, pool: &IpNetwork) -> Result<Option<IpAddr>, StoreError> {
        let cursor: Option<Key> = self
            .0
            .prepare_cached("SELECT address FROM cursors WHERE pool = ?1")?
            .query_row([pool.to_string()], |row| row.get(0))
            .optional()?;
        Ok(cursor.map(|key| address(pool, key)))
    }
}
