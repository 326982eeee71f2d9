//! What an address costs, on the real store, against the number of leases that there are.

use std::net::IpAddr;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result};
use ipnetwork::IpNetwork;
use ipvlan_ctl::kernel::NetnsIdentity;
use ipvlan_ctl::model::ipam::{self, Family};
use ipvlan_ctl::model::{AddressPlan, Flag, Id, Mode, Network, Parent, Pool};
use ipvlan_ctl::store::{EndpointRow, State, Store, StoreError};

use crate::table::{Case, Compare, Table, in_turn};

/// How many addresses a sample takes and gives back.
const BATCH: u32 = 50;
const LEASES: [u32; 4] = [1, 1_000, 10_000, 100_000];
const SUBNETS: [&str; 2] = ["10.0.0.0/8", "fd00::/64"];

#[derive(clap::Args)]
pub struct Args {
    /// Samples of each case
    #[arg(long, value_name = "N", default_value_t = 15)]
    rounds: usize,
}

/// Measures in memory, so that no disk hides what grows.
pub fn measure(args: &Args) -> Result<Vec<Table>> {
    SUBNETS
        .into_iter()
        .map(|subnet| {
            let mut hosts = LEASES
                .into_iter()
                .map(|leases| Host::new(subnet.parse()?, leases))
                .collect::<Result<Vec<_>>>()?;
            let cases = LEASES.into_iter().zip(&mut hosts).map(|(leases, host)| {
                let what = |leases: u32| format!("{leases} leased");
                let baseline = (leases != LEASES[0]).then(|| what(LEASES[0]));
                Case::new(what(leases), baseline.as_deref(), || host.sample())
            });
            Ok(Table {
                title: format!("An address of {subnet}: allocated, leased and released"),
                unit: "µs".into(),
                compare: Compare::Ratio,
                rows: in_turn(args.rounds, cases.collect())?,
                targets: vec![],
            })
        })
        .collect()
}

/// A store with one network and some leases.
struct Host {
    store: Store,
    network: Network,
    number: u32,
    made: u32,
    // Removed after the store is closed.
    _folder: tempfile::TempDir,
}

impl Host {
    /// Every third address is free, so that the leases are in many runs.
    fn new(subnet: IpNetwork, leases: u32) -> Result<Self> {
        let folder = tempfile::tempdir_in("/dev/shm").context("/dev/shm")?;
        let mut store = Store::open(&folder.path().join("state"))?;
        let network = network(subnet);
        let holder = endpoint(0, 0);
        let number = store.transaction(|records| {
            let number = records.insert_network(&network)?;
            let holder = EndpointRow {
                network: number,
                ..holder
            };
            records.insert_endpoint(&holder)?;
            let mut address = subnet.network();
            let mut leased = 0;
            for n in 0_u32.. {
                let next = ipam::successor(address);
                address = next.ok_or_else(|| StoreError::Corrupt("a small subnet".into()))?;
                if n % 3 == 2 {
                    continue;
                }
                records.lease(address, &holder.id)?;
                leased += 1;
                if leased == leases {
                    break;
                }
            }
            Ok::<_, StoreError>(number)
        })?;
        Ok(Self {
            store,
            network,
            number,
            made: 0,
            _folder: folder,
        })
    }

    fn sample(&mut self) -> Result<f64> {
        let start = Instant::now();
        let made: Vec<EndpointRow> = (0..BATCH).map(|_| self.take()).collect::<Result<_>>()?;
        for row in &made {
            self.store
                .transaction(|records| records.delete_endpoint(&row.id))?;
        }
        Ok(start.elapsed().as_secs_f64() * 1e6 / f64::from(BATCH))
    }

    /// As a connect reserves its address.
    fn take(&mut self) -> Result<EndpointRow> {
        self.made += 1;
        let (network, family) = (&self.network, Family::of(&self.network.pools[0].subnet));
        let row = endpoint(self.number, self.made);
        self.store.transaction(|records| {
            let (pool, address): (_, IpAddr) = ipam::allocate(network, family, records)
                .map_err(|error| StoreError::Corrupt(error.to_string()))?;
            records.insert_endpoint(&row)?;
            records.lease(address, &row.id)?;
            records.set_cursor(&pool.subnet, address)
        })?;
        Ok(row)
    }
}

fn network(subnet: IpNetwork) -> Network {
    Network {
        id: Id::random(),
        name: "bench".into(),
        created: 0,
        parent: Parent::Dummy {
            name: "di-bench".into(),
        },
        mode: Mode::L2,
        flag: Flag::Bridge,
        internal: true,
        host_access: false,
        shared_parent: false,
        external_ipam: false,
        ipv4: subnet.is_ipv4(),
        ipv6: subnet.is_ipv6(),
        mtu: None,
        pools: vec![Pool::new(subnet)],
        labels: Default::default(),
        options: Default::default(),
    }
}

fn endpoint(network: u32, n: u32) -> EndpointRow {
    EndpointRow {
        id: Id::random(),
        network,
        name: format!("e{n}"),
        aliases: Vec::new(),
        servers: Vec::new(),
        slot: n,
        ifname: "eth0".into(),
        netns: Path::new("/run/netns/bench").into(),
        nsid: 0,
        identity: NetnsIdentity {
            cookie: n.into(),
            inode: 0,
        },
        boot: String::new(),
        parent_index: 0,
        addresses: AddressPlan::default(),
        link_local: None,
        state: State::Ready,
        created: 0,
    }
}
