//! What a packet costs in each program, and with how many endpoints.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use aya::maps::{Array, Map, MapData};
use ipvlan_common::{Stamp, StampKey};
use ipvlan_ctl::datapath::{Datapath, EndpointPolicy, NetworkPolicy};

use crate::bpf::{DROP, NEXT, Program};
use crate::frame;
use crate::sandbox::{self, sh};
use crate::table::{Case, Compare, Row, Table, Target, in_turn};

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
const STAMPED_NOTHING: &str = "a stamp, then a program that does nothing";

pub fn measure(args: &Args) -> Result<Vec<Table>> {
    sandbox::enter()?;
    devices(ENDPOINTS[ENDPOINTS.len() - 1])?;
    let mut each = Table {
        title: "Cost of each program".into(),
        unit: "ns/packet".into(),
        compare: Compare::Difference,
        rows: each_program(args)?,
        targets: vec![],
    };
    each.targets = each
        .rows
        .iter()
        .filter(|row| row.what.starts_with("endpoint_"))
        .map(|row| {
            Ok(Target::at_most(
                row.what.clone(),
                each.against(&row.what)?,
                40.0,
            ))
        })
        .collect::<Result<_>>()?;
    let mut many = Table {
        title: "Cost of endpoint_egress by number of endpoints, all used in turn".into(),
        unit: "ns/packet".into(),
        compare: Compare::Ratio,
        rows: many_endpoints(args)?,
        targets: vec![],
    };
    let most = name(ENDPOINTS[ENDPOINTS.len() - 1]);
    let against_one = many.against(&most)?;
    many.targets.push(Target::at_most(
        format!("{most} against one"),
        against_one,
        1.1,
    ));
    Ok(vec![each, many])
}

fn each_program(args: &Args) -> Result<Vec<Row>> {
    let host = Host::new("programs", 3)?;
    let [one, two] = [0, 1].map(address_v4);
    let [one_v6, two_v6] = [0, 1].map(address_v6);
    let [wire, other] = [1, 2].map(|last| Ipv4Addr::new(10, 255, 0, last));
    let udp = &frame::udp_v4(one, two);
    let udp_v6 = &frame::udp_v6(one_v6, two_v6);
    let arp = &frame::arp(one, two);
    let spoofed = &frame::udp_v4(address_v4(7), two);
    let from_wire = &frame::udp_v4(wire, two);
    let passing = &frame::udp_v4(wire, other);
    let to_wire = &frame::udp_v4(one, wire);
    let routed = &frame::udp_v4(address_v4(ROUTED), wire);
    let to_host = &frame::udp_v4(address_v4(ROUTED), HOST);
    // A run has neither a user's socket nor a route, so the host's own is unicast ARP.
    let probe = &frame::arp_probe(wire, other);

    let nothing = Program::nothing()?;
    let egress = host.program("endpoint_egress")?;
    let ingress = host.program("endpoint_ingress")?;
    let parent_ingress = host.program("parent_ingress")?;
    let parent_egress = host.program("parent_egress")?;
    let loopback = host.program("loopback_egress")?;
    let key = host.stamp_key()?;
    let stamped = |program, stamp| Program::stamped(program, key.encode(stamp));
    let sender = Stamp::Endpoint(0);
    let stamped_nothing = stamped(&nothing, sender)?;
    let received = stamped(&ingress, sender)?;
    let received_from_wire = stamped(&ingress, Stamp::Wire)?;
    let sent = stamped(&parent_egress, sender)?;
    let sent_routed = stamped(&parent_egress, Stamp::Routed(ROUTED))?;
    let let_in = stamped(&loopback, Stamp::Routed(ROUTED))?;

    let [first, second] = [0, 1].map(|slot| Datapath::FIRST_IFINDEX + slot);
    let case = |what: &str, baseline: Option<&str>, program, frame, device, verdict| {
        Case::new(what, baseline, move || {
            Ok(run(program, frame, device, verdict, args.packets)?.into())
        })
    };
    let plain = |what: &str, program, frame, device, verdict| {
        case(what, Some(NOTHING), program, frame, device, verdict)
    };
    let after_stamp = |what: &str, program, frame, device, verdict| {
        case(what, Some(STAMPED_NOTHING), program, frame, device, verdict)
    };
    in_turn(
        args.rounds,
        vec![
            case(NOTHING, None, &nothing, udp, first, NEXT),
            plain("endpoint_egress, UDP over IPv4", &egress, udp, first, NEXT),
            plain(
                "endpoint_egress, UDP over IPv6",
                &egress,
                udp_v6,
                first,
                NEXT,
            ),
            plain("endpoint_egress, ARP", &egress, arp, first, NEXT),
            plain(
                "endpoint_egress, a spoofed source dropped",
                &egress,
                spoofed,
                first,
                DROP,
            ),
            plain(
                "parent_ingress, for an endpoint",
                &parent_ingress,
                from_wire,
                PARENT_INDEX,
                NEXT,
            ),
            plain(
                "parent_ingress, for somebody else",
                &parent_ingress,
                passing,
                PARENT_INDEX,
                NEXT,
            ),
            plain(
                "parent_egress, the host's own",
                &parent_egress,
                probe,
                PARENT_INDEX,
                NEXT,
            ),
            plain(
                "loopback_egress, a foreign packet dropped",
                &loopback,
                udp,
                Datapath::LOOPBACK,
                DROP,
            ),
            case(STAMPED_NOTHING, None, &stamped_nothing, udp, second, NEXT),
            after_stamp(
                "endpoint_ingress, UDP over IPv4",
                &received,
                udp,
                second,
                NEXT,
            ),
            after_stamp(
                "endpoint_ingress, UDP over IPv6",
                &received,
                udp_v6,
                second,
                NEXT,
            ),
            after_stamp("endpoint_ingress, ARP", &received, arp, second, NEXT),
            after_stamp(
                "endpoint_ingress, from the wire",
                &received_from_wire,
                from_wire,
                second,
                NEXT,
            ),
            after_stamp(
                "endpoint_ingress, a spoofed source dropped",
                &received,
                spoofed,
                second,
                DROP,
            ),
            after_stamp(
                "parent_egress, an endpoint's",
                &sent,
                to_wire,
                PARENT_INDEX,
                NEXT,
            ),
            after_stamp(
                "parent_egress, an endpoint's in mode l3",
                &sent_routed,
                routed,
                PARENT_INDEX,
                NEXT,
            ),
            after_stamp(
                "loopback_egress, an endpoint's with host access",
                &let_in,
                to_host,
                Datapath::LOOPBACK,
                NEXT,
            ),
        ],
    )
}

fn many_endpoints(args: &Args) -> Result<Vec<Row>> {
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

fn name(endpoints: u32) -> String {
    match endpoints {
        1 => "1 endpoint".into(),
        _ => format!("{endpoints} endpoints"),
    }
}

/// Time of one run; the program must judge the frame as expected.
fn run(program: &Program, frame: &[u8], device: u32, verdict: i32, repeat: u32) -> Result<u32> {
    let (got, time) = program.run(frame, device, repeat.max(1))?;
    ensure!(got == verdict, "the verdict is {got} instead of {verdict}");
    Ok(time)
}

/// An address of the host's.
const HOST: Ipv4Addr = Ipv4Addr::new(10, 254, 0, 1);

/// Slot of an endpoint of a network in mode l3 with host access.
const ROUTED: u32 = Datapath::MAX_ENDPOINTS - 1;

/// A datapath with a network of some endpoints, and [`ROUTED`], on one parent.
struct Host {
    datapath: Datapath,
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
            unstamped: false,
        };
        let routed = NetworkPolicy {
            number: 2,
            host_access: true,
            routed: true,
            unstamped: false,
            ..network.clone()
        };
        datapath.set_host_addresses(&[IpAddr::V4(HOST)])?;
        for network in [&network, &routed] {
            datapath.put_network(network)?;
        }
        let slots = (0..endpoints).map(|slot| (&network, slot));
        for (network, slot) in slots.chain([(&routed, ROUTED)]) {
            datapath.put_endpoint(
                network,
                &EndpointPolicy {
                    slot,
                    parent_index: PARENT_INDEX,
                    v4: Some(address_v4(slot)),
                    v6: Some(address_v6(slot)),
                    link_local: None,
                    dhcp: false,
                },
            )?;
        }
        Ok(Self { datapath })
    }

    fn program(&self, name: &'static str) -> Result<Program> {
        Program::pinned(&self.datapath.program_folder()?.join(name)).context(name)
    }

    /// The words that tell this host's stamps from others'.
    fn stamp_key(&self) -> Result<StampKey> {
        let pin = self.datapath.program_folder()?.with_file_name("KEY");
        let keys: Array<MapData, [u32; 2]> =
            Map::from_map_data(MapData::from_pin(pin)?)?.try_into()?;
        Ok(StampKey::from_words(keys.get(&0, 0)?))
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
