use std::collections::HashSet;
use std::net::{IpAddr, Ipv6Addr};
use std::path::{Path, PathBuf};

use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ToSql, ToSqlOutput, ValueRef};
use rusqlite::{Connection, OptionalExtension, Params, Row, params};

use super::{Owner, StoreError};
use crate::datapath::Datapath;
use crate::kernel::NetnsIdentity;
use crate::model::{AddressPlan, Id, Network};

/// How far a network or an endpoint has come. Only `Ready` ones are whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    Creating,
    Ready,
    Removing,
}

impl State {
    fn name(self) -> &'static str {
        match self {
            Self::Creating => "creating",
            Self::Ready => "ready",
            Self::Removing => "removing",
        }
    }
}

impl ToSql for State {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(self.name().into())
    }
}

impl FromSql for State {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        match value.as_str()? {
            "creating" => Ok(Self::Creating),
            "ready" => Ok(Self::Ready),
            "removing" => Ok(Self::Removing),
            _ => Err(FromSqlError::InvalidType),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkRow {
    /// Its number in the maps.
    pub number: u32,
    pub network: Network,
    pub state: State,
    /// Ifindex of the parent in boot `parent_boot`; 0 until it is known.
    pub parent_index: u32,
    pub parent_boot: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointRow {
    pub id: Id,
    /// [`NetworkRow::number`]
    pub network: u32,
    pub name: String,
    pub aliases: Vec<String>,
    /// To be asked for names outside; the host's if there are none.
    pub servers: Vec<IpAddr>,
    pub slot: u32,
    pub ifname: String,
    /// The path by which the namespace was opened.
    pub netns: PathBuf,
    pub nsid: i32,
    pub identity: NetnsIdentity,
    pub boot: String,
    pub parent_index: u32,
    pub addresses: AddressPlan,
    pub link_local: Option<Ipv6Addr>,
    pub state: State,
    /// Seconds since the epoch.
    pub created: u64,
}

/// Unfinished work on a network or an endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Intent {
    pub subject: Id,
    /// As the user knows it, such as `connect`.
    pub verb: String,
    pub owner: Owner,
}

/// The rows of the store, within a transaction or without.
pub struct Records<'c>(pub(super) &'c Connection);

const NETWORK: &str = "SELECT number, body, state, parent_index, parent_boot FROM networks";

const ENDPOINT: &str = "SELECT id, network, name, aliases, slot, ifname, netns, nsid, cookie, \
    inode, boot, parent_index, addresses, link_local, state, created, servers FROM endpoints";

impl Records<'_> {
    /// Executes a statement that is prepared once for all its uses.
    pub(super) fn execute(&self, sql: &str, values: impl Params) -> Result<usize, StoreError> {
        Ok(self.0.prepare_cached(sql)?.execute(values)?)
    }

    pub fn meta(&self, key: &str) -> Result<Option<String>, StoreError> {
        Ok(self
            .0
            .prepare_cached("SELECT value FROM meta WHERE key = ?1")?
            .query_row([key], |row| row.get(0))
            .optional()?)
    }

    pub fn set_meta(&self, key: &str, value: &str) -> Result<(), StoreError> {
        self.execute(
            "INSERT INTO meta (key, value) VALUES (?1, ?2)
             ON CONFLICT (key) DO UPDATE SET value = excluded.value",
            [key, value],
        )?;
        Ok(())
    }

    /// Every network, the oldest first.
    pub fn networks(&self) -> Result<Vec<NetworkRow>, StoreError> {
        self.0
            .prepare_cached(&format!("{NETWORK} ORDER BY number"))?
            .query_and_then([], read_network)?
            .collect()
    }

    pub fn network(&self, id: &Id) -> Result<Option<NetworkRow>, StoreError> {
        self.0
            .prepare_cached(&format!("{NETWORK} WHERE id = ?1"))?
            .query_and_then([id.as_str()], read_network)?
            .next()
            .transpose()
    }

    pub fn network_named(&self, name: &str) -> Result<Option<NetworkRow>, StoreError> {
        self.0
            .prepare_cached(&format!("{NETWORK} WHERE name = ?1"))?
            .query_and_then([name], read_network)?
            .next()
            .transpose()
    }

    pub fn network_numbered(&self, number: u32) -> Result<Option<NetworkRow>, StoreError> {
        self.0
            .prepare_cached(&format!("{NETWORK} WHERE number = ?1"))?
            .query_and_then([number], read_network)?
            .next()
            .transpose()
    }

    /// The numbers of the networks that have endpoints.
    pub fn networks_with_endpoints(&self) -> Result<HashSet<u32>, StoreError> {
        Ok(self
            .0
            .prepare_cached("SELECT DISTINCT network FROM endpoints")?
            .query_map([], |row| row.get(0))?
            .collect::<Result<_, _>>()?)
    }

    /// Inserts a network in state `Creating`. Returns its number.
    pub fn insert_network(&self, network: &Network) -> Result<u32, StoreError> {
        self.execute(
            "INSERT INTO networks (id, name, body, state) VALUES (?1, ?2, ?3, ?4)",
            params![
                network.id.as_str(),
                network.name,
                serde_json::to_string(network)?,
                State::Creating
            ],
        )?;
        let number = self.0.last_insert_rowid();
        u32::try_from(number)
            .map_err(|_| StoreError::Corrupt(format!("network number {number} is too large")))
    }

    pub fn set_network_state(&self, number: u32, state: State) -> Result<(), StoreError> {
        self.execute(
            "UPDATE networks SET state = ?2 WHERE number = ?1",
            params![number, state],
        )?;
        Ok(())
    }

    pub fn set_parent(&self, number: u32, index: u32, boot: &str) -> Result<(), StoreError> {
        self.execute(
            "UPDATE networks SET parent_index = ?2, parent_boot = ?3 WHERE number = ?1",
            params![number, index, boot],
        )?;
        Ok(())
    }

    pub fn set_network(&self, number: u32, network: &Network) -> Result<(), StoreError> {
        self.execute(
            "UPDATE networks SET name = ?2, body = ?3 WHERE number = ?1",
            params![number, network.name, serde_json::to_string(network)?],
        )?;
        Ok(())
    }

    pub fn delete_network(&self, number: u32) -> Result<(), StoreError> {
        self.0
            .execute("DELETE FROM networks WHERE number = ?1", [number])?;
        Ok(())
    }

    /// Every endpoint, the oldest first.
    pub fn endpoints(&self) -> Result<Vec<EndpointRow>, StoreError> {
        self.0
            .prepare_cached(&format!("{ENDPOINT} ORDER BY rowid"))?
            .query_and_then([], read_endpoint)?
            .collect()
    }

    pub fn endpoints_of(&self, network: u32) -> Result<Vec<EndpointRow>, StoreError> {
        self.0
            .prepare_cached(&format!("{ENDPOINT} WHERE network = ?1 ORDER BY rowid"))?
            .query_and_then([network], read_endpoint)?
            .collect()
    }

    /// `count` endpoints by their slots from `from` on, and round the end.
    pub fn some_endpoints(&self, from: u32, count: u32) -> Result<Vec<EndpointRow>, StoreError> {
        self.0
            .prepare_cached(&format!(
                "SELECT * FROM ({ENDPOINT} WHERE slot >= ?1 ORDER BY slot LIMIT ?2)
                 UNION ALL
                 SELECT * FROM ({ENDPOINT} WHERE slot < ?1 ORDER BY slot LIMIT ?2)
                 LIMIT ?2"
            ))?
            .query_and_then([from, count], read_endpoint)?
            .collect()
    }

    /// The endpoints in one namespace, the oldest first.
    pub fn endpoints_in(
        &self,
        netns: NetnsIdentity,
        boot: &str,
    ) -> Result<Vec<EndpointRow>, StoreError> {
        self.0
            .prepare_cached(&format!(
                "{ENDPOINT} WHERE cookie = ?1 AND boot = ?2 ORDER BY rowid"
            ))?
            .query_and_then(params![netns.cookie as i64, boot], read_endpoint)?
            .collect()
    }

    /// The endpoints of a network that a word may mean: by name, the beginning of the id, or
    /// the namespace that it names.
    pub fn endpoints_like(
        &self,
        network: u32,
        word: &str,
        netns: &Path,
        identity: Option<NetnsIdentity>,
    ) -> Result<Vec<EndpointRow>, StoreError> {
        self.0
            .prepare_cached(&format!(
                "{ENDPOINT} WHERE network = ?1 AND (
                     name = ?2 OR substr(id, 1, length(?2)) = ?2 OR netns = ?3 OR cookie = ?4
                 ) ORDER BY rowid"
            ))?
            .query_and_then(
                params![
                    network,
                    word,
                    netns.to_string_lossy(),
                    identity.map(|identity| identity.cookie as i64)
                ],
                read_endpoint,
            )?
            .collect()
    }

    pub fn endpoint_named(
        &self,
        network: u32,
        name: &str,
    ) -> Result<Option<EndpointRow>, StoreError> {
        self.0
            .prepare_cached(&format!("{ENDPOINT} WHERE network = ?1 AND name = ?2"))?
            .query_and_then(params![network, name], read_endpoint)?
            .next()
            .transpose()
    }

    pub fn endpoint(&self, id: &Id) -> Result<Option<EndpointRow>, StoreError> {
        self.0
            .prepare_cached(&format!("{ENDPOINT} WHERE id = ?1"))?
            .query_and_then([id.as_str()], read_endpoint)?
            .next()
            .transpose()
    }

    pub fn insert_endpoint(&self, endpoint: &EndpointRow) -> Result<(), StoreError> {
        self.execute(
            "INSERT INTO endpoints (id, network, name, aliases, slot, ifname, netns, nsid,
                 cookie, inode, boot, parent_index, addresses, link_local, state, created,
                 servers)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17)",
            params![
                endpoint.id.as_str(),
                endpoint.network,
                endpoint.name,
                serde_json::to_string(&endpoint.aliases)?,
                endpoint.slot,
                endpoint.ifname,
                endpoint.netns.to_string_lossy(),
                endpoint.nsid,
                // SQLite's integers are signed; the bits are what matters.
                endpoint.identity.cookie as i64,
                endpoint.identity.inode as i64,
                endpoint.boot,
                endpoint.parent_index,
                serde_json::to_string(&endpoint.addresses)?,
                endpoint.link_local.map(|address| address.to_string()),
                endpoint.state,
                endpoint.created as i64,
                serde_json::to_string(&endpoint.servers)?,
            ],
        )?;
        Ok(())
    }

    pub fn set_endpoint_state(&self, id: &Id, state: State) -> Result<(), StoreError> {
        self.execute(
            "UPDATE endpoints SET state = ?2 WHERE id = ?1",
            params![id.as_str(), state],
        )?;
        Ok(())
    }

    /// Gives an endpoint that is being made another slot or interface name.
    pub fn move_endpoint(
        &self,
        id: &Id,
        slot: u32,
        ifname: &str,
        link_local: Option<Ipv6Addr>,
    ) -> Result<(), StoreError> {
        self.execute(
            "UPDATE endpoints SET slot = ?2, ifname = ?3, link_local = ?4 WHERE id = ?1",
            params![
                id.as_str(),
                slot,
                ifname,
                link_local.map(|address| address.to_string())
            ],
        )?;
        Ok(())
    }

    /// Gives an endpoint that is being made its addresses.
    pub fn address_endpoint(&self, id: &Id, addresses: &AddressPlan) -> Result<(), StoreError> {
        self.execute(
            "UPDATE endpoints SET addresses = ?2 WHERE id = ?1",
            params![id.as_str(), serde_json::to_string(addresses)?],
        )?;
        Ok(())
    }

    /// Writes down where an endpoint's slave is by now, and how it is called there.
    pub fn place_endpoint(
        &self,
        id: &Id,
        nsid: i32,
        identity: NetnsIdentity,
        ifname: &str,
    ) -> Result<(), StoreError> {
        self.execute(
            "UPDATE endpoints SET nsid = ?2, cookie = ?3, inode = ?4, ifname = ?5 WHERE id = ?1",
            params![
                id.as_str(),
                nsid,
                identity.cookie as i64,
                identity.inode as i64,
                ifname
            ],
        )?;
        Ok(())
    }

    /// Writes down where an endpoint's namespace is, or will be.
    pub fn set_netns(&self, id: &Id, netns: &Path) -> Result<(), StoreError> {
        self.execute(
            "UPDATE endpoints SET netns = ?2 WHERE id = ?1",
            params![id.as_str(), netns.to_string_lossy()],
        )?;
        Ok(())
    }

    pub fn rename_endpoint(&self, id: &Id, name: &str) -> Result<(), StoreError> {
        self.execute(
            "UPDATE endpoints SET name = ?2 WHERE id = ?1",
            params![id.as_str(), name],
        )?;
        Ok(())
    }

    /// Deletes an endpoint with its leases.
    pub fn delete_endpoint(&self, id: &Id) -> Result<(), StoreError> {
        self.release(id)?;
        self.0
            .execute("DELETE FROM endpoints WHERE id = ?1", [id.as_str()])?;
        Ok(())
    }

    /// Takes the next free slot after the one taken last: a slot just given back is not taken
    /// at once, so that whatever still names it finds nothing.
    pub fn take_slot(&self) -> Result<u32, StoreError> {
        const LAST: &str = "last_slot";
        let last: i64 = self
            .meta(LAST)?
            .map_or(Ok(-1), |text| text.parse())
            .map_err(|_| StoreError::Corrupt("the last slot is no number".into()))?;
        let slot = match self.free_slot_after(last)? {
            Some(slot) => slot,
            None => self
                .free_slot_after(-1)?
                .ok_or(StoreError::Full(Datapath::MAX_ENDPOINTS))?,
        };
        self.set_meta(LAST, &slot.to_string())?;
        Ok(slot)
    }

    fn free_slot_after(&self, last: i64) -> Result<Option<u32>, StoreError> {
        Ok(self
            .0
            .query_row(
                "SELECT taken.slot + 1 FROM (
                     SELECT ?1 AS slot UNION ALL SELECT slot FROM endpoints WHERE slot > ?1
                 ) AS taken
                 WHERE taken.slot + 1 < ?2 AND NOT EXISTS (
                     SELECT 1 FROM endpoints WHERE endpoints.slot = taken.slot + 1
                 )
                 ORDER BY taken.slot LIMIT 1",
                params![last, Datapath::MAX_ENDPOINTS],
                |row| row.get(0),
            )
            .optional()?)
    }

    pub fn intents(&self) -> Result<Vec<Intent>, StoreError> {
        Ok(self
            .0
            .prepare_cached("SELECT subject, verb, pid, started, boot FROM intents")?
            .query_map([], |row| {
                Ok(Intent {
                    subject: Id::from_stored(row.get(0)?),
                    verb: row.get(1)?,
                    owner: Owner {
                        pid: row.get(2)?,
                        started: row.get::<_, i64>(3)? as u64,
                        boot: row.get(4)?,
                    },
                })
            })?
            .collect::<Result<_, _>>()?)
    }

    /// The number of the newest change of an endpoint; 0 before the first.
    pub fn newest_change(&self) -> Result<u64, StoreError> {
        let newest: Option<i64> =
            self.0
                .query_row("SELECT max(number) FROM changes", [], |row| row.get(0))?;
        Ok(newest.unwrap_or(0) as u64)
    }

    /// The number of the newest change, and which endpoints have changed since another one; each
    /// once. `None` where not all of them are known any more.
    pub fn changes_since(&self, number: u64) -> Result<Option<(u64, HashSet<Id>)>, StoreError> {
        let mut select = self.0.prepare_cached(
            "SELECT number, endpoint FROM changes WHERE number >= ?1 ORDER BY number",
        )?;
        let mut changes = select.query_map([number as i64], |row| {
            Ok((row.get::<_, i64>(0)? as u64, row.get(1)?))
        })?;
        match changes.next().transpose()? {
            Some((first, _)) if first == number => {}
            _ => return Ok(None),
        }
        let (mut newest, mut changed) = (number, HashSet::new());
        for change in changes {
            let (number, endpoint) = change?;
            newest = number;
            changed.insert(Id::from_stored(endpoint));
        }
        Ok(Some((newest, changed)))
    }

    /// Notes who is at work on a network or an endpoint; an older note is replaced.
    pub fn begin(&self, subject: &Id, verb: &str, owner: &Owner) -> Result<(), StoreError> {
        self.execute(
            "INSERT OR REPLACE INTO intents (subject, verb, pid, started, boot)
             VALUES (?1, ?2, ?3, ?4, ?5)",
            params![
                subject.as_str(),
                verb,
                owner.pid,
                owner.started as i64,
                owner.boot
            ],
        )?;
        Ok(())
    }

    /// Leaves unfinished work to whoever comes next, as if its process had ended.
    pub fn abandon(&self, subject: &Id) -> Result<(), StoreError> {
        // No process has this number.
        self.execute(
            "UPDATE intents SET pid = 0 WHERE subject = ?1",
            [subject.as_str()],
        )?;
        Ok(())
    }

    pub fn end(&self, subject: &Id) -> Result<(), StoreError> {
        self.0
            .execute("DELETE FROM intents WHERE subject = ?1", [subject.as_str()])?;
        Ok(())
    }
}

fn read_network(row: &Row<'_>) -> Result<NetworkRow, StoreError> {
    Ok(NetworkRow {
        number: row.get(0)?,
        network: serde_json::from_str(&row.get::<_, String>(1)?)?,
        state: row.get(2)?,
        parent_index: row.get(3)?,
        parent_boot: row.get(4)?,
    })
}

fn read_endpoint(row: &Row<'_>) -> Result<EndpointRow, StoreError> {
    let link_local: Option<String> = row.get(13)?;
    Ok(EndpointRow {
        id: Id::from_stored(row.get(0)?),
        network: row.get(1)?,
        name: row.get(2)?,
        aliases: serde_json::from_str(&row.get::<_, String>(3)?)?,
        slot: row.get(4)?,
        ifname: row.get(5)?,
        netns: row.get::<_, String>(6)?.into(),
        nsid: row.get(7)?,
        identity: NetnsIdentity {
            cookie: row.get::<_, i64>(8)? as u64,
            inode: row.get::<_, i64>(9)? as u64,
        },
        boot: row.get(10)?,
        parent_index: row.get(11)?,
        addresses: serde_json::from_str(&row.get::<_, String>(12)?)?,
        link_local: link_local
            .map(|text| text.parse())
            .transpose()
            .map_err(|_| StoreError::Corrupt("a link-local address is none".into()))?,
        state: row.get(14)?,
        created: row.get::<_, i64>(15)? as u64,
        servers: serde_json::from_str(&row.get::<_, String>(16)?)?,
    })
}
