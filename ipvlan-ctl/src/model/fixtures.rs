//! A host and requests in the words of a command line, for the tests of this module.

use super::{CreateRequest, HostView, Id, Invalid, LinkView, Network, Parent};

/// A host with `enp3s0` on 192.168.1.0/24, docker0, and links that cannot be parents.
pub fn host() -> HostView {
    let link = |index, name: &str, kind: Option<&str>| LinkView {
        index,
        name: name.into(),
        kind: kind.map(Into::into),
        loopback: false,
        ipvlan: false,
        master: None,
        mtu: 1500,
    };
    HostView {
        links: vec![
            LinkView {
                loopback: true,
                mtu: 65536,
                ..link(1, "lo", None)
            },
            link(2, "enp3s0", None),
            link(3, "eth0", None),
            link(4, "br0", Some("bridge")),
            LinkView {
                master: Some(4),
                ..link(5, "port", Some("veth"))
            },
            LinkView {
                ipvlan: true,
                ..link(6, "slave", Some("ipvlan"))
            },
            link(7, "wan.a", None),
            LinkView {
                mtu: 576,
                ..link(8, "slow", None)
            },
        ],
        used: vec![
            "172.17.0.0/16".parse().unwrap(),
            "192.168.1.0/24".parse().unwrap(),
        ],
        networks: Vec::new(),
        ula_seed: [0x11, 0x22, 0x33, 0x44, 0x55],
    }
}

/// The request of `[FLAGS…] NAME`; flags with `=`, but `-o KEY=VALUE` and `-d DRIVER`.
pub fn request(line: &str) -> CreateRequest {
    let mut request = CreateRequest::default();
    let mut words = line.split_whitespace();
    while let Some(word) = words.next() {
        let (flag, value) = word.split_once('=').unwrap_or((word, ""));
        let value = value.to_owned();
        match flag {
            "-o" => request.options.push(words.next().unwrap().into()),
            "-d" => request.driver = Some(words.next().unwrap().into()),
            "--internal" => request.internal = true,
            "--ipv4" => request.ipv4 = Some(value == "true"),
            "--ipv6" => request.ipv6 = true,
            "--subnet" => request.subnets.push(value),
            "--gateway" => request.gateways.push(value),
            "--ip-range" => request.ip_ranges.push(value),
            "--aux-address" => request.aux_addresses.push(value),
            "--label" => request.labels.push(value),
            "--mtu" => request.mtu = Some(value),
            _ if flag.starts_with('-') => panic!("no flag {flag}"),
            _ => request.name = word.into(),
        }
    }
    request
}

pub fn resolve(line: &str, host: &HostView) -> Result<Network, Invalid> {
    request(line).resolve(host, Id::random(), 1_700_000_000)
}

/// The network of a request that must be good.
pub fn network(line: &str, host: &HostView) -> Network {
    resolve(line, host).unwrap_or_else(|bad| panic!("{line}: {bad}"))
}

/// Makes the network: the host has it and the link created for it afterwards.
pub fn create(line: &str, host: &mut HostView) -> Network {
    let made = network(line, host);
    if !matches!(made.parent, Parent::Existing { .. }) {
        let name = made.parent.name().to_owned();
        if !host.links.iter().any(|link| link.name == name) {
            let index = host.links.len() as u32 + 1;
            let like = host.links[1].clone();
            host.links.push(LinkView {
                index,
                name,
                ..like
            });
        }
    }
    host.networks.push(made.clone());
    made
}

/// Checks that the request is refused for this field and value, and that the rest of the one
/// line holds `allowed`.
#[track_caller]
pub fn refused(line: &str, host: &HostView, field: &str, value: &str, allowed: &str) {
    let bad = resolve(line, host).expect_err(line);
    assert_eq!((bad.field.as_str(), bad.value.as_str()), (field, value));
    assert!(bad.allowed.contains(allowed), "{line}: {bad}");
    let text = bad.to_string();
    assert!(!text.contains('\n'), "{text}");
    assert!(text.contains(field) && text.contains(value), "{text}");
}
