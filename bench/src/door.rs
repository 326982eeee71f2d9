//! Whoever makes a container join a network: our command line and plugins, and those who do the
//! same.
//!
//! All programs that are started for it lie in memory, so that nobody waits for the VM's disk.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::json;

use crate::docker;
use crate::sandbox::{self, sh};

const PROGRAMS: &str = "/run/programs";

/// Each has a parent, a network with a /16, and containers of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Door {
    Reference,
    Netavark,
    Docker,
    Cli,
    Cni,
    CniByDaemon,
    DockerByDaemon,
}

/// What is done through a door.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Deed {
    Attach,
    Detach,
}

impl Door {
    /// Those that need our daemon are beside each other.
    pub const ALL: [Self; 7] = [
        Self::Reference,
        Self::Netavark,
        Self::Docker,
        Self::Cli,
        Self::Cni,
        Self::CniByDaemon,
        Self::DockerByDaemon,
    ];

    pub fn what(self) -> &'static str {
        match self {
            Self::Reference => "CNI's ipvlan and host-local",
            Self::Netavark => "netavark's ipvlan",
            Self::Docker => "Docker, driver ipvlan",
            Self::Cli => "ipvlan-ctl network connect",
            Self::Cni => "ipvlan-ctl by CNI",
            Self::CniByDaemon => "ipvlan-ctl by CNI, daemon running",
            Self::DockerByDaemon => "Docker, driver ipvlan-ctl",
        }
    }

    pub fn is_docker(self) -> bool {
        matches!(self, Self::Docker | Self::DockerByDaemon)
    }

    /// Our daemon runs for these, and for no other.
    pub fn needs_daemon(self) -> bool {
        matches!(self, Self::CniByDaemon | Self::DockerByDaemon)
    }

    fn parent(self) -> String {
        format!("parent{}", self as usize)
    }

    fn network(self) -> String {
        format!("bench{}", self as usize)
    }

    fn prefix(self) -> String {
        format!("10.{}", 1 + self as usize)
    }

    /// Docker's are few, and join again and again.
    fn container(self, number: usize) -> String {
        match self.is_docker() {
            true => docker::container(number),
            false => format!("n{}-{number}", self as usize),
        }
    }

    fn conf(self) -> String {
        format!("/run/{}.json", self.network())
    }

    /// Makes the network, and so many containers.
    pub fn open(self, containers: usize) -> Result<()> {
        let (parent, network) = (self.parent(), self.network());
        let subnet = format!("{}.0.0/16", self.prefix());
        sh(&format!(
            "ip link add {parent} type dummy; ip link set {parent} up"
        ))?;
        let create = |driver: &str| {
            format!("network create -d {driver} --subnet {subnet} -o parent={parent} {network}")
        };
        let conf = match self {
            Self::Docker => return time(&mut docker::client(&create("ipvlan")), "").map(drop),
            Self::DockerByDaemon => {
                return time(&mut docker::client(&create("ipvlan-ctl")), "").map(drop);
            }
            Self::Cli => {
                time(&mut ctl("ipvlan-ctl", &create("ipvlan")), "")?;
                None
            }
            Self::Cni | Self::CniByDaemon => Some((
                "ipvlan-ctl-cni",
                json!({"type": "ipvlan-ctl", "subnets": [{"subnet": subnet}]}),
            )),
            Self::Reference => Some((
                "ipvlan",
                json!({
                    "type": "host-local", "dataDir": "/run/host-local",
                    "ranges": [[{"subnet": subnet}]], "routes": [{"dst": "0.0.0.0/0"}],
                }),
            )),
            Self::Netavark => None,
        };
        if let Some((kind, ipam)) = conf {
            let conf = json!({
                "cniVersion": "1.0.0", "name": network, "type": kind, "master": parent,
                "ipam": ipam,
            });
            fs::write(self.conf(), conf.to_string())?;
        }
        let batch: String = (0..containers)
            .map(|number| format!("netns add {}\n", self.container(number)))
            .collect();
        sh(&format!("ip -batch - <<'END'\n{batch}END"))
    }

    /// Lets the container with this number join; returns how long that took.
    pub fn attach(self, number: usize) -> Result<Duration> {
        let (mut command, input) = self.call(Deed::Attach, number)?;
        time(&mut command, &input)
    }

    /// Lets it leave.
    pub fn detach(self, number: usize) -> Result<()> {
        if self.is_docker() {
            return docker::disconnect(&self.network(), &self.container(number));
        }
        let (mut command, input) = self.call(Deed::Detach, number)?;
        time(&mut command, &input).map(drop)
    }

    /// The process that does it, and what it reads.
    fn call(self, deed: Deed, number: usize) -> Result<(Command, String)> {
        let (network, container) = (self.network(), self.container(number));
        let [connect, setup, verb] = match deed {
            Deed::Attach => ["connect", "setup", "ADD"],
            Deed::Detach => ["disconnect", "teardown", "DEL"],
        };
        let line = format!("network {connect} {network} {container}");
        let mut command = match self {
            Self::Docker | Self::DockerByDaemon => docker::client(&line),
            Self::Cli => ctl("ipvlan-ctl", &line),
            Self::Cni | Self::CniByDaemon => ctl("ipvlan-ctl-cni", ""),
            Self::Reference => Command::new(program("ipvlan")),
            // By the loader of the suite that it is built for.
            Self::Netavark => Command::new(program("podman/ld-linux-x86-64.so.2")),
        };
        let input = match self {
            Self::Docker | Self::DockerByDaemon | Self::Cli => String::new(),
            Self::Cni | Self::CniByDaemon | Self::Reference => {
                command
                    .env("CNI_COMMAND", verb)
                    .env("CNI_CONTAINERID", &container)
                    .env("CNI_NETNS", format!("/run/netns/{container}"))
                    .env("CNI_IFNAME", "eth0")
                    .env("CNI_PATH", PROGRAMS);
                fs::read_to_string(self.conf())?
            }
            Self::Netavark => {
                command
                    .args(["--library-path", &format!("{PROGRAMS}/podman")])
                    .arg(program("podman/netavark"))
                    .args(["--config", "/run/netavark", setup])
                    .arg(format!("/run/netns/{container}"))
                    .env("NETAVARK_FW", "none");
                self.as_podman_says(number)
            }
        };
        Ok((command, input))
    }

    /// What Podman hands to netavark.
    fn as_podman_says(self, number: usize) -> String {
        let (network, prefix) = (self.network(), self.prefix());
        let address = format!("{prefix}.{}.{}", number / 250, 2 + number % 250);
        let networks = json!({&network: {"interface_name": "eth0", "static_ips": [address]}});
        let info = json!({
            "name": network,
            "id": format!("{:064x}", 1),
            "driver": "ipvlan",
            "network_interface": self.parent(),
            "dns_enabled": false, "internal": false, "ipv6_enabled": false,
            "subnets": [{
                "subnet": format!("{prefix}.0.0/16"), "gateway": format!("{prefix}.0.1"),
            }],
            "ipam_options": {"driver": "host-local"},
        });
        let said = json!({
            "container_id": format!("{number:064x}"),
            "container_name": self.container(number),
            "networks": networks,
            "network_info": {network: info},
        });
        said.to_string()
    }
}

/// Puts our program into memory, by both its names.
pub fn install(ours: &Path) -> Result<()> {
    let ours = ours.display();
    sh(&format!(
        "mkdir -p {PROGRAMS}; cp {ours} {PROGRAMS}/ipvlan-ctl
         ln {PROGRAMS}/ipvlan-ctl {PROGRAMS}/ipvlan-ctl-cni"
    ))
}

/// Puts the others' there, from the roots of what is unpacked for Podman and for Docker.
pub fn install_others(podman: &Path, docker: &Path) -> Result<()> {
    let (podman, docker) = (podman.display(), docker.display());
    sh(&format!(
        "mkdir -p {PROGRAMS}/podman /run/netavark
         cp /usr/lib/cni/ipvlan /usr/lib/cni/host-local {docker}/usr/bin/docker {PROGRAMS}
         cp {podman}/usr/lib/podman/netavark {PROGRAMS}/podman
         cd {podman}/usr/lib/x86_64-linux-gnu
         cp ld-linux-x86-64.so.2 libc.so.6 libm.so.6 libgcc_s.so.1 {PROGRAMS}/podman"
    ))
}

/// One of the programs in memory.
pub fn program(name: &str) -> PathBuf {
    Path::new(PROGRAMS).join(name)
}

fn ctl(name: &str, line: &str) -> Command {
    sandbox::ctl(&program(name), line)
}

/// Runs a command to its end.
pub fn time(command: &mut Command, input: &str) -> Result<Duration> {
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

/// Our daemon, which ends with the value.
#[derive(Debug)]
pub struct Daemon(Child);

impl Daemon {
    /// Starts one, and waits until it is ready.
    pub fn start() -> Result<Self> {
        let log = "/run/daemon.log";
        let mut command = ctl("ipvlan-ctl", "daemon --http off");
        command
            .env("IPVLAN_CTL_DOCKER_API", docker::SOCKET)
            .stdout(Stdio::null())
            .stderr(fs::File::create(log)?);
        let mut daemon = Self(command.spawn().context("cannot start our daemon")?);
        let deadline = Instant::now() + Duration::from_secs(60);
        while time(&mut ctl("ipvlan-ctl", "daemon status"), "").is_err() {
            ensure!(
                daemon.0.try_wait()?.is_none() && Instant::now() < deadline,
                "our daemon does not answer: {}",
                fs::read_to_string(log)?
            );
            sleep(Duration::from_millis(100));
        }
        Ok(daemon)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = sh(&format!("kill {}", self.0.id()));
        let _ = self.0.wait();
    }
}
