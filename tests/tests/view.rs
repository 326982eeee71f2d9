//! What people look at: `stats` and `network graph`.

use std::process::{Child, Command, Stdio};

use ipvlan_tests::{Lab, Namespace, ctl, eventually, refused_on, sh, traces};
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

    /// A load that goes on until it is dropped.
    fn load(&self) -> Running {
        let ping = "ping -n -q -i 0.01 -w 120 192.168.1.11";
        let child = Command::new("nsenter")
            .arg(format!("--net=/run/netns/{}", self.one.name))
            .args(ping.split(' '))
            .stdout(Stdio::null())
            .spawn();
        Running(child.expect("ping starts"))
    }
}

/// A process that ends with the value.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
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
