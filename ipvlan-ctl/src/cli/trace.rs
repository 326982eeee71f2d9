//! `ipvlan-ctl trace`.

use std::io::{self, Write};
use std::net::IpAddr;
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use ipvlan_common::{Address, Family, Flow, Malformed, Message, Reason};
use serde_json::{Value, json};

use super::print;
use super::selection::Selection;
use crate::engine::{DroppedPacket, Engine, TraceFilter};

#[derive(Debug, Args)]
pub(super) struct Command {
    /// Print JSON, one object per line
    #[arg(long)]
    json: bool,
    /// Only drops for this reason; may be repeated
    #[arg(long = "reason", value_name = "REASON", value_parser = reason())]
    reasons: Vec<Reason>,
    /// End after this many
    #[arg(short = 'c', long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    #[command(flatten)]
    selection: Selection,
}

fn reason() -> impl TypedValueParser<Value = Reason> {
    PossibleValuesParser::new(Reason::ALL.map(Reason::name))
        .try_map(|name| Reason::from_name(&name).ok_or("no such reason"))
}

impl Command {
    pub(super) async fn run(self, engine: &Engine) -> anyhow::Result<ExitCode> {
        let mut trace = engine.trace(TraceFilter {
            selection: self.selection.into(),
            reasons: self.reasons,
        })?;
        // Whoever waits for a drop wants to know that it would be seen; there is no one left to
        // tell if this fails.
        let _ = writeln!(io::stderr(), "ipvlan-ctl: tracing drops; Ctrl-C ends it");
        let interrupt = tokio::signal::ctrl_c();
        let show = async {
            let mut left = self.count;
            while left != Some(0) {
                let packet = trace.next().await?;
                print(&if self.json {
                    format!("{}\n", as_json(&packet))
                } else {
                    line(&packet)
                })?;
                left = left.map(|left| left - 1);
            }
            anyhow::Ok(())
        };
        tokio::select! {
            shown = show => shown?,
            interrupted = interrupt => interrupted.context("cannot wait for Ctrl-C")?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Such as `TIME ipv1 egress spoofed-source TCP 10.0.0.9:4711 > 10.0.0.2:80 length 74`.
fn line(packet: &DroppedPacket) -> String {
    let subject = match (&packet.endpoint, &packet.parent) {
        (Some(name), _) | (None, Some(name)) => name,
        (None, None) => "-",
    };
    let place = match packet.hook {
        // An endpoint's packet that a program elsewhere stopped.
        Some(hook) if packet.endpoint.is_some() && hook.device() != "endpoint" => {
            format!("{}-{}", hook.device(), hook.direction())
        }
        Some(hook) => hook.direction().to_owned(),
        None => "-".to_owned(),
    };
    let mut line = format!(
        "{} {subject} {place} {} {} length {}",
        time(packet),
        reason_name(packet),
        summary(&packet.flow),
        packet.length
    );
    if packet.suppressed > 0 {
        line += &format!(" ({} more not shown)", packet.suppressed);
    }
    line.push('\n');
    line
}

fn time(packet: &DroppedPacket) -> String {
    humantime::format_rfc3339_micros(packet.time).to_string()
}

fn reason_name(packet: &DroppedPacket) -> &'static str {
    packet.reason.map_or("unknown", Reason::name)
}

fn summary(flow: &Result<Flow, Malformed>) -> String {
    let flow = match flow {
        Ok(flow) => flow,
        Err(Malformed) => return "malformed".to_owned(),
    };
    let [source, destination] = [flow.source, flow.destination].map(IpAddr::from);
    match (flow.family, flow.message) {
        (Family::Other, _) => format!("ethertype {:#06x}", flow.ethertype),
        (Family::Arp, Message::Arp { operation: 1 }) => {
            format!("ARP who-has {destination} tell {source}")
        }
        (Family::Arp, Message::Arp { operation: 2 }) => {
            format!("ARP reply {source} to {destination}")
        }
        (Family::Arp, _) => format!("ARP {source} > {destination}"),
        (_, message) => {
            let protocol = protocol_name(flow);
            let fragment = match flow.fragment {
                0 => String::new(),
                offset => format!(" fragment at {offset}"),
            };
            let at = |address: IpAddr, port: u16| std::net::SocketAddr::new(address, port);
            match message {
                Message::Ports {
                    source: from,
                    destination: to,
                } => format!("{protocol} {} > {}", at(source, from), at(destination, to)),
                Message::Icmp { kind, code } => {
                    format!("{protocol} {source} > {destination} type {kind} code {code}")
                }
                Message::Solicitation(target) => format!(
                    "{protocol} {source} > {destination} who-has {}",
                    IpAddr::from(target)
                ),
                Message::Advertisement(target) => format!(
                    "{protocol} {source} > {destination} claims {}",
                    IpAddr::from(target)
                ),
                Message::Opaque | Message::Arp { .. } => {
                    format!("{protocol} {source} > {destination}{fragment}")
                }
            }
        }
    }
}

/// Names as in `/etc/protocols`, for what is met every day.
fn protocol_name(flow: &Flow) -> String {
    let name = match flow.protocol {
        None => "IP",
        Some(1) => "ICMP",
        Some(2) => "IGMP",
        Some(6) => "TCP",
        Some(17) => "UDP",
        Some(33) => "DCCP",
        Some(47) => "GRE",
        Some(50) => "ESP",
        Some(51) => "AH",
        Some(58) => "ICMPv6",
        Some(132) => "SCTP",
        Some(136) => "UDPLite",
        Some(other) => return format!("protocol {other}"),
    };
    name.to_owned()
}

fn as_json(packet: &DroppedPacket) -> Value {
    let mut object = json!({
        "time": time(packet),
        "endpoint": packet.endpoint,
        "network": packet.network,
        "parent": packet.parent,
        "device": packet.hook.map(|hook| hook.device()),
        "direction": packet.hook.map(|hook| hook.direction()),
        "reason": packet.reason.map(Reason::name),
        "length": packet.length,
        "suppressed": packet.suppressed,
        "summary": summary(&packet.flow),
    });
    if let Ok(flow) = &packet.flow {
        object["family"] = flow.family.name().into();
        object["ethertype"] = flow.ethertype.into();
        if flow.family != Family::Other {
            object["source"] = IpAddr::from(flow.source).to_string().into();
            object["destination"] = IpAddr::from(flow.destination).to_string().into();
        }
        object["protocol"] = flow.protocol.into();
        object["fragment"] = flow.fragment.into();
        describe(&mut object, flow.message);
    }
    object
}

fn describe(object: &mut Value, message: Message) {
    let target = |address: Address| Value::from(IpAddr::from(address).to_string());
    match message {
        Message::Opaque => {}
        Message::Ports {
            source,
            destination,
        } => {
            object["source_port"] = source.into();
            object["destination_port"] = destination.into();
        }
        Message::Icmp { kind, code } => {
            object["icmp_type"] = kind.into();
            object["icmp_code"] = code.into();
        }
        Message::Solicitation(address) => {
            object["icmp_type"] = 135.into();
            object["target"] = target(address);
        }
        Message::Advertisement(address) => {
            object["icmp_type"] = 136.into();
            object["target"] = target(address);
        }
        Message::Arp { operation } => object["arp_operation"] = operation.into(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use ipvlan_common::Hook;

    use super::*;

    fn dropped(frame: &[u8]) -> DroppedPacket {
        DroppedPacket {
            time: UNIX_EPOCH + Duration::from_micros(1_000_001),
            endpoint: Some("web".into()),
            network: Some("net".into()),
            parent: Some("eth9".into()),
            hook: Some(Hook::EndpointEgress),
            reason: Some(Reason::SpoofedSource),
            flow: Flow::parse(frame),
            length: frame.len() as u32,
            suppressed: 0,
        }
    }

    /// UDP from 10.0.0.9:53 to 10.0.0.2:4660, cut after its ports.
    const UDP: [u8; 38] = [
        2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0, 0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0,
        0, 9, 10, 0, 0, 2, 0, 53, 0x12, 0x34,
    ];

    #[test]
    fn a_line_reads_from_left_to_right() {
        assert_eq!(
            line(&dropped(&UDP)),
            "1970-01-01T00:00:01.000001Z web egress spoofed-source \
             UDP 10.0.0.9:53 > 10.0.0.2:4660 length 38\n"
        );
        let parents = DroppedPacket {
            endpoint: None,
            hook: Some(Hook::ParentIngress),
            reason: Some(Reason::Unattached),
            suppressed: 7,
            ..dropped(&[0xff; 14])
        };
        assert_eq!(
            line(&parents),
            "1970-01-01T00:00:01.000001Z eth9 ingress unattached \
             ethertype 0xffff length 14 (7 more not shown)\n"
        );
        let at_parent = DroppedPacket {
            hook: Some(Hook::ParentEgress),
            ..dropped(&UDP[..20])
        };
        assert_eq!(
            line(&at_parent),
            "1970-01-01T00:00:01.000001Z web parent-egress spoofed-source malformed length 20\n"
        );
    }

    #[test]
    fn json_has_the_five_tuple() {
        let object = as_json(&dropped(&UDP));
        let expected = [
            ("endpoint", json!("web")),
            ("direction", json!("egress")),
            ("reason", json!("spoofed-source")),
            ("family", json!("ipv4")),
            ("protocol", json!(17)),
            ("source", json!("10.0.0.9")),
            ("source_port", json!(53)),
            ("destination", json!("10.0.0.2")),
            ("destination_port", json!(4660)),
        ];
        for (field, value) in expected {
            assert_eq!(object[field], value, "{field}");
        }
        assert!(!object.to_string().contains('\n'));
    }

    #[test]
    fn arp_and_neighbour_discovery_read_as_words() {
        let mut arp = vec![0xff; 6];
        arp.extend([
            2, 0, 0, 0, 0, 2, 8, 6, 0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 2,
        ]);
        arp.extend([10, 0, 0, 9, 0, 0, 0, 0, 0, 0, 10, 0, 0, 2]);
        assert_eq!(
            summary(&Flow::parse(&arp[..])),
            "ARP who-has 10.0.0.2 tell 10.0.0.9"
        );
        arp[21] = 2;
        assert_eq!(
            summary(&Flow::parse(&arp[..])),
            "ARP reply 10.0.0.9 to 10.0.0.2"
        );
    }
}
