//! Who reaches whom, and whether the figures are the kernel's.

use ipvlan_tests::{Figures, Lab, Namespace, ctl, figures_equal_the_kernels, sh, succeeds};

struct Pair {
    lab: Lab,
    one: Namespace,
    two: Namespace,
}

/// The page's `db_net` with `ipv1` (.10) and `ipv2` (.11).
fn pair() -> Pair {
    let lab = Lab::new();
    let one = Namespace::new("ipv1");
    let two = Namespace::new("ipv2");
    ctl("network create --subnet 192.168.1.0/24 --gateway 192.168.1.1 -o parent=eth9 db_net");
    ctl("network connect --ip 192.168.1.10 db_net ipv1");
    ctl("network connect --ip 192.168.1.11 db_net ipv2");
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

#[test]
fn figures_are_the_kernels_for_tcp() {
    let Pair {
        lab: _lab,
        one,
        two,
    } = pair();
    let iperf = || {
        sh(
            "ip netns exec ipv2 iperf3 --server --one-off --daemon --pidfile /tmp/iperf3.pid
            sleep 0.5",
        );
        one.sh("iperf3 --client 192.168.1.11 --time 3 --json > /dev/null");
    };
    iperf();
    let sent = figures_equal_the_kernels("ipv1", &one);
    figures_equal_the_kernels("ipv2", &two);
    assert!(sent.tx_bytes > 1_000_000, "{sent:?}");
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
