//! How many questions a second the resolver answers, beside aardvark-dns (netavark's) with the
//! same zone on the same loop-back.

use std::fs;
use std::io::{IoSlice, IoSliceMut, Read};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use ipvlan_ctl::dns::{self, Member, Server, View, Zone};
use ipvlan_ctl::kernel::Netns;
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{MsgFlags, MultiHeaders, recvmmsg, sendmmsg, setsockopt, sockopt};
use nix::sys::time::TimeVal;
use nix::unistd::Pid;

use crate::sandbox;
use crate::table::{Case, Compare, Table, in_turn};

/// Endpoints in the zone, each with a name, an alias and an address.
const ENDPOINTS: u8 = 200;
/// Questions of one sample.
const QUESTIONS: u16 = 10_000;
const IN_FLIGHT: usize = 64;
/// An answer that takes longer is lost.
const PATIENCE: Duration = Duration::from_secs(5);

/// Where aardvark-dns listens, and the one in its zone who asks it.
const BRIDGE: Ipv4Addr = Ipv4Addr::new(10, 89, 0, 1);
const ASKER: Ipv4Addr = address(0);

#[derive(clap::Args)]
pub struct Args {
    /// Samples of each case
    #[arg(long, value_name = "N", default_value_t = 15)]
    rounds: usize,
    /// The executable of aardvark-dns
    #[arg(long, value_name = "FILE")]
    aardvark: PathBuf,
}

/// Asks both in turn. No question may be lost.
pub fn measure(args: &Args) -> Result<Vec<Table>> {
    sandbox::enter()?;
    sandbox::sh(&format!("ip addr add {BRIDGE}/16 dev lo"))?;
    let _ours = Ended(
        Command::new(std::env::current_exe()?)
            .arg("answer")
            .stdin(Stdio::piped())
            .spawn()
            .context("cannot start ourselves")?,
    );
    let version = Command::new(&args.aardvark).arg("--version").output();
    let version = version.with_context(|| args.aardvark.display().to_string())?;
    let theirs = String::from_utf8_lossy(&version.stdout).trim().to_owned();
    let _aardvark = aardvark(&args.aardvark)?;

    let askers = [
        Asker::new(ASKER, BRIDGE)?,
        Asker::new(Ipv4Addr::LOCALHOST, dns::ADDRESS)?,
    ];
    for (asker, whose) in askers.iter().zip([theirs.as_str(), "ipvlan-ctl"]) {
        asker.wait_until_ready().with_context(|| whose.to_owned())?;
    }
    let cases = vec![
        Case::new(theirs.clone(), None, || askers[0].sample()),
        Case::new("ipvlan-ctl", Some(&theirs), || askers[1].sample()),
    ];
    Ok(vec![Table {
        title: format!("{QUESTIONS} questions, {IN_FLIGHT} in flight, {ENDPOINTS} endpoints"),
        unit: "answers/s".into(),
        compare: Compare::Ratio,
        rows: in_turn(args.rounds, cases)?,
        targets: vec![],
    }])
}

/// What `measure` starts: answers in its own namespace until its input ends.
pub fn answer() -> Result<()> {
    let members: Vec<Member> = (0..ENDPOINTS)
        .map(|n| Member {
            name: name(n),
            others: vec![alias(n)],
            addresses: vec![address(n).into()],
        })
        .collect();
    let view = View {
        zones: vec![Arc::new(Zone::new("bench", &members))],
        upstream: None,
    };
    let mut server = Server::start()?;
    server.serve(0, &Netns::open(Path::new("/proc/self/ns/net"))?, view)?;
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

/// Ends with the value.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// It goes into the background by itself, and ends with the value.
struct Aardvark(Pid);

impl Drop for Aardvark {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = kill(self.0, Signal::SIGTERM);
    }
}

/// Starts aardvark-dns as netavark does, with its file of the network.
fn aardvark(program: &Path) -> Result<Aardvark> {
    let folder = Path::new("/run/aardvark");
    fs::create_dir(folder)?;
    let mut network = format!("{BRIDGE}\n");
    for n in 0..ENDPOINTS {
        network += &format!("{n:064x} {}  {},{}\n", address(n), name(n), alias(n));
    }
    fs::write(folder.join("bench"), network)?;
    let mut run = Command::new(program);
    run.arg("--config")
        .arg(folder)
        .args(["--port", "53", "run"]);
    // It finds no syslog in the sandbox, and says so.
    run.stdout(Stdio::null()).stderr(Stdio::null());
    let status = run.status().context("cannot start aardvark-dns")?;
    ensure!(status.success(), "aardvark-dns ended with {status}");
    let pid = fs::read_to_string(folder.join("aardvark.pid")).context("aardvark.pid")?;
    Ok(Aardvark(Pid::from_raw(pid.trim().parse()?)))
}

fn name(n: u8) -> String {
    format!("service-{n}")
}

fn alias(n: u8) -> String {
    format!("{n:012x}")
}

const fn address(n: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 89, 1, n)
}

/// Asks one server for the addresses of all endpoints in turn.
struct Asker {
    socket: UdpSocket,
    /// By endpoint; the first two bytes, the id, are the question's own.
    questions: Vec<Vec<u8>>,
}

impl Asker {
    fn new(from: Ipv4Addr, server: Ipv4Addr) -> Result<Self> {
        let socket = UdpSocket::bind(SocketAddr::from((from, 0)))?;
        socket.connect((IpAddr::from(server), 53))?;
        Ok(Self {
            socket,
            questions: (0..ENDPOINTS).map(|n| question(&name(n))).collect(),
        })
    }

    fn wait_until_ready(&self) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        self.give_up_after(Duration::from_millis(20))?;
        loop {
            // Nobody may listen yet.
            let asked = self.socket.send(&self.questions[0]);
            let answer = asked.and_then(|_| self.socket.recv(&mut [0; 512]));
            if answer.is_ok() {
                return self.give_up_after(PATIENCE);
            }
            ensure!(Instant::now() < deadline, "it does not answer");
        }
    }

    fn give_up_after(&self, patience: Duration) -> Result<()> {
        let patience = TimeVal::new(
            patience.as_secs().try_into()?,
            patience.subsec_micros().into(),
        );
        Ok(setsockopt(
            &self.socket,
            sockopt::ReceiveTimeout,
            &patience,
        )?)
    }

    /// Answers per second.
    fn sample(&self) -> Result<f64> {
        let mut answered = vec![false; usize::from(QUESTIONS)];
        let mut packets = vec![[0; 512]; IN_FLIGHT];
        let mut headers = MultiHeaders::preallocate(IN_FLIGHT, None);
        let start = Instant::now();
        let mut next = 0;
        self.ask(&mut next, IN_FLIGHT)?;
        let mut left = usize::from(QUESTIONS);
        while left > 0 {
            let lengths: Vec<usize> = {
                let mut places: Vec<[IoSliceMut; 1]> =
                    packets.iter_mut().map(|p| [IoSliceMut::new(p)]).collect();
                recvmmsg::<_, (), _>(
                    self.socket.as_raw_fd(),
                    &mut headers,
                    &mut places,
                    MsgFlags::MSG_WAITFORONE,
                    None,
                )
                .with_context(|| format!("{left} questions have no answer"))?
                .map(|received| received.bytes)
                .collect()
            };
            for (packet, length) in packets.iter().zip(&lengths) {
                let id = check(&packet[..*length])?;
                let twice = std::mem::replace(&mut answered[usize::from(id)], true);
                ensure!(!twice, "question {id} was answered twice");
            }
            left -= lengths.len();
            self.ask(&mut next, lengths.len())?;
        }
        Ok(f64::from(QUESTIONS) / start.elapsed().as_secs_f64())
    }

    /// Sends as many of the next questions as there are.
    fn ask(&self, next: &mut u16, count: usize) -> Result<()> {
        let end = QUESTIONS.min(*next + u16::try_from(count)?);
        let questions: Vec<Vec<u8>> = (*next..end)
            .map(|id| {
                let mut question = self.questions[usize::from(id) % self.questions.len()].clone();
                question[..2].copy_from_slice(&id.to_be_bytes());
                question
            })
            .collect();
        let slices: Vec<[IoSlice; 1]> = questions.iter().map(|q| [IoSlice::new(q)]).collect();
        let mut headers = MultiHeaders::preallocate(slices.len(), None);
        let sent = sendmmsg(
            self.socket.as_raw_fd(),
            &mut headers,
            &slices,
            vec![None::<()>; slices.len()],
            [],
            MsgFlags::empty(),
        )?;
        ensure!(sent.count() == slices.len(), "not all questions were sent");
        *next = end;
        Ok(())
    }
}

/// For the A records of a name.
fn question(name: &str) -> Vec<u8> {
    let mut packet = vec![0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, name.len() as u8];
    packet.extend(name.as_bytes());
    packet.extend([0, 0, 1, 0, 1]);
    packet
}

/// The id of an answer that has the one right address.
fn check(packet: &[u8]) -> Result<u16> {
    ensure!(packet.len() > 16, "an answer of {} bytes", packet.len());
    let id = u16::from_be_bytes([packet[0], packet[1]]);
    let endpoint = (usize::from(id) % usize::from(ENDPOINTS)) as u8;
    let good = packet[3] & 0x0f == 0
        && packet[6..8] == [0, 1]
        && packet.ends_with(&address(endpoint).octets());
    ensure!(good, "a wrong answer: {packet:x?}");
    Ok(id)
}
