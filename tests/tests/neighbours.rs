//! What a hostile container tries on its neighbours: by IPv6 and its neighbour discovery, on each
//! kind of parent and in each mode, and between networks that share a parent.

use std::net::Ipv6Addr;
use std::time::Duration;

use etherparse::{ArpHardwareId, ArpOperation, ArpPacket, EtherType, PacketBuilder};
use ipvlan_tests::{
    Attack, Ear, Figures, Lab, Namespace, Neighbours, Raw, attack, ctl, datagram,
    detach_all_programs, mac_of, sh, show, text_of, tried,
};

/// Where an address is known to be, and where it is said to be.
const KNOWN: [u8; 6] = [2, 0, 0, 0, 0, 0x55];
const OTHERS: [u8; 6] = [2, 0, 0, 0, 0, 0x77];

const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;
/// Of an advertisement: it is to take the place of what was known (RFC 4861, 4.4).
const OVERRIDE: [u8; 4] = [0x20, 0, 0, 0];

/// A solicitation or an advertisement, with the link-layer address option that it has
/// (RFC 4861, 4.3 and 4.4).
fn discovery(
    macs: [[u8; 6]; 2],
    [source, destination]: [Ipv6Addr; 2],
    (kind, flags): (u8, [u8; 4]),
    target: Ipv6Addr,
    lladdr: [u8; 6],
) -> Vec<u8> {
    let option = if kind == SOLICITATION { 1 } else { 2 };
    let mut body = target.octets().to_vec();
    body.extend([option, 1]);
    body.extend(lladdr);
    let builder = PacketBuilder::ethernet2(macs[0], macs[1])
        .ipv6(source.octets(), destination.octets(), 255)
        .icmpv6_raw(kind, 0, flags);
    let mut frame = Vec::new();
    builder.write(&mut frame, &body).expect("a frame");
    frame
}

/// The group in which an address is asked for (RFC 4291, 2.7.1), and its MAC.
fn solicited(address: Ipv6Addr) -> ([u8; 6], Ipv6Addr) {
    let [.., a, b, c] = address.octets();
    let low = [0xff00 | u16::from(a), u16::from_be_bytes([b, c])];
    let group = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, low[0], low[1]);
    ([0x33, 0x33, 0xff, a, b, c], group)
}

/// A kind of parent, and the subnets of the network on it: 10.6.N.0/24 and fd00:N::/64.
struct Parent {
    kind: &'static str,
    options: &'static str,
    number: u8,
    /// The second host's device on its wire.
    wire: Option<&'static str>,
}

const VETH: Parent = Parent {
    kind: "veth",
    options: "-o parent=eth9",
    number: 1,
    wire: Some("sw0"),
};
const VLAN: Parent = Parent {
    kind: "vlan",
    options: "-o parent=eth9.30",
    number: 2,
    wire: Some("sw0.30"),
};
/// The one that a network gets which is given none.
const DUMMY: Parent = Parent {
    kind: "dummy",
    options: "",
    number: 3,
    wire: None,
};

/// The second host (.3).
struct Wire {
    mac: [u8; 6],
    ear: Ear,
    believer: Neighbours,
}

impl Wire {
    fn new(host: &Namespace, device: &str, address: &str) -> Self {
        host.sh(&format!("ip addr add {address}/64 dev {device} nodad"));
        Self {
            mac: mac_of(Some(host), device),
            ear: Ear::at(address, Some(host)),
            believer: Neighbours::of(host, device),
        }
    }
}

/// A network on a parent, with the attacker (.10) and its neighbour (.11). The attacker has given
/// itself an address (.66) and a second slave, `eth1`; the host has got an address on the parent
/// (.2) after all commands of ours.
struct Site<'a> {
    parent: &'a Parent,
    mode: &'a str,
    one: Namespace,
    two: Namespace,
    own: Ear,
    added: Ear,
    added_v4: Ear,
    neighbour: Ear,
    host: Ear,
    believer: Neighbours,
    wire: Option<Wire>,
    raw: Raw,
    second: Raw,
    mac: [u8; 6],
}

impl<'a> Site<'a> {
    fn new(lab: &Lab, parent: &'a Parent, mode: &'a str) -> Self {
        let (kind, n, options) = (parent.kind, parent.number, parent.options);
        let [one, two] = [1, 2].map(|i| Namespace::new(&format!("{kind}{i}")));
        let id = ctl(&format!(
            "network create --ipv6 --subnet 10.6.{n}.0/24 --subnet fd00:{n}::/64 \
             -o ipvlan_mode={mode} {options} {kind}"
        ));
        for (namespace, last) in [(&one, 10), (&two, 11)] {
            let name = &namespace.name;
            ctl(&format!(
                "network connect --ip 10.6.{n}.{last} --ip6 fd00:{n}::{last} {kind} {name}"
            ));
        }
        let device = match options.split_once("parent=") {
            Some((_, device)) => device.to_owned(),
            None => format!("di-{}", &id[..12]),
        };
        sh(&format!("ip addr add fd00:{n}::2/64 dev {device} nodad"));
        let mac = mac_of(None, &device);
        // Deprecated, so that the address is used only where it is asked for.
        one.sh(&format!(
            "ip addr add 10.6.{n}.66/24 dev eth0
             ip addr add fd00:{n}::66/64 dev eth0 nodad preferred_lft 0
             ip link add link eth0 name eth1 type ipvlan mode {mode}
             ip link set eth1 up
             ip neigh replace fd00:{n}::2 lladdr {} dev eth0",
            text_of(mac)
        ));
        let at = |last, namespace| Ear::at(&format!("fd00:{n}::{last}"), namespace);
        Self {
            parent,
            mode,
            own: at(10, Some(&one)),
            added: at(66, Some(&one)),
            added_v4: Ear::at(&format!("10.6.{n}.66"), Some(&one)),
            neighbour: Ear::at("::", Some(&two)),
            host: at(2, None),
            believer: Neighbours::of(&two, "eth0"),
            wire: parent
                .wire
                .map(|device| Wire::new(&lab.wire, device, &format!("fd00:{n}::3"))),
            raw: Raw::on(&one, "eth0"),
            second: Raw::on(&one, "eth1"),
            mac,
            one,
            two,
        }
    }

    /// The address of its IPv6 subnet that ends so.
    fn v6(&self, last: u16) -> Ipv6Addr {
        let text = format!("fd00:{}::{last}", self.parent.number);
        text.parse().expect("an IPv6 address")
    }

    fn attacks(&'a self) -> Vec<Attack<'a>> {
        let mut attacks = vec![
            self.says("an address that it added", &self.added, 11, &self.neighbour),
            self.says("to the host", &self.own, 2, &self.host),
            self.attack("an IPv4 address that it added", |within| {
                let to = format!("10.6.{}.11", self.parent.number);
                let speak = || self.added_v4.say("ipv4", &to);
                self.neighbour.hears("ipv4", within, speak).is_some()
            }),
            self.attack("a second slave, to a neighbour", |within| {
                let frame = self.below(11);
                let speak = || self.second.send(&frame);
                self.neighbour.hears("below", within, speak).is_some()
            }),
        ];
        // In the other modes an interface has no neighbours, and takes no discovery.
        if self.mode == "l2" {
            attacks.extend(self.discovery());
            attacks.push(self.attack("a second slave, to the host", |within| {
                let frame = self.below(2);
                let speak = || self.second.send(&frame);
                self.host.hears("below", within, speak).is_some()
            }));
        }
        if let Some(wire) = &self.wire {
            let claim = self.advertisement([self.mac, wire.mac], 10, 3);
            attacks.extend([
                self.says(
                    "an address that it added, to the wire",
                    &self.added,
                    3,
                    &wire.ear,
                ),
                // By the host's routing in modes l3 and l3s, which do not ask whether it may be
                // routed.
                self.forges("a claim, to the wire", (&self.raw, claim), &wire.believer),
            ]);
        }
        attacks
    }

    fn attack(&'a self, name: &str, works: impl Fn(Duration) -> bool + 'a) -> Attack<'a> {
        attack(format!("{} {}: {name}", self.mode, self.parent.kind), works)
    }

    /// Whole datagrams and fragments, since the parent of a fragment's later half sees no ports.
    fn says(&'a self, name: &str, mouth: &'a Ear, to: u16, ear: &'a Ear) -> Attack<'a> {
        let to = self.v6(to).to_string();
        let word = format!("{name}{}", "-".repeat(1700));
        self.attack(name, move |within| {
            ear.hears(&word, within, || mouth.say(&word, &to)).is_some()
        })
    }

    /// A frame by the second slave, from an address that nobody has.
    fn below(&self, to: u16) -> Vec<u8> {
        datagram([self.mac; 2], self.v6(99), self.v6(to), "below")
    }

    /// That another's address (.77) is at another's MAC, from and to an address.
    fn advertisement(&self, macs: [[u8; 6]; 2], from: u16, to: u16) -> Vec<u8> {
        let addresses = [self.v6(from), self.v6(to)];
        let kind = (ADVERTISEMENT, OVERRIDE);
        discovery(macs, addresses, kind, self.v6(77), OTHERS)
    }

    fn discovery(&'a self) -> Vec<Attack<'a>> {
        let (group_mac, group) = solicited(self.v6(11));
        let solicitation = discovery(
            [self.mac, group_mac],
            [self.v6(77), group],
            (SOLICITATION, [0; 4]),
            self.v6(11),
            OTHERS,
        );
        let advertisement = |from| self.advertisement([self.mac; 2], from, 11);
        let believer = &self.believer;
        let (raw, second) = (&self.raw, &self.second);
        vec![
            self.forges("an advertisement", (raw, advertisement(77)), believer),
            // From an address of its own, so that only the claim is forged.
            self.forges("a claim", (raw, advertisement(10)), believer),
            self.forges("a solicitation", (raw, solicitation.clone()), believer),
            self.forges("one by a second slave", (second, solicitation), believer),
        ]
    }

    /// A frame that makes somebody believe that another's address is at another's MAC.
    fn forges(
        &'a self,
        name: &str,
        (raw, frame): (&'a Raw, Vec<u8>),
        believer: &'a Neighbours,
    ) -> Attack<'a> {
        let address = self.v6(77).into();
        self.attack(name, move |within| {
            believer.set(address, KNOWN);
            let believes = || believer.mac_of(address).is_some_and(|mac| mac == OTHERS);
            tried(within, || raw.send(&frame), believes)
        })
    }

    fn noticed(&self) {
        let [one, two] = [&self.one, &self.two].map(|namespace| Figures::of(&namespace.name));
        assert!(one.dropped("spoofed-source") > 0, "{one:?}");
        assert!(one.dropped("endpoint-to-host") > 0, "{one:?}");
        assert!(two.dropped("unattached") > 0, "{two:?}");
        if self.mode == "l2" || self.parent.wire.is_some() {
            assert!(one.dropped("spoofed-neighbour") > 0, "{one:?}");
        }
    }
}

/// All attacks on networks of a mode, one on each parent.
fn on_parents(mode: &str, parents: &[Parent]) {
    let lab = Lab::new();
    lab.wire
        .sh("ip link add link sw0 name sw0.30 type vlan id 30; ip link set sw0.30 up");
    let sites: Vec<_> = parents
        .iter()
        .map(|parent| Site::new(&lab, parent, mode))
        .collect();
    let attacks: Vec<_> = sites.iter().flat_map(Site::attacks).collect();
    let namespaces: Vec<_> = sites
        .iter()
        .flat_map(|site| [&site.one, &site.two])
        .collect();
    show(
        &attacks,
        || sites.iter().for_each(Site::noticed),
        || detach_all_programs(&namespaces),
    );
}

#[test]
fn in_mode_l2_all_parents_guard_ipv6() {
    on_parents("l2", &[VETH, VLAN, DUMMY]);
}

#[test]
fn in_mode_l3_a_parent_guards_ipv6() {
    on_parents("l3", &[VLAN]);
}

#[test]
fn in_mode_l3s_parents_guard_ipv6() {
    on_parents("l3s", &[VETH, DUMMY]);
}

#[test]
fn networks_that_share_a_parent_do_not_hear_each_other() {
    let lab = Lab::new();
    let (one, two) = (Namespace::new("ipv1"), Namespace::new("ipv2"));
    let shared = "--ipv6 -o shared_parent=true -o parent=eth9";
    ctl(&format!(
        "network create {shared} --subnet 192.168.1.0/24 --subnet fd00:9::/64 db_net"
    ));
    ctl(&format!(
        "network create {shared} --subnet 10.7.0.0/24 --subnet fd00:7::/64 other_net"
    ));
    ctl("network connect --ip 192.168.1.10 --ip6 fd00:9::10 db_net ipv1");
    ctl("network connect --ip 10.7.0.11 --ip6 fd00:7::10 other_net ipv2");
    one.sh("ip route add 10.7.0.0/24 dev eth0; ip route add 255.255.255.255 dev eth0");
    two.sh("ip route add 192.168.1.0/24 dev eth0");
    let mac = mac_of(Some(&one), "eth0");
    let (raw, neighbours) = (Raw::on(&one, "eth0"), Neighbours::of(&two, "eth0"));
    let (mouth, ear) = (Ear::at("192.168.1.10", Some(&one)), Ear::open(Some(&two)));
    let arp = ArpPacket::new(
        ArpHardwareId::ETHERNET,
        EtherType::IPV4,
        ArpOperation::REQUEST,
        &mac,
        &[192, 168, 1, 10],
        &[0; 6],
        &[10, 7, 0, 11],
    );
    let mut question = Vec::new();
    PacketBuilder::ethernet2(mac, [0xff; 6])
        .arp(arp.expect("lengths"))
        .write(&mut question)
        .expect("a frame");
    let [own, other] = [9, 7].map(|n| Ipv6Addr::new(0xfd00, n, 0, 0, 0, 0, 0, 0x10));
    let (group_mac, group) = solicited(other);
    let solicitation = discovery(
        [mac, group_mac],
        [own, group],
        (SOLICITATION, [0; 4]),
        other,
        mac,
    );
    let straight = datagram([mac, mac], [192, 168, 1, 10], [10, 7, 0, 11], "straight");
    let attacks = [
        attack("ARP", |within| {
            tried(
                within,
                || raw.send(&question),
                || neighbours.mac_of([192, 168, 1, 10].into()).is_some(),
            )
        }),
        attack("neighbour discovery", |within| {
            tried(
                within,
                || raw.send(&solicitation),
                || neighbours.mac_of(own.into()).is_some(),
            )
        }),
        attack("a broadcast", |within| {
            let all = "255.255.255.255";
            ear.hears("all", within, || mouth.say("all", all)).is_some()
        }),
        attack("a datagram", |within| {
            ear.hears("straight", within, || raw.send(&straight))
                .is_some()
        }),
    ];
    let noticed = || {
        let [one, two] = ["ipv1", "ipv2"].map(Figures::of);
        let dropped = one.dropped("other-network") + two.dropped("other-network");
        assert!(dropped > 2, "{one:?} {two:?}");
    };
    show(&attacks, noticed, || detach_all_programs(&[&one, &two]));
    drop(lab);
}
