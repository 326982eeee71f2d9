//! Between two containers on real ipvlan, and on what else there is: run in a VM.

use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use ipvlan_ctl::kernel::Netns;
use nix::net::if_::if_nametoindex;
use rtnetlink::LinkNetkit;
use rtnetlink::packet_route::link::NetkitMode;

use crate::bpf::{Hook, Program};
use crate::exchange::Way;
use crate::sandbox::{self, sh};
use crate::table::{Case, Compare, Row, Table, Target, in_turn};

#[derive(clap::Args)]
pub struct Args {
    /// The ipvlan-ctl to measure
    #[arg(long, value_name = "FILE")]
    program: PathBuf,
    /// Samples of each case
    #[arg(long, default_value_t = 11)]
    rounds: usize,
    /// Milliseconds of each sample
    #[arg(long, default_value_t = 250)]
    time: u64,
}

const BARE: &str = "ipvlan";
const HOOKS: &str = "ipvlan, programs that do nothing";
const OURS: &str = "ipvlan-ctl";
const NETKIT: &str = "netkit";

/// How two namespaces `a-NAME` and `b-NAME` get a way to each other; their devices are brought up,
/// and given the addresses, after that.
const WIRINGS: [(&str, &str, &str); 5] = [
    (
        BARE,
        "ipvlan",
        "ip link add parent0 type dummy; ip link set parent0 up
         ip link add link parent0 name eth0 netns a-ipvlan type ipvlan mode l2
         ip link add link parent0 name eth0 netns b-ipvlan type ipvlan mode l2",
    ),
    (
        HOOKS,
        "hooks",
        "ip link add parent1 type dummy; ip link set parent1 up
         ip link add link parent1 name eth0 netns a-hooks type ipvlan mode l2
         ip link add link parent1 name eth0 netns b-hooks type ipvlan mode l2",
    ),
    (
        "veth",
        "veth",
        "ip link add eth0 netns a-veth type veth peer name eth0 netns b-veth",
    ),
    (
        "bridge",
        "bridge",
        "ip link add br0 type bridge; ip link set br0 up
         ip link add a0 type veth peer name eth0 netns a-bridge
         ip link add b0 type veth peer name eth0 netns b-bridge
         ip link set a0 master br0 up; ip link set b0 master br0 up",
    ),
    (
        NETKIT,
        NETKIT,
        "ip link set nk0 netns a-netkit name eth0; ip link set nk1 netns b-netkit name eth0",
    ),
];

pub fn measure(args: &Args) -> Result<Vec<Table>> {
    sandbox::enter()?;
    let [one, two] = [1, 2].map(|last| Ipv4Addr::new(10, 0, 0, last));
    let netkit = make_netkit()?;
    let mut ways = Vec::new();
    for (what, name, wiring) in WIRINGS {
        if what == NETKIT && !netkit {
            eprintln!("This kernel has no netkit");
            continue;
        }
        sh(&format!(
            "ip netns add a-{name}; ip netns add b-{name}
             {wiring}
             ip -n a-{name} addr add {one}/24 dev eth0; ip -n a-{name} link set eth0 up
             ip -n b-{name} addr add {two}/24 dev eth0; ip -n b-{name} link set eth0 up"
        ))?;
        ways.push((
            what,
            Way::new(&format!("a-{name}"), &format!("b-{name}"), two)?,
        ));
    }
    let nothing = Program::nothing()?;
    let _links = [hook_up(&nothing, "a-hooks")?, hook_up(&nothing, "b-hooks")?];
    sh("ip netns add a-ours; ip netns add b-ours")?;
    for line in [
        "network create --subnet 10.0.0.0/24 ours".to_owned(),
        format!("network connect --ip {one} ours a-ours"),
        format!("network connect --ip {two} ours b-ours"),
    ] {
        sandbox::run_ctl(&args.program, &line)?;
    }
    ways.insert(2, (OURS, Way::new("a-ours", "b-ours", two)?));

    let time = Duration::from_millis(args.time);
    let measured = |sample: fn(&Way, Duration) -> Result<f64>| -> Result<Vec<Row>> {
        let cases = ways.iter().map(|(name, way)| {
            Case::new(*name, (*name != BARE).then_some(BARE), move || {
                sample(way, time)
            })
        });
        in_turn(args.rounds, cases.collect())
    };
    let table = |title: &str, unit: &str, rows| Table {
        title: title.into(),
        unit: unit.into(),
        compare: Compare::Ratio,
        rows,
        targets: vec![],
    };
    let mut rate = table(
        "UDP packets of 64 bytes between two containers, in a VM",
        "1,000/s",
        measured(Way::udp_rate)?,
    );
    rate.targets = vec![Target::at_least(
        "the rate of ipvlan-ctl against that of bare ipvlan",
        rate.against(OURS)?,
        0.97,
    )];
    Ok(vec![
        rate,
        table(
            "One TCP connection between two containers, in a VM",
            "Mbit/s",
            measured(Way::tcp)?,
        ),
        table(
            "A UDP request and its answer between two containers, in a VM",
            "µs",
            measured(Way::latency)?,
        ),
    ])
}

/// Both hooks of `eth0` in a namespace, as long as the links are there.
fn hook_up(program: &Program, namespace: &str) -> Result<[OwnedFd; 2]> {
    let netns = Netns::open(&Path::new("/run/netns").join(namespace))?;
    netns.run(|| {
        let device = if_nametoindex("eth0").context("eth0")?;
        let attach = |hook| program.attach(device, hook).context("a link");
        Ok([attach(Hook::Ingress)?, attach(Hook::Egress)?])
    })?
}

/// A netkit pair, which Debian's `ip` cannot make; there is none before Linux 6.7.
fn make_netkit() -> Result<bool> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let (connection, handle, _) = rtnetlink::new_connection()?;
        tokio::spawn(connection);
        let pair = LinkNetkit::new("nk0", "nk1", NetkitMode::L3).build();
        match handle.link().add(pair).execute().await {
            Ok(()) => Ok(true),
            Err(rtnetlink::Error::NetlinkError(e)) if e.raw_code() == -libc::EOPNOTSUPP => {
                Ok(false)
            }
            Err(e) => Err(e).context("cannot make a netkit pair"),
        }
    })
}
