//! The parsers and the policy on frames built by hand and on arbitrary bytes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipvlan_common::{
    Address, Endpoint, EndpointFlags, Family, Flow, HOST_BUCKETS, Malformed, Message, Neighbour,
    Packet, PlainV4, Reason, may_hear, may_speak,
};
use proptest::prelude::*;

const OWN4: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 10);
const OTHER4: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 11);
const OWN6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 10);
const OTHER6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 11);
const LINK_LOCAL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 10);

fn endpoint() -> Endpoint {
    Endpoint {
        flags: EndpointFlags::PRESENT,
        v4: OWN4.into(),
        v6: OWN6.into(),
        link_local: LINK_LOCAL.into(),
        ..Endpoint::ABSENT
    }
}

fn ethernet(ethertype: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x02, 0, 0, 0, 0, 1, 0x02, 0, 0, 0, 0, 2];
    frame.extend(ethertype.to_be_bytes());
    frame.extend(payload);
    frame
}

fn v4(source: Ipv4Addr, destination: Ipv4Addr) -> Vec<u8> {
    let mut ip = vec![0x45, 0, 0, 20, 0, 0, 0, 0, 64, 17, 0, 0];
    ip.extend(source.octets());
    ip.extend(destination.octets());
    ethernet(0x0800, &ip)
}

fn arp(sender: Ipv4Addr, target: Ipv4Addr) -> Vec<u8> {
    let mut arp = vec![0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 2];
    arp.extend(sender.octets());
    arp.extend([0; 6]);
    arp.extend(target.octets());
    ethernet(0x0806, &arp)
}

fn v6(source: Ipv6Addr, destination: Ipv6Addr, next: u8, payload: &[u8]) -> Vec<u8> {
    let mut ip = vec![0x60, 0, 0, 0];
    ip.extend((payload.len() as u16).to_be_bytes());
    ip.extend([next, 255]);
    ip.extend(source.octets());
    ip.extend(destination.octets());
    ip.extend(payload);
    ethernet(0x86dd, &ip)
}

fn icmpv6(kind: u8, target: Ipv6Addr) -> Vec<u8> {
    let mut message = vec![kind, 0, 0, 0, 0, 0, 0, 0];
    message.extend(target.octets());
    message
}

/// An extension header of 8 bytes times `length + 1`.
fn extension(next: u8, length: u8, payload: &[u8]) -> Vec<u8> {
    let mut header = vec![next, length];
    header.resize((usize::from(length) + 1) * 8, 0);
    header.extend(payload);
    header
}

fn speak(frame: &[u8]) -> Result<(), Reason> {
    let packet = Packet::parse(frame).expect("well-formed");
    may_speak(&endpoint(), &packet, frame).map(drop)
}

#[test]
fn only_a_later_fragment_leaves_its_headers() {
    let of = |frame: &[u8]| {
        let packet = Packet::parse(frame).expect("a packet");
        packet.later_fragment_v4(frame)
    };
    let mut frame = v4(OWN4, OTHER4);
    assert_eq!(of(&frame), None, "a whole packet");
    frame[20] = 0x20;
    assert_eq!(of(&frame), None, "the first fragment");
    frame[21] = 1;
    assert_eq!(of(&frame), Some(14 + 20));
    // With options, and the last.
    (frame[14], frame[20]) = (0x4f, 0);
    assert_eq!(of(&frame), Some(14 + 60));
    assert_eq!(of(&v6(OWN6, OTHER6, 44, &[17, 0, 1, 0, 0, 0, 0, 1])), None);
}

#[test]
fn an_endpoint_speaks_from_its_own_addresses_only() {
    assert_eq!(speak(&v4(OWN4, OTHER4)), Ok(()));
    assert_eq!(speak(&v4(OTHER4, OWN4)), Err(Reason::SpoofedSource));
    assert_eq!(
        speak(&v4(Ipv4Addr::UNSPECIFIED, OTHER4)),
        Err(Reason::SpoofedSource)
    );
    assert_eq!(speak(&v6(OWN6, OTHER6, 17, &[])), Ok(()));
    assert_eq!(speak(&v6(LINK_LOCAL, OTHER6, 17, &[])), Ok(()));
    assert_eq!(
        speak(&v6(OTHER6, OWN6, 17, &[])),
        Err(Reason::SpoofedSource)
    );
    assert_eq!(
        speak(&v6(Ipv6Addr::UNSPECIFIED, OWN6, 17, &[])),
        Err(Reason::SpoofedSource)
    );
}

#[test]
fn only_who_asks_by_dhcp_speaks_to_its_servers() {
    let mut frame = v4(Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST);
    frame[..6].fill(0xff);
    frame.extend([0, 68, 0, 67, 0, 8, 0, 0]);
    let asks = Endpoint {
        flags: EndpointFlags::PRESENT | EndpointFlags::DHCP,
        v4: Address::UNSPECIFIED,
        ..endpoint()
    };
    let passes = |frame: &[u8]| {
        let packet = Packet::parse(frame);
        packet.is_ok_and(|packet| may_speak(&asks, &packet, frame).is_ok())
    };
    assert!(passes(&frame));
    assert_eq!(speak(&frame), Err(Reason::SpoofedSource));
    // Each byte that makes it such a packet: to a group, no options, no fragment, UDP, from
    // `0.0.0.0` to `255.255.255.255`, from port 68 to port 67.
    for at in [0, 14, 20, 21, 23].into_iter().chain(26..38) {
        let mut other = frame.clone();
        other[at] ^= 1;
        assert!(!passes(&other), "byte {at}");
    }
    let mut more_fragments = frame.clone();
    more_fragments[20] |= 0x20;
    assert!(!passes(&more_fragments));
    assert!(!passes(&frame[..37]), "the ports are cut off");
}

#[test]
fn a_v4_mapped_source_in_ipv6_is_not_the_v4_address() {
    // Both have the same 16 bytes as a map key, but an endpoint without such a v6 address must
    // not send them.
    assert_eq!(
        speak(&v6(OWN4.to_ipv6_mapped(), OTHER6, 17, &[])),
        Err(Reason::SpoofedSource)
    );
}

#[test]
fn an_endpoint_without_a_family_does_not_speak_it() {
    let v4_only = Endpoint {
        v6: Address::UNSPECIFIED,
        link_local: Address::UNSPECIFIED,
        ..endpoint()
    };
    for source in [OWN6, Ipv6Addr::UNSPECIFIED] {
        let frame = v6(source, OTHER6, 17, &[]);
        let packet = Packet::parse(&frame[..]).unwrap();
        assert_eq!(
            may_speak(&v4_only, &packet, &frame[..]),
            Err(Reason::SpoofedSource)
        );
    }
    let report = v6(Ipv6Addr::UNSPECIFIED, OTHER6, 58, &[143, 0, 0, 0]);
    let packet = Packet::parse(&report[..]).unwrap();
    assert_eq!(
        may_speak(&v4_only, &packet, &report[..]),
        Err(Reason::SpoofedSource)
    );
}

#[test]
fn an_endpoint_is_meant_by_its_own_addresses_in_their_own_family() {
    let meant = |endpoint: &Endpoint, frame: &[u8]| {
        endpoint.is_meant_by(&Packet::parse(frame).expect("a packet"))
    };
    for frame in [
        v4(OTHER4, OWN4),
        arp(OTHER4, OWN4),
        v6(OTHER6, OWN6, 17, &[]),
        v6(OTHER6, LINK_LOCAL, 17, &[]),
    ] {
        assert!(meant(&endpoint(), &frame), "{frame:02x?}");
    }
    let none = Ipv6Addr::UNSPECIFIED;
    for frame in [
        v4(OWN4, OTHER4),
        arp(OWN4, OTHER4),
        v6(OWN6, OTHER6, 17, &[]),
        v6(OTHER6, OWN4.to_ipv6_mapped(), 17, &[]),
        v6(OTHER6, none, 17, &[]),
        v4(OTHER4, Ipv4Addr::UNSPECIFIED),
        ethernet(0x88cc, &[0; 60]),
    ] {
        assert!(!meant(&endpoint(), &frame), "{frame:02x?}");
        assert!(!meant(&Endpoint::ABSENT, &frame), "{frame:02x?}");
    }
}

#[test]
fn arp_claims_are_the_endpoints_own() {
    assert_eq!(speak(&arp(OWN4, OTHER4)), Ok(()));
    assert_eq!(speak(&arp(OWN4, OWN4)), Ok(()), "an announcement");
    assert_eq!(
        speak(&arp(Ipv4Addr::UNSPECIFIED, OWN4)),
        Ok(()),
        "a probe for its own address"
    );
    assert_eq!(
        speak(&arp(Ipv4Addr::UNSPECIFIED, OTHER4)),
        Err(Reason::SpoofedNeighbour),
        "a probe for another's"
    );
    assert_eq!(speak(&arp(OTHER4, OWN4)), Err(Reason::SpoofedNeighbour));
}

#[test]
fn neighbour_discovery_claims_are_the_endpoints_own() {
    let none = Ipv6Addr::UNSPECIFIED;
    let cases = [
        (OWN6, 135, OTHER6, Ok(())),
        (none, 135, OWN6, Ok(())),
        (none, 135, OTHER6, Err(Reason::SpoofedNeighbour)),
        (OWN6, 136, OWN6, Ok(())),
        (OWN6, 136, LINK_LOCAL, Ok(())),
        (OWN6, 136, OTHER6, Err(Reason::SpoofedNeighbour)),
        (LINK_LOCAL, 134, OWN6, Err(Reason::SpoofedNeighbour)),
        (LINK_LOCAL, 137, OWN6, Err(Reason::SpoofedNeighbour)),
        (LINK_LOCAL, 133, OWN6, Ok(())),
    ];
    for (source, kind, target, verdict) in cases {
        let message = icmpv6(kind, target);
        assert_eq!(
            speak(&v6(source, OTHER6, 58, &message)),
            verdict,
            "type {kind} for {target}"
        );
        // Extension headers do not hide a claim.
        for (first, header) in [
            (0, extension(58, 0, &message)),
            (60, extension(58, 3, &message)),
            (43, extension(60, 1, &extension(58, 0, &message))),
            (44, extension(58, 0, &message)),
        ] {
            assert_eq!(
                speak(&v6(source, OTHER6, first, &header)),
                verdict,
                "type {kind} for {target} behind header {first}"
            );
        }
    }
    assert_eq!(
        speak(&v6(none, OTHER6, 0, &extension(58, 0, &[143, 0, 0, 0]))),
        Ok(())
    );
}

#[test]
fn what_is_not_ip_is_not_spoken() {
    for ethertype in [0x88cc, 0x8100, 0x88a8, 0x0026] {
        assert_eq!(
            speak(&ethernet(ethertype, &[0; 60])),
            Err(Reason::UnknownProtocol)
        );
    }
}

#[test]
fn contradicting_headers_are_malformed() {
    let mut wrong_version = v4(OWN4, OTHER4);
    wrong_version[14] = 0x65;
    let mut short_header = v4(OWN4, OTHER4);
    short_header[14] = 0x44;
    let mut other_hardware = arp(OWN4, OTHER4);
    other_hardware[15] = 6;
    let mut endless = vec![];
    for _ in 0..8 {
        endless = extension(60, 0, &endless);
    }
    for frame in [
        &wrong_version[..],
        &short_header[..],
        &other_hardware[..],
        &v4(OWN4, OTHER4)[..33],
        &arp(OWN4, OTHER4)[..41],
        &[0; 13],
    ] {
        assert_eq!(Packet::parse(frame), Err(Malformed), "{frame:02x?}");
    }
    for frame in [
        &v6(OWN6, OTHER6, 58, &[])[..],
        &v6(OWN6, OTHER6, 58, &icmpv6(136, OWN6)[..20]),
        &v6(OWN6, OTHER6, 60, &endless),
    ] {
        assert_eq!(speak(frame), Err(Reason::Malformed), "{frame:02x?}");
    }
}

const PORTS: [u8; 4] = [0x12, 0x34, 0, 53];
const BOTH: Message = Message::Ports {
    source: 0x1234,
    destination: 53,
};

/// IPv4 with options of `4 * options` bytes, a fragment field and what follows.
fn v4_with(options: u8, fragment: u16, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = v4(OWN4, OTHER4);
    frame[14] += options;
    frame[20..22].copy_from_slice(&fragment.to_be_bytes());
    frame[23] = protocol;
    frame.extend(vec![1; usize::from(options) * 4]);
    frame.extend(payload);
    frame
}

/// An IPv6 fragment header.
fn fragment(next: u8, offset: u16, payload: &[u8]) -> Vec<u8> {
    let mut header = vec![next, 0];
    header.extend((offset | 1).to_be_bytes());
    header.extend([0; 4]);
    header.extend(payload);
    header
}

#[test]
fn a_flow_is_the_five_tuple() {
    for options in [0, 1, 10] {
        for protocol in [6, 17, 33, 132, 136] {
            let flow = Flow::parse(&v4_with(options, 0x2000, protocol, &PORTS)[..]).unwrap();
            assert_eq!((flow.protocol, flow.message), (Some(protocol), BOTH));
            assert_eq!(
                (flow.source, flow.destination),
                (OWN4.into(), OTHER4.into())
            );
        }
    }
    let flow = Flow::parse(&v6(OWN6, OTHER6, 6, &PORTS)[..]).unwrap();
    assert_eq!((flow.family, flow.message), (Family::V6, BOTH));
    let flow = Flow::parse(&v4_with(0, 0, 1, &[8, 0])[..]).unwrap();
    assert_eq!(flow.message, Message::Icmp { kind: 8, code: 0 });
    let flow = Flow::parse(&v4_with(0, 0, 47, &PORTS)[..]).unwrap();
    assert_eq!((flow.protocol, flow.message), (Some(47), Message::Opaque));
    let flow = Flow::parse(&arp(OWN4, OTHER4)[..]).unwrap();
    assert_eq!(flow.message, Message::Arp { operation: 1 });
}

#[test]
fn a_later_fragment_has_no_ports() {
    let flow = Flow::parse(&v4_with(0, 0x20b9, 17, &PORTS)[..]).unwrap();
    assert_eq!((flow.fragment, flow.message), (0xb9 * 8, Message::Opaque));
    let later = v6(OWN6, OTHER6, 44, &fragment(17, 0xb9 * 8, &PORTS));
    let flow = Flow::parse(&later[..]).unwrap();
    assert_eq!((flow.fragment, flow.message), (0xb9 * 8, Message::Opaque));
    assert_eq!(flow.protocol, Some(17));
    let first = v6(OWN6, OTHER6, 44, &fragment(17, 0, &PORTS));
    assert_eq!(Flow::parse(&first[..]).unwrap().message, BOTH);
    // Nor does it claim anything: bytes that look like an advertisement are no header there.
    let hidden = v6(OWN6, OTHER6, 44, &fragment(58, 8, &icmpv6(136, OTHER6)));
    assert_eq!(speak(&hidden), Ok(()));
}

#[test]
fn neighbour_discovery_is_told_by_its_target() {
    let target = Address::from(OTHER6);
    for (kind, message) in [
        (135, Message::Solicitation(target)),
        (136, Message::Advertisement(target)),
        (133, Message::Icmp { kind: 133, code: 0 }),
    ] {
        let frame = v6(OWN6, OTHER6, 60, &extension(58, 1, &icmpv6(kind, OTHER6)));
        assert_eq!(Flow::parse(&frame[..]).unwrap().message, message);
    }
}

#[test]
fn an_internal_network_hears_its_subnets_and_the_link() {
    let inside = |address| address == Address::from(OWN4) || address == Address::from(OWN6);
    let hear = |address: &str| may_hear(address.parse::<IpAddr>().unwrap().into(), inside);
    for address in [
        "192.168.1.10",
        "fd00::a",
        "255.255.255.255",
        "224.0.0.251",
        "ff02::1",
        "fe80::1",
        "::",
    ] {
        assert_eq!(hear(address), Ok(()), "{address}");
    }
    for address in [
        "192.168.1.11",
        "8.8.8.8",
        "224.0.1.1",
        "239.1.1.1",
        "ff05::2",
        "fd00::b",
    ] {
        assert_eq!(hear(address), Err(Reason::OutsideInternal), "{address}");
    }
}

#[test]
fn reason_numbers_and_names_are_unique() {
    for reason in Reason::ALL {
        assert_eq!(Reason::from_number(reason as u32), Some(reason));
        assert_eq!(
            Reason::ALL
                .iter()
                .filter(|r| r.name() == reason.name())
                .count(),
            1
        );
    }
    assert_eq!(Reason::from_number(0), None);
}

/// An IPv6 packet to be: its chain of extension headers, then the upper layer.
fn chain() -> impl Strategy<Value = (Vec<u8>, u8, u8, u8)> {
    let kinds = prop::sample::select(vec![0u8, 43, 60, 135, 51, 44]);
    let headers = prop::collection::vec((kinds, 0u8..4), 0..=6);
    let upper = prop::sample::select(vec![6u8, 17, 58, 132]);
    (headers, upper, prop::sample::select(vec![128u8, 135, 136])).prop_map(
        |(headers, upper, kind)| {
            let payload = match upper {
                58 => icmpv6(kind, OTHER6),
                _ => PORTS.to_vec(),
            };
            let (first, bytes) = headers
                .into_iter()
                .fold((upper, payload), |(next, rest), h| {
                    let bytes = match h {
                        (44, _) => fragment(next, 0, &rest),
                        (51, length) => {
                            let mut header = vec![next, length];
                            header.resize((usize::from(length) + 2) * 4, 0);
                            header.extend(rest);
                            header
                        }
                        (_, length) => extension(next, length, &rest),
                    };
                    (h.0, bytes)
                });
            (bytes, first, upper, kind)
        },
    )
}

proptest! {
    #[test]
    fn every_address_has_a_bucket(bytes: [u8; 16], v4: [u8; 4]) {
        for address in [Address::v6(bytes), Address::v4(v4)] {
            prop_assert!(address.bucket() < HOST_BUCKETS);
        }
    }

    #[test]
    fn parsing_never_panics(frame in prop::collection::vec(any::<u8>(), 0..200)) {
        let packet = Packet::parse(&frame[..]);
        let flow = Flow::parse(&frame[..]);
        prop_assert_eq!(packet.is_ok(), flow.is_ok());
        if let (Ok(packet), Ok(flow)) = (packet, flow) {
            prop_assert_eq!(
                (packet.family, packet.source, packet.destination),
                (flow.family, flow.source, flow.destination)
            );
        }
    }

    /// The short way is no other way: what it finds is what parsing finds, and what it says of an
    /// endpoint is what the policy says.
    #[test]
    fn a_plain_packet_is_the_packet(
        source in prop::sample::select(vec![OWN4, OTHER4, Ipv4Addr::UNSPECIFIED]),
        destination in prop::sample::select(vec![OWN4, OTHER4, Ipv4Addr::UNSPECIFIED]),
        (at, byte) in (0usize..40, any::<u8>()),
        length in 20usize..60,
        has_v4: bool,
    ) {
        let mut frame = v4(source, destination);
        frame.resize(60, 1);
        if let Some(there) = frame.get_mut(at) {
            *there = byte;
        }
        let frame = &frame[..length];
        let endpoint = Endpoint {
            v4: if has_v4 { OWN4.into() } else { Address::UNSPECIFIED },
            ..endpoint()
        };
        let plain = PlainV4::parse(frame);
        let packet = Packet::parse(frame);
        match plain {
            Some(plain) => {
                let packet = packet.unwrap();
                prop_assert_eq!(packet.family, Family::V4);
                prop_assert_eq!(packet.source, Address::from_v4_word(plain.source));
                prop_assert_eq!(packet.destination, Address::from_v4_word(plain.destination));
                prop_assert_eq!(packet.group, plain.group);
                prop_assert_eq!(
                    endpoint.has_v4(plain.source),
                    may_speak(&endpoint, &packet, frame).is_ok()
                );
                prop_assert_eq!(
                    endpoint.has_v4(plain.destination),
                    endpoint.is_meant_by(&packet)
                );
            }
            // With options, of another family, or cut short.
            None => {
                let whole_v4 = packet.is_ok_and(|packet| packet.family == Family::V4);
                prop_assert!(!whole_v4 || frame[14] & 0xf > 5);
            }
        }
    }

    /// Whatever chain of up to six extension headers comes first, the upper layer is found.
    #[test]
    fn extension_headers_hide_nothing((bytes, first, upper, kind) in chain()) {
        let frame = v6(OWN6, OTHER6, first, &bytes);
        let flow = Flow::parse(&frame[..]).unwrap();
        prop_assert_eq!(flow.protocol, Some(upper));
        let expected = match (upper, kind) {
            (58, 135) => Message::Solicitation(OTHER6.into()),
            (58, 136) => Message::Advertisement(OTHER6.into()),
            (58, kind) => Message::Icmp { kind, code: 0 },
            _ => BOTH,
        };
        prop_assert_eq!(flow.message, expected);
    }

    /// A frame that is cut at any length is refused, or gives the same facts, or fewer: never
    /// other ones.
    #[test]
    fn a_cut_frame_tells_less_but_nothing_else(
        (bytes, first, _, _) in chain(),
        options in 0u8..=10,
        protocol in prop::sample::select(vec![1u8, 6, 17]),
    ) {
        for frame in [
            v6(OWN6, OTHER6, first, &bytes),
            v4_with(options, 0, protocol, &PORTS),
            arp(OWN4, OTHER4),
        ] {
            let whole = Flow::parse(&frame[..]).unwrap();
            let verdict = speak(&frame);
            for length in 0..frame.len() {
                let cut = &frame[..length];
                let Ok(flow) = Flow::parse(cut) else {
                    prop_assert!(length < 54, "{length} bytes hold every network header");
                    continue;
                };
                prop_assert_eq!(
                    (flow.source, flow.destination),
                    (whole.source, whole.destination)
                );
                prop_assert!(flow.protocol.is_none() || flow.protocol == whole.protocol);
                let same = flow.message == whole.message;
                let shorter = matches!(flow.message, Message::Opaque | Message::Icmp { .. });
                prop_assert!(same || shorter, "{:?} of {:?}", flow, whole);
                // Cutting never lets a packet pass that would have been dropped.
                prop_assert!(verdict.is_ok() || speak(cut).is_err(), "{:?}", flow);
            }
        }
    }

    /// Whatever follows an IP header, a packet that passes has the endpoint's own source.
    #[test]
    fn whatever_passes_is_the_endpoints_own(
        ethertype in prop::sample::select(vec![0x0800u16, 0x86dd, 0x0806, 0x8100]),
        payload in prop::collection::vec(any::<u8>(), 0..160),
    ) {
        let frame = ethernet(ethertype, &payload);
        if let Ok(packet) = Packet::parse(&frame[..])
            && may_speak(&endpoint(), &packet, &frame[..]).is_ok()
        {
            let own = [OWN4.into(), OWN6.into(), LINK_LOCAL.into()];
            let exempt = packet.family != Family::V4
                && packet.source.is_unspecified()
                && (packet.family == Family::Arp || packet.neighbour(&frame[..]) != Ok(Neighbour::None));
            prop_assert!(own.contains(&packet.source) || exempt);
        }
    }

    #[test]
    fn addresses_survive_the_map_form(bytes in any::<[u8; 16]>(), v4 in any::<[u8; 4]>()) {
        prop_assert_eq!(Address::v6(bytes).octets(), bytes);
        prop_assert_eq!(IpAddr::from(Address::v4(v4)), IpAddr::from(v4));
        prop_assert_eq!(IpAddr::from(Address::v6(bytes)), IpAddr::from(bytes).to_canonical());
        prop_assert_eq!(
            Address::v6(bytes).is_link_local(),
            Ipv6Addr::from(bytes).is_unicast_link_local()
        );
    }
}
