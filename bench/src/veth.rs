//! Our programs against nftables rules for the same, and against nothing, over the same devices:
//! a veth pair between two namespaces, whose ends have the indices of endpoints.

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use aya::programs::{SchedClassifier, TcAttachType};
use ipvlan_ctl::datapath::{Datapath, EndpointPolicy, NetworkPolicy};
use ipvlan_ctl::kernel::Netns;

use crate::exchange::Way;
use crate::sandbox::{self, output, sh};
use crate::table::{Case, Compare, Table, Target, in_turn};

#[derive(clap::Args)]
pub struct Args {
    /// Samples of each case
    #[arg(long, default_value_t = 15)]
    rounds: usize,
    /// Packets per sample
    #[arg(long, default_value_t = 50_000)]
    packets: u32,
}

const ADDRESSES: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2)];
const HOST: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 254);
const NAMES: [&str; 2] = ["one", "two"];
const DEVICE: &str = "eth0";

const NOTHING: &str = "nothing";
const OURS: &str = "ipvlan-ctl";
const NFTABLES: &str = "nftables";

pub fn measure(args: &Args) -> Result<Vec<Table>> {
    sandbox::enter()?;
    let host = Host::new()?;
    let way = Way::new(NAMES[0], NAMES[1], ADDRESSES[1])?;
    host.check(&way)?;
    let case = |what: &str, guard: fn(&Host) -> Result<()>, unguard: fn(&Host) -> Result<()>| {
        let (host, way) = (&host, &way);
        Case::new(what, (what != NOTHING).then_some(NOTHING), move || {
            guard(host)?;
            let cost = way.udp_cost(args.packets);
            unguard(host)?;
            cost
        })
    };
    let rows = in_turn(
        args.rounds,
        vec![
            case(NOTHING, |_| Ok(()), |_| Ok(())),
            case(OURS, Host::attach, Host::detach),
            case(NFTABLES, Host::add_rules, Host::remove_rules),
        ],
    )?;
    let mut table = Table {
        title: "A UDP packet of 64 bytes from a socket to another over veth, counted and guarded"
            .into(),
        unit: "ns/packet".into(),
        compare: Compare::Difference,
        rows,
        targets: vec![],
    };
    table.targets = vec![Target::at_most(
        "what ipvlan-ctl adds, against what nftables adds",
        table.against(OURS)? / table.against(NFTABLES)?,
        0.5,
    )];
    Ok(vec![table])
}

struct Host {
    datapath: Datapath,
    network: NetworkPolicy,
    netns: [Netns; 2],
}

impl Host {
    fn new() -> Result<Self> {
        let [first, second] = [0, 1].map(|slot| Datapath::FIRST_IFINDEX + slot);
        let [one, two] = ADDRESSES;
        sh(&format!(
            "ip netns add one; ip netns add two
             ip link add {DEVICE} index {first} netns one type veth \
                peer name {DEVICE} index {second} netns two
             ip -n one addr add {one}/24 dev {DEVICE}; ip -n one link set {DEVICE} up
             ip -n two addr add {two}/24 dev {DEVICE}; ip -n two link set {DEVICE} up"
        ))?;
        let datapath = Datapath::open(Path::new("/sys/fs/bpf/veth"))?;
        let network = NetworkPolicy {
            number: 1,
            subnets: vec!["10.0.0.0/24".parse()?],
            internal: false,
            host_access: false,
            shared: false,
            vepa: false,
            l3s: false,
            routed: false,
            unstamped: false,
        };
        datapath.put_network(&network)?;
        datapath.set_host_addresses(&[IpAddr::V4(HOST)])?;
        let open = |name: &str| Netns::open(&Path::new("/run/netns").join(name));
        Ok(Self {
            datapath,
            network,
            netns: [open(NAMES[0])?, open(NAMES[1])?],
        })
    }

    fn endpoint(slot: usize) -> EndpointPolicy {
        EndpointPolicy {
            slot: slot as u32,
            parent_index: 1,
            v4: Some(ADDRESSES[slot]),
            v6: None,
            link_local: None,
            dhcp: false,
        }
    }

    fn attach(&self) -> Result<()> {
        for (slot, netns) in self.netns.iter().enumerate() {
            self.datapath
                .put_endpoint(&self.network, &Self::endpoint(slot))?;
            self.datapath.attach_endpoint(slot as u32, netns, DEVICE)?;
        }
        Ok(())
    }

    fn detach(&self) -> Result<()> {
        for (slot, netns) in self.netns.iter().enumerate() {
            self.datapath.remove_endpoint(&Self::endpoint(slot))?;
            // The kernel lets go of a link in the background; until then, nothing passes.
            while netns.run(|| carries_programs(DEVICE))?? {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        Ok(())
    }

    fn add_rules(&self) -> Result<()> {
        for (name, own) in NAMES.into_iter().zip(ADDRESSES) {
            sh(&format!(
                "ip netns exec {name} nft -f - <<'END'\n{}END",
                rules(own)
            ))?;
        }
        Ok(())
    }

    fn remove_rules(&self) -> Result<()> {
        NAMES
            .into_iter()
            .try_for_each(|name| sh(&format!("ip netns exec {name} nft flush ruleset")))
    }

    /// Does either guard see each packet, and let it pass?
    fn check(&self, way: &Way) -> Result<()> {
        const PACKETS: u32 = 1000;
        self.attach()?;
        way.udp_cost(PACKETS)?;
        for figures in self.datapath.figures(&[0, 1])? {
            let counted = figures.families.ipv4.rx.packets + figures.families.ipv4.tx.packets;
            ensure!(
                counted == u64::from(PACKETS) + 1,
                "counted {counted} packets"
            );
        }
        self.detach()?;
        self.add_rules()?;
        way.udp_cost(PACKETS)?;
        for (name, counter) in NAMES.into_iter().zip(["tx_ip", "rx_ip"]) {
            let command = format!("ip netns exec {name} nft list counter netdev guard {counter}");
            let counted = output(&command)?;
            ensure!(
                counted.contains(&format!("packets {} ", PACKETS + 1)),
                "{counted}"
            );
        }
        self.remove_rules().context("the rules go")
    }
}

/// What a user would write on the device of an endpoint for the same: it speaks as itself only and
/// not to the host, hears what is to it only and not from the host, and each family is counted.
fn rules(own: Ipv4Addr) -> String {
    format!(
        "table netdev guard {{
            counter tx_ip {{}} ; counter tx_ip6 {{}} ; counter tx_arp {{}} ; counter tx_other {{}}
            counter rx_ip {{}} ; counter rx_ip6 {{}} ; counter rx_arp {{}} ; counter rx_other {{}}
            counter spoofed {{}} ; counter to_host {{}} ; counter from_host {{}}
            counter misaddressed {{}} ; counter unknown {{}}
            set host4 {{ type ipv4_addr; elements = {{ {HOST} }} }}
            set host6 {{ type ipv6_addr; }}
            set own6 {{ type ipv6_addr; }}
            chain egress {{
                type filter hook egress device \"{DEVICE}\" priority 0; policy accept;
                meta protocol vmap {{ ip : jump send4, ip6 : jump send6, arp : jump send_arp }}
                meta protocol != {{ ip, ip6, arp }} counter name unknown drop
            }}
            chain send4 {{
                ip saddr != {own} counter name spoofed drop
                ip daddr @host4 counter name to_host drop
                counter name tx_ip
            }}
            chain send6 {{
                icmpv6 type {{ nd-router-advert, nd-redirect }} counter name spoofed drop
                ip6 saddr != @own6 counter name spoofed drop
                ip6 daddr @host6 counter name to_host drop
                counter name tx_ip6
            }}
            chain send_arp {{
                arp saddr ip != {own} counter name spoofed drop
                arp daddr ip @host4 counter name to_host drop
                counter name tx_arp
            }}
            chain ingress {{
                type filter hook ingress device \"{DEVICE}\" priority 0; policy accept;
                meta protocol vmap {{ ip : jump take4, ip6 : jump take6, arp : jump take_arp }}
                meta protocol != {{ ip, ip6, arp }} counter name unknown drop
            }}
            chain take4 {{
                counter name rx_ip
                ip saddr @host4 counter name from_host drop
                ip daddr != {own} meta pkttype host counter name misaddressed drop
            }}
            chain take6 {{
                counter name rx_ip6
                ip6 saddr @host6 counter name from_host drop
                ip6 daddr != @own6 meta pkttype host counter name misaddressed drop
            }}
            chain take_arp {{
                counter name rx_arp
                arp saddr ip @host4 counter name from_host drop
            }}
        }}\n"
    )
}

/// Of the calling thread's namespace.
fn carries_programs(device: &str) -> Result<bool> {
    for hook in [TcAttachType::Ingress, TcAttachType::Egress] {
        let (_, programs) = SchedClassifier::query_tcx(device, hook)?;
        if !programs.is_empty() {
            return Ok(true);
        }
    }
    Ok(false)
}
