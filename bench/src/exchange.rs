//! Traffic between two network namespaces, and how fast it is.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use ipvlan_ctl::kernel::Netns;
use nix::time::{ClockId, clock_gettime};

/// With its headers, a payload of this length makes a frame of 64 bytes.
const PAYLOAD: [u8; 18] = [0; 18];

/// Packets that are sent before they are taken: fewer than a socket's buffer holds.
const BATCH: u32 = 64;

const PORT: u16 = 4001;

/// Two named network namespaces that reach each other.
pub struct Way {
    from: Netns,
    to: Netns,
    address: SocketAddr,
}

impl Way {
    /// `address` is one of the namespace `to`.
    pub fn new(from: &str, to: &str, address: Ipv4Addr) -> Result<Self> {
        let open = |name: &str| Netns::open(&Path::new("/run/netns").join(name));
        Ok(Self {
            from: open(from)?,
            to: open(to)?,
            address: (address, PORT).into(),
        })
    }

    fn sockets(&self) -> Result<(UdpSocket, UdpSocket)> {
        let receiver = self.to.run(|| UdpSocket::bind(self.address))??;
        let sender = self.from.run(|| UdpSocket::bind("0.0.0.0:0"))??;
        sender.connect(self.address)?;
        Ok((sender, receiver))
    }

    /// CPU time of a UDP packet of 64 bytes, in nanoseconds, from one socket into the other. This
    /// thread's own: it sends, the kernel delivers on the same CPU before the call returns, and it
    /// takes. A packet that is lost is an error.
    pub fn udp_cost(&self, packets: u32) -> Result<f64> {
        let (sender, receiver) = self.sockets()?;
        receiver.set_nonblocking(true)?;
        // Finds the neighbour.
        exchange(&sender, &receiver, 1)?;
        let before = cpu_time()?;
        let mut left = packets;
        while left > 0 {
            let batch = left.min(BATCH);
            exchange(&sender, &receiver, batch)?;
            left -= batch;
        }
        let taken = cpu_time()? - before;
        Ok(taken.as_nanos() as f64 / f64::from(packets))
    }
}

fn exchange(sender: &UdpSocket, receiver: &UdpSocket, packets: u32) -> Result<()> {
    for _ in 0..packets {
        sender.send(&PAYLOAD)?;
    }
    let deadline = Instant::now() + Duration::from_secs(5);
    let mut left = packets;
    while left > 0 {
        match receiver.recv(&mut [0; 64]) {
            Ok(_) => left -= 1,
            // Delivered by another CPU, or after the neighbour is found.
            Err(e) if e.kind() == ErrorKind::WouldBlock => {
                ensure!(
                    Instant::now() < deadline,
                    "{left} of {packets} packets are lost"
                );
                std::thread::yield_now();
            }
            Err(e) => return Err(e.into()),
        }
    }
    Ok(())
}

/// Of this thread; with it the kernel's work for packets that it sends, unless the kernel is built
/// with CONFIG_IRQ_TIME_ACCOUNTING.
fn cpu_time() -> Result<Duration> {
    Ok(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)?.into())
}
