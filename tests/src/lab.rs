//! A host with a wire: what most tests happen on.

use std::collections::BTreeMap;
use std::fs;
use std::net::UdpSocket;
use std::ops::Sub;
use std::path::Path;
use std::process::Command;

use ipvlan_ctl::kernel::Netns;
use serde_json::Value;

use crate::{ctl, ctl_output, eventually, kernel, sh, succeeds};

const PINS: &str = "/sys/fs/bpf/ipvlan-ctl";
/// The driver of the machine's network cards.
const CARD: &str = "e1000";
const STORE: &str = "/var/lib/ipvlan-ctl/state.db";

/// A network namespace that ends with the value.
#[derive(Debug)]
pub struct Namespace {
    pub name: String,
}

impl Namespace {
    pub fn new(name: &str) -> Self {
        sh(&format!("ip netns add {name}; ip -n {name} link set lo up"));
        Self {
            name: name.to_owned(),
        }
    }

    /// Runs a shell script inside and returns its output; panics where it fails.
    pub fn sh(&self, script: &str) -> String {
        sh(&self.inside(script))
    }

    pub fn succeeds(&self, script: &str) -> bool {
        succeeds(&self.inside(script))
    }

    fn inside(&self, script: &str) -> String {
        format!(
            "ip netns exec {} sh -ec '{}'",
            self.name,
            script.replace('\'', "'\\''")
        )
    }

    /// Is there an answer to at least one of three pings?
    pub fn pings(&self, address: &str) -> bool {
        self.succeeds(&format!("ping -n -q -c 3 -i 0.2 -W 1 {address}"))
    }

    /// A UDP socket inside, bound to an address with a port.
    pub fn udp(&self, address: &str) -> UdpSocket {
        Netns::open(&Path::new("/run/netns").join(&self.name))
            .and_then(|netns| netns.run(|| UdpSocket::bind(address)))
            .expect("a namespace")
            .expect("an address of the namespace")
    }

    /// The kernel's own counters of a device inside.
    pub fn counters(&self, device: &str) -> Counters {
        let text = self.sh(&format!("ip -json -stats link show dev {device}"));
        let json: Value = serde_json::from_str(&text).expect("ip prints JSON");
        Counters::read(&json[0]["stats64"])
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Command::new("ip")
            .args(["netns", "del", &self.name])
            .status();
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counters {
    pub rx_packets: u64,
    pub rx_bytes: u64,
    pub tx_packets: u64,
    pub tx_bytes: u64,
}

impl Sub for Counters {
    type Output = Self;

    fn sub(self, earlier: Self) -> Self {
        Self {
            rx_packets: self.rx_packets - earlier.rx_packets,
            rx_bytes: self.rx_bytes - earlier.rx_bytes,
            tx_packets: self.tx_packets - earlier.tx_packets,
            tx_bytes: self.tx_bytes - earlier.tx_bytes,
        }
    }
}

impl Counters {
    /// From an object with `rx` and `tx`, each with `packets` and `bytes`.
    fn read(json: &Value) -> Self {
        let number = |direction: &str, what: &str| json[direction][what].as_u64().expect(what);
        Self {
            rx_packets: number("rx", "packets"),
            rx_bytes: number("rx", "bytes"),
            tx_packets: number("tx", "packets"),
            tx_bytes: number("tx", "bytes"),
        }
    }
}

/// One endpoint's row of `stats --json`.
#[derive(Debug)]
pub struct Figures {
    pub counters: Counters,
    /// The same by family: ipv4, ipv6, arp, other.
    pub families: BTreeMap<String, Counters>,
    pub drops: BTreeMap<String, u64>,
}

impl Figures {
    /// Reads the figures of the endpoint with this name; it is on one network.
    pub fn of(endpoint: &str) -> Self {
        Self::only(endpoint, |_| true)
    }

    /// Reads the figures of an endpoint whose container may be on other networks, too.
    pub fn on(network: &str, endpoint: &str) -> Self {
        Self::only(endpoint, |row| row["network"] == network)
    }

    fn only(endpoint: &str, is_meant: impl Fn(&Value) -> bool) -> Self {
        let json: Value = serde_json::from_str(&ctl("stats --json")).expect("stats prints JSON");
        let rows = json["endpoints"].as_array().expect("endpoints");
        let rows: Vec<_> = rows
            .iter()
            .filter(|row| row["name"] == endpoint && is_meant(row))
            .collect();
        let [row] = rows[..] else {
            panic!("not one row for {endpoint} in {json}");
        };
        let drops = row["drops"].as_object().expect("drops");
        let families = row["families"].as_object().expect("families");
        Self {
            counters: Counters::read(row),
            families: families
                .iter()
                .map(|(family, traffic)| (family.clone(), Counters::read(traffic)))
                .collect(),
            drops: drops
                .iter()
                .map(|(reason, count)| (reason.clone(), count.as_u64().expect("a count")))
                .collect(),
        }
    }

    /// How many packets were dropped for this reason.
    pub fn dropped(&self, reason: &str) -> u64 {
        self.drops.get(reason).copied().unwrap_or(0)
    }
}

/// Figures are the kernel's from the endpoint's beginning on.
pub fn figures_equal_the_kernels(name: &str, namespace: &Namespace) -> Counters {
    let (ours, kernels) = at_rest(name, namespace);
    assert_eq!(
        ours, kernels,
        "stats of {name} and the slave's own counters"
    );
    ours
}

/// Figures of an endpoint and the kernel's from now on: at its beginning the kernel may drop what
/// IPv6 sends (`tx dropped` of `ip -s link`) behind our program.
#[derive(Debug)]
pub struct Since<'a> {
    name: &'static str,
    namespace: &'a Namespace,
    ours: Counters,
    kernels: Counters,
}

impl<'a> Since<'a> {
    pub fn now(name: &'static str, namespace: &'a Namespace) -> Self {
        let (ours, kernels) = at_rest(name, namespace);
        Self {
            name,
            namespace,
            ours,
            kernels,
        }
    }

    /// They are equal; returns them.
    pub fn figures_equal_the_kernels(&self) -> Counters {
        let (ours, kernels) = at_rest(self.name, self.namespace);
        let (ours, kernels) = (ours - self.ours, kernels - self.kernels);
        assert_eq!(ours, kernels, "stats of {} since it settled", self.name);
        ours
    }
}

/// Our figures and the kernel's, read when a counter does not move between them.
fn at_rest(name: &str, namespace: &Namespace) -> (Counters, Counters) {
    let mut last = None;
    for _ in 0..20 {
        let before = namespace.counters("eth0");
        let ours = Figures::of(name).counters;
        if namespace.counters("eth0") == before {
            return (ours, before);
        }
        last = Some(before);
        std::thread::sleep(std::time::Duration::from_millis(200));
    }
    panic!("the counters of {name} never came to rest: {last:?}");
}

/// A host whose `eth9` (192.168.1.2) is wired to a second host, namespace `wire` (192.168.1.3).
/// The wire can be a switch port in hairpin mode.
#[derive(Debug)]
pub struct Lab {
    pub wire: Namespace,
    cable: Cable,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cable {
    Veth,
    /// The machine's two network cards, which are wired to each other.
    Cards,
}

impl Lab {
    pub const PARENT: &str = "eth9";
    pub const HOST: &str = "192.168.1.2";
    pub const WIRE: &str = "192.168.1.3";

    pub fn new() -> Self {
        Self::by(Cable::Veth)
    }

    /// As [`Lab::new`], where `eth9` is a network card: checksums, segments and VLAN tags are its
    /// work.
    pub fn of_cards() -> Self {
        Self::by(Cable::Cards)
    }

    fn by(cable: Cable) -> Self {
        kernel();
        clean();
        let lab = Self {
            wire: match cable {
                Cable::Veth => wire("wire", sh),
                Cable::Cards => wire_of_cards("wire"),
            },
            cable,
        };
        // A card tells its carrier seconds after it is up.
        eventually("host and wire reach each other", || {
            succeeds("ping -n -q -c 3 -i 0.2 -W 1 192.168.1.3")
        });
        lab
    }

    /// The switch port sends frames back out of the port they came from (reflective relay).
    pub fn set_hairpin(&self, on: bool) {
        let value = if on { "on" } else { "off" };
        self.wire
            .sh(&format!("bridge link set dev port0 hairpin {value}"));
    }
}

/// Wires `eth9` of the host on which `on_host` runs its scripts to a new namespace.
pub fn wire(name: &str, on_host: impl Fn(&str) -> String) -> Namespace {
    let wire = Namespace::new(name);
    on_host(&format!(
        "ip link add eth9 type veth peer name port0 netns {name}"
    ));
    set_up(&wire, on_host);
    wire
}

fn wire_of_cards(name: &str) -> Namespace {
    let wire = Namespace::new(name);
    sh(&format!(
        "modprobe {CARD}
         set -- $(basename -a /sys/bus/pci/drivers/{CARD}/*/net/*)
         ip link set $1 name eth9
         ip link set $2 netns {name} name port0"
    ));
    set_up(&wire, sh);
    wire
}

fn set_up(wire: &Namespace, on_host: impl Fn(&str) -> String) {
    on_host("ip addr add 192.168.1.2/24 dev eth9; ip link set eth9 up");
    wire.sh("ip link add sw0 type bridge
             ip link set port0 master sw0 up
             ip addr add 192.168.1.3/24 dev sw0
             ip link set sw0 up");
}

impl Default for Lab {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        clean();
        if self.cable == Cable::Cards {
            let _ = Command::new("modprobe").args(["-r", CARD]).status();
        }
    }
}

/// Takes away what a test, even one that panicked, left on the host.
fn clean() {
    let _ = ctl_output("network prune --force");
    for network in ctl("network ls -q").split_whitespace() {
        let json: Value =
            serde_json::from_str(&ctl(&format!("network inspect {network}"))).expect("JSON");
        for id in json[0]["Containers"]
            .as_object()
            .expect("Containers")
            .keys()
        {
            let _ = ctl_output(&format!("network disconnect --force {network} {id}"));
        }
        let _ = ctl_output(&format!("network rm {network}"));
    }
    let _ = Command::new("ip")
        .args(["link", "del", Lab::PARENT])
        .output();
}

/// Everything on the host that `ipvlan-ctl` may change: links, addresses, routes, qdiscs, pins
/// and the rows of its store. Counters, time stamps and what the kernel tells late are left out: a
/// link's state and carrier, its link-local address, and what IPv6 is still probing.
pub fn snapshot() -> String {
    let mut text = sh("ip -brief link |
                           sed -E 's/^(\\S+) +\\S+ +/\\1 /; s/,LOWER_UP//; s/NO-CARRIER,//'
                       ip -oneline addr |
                           sed '/inet6 fe80:/d; s/ tentative//; s/valid_lft.*//'
                       ip route
                       tc qdisc show | grep -v ' dev lo ' || true");
    text += &traces();
    text
}

/// The part of a [`snapshot`] that needs no process, each of which takes a tenth of a second
/// under emulation: the names of links, pins and rows.
pub fn traces() -> String {
    names_in(Path::new("/sys/class/net")) + &tree(Path::new(PINS)) + &rows()
}

fn names_in(folder: &Path) -> String {
    let mut names: Vec<String> = fs::read_dir(folder)
        .expect("a readable folder")
        .map(|entry| entry.expect("an entry").file_name())
        .map(|name| format!("{}\n", name.to_string_lossy()))
        .collect();
    names.sort();
    names.concat()
}

fn tree(folder: &Path) -> String {
    let Ok(entries) = fs::read_dir(folder) else {
        return String::new();
    };
    let mut lines: Vec<String> = entries
        .map(|entry| entry.expect("a readable folder").path())
        .map(|path| format!("{}\n{}", path.display(), tree(&path)))
        .collect();
    lines.sort();
    lines.concat()
}

fn rows() -> String {
    if !Path::new(STORE).exists() {
        return String::new();
    }
    let store = rusqlite::Connection::open(STORE).expect("the store opens");
    let mut tables = store
        .prepare("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")
        .expect("a schema");
    let names: Vec<String> = tables
        .query_map([], |row| row.get(0))
        .and_then(Iterator::collect)
        .expect("table names");
    let mut text = String::new();
    // The host's identity is written once, with the first network; cursors are IPAM's memory,
    // changes the daemon's, the sequence is SQLite's.
    let memory = |name: &str| matches!(name, "meta" | "cursors" | "changes" | "sqlite_sequence");
    for name in names.iter().filter(|name| !memory(name)) {
        let mut all = store
            .prepare(&format!("SELECT * FROM \"{name}\""))
            .expect("a table");
        let columns = all.column_count();
        let lines: Vec<String> = all
            .query_map([], |row| {
                (0..columns)
                    .map(|i| row.get::<_, rusqlite::types::Value>(i))
                    .map(|value| value.map(|value| format!("{value:?}")))
                    .collect::<Result<Vec<_>, _>>()
            })
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .expect("rows")
            .into_iter()
            .map(|row| format!("{name}: {}\n", row.join(" ")))
            .collect();
        text += &lines.concat();
    }
    text
}

/// Takes every program of ours off every device, as if only the kernel were there.
pub fn detach_all_programs(namespaces: &[&Namespace]) {
    let links = Path::new(PINS).join("links");
    for entry in fs::read_dir(&links).expect("the links folder") {
        fs::remove_file(entry.expect("an entry").path()).expect("a link is removed");
    }
    if kernel() == "6.1" {
        sh("for device in $(ls /sys/class/net); do
                tc qdisc del dev $device clsact 2>/dev/null || true
            done");
        for namespace in namespaces {
            namespace.sh("tc qdisc del dev eth0 clsact");
        }
    }
    // The kernel lets go of a link in the background.
    std::thread::sleep(std::time::Duration::from_millis(200));
}
