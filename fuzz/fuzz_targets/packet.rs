//! Any bytes as a frame: the parsers end, agree with each other, and no packet passes that does
//! not come from the endpoint's own address.
#![no_main]

use ipvlan_common::{
    Address, Endpoint, EndpointFlags, Family, Flow, Message, Neighbour, Packet, PlainV4, may_hear,
    may_speak,
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|frame: &[u8]| {
    let Ok(packet) = Packet::parse(frame) else {
        assert!(Flow::parse(frame).is_err());
        return;
    };
    let flow = Flow::parse(frame).expect("what the policy can judge can be told");
    assert_eq!(
        (packet.family, packet.source, packet.destination),
        (flow.family, flow.source, flow.destination)
    );
    match (packet.neighbour(frame), flow.message) {
        (Ok(Neighbour::Solicitation(a)), Message::Solicitation(b))
        | (Ok(Neighbour::Advertisement(a)), Message::Advertisement(b)) => assert_eq!(a, b),
        (Ok(Neighbour::Solicitation(_) | Neighbour::Advertisement(_)), other) => {
            panic!("neighbour discovery told as {other:?}")
        }
        (_, Message::Solicitation(_) | Message::Advertisement(_)) => {
            panic!("what the policy does not see is told")
        }
        _ => {}
    }
    if let Some(headers) = packet.later_fragment_v4(frame) {
        assert_eq!(packet.family, Family::V4);
        assert!((14 + 20..=14 + 60).contains(&headers), "{headers}");
    }
    if let Some(plain) = PlainV4::parse(frame) {
        let [source, destination] = [plain.source, plain.destination].map(Address::from_v4_word);
        assert_eq!(
            (Family::V4, source, destination, plain.group),
            (
                packet.family,
                packet.source,
                packet.destination,
                packet.group
            )
        );
    }
    speak_as(&own(&packet), &packet, frame);
    speak_as(&stranger(), &packet, frame);
    let asks = Endpoint {
        flags: EndpointFlags::PRESENT | EndpointFlags::DHCP,
        ..stranger()
    };
    speak_as(&asks, &packet, frame);
    let heard = may_hear(packet.source, |_| false).is_ok();
    assert!(heard || may_hear(packet.source, |_| true).is_ok());
});

/// An endpoint whose the packet may be: it has the source's address, if that can be one.
fn own(packet: &Packet) -> Endpoint {
    let mut own = Endpoint {
        flags: EndpointFlags::PRESENT,
        ..Endpoint::ABSENT
    };
    if !packet.source.is_unspecified() {
        match packet.family {
            Family::V6 => own.v6 = packet.source,
            _ => own.v4 = packet.source,
        }
    }
    own
}

fn stranger() -> Endpoint {
    Endpoint {
        flags: EndpointFlags::PRESENT,
        v4: Address::v4([192, 0, 2, 1]),
        v6: Address::v6([0xfd; 16]),
        ..Endpoint::ABSENT
    }
}

fn speak_as(endpoint: &Endpoint, packet: &Packet, frame: &[u8]) {
    if may_speak(endpoint, packet, frame).is_err() {
        return;
    }
    let is_own = |address| [endpoint.v4, endpoint.v6].contains(&address);
    match packet.family {
        Family::V4 if packet.source.is_unspecified() => {
            let ports = Message::Ports {
                source: 68,
                destination: 67,
            };
            assert!(endpoint.is(EndpointFlags::DHCP) && packet.group);
            assert_eq!(packet.destination, Address::BROADCAST_V4);
            assert_eq!(Flow::parse(frame).map(|flow| flow.message), Ok(ports));
        }
        Family::V4 => assert_eq!(packet.source, endpoint.v4),
        Family::Arp if packet.source.is_unspecified() => {
            assert_eq!(packet.destination, endpoint.v4);
        }
        Family::Arp => assert_eq!(packet.source, endpoint.v4),
        Family::V6 => {
            let neighbour = packet.neighbour(frame).expect("it was judged by this");
            match neighbour {
                Neighbour::Solicitation(target) if packet.source.is_unspecified() => {
                    assert!(is_own(target));
                }
                Neighbour::Listener if packet.source.is_unspecified() => {}
                Neighbour::Advertisement(target) => assert!(is_own(target)),
                Neighbour::Router => panic!("an endpoint is no router"),
                _ => {}
            }
            assert!(packet.source.is_unspecified() || packet.source == endpoint.v6);
        }
        Family::Other => panic!("neither IP nor ARP passes"),
    }
}
