//! Traffic between two network namespaces, and how fast it is.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
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

    /// Thousands of UDP packets of 64 bytes a second, sent and taken by one thread in batches.
    pub fn udp_rate(&self, time: Duration) -> Result<f64> {
        let (sender, receiver) = self.sockets()?;
        receiver.set_nonblocking(true)?;
        exchange(&sender, &receiver, 1)?;
        let began = Instant::now();
        let mut packets = 0;
        while began.elapsed() < time {
            exchange(&sender, &receiver, BATCH)?;
            packets += BATCH;
        }
        Ok(f64::from(packets) / began.elapsed().as_secs_f64() / 1e3)
    }

    /// Microseconds from a UDP request to its answer by another thread.
    pub fn latency(&self, time: Duration) -> Result<f64> {
        let (sender, receiver) = self.sockets()?;
        sender.set_read_timeout(Some(Duration::from_secs(5)))?;
        receiver.set_read_timeout(Some(Duration::from_millis(50)))?;
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let echo = scope.spawn(|| answer(&receiver, &done));
            let asked = ask(&sender, time);
            done.store(true, Ordering::Relaxed);
            echo.join().expect("it does not panic")?;
            asked
        })
    }

    /// Megabits a second by one TCP connection.
    pub fn tcp(&self, time: Duration) -> Result<f64> {
        let listener = self.to.run(|| TcpListener::bind(self.address))??;
        let client = self.from.run(|| TcpStream::connect(self.address))?;
        let mut client = client.context("no connection")?;
        let (mut server, _) = listener.accept()?;
        std::thread::scope(|scope| {
            let sink = scope.spawn(move || {
                let mut buffer = vec![0; 128 << 10];
                let mut bytes = 0_u64;
                loop {
                    match server.read(&mut buffer)? {
                        0 => return Ok::<_, std::io::Error>(bytes),
                        more => bytes += more as u64,
                    }
                }
            });
            let began = Instant::now();
            let buffer = vec![0; 128 << 10];
            while began.elapsed() < time {
                client.write_all(&buffer)?;
            }
            drop(client);
            let bytes = sink.join().expect("it does not panic")?;
            Ok(bytes as f64 * 8.0 / began.elapsed().as_secs_f64() / 1e6)
        })
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

fn ask(socket: &UdpSocket, time: Duration) -> Result<f64> {
    let began = Instant::now();
    let mut exchanges = 0;
    while began.elapsed() < time {
        socket.send(&PAYLOAD)?;
        socket.recv(&mut [0; 64]).context("no answer")?;
        exchanges += 1;
    }
    Ok(began.elapsed().as_secs_f64() * 1e6 / f64::from(exchanges))
}

fn answer(socket: &UdpSocket, done: &AtomicBool) -> Result<()> {
    let mut packet = [0; 64];
    while !done.load(Ordering::Relaxed) {
        match socket.recv_from(&mut packet) {
            Ok((length, from)) => {
                socket.send_to(&packet[..length], from)?;
            }
            Err(e) if e.kind() == ErrorKind::WouldBlock => {}
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
