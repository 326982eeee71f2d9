//! A host and requests for the tests of this room.

use super::{CreateRequest, HostView, Id, LinkView, Network};

pub fn id(first: char) -> Id {
    Id::from_stored(first.to_string().repeat(64))
}

pub fn link(index: u32, name: &str) -> LinkView {
    LinkView {
        index,
        name: name.into(),
        kind: None,
        loopback: name == "lo",
        ipvlan: false,
        master: None,
        mtu: 1500,
    }
}

/// A host with `lo`, `eth0` and `eth1`.
pub fn host() -> HostView {
    HostView {
        links: vec![link(1, "lo"), link(2, "eth0"), link(3, "eth1")],
        used: vec![
            "127.0.0.0/8".parse().unwrap(),
            "10.9.0.0/16".parse().unwrap(),
        ],
        networks: Vec::new(),
        ula_seed: [0x12, 0x34, 0x56, 0x78, 0x9a],
    }
}

/// A request as the words of its command line.
pub fn request(line: &str) -> CreateRequest {
    let mut request = CreateRequest::default();
    let mut words = line.split(' ').filter(|w| !w.is_empty()).map(str::to_owned);
    while let Some(word) = words.next() {
        let mut value = || words.next().expect("a value after the flag");
        match word.as_str() {
            "-d" => request.driver = Some(value()),
            "-o" => request.options.push(value()),
            "--subnet" => request.subnets.push(value()),
            "--gateway" => request.gateways.push(value()),
            "--ip-range" => request.ip_ranges.push(value()),
            "--aux-address" => request.aux_addresses.push(value()),
            "--label" => request.labels.push(value()),
            "--mtu" => request.mtu = Some(value()),
            "--internal" => request.internal = true,
            "--ipv6" => request.ipv6 = true,
            "--ipv4=false" => request.ipv4 = Some(false),
            _ => request.name = word,
        }
    }
    request
}

/// What the request makes on the host; it must be good.
pub fn made(line: &str, host: &HostView) -> Network {
    request(line)
        .resolve(host, id('a'), 7)
        .unwrap_or_else(|e| panic!("{line}: {e}"))
}

/// The same, and the host has it then.
pub fn add(line: &str, first: char, host: &mut HostView) -> Network {
    let network = request(line)
        .resolve(host, id(first), 7)
        .unwrap_or_else(|e| panic!("{line}: {e}"));
    host.networks.push(network.clone());
    network
}

/// The request is refused in one line that begins with the field and value and has all `parts`.
#[track_caller]
pub fn refused(line: &str, host: &HostView, field: &str, value: &str, parts: &[&str]) {
    let message = match request(line).resolve(host, id('a'), 7) {
        Ok(network) => panic!("{line}: made {network:?}"),
        Err(invalid) => invalid.to_string(),
    };
    assert!(
        message.starts_with(&format!("invalid {field} {value:?}: ")),
        "{line}: {message}"
    );
    for part in parts {
        assert!(message.contains(part), "{part:?} is not in: {message}");
    }
    assert!(!message.contains('\n'), "{message}");
}
