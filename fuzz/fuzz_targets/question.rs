//! Any bytes as a DNS packet of a container: what comes back is an answer to it, fits, and can be
//! read.
#![no_main]

use std::net::IpAddr;
use std::sync::{Arc, LazyLock};

use hickory_proto::op::{Message, MessageType};
use ipvlan_ctl::dns::{Answer, Member, Outcome, Transport, Upstream, View, Zone, answer};
use libfuzzer_sys::fuzz_target;

/// Of one who may ask outside, and of one who may not.
static VIEWS: LazyLock<[View; 2]> = LazyLock::new(|| {
    let members: Vec<Member> = (0..60)
        .map(|n| Member {
            name: format!("n{n}"),
            others: vec!["many".into()],
            addresses: vec![
                IpAddr::from([10, 0, 0, n]),
                IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, n.into()]),
            ],
        })
        .collect();
    let inside = View {
        zones: vec![Arc::new(Zone::new("net", &members))],
        upstream: None,
    };
    let upstream = Upstream::new(&[IpAddr::from([192, 0, 2, 1])]).expect("a resolver");
    let outside = View {
        upstream: Some(Arc::new(upstream)),
        ..inside.clone()
    };
    [inside, outside]
});

fuzz_target!(|packet: &[u8]| {
    for transport in [Transport::Udp, Transport::Tcp] {
        for view in &*VIEWS {
            match answer(packet, view, transport) {
                Answer::Nothing => {}
                Answer::Now(reply) => check(packet, &reply, transport),
                Answer::Ask(question) => {
                    assert!(view.upstream.is_some(), "asked outside without leave");
                    check(packet, &question.reply(Outcome::Failed), transport);
                }
            }
        }
    }
});

fn check(packet: &[u8], reply: &[u8], transport: Transport) {
    assert_eq!(packet[..2], reply[..2], "the id");
    let largest = match transport {
        Transport::Udp => 4096,
        Transport::Tcp => usize::from(u16::MAX),
    };
    assert!(reply.len() <= largest);
    let reply = Message::from_vec(reply).expect("a packet that can be read");
    assert_eq!(reply.metadata.message_type, MessageType::Response);
}
