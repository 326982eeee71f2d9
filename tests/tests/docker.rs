//! The same networks made by Docker's ipvlan driver on one host and by ours on another, and looked
//! at from inside a container of each.

use std::path::Path;

use ipvlan_tests::{Docker, Lab, Namespace, ctl, kernel, sh, wire};
use pretty_assertions::assert_str_eq;
use serde_json::json;

/// What both are asked for, in the same words.
struct Variant {
    what: &'static str,
    /// Of `network create`.
    network: &'static str,
    /// Of `network connect`.
    endpoint: &'static str,
    /// Of `network connect` for a second container, if there is one.
    peer: Option<&'static str>,
    /// Of both commands for the first container's second network, if there is one.
    second: Option<[&'static str; 2]>,
    /// What the first container pings.
    pings: &'static [&'static str],
    /// Words of what Docker's shows, and ours in their place, as `docs/compatibility.md` says.
    differs: &'static [(&'static str, &'static str)],
}

const PLAIN: Variant = Variant {
    what: "",
    network: "",
    endpoint: "",
    peer: None,
    second: None,
    pings: &[],
    differs: &[],
};

const PEER: &str = "192.168.1.30";

const VARIANTS: [Variant; 18] = [
    Variant {
        what: "the defaults",
        network: "--subnet=192.168.1.0/24 -o parent=eth9",
        endpoint: "--ip=192.168.1.20",
        pings: &[Lab::WIRE, Lab::HOST],
        ..PLAIN
    },
    Variant {
        what: "all options",
        network: "--subnet=192.168.1.0/24 --gateway=192.168.1.1 -o ipvlan_mode=l2 \
                  -o ipvlan_flag=bridge -o com.docker.network.driver.mtu=1400 -o parent=eth9",
        endpoint: "--ip=192.168.1.20",
        peer: Some("--ip=192.168.1.30"),
        pings: &[PEER],
        differs: &[("1500", "1400")],
        ..PLAIN
    },
    Variant {
        what: "flag private",
        network: "--subnet=192.168.1.0/24 -o ipvlan_flag=private -o parent=eth9",
        endpoint: "--ip=192.168.1.20",
        peer: Some("--ip=192.168.1.30"),
        pings: &[PEER, Lab::WIRE],
        ..PLAIN
    },
    Variant {
        what: "flag vepa",
        network: "--subnet=192.168.1.0/24 -o ipvlan_flag=vepa -o parent=eth9",
        endpoint: "--ip=192.168.1.20",
        peer: Some("--ip=192.168.1.30"),
        pings: &[PEER, Lab::WIRE],
        ..PLAIN
    },
    Variant {
        what: "a range",
        network: "--subnet=192.168.1.0/24 --gateway=192.168.1.1 --ip-range=192.168.1.128/25 \
                  -o parent=eth9",
        ..PLAIN
    },
    Variant {
        what: "an aux address at the beginning of the range",
        network: "--subnet=192.168.1.0/24 --gateway=192.168.1.1 --ip-range=192.168.1.64/26 \
                  --aux-address=nas=192.168.1.65 -o parent=eth9",
        ..PLAIN
    },
    Variant {
        what: "l3",
        network: "--subnet=10.11.0.0/24 -o ipvlan_mode=l3 -o parent=eth9",
        endpoint: "--ip=10.11.0.20",
        pings: &[Lab::WIRE, Lab::HOST],
        ..PLAIN
    },
    Variant {
        what: "l3s",
        network: "--subnet=10.11.0.0/24 -o ipvlan_mode=l3s -o parent=eth9",
        endpoint: "--ip=10.11.0.20",
        pings: &[Lab::WIRE],
        ..PLAIN
    },
    Variant {
        what: "several subnets",
        network: "--subnet=192.168.1.0/24 --subnet=192.168.2.0/24 --gateway=192.168.2.254 \
                  -o parent=eth9",
        endpoint: "--ip=192.168.2.20",
        ..PLAIN
    },
    Variant {
        what: "several subnets, l3",
        network: "--subnet=10.11.0.0/24 --subnet=10.12.0.0/24 -o ipvlan_mode=l3 -o parent=eth9",
        endpoint: "--ip=10.12.0.20",
        peer: Some("--ip=10.11.0.30"),
        pings: &["10.11.0.30", Lab::WIRE],
        ..PLAIN
    },
    Variant {
        what: "dual stack",
        network: "--ipv6 --subnet=192.168.1.0/24 --subnet=2001:db8:1::/64 \
                  --gateway=2001:db8:1::1 -o parent=eth9",
        endpoint: "--ip=192.168.1.20 --ip6=2001:db8:1::20",
        pings: &["2001:db8:1::3"],
        ..PLAIN
    },
    Variant {
        what: "dual stack, l3",
        network: "--ipv6 --subnet=10.11.0.0/24 --subnet=2001:db8:2::/64 -o ipvlan_mode=l3 \
                  -o parent=eth9",
        endpoint: "--ip=10.11.0.20 --ip6=2001:db8:2::20",
        ..PLAIN
    },
    Variant {
        what: "a VLAN",
        network: "--subnet=192.168.50.0/24 -o parent=eth9.50",
        endpoint: "--ip=192.168.50.20",
        pings: &["192.168.50.3"],
        ..PLAIN
    },
    Variant {
        what: "no parent",
        network: "--subnet=192.168.10.0/24",
        peer: Some("--ip=192.168.10.30"),
        pings: &["192.168.10.30", Lab::WIRE],
        differs: &[
            ("192.168.10.2/24", "192.168.10.1/24"),
            ("192.168.10.2", "192.168.10.1"),
        ],
        ..PLAIN
    },
    Variant {
        what: "internal",
        network: "--subnet=192.168.11.0/24 --internal",
        differs: &[
            ("192.168.11.2/24", "192.168.11.1/24"),
            ("192.168.11.2", "192.168.11.1"),
        ],
        ..PLAIN
    },
    Variant {
        what: "internal with a parent",
        network: "--subnet=192.168.1.0/24 --internal -o parent=eth9",
        endpoint: "--ip=192.168.1.20",
        pings: &[Lab::WIRE],
        ..PLAIN
    },
    Variant {
        what: "two networks",
        network: "--subnet=192.168.1.0/24 -o parent=eth9",
        endpoint: "--ip=192.168.1.20",
        second: Some([
            "--subnet=192.168.51.0/24 -o parent=eth9.51",
            "--ip=192.168.51.20",
        ]),
        pings: &[Lab::WIRE],
        ..PLAIN
    },
    Variant {
        what: "no subnet",
        network: "",
        differs: &[
            ("172.17.0.2/16", "172.18.0.1/16"),
            ("172.17.0.2", "172.18.0.1"),
            ("172.17.0.0/16", "172.18.0.0/16"),
            ("172.17.255.255", "172.18.255.255"),
        ],
        ..PLAIN
    },
];

/// One driver and its host.
struct Side<'a> {
    /// Runs `network` with these words.
    network: &'a dyn Fn(&str),
    /// Of the first container.
    netns: &'a Path,
}

impl Side<'_> {
    fn seen(&self, variant: &Variant) -> String {
        let network = |line: &str| (self.network)(line);
        network(&format!("create -d ipvlan {} compared", variant.network));
        network(&format!("connect {} compared c1", variant.endpoint));
        if let Some(peer) = variant.peer {
            network(&format!("connect {peer} compared c2"));
        }
        if let Some([other, endpoint]) = variant.second {
            network(&format!("create -d ipvlan {other} other"));
            network(&format!("connect {endpoint} other c1"));
        }
        let seen = seen(self.netns, variant.pings);
        if variant.second.is_some() {
            network("disconnect other c1");
            network("rm other");
        }
        if variant.peer.is_some() {
            network("disconnect compared c2");
        }
        network("disconnect compared c1");
        network("rm compared");
        seen
    }
}

/// What a container sees of its networks: of the link its kind, mode, flag, MTU and state. The MAC,
/// the index and a link-local address are each driver's own.
fn seen(netns: &Path, pings: &[&str]) -> String {
    // Each ends with the first answer. They all run at once.
    let pings: String = pings
        .iter()
        .map(|address| {
            format!(
                "( if ping -n -q -c 1 -i 0.2 -w 2 {address} >/dev/null 2>&1
                   then echo {address} reached; else echo {address} not reached; fi ) & "
            )
        })
        .collect();
    let link = r"s/^[0-9]+: (eth[0-9]+)@[^ ]* (<.*>) (mtu [0-9]+) .*(ipvlan +mode [^ ]+ [^ ]+).*/\1 \2 \3 \4/";
    let script = format!(
        "ip -details -oneline link show type ipvlan | sed -E '{link}'
         ip -oneline addr show | grep -v -e ' lo ' -e fe80: | grep -o 'eth.* scope [a-z]*'
         ip -4 route
         ip -6 route | grep -v fe80: || true
         ( {pings} wait ) | sort"
    );
    let text = sh(&format!(
        "nsenter --net={} sh -ec \"{script}\"",
        netns.display()
    ));
    // Docker gives no name twice as long as a container runs: numbers count from here.
    let mut names: Vec<&str> = Vec::new();
    let mut seen = String::new();
    for line in text.lines() {
        let words = line.split_whitespace().map(|word| {
            if !word.starts_with("eth") {
                return word.to_owned();
            }
            let known = names.iter().position(|name| *name == word);
            let number = known.unwrap_or_else(|| {
                names.push(word);
                names.len() - 1
            });
            format!("eth{number}")
        });
        seen += &words.collect::<Vec<_>>().join(" ");
        seen += "\n";
    }
    seen
}

/// The other ends of what the variants need: a route back to the routed networks, whose endpoints
/// answer no ARP, an IPv6 neighbour and a VLAN.
const NEIGHBOUR: &str = "
    ip route add 10.11.0.0/24 via 192.168.1.2; ip route add 10.12.0.0/24 via 192.168.1.2
    ip -6 addr add 2001:db8:1::3/64 dev sw0 nodad
    ip link add link sw0 name sw0.50 type vlan id 50
    ip addr add 192.168.50.3/24 dev sw0.50; ip link set sw0.50 up";

/// `docker network` with these words.
fn network_of(docker: &Docker, line: &str) {
    let words: Vec<&str> = line.split_whitespace().collect();
    match words[..] {
        ["connect", ref options @ .., network, container] => {
            let address = |option| options.iter().find_map(|word| word.strip_prefix(option));
            let addresses =
                json!({"IPv4Address": address("--ip="), "IPv6Address": address("--ip6=")});
            let body = json!({"Container": container, "EndpointConfig": {"IPAMConfig": addresses}});
            docker.api("POST", &format!("networks/{network}/connect"), &body);
        }
        ["disconnect", network, container] => {
            let body = json!({"Container": container});
            docker.api("POST", &format!("networks/{network}/disconnect"), &body);
        }
        ["rm", network] => docker.api("DELETE", &format!("networks/{network}"), &json!({})),
        _ => drop(docker.sh(&format!("docker network {line}"))),
    }
}

/// All variants by a Docker daemon on a host of its own.
fn by_docker() -> Vec<String> {
    let host = Namespace::new("theirs");
    let wire = wire("their-wire", |script| host.sh(script));
    wire.sh(NEIGHBOUR);
    let docker = Docker::start_on(&host);
    for name in ["c1", "c2"] {
        docker.run(name, "--net=none");
        docker.sh(&format!("docker network disconnect none {name}"));
    }
    assert_eq!(
        docker.exec("c1", "ip -4 addr show dev lo").lines().count(),
        3
    );
    let theirs = Side {
        network: &|line| network_of(&docker, line),
        netns: &docker.netns("c1"),
    };
    VARIANTS
        .iter()
        .map(|variant| theirs.seen(variant))
        .collect()
}

fn by_us() -> Vec<String> {
    let lab = Lab::new();
    lab.wire.sh(NEIGHBOUR);
    // The programs are loaded with the first network and go with the last.
    ctl("network create --subnet 10.99.0.0/24 stays");
    let _containers = ["c1", "c2"].map(Namespace::new);
    let ours = Side {
        network: &|line| drop(ctl(&format!("network {line}"))),
        netns: Path::new("/run/netns/c1"),
    };
    VARIANTS.iter().map(|variant| ours.seen(variant)).collect()
}

/// `text` with each word `old` replaced.
fn with_word(text: &str, old: &str, new: &str) -> String {
    let parts = text.split_inclusive([' ', '\n']).map(|part| {
        let (word, end) = part.split_at(part.trim_end().len());
        [if word == old { new } else { word }, end].concat()
    });
    parts.collect()
}

#[test]
fn containers_see_what_dockers_driver_gives_them() {
    kernel();
    let (theirs, ours) = std::thread::scope(|scope| {
        let theirs = scope.spawn(by_docker);
        let ours = by_us();
        (theirs.join().expect("Docker's side"), ours)
    });
    // All of them in one, so that every difference is seen.
    let (mut all_theirs, mut all_ours) = (String::new(), String::new());
    for (variant, (theirs, ours)) in VARIANTS.iter().zip(theirs.into_iter().zip(ours)) {
        let what = variant.what;
        let mut expected = theirs.clone();
        for (docker, us) in variant.differs {
            let replaced = with_word(&expected, docker, us);
            assert_ne!(replaced, expected, "{what}: no {docker} in {theirs}");
            expected = replaced;
        }
        all_theirs += &format!("{what}:\n{expected}\n");
        all_ours += &format!("{what}:\n{ours}\n");
    }
    assert_str_eq!(
        all_theirs,
        all_ours,
        "Docker's, but for what is known, and ours"
    );
}
