//! A container joins a network: by our command line, by our CNI plugin, and by those who do the
//! same.
//!
//! Each attachment is what its caller waits for, from the start of a process to its end. All
//! programs but Docker's lie in memory, so that nobody waits for the VM's disk.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::json;

use crate::sandbox::{self, sh};
use crate::table::{Case, Compare, Row, Table, Target, in_turn};

const PROGRAMS: &str = "/run/programs";
const CNI_CONF: &str = "/run/cni";

/// How many attachments make a sample of CPU time, which is counted in ticks of 10 ms.
const BLOCK: usize = 20;

#[derive(clap::Args)]
pub struct Args {
    /// The ipvlan-ctl to measure
    #[arg(long, value_name = "FILE")]
    program: PathBuf,
    /// Root of what is unpacked for Podman: netavark, and the libraries that it needs
    #[arg(long, value_name = "DIR")]
    podman: PathBuf,
    /// Root of what is unpacked for Docker
    #[arg(long, value_name = "DIR")]
    docker: PathBuf,
    /// Single attachments of each
    #[arg(long, value_name = "N", default_value_t = 15)]
    rounds: usize,
    /// Attachments of each in a row
    #[arg(long, value_name = "N", default_value_t = 200)]
    row: usize,
}

/// First one attachment of each in turn, then many of each but Docker's.
pub fn measure(args: &Args) -> Result<Vec<Table>> {
    ensure!(
        args.row >= 2 * BLOCK && args.row.is_multiple_of(BLOCK),
        "invalid --row {}: it is a multiple of {BLOCK}, at least {}",
        args.row,
        2 * BLOCK
    );
    sandbox::enter()?;
    prepare(args)?;
    let one = one_by_one(args)?;
    let (times, work) = in_a_row(args)?;
    let mut tables = [
        table("One attachment", one),
        table(&format!("One of {} in a row", args.row), times),
        table("CPU time of the whole machine for one of these", work),
    ];
    for table in &mut tables {
        let got = table.against(Door::Cni.what())?;
        let what = format!("{}, against the reference", Door::Cni.what());
        table.targets.push(Target::at_most(what, got, 0.2));
    }
    let flat = flatness(&tables[1])?;
    tables[1].targets.push(flat);
    Ok(tables.into())
}

/// The last attachments of ours by CNI against the first.
fn flatness(in_a_row: &Table) -> Result<Target> {
    let ours = in_a_row.row(Door::Cni.what()).context("ours is in it")?;
    let part = |samples: &[f64]| Row {
        samples: samples.to_vec(),
        ..ours.clone()
    };
    let first = part(&ours.samples[..BLOCK]).median();
    let last = part(&ours.samples[ours.samples.len() - BLOCK..]).median();
    let what = format!("{}, the last {BLOCK} against the first", Door::Cni.what());
    Ok(Target::at_most(what, last / first, 1.2))
}

fn table(title: &str, rows: Vec<Row>) -> Table {
    Table {
        title: title.into(),
        unit: "ms".into(),
        compare: Compare::Ratio,
        rows,
        targets: vec![],
    }
}

/// Whoever makes attachments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Door {
    Cli,
    Cni,
    Reference,
    Netavark,
}

impl Door {
    const ALL: [Self; 4] = [Self::Reference, Self::Cni, Self::Cli, Self::Netavark];

    fn what(self) -> &'static str {
        match self {
            Self::Cli => "ipvlan-ctl network connect",
            Self::Cni => "ipvlan-ctl by CNI",
            Self::Reference => "CNI's ipvlan and host-local",
            Self::Netavark => "netavark's ipvlan",
        }
    }

    /// What the others are compared with.
    fn baseline(self) -> Option<&'static str> {
        (self != Self::Reference).then_some(Self::Reference.what())
    }

    /// Each has a parent and a /16 of its own.
    fn parent(self) -> String {
        format!("parent{}", self as usize)
    }

    fn namespace(self, number: usize) -> String {
        format!("n{}-{number}", self as usize)
    }

    /// Makes the attachment of the namespace with this number; returns how long that took.
    fn attach(self, number: usize) -> Result<Duration> {
        let name = self.namespace(number);
        let (mut command, input) = match self {
            Self::Cli => {
                let line = format!("network connect bench {name}");
                (sandbox::ctl(&program("ipvlan-ctl"), &line), String::new())
            }
            Self::Cni => (sandbox::ctl(&program("ipvlan-ctl-cni"), ""), self.conf()?),
            Self::Reference => (Command::new(program("ipvlan")), self.conf()?),
            Self::Netavark => netavark(self, &name, number),
        };
        command
            .env("CNI_COMMAND", "ADD")
            .env("CNI_CONTAINERID", &name)
            .env("CNI_NETNS", format!("/run/netns/{name}"))
            .env("CNI_IFNAME", "eth0")
            .env("CNI_PATH", PROGRAMS);
        time(&mut command, &input)
    }

    fn conf(self) -> Result<String> {
        Ok(fs::read_to_string(format!("{CNI_CONF}/{}", self.parent()))?)
    }
}

fn program(name: &str) -> PathBuf {
    Path::new(PROGRAMS).join(name)
}

/// What Podman hands to netavark.
fn netavark(door: Door, name: &str, number: usize) -> (Command, String) {
    let address = format!("10.4.{}.{}", number / 250, 2 + number % 250);
    let input = json!({
        "container_id": format!("{number:064x}"),
        "container_name": name,
        "networks": {"bench": {"interface_name": "eth0", "static_ips": [address]}},
        "network_info": {"bench": {
            "name": "bench",
            "id": format!("{:064x}", 1),
            "driver": "ipvlan",
            "network_interface": door.parent(),
            "dns_enabled": false, "internal": false, "ipv6_enabled": false,
            "subnets": [{"subnet": "10.4.0.0/16", "gateway": "10.4.0.1"}],
            "ipam_options": {"driver": "host-local"},
        }},
    });
    // By the loader of the suite that it is built for.
    let mut command = Command::new(program("podman/ld-linux-x86-64.so.2"));
    command
        .args(["--library-path", &format!("{PROGRAMS}/podman")])
        .arg(program("podman/netavark"))
        .args(["--config", "/run/netavark", "setup"])
        .arg(format!("/run/netns/{name}"))
        .env("NETAVARK_FW", "none");
    (command, input.to_string())
}

/// Runs a command to its end.
fn time(command: &mut Command, input: &str) -> Result<Duration> {
    let started = Instant::now();
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {command:?}"))?;
    let mut stdin = child.stdin.take().context("stdin is piped")?;
    // Some do not read it.
    let _ = stdin.write_all(input.as_bytes());
    drop(stdin);
    let output = child.wait_with_output()?;
    let time = started.elapsed();
    ensure!(
        output.status.success(),
        "{command:?} failed: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(time)
}

/// Programs, parents, namespaces, and the networks that are made once.
fn prepare(args: &Args) -> Result<()> {
    let (ours, podman) = (args.program.display(), args.podman.display());
    sh(&format!(
        "mkdir -p {PROGRAMS}/podman {CNI_CONF} /run/netavark
         cp {ours} {PROGRAMS}/ipvlan-ctl
         ln {PROGRAMS}/ipvlan-ctl {PROGRAMS}/ipvlan-ctl-cni
         cp /usr/lib/cni/ipvlan /usr/lib/cni/host-local {PROGRAMS}
         cp {podman}/usr/lib/podman/netavark {PROGRAMS}/podman
         cd {podman}/usr/lib/x86_64-linux-gnu
         cp ld-linux-x86-64.so.2 libc.so.6 libm.so.6 libgcc_s.so.1 {PROGRAMS}/podman"
    ))?;
    let each = args.rounds.max(1) + 1 + args.row;
    let mut batch = String::new();
    for door in Door::ALL {
        let parent = door.parent();
        sh(&format!(
            "ip link add {parent} type dummy; ip link set {parent} up"
        ))?;
        for number in 0..each {
            batch += &format!("netns add {}\n", door.namespace(number));
        }
    }
    sh(&format!("ip -batch - <<'END'\n{batch}END"))?;

    let create = format!(
        "network create --subnet 10.1.0.0/16 -o parent={} bench",
        Door::Cli.parent()
    );
    time(&mut sandbox::ctl(&program("ipvlan-ctl"), &create), "")?;
    for (door, kind, ipam) in [
        (
            Door::Cni,
            "ipvlan-ctl-cni",
            json!({"type": "ipvlan-ctl", "subnets": [{"subnet": "10.2.0.0/16"}]}),
        ),
        (
            Door::Reference,
            "ipvlan",
            json!({
                "type": "host-local", "dataDir": "/run/host-local",
                "ranges": [[{"subnet": "10.3.0.0/16"}]], "routes": [{"dst": "0.0.0.0/0"}],
            }),
        ),
    ] {
        let conf = json!({
            "cniVersion": "1.0.0", "name": format!("{kind}-bench"), "type": kind,
            "master": door.parent(), "ipam": ipam,
        });
        fs::write(format!("{CNI_CONF}/{}", door.parent()), conf.to_string())?;
    }
    Ok(())
}

/// One attachment of each, in turn, Docker's too.
fn one_by_one(args: &Args) -> Result<Vec<Row>> {
    let docker = Docker::start(&args.docker)?;
    let mut cases = Vec::new();
    for door in Door::ALL {
        let mut numbers = 0..;
        cases.push(Case::new(door.what(), door.baseline(), move || {
            let number = numbers.next().context("numbers have no end")?;
            Ok(door.attach(number)?.as_secs_f64() * 1e3)
        }));
    }
    cases.push(Case::new(
        "Docker's ipvlan, docker network connect",
        Some(Door::Reference.what()),
        || Ok(docker.attach()?.as_secs_f64() * 1e3),
    ));
    in_turn(args.rounds, cases)
}

/// Many attachments of each, in turn by blocks: how long each took, and the machine's CPU time.
fn in_a_row(args: &Args) -> Result<(Vec<Row>, Vec<Row>)> {
    let rows = || {
        Door::ALL.map(|door| Row {
            what: door.what().into(),
            baseline: door.baseline().map(Into::into),
            samples: vec![],
        })
    };
    let (mut times, mut work) = (rows(), rows());
    let first = args.rounds.max(1) + 1;
    for begin in (first..first + args.row).step_by(BLOCK) {
        for (n, door) in Door::ALL.into_iter().enumerate() {
            let before = busy()?;
            for number in begin..begin + BLOCK {
                times[n]
                    .samples
                    .push(door.attach(number)?.as_secs_f64() * 1e3);
            }
            let spent = busy()? - before;
            work[n]
                .samples
                .push(spent.as_secs_f64() * 1e3 / BLOCK as f64);
        }
    }
    Ok((times.into(), work.into()))
}

/// How long all CPUs were busy since the start (proc(5), `stat`).
fn busy() -> Result<Duration> {
    let stat = fs::read_to_string("/proc/stat")?;
    let first = stat.lines().next().unwrap_or_default();
    let ticks: Vec<u64> = first
        .split_whitespace()
        .skip(1)
        .map_while(|n| n.parse().ok())
        .collect();
    // user, nice, system, idle, iowait, irq, softirq
    let [user, nice, system, _, _, irq, softirq, ..] = ticks[..] else {
        bail!("/proc/stat begins with {first:?}");
    };
    Ok(Duration::from_millis(
        10 * (user + nice + system + irq + softirq),
    ))
}

/// A Docker daemon with one running container, which is on another network already.
struct Docker {
    root: PathBuf,
    daemon: Child,
}

impl Docker {
    const HOME: &str = "/run/dockerd";

    fn start(root: &Path) -> Result<Self> {
        sh(&format!(
            "mkdir -p {0}/image/bin; cp /bin/busybox {0}/image/bin/sleep",
            Self::HOME
        ))?;
        let log = fs::File::create(format!("{}/log", Self::HOME))?;
        let mut docker = Self {
            root: root.to_owned(),
            daemon: with_path(Command::new("env"), root)?
                .arg("dockerd")
                .args(["--storage-driver=vfs", "--bridge=none", "--iptables=false"])
                .args(["--ip6tables=false", "--log-level=warn"])
                .arg(format!("--data-root={}/data", Self::HOME))
                .arg(format!("--exec-root={}/exec", Self::HOME))
                .arg(format!("--pidfile={}/pid", Self::HOME))
                .arg(format!("--host=unix://{}/socket", Self::HOME))
                .stdout(Stdio::null())
                .stderr(log)
                .spawn()
                .context("cannot start dockerd")?,
        };
        let deadline = Instant::now() + Duration::from_secs(120);
        while docker.docker("version").is_err() {
            let ended = docker.daemon.try_wait()?;
            ensure!(
                ended.is_none() && Instant::now() < deadline,
                "dockerd does not answer: {}",
                fs::read_to_string(format!("{}/log", Self::HOME))?
            );
            std::thread::sleep(Duration::from_millis(200));
        }
        sh(
            "ip link add docker0 type dummy; ip link add docker1 type dummy
            ip link set docker0 up; ip link set docker1 up",
        )?;
        docker.docker("network create -d ipvlan --subnet 10.5.0.0/16 -o parent=docker0 first")?;
        docker.docker("network create -d ipvlan --subnet 10.6.0.0/16 -o parent=docker1 bench")?;
        let import = format!("tar -C {0}/image -c -f {0}/tar .", Self::HOME);
        sh(&import)?;
        docker.docker(&format!("import {}/tar image", Self::HOME))?;
        docker.docker("run -d --name busy --network first image sleep 36000")?;
        Ok(docker)
    }

    fn docker(&self, line: &str) -> Result<Duration> {
        let mut docker = with_path(Command::new("env"), &self.root)?;
        docker
            .arg("docker")
            .args(line.split_whitespace())
            .env("DOCKER_HOST", format!("unix://{}/socket", Self::HOME));
        time(&mut docker, "")
    }

    /// Connects the container once more, and takes it off again.
    fn attach(&self) -> Result<Duration> {
        let time = self.docker("network connect bench busy")?;
        self.docker("network disconnect bench busy")?;
        Ok(time)
    }
}

/// `env`, with Docker's programs in PATH for what it starts.
fn with_path(mut env: Command, root: &Path) -> Result<Command> {
    let root = root.display();
    let rest = std::env::var("PATH")?;
    env.arg(format!("PATH={root}/usr/sbin:{root}/usr/bin:{rest}"));
    Ok(env)
}

impl Drop for Docker {
    fn drop(&mut self) {
        let _ = self.docker("rm -f busy");
        // It ends containerd by itself on SIGTERM.
        let _ = sh(&format!("kill {}", self.daemon.id()));
        let _ = self.daemon.wait();
    }
}
