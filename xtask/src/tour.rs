//! The main job, shown: the seed page's networks on a real kernel, with real pings. Runs as root
//! in a network namespace that may be filled: a VM's, or one of its own on the host.
//!
//! Each claim is checked; the tour fails if one does not hold.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

const HOST: &str = "192.168.1.2";
const WIRE: &str = "192.168.1.3";
const ISOLATED: [(&str, &[&str]); 3] = [
    ("isolated1", &["--subnet=192.168.10.0/24"]),
    ("isolated2", &["--subnet=192.168.11.0/24", "--internal"]),
    ("isolated3", &[]),
];

pub fn tour() -> Result<ExitCode> {
    let mut tour = Tour::new()?;
    let walked = tour.walk();
    tour.leave();
    walked?;
    if tour.broken.is_empty() {
        println!("\nEvery claim of the tour holds.");
        return Ok(ExitCode::SUCCESS);
    }
    println!("\nThese claims of the tour do NOT hold:");
    for claim in &tour.broken {
        println!("  {claim}");
    }
    Ok(ExitCode::FAILURE)
}

struct Tour {
    program: OsString,
    /// State, run folder and pins of the tour's own: an installed ipvlan-ctl is not touched.
    folder: PathBuf,
    broken: Vec<String>,
}

impl Tour {
    fn new() -> Result<Self> {
        let program = std::env::var_os("IPVLAN_CTL").context("IPVLAN_CTL names no ipvlan-ctl")?;
        let folder = std::env::temp_dir().join(format!("ipvlan-tour-{}", std::process::id()));
        Ok(Self {
            program,
            folder,
            broken: Vec::new(),
        })
    }

    fn walk(&mut self) -> Result<()> {
        heading("A host and its wire");
        println!("# eth1 ({HOST}) is wired to a second host, the namespace `wire` ({WIRE}).");
        shell(&format!(
            "ip link set lo up
             ip netns add wire
             ip link add eth1 type veth peer name eth0 netns wire
             ip addr add {HOST}/24 dev eth1
             ip link set eth1 up
             ip -n wire addr add {WIRE}/24 dev eth0
             ip -n wire link set eth0 up"
        ))?;
        self.claim_ping("the host reaches the wire", Place::Host, WIRE, true)?;

        heading("The page's db_net: ipvlan mode l2 on eth1");
        self.ctl(&[
            "network",
            "create",
            "-d",
            "ipvlan",
            "--subnet=192.168.1.0/24",
            "--gateway=192.168.1.1",
            "-o",
            "ipvlan_mode=l2",
            "-o",
            "parent=eth1",
            "db_net",
        ])?;
        for (name, address) in [("ipv1", "192.168.1.11"), ("ipv2", "192.168.1.12")] {
            let ip = format!("--ip={address}");
            self.ctl(&[
                "run",
                "-d",
                "--net=db_net",
                "--name",
                name,
                &ip,
                "sleep",
                "600",
            ])?;
        }
        self.ctl(&["network", "ls"])?;
        let ipv1 = self.endpoint("db_net", "ipv1")?;
        let ipv2 = self.endpoint("db_net", "ipv2")?;
        println!("ipv2# ip -details address show eth0");
        print!(
            "{}",
            output(Place::Endpoint(&ipv2).command("ip -details address show eth0"))?
        );

        heading("Endpoints reach each other, and the wire");
        self.claim_ping(
            "ipv2 reaches ipv1",
            Place::Endpoint(&ipv2),
            "192.168.1.11",
            true,
        )?;
        self.claim_ping("ipv1 reaches the wire", Place::Endpoint(&ipv1), WIRE, true)?;
        self.claim_ping("the wire reaches ipv1", Place::Wire, "192.168.1.11", true)?;

        heading("Host and endpoints do not");
        self.claim_ping(
            "ipv1 does not reach the host",
            Place::Endpoint(&ipv1),
            HOST,
            false,
        )?;
        self.claim_drop("ipv1", "endpoint-to-host")?;
        self.claim_ping(
            "the host does not reach ipv1",
            Place::Host,
            "192.168.1.11",
            false,
        )?;
        self.claim_drop("ipv1", "host-to-endpoint")?;

        heading("The page's three isolated networks");
        for (network, options) in ISOLATED {
            self.ctl(
                &[
                    &["network", "create", "-d", "ipvlan"][..],
                    options,
                    &[network],
                ]
                .concat(),
            )?;
        }
        for (network, _) in ISOLATED {
            let names = [1, 2].map(|i| format!("{network}-c{i}"));
            let net = format!("--net={network}");
            for name in &names {
                self.ctl(&["run", "-d", &net, "--name", name, "sleep", "600"])?;
            }
            let one = self.endpoint(network, &names[0])?;
            let two = self.endpoint(network, &names[1])?;
            let routes = output(Place::Endpoint(&one).command("ip route"))?;
            println!("{}# ip route\n{}", one.name, routes.trim_end());
            self.claim(
                format!("{network} has no default route"),
                !routes.contains("default"),
            );
            let inside = format!("inside {network}, endpoints reach each other");
            self.claim_ping(&inside, Place::Endpoint(&one), &two.address, true)?;
            // Even with a route of its own making, nothing leaves.
            output(Place::Endpoint(&one).command("ip route add default dev eth0"))?;
            for outside in [WIRE, HOST] {
                let claim = format!("nothing leaves {network} for {outside}");
                self.claim_ping(&claim, Place::Endpoint(&one), outside, false)?;
            }
            self.claim_drop(&one.name, "outside-internal")?;
        }

        heading("What just happened, by endpoint");
        let table = self.ctl(&["stats"])?;
        for name in ["ipv1", "ipv2", "isolated1-c1", "isolated3-c2"] {
            self.claim(format!("stats has a row for {name}"), table.contains(name));
        }
        Ok(())
    }

    /// Takes away what the tour made; on the host nothing else would.
    fn leave(&self) {
        let script = "for pid in $(ip netns pids wire); do kill $pid; done; ip netns del wire
                      ip link del eth1";
        let _ = Command::new("sh").args(["-c", script]).output();
        let _ = std::fs::remove_dir_all(&self.folder);
    }

    /// Shows a command line and its output; fails where the command does.
    fn ctl(&self, words: &[&str]) -> Result<String> {
        println!("$ ipvlan-ctl {}", words.join(" "));
        let output = output(self.ctl_command(words))?;
        print!("{output}");
        Ok(output)
    }

    fn ctl_command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command
            .args(words)
            .env("IPVLAN_CTL_STATE_DIR", self.folder.join("state"))
            .env("IPVLAN_CTL_RUN_DIR", self.folder.join("run"))
            .env(
                "IPVLAN_CTL_PIN_DIR",
                format!("/sys/fs/bpf/ipvlan-tour-{}", std::process::id()),
            );
        command
    }

    fn json(&self, words: &[&str]) -> Result<Value> {
        Ok(serde_json::from_str(&output(self.ctl_command(words))?)?)
    }

    fn endpoint(&self, network: &str, name: &str) -> Result<Endpoint> {
        let json = self.json(&["network", "inspect", network])?;
        let rows = json[0]["Containers"]
            .as_object()
            .context("inspect lists no Containers")?;
        let row = rows
            .values()
            .find(|row| row["Name"] == name)
            .with_context(|| format!("{network} has no endpoint {name}"))?;
        let text = |field: &str| {
            let value = row[field]
                .as_str()
                .with_context(|| format!("{name} has no {field}"))?;
            Ok::<_, anyhow::Error>(value.to_owned())
        };
        let address = text("IPv4Address")?;
        let address = address.split('/').next().unwrap_or_default().to_owned();
        Ok(Endpoint {
            name: name.to_owned(),
            netns: text("Netns")?,
            address,
        })
    }

    fn claim(&mut self, claim: String, holds: bool) {
        println!("=> {claim}: {}", if holds { "yes" } else { "NO" });
        if !holds {
            self.broken.push(claim);
        }
    }

    /// Shows a ping and claims that it is, or is not, answered.
    fn claim_ping(&mut self, claim: &str, from: Place, to: &str, answered: bool) -> Result<()> {
        let ping = format!("ping -n -c 3 -i 0.2 -W 1 {to}");
        println!("{}# {ping}", from.name());
        let output = from.command(&ping).output().context("cannot start ping")?;
        print!("{}", String::from_utf8_lossy(&output.stdout));
        ensure!(
            output.stderr.is_empty(),
            "ping failed: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        self.claim(claim.to_owned(), output.status.success() == answered);
        Ok(())
    }

    /// Claims that our programs dropped packets of this endpoint for this reason.
    fn claim_drop(&mut self, endpoint: &str, reason: &str) -> Result<()> {
        let stats = self.json(&["stats", "--json"])?;
        let rows = stats["endpoints"]
            .as_array()
            .context("stats lists no endpoints")?;
        let row = rows.iter().find(|row| row["name"] == endpoint);
        let count = row
            .and_then(|row| row["drops"][reason].as_u64())
            .unwrap_or(0);
        let by = format!("ipvlan-ctl dropped {count} packets of {endpoint}, reason {reason}");
        self.claim(by, count > 0);
        Ok(())
    }
}

struct Endpoint {
    name: String,
    netns: String,
    address: String,
}

/// Where a command runs.
#[derive(Clone, Copy)]
enum Place<'a> {
    Host,
    Wire,
    Endpoint(&'a Endpoint),
}

impl Place<'_> {
    fn name(&self) -> &str {
        match self {
            Self::Host => "host",
            Self::Wire => "wire",
            Self::Endpoint(endpoint) => &endpoint.name,
        }
    }

    fn command(&self, line: &str) -> Command {
        let netns = match self {
            Self::Host => None,
            Self::Wire => Some("/run/netns/wire"),
            Self::Endpoint(endpoint) => Some(&*endpoint.netns),
        };
        let mut words = line.split(' ');
        let Some(netns) = netns else {
            let mut command = Command::new(words.next().unwrap_or_default());
            command.args(words);
            return command;
        };
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={netns}")).args(words);
        command
    }
}

fn heading(text: &str) {
    println!("\n== {text}\n");
}

fn shell(script: &str) -> Result<()> {
    let mut command = Command::new("sh");
    command.args(["-ec", script]);
    output(command).map(drop)
}

fn output(mut command: Command) -> Result<String> {
    let output = command
        .output()
        .with_context(|| format!("cannot start {command:?}"))?;
    if !output.status.success() {
        bail!(
            "{command:?} failed: {}",
            String::from_utf8_lossy(&output.stderr).trim_end()
        );
    }
    Ok(String::from_utf8(output.stdout)?)
}
