//! Networks: what the commands leave on the host, and what they refuse.

use ipvlan_tests::{
    Lab, Namespace, ctl, ctl_command, ctl_output, refused, refused_on, sh, snapshot,
};
use serde_json::Value;

fn inspect(network: &str) -> Value {
    let json: Value =
        serde_json::from_str(&ctl(&format!("network inspect {network}"))).expect("JSON");
    json[0].clone()
}

#[test]
fn the_pages_db_net_has_the_pages_defaults() {
    let _lab = Lab::new();
    ctl("network create -d ipvlan --subnet 192.168.1.0/24 -o parent=eth9 db_net_ipv");
    let network = inspect("db_net_ipv");
    assert_eq!(network["Driver"], "ipvlan");
    assert_eq!(network["IPAM"]["Config"][0]["Gateway"], "192.168.1.1");
    assert_eq!(network["Internal"], false);
    assert_eq!(network["IpvlanCtl"]["Mode"], "l2");
    assert!(ctl("network ls").contains("db_net_ipv"));
}

#[test]
fn an_endpoint_is_what_the_page_says() {
    let _lab = Lab::new();
    let ns = Namespace::new("ipv1");
    ctl(
        "network create --subnet 192.168.1.0/24 --gateway 192.168.1.1 -o parent=eth9 \
         -o ipvlan_mode=l2 db_net",
    );
    ctl("network connect --ip 192.168.1.10 db_net ipv1");

    let links = ns.sh("ip -details -oneline link show eth0");
    assert!(links.contains("ipvlan  mode l2 bridge"), "{links}");
    assert!(
        links.contains("state UP") || links.contains("state UNKNOWN"),
        "{links}"
    );
    assert!(
        ns.sh("ip -4 -brief addr show eth0")
            .contains("192.168.1.10/24")
    );
    assert!(
        ns.sh("ip route")
            .contains("default via 192.168.1.1 dev eth0")
    );
    assert_eq!(
        ns.sh("ip -6 addr show dev eth0"),
        "",
        "no IPv6 unless asked for"
    );

    let endpoints = inspect("db_net")["Containers"].clone();
    let rows: Vec<&Value> = endpoints.as_object().unwrap().values().collect();
    assert_eq!(rows.len(), 1);
    assert_eq!(rows[0]["IPv4Address"], "192.168.1.10/24");
}

#[test]
fn addresses_are_handed_out_after_the_gateway() {
    let _lab = Lab::new();
    ctl("network create --subnet 192.168.1.0/29 -o parent=eth9 small");
    let namespaces: Vec<Namespace> = (0..6)
        .map(|i| Namespace::new(&format!("small{i}")))
        .collect();
    // .1 is the gateway: five are left of six.
    for ns in &namespaces[..5] {
        ctl(&format!("network connect small {}", ns.name));
    }
    let mut addresses: Vec<String> = namespaces[..5]
        .iter()
        .map(|ns| {
            ns.sh("ip -4 -brief addr show eth0")
                .split_whitespace()
                .nth(2)
                .unwrap()
                .to_owned()
        })
        .collect();
    addresses.sort();
    let expected: Vec<String> = (2..7).map(|i| format!("192.168.1.{i}/29")).collect();
    assert_eq!(addresses, expected);
    refused("network connect small small5", &["192.168.1.0/29"]);
    ctl("network disconnect small small3");
    ctl("network connect small small5");
}

#[test]
fn no_parent_and_internal_are_isolated_networks() {
    let lab = Lab::new();
    ctl("network create --subnet 192.168.10.0/24 isolated1");
    ctl("network create --subnet 192.168.11.0/24 --internal isolated2");
    ctl("network create isolated3");
    assert_eq!(
        inspect("isolated3")["IPAM"]["Config"][0]["Subnet"],
        "172.18.0.0/16"
    );
    for name in ["isolated1", "isolated2", "isolated3"] {
        let network = inspect(name);
        assert_eq!(network["Internal"], true, "{name}");
        let id = network["Id"].as_str().unwrap();
        let dummy = sh(&format!("ip -details link show di-{}", &id[..12]));
        assert!(dummy.contains("dummy"), "{dummy}");
        let pair = [1, 2].map(|i| Namespace::new(&format!("{name}-{i}")));
        for ns in &pair {
            ctl(&format!("network connect {name} {}", ns.name));
            assert_eq!(
                ns.sh("ip route show default"),
                "",
                "no default route in {name}"
            );
        }
        let address = pair[1].sh("ip -4 -brief addr show eth0");
        let address = address
            .split_whitespace()
            .nth(2)
            .unwrap()
            .split('/')
            .next()
            .unwrap();
        assert!(
            pair[0].pings(address),
            "the endpoints of {name} reach each other"
        );
        assert!(!pair[0].pings(Lab::WIRE));
        assert!(!pair[0].pings(Lab::HOST));
    }
    drop(lab);
    assert!(
        !sh("ip -brief link").contains("di-"),
        "the dummies go with their networks"
    );
}

#[test]
fn rm_leaves_nothing() {
    let _lab = Lab::new();
    let before = snapshot();
    let ns = Namespace::new("gone");
    let fresh = snapshot();
    ctl("network create --subnet 192.168.1.0/24 -o parent=eth9 db_net");
    ctl("network create --subnet 192.168.77.0/24 lonely");
    ctl("network connect db_net gone");
    assert_ne!(snapshot(), fresh);
    refused("network rm db_net", &["db_net", "gone"]);
    ctl("network disconnect db_net gone");
    assert!(!ns.succeeds("ip link show eth0"), "the slave is gone");
    ctl("network rm db_net");
    ctl("network rm lonely");
    drop(ns);
    std::thread::sleep(std::time::Duration::from_millis(200));
    assert_eq!(snapshot(), before);
}

#[test]
fn bad_input_is_refused_and_changes_nothing() {
    let _lab = Lab::new();
    ctl("network create --subnet 192.168.1.0/24 -o parent=eth9 db_net");
    let _ns = Namespace::new("target");
    let before = snapshot();
    for (line, words) in [
        (
            "network create --subnet 10.1.0.0/24 db_net",
            &["db_net"][..],
        ),
        (
            "network create --subnet 10.1.0.0/24 -o parent=eth77 n",
            &["parent", "eth77"],
        ),
        (
            "network create --subnet 192.168.1.0./24 n",
            &["--subnet", "192.168.1.0./24"],
        ),
        (
            "network create --subnet 10.1.0.7/24 n",
            &["--subnet", "10.1.0.7/24", "10.1.0.0/24"],
        ),
        (
            "network create --subnet 10.1.0.0/24 --gateway 10.2.0.1 n",
            &["--gateway", "10.2.0.1", "10.1.0.0/24"],
        ),
        (
            "network create -o ipvlan_mode=l9 n",
            &["ipvlan_mode", "l9", "l2", "l3", "l3s"],
        ),
        (
            "network create -o ipvlan_mode=12 n",
            &["ipvlan_mode", "12", "l2"],
        ),
        (
            "network create -o ipvlan_flag=open n",
            &["ipvlan_flag", "open", "private"],
        ),
        ("network create -o parent=lo n", &["parent", "lo"]),
        ("network create -o color=red n", &["color", "parent"]),
        ("network create -d bridge n", &["bridge", "ipvlan"]),
        (
            "network create --subnet 10.1.0.0/24 -o parent=eth9 n",
            &["eth9", "db_net"],
        ),
        (
            "network create -o parent=eth9.5000 n",
            &["eth9.5000", "4094"],
        ),
        ("network rm nothing", &["nothing"]),
        ("network inspect nothing", &["nothing"]),
        ("network connect nothing target", &["nothing"]),
        ("network connect db_net /no/such/file", &["/no/such/file"]),
        ("network connect db_net no-such-ns", &["no-such-ns"]),
        (
            "network connect --ip 10.9.9.9 db_net target",
            &["--ip", "10.9.9.9", "192.168.1.0/24"],
        ),
        (
            "network connect --ip 192.168.1.1 db_net target",
            &["--ip", "192.168.1.1"],
        ),
        ("network disconnect db_net target", &["target"]),
    ] {
        refused_on(&before, line, words);
    }
}

#[test]
fn without_root_nothing_is_tried() {
    let _lab = Lab::new();
    let before = snapshot();
    let mut ctl = ctl_command([]);
    let program = ctl.get_program().to_owned();
    ctl = std::process::Command::new("setpriv");
    ctl.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"])
        .arg(program);
    ctl.args(["network", "create", "--subnet", "10.1.0.0/24", "n"]);
    let output = ctl.output().expect("setpriv starts");
    let message = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{message}");
    assert_eq!(message.lines().count(), 1, "{message}");
    assert!(message.contains("root"), "{message}");
    assert_eq!(snapshot(), before);
}

#[test]
fn reading_needs_no_state() {
    let _lab = Lab::new();
    assert!(ctl_output("network ls").status.success());
    assert!(ctl_output("stats").status.success());
}
