//! The modes and kinds of network that the page names: VLAN trunks, L3, dual stack, several
//! subnets. Seen from inside the endpoints.

use ipvlan_tests::{Figures, Lab, Namespace, ctl, refused, settles_as, sh, snapshot, succeeds};

fn endpoint(name: &str, network: &str, options: &str) -> Namespace {
    let namespace = Namespace::new(name);
    ctl(&format!("network connect {options} {network} {name}"));
    namespace
}

#[test]
fn l3_endpoints_reach_each_other_across_subnets() {
    let lab = Lab::new();
    for mode in ["l3", "l3s"] {
        ctl(&format!(
            "network create --subnet 10.11.0.0/24 --subnet 10.12.0.0/24 -o parent=eth9 \
             -o ipvlan_mode={mode} routed"
        ));
        let one = endpoint("l3-1", "routed", "--ip 10.11.0.5");
        let two = endpoint("l3-2", "routed", "--ip 10.12.0.5");
        let link = one.sh("ip -details -oneline link show eth0");
        assert!(
            link.contains(&format!("ipvlan  mode {mode} bridge")),
            "{link}"
        );
        assert!(one.sh("ip route").contains("default dev eth0 scope link"));
        assert!(one.pings("10.12.0.5"), "{mode}");
        assert!(two.pings("10.11.0.5"), "{mode}");

        // The wire needs a route: nobody answers ARP in l3.
        sh("sysctl -q net.ipv4.ip_forward");
        lab.wire
            .sh(&format!("ip route replace 10.11.0.0/24 via {}", Lab::HOST));
        let reaches_wire = one.pings(Lab::WIRE);
        assert!(
            reaches_wire,
            "{mode}: with a route on it, the wire is reached"
        );

        assert!(!one.pings(Lab::HOST), "{mode}");
        assert!(
            Figures::of("l3-1").dropped("endpoint-to-host") > 0,
            "{mode}"
        );
        assert!(!succeeds("ping -n -q -c 2 -W 1 10.11.0.5"), "{mode}");

        let kernel = one.counters("eth0");
        assert_eq!(Figures::of("l3-1").counters, kernel, "{mode}");
        for name in ["l3-1", "l3-2"] {
            ctl(&format!("network disconnect routed {name}"));
        }
        ctl("network rm routed");
    }
}

#[test]
fn vlans_of_one_parent_are_separate_networks() {
    let lab = Lab::new();
    let before = snapshot();
    lab.wire
        .sh("ip link add link port0 name v10 type vlan id 10 2>/dev/null || true");
    ctl("network create --subnet 192.168.110.0/24 -o parent=eth9.110 vlan110");
    ctl("network create --subnet 192.168.114.0/24 -o parent=eth9.114 vlan114");
    let link = sh("ip -details -oneline link show eth9.110");
    assert!(link.contains("vlan protocol 802.1Q id 110"), "{link}");
    {
        let a = endpoint("v110-a", "vlan110", "");
        let b = endpoint("v110-b", "vlan110", "");
        let c = endpoint("v114-c", "vlan114", "--ip 192.168.114.50");
        assert!(a.pings("192.168.110.3"));
        assert!(b.pings("192.168.110.2"));
        c.sh("ip route replace 192.168.110.0/24 dev eth0");
        assert!(!c.pings("192.168.110.2"));
        // The other side of the trunk is the same VLAN.
        lab.wire.sh("ip link set port0 nomaster
                     ip link add link port0 name port0.110 type vlan id 110
                     ip addr add 192.168.110.200/24 dev port0.110
                     ip link set port0.110 up");
        assert!(a.pings("192.168.110.200"));
        for (network, name) in [
            ("vlan110", "v110-a"),
            ("vlan110", "v110-b"),
            ("vlan114", "v114-c"),
        ] {
            ctl(&format!("network disconnect {network} {name}"));
        }
    }
    ctl("network rm vlan110");
    ctl("network rm vlan114");
    settles_as(
        &before,
        snapshot,
        "sub-interfaces that we made go with their networks",
    );
}

#[test]
fn a_vlan_link_of_the_hosts_own_stays() {
    let _lab = Lab::new();
    sh("ip link add link eth9 name eth9.20 type vlan id 20; ip link set eth9.20 up");
    ctl("network create --subnet 192.168.120.0/24 -o parent=eth9.20 vlan20");
    ctl("network rm vlan20");
    sh("ip link show eth9.20 && ip link del eth9.20");
}

#[test]
fn dual_stack_and_ipv6_only() {
    let lab = Lab::new();
    lab.wire.sh("ip -6 addr add 2001:db8:1::3/64 dev sw0 nodad");
    sh("ip -6 addr add 2001:db8:1::2/64 dev eth9 nodad");
    ctl(
        "network create --ipv6 --subnet 192.168.1.0/24 --subnet 2001:db8:1::/64 \
         --gateway 2001:db8:1::1 -o parent=eth9 dual",
    );
    let one = endpoint("d1", "dual", "--ip 192.168.1.10 --ip6 2001:db8:1::10");
    let two = endpoint("d2", "dual", "--ip6 2001:db8:1::11");
    assert!(
        one.sh("ip -6 addr show dev eth0")
            .contains("2001:db8:1::10/64")
    );
    assert!(
        one.sh("ip -6 route")
            .contains("default via 2001:db8:1::1 dev eth0")
    );
    assert!(
        one.sh("ip route")
            .contains("default via 192.168.1.1 dev eth0")
    );
    assert!(one.pings("2001:db8:1::11"));
    assert!(two.pings("2001:db8:1::10"));
    assert!(one.pings("2001:db8:1::3"), "the wire by IPv6");
    assert!(lab.wire.pings("2001:db8:1::10"));
    assert!(!one.pings("2001:db8:1::2"), "the host by IPv6");
    assert!(Figures::of("d1").dropped("endpoint-to-host") > 0);

    // A second address of its own making is another's identity in IPv6 too.
    two.sh("ip -6 addr add 2001:db8:1::66/64 dev eth0 nodad");
    assert!(!two.succeeds("ping -n -q -c 2 -W 1 -I 2001:db8:1::66 2001:db8:1::3"));
    let figures = Figures::of("d2");
    assert!(figures.dropped("spoofed-source") + figures.dropped("spoofed-neighbour") > 0);
    for name in ["d1", "d2"] {
        ctl(&format!("network disconnect dual {name}"));
    }
    ctl("network rm dual");

    ctl("network create --ipv4=false --ipv6 --subnet 2001:db8:2::/64 six");
    let six = endpoint("s1", "six", "");
    assert_eq!(six.sh("ip -4 addr show dev eth0"), "");
    assert!(six.sh("ip -6 addr show dev eth0").contains("2001:db8:2::"));
}

#[test]
fn flags_reach_the_kernel() {
    let _lab = Lab::new();
    for flag in ["bridge", "private", "vepa"] {
        ctl(&format!(
            "network create --subnet 10.5.0.0/24 -o ipvlan_flag={flag} flagged"
        ));
        let one = endpoint("f1", "flagged", "");
        let two = endpoint("f2", "flagged", "--ip 10.5.0.9");
        let link = one.sh("ip -details -oneline link show eth0");
        assert!(link.contains(&format!("mode l2 {flag}")), "{link}");
        assert_eq!(one.pings("10.5.0.9"), flag == "bridge", "{flag}");
        for name in ["f1", "f2"] {
            ctl(&format!("network disconnect flagged {name}"));
        }
        ctl("network rm flagged");
        drop((one, two));
    }
}

#[test]
fn networks_that_share_a_parent_are_strangers() {
    let _lab = Lab::new();
    ctl(
        "network create --subnet 10.6.0.0/24 -o parent=eth9 -o shared_parent=true -o ipvlan_mode=l3 a",
    );
    refused(
        "network create --subnet 10.7.0.0/24 -o parent=eth9 -o ipvlan_mode=l3 b",
        &["eth9", "shared_parent"],
    );
    ctl(
        "network create --subnet 10.7.0.0/24 -o parent=eth9 -o shared_parent=true -o ipvlan_mode=l3 b",
    );
    let one = endpoint("sh1", "a", "--ip 10.6.0.5");
    let two = endpoint("sh2", "b", "--ip 10.7.0.5");
    assert!(!one.pings("10.7.0.5"));
    assert!(!two.pings("10.6.0.5"));
    let dropped =
        Figures::of("sh1").dropped("other-network") + Figures::of("sh2").dropped("other-network");
    assert!(dropped > 0);
}
