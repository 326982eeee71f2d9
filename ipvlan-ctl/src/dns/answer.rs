//! From a packet and a view to the answer. Packets are untrusted.

use std::net::IpAddr;

use hickory_proto::op::{Edns, Header, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, PTR};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};
use hickory_proto::serialize::binary::{BinDecodable, BinDecoder};

use super::{Outcome, View};

/// How long others may remember an endpoint's address, in seconds: Docker's.
const TTL: u32 = 600;

/// The largest packet over UDP that is taken and, if the asker takes it too, sent. Loopback
/// does not fragment.
pub(super) const LARGEST: u16 = 4096;

/// What the answer must fit into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    Udp,
    Tcp,
}

/// What is to be done about a packet.
#[derive(Debug)]
pub enum Answer {
    /// To be sent back.
    Now(Vec<u8>),
    /// No endpoint's name: the view's upstream may know.
    Ask(Forward),
    /// Too little to answer, or an answer itself.
    Nothing,
}

/// A question for the upstream.
#[derive(Debug)]
pub struct Forward(Reply);

impl Forward {
    pub fn query(&self) -> &Query {
        // One that has no query is answered at once.
        &self.0.message.queries[0]
    }

    /// The packet to send back.
    pub fn reply(mut self, outcome: Outcome) -> Vec<u8> {
        match outcome {
            Outcome::Records(records) => self.0.message.answers = records,
            Outcome::Nothing { code, soa } => {
                self.0.message.metadata.response_code = code;
                self.0.message.authorities.extend(soa.map(|soa| *soa));
            }
            Outcome::Failed => self.0.message.metadata.response_code = ResponseCode::ServFail,
        }
        self.0.encode()
    }
}

/// Answers a packet as the one who sees `view` may be answered.
pub fn answer(packet: &[u8], view: &View, transport: Transport) -> Answer {
    let Ok(header) = Header::read(&mut BinDecoder::new(packet)) else {
        return Answer::Nothing;
    };
    if header.metadata.message_type == MessageType::Response {
        return Answer::Nothing;
    }
    let refuse = |code| {
        let refusal = Message::error_msg(header.metadata.id, header.metadata.op_code, code);
        Answer::Now(Reply::new(refusal, transport).encode())
    };
    if header.metadata.op_code != OpCode::Query {
        return refuse(ResponseCode::NotImp);
    }
    // Before all is read: the counts say how much memory that takes.
    if header.counts.queries != 1 {
        return refuse(ResponseCode::FormErr);
    }
    match Message::from_vec(packet) {
        Ok(request) => respond(request, view, transport),
        Err(_) => refuse(ResponseCode::FormErr),
    }
}

fn respond(request: Message, view: &View, transport: Transport) -> Answer {
    let mut reply = Reply::to(&request, transport);
    let query = &request.queries[0];
    let code = match query.query_type() {
        _ if request.version() > 0 => ResponseCode::BADVERS,
        _ if query.query_class() != DNSClass::IN => ResponseCode::Refused,
        RecordType::AXFR | RecordType::IXFR => ResponseCode::Refused,
        kind => match records(query.name(), kind, request.metadata.id, view) {
            Some(records) => {
                reply.message.metadata.authoritative = true;
                reply.message.answers = records;
                ResponseCode::NoError
            }
            None if view.upstream.is_some() => return Answer::Ask(Forward(reply)),
            None => ResponseCode::ServFail,
        },
    };
    reply.message.metadata.response_code = code;
    Answer::Now(reply.encode())
}

/// What is known of a name that is an endpoint's; empty where it has nothing of this kind.
fn records(name: &Name, kind: RecordType, turn: u16, view: &View) -> Option<Vec<Record>> {
    let record = |data| Record::from_rdata(name.clone(), TTL, data);
    if let Some(address) = address_of(name) {
        let found = view.name(address)?;
        let target = Name::from_ascii(format!("{found}.")).ok()?;
        return Some(match kind {
            RecordType::PTR | RecordType::ANY => vec![record(RData::PTR(PTR(target)))],
            _ => Vec::new(),
        });
    }
    let text = name.to_ascii();
    let v4 = view.addresses(&text, false)?;
    let mut addresses = match kind {
        RecordType::A => v4,
        RecordType::AAAA => view.addresses(&text, true)?,
        RecordType::ANY => [v4, view.addresses(&text, true)?].concat(),
        _ => Vec::new(),
    };
    // Who shares a name shares the load: most programs take the first.
    if !addresses.is_empty() {
        let first = usize::from(turn) % addresses.len();
        addresses.rotate_left(first);
    }
    let records = addresses.into_iter().map(|address| match address {
        IpAddr::V4(v4) => record(RData::A(A(v4))),
        IpAddr::V6(v6) => record(RData::AAAA(AAAA(v6))),
    });
    Some(records.collect())
}

/// The address that a name under in-addr.arpa or ip6.arpa spells in full.
fn address_of(name: &Name) -> Option<IpAddr> {
    let spelled = name.parse_arpa_name().ok()?;
    (spelled.prefix_len() == spelled.max_prefix_len()).then(|| spelled.addr())
}

/// An answer in the making.
#[derive(Debug)]
struct Reply {
    message: Message,
    /// In bytes.
    room: usize,
}

impl Reply {
    fn new(message: Message, transport: Transport) -> Self {
        Self {
            message,
            room: match transport {
                Transport::Udp => 512,
                Transport::Tcp => usize::from(u16::MAX),
            },
        }
    }

    fn to(request: &Message, transport: Transport) -> Self {
        let mut message = Message::response(request.metadata.id, request.metadata.op_code);
        message.metadata.recursion_desired = request.metadata.recursion_desired;
        message.metadata.checking_disabled = request.metadata.checking_disabled;
        message.metadata.recursion_available = true;
        message.queries = request.queries.clone();
        let mut reply = Self::new(message, transport);
        if request.edns.is_some() {
            let mut edns = Edns::new();
            edns.set_max_payload(LARGEST);
            reply.message.set_edns(edns);
            if transport == Transport::Udp {
                reply.room = usize::from(request.max_payload().min(LARGEST));
            }
        }
        reply
    }

    /// Without its records and marked so (TC) where it is too large: who wants all asks by TCP.
    fn encode(self) -> Vec<u8> {
        let encoded = match self.message.to_vec() {
            Ok(whole) if whole.len() <= self.room => return whole,
            Ok(_) => self.message.truncate().to_vec(),
            Err(error) => Err(error),
        };
        // Nothing but a header always encodes.
        encoded.unwrap_or_else(|_| {
            let id = self.message.metadata.id;
            Message::error_msg(id, OpCode::Query, ResponseCode::ServFail)
                .to_vec()
                .unwrap_or_default()
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use hickory_proto::rr::rdata::SOA;
    use proptest::prelude::*;

    use super::super::{Member, Upstream, Zone};
    use super::*;

    fn inside() -> View {
        let member = |name: &str, addresses: &[&str]| Member {
            name: name.into(),
            others: vec!["any".into()],
            addresses: addresses.iter().map(|a| a.parse().unwrap()).collect(),
        };
        let mut members = vec![
            member("web", &["10.0.0.2", "fd00::2"]),
            member("db", &["10.0.0.3"]),
        ];
        for host in 0..60 {
            members.push(Member {
                name: format!("n{host}"),
                others: vec!["many".into()],
                addresses: vec![IpAddr::from([10, 1, 0, host])],
            });
        }
        View {
            zones: vec![Arc::new(Zone::new("net", &members))],
            upstream: None,
        }
    }

    fn outside() -> View {
        View {
            upstream: Some(Arc::new(
                Upstream::new(&[IpAddr::from([192, 0, 2, 1])]).unwrap(),
            )),
            ..inside()
        }
    }

    fn question(name: &str, kind: RecordType) -> Message {
        let mut message = Message::new(4711, MessageType::Query, OpCode::Query);
        message.metadata.recursion_desired = true;
        message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
        message
    }

    fn ask(message: &Message, transport: Transport) -> Message {
        match answer(&message.to_vec().unwrap(), &inside(), transport) {
            Answer::Now(reply) => Message::from_vec(&reply).unwrap(),
            other => panic!("{other:?}"),
        }
    }

    fn answers(name: &str, kind: RecordType) -> Vec<String> {
        let reply = ask(&question(name, kind), Transport::Udp);
        assert_eq!(
            reply.metadata.response_code,
            ResponseCode::NoError,
            "{name}"
        );
        assert!(reply.metadata.authoritative && reply.metadata.recursion_available);
        assert_eq!(reply.queries, question(name, kind).queries);
        assert!(reply.answers.iter().all(|answer| answer.ttl == 600));
        let mut answers: Vec<String> = reply.answers.iter().map(|a| a.data.to_string()).collect();
        answers.sort();
        answers
    }

    #[test]
    fn each_kind_of_an_endpoints_name() {
        assert_eq!(answers("Web.", RecordType::A), ["10.0.0.2"]);
        assert_eq!(answers("web.net.", RecordType::AAAA), ["fd00::2"]);
        assert_eq!(answers("web.", RecordType::ANY), ["10.0.0.2", "fd00::2"]);
        assert_eq!(answers("any.", RecordType::A), ["10.0.0.2", "10.0.0.3"]);
        for nothing in [RecordType::MX, RecordType::HTTPS, RecordType::TXT] {
            assert!(answers("web.", nothing).is_empty(), "{nothing}");
        }
        assert!(answers("db.", RecordType::AAAA).is_empty());
        assert_eq!(
            answers("2.0.0.10.in-addr.arpa.", RecordType::PTR),
            ["web.net."]
        );
        assert!(answers("2.0.0.10.in-addr.arpa.", RecordType::A).is_empty());
        let v6 = "2.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa.";
        assert_eq!(answers(v6, RecordType::PTR), ["web.net."]);
    }

    #[test]
    fn what_is_no_endpoints_is_for_upstream_or_fails() {
        for name in [
            "other.",
            "example.org.",
            ".",
            "0.10.in-addr.arpa.",
            "9.0.0.10.in-addr.arpa.",
        ] {
            let packet = question(name, RecordType::PTR).to_vec().unwrap();
            assert!(matches!(
                answer(&packet, &outside(), Transport::Udp),
                Answer::Ask(_)
            ));
            let Answer::Now(reply) = answer(&packet, &inside(), Transport::Udp) else {
                panic!("{name}");
            };
            let reply = Message::from_vec(&reply).unwrap();
            assert_eq!(reply.metadata.response_code, ResponseCode::ServFail);
        }
    }

    #[test]
    fn what_upstream_says_is_passed_on() {
        let packet = question("example.org.", RecordType::A).to_vec().unwrap();
        let reply = |outcome| match answer(&packet, &outside(), Transport::Udp) {
            Answer::Ask(question) => Message::from_vec(&question.reply(outcome)).unwrap(),
            other => panic!("{other:?}"),
        };
        let name = Name::from_ascii("example.org.").unwrap();
        let record = Record::from_rdata(name.clone(), 60, RData::A(A([192, 0, 2, 7].into())));
        let found = reply(Outcome::Records(vec![record.clone()]));
        assert_eq!(
            (found.metadata.id, &found.answers[..]),
            (4711, &[record][..])
        );
        assert!(!found.metadata.authoritative);
        let soa = SOA::new(name.clone(), name.clone(), 1, 2, 3, 4, 5);
        let soa = Record::from_rdata(name, 60, RData::SOA(soa));
        let nothing = reply(Outcome::Nothing {
            code: ResponseCode::NXDomain,
            soa: Some(Box::new(soa)),
        });
        assert_eq!(nothing.metadata.response_code, ResponseCode::NXDomain);
        assert_eq!(nothing.authorities.len(), 1);
        let failed = reply(Outcome::Failed);
        assert_eq!(failed.metadata.response_code, ResponseCode::ServFail);
    }

    #[test]
    fn an_answer_fits_or_says_that_it_does_not() {
        let mut many = question("many.", RecordType::A);
        let cut = ask(&many, Transport::Udp);
        assert!(cut.metadata.truncation && cut.answers.is_empty() && cut.edns.is_none());
        let whole = ask(&many, Transport::Tcp);
        assert!(!whole.metadata.truncation);
        assert_eq!(whole.answers.len(), 60);
        let mut edns = Edns::new();
        edns.set_max_payload(1232);
        many.set_edns(edns);
        let with_edns = ask(&many, Transport::Udp);
        assert_eq!(with_edns.answers.len(), 60);
        assert_eq!(with_edns.edns.unwrap().version(), 0);
    }

    #[test]
    fn what_we_do_not_do_is_refused() {
        let code = |message: &Message| ask(message, Transport::Udp).metadata.response_code;
        let mut unknown = question("web.", RecordType::A);
        let mut edns = Edns::new();
        edns.set_version(1);
        unknown.set_edns(edns);
        // 16 is BADSIG too.
        assert_eq!(u16::from(code(&unknown)), 16);
        assert_eq!(
            code(&question("web.", RecordType::AXFR)),
            ResponseCode::Refused
        );
        let mut chaos = question("version.bind.", RecordType::TXT);
        chaos.queries[0].set_query_class(DNSClass::CH);
        assert_eq!(code(&chaos), ResponseCode::Refused);
        let mut update = question("web.", RecordType::A);
        update.metadata.op_code = OpCode::Update;
        assert_eq!(code(&update), ResponseCode::NotImp);
        let mut two = question("web.", RecordType::A);
        two.add_query(two.queries[0].clone());
        assert_eq!(code(&two), ResponseCode::FormErr);
        let mut reply = question("web.", RecordType::A);
        reply.metadata.message_type = MessageType::Response;
        let packet = reply.to_vec().unwrap();
        assert!(matches!(
            answer(&packet, &inside(), Transport::Udp),
            Answer::Nothing
        ));
    }

    /// Whatever comes back is an answer to what came.
    fn check(packet: &[u8], transport: Transport) {
        if let Answer::Now(reply) = answer(packet, &inside(), transport) {
            assert_eq!(packet[..2], reply[..2], "the id");
            assert!(reply[2] & 0x80 != 0, "an answer");
            Message::from_vec(&reply).unwrap();
        }
    }

    proptest! {
        #[test]
        fn no_packet_is_too_strange(packet in proptest::collection::vec(any::<u8>(), 0..600)) {
            check(&packet, Transport::Udp);
            check(&packet, Transport::Tcp);
        }

        #[test]
        fn no_mistake_in_a_packet_is_too_strange(
            mistakes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
            cut in any::<prop::sample::Index>(),
            kind in any::<u16>(),
        ) {
            let mut message = question("web.net.", RecordType::from(kind));
            message.set_edns(Edns::new());
            let mut packet = message.to_vec().unwrap();
            for (place, byte) in mistakes {
                let place = place.index(packet.len());
                packet[place] = byte;
            }
            check(&packet, Transport::Udp);
            check(&packet[..cut.index(packet.len())], Transport::Udp);
        }
    }
}
