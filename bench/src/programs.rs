//! What a packet costs in each program, and with how many endpoints.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use ipvlan_ctl::datapath::{Datapath, EndpointPolicy, NetworkPolicy};

use crate::bpf::{DROP, NEXT, Program};
use crate::frame;
use crate::sandbox::{self, sh};
use crate::table::{Case, Compare, Row, Table, in_turn};

#[derive(clap::Args)]
pub struct Args {
    /// Samples of each program
    #[arg(long, default_value_t = 15)]
    rounds: usize,
    /// Packets per sample
    #[arg(long, default_value_t = 500_000)]
    packets: u32,
}

const ENDPOINTS: [u32; 4] = [1, 10, 100, 1000];
const PARENT_INDEX: u32 = 90_000;

const NOTHING: &str = "a program that does nothing";

pub fn measure(args: &Args) -> Result<Vec<Table>> {
    sandbox::enter()?;
    devices(ENDPOINTS[ENDPOINTS.len() - 1])?;
    Ok(vec![
        Table {
            title: "Cost of each program".into(),
            unit: "ns/packet".into(),
            compare: Compare::Difference,
            rows: each_program(args)?,
        },
        Table {
            title: "Cost of endpoint_egress by number of endpoints, all used in turn".into(),
            unit: "ns/packet".into(),
            compare: Compare::Ratio,
            rows: many_endpoints(args)?,
        },
    ])
}

fn each_program(args: &Args) -> Result<Vec<Row>> {
    let host = Host::new("programs", 2)?;
    let [one, two] = [0, 1].map(address_v4);
    let udp = frame::udp_v4(one, two);
    let udp_v6 = frame::udp_v6(address_v6(0), address_v6(1));
    let arp = frame::arp(one, two);
    let spoofed = frame::udp_v4(address_v4(7), two);
    let from_wire = frame::udp_v4(Ipv4Addr::new(10, 255, 0, 1), one);
    let passing = frame::udp_v4(Ipv4Addr::new(10, 255, 0, 1), Ipv4Addr::new(10, 255, 0, 2));

    // A run has neither a user's socket nor a route, so the host's own is unicast ARP.
    let probe = frame::arp_probe(Ipv4Addr::new(10, 255, 0, 1), Ipv4Addr::new(10, 255, 0, 2));

    let endpoint = Datapath::FIRST_IFINDEX;
    let nothing = Program::nothing()?;
    let egress = host.program("endpoint_egress")?;
    let parent_ingress = host.program("parent_ingress")?;
    let parent_egress = host.program("parent_egress")?;
    let case = |what: &str, program, frame, device, verdict| {
        let baseline = (what != NOTHING).then_some(NOTHING);
        Case::new(what, baseline, move || {
            Ok(run(program, frame, device, verdict, args.packets)?.into())
        })
    };
    in_turn(
        args.rounds,
        vec![
            case(NOTHING, &nothing, &udp, endpoint, NEXT),
            case(
                "endpoint_egress, UDP over IPv4",
                &egress,
                &udp,
                endpoint,
                NEXT,
            ),
            case(
                "endpoint_egress, UDP over IPv6",
                &egress,
                &udp_v6,
                endpoint,
                NEXT,
            ),
            case("endpoint_egress, ARP", &egress, &arp, endpoint, NEXT),
            case(
                "endpoint_egress, a spoofed source dropped",
                &egress,
                &spoofed,
                endpoint,
                DROP,
            ),
            case(
                "parent_ingress, for an endpoint",
                &parent_ingress,
                &from_wire,
                PARENT_INDEX,
                NEXT,
            ),
            case(
                "parent_ingress, for somebody else",
                &parent_ingress,
                &passing,
                PARENT_INDEX,
                NEXT,
            ),
            case(
                "parent_egress, the host's own",
                &parent_egress,
                &probe,
                PARENT_INDEX,
                NEXT,
            ),
        ],
    )
}

fn many_endpoints(args: &Args) -> Result<Vec<Row>> {
    let name = |endpoints: u32| match endpoints {
        1 => "1 endpoint".to_owned(),
        _ => format!("{endpoints} endpoints"),
    };
    let mut cases = Vec::new();
    for endpoints in ENDPOINTS {
        let host = Host::new(&format!("endpoints-{endpoints}"), endpoints)?;
        let egress = host.program("endpoint_egress")?;
        let frames: Vec<_> = (0..endpoints)
            .map(|slot| frame::udp_v4(address_v4(slot), address_v4(slot + 1)))
            .collect();
        let baseline = name(ENDPOINTS[0]);
        let baseline = (endpoints != ENDPOINTS[0]).then_some(baseline.as_str());
        cases.push(Case::new(name(endpoints), baseline, move || {
            let mut total = 0.0;
            for (slot, frame) in (0..).zip(&frames) {
                let device = Datapath::FIRST_IFINDEX + slot;
                let repeat = args.packets.div_ceil(endpoints);
                total += f64::from(run(&egress, frame, device, NEXT, repeat)?);
            }
            Ok(total / f64::from(endpoints))
        }));
    }
    in_turn(args.rounds, cases)
}

/// Time of one run; the program must judge the frame as expected.
fn run(program: &Program, frame: &[u8], device: u32, verdict: i32, repeat: u32) -> Result<u32> {
    let (got, time) = program.run(frame, device, repeat.max(1))?;
    ensure!(got == verdict, "the verdict is {got} instead of {verdict}");
    Ok(time)
}

/// A datapath with a network of some endpoints on one parent.
struct Host {
    programs: PathBuf,
}

impl Host {
    fn new(name: &str, endpoints: u32) -> Result<Self> {
        let root = Path::new("/sys/fs/bpf").join(name);
        let datapath = Datapath::open(&root)?;
        let network = NetworkPolicy {
            number: 1,
            subnets: vec!["10.0.0.0/8".parse()?, "fd00::/64".parse()?],
            internal: false,
            host_access: false,
            shared: false,
            vepa: false,
            l3s: false,
            routed: false,
        };
        datapath.put_network(&network)?;
        datapath.set_host_addresses(&[IpAddr::V4(Ipv4Addr::new(10, 254, 0, 1))])?;
        for slot in 0..endpoints {
            datapath.put_endpoint(
                &network,
                &EndpointPolicy {
                    slot,
                    parent_index: PARENT_INDEX,
                    v4: Some(address_v4(slot)),
                    v6: Some(address_v6(slot)),
                    link_local: None,
                },
            )?;
        }
        Ok(Self {
            programs: datapath.program_folder()?,
        })
    }

    fn program(&self, name: &'static str) -> Result<Program> {
        Program::pinned(&self.programs.join(name)).context(name)
    }
}

fn address_v4(slot: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(Ipv4Addr::new(10, 0, 0, 0).to_bits() + slot + 1)
}

fn address_v6(slot: u32) -> Ipv6Addr {
    Ipv6Addr::from_bits(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 0).to_bits() + u128::from(slot) + 1)
}

/// A device for each slot, and one for the parent: a run is told its device by ifindex.
fn devices(slots: u32) -> Result<()> {
    let mut batch = format!("link add parent index {PARENT_INDEX} type veth\n");
    for slot in (0..slots).step_by(2) {
        let [one, two] = [slot, slot + 1].map(|slot| Datapath::FIRST_IFINDEX + slot);
        batch += &format!("link add s{one} index {one} type veth peer name s{two} index {two}\n");
    }
    sh(&format!("ip -batch - <<'END'\n{batch}END"))
}
