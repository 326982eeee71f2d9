//! The seed page's examples, in its own words: `docker` is our program, and where the page names
//! an image, which we have none of, the command follows at once.

use ipvlan_tests::{
    Daemon, Lab, Namespace, ctl, ctl_command, eventually, refused, settles_as, sh, snapshot,
    succeeds,
};
use rexpect::process::WaitStatus;
use rexpect::session::{PtySession, spawn_command};
use serde_json::Value;

/// The page's host: its interface is `enp3s0`, and it has none of the addresses that come first.
struct Host {
    lab: Lab,
}

impl Host {
    const ADDRESS: &str = "192.168.1.250";

    fn new() -> Self {
        let host = Self { lab: Lab::new() };
        sh(&format!(
            "ip link set eth9 down
             ip link set eth9 name enp3s0
             ip addr del {}/24 dev enp3s0
             ip addr add {}/24 dev enp3s0
             ip link set enp3s0 up
             ip addr show enp3s0",
            Lab::HOST,
            Self::ADDRESS
        ));
        eventually("host and wire reach each other", || {
            host.lab.wire.pings(Self::ADDRESS)
        });
        host
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        sh("ip link set enp3s0 down; ip link set enp3s0 name eth9");
    }
}

/// Runs the page's lines in a shell.
fn page(lines: &str) -> String {
    sh(&format!(
        "docker() {{ IPVLAN_CTL_NO_DAEMON=1 \"$IPVLAN_CTL\" \"$@\"; }}\n{lines}"
    ))
}

/// A shell of the page's on a terminal of its own; what is expected there must come in a minute.
struct Terminal(PtySession);

impl Terminal {
    fn open(line: &str) -> Self {
        let words = line.split_whitespace();
        let words = words.filter(|word| !matches!(*word, "docker" | "alpine"));
        let mut session = spawn_command(ctl_command(words), Some(60_000)).expect("a terminal");
        // A shell on a terminal ignores TERM, which is how a failed test would end it.
        session.process_mut().set_kill_timeout(Some(1000));
        let mut terminal = Self(session);
        terminal.expect("# ");
        terminal
    }

    fn expect(&mut self, text: &str) {
        self.0
            .exp_string(text)
            .unwrap_or_else(|error| panic!("{text:?} was expected: {error}"));
    }

    fn type_line(&mut self, line: &str) {
        self.0.send_line(line).expect("a terminal takes a line");
    }

    /// Types a line, after which all of these texts must come, in this order, and a prompt.
    fn shows(&mut self, line: &str, texts: &[&str]) {
        self.type_line(line);
        for text in texts {
            self.expect(text);
        }
        self.expect("# ");
    }

    fn exit(mut self) {
        self.type_line("exit 0");
        let status = self.0.process().wait().expect("it ends");
        assert!(matches!(status, WaitStatus::Exited(_, 0)), "{status:?}");
    }
}

fn inspect(line: &str) -> Value {
    let mut json: Value = serde_json::from_str(&ctl(line)).expect("JSON");
    json[0].take()
}

#[test]
fn page_db_net_with_its_gateway_and_with_the_defaults() {
    let _host = Host::new();
    let _daemon = Daemon::start();
    // The page's typo for l2.
    refused(
        "network create -d ipvlan --subnet=192.168.1.0/24 --gateway=192.168.1.1 \
         -o ipvlan_mode=12 -o parent=enp3s0 db_net",
        &["ipvlan_mode", "12", "l2"],
    );
    page(
        "docker network create -d ipvlan \\
            --subnet=192.168.1.0/24 \\
            --gateway=192.168.1.1 \\
            -o ipvlan_mode=l2 \\
            -o parent=enp3s0 db_net",
    );
    let explicit = inspect("network inspect db_net");
    assert_eq!(explicit["Driver"], "ipvlan");

    let mut shell = Terminal::open("docker run --net=db_net -it --rm alpine /bin/sh");
    shell.shows("ip -4 -brief addr show eth0", &["192.168.1.2/24"]);
    shell.shows("ip -6 addr show dev eth0 | wc -l", &["\n0\r"]);
    shell.shows("ip route", &["default via 192.168.1.1 dev eth0"]);
    shell.shows(
        "ip -details -oneline link show eth0",
        &["ipvlan", "l2 bridge"],
    );
    let ping = |address: &str| format!("ping -n -q -c 2 -W 1 {address}");
    shell.shows(&ping(Lab::WIRE), &["2 received"]);
    // "NOTA": neither reaches the other.
    shell.shows(&ping(Host::ADDRESS), &["100% packet loss"]);
    assert!(!succeeds(&ping("192.168.1.2")));
    let containers = inspect("network inspect db_net")["Containers"].clone();
    let rows: Vec<&Value> = containers.as_object().unwrap().values().collect();
    assert_eq!(rows.len(), 1, "{rows:?}");
    assert_eq!(rows[0]["IPv4Address"], "192.168.1.2/24");
    shell.exit();
    page("docker network rm db_net");

    page(
        "docker network create -d ipvlan \\
            --subnet=192.168.1.0/24 \\
            -o parent=enp3s0 db_net_ipv",
    );
    let by_default = inspect("network inspect db_net_ipv");
    for same in ["IPAM", "Internal", "EnableIPv6", "IpvlanCtl"] {
        assert_eq!(by_default[same], explicit[same], "{same}");
    }
    page("docker run --net=db_net_ipv --name=ipv1 -itd /bin/sh");
    let ipv1 = inspect("inspect ipv1");
    let address = &ipv1["NetworkSettings"]["Networks"]["db_net_ipv"]["IPAddress"];
    assert_eq!(*address, "192.168.1.2");

    let mut ipv2 =
        Terminal::open("docker run --net=db_net_ipv --name=ipv2 -it --rm alpine /bin/sh");
    ipv2.shows(
        "ping -c 4 ipv1",
        &[
            "PING ipv1 (192.168.1.2)",
            "bytes from ipv1.db_net_ipv (192.168.1.2)",
            "4 packets transmitted, 4 received, 0% packet loss",
        ],
    );
    assert!(ctl("ps").contains("ipv2"));
    ipv2.exit();
    assert!(!ctl("ps -a").contains("ipv2"));

    ctl("stop -t 0 ipv1");
    assert!(ctl("ps -a --filter status=exited").contains("ipv1"));
    ctl("rm ipv1");
}

#[test]
fn page_isolated_networks() {
    let _lab = Lab::new();
    let before = snapshot();
    page(
        "docker network  create -d ipvlan \\
            --subnet=192.168.10.0/24 isolated1
         docker network create -d ipvlan \\
            --subnet=192.168.11.0/24 --internal isolated2
         docker network create -d ipvlan isolated3",
    );
    let trio = [
        ("isolated1", "cid1", "192.168.10."),
        ("isolated2", "cid2", "192.168.11."),
        ("isolated3", "cid3", "172.18.0."),
    ];
    let mut shells = Vec::new();
    for (network, name, subnet) in trio {
        shells.push(Terminal::open(&format!(
            "docker run --net={network} --name={name} -it --rm alpine /bin/sh"
        )));
        let known = inspect(&format!("network inspect {network}"));
        assert_eq!(known["Internal"], true, "{network}");
        let pool = known["IPAM"]["Config"][0]["Subnet"].as_str().unwrap();
        assert!(pool.starts_with(subnet), "{network}: {pool}");
        let parent = format!("di-{}", &known["Id"].as_str().unwrap()[..12]);
        let link = sh(&format!("ip -details link show {parent}"));
        assert!(link.contains("dummy"), "{link}");
    }
    for (network, name, subnet) in trio {
        let neighbour = Namespace::new(&format!("beside-{name}"));
        ctl(&format!("network connect {network} {}", neighbour.name));
        let mut exec = Terminal::open(&format!("docker exec -it {name} /bin/sh"));
        exec.shows("ip -4 -brief addr show eth0", &[&format!("{subnet}1/")]);
        exec.shows("ip route | grep -c default", &["\n0\r"]);
        exec.shows(
            "ip -details -oneline link show eth0",
            &["ipvlan", "l2 bridge"],
        );
        let ping = |address: &str| format!("ping -n -q -c 2 -W 1 {address}");
        exec.shows(&ping(&format!("{subnet}2")), &["2 received"]);
        exec.shows(&ping(Lab::WIRE), &["unreachable"]);
        exec.exit();
        // Not even by a route of its own making.
        neighbour.sh("ip route add default dev eth0");
        assert!(!neighbour.pings(Lab::WIRE), "{network}");
        assert!(!neighbour.pings(Lab::HOST), "{network}");
        ctl(&format!("network disconnect {network} {}", neighbour.name));
    }
    for shell in shells {
        shell.exit();
    }
    for (network, ..) in trio {
        ctl(&format!("network rm {network}"));
    }
    settles_as(&before, snapshot, "the isolated networks went");
}
