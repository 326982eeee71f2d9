//! `stats --json` of many endpoints: the command from its start to its end.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use ipnetwork::IpNetwork;
use ipvlan_ctl::kernel::NetnsIdentity;
use ipvlan_ctl::model::{AddressPlan, Id};
use ipvlan_ctl::store::{EndpointRow, State, Store, StoreError, boot_id};

use crate::sandbox::{self, sh};
use crate::table::{Case, Compare, Table, in_turn};

const ENDPOINTS: [u32; 3] = [1000, 3000, 10_000];
/// Endpoints share these, as if each namespace were on several networks.
const NAMESPACES: u32 = 100;

#[derive(clap::Args)]
pub struct Args {
    /// The ipvlan-ctl to measure
    #[arg(long, value_name = "FILE")]
    program: PathBuf,
    /// Samples of each case
    #[arg(long, value_name = "N", default_value_t = 15)]
    rounds: usize,
}

pub fn measure(args: &Args) -> Result<Vec<Table>> {
    sandbox::enter()?;
    sh("ip link add parent0 type veth peer name parent1; ip link set parent0 up")?;
    let batch: String = (0..NAMESPACES)
        .map(|n| format!("netns add n{n}\nnetns set n{n} {n}\n"))
        .collect();
    sh(&format!("ip -batch - <<'END'\n{batch}END"))?;
    let first = format!("{} endpoints", ENDPOINTS[0]);
    let mut cases = Vec::new();
    for endpoints in ENDPOINTS {
        let host = Host::new(&args.program, endpoints)?;
        let baseline = (endpoints != ENDPOINTS[0]).then_some(first.as_str());
        cases.push(Case::new(
            format!("{endpoints} endpoints"),
            baseline,
            move || host.stats(),
        ));
    }
    Ok(vec![Table {
        title: "`ipvlan-ctl stats --json`, from start to end".into(),
        unit: "ms".into(),
        compare: Compare::Ratio,
        rows: in_turn(args.rounds, cases)?,
        targets: vec![],
    }])
}

/// A network whose endpoints are in the store and in the maps. There are no slaves: this host's
/// kernel need not have ipvlan, and figures are read out of the maps.
struct Host {
    program: PathBuf,
    state: PathBuf,
    pins: PathBuf,
    endpoints: u32,
}

impl Host {
    fn new(program: &Path, endpoints: u32) -> Result<Self> {
        let host = Self {
            program: program.to_owned(),
            state: format!("/run/state-{endpoints}").into(),
            pins: format!("/sys/fs/bpf/stats-{endpoints}").into(),
            endpoints,
        };
        let create = "network create --subnet 10.0.0.0/8 --gateway 10.255.255.254 \
                      -o shared_parent=true -o parent=parent0 net";
        let created = host.command(create).stdout(Stdio::null()).status();
        ensure!(
            created.context("cannot start ipvlan-ctl")?.success(),
            "`{create}` failed"
        );
        let mut store = Store::open(&host.state)?;
        let networks = store.records().networks()?;
        let network = networks.first().context("no network in the store")?;
        let (number, parent_index) = (network.number, network.parent_index);
        let boot = boot_id()?;
        store.transaction(|records| {
            for slot in 0..endpoints {
                let address = Ipv4Addr::from_bits(Ipv4Addr::new(10, 0, 0, 1).to_bits() + slot);
                let address = IpNetwork::new(IpAddr::V4(address), 8).ok();
                records.insert_endpoint(&EndpointRow {
                    id: Id::from_stored(format!("{slot:064x}")),
                    network: number,
                    name: format!("endpoint-{slot}"),
                    aliases: Vec::new(),
                    servers: Vec::new(),
                    slot,
                    ifname: "eth0".into(),
                    netns: format!("/run/netns/n{}", slot % NAMESPACES).into(),
                    nsid: (slot % NAMESPACES) as i32,
                    identity: NetnsIdentity {
                        cookie: 0,
                        inode: 0,
                    },
                    boot: boot.clone(),
                    parent_index,
                    addresses: AddressPlan {
                        v4: address,
                        ..AddressPlan::default()
                    },
                    link_local: None,
                    state: State::Ready,
                    created: 0,
                })?;
            }
            Ok::<_, StoreError>(())
        })?;
        Ok(host)
    }

    fn command(&self, words: &str) -> Command {
        let mut command = sandbox::ctl(&self.program, words);
        command
            .env("IPVLAN_CTL_STATE_DIR", &self.state)
            .env("IPVLAN_CTL_PIN_DIR", &self.pins);
        command
    }

    /// Milliseconds.
    fn stats(&self) -> Result<f64> {
        let started = Instant::now();
        let output = self.command("stats --json").output()?;
        let time = started.elapsed().as_secs_f64() * 1000.0;
        ensure!(
            output.status.success(),
            "stats failed: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        let json: serde_json::Value = serde_json::from_slice(&output.stdout)?;
        let rows = json["endpoints"].as_array().context("no endpoints")?;
        ensure!(rows.len() == self.endpoints as usize, "{} rows", rows.len());
        Ok(time)
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // The bpffs ends with this process's mount namespace, the state with its tmpfs.
        let _ = fs::remove_dir_all(&self.state);
    }
}
