//! The verbs: create and remove networks, connect and disconnect endpoints, repair.
//!
//! Each verb that changes something goes the same way: reserve in one transaction, with an
//! intent; change the kernel; commit. For a network and for an endpoint there is one tear-down,
//! which may be repeated and takes back whatever has been done so far. A verb that fails calls
//! it, a verb that removes calls it, and repair calls it for work whose process is gone.

mod carried;
mod check;
mod endpoint;
mod ensure;
mod host;
mod meter;
mod network;
mod parent;
mod privilege;
mod promise;
mod repair;
mod selection;
mod target;
mod trace;
mod view;

use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use thiserror::Error;

pub use endpoint::{Ask, ConnectRequest, Given, IpamError, Joined};
pub use host::{ChangedEndpoints, NamedEndpoint, Seen};
pub use meter::{Meter, Rate, Rates};
pub use network::NetworkPlan;
use repair::Which;
pub use selection::Selection;
pub use target::{default_name, netns_path};
pub use trace::{DroppedPacket, Trace, TraceFilter};
pub use view::{Branch, EndpointStats, NetworkView, ParentStats, Stats, Topology};

use crate::datapath::{Datapath, DatapathError};
use crate::kernel::{KernelError, Netlink, NetnsError};
use crate::model::ipam::AllocError;
use crate::model::{FindError, Id, Invalid, Network, find};
use crate::store::{KeptStore, NetworkRow, OpenStore, Owner, Records, StoreError, boot_id};

#[derive(Debug, Error)]
pub enum EngineError {
    #[error(transparent)]
    Invalid(#[from] Invalid),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Kernel(#[from] KernelError),
    #[error(transparent)]
    Netns(#[from] NetnsError),
    #[error(transparent)]
    Datapath(#[from] DatapathError),
    #[error(transparent)]
    Address(#[from] AllocError<StoreError>),
    #[error("cannot read {path}: {source}")]
    Read { path: PathBuf, source: io::Error },
    #[error("cannot read the capabilities of this process: {0}")]
    Privileges(String),
    #[error("not permitted: this needs root ({0} missing)")]
    NotPermitted(String),
    #[error(transparent)]
    Find(#[from] FindError),
    #[error("network {0} is being made or removed by another process")]
    NetworkBusy(String),
    #[error(
        "network {0} is Docker's; `docker network rm {0}` removes it, or --force here if Docker has \
         forgotten it"
    )]
    Dockers(String),
    #[error("network {network} is in use by {}", .endpoints.join(", "))]
    InUse {
        network: String,
        endpoints: Vec<String>,
    },
    #[error("network {network} has no endpoint {endpoint}")]
    NoEndpoint { network: String, endpoint: String },
    #[error("no such endpoint: {0}")]
    NoSuchEndpoint(String),
    #[error("there is no network here, so nothing to trace")]
    NothingToTrace,
    #[error("cannot read the clock: {0}")]
    Clock(nix::Error),
    #[error("endpoint {0} is being made or removed by another process")]
    EndpointBusy(String),
    #[error("endpoint {name} exists in network {network} already")]
    EndpointExists { network: String, name: String },
    #[error("{target} is in network {network} already, as {name}")]
    AlreadyConnected {
        target: String,
        network: String,
        name: String,
    },
    #[error("{0} is the host's own network namespace; an endpoint needs another")]
    OwnNamespace(String),
    #[error("{target} has an interface {ifname} already")]
    IfnameTaken { target: String, ifname: String },
    #[error("{target}: no free interface index found for {ifname}")]
    NoIndex { target: String, ifname: String },
    #[error("the link {ifname} that was made in {target} is not the one asked for")]
    WrongLink { target: String, ifname: String },
    #[error("the parent {parent} of network {network} is not there")]
    ParentGone { network: String, parent: String },
    #[error("{0}")]
    Ipam(IpamError),
    #[error("{error}; taking it back failed too: {undo}")]
    NotUndone {
        error: Box<EngineError>,
        undo: Box<EngineError>,
    },
}

type Result<T, E = EngineError> = std::result::Result<T, E>;

/// The verbs on one state directory. Needs a tokio runtime of the current-thread flavour, in
/// the host's network namespace.
#[derive(Debug)]
pub struct Engine {
    store: KeptStore,
    pin_dir: PathBuf,
    netlink: Netlink,
    boot: String,
    /// A verb that changes something has begun.
    changing: AtomicBool,
    /// This process is told of what vanishes, and repairs then.
    told: AtomicBool,
}

/// A verb at work: it may change things, and has begun by [`Session::put_right`].
struct Session<'e> {
    engine: &'e Engine,
    store: OpenStore<'e>,
    owner: Owner,
}

impl Engine {
    /// Opens nothing but a netlink socket; the verbs open the store, which stays open then, and
    /// the programs.
    pub fn new(state_dir: &Path, pin_dir: &Path) -> Result<Self> {
        Ok(Self {
            store: KeptStore::of(state_dir),
            pin_dir: pin_dir.to_owned(),
            netlink: Netlink::open()?,
            boot: boot_id()?,
            changing: AtomicBool::new(false),
            told: AtomicBool::new(false),
        })
    }

    /// The caller follows the kernel's events and repairs after them from now on: a verb need not
    /// look by the way for what has gone.
    pub fn leave_looking_to_caller(&self) {
        self.told.store(true, Ordering::Relaxed);
    }

    /// May what others know of the store be old by now?
    pub fn has_changed(&self) -> bool {
        self.changing.load(Ordering::Relaxed)
    }

    /// Opens the store for a verb that changes something, and puts right first what is wrong.
    async fn session(&self) -> Result<Session<'_>> {
        self.begin(self.store.open()?).await
    }

    /// As [`Engine::session`] where there is a store; without one there is nothing to change.
    async fn existing_session(&self) -> Result<Option<Session<'_>>> {
        match self.store.open_existing()? {
            Some(store) => self.begin(store).await.map(Some),
            None => Ok(None),
        }
    }

    async fn begin<'e>(&'e self, store: OpenStore<'e>) -> Result<Session<'e>> {
        let mut session = Session::new(self, store)?;
        tell(&session.put_right().await?);
        Ok(session)
    }

    fn datapath(&self) -> Result<Datapath> {
        Ok(Datapath::open(&self.pin_dir)?)
    }

    /// The programs, if they are loaded: what takes things back must not load them first.
    fn loaded_datapath(&self) -> Option<Datapath> {
        Datapath::open_existing(&self.pin_dir)
    }

    /// Tells the programs the host's addresses as they are now, and returns them.
    async fn refresh_host_addresses(&self, datapath: &Datapath) -> Result<Vec<IpAddr>> {
        let addresses = self.netlink.addresses().await?;
        datapath.set_host_addresses(&addresses)?;
        Ok(addresses)
    }
}

impl<'e> Session<'e> {
    fn new(engine: &'e Engine, store: OpenStore<'e>) -> Result<Self> {
        engine.changing.store(true, Ordering::Relaxed);
        Ok(Self {
            engine,
            store,
            owner: Owner::current()?,
        })
    }

    /// What came of a tear-down. One that failed is the next verb's to complete, whichever process
    /// that is: ours may live on.
    fn or_abandon(&self, subject: &Id, torn_down: Result<()>) -> Result<()> {
        torn_down.map_err(|error| {
            let abandoned = self.store.records().abandon(subject);
            with_undo(error, abandoned.map_err(EngineError::from))
        })
    }

    /// Runs the transaction that reserves what a verb needs. Where an endpoint that is gone may
    /// be in its way, those are released and it is tried once more.
    async fn reserve<T>(&mut self, work: impl Fn(&Records<'_>) -> Result<T>) -> Result<T> {
        match self.store.transaction(&work) {
            Err(error) if error.may_be_of_a_lost_endpoint() => {
                let released = self.release_lost(Which::All).await?;
                if released.is_empty() {
                    return Err(error);
                }
                tell(&released);
                self.store.transaction(&work)
            }
            other => other,
        }
    }
}

impl EngineError {
    fn may_be_of_a_lost_endpoint(&self) -> bool {
        match self {
            Self::Address(error) => matches!(
                error,
                AllocError::Exhausted(_) | AllocError::Requested { .. }
            ),
            Self::Store(error) => matches!(error, StoreError::Full(_)),
            Self::InUse { .. } | Self::EndpointExists { .. } | Self::AlreadyConnected { .. } => {
                true
            }
            _ => false,
        }
    }
}

fn tell(repaired: &[String]) {
    for done in repaired {
        eprintln!("ipvlan-ctl: repaired: {done}");
    }
}

/// The row of the network that `word` means; see [`find`].
fn find_network(rows: Vec<NetworkRow>, word: &str) -> Result<NetworkRow, FindError> {
    let networks: Vec<Network> = rows.iter().map(|row| row.network.clone()).collect();
    let id = &find(&networks, word)?.id;
    rows.into_iter()
        .find(|row| row.network.id == *id)
        .ok_or_else(|| not_found(word))
}

fn no_such(id: &Id) -> EngineError {
    EngineError::NoSuchEndpoint(id.to_string())
}

fn not_found(word: &str) -> FindError {
    FindError::NotFound {
        word: word.to_owned(),
    }
}

/// An error together with what went wrong in taking back what had been done.
fn with_undo(error: EngineError, undone: Result<()>) -> EngineError {
    match undone {
        Ok(()) => error,
        Err(undo) => EngineError::NotUndone {
            error: Box::new(error),
            undo: Box::new(undo),
        },
    }
}

fn now() -> u64 {
    // A clock before 1970 is no reason to fail.
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}
