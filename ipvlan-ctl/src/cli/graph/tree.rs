//! What is on what: links, their VLANs, the networks on them, and their endpoints.

use std::ops::AddAssign;

use crate::cli::units;
use crate::engine::{Branch, EndpointStats};
use crate::model::{Flag, Network, Parent};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Link,
    Vlan,
    Network,
    Endpoint,
}

/// Bytes and dropped packets of all endpoints under a node.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Traffic {
    pub rx: u64,
    pub tx: u64,
    pub drops: u64,
}

#[derive(Debug, Clone)]
pub(super) struct Node {
    pub kind: Kind,
    pub title: String,
    /// A line on what it is, such as addresses.
    pub detail: String,
    /// Said where it does not work, such as `down`.
    pub trouble: Option<String>,
    pub traffic: Traffic,
    pub children: Vec<Node>,
}

impl Traffic {
    fn of(stats: &EndpointStats) -> Self {
        Self {
            rx: stats.figures.total.rx.bytes,
            tx: stats.figures.total.tx.bytes,
            drops: stats.figures.dropped(),
        }
    }

    pub(super) fn total(&self) -> u64 {
        self.rx + self.tx
    }

    /// Such as `in 1.20kB, out 98B, 3 dropped`.
    pub(super) fn words(&self) -> String {
        let mut words = format!(
            "in {}, out {}",
            units::bytes(self.rx),
            units::bytes(self.tx)
        );
        if self.drops > 0 {
            words += &format!(", {} dropped", units::si(self.drops as f64));
        }
        words
    }
}

impl Node {
    /// What it is and does, a line each.
    pub(super) fn lines(&self) -> Vec<String> {
        let mut lines = vec![self.title.clone()];
        lines.extend(self.trouble.clone());
        lines.extend((!self.detail.is_empty()).then(|| self.detail.clone()));
        lines.push(self.traffic.words());
        lines
    }
}

impl AddAssign for Traffic {
    fn add_assign(&mut self, other: Self) {
        self.rx += other.rx;
        self.tx += other.tx;
        self.drops += other.drops;
    }
}

/// The links under the networks, in the order of their first network.
pub(super) fn trees(branches: &[Branch]) -> Vec<Node> {
    let mut trees = Vec::new();
    for branch in branches {
        let network = network(branch);
        let inside = !branch.network.parent.is_of_host();
        let state = match &branch.parent {
            None if inside => None,
            None => Some("absent".to_owned()),
            Some(link) if !link.up => Some("down".into()),
            Some(link) if link.state == "lowerlayerdown" => Some("no carrier".into()),
            Some(_) => None,
        };
        let name = branch.network.parent.name();
        let parent = match &branch.base {
            None if inside => under(&mut trees, Kind::Link, &format!("{name} in containers")),
            None => under(&mut trees, Kind::Link, name),
            Some(base) => {
                let base = under(&mut trees, Kind::Link, base);
                base.traffic += network.traffic;
                under(&mut base.children, Kind::Vlan, name)
            }
        };
        if matches!(branch.network.parent, Parent::Dummy { .. }) {
            parent.detail = "dummy".into();
        }
        if let Parent::Vlan { vid, .. } = branch.network.parent {
            parent.detail = format!("VLAN {vid}");
        }
        parent.trouble = state;
        parent.traffic += network.traffic;
        parent.children.push(network);
    }
    trees
}

/// The node of this name, put there if it is not.
fn under<'n>(nodes: &'n mut Vec<Node>, kind: Kind, title: &str) -> &'n mut Node {
    let known = |node: &Node| node.kind == kind && node.title == title;
    let at = nodes.iter().position(known).unwrap_or_else(|| {
        nodes.push(Node {
            kind,
            title: title.to_owned(),
            detail: String::new(),
            trouble: None,
            traffic: Traffic::default(),
            children: Vec::new(),
        });
        nodes.len() - 1
    });
    &mut nodes[at]
}

fn network(branch: &Branch) -> Node {
    let mut traffic = Traffic::default();
    let children: Vec<Node> = branch.endpoints.iter().map(endpoint).collect();
    for child in &children {
        traffic += child.traffic;
    }
    Node {
        kind: Kind::Network,
        title: branch.network.name.clone(),
        detail: describe(&branch.network),
        trouble: None,
        traffic,
        children,
    }
}

/// Such as `l2, internal, 10.0.0.0/24`.
fn describe(network: &Network) -> String {
    let mut words = vec![network.mode.to_string()];
    if network.flag != Flag::Bridge {
        words.push(network.flag.to_string());
    }
    if network.internal {
        words.push("internal".into());
    }
    words.extend(network.pools.iter().map(|pool| pool.subnet.to_string()));
    words.join(", ")
}

fn endpoint(stats: &EndpointStats) -> Node {
    let addresses: Vec<String> = stats
        .endpoint
        .addresses
        .hosts()
        .map(|address| address.to_string())
        .collect();
    Node {
        kind: Kind::Endpoint,
        title: stats.endpoint.name.clone(),
        detail: addresses.join(", "),
        trouble: None,
        traffic: Traffic::of(stats),
        children: Vec::new(),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::cli::reading::tests::row;
    use crate::kernel::Link;
    use crate::model::{Id, LinkView, Mode};

    fn branch(name: &str, parent: Parent, endpoints: &[(&str, u8, u64)]) -> Branch {
        let base = match &parent {
            Parent::Vlan { base, .. } => Some(base.clone()),
            _ => None,
        };
        let link = Link {
            view: LinkView {
                index: 2,
                name: parent.name().into(),
                kind: None,
                loopback: false,
                ipvlan: false,
                master: None,
                mtu: 1500,
            },
            up: !name.contains("down"),
            state: "up".into(),
            below: None,
            mac: None,
            arp: true,
            mode: None,
        };
        Branch {
            network: Network {
                id: Id::from_stored("ab".repeat(32)),
                name: name.into(),
                created: 0,
                parent,
                mode: Mode::L2,
                flag: Flag::Bridge,
                internal: base.is_none(),
                host_access: false,
                external_ipam: false,
                shared_parent: false,
                ipv4: true,
                ipv6: false,
                mtu: None,
                pools: Vec::new(),
                labels: Default::default(),
                options: Default::default(),
            },
            parent: Some(link),
            base,
            endpoints: endpoints
                .iter()
                .map(|(name, last, rx)| row(name, *last, *rx).stats)
                .collect(),
        }
    }

    /// Two VLANs of one link, one of them down, and a dummy.
    pub(in crate::cli::graph) fn host() -> Vec<Node> {
        let vlan = |vid: u16| Parent::Vlan {
            name: format!("eth0.{vid}"),
            base: "eth0".into(),
            vid,
        };
        trees(&[
            branch(
                "db_net",
                vlan(10),
                &[("db1", 11, 1_234_567), ("a \"quoted\" <name>", 12, 99)],
            ),
            branch("down_net", vlan(20), &[("web1", 21, 0)]),
            branch(
                "isolated",
                Parent::Dummy {
                    name: "di-abababababab".into(),
                },
                &[],
            ),
        ])
    }

    #[test]
    fn vlans_of_a_link_share_it_and_traffic_adds_up() {
        let trees = host();
        let titles = |nodes: &[Node]| -> Vec<String> {
            nodes.iter().map(|node| node.title.clone()).collect()
        };
        assert_eq!(titles(&trees), ["eth0", "di-abababababab"]);
        let vlans = &trees[0].children;
        assert_eq!(titles(vlans), ["eth0.10", "eth0.20"]);
        assert_eq!(vlans[1].trouble.as_deref(), Some("down"));
        assert_eq!(
            trees[0].traffic,
            vlans[0].children[0].traffic + vlans[1].traffic
        );
        assert_eq!(trees[0].traffic.rx, 1_234_666);
        assert_eq!(trees[1].children[0].detail, "l2, internal");
    }

    impl std::ops::Add for Traffic {
        type Output = Self;
        fn add(mut self, other: Self) -> Self {
            self += other;
            self
        }
    }
}
