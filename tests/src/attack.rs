//! Attacks, each of which must fail with our programs attached and work with them taken off, so
//! that none fails because the kernel alone, or a mistake in the test, stopped it.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use etherparse::PacketBuilder;
use serde_json::Value;

use crate::{Ear, ctl};

/// How long an attack is made in vain; and how long one may take to work.
pub const GUARDED: Duration = Duration::from_millis(600);
pub const OPEN: Duration = Duration::from_secs(20);

/// An attack: tries for some time, and tells whether it worked.
pub struct Attack<'a> {
    pub name: String,
    pub works: Box<dyn Fn(Duration) -> bool + 'a>,
}

pub fn attack<'a>(name: impl Into<String>, works: impl Fn(Duration) -> bool + 'a) -> Attack<'a> {
    Attack {
        name: name.into(),
        works: Box::new(works),
    }
}

/// Makes the attacks in vain, looks at the figures, takes off the programs and makes them again.
pub fn show(attacks: &[Attack], noticed: impl FnOnce(), take_off: impl FnOnce()) {
    for Attack { name, works } in attacks {
        assert!(!works(GUARDED), "{name}: it works");
    }
    noticed();
    take_off();
    for Attack { name, works } in attacks {
        assert!(works(OPEN), "{name}: the kernel alone stops it");
    }
}

/// Acts again and again until it has worked, or the time is over.
pub fn tried(within: Duration, act: impl Fn(), worked: impl Fn() -> bool) -> bool {
    let deadline = Instant::now() + within;
    loop {
        act();
        std::thread::sleep(Duration::from_millis(100));
        if worked() {
            return true;
        }
        if Instant::now() > deadline {
            return false;
        }
    }
}

/// Drops for this reason on a device of the host's that belong to no endpoint.
pub fn dropped_on(parent: &str, reason: &str) -> u64 {
    let json: Value = serde_json::from_str(&ctl("stats --json")).expect("stats prints JSON");
    let parents = json["parents"].as_array().expect("parents");
    let drops = parents.iter().find(|row| row["name"] == parent);
    drops.map_or(0, |row| row["drops"][reason].as_u64().unwrap_or(0))
}

/// A datagram to [`Ear::PORT`], from wherever it says.
pub fn datagram(
    macs: [[u8; 6]; 2],
    source: impl Into<IpAddr>,
    destination: impl Into<IpAddr>,
    word: &str,
) -> Vec<u8> {
    datagram_by([Ear::PORT; 2], macs, source, destination, word)
}

/// [`datagram`] from one port to another.
pub fn datagram_by(
    ports: [u16; 2],
    macs: [[u8; 6]; 2],
    source: impl Into<IpAddr>,
    destination: impl Into<IpAddr>,
    word: &str,
) -> Vec<u8> {
    let builder = PacketBuilder::ethernet2(macs[0], macs[1]);
    let builder = match (source.into(), destination.into()) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            builder.ipv4(source.octets(), destination.octets(), 64)
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            builder.ipv6(source.octets(), destination.octets(), 64)
        }
        (source, destination) => panic!("{source} and {destination} are of two families"),
    };
    let builder = builder.udp(ports[0], ports[1]);
    let mut frame = Vec::with_capacity(builder.size(word.len()));
    builder.write(&mut frame, word.as_bytes()).expect("a frame");
    frame
}
