//! What people look at: `stats`, `top`, `network graph`, and what the daemon serves.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};

use ipvlan_tests::{
    Counters, Daemon, Figures, Lab, Namespace, Running, ctl, eventually, refused_on, sh, succeeds,
    traces,
};
use pretty_assertions::assert_eq;
use serde_json::Value;

/// Two networks: `db_net` on the wire with `ipv1` and `ipv2`, `apart` with `ipv3`.
struct Host {
    one: Namespace,
    _others: [Namespace; 2],
    _lab: Lab,
}

impl Host {
    fn new() -> Self {
        let lab = Lab::new();
        let [one, two, three] = ["ipv1", "ipv2", "ipv3"].map(Namespace::new);
        ctl("network create --subnet 192.168.1.0/24 --gateway 192.168.1.1 -o parent=eth9 db_net");
        ctl("network create --subnet 10.5.0.0/24 apart");
        ctl("network connect --ip 192.168.1.10 db_net ipv1");
        ctl("network connect --ip 192.168.1.11 db_net ipv2");
        ctl("network connect apart ipv3");
        Self {
            one,
            _others: [two, three],
            _lab: lab,
        }
    }

    /// A load that is there on return, and goes on until it is dropped.
    fn load(&self) -> Running {
        let answered = Figures::of("ipv2").counters.tx_packets;
        let ping = "ping -n -q -i 0.01 -w 120 192.168.1.11";
        let mut nsenter = Command::new("nsenter");
        nsenter.arg(format!("--net=/run/netns/{}", self.one.name));
        let running = Running::start(nsenter.args(ping.split(' ')).stdout(Stdio::null()));
        eventually("answers to the load are counted", || {
            Figures::of("ipv2").counters.tx_packets > answered + 10
        });
        running
    }
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error} in {text}"))
}

fn names(stats: &str) -> Vec<String> {
    let stats = json(stats);
    let rows = stats["endpoints"].as_array().expect("endpoints").iter();
    rows.map(|row| row["name"].as_str().expect("a name").to_owned())
        .collect()
}

#[test]
fn stats_select_and_sort_and_tell_rates() {
    let host = Host::new();
    assert_eq!(names(&ctl("stats --json")), ["ipv1", "ipv2", "ipv3"]);
    assert_eq!(names(&ctl("stats --json --network apart")), ["ipv3"]);
    assert_eq!(names(&ctl("stats --json ipv3 ipv1")), ["ipv1", "ipv3"]);
    let before = traces();
    refused_on(&before, "stats --network nowhere", &["nowhere"]);
    refused_on(&before, "stats --network apart ipv1", &["ipv1"]);
    refused_on(&before, "stats --sort rate", &["--sort", "--interval"]);

    let load = host.load();
    let report = json(&ctl(
        "stats --json --no-stream --interval 500ms --sort rate",
    ));
    let rows = report["endpoints"].as_array().expect("endpoints");
    assert_eq!(rows[2]["name"], "ipv3", "the idle one comes last: {report}");
    for row in &rows[..2] {
        let rate = row["per_second"]["tx"]["packets"].as_f64();
        assert!(rate.expect("a rate") > 0.0, "{report}");
    }
    // Off a terminal too, an interval asks for one report after the other.
    let lines = sh("\"$IPVLAN_CTL\" stats --json --interval 100ms | head -n 2");
    let rates: Vec<bool> = lines
        .lines()
        .map(|line| json(line)["endpoints"][0].get("per_second").is_some())
        .collect();
    assert_eq!(rates, [false, true], "a rate lies between two readings");
    drop(load);

    sh("ip netns del ipv3");
    eventually("what is gone is not listed", || {
        names(&ctl("stats --json")).len() == 2
    });
}

#[test]
fn the_picture_shows_what_is_there() {
    let host = Host::new();
    host.one.sh("ping -n -q -f -c 100 192.168.1.11");
    let drawn = ctl("network graph --format mermaid");
    for title in ["eth9", "db_net", "apart", "ipv1", "ipv2", "ipv3"] {
        assert!(drawn.contains(title), "{title} in {drawn}");
    }
    assert!(drawn.contains("ipv1<br>192.168.1.10<br>in "), "{drawn}");
    assert!(
        !drawn.contains("ipv1<br>192.168.1.10<br>in 0B"),
        "100 answers came in: {drawn}"
    );

    let svg = std::env::temp_dir().join("view-graph.svg");
    let svg = svg.to_str().expect("a path");
    ctl(&format!("network graph --output {svg} db_net"));
    let drawn = std::fs::read_to_string(svg).expect("a drawing");
    assert!(
        drawn.starts_with("<svg ") && drawn.contains("ipv2"),
        "{drawn}"
    );
    assert!(
        !drawn.contains("ipv3"),
        "only db_net was asked for: {drawn}"
    );
    assert!(ctl("network graph").starts_with("digraph"));
    let before = traces();
    let words = ["--output", "host.png", ".svg"];
    refused_on(&before, "network graph --output host.png", &words);
    refused_on(&before, "network graph nobody", &["nobody"]);
}

/// The body that a server on this host answers with.
fn get(port: u16, path: &str, accept: &str) -> String {
    let answer = ask(port, path, "localhost", accept);
    let (head, body) = answer.split_once("\r\n\r\n").expect("a body");
    assert!(head.starts_with("HTTP/1.0 200"), "{answer}");
    body.to_owned()
}

/// The whole answer.
fn ask(port: u16, path: &str, host: &str, accept: &str) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("a server listens");
    write!(
        stream,
        "GET {path} HTTP/1.0\r\nHost: {host}\r\nAccept: {accept}\r\n\r\n"
    )
    .expect("a request is sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    answer
}

const DAEMON: u16 = 9786;
const PROMETHEUS: u16 = 9090;

/// Debian's, with the scrape configuration and the rules that we ship.
fn prometheus() -> Running {
    let contrib = concat!(env!("CARGO_MANIFEST_DIR"), "/../contrib/prometheus");
    sh(&format!(
        "rm -rf /tmp/prometheus; cp -r {contrib} /tmp/prometheus; cd /tmp/prometheus
         (echo 'global: {{ scrape_interval: 1s }}'; cat prometheus.yml) > test.yml
         promtool check config test.yml
         promtool check rules ipvlan-ctl.rules.yml"
    ));
    let mut prometheus = Command::new("prometheus");
    prometheus
        .arg("--config.file=/tmp/prometheus/test.yml")
        .arg("--storage.tsdb.path=/tmp/prometheus/data")
        .arg(format!("--web.listen-address=127.0.0.1:{PROMETHEUS}"))
        .stderr(Stdio::null());
    Running::start(&mut prometheus)
}

/// What `/topology.json`, which the page shows, has of an endpoint of `db_net`.
fn page_of(endpoint: &str) -> (Counters, u64) {
    let topology = json(&get(DAEMON, "/topology.json", "application/json"));
    let rows = topology["networks"][0]["endpoints"].as_array();
    let row = rows.expect("endpoints").iter();
    let row = row.clone().find(|row| row["name"] == endpoint).expect("it");
    let number = |direction: &str, what: &str| row[direction][what].as_u64().expect(what);
    let counters = Counters {
        rx_packets: number("rx", "packets"),
        rx_bytes: number("rx", "bytes"),
        tx_packets: number("tx", "packets"),
        tx_bytes: number("tx", "bytes"),
    };
    (
        counters,
        row["drops"]["endpoint-to-host"].as_u64().unwrap_or(0),
    )
}

/// What Prometheus answers to `{endpoint="…"}`; `None` if it has not scraped everything yet.
fn scraped_of(endpoint: &str) -> Option<(Counters, u64)> {
    let query = format!("/api/v1/query?query=%7Bendpoint%3D%22{endpoint}%22%7D");
    let answer = json(&get(PROMETHEUS, &query, "application/json"));
    let series = answer["data"]["result"].as_array().expect("a result");
    let number = |what: &str| -> Option<u64> {
        let name = format!("ipvlan_ctl_endpoint_{what}_total");
        let one = series
            .iter()
            .find(|one| one["metric"]["__name__"] == name.as_str())?;
        one["value"][1].as_str()?.parse().ok()
    };
    let counters = Counters {
        rx_packets: number("receive_packets")?,
        rx_bytes: number("receive_bytes")?,
        tx_packets: number("transmit_packets")?,
        tx_bytes: number("transmit_bytes")?,
    };
    let reason = |one: &&Value| one["metric"]["reason"] == "endpoint-to-host";
    let dropped = series.iter().find(reason)?;
    Some((counters, dropped["value"][1].as_str()?.parse().ok()?))
}

#[test]
fn whoever_tells_figures_tells_the_kernels() {
    let host = Host::new();
    let _daemon = Daemon::start();
    let before = host.one.counters("eth0");
    host.one.sh("ping -n -q -f -c 200 192.168.1.11");
    host.one.sh("ping -n -q -c 1 -W 1 192.168.1.2 || true");
    let _prometheus = prometheus();
    eventually("prometheus is ready", || {
        TcpStream::connect(("127.0.0.1", PROMETHEUS)).is_ok()
            && ask(PROMETHEUS, "/-/ready", "localhost", "text/plain").starts_with("HTTP/1.0 200")
    });
    let mut told = Vec::new();
    // A neighbour that is asked for moves the figures between two readings.
    eventually("all tell the same", || {
        let kernel = host.one.counters("eth0");
        let stats = Figures::of("ipv1");
        let dropped = stats.dropped("endpoint-to-host");
        told = vec![
            Some((kernel, dropped)),
            Some((stats.counters, dropped)),
            Some(page_of("ipv1")),
            scraped_of("ipv1"),
        ];
        told.iter().all(|one| *one == told[0])
    });
    let (kernel, dropped) = told[0].expect("figures");
    assert!(dropped > 0, "the host was pinged");
    let sent = kernel.tx_packets - before.tx_packets;
    assert!((200..220).contains(&sent), "200 pings, {sent} packets");
    look_at_top(&host);

    let text = get(DAEMON, "/metrics", "text/plain");
    std::fs::write("/tmp/view-metrics", text).expect("a file");
    sh("promtool check metrics < /tmp/view-metrics");
    let open = get(DAEMON, "/metrics", "application/openmetrics-text");
    for line in [
        "# TYPE ipvlan_ctl_endpoint_receive_bytes counter\n",
        "ipvlan_ctl_network_parent_up{network=\"db_net\",parent=\"eth9\"} 1\n",
    ] {
        assert!(open.contains(line), "{line} in {open}");
    }
    assert!(open.ends_with("# EOF\n"), "{open}");
    for_this_host_only();
}

fn for_this_host_only() {
    let page = ask(DAEMON, "/", "127.0.0.1:9786", "text/html");
    assert!(
        page.contains("page.js") && page.contains("content-security-policy: default-src 'none'"),
        "{page}"
    );
    // A name that somebody else lets point here.
    let refused = ask(DAEMON, "/topology.json", "evil.example:9786", "*/*");
    assert!(refused.starts_with("HTTP/1.0 403"), "{refused}");
    let listening = sh("ss -Hltn 'sport = :9786'");
    assert_eq!(listening.lines().count(), 1, "{listening}");
    assert!(listening.contains("127.0.0.1:9786"), "{listening}");
}

fn look_at_top(host: &Host) {
    let _ended = Tmux;
    sh("tmux -L view new-session -d -x 80 -y 24 \
        \"NO_COLOR=1 $IPVLAN_CTL top --interval 200ms --network db_net\"");
    let screen = || sh("tmux -L view capture-pane -e -p -t 0");
    let sees = |words: &[&str]| {
        eventually(&format!("top shows {words:?}"), || {
            let screen = screen();
            words.iter().all(|word| screen.contains(word))
        });
    };
    let press = |key: &str| sh(&format!("tmux -L view send-keys -t 0 {key}"));
    sees(&["2 endpoints", "ipv1", "192.168.1.10", "q quit"]);
    press("Enter");
    sees(&["Esc back", "endpoint-to-host", "peers on db_net", "ipv2"]);
    eventually("top tells what the kernel does", || {
        let counted = host.one.counters("eth0").tx_packets;
        screen().contains(&format!("{counted} packets"))
    });
    press("Escape");
    let load = host.load();
    sees(&["s sort: rate", "█"]);
    drop(load);
    let screen = screen();
    assert!(
        !screen.contains("ipv3"),
        "only db_net was asked for: {screen}"
    );
    // 39 is the terminal's own colour.
    let coloured = |colour| screen.contains(&format!("\x1b[3{colour}m"));
    assert!(!(0..8).any(coloured), "no colour was asked for: {screen}");
    press("q");
    eventually("top ends", || !succeeds("tmux -L view has-session"));
    refused_on(&traces(), "top", &["terminal", "stats --interval"]);
}

struct Tmux;

impl Drop for Tmux {
    fn drop(&mut self) {
        let _ = Command::new("tmux")
            .args(["-L", "view", "kill-server"])
            .output();
    }
}
