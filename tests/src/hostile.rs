//! What a hostile container has at hand, and who hears it: sockets in any namespace.

use std::io;
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use ipvlan_ctl::kernel::Netns;
use nix::libc;
use nix::net::if_::if_nametoindex;
use nix::sys::socket::{
    AddressFamily, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrLike, sendto,
    socket,
};

use crate::{Namespace, sh};

/// Runs `work` in a namespace, or on the host.
fn within<T: Send>(namespace: Option<&Namespace>, work: impl FnOnce() -> T + Send) -> T {
    let Some(namespace) = namespace else {
        return work();
    };
    let path = PathBuf::from("/run/netns").join(&namespace.name);
    Netns::open(&path)
        .and_then(|netns| netns.run(work))
        .expect("a namespace to enter")
}

/// The MAC of a device.
pub fn mac_of(namespace: Option<&Namespace>, device: &str) -> [u8; 6] {
    let command = format!("ip -brief link show dev {device}");
    let line = match namespace {
        Some(namespace) => namespace.sh(&command),
        None => sh(&command),
    };
    let mac = line.split_whitespace().nth(2).expect("a MAC");
    let bytes: Vec<u8> = mac
        .split(':')
        .map(|byte| u8::from_str_radix(byte, 16).expect("a byte"))
        .collect();
    bytes.try_into().expect("six bytes")
}

/// A MAC as `ip` writes it.
pub fn text_of(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

/// A packet socket: whole frames, past routing and ARP.
#[derive(Debug)]
pub struct Raw {
    socket: OwnedFd,
    ifindex: i32,
}

impl Raw {
    /// On a device inside a namespace.
    pub fn on(namespace: &Namespace, device: &str) -> Self {
        within(Some(namespace), || Self {
            socket: socket(
                AddressFamily::Packet,
                SockType::Raw,
                SockFlag::empty(),
                SockProtocol::EthAll,
            )
            .expect("a packet socket"),
            ifindex: if_nametoindex(device).expect("a device") as i32,
        })
    }

    /// Sends a frame, as the protocol that it says. What a program drops on the way is an error to
    /// some callers and none to others, so it is not told.
    pub fn send(&self, frame: &[u8]) {
        let address = libc::sockaddr_ll {
            sll_family: libc::AF_PACKET as u16,
            sll_protocol: u16::from_ne_bytes([frame[12], frame[13]]),
            sll_ifindex: self.ifindex,
            sll_hatype: 0,
            sll_pkttype: 0,
            sll_halen: 0,
            sll_addr: [0; 8],
        };
        let length = size_of_val(&address) as u32;
        // SAFETY: a whole sockaddr_ll, of the family that its first field says.
        let address = unsafe { LinkAddr::from_raw((&raw const address).cast(), Some(length)) };
        let address = address.expect("a link address");
        let _ = sendto(self.socket.as_raw_fd(), frame, &address, MsgFlags::empty());
    }
}

/// A UDP socket that takes what is sent to its port, and sends from it.
#[derive(Debug)]
pub struct Ear(UdpSocket);

impl Ear {
    pub const PORT: u16 = 4001;

    /// On all addresses of a namespace, or of the host.
    pub fn open(namespace: Option<&Namespace>) -> Self {
        Self::at("0.0.0.0", namespace)
    }

    /// On one address.
    pub fn at(address: &str, namespace: Option<&Namespace>) -> Self {
        let address: IpAddr = address.parse().expect("an address");
        let socket = within(namespace, || UdpSocket::bind((address, Self::PORT)));
        let socket = socket.expect("a free port");
        socket.set_nonblocking(true).expect("non-blocking");
        socket.set_broadcast(true).expect("broadcast");
        Self(socket)
    }

    /// Hears what is sent to a group, by the interface with that address.
    pub fn join(&self, group: &str, interface: &str) {
        let address = |text: &str| text.parse::<Ipv4Addr>().expect("an IPv4 address");
        self.0
            .join_multicast_v4(&address(group), &address(interface))
            .expect("joined");
    }

    /// Says a word to that address, if it can.
    pub fn say(&self, word: &str, to: &str) {
        let address: IpAddr = to.parse().expect("an address");
        let _ = self.0.send_to(word.as_bytes(), (address, Self::PORT));
    }

    /// Has it heard `word`? Returns from whom.
    pub fn heard(&self, word: &str) -> Option<IpAddr> {
        let mut bytes = [0; 2048];
        loop {
            match self.0.recv_from(&mut bytes) {
                Ok((length, from)) if bytes[..length] == *word.as_bytes() => {
                    return Some(from.ip());
                }
                Ok(_) => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return None,
                // An ICMP error about what it has sent.
                Err(_) => {}
            }
        }
    }

    /// Speaks again and again until `word` is heard; from whom, unless the time is over first.
    pub fn hears(&self, word: &str, within: Duration, mut speak: impl FnMut()) -> Option<IpAddr> {
        let deadline = Instant::now() + within;
        loop {
            speak();
            std::thread::sleep(Duration::from_millis(100));
            if let Some(from) = self.heard(word) {
                return Some(from);
            }
            if Instant::now() > deadline {
                return None;
            }
        }
    }
}
