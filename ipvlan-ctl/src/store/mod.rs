//! What the host remembers: networks, endpoints, leases and unfinished work, in SQLite.

#[cfg(test)]
pub(crate) mod fixtures;
mod kept;
mod leases;
mod owner;
mod records;

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rusqlite::{Connection, ErrorCode, OpenFlags, TransactionBehavior};
use thiserror::Error;

pub use kept::{KeptStore, OpenStore};
pub use owner::{Owner, boot_id};
pub use records::{EndpointRow, Intent, NetworkRow, Records, State};

/// The schema's versions in their order; `user_version` says how many are applied.
const MIGRATIONS: &[&str] = &[
    include_str!("schema.sql"),
    include_str!("endpoints_of_netns.sql"),
    include_str!("servers.sql"),
    include_str!("changes.sql"),
    include_str!("promises.sql"),
];
const VERSION: u32 = MIGRATIONS.len() as u32;

/// How long a process waits for others' transactions. They hold no kernel work, so that only a
/// stopped process, or hundreds at once on a slow machine, can exhaust this.
const PATIENCE: Duration = Duration::from_secs(120);
/// Between two tries. SQLite's own pauses grow, so that of a hundred processes the newest would
/// always come first; these are the same for all.
const PAUSE: Duration = Duration::from_millis(30);

/// More than [`Records`] has.
const STATEMENTS: usize = 128;

#[derive(Debug, Error)]
pub enum StoreError {
    #[error("cannot make the state directory {path}: {source}")]
    Directory { path: PathBuf, source: io::Error },
    #[error("the store {path} has version {found}; this program knows versions up to {known}")]
    Newer {
        path: PathBuf,
        found: u32,
        known: u32,
    },
    #[error("the store: {0}")]
    Sqlite(#[from] rusqlite::Error),
    #[error("the store: a row is not readable: {0}")]
    Row(#[from] serde_json::Error),
    #[error("the store: {0}")]
    Corrupt(String),
    #[error("cannot read {path}: {source}")]
    Proc { path: PathBuf, source: io::Error },
    #[error("no room for another endpoint: this host has {0}")]
    Full(u32),
}

/// The store of one state directory.
#[derive(Debug)]
pub struct Store {
    connection: Connection,
}

impl Store {
    /// Opens the store of `directory`, made first if need be.
    pub fn open(directory: &Path) -> Result<Self, StoreError> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)
            .map_err(|source| StoreError::Directory {
                path: directory.to_owned(),
                source,
            })?;
        Self::connect(directory, OpenFlags::SQLITE_OPEN_CREATE)
    }

    /// Opens the store of `directory` if there is one.
    pub fn open_existing(directory: &Path) -> Result<Option<Self>, StoreError> {
        let path = file_of(directory);
        match path.try_exists() {
            Ok(false) => Ok(None),
            Ok(true) => Self::connect(directory, OpenFlags::empty()).map(Some),
            Err(source) => Err(StoreError::Proc { path, source }),
        }
    }

    fn connect(directory: &Path, create: OpenFlags) -> Result<Self, StoreError> {
        let path = file_of(directory);
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX | create;
        let mut connection = Connection::open_with_flags(&path, flags)?;
        connection.busy_handler(Some(wait))?;
        connection.set_prepared_statement_cache_capacity(STATEMENTS);
        connection.pragma_update(None, "foreign_keys", true)?;
        write_ahead(&connection)?;
        let mut store = Self { connection };
        store.migrate(&path)?;
        Ok(store)
    }

    fn migrate(&mut self, path: &Path) -> Result<(), StoreError> {
        let version = |connection: &Connection| -> Result<u32, rusqlite::Error> {
            connection.query_row("PRAGMA user_version", [], |row| row.get(0))
        };
        if version(&self.connection)? == VERSION {
            return Ok(());
        }
        let transaction = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)?;
        // Another process may have done it meanwhile.
        let found = version(&transaction)?;
        let missing = MIGRATIONS
            .get(found as usize..)
            .ok_or_else(|| StoreError::Newer {
                path: path.to_owned(),
                found,
                known: VERSION,
            })?;
        for migration in missing {
            transaction.execute_batch(migration)?;
        }
        transaction.pragma_update(None, "user_version", VERSION)?;
        transaction.commit()?;
        Ok(())
    }

    /// The rows, each call a transaction of its own.
    pub fn records(&self) -> Records<'_> {
        Records(&self.connection)
    }

    /// A number that changes whenever another connection has changed something.
    pub fn revision(&self) -> Result<u32, StoreError> {
        Ok(self
            .connection
            .query_row("PRAGMA data_version", [], |row| row.get(0))?)
    }

    /// Runs `work` in one transaction that excludes other writers from its start. An error of
    /// `work` rolls everything back.
    pub fn transaction<T, E: From<StoreError>>(
        &mut self,
        work: impl FnOnce(&Records<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        let transaction = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(StoreError::from)?;
        let value = work(&Records(&transaction))?;
        transaction.commit().map_err(StoreError::from)?;
        Ok(value)
    }
}

/// Waits before try number `tries`; false once it has been long enough.
fn wait(tries: i32) -> bool {
    std::thread::sleep(PAUSE.mul_f32(rand::random_range(0.5..1.5)));
    u128::try_from(tries).is_ok_and(|tries| tries < PATIENCE.as_millis() / PAUSE.as_millis())
}

fn file_of(directory: &Path) -> PathBuf {
    directory.join("state.db")
}

/// Turns the write-ahead log on. SQLite does not wait by itself when several processes do this
/// to a new file at once.
fn write_ahead(connection: &Connection) -> Result<(), StoreError> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match connection.pragma_update(None, "journal_mode", "wal") {
            Err(rusqlite::Error::SqliteFailure(error, _))
                if error.code == ErrorCode::DatabaseBusy && Instant::now() < deadline =>
            {
                std::thread::sleep(Duration::from_millis(5));
            }
            other => return Ok(other?),
        }
    }
}

#[cfg(test)]
mod tests;
