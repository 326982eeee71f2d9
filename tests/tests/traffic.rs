//! Who reaches whom, and whether the figures are the kernel's.

use std::net::Ipv4Addr;
use std::time::Duration;

use ipvlan_tests::{
    Counters, Figures, Lab, Namespace, Since, ctl, eventually, figures_equal_the_kernels, succeeds,
};
use nix::sys::socket::{setsockopt, sockopt};

/// How long a packet may take.
const PATIENCE: Duration = Duration::from_secs(20);

struct Pair {
    lab: Lab,
    one: Namespace,
    two: Namespace,
}

/// The page's `db_net` with `ipv1` (.10) and `ipv2` (.11).
fn pair() -> Pair {
    pair_in(Lab::new())
}

fn pair_in(lab: Lab) -> Pair {
    connected(
        lab,
        "--subnet 192.168.1.0/24 --gateway 192.168.1.1",
        ["--ip 192.168.1.10", "--ip 192.168.1.11"],
    )
}

/// [`pair`] with IPv6 too.
fn dual_pair() -> Pair {
    connected(
        Lab::new(),
        "--ipv6 --subnet 192.168.1.0/24 --subnet fd00:9::/64",
        [
            "--ip 192.168.1.10 --ip6 fd00:9::10",
            "--ip 192.168.1.11 --ip6 fd00:9::11",
        ],
    )
}

/// `db_net` on the lab's parent, with `ipv1` and `ipv2` on it.
fn connected(lab: Lab, network: &str, [first, second]: [&str; 2]) -> Pair {
    let one = Namespace::new("ipv1");
    let two = Namespace::new("ipv2");
    ctl(&format!("network create {network} -o parent=eth9 db_net"));
    ctl(&format!("network connect {first} db_net ipv1"));
    ctl(&format!("network connect {second} db_net ipv2"));
    Pair { lab, one, two }
}

#[test]
fn endpoints_reach_each_other_and_the_wire_but_not_the_host() {
    let Pair { lab, one, two } = pair();
    assert!(one.pings("192.168.1.11"));
    assert!(two.pings("192.168.1.10"));
    assert!(one.pings(Lab::WIRE));
    assert!(lab.wire.pings("192.168.1.10"));

    assert!(!one.pings(Lab::HOST));
    assert!(Figures::of("ipv1").dropped("endpoint-to-host") > 0);
    assert!(!succeeds("ping -n -q -c 2 -W 1 192.168.1.10"));
    assert!(Figures::of("ipv1").dropped("host-to-endpoint") > 0);
    assert!(
        succeeds("ping -n -q -c 2 -W 1 192.168.1.3"),
        "the host keeps its own network"
    );
}

#[test]
fn figures_are_the_kernels_for_pings_between_endpoints() {
    let Pair {
        lab: _lab,
        one,
        two,
    } = pair();
    one.sh("ping -n -q -f -c 1000 192.168.1.11");
    let sent = figures_equal_the_kernels("ipv1", &one);
    let received = figures_equal_the_kernels("ipv2", &two);
    assert!(
        sent.tx_packets >= 1000 && received.rx_packets >= 1000,
        "{sent:?} {received:?}"
    );
}

#[test]
fn figures_are_the_kernels_for_the_wire() {
    let Pair { lab, one, .. } = pair();
    one.sh("ping -n -q -f -c 500 192.168.1.3");
    lab.wire.sh("ping -n -q -f -c 500 192.168.1.10");
    let counters = figures_equal_the_kernels("ipv1", &one);
    assert!(counters.rx_packets >= 1000, "{counters:?}");
}

/// Sends some megabytes, which are segmented and put together on the way.
fn send_by_tcp(from: &Namespace, to: &Namespace, address: &str) {
    to.sh("iperf3 --server --one-off --daemon --pidfile /tmp/iperf3.pid");
    eventually("iperf3 listens", || {
        to.succeeds("ss -Hltn sport = 5201 | grep -q LISTEN")
    });
    from.sh(&format!(
        "iperf3 --client {address} --bytes 8M --json > /dev/null"
    ));
}

#[test]
fn figures_are_the_kernels_for_tcp_of_both_families() {
    let Pair {
        lab: _lab,
        one,
        two,
    } = dual_pair();
    // What IPv6 says when an interface comes up has been said.
    assert!(one.pings("fd00:9::11"));
    let since = [Since::now("ipv1", &one), Since::now("ipv2", &two)];
    for (address, family) in [("192.168.1.11", "ipv4"), ("fd00:9::11", "ipv6")] {
        send_by_tcp(&one, &two, address);
        for since in &since {
            since.figures_equal_the_kernels();
        }
        let figures = Figures::of("ipv1");
        assert!(figures.families[family].tx_bytes > 1_000_000, "{figures:?}");
    }
    let figures = Figures::of("ipv1");
    let of_families = |what: fn(&Counters) -> u64| figures.families.values().map(what).sum::<u64>();
    assert_eq!(of_families(|c| c.rx_packets), figures.counters.rx_packets);
    assert_eq!(of_families(|c| c.rx_bytes), figures.counters.rx_bytes);
    assert_eq!(of_families(|c| c.tx_packets), figures.counters.tx_packets);
    assert_eq!(of_families(|c| c.tx_bytes), figures.counters.tx_bytes);
    assert!(figures.families["arp"].tx_packets > 0, "{figures:?}");
    assert_eq!(figures.families["other"].rx_packets, 0, "{figures:?}");
}

#[test]
fn figures_are_the_kernels_behind_a_network_card() {
    let Pair { lab, one, .. } = pair_in(Lab::of_cards());
    send_by_tcp(&one, &lab.wire, Lab::WIRE);
    send_by_tcp(&lab.wire, &one, "192.168.1.10");
    let counters = figures_equal_the_kernels("ipv1", &one);
    let least = counters.rx_bytes.min(counters.tx_bytes);
    assert!(least > 1_000_000, "{counters:?}");
}

#[test]
fn figures_are_the_kernels_for_segmented_udp_and_multicast() {
    let Pair { lab, one, two } = pair();
    let sender = one.udp("0.0.0.0:0");
    setsockopt(&sender, sockopt::UdpGsoSegment, &1000).expect("UDP_SEGMENT");
    for (namespace, address) in [(&two, "192.168.1.11:7001"), (&lab.wire, "192.168.1.3:7001")] {
        let receiver = namespace.udp(address);
        receiver.set_read_timeout(Some(PATIENCE)).expect("a time");
        for _ in 0..20 {
            sender.send_to(&[7; 9500], address).expect("ten packets");
            let mut bytes = 0;
            while bytes < 9500 {
                bytes += receiver.recv(&mut [0; 2000]).expect("a packet");
            }
        }
        figures_equal_the_kernels("ipv1", &one);
        figures_equal_the_kernels("ipv2", &two);
    }

    // A group that a neighbour and the wire have joined.
    let group = Ipv4Addr::new(239, 1, 2, 3);
    one.sh("ip route add 239.0.0.0/8 dev eth0");
    let joined = |namespace: &Namespace, address: [u8; 4]| {
        let socket = namespace.udp("0.0.0.0:7002");
        socket
            .join_multicast_v4(&group, &address.into())
            .expect("a group");
        socket.set_read_timeout(Some(PATIENCE)).expect("a time");
        socket
    };
    // The sender too, to whom its own IP layer hands it back.
    let members = [
        joined(&one, [192, 168, 1, 10]),
        joined(&two, [192, 168, 1, 11]),
        joined(&lab.wire, [192, 168, 1, 3]),
    ];
    let sender = one.udp("0.0.0.0:0");
    for i in 0..50 {
        sender.send_to(&[i], (group, 7002)).expect("a packet");
        for member in &members {
            let mut byte = [0];
            member.recv(&mut byte).expect("every member hears it");
            assert_eq!(byte, [i]);
        }
    }
    figures_equal_the_kernels("ipv1", &one);
    let received = figures_equal_the_kernels("ipv2", &two);
    assert!(received.rx_packets >= 70, "{received:?}");
}

#[test]
fn figures_are_the_kernels_whatever_its_device_may_send() {
    let Pair { lab, one, two } = dual_pair();
    lab.wire.sh("ip addr add fd00:9::3/64 dev sw0 nodad");
    let wire = &lab.wire;
    for neighbour in ["192.168.1.11", Lab::WIRE, "fd00:9::11", "fd00:9::3"] {
        assert!(one.pings(neighbour));
    }
    let ways = [
        (&two, "192.168.1.11:7001"),
        (wire, "192.168.1.3:7001"),
        (&two, "[fd00:9::11]:7001"),
        (wire, "[fd00:9::3]:7001"),
    ];
    let ways = ways.map(|(namespace, address)| {
        let receiver = namespace.udp(address);
        receiver.set_read_timeout(Some(PATIENCE)).expect("a time");
        let sender = one.udp("[::]:0");
        setsockopt(&sender, sockopt::UdpGsoSegment, &1000).expect("UDP_SEGMENT");
        sender
            .connect(address.replace("192", "::ffff:192"))
            .expect("a route");
        (sender, receiver)
    });
    let counted = || {
        let since = [Since::now("ipv1", &one), Since::now("ipv2", &two)];
        for (sender, receiver) in &ways {
            for _ in 0..10 {
                sender.send(&[7; 9500]).expect("ten packets");
                let mut bytes = 0;
                while bytes < 9500 {
                    bytes += receiver.recv(&mut [0; 2000]).expect("a packet");
                }
            }
        }
        let [sent, _] = since.map(|since| since.figures_equal_the_kernels());
        sent.tx_packets
    };
    // Each way, in packets of ten segments: as one packet, or in ten.
    let whole = 40..80;
    let cut = 400..440;
    for (change, packets) in [
        ("true", &whole),
        ("ip link set eth0 gso_max_segs 1", &cut),
        ("ip link set eth0 gso_max_segs 9", &cut),
        ("ip link set eth0 gso_max_segs 10", &whole),
        ("ip link set eth0 gso_max_size 9000", &cut),
        ("ip link set eth0 gso_max_size 10000", &whole),
        // Of these, the kernel switches those only that ipvlan does not always have.
        (
            "for what in tx sg tso gso gro rx tx-udp-segmentation tx-gso-list tx-nocache-copy; do
                 ethtool -K eth0 $what off || true
             done",
            &whole,
        ),
    ] {
        one.sh(change);
        let sent = counted();
        assert!(packets.contains(&sent), "{change}: {sent}");
    }
}

#[test]
fn figures_are_the_kernels_in_modes_l3_and_l3s() {
    let lab = Lab::new();
    lab.wire
        .sh(&format!("ip route add 10.11.0.0/24 via {}", Lab::HOST));
    for mode in ["l3", "l3s"] {
        let (one, two) = (Namespace::new("ipv1"), Namespace::new("ipv2"));
        ctl(&format!(
            "network create --subnet 10.11.0.0/24 -o parent=eth9 -o ipvlan_mode={mode} {mode}"
        ));
        ctl(&format!("network connect --ip 10.11.0.5 {mode} ipv1"));
        ctl(&format!("network connect --ip 10.11.0.6 {mode} ipv2"));
        for sender in [&two, &lab.wire] {
            sender.sh("ping -n -q -f -c 200 10.11.0.5");
            sender.sh("ping -n -q -c 20 -i 0.01 -s 4000 10.11.0.5");
            send_by_tcp(sender, &one, "10.11.0.5");
        }
        let counters = figures_equal_the_kernels("ipv1", &one);
        assert!(counters.rx_packets >= 440, "{mode}: {counters:?}");
        // Twice 8 MiB, less what the senders still had when they said that they were done.
        assert!(counters.rx_bytes > 10_000_000, "{mode}: {counters:?}");
        figures_equal_the_kernels("ipv2", &two);
        for name in ["ipv1", "ipv2"] {
            ctl(&format!("network disconnect {mode} {name}"));
        }
        ctl(&format!("network rm {mode}"));
    }
}

#[test]
fn figures_are_the_kernels_for_broadcast_and_fragments() {
    let Pair {
        lab: _lab,
        one,
        two,
    } = pair();
    // Every ARP request is a broadcast that the driver delivers by its work queue.
    one.sh("for i in 20 21 22; do ping -n -q -c 1 -W 1 192.168.1.$i || true; done");
    one.sh("ping -n -q -c 20 -i 0.01 -s 4000 192.168.1.11");
    figures_equal_the_kernels("ipv1", &one);
    let received = figures_equal_the_kernels("ipv2", &two);
    assert!(received.rx_packets >= 60, "{received:?}");
}

#[test]
fn figures_begin_at_zero_for_each_endpoint() {
    let Pair {
        lab: _lab,
        one,
        two: _two,
    } = pair();
    one.sh("ping -n -q -f -c 100 192.168.1.11");
    ctl("network disconnect db_net ipv1");
    ctl("network connect --ip 192.168.1.10 db_net ipv1");
    assert!(Figures::of("ipv1").counters.tx_packets < 10);
    figures_equal_the_kernels("ipv1", &one);
}
