//! Numbered packets that come back, to tell whether one was lost.

use std::collections::BTreeSet;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::Namespace;

/// Packets under way at once: well below what a socket's buffer holds.
const WINDOW: usize = 32;

/// How long a packet may take before it is lost.
const PATIENCE: Duration = Duration::from_secs(20);

/// A steady UDP stream from one namespace to another, which echoes it, until it is ended.
pub struct Stream {
    exchanged: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    sender: JoinHandle<()>,
    echo: JoinHandle<()>,
}

impl Stream {
    /// `to` is an address in the namespace `echo`, where the port must be free.
    pub fn start(from: &Namespace, echo: &Namespace, to: &str) -> Self {
        let echo_socket = timed(echo.udp(to));
        let sender_socket = timed(from.udp("0.0.0.0:0"));
        let to: SocketAddr = to.parse().expect("an address with a port");
        sender_socket.connect(to).expect("a route");
        let exchanged = Arc::new(AtomicU64::new(0));
        let stop = Arc::new(AtomicBool::new(false));
        Self {
            echo: std::thread::spawn({
                let stop = Arc::clone(&stop);
                move || answer(&echo_socket, &stop)
            }),
            sender: std::thread::spawn({
                let (exchanged, stop) = (Arc::clone(&exchanged), Arc::clone(&stop));
                move || exchange(&sender_socket, &exchanged, &stop)
            }),
            exchanged,
            stop,
        }
    }

    /// Waits until `more` packets have come back from now on.
    pub fn run(&self, more: u64) {
        let target = self.exchanged.load(Ordering::Relaxed) + more;
        let deadline = Instant::now() + 2 * PATIENCE;
        while self.exchanged.load(Ordering::Relaxed) < target {
            assert!(Instant::now() < deadline, "the stream stands still");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Ends it, and returns how many packets came back: all of them, or it panics.
    pub fn end(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.sender.join().expect("no packet is lost");
        self.echo.join().expect("the echo answers");
        self.exchanged.load(Ordering::Relaxed)
    }
}

fn timed(socket: UdpSocket) -> UdpSocket {
    socket
        .set_read_timeout(Some(Duration::from_millis(100)))
        .expect("a time");
    socket
}

fn answer(socket: &UdpSocket, stop: &AtomicBool) {
    let mut packet = [0; 64];
    loop {
        match socket.recv_from(&mut packet) {
            Ok((length, from)) => {
                socket.send_to(&packet[..length], from).expect("an answer");
            }
            // The sender ends first, so nothing is under way any more.
            Err(_) if stop.load(Ordering::Relaxed) => return,
            Err(_) => {}
        }
    }
}

fn exchange(socket: &UdpSocket, exchanged: &AtomicU64, stop: &AtomicBool) {
    let mut next = 0_u64;
    let mut under_way = BTreeSet::new();
    let mut last = Instant::now();
    let mut packet = [0; 8];
    loop {
        while under_way.len() < WINDOW && !stop.load(Ordering::Relaxed) {
            socket.send(&next.to_be_bytes()).expect("a packet is sent");
            under_way.insert(next);
            next += 1;
        }
        if under_way.is_empty() {
            return;
        }
        match socket.recv(&mut packet) {
            Ok(_) => {
                assert!(
                    under_way.remove(&u64::from_be_bytes(packet)),
                    "an echo twice"
                );
                exchanged.fetch_add(1, Ordering::Relaxed);
                last = Instant::now();
            }
            Err(_) => assert!(last.elapsed() < PATIENCE, "lost: {under_way:?}"),
        }
        // One that is lost while others pass shows as the oldest.
        let oldest = under_way.first().copied().unwrap_or(next);
        assert!(next - oldest < 100_000, "lost: {oldest}");
    }
}
