//! What the kernel alone lets through, and what our programs change. Each test runs the same
//! traffic twice: with the programs attached, then with all of them taken off.

use ipvlan_tests::{Figures, Lab, Namespace, ctl, detach_all_programs, sh, succeeds};

fn db_net(options: &str) -> (Lab, Namespace) {
    let lab = Lab::new();
    let one = Namespace::new("ipv1");
    ctl(&format!(
        "network create --subnet 192.168.1.0/24 -o parent=eth9 {options} db_net"
    ));
    ctl("network connect --ip 192.168.1.10 db_net ipv1");
    (lab, one)
}

fn flush_neighbours(namespace: &Namespace) {
    sh("ip neigh flush all");
    namespace.sh("ip neigh flush all");
}

#[test]
fn a_hairpin_switch_does_not_join_host_and_endpoint() {
    let (lab, one) = db_net("");
    lab.set_hairpin(true);
    let host_pings = || succeeds("ping -n -q -c 3 -i 0.2 -W 1 192.168.1.10");

    assert!(!host_pings());
    assert!(!one.pings(Lab::HOST));
    assert!(one.pings(Lab::WIRE), "the wire itself stays reachable");
    let figures = Figures::of("ipv1");
    assert!(figures.dropped("host-to-endpoint") > 0, "{figures:?}");
    assert!(figures.dropped("endpoint-to-host") > 0, "{figures:?}");

    detach_all_programs(&[&one]);
    flush_neighbours(&one);
    assert!(
        host_pings(),
        "the kernel alone lets a hairpin switch join them"
    );
    assert!(one.pings(Lab::HOST));
}

#[test]
fn a_network_card_and_its_vlans_are_guarded_as_any_parent() {
    let lab = Lab::of_cards();
    lab.set_hairpin(true);
    lab.wire
        .sh("ip link add link sw0 name sw0.110 type vlan id 110
                 ip addr add 192.168.110.3/24 dev sw0.110
                 ip link set sw0.110 up");
    let endpoints = [
        ("ipv1", "eth9", "192.168.1"),
        ("v110", "eth9.110", "192.168.110"),
    ]
    .map(|(name, parent, subnet)| {
        let namespace = Namespace::new(name);
        ctl(&format!(
            "network create --subnet {subnet}.0/24 -o parent={parent} of-{name}"
        ));
        sh(&format!("ip addr replace {subnet}.2/24 dev {parent}"));
        ctl(&format!(
            "network connect --ip {subnet}.10 of-{name} {name}"
        ));
        (namespace, subnet)
    });
    let host_pings = |subnet| succeeds(&format!("ping -n -q -c 3 -i 0.2 -W 1 {subnet}.10"));
    for (namespace, subnet) in &endpoints {
        assert!(namespace.pings(&format!("{subnet}.3")), "the wire");
        assert!(!namespace.pings(&format!("{subnet}.2")), "the host");
        assert!(!host_pings(subnet));
        let figures = Figures::of(&namespace.name);
        assert!(figures.dropped("host-to-endpoint") > 0, "{figures:?}");
        assert!(figures.dropped("endpoint-to-host") > 0, "{figures:?}");
    }

    detach_all_programs(&[&endpoints[0].0, &endpoints[1].0]);
    for (namespace, subnet) in &endpoints {
        flush_neighbours(namespace);
        assert!(host_pings(subnet), "the kernel alone lets it");
        assert!(namespace.pings(&format!("{subnet}.2")));
    }
}

#[test]
fn the_shared_mac_is_no_way_to_the_host() {
    let (_lab, one) = db_net("");
    // Every slave has its parent's MAC: a frame to it that no slave takes goes up the host's
    // own stack. (The echo's answer does not come back, so the host's counter tells.)
    let mac = sh("cat /sys/class/net/eth9/address");
    let received = || -> u64 {
        let snmp = sh("grep ^Icmp: /proc/net/snmp | tail -1");
        snmp.split_whitespace().nth(1).unwrap().parse().unwrap()
    };
    let ping = || {
        one.sh(&format!(
            "ip neigh replace 192.168.1.2 lladdr {} dev eth0",
            mac.trim()
        ));
        let before = received();
        assert!(!one.pings(Lab::HOST));
        received() - before
    };
    assert_eq!(ping(), 0);
    assert!(Figures::of("ipv1").dropped("endpoint-to-host") > 0);

    detach_all_programs(&[&one]);
    assert!(ping() > 0, "the kernel alone takes it up the host's stack");
}

#[test]
fn an_endpoint_cannot_speak_as_another() {
    let (lab, one) = db_net("");
    one.sh("ip addr add 192.168.1.66/24 dev eth0");
    let as_another = || one.succeeds("ping -n -q -c 3 -i 0.2 -W 1 -I 192.168.1.66 192.168.1.3");

    assert!(!as_another());
    // The packets still queued for the wire's MAC ask for it in the other's name.
    flush_neighbours(&one);
    assert!(one.pings(Lab::WIRE), "its own address still works");
    let figures = Figures::of("ipv1");
    let spoofed = figures.dropped("spoofed-source") + figures.dropped("spoofed-neighbour");
    assert!(spoofed > 0, "{figures:?}");

    detach_all_programs(&[&one]);
    flush_neighbours(&one);
    lab.wire.sh("ip neigh flush all");
    assert!(as_another(), "the kernel alone lets it");
}

#[test]
fn an_internal_network_on_a_real_parent_holds_in() {
    let (lab, one) = db_net("--internal");
    lab.wire.sh("ip addr add 10.9.0.1/24 dev sw0");
    one.sh("ip route add 10.9.0.0/24 dev eth0");
    assert_eq!(one.sh("ip route show default"), "");

    assert!(!one.pings("10.9.0.1"));
    assert!(Figures::of("ipv1").dropped("outside-internal") > 0);
    assert!(
        one.pings(Lab::WIRE),
        "the wire's own part of the subnet is inside"
    );
    // And in the other direction: a packet from outside the subnet is not heard.
    lab.wire
        .sh("ip route add 192.168.1.10/32 dev sw0 src 10.9.0.1 || true");
    assert!(
        !lab.wire
            .succeeds("ping -n -q -c 2 -W 1 -I 10.9.0.1 192.168.1.10")
    );

    detach_all_programs(&[&one]);
    flush_neighbours(&one);
    assert!(one.pings("10.9.0.1"), "the kernel alone lets it out");
}

#[test]
fn a_second_slave_of_the_containers_own_reaches_nobody() {
    let (lab, one) = db_net("");
    let two = Namespace::new("ipv2");
    ctl("network connect --ip 192.168.1.11 db_net ipv2");
    // A container with CAP_NET_ADMIN can put another slave on its own: it lands on the parent
    // without any program of ours.
    one.sh("ip link add link eth0 name eth1 type ipvlan mode l2
            ip addr add 192.168.1.99/24 dev eth1
            ip link set eth1 up");
    let from_second = |to: &str| one.succeeds(&format!("ping -n -q -c 3 -i 0.2 -W 1 -I eth1 {to}"));
    assert!(
        !from_second("192.168.1.11"),
        "the other endpoint takes no unstamped packet"
    );
    assert!(Figures::of("ipv2").dropped("unattached") > 0);

    detach_all_programs(&[&one, &two]);
    flush_neighbours(&two);
    assert!(
        from_second("192.168.1.11"),
        "the kernel alone delivers them"
    );
    drop(lab);
}

#[test]
fn host_access_is_a_choice() {
    let (lab, one) = db_net("-o host_access=true");
    lab.set_hairpin(true);
    assert!(one.pings(Lab::HOST), "asked for, and the switch reflects");
    assert!(succeeds("ping -n -q -c 3 -i 0.2 -W 1 192.168.1.10"));
}
