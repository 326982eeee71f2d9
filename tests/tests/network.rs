//! Networks: what the commands leave on the host, and what they refuse.

use ipvlan_tests::{
    Lab, Namespace, ctl, ctl_command, ctl_output, eventually, refused, refused_on, settles_as, sh,
    snapshot, traces,
};
use serde_json::Value;

fn inspect(network: &str) -> Value {
    let json: Value =
        serde_json::from_str(&ctl(&format!("network inspect {network}"))).expect("JSON");
    json[0].clone()
}

#[test]
fn addresses_are_handed_out_after_the_gateway() {
    let _lab = Lab::new();
    ctl("network create --subnet 192.168.1.0/29 -o parent=eth9 small");
    let namespaces: Vec<Namespace> = (0..5)
        .map(|i| Namespace::new(&format!("small{i}")))
        .collect();
    // .1 is the gateway and .2 the host's own: four are left of six.
    for ns in &namespaces[..4] {
        ctl(&format!("network connect small {}", ns.name));
    }
    let mut addresses: Vec<String> = namespaces[..4]
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
    let expected: Vec<String> = (3..7).map(|i| format!("192.168.1.{i}/29")).collect();
    assert_eq!(addresses, expected);
    refused("network connect small small4", &["192.168.1.0/29"]);
    refused(
        "network connect --ip 192.168.1.2 small small4",
        &["--ip", "192.168.1.2", "in use"],
    );
    let use_of =
        |what: &str| inspect("small")["IpvlanCtl"]["Subnets"]["192.168.1.0/29"][what].clone();
    assert_eq!(
        (use_of("IPsInUse"), use_of("DynamicIPsAvailable")),
        (8.into(), 0.into())
    );
    ctl("network disconnect small small3");
    assert_eq!(
        (use_of("IPsInUse"), use_of("DynamicIPsAvailable")),
        (7.into(), 1.into())
    );
    ctl("network connect small small4");
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
    settles_as(&before, snapshot, "all is removed");
}

#[test]
fn bad_input_is_refused_and_changes_nothing() {
    let _lab = Lab::new();
    ctl("network create --subnet 192.168.1.0/24 -o parent=eth9 db_net");
    let target = Namespace::new("target");
    target.sh("ip link add taken type dummy");
    let _web = Namespace::new("web");
    ctl("network connect --ip 192.168.1.77 db_net web");
    let (before, whole) = (traces(), snapshot());
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
        (
            "network connect --ip 192.168.1.77 db_net target",
            &["--ip", "192.168.1.77", "in use"],
        ),
        (
            "network connect --name web db_net target",
            &["web", "db_net", "exists"],
        ),
        ("network connect db_net web", &["web", "db_net", "already"]),
        ("network connect db_net 1", &["host's own", "namespace"]),
        (
            "network connect --ifname taken db_net target",
            &["target", "taken", "already"],
        ),
        ("network rm db_net", &["db_net", "in use", "web"]),
        ("network disconnect db_net target", &["target"]),
        ("network disconnect nothing web", &["nothing"]),
        ("network create n/n", &["name", "n/n", "letter or digit"]),
        ("network create none", &["name", "none", "reserved"]),
        (
            "network create --gateway 10.1.0.1 n",
            &["--gateway", "10.1.0.1", "--subnet"],
        ),
        (
            "network create --subnet 10.1.0.0/24 --subnet 10.1.0.128/25 n",
            &["--subnet", "10.1.0.128/25", "10.1.0.0/24"],
        ),
        (
            "network create --subnet fd00:1::/64 n",
            &["--subnet", "fd00:1::/64", "--ipv6"],
        ),
        (
            "network create --subnet 10.1.0.0/32 -o parent=eth9.10 n",
            &["--subnet", "10.1.0.0/32", "gateway and one endpoint"],
        ),
        (
            "network create --subnet 224.0.0.0/24 n",
            &["--subnet", "224.0.0.0/24", "multicast"],
        ),
        (
            "network connect --ifname a/b db_net target",
            &["--ifname", "a/b", "15"],
        ),
        (
            "network connect --alias a_b/ db_net target",
            &["--alias", "a_b/"],
        ),
        (
            "network connect --ip6 fd00::5 db_net target",
            &["--ip6", "fd00::5"],
        ),
        (
            "network ls --filter colour=red",
            &["--filter", "colour=red", "name"],
        ),
        (
            "network ls --filter dangling=maybe",
            &["dangling=maybe", "true or false"],
        ),
        (
            "network ls --format {{.Name}}",
            &["--format", "{{.Name}}", "table or json"],
        ),
        (
            "network inspect --format yaml db_net",
            &["--format", "yaml", "table or json"],
        ),
        (
            "network prune --force --filter until=soon",
            &["--filter", "until=soon", "24h"],
        ),
        (
            "network create --ip-range 10.2.0.0/24 --subnet 10.1.0.0/24 n",
            &["--ip-range", "10.2.0.0/24", "10.1.0.0/24"],
        ),
        (
            "network create --aux-address 10.1.0.9 --subnet 10.1.0.0/24 n",
            &["--aux-address", "10.1.0.9", "NAME=ADDRESS"],
        ),
        ("network create --mtu 40 n", &["--mtu", "40", "68"]),
        ("network create --ipv4=false n", &["--ipv4", "--ipv6"]),
        ("network create --label =x n", &["--label", "KEY=VALUE"]),
        (
            "network create -o host_access=yes n",
            &["host_access", "yes", "true or false"],
        ),
        (
            "network create -o shared_parent=true n",
            &["shared_parent", "parent"],
        ),
    ] {
        refused_on(&before, line, words);
    }
    assert_eq!(snapshot(), whole);
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

#[test]
fn a_dry_run_says_what_would_be_made_and_makes_nothing() {
    let _lab = Lab::new();
    let before = snapshot();
    let plan = ctl(
        "network create --dry-run --subnet 192.168.110.0/24 --ip-range 192.168.110.128/25 \
         --aux-address nas=192.168.110.9 -o parent=eth9.110 vlan110",
    );
    for words in [
        "vlan110: l2 bridge",
        "eth9.110, to be made: VLAN 110 on eth9",
        "192.168.110.0/24, gateway 192.168.110.1, range 192.168.110.128/25",
        "nas=192.168.110.9",
        "to be loaded",
    ] {
        assert!(plan.contains(words), "{words:?} in {plan}");
    }
    assert_eq!(snapshot(), before);
    refused(
        "network create --dry-run -o parent=lo n",
        &["-o parent", "lo"],
    );
}

#[test]
fn lists_take_dockers_formats_and_filters() {
    let _lab = Lab::new();
    ctl("network create --subnet 192.168.1.0/24 -o parent=eth9 --label env=test db_net");
    ctl("network create --subnet 10.8.0.0/24 lonely");
    let _ns = Namespace::new("listed");
    ctl("network connect db_net listed");
    let id = inspect("db_net")["Id"].as_str().unwrap().to_owned();
    for (filter, names) in [
        ("dangling=true", &["lonely"][..]),
        ("dangling=false", &["db_net"]),
        ("label=env", &["db_net"]),
        ("name=lon", &["lonely"]),
        (&format!("id={}", &id[..5]), &["db_net"]),
        ("driver=ipvlan", &["db_net", "lonely"]),
        ("type=builtin", &[]),
    ] {
        let lines = ctl(&format!("network ls --format json --filter {filter}"));
        let got: Vec<Value> = lines
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).expect("JSON")["Name"].clone())
            .collect();
        assert_eq!(got, names, "{filter}");
    }
    assert_eq!(
        ctl("network ls -q --no-trunc --filter name=db"),
        format!("{id}\n")
    );
    let table = ctl("network inspect --format table db_net");
    assert!(
        table.contains("192.168.1.0/24") && table.contains("eth9"),
        "{table}"
    );
    assert_eq!(
        ctl("network inspect --format json db_net lonely")
            .lines()
            .count(),
        1
    );

    // Ids and their beginnings stand for names, also of endpoints.
    let endpoint = inspect("db_net")["Containers"]
        .as_object()
        .unwrap()
        .keys()
        .next()
        .unwrap()
        .clone();
    ctl(&format!(
        "network disconnect {} {}",
        &id[..12],
        &endpoint[..12]
    ));
    assert_eq!(ctl("network prune --force --filter until=24h"), "");
    ctl("network rm --force nothing");
    assert_eq!(
        ctl(&format!("network rm {} lonely", &id[..12])),
        format!("{}\nlonely\n", &id[..12])
    );
    assert_eq!(ctl("network ls -q"), "");
}

#[test]
fn a_container_on_several_networks_has_its_default_route_from_one() {
    let _lab = Lab::new();
    ctl("network create --subnet 192.168.1.0/24 -o parent=eth9 db_net");
    ctl("network create --subnet 10.10.0.0/24 -o parent=eth9.10 vlan10");
    ctl("network create --subnet 10.8.0.0/24 lonely");
    let ns = Namespace::new("several");
    ctl("network connect lonely several");
    ctl("network connect --ip 192.168.1.10 --alias db db_net several");
    ctl("network connect --ifname trunk vlan10 several");
    let addresses = ns.sh("ip -4 -brief addr");
    for words in [
        "eth0",
        "10.8.0.1/24",
        "eth1",
        "192.168.1.10/24",
        "trunk",
        "10.10.0.2/24",
    ] {
        assert!(addresses.contains(words), "{words} in {addresses}");
    }
    let default = ns.sh("ip route show default");
    assert!(default.contains("via 192.168.1.1 dev eth1"), "{default}");
    assert_eq!(default.lines().count(), 1, "{default}");
    assert!(ns.pings(Lab::WIRE));
    refused("network connect db_net several", &["several", "db_net"]);
    ctl("network disconnect db_net several");
    let default = ns.sh("ip route show default");
    assert!(
        default.contains("via 10.10.0.1 dev trunk"),
        "the next one's: {default}"
    );

    // By priority: from the first as long as it is the highest, and back to it.
    ctl(
        "network create --ipv6 --subnet 10.11.0.0/24 --subnet fd00:11::/64 -o parent=eth9.11 vlan11",
    );
    ctl("network connect --gw-priority -1 db_net several");
    assert_eq!(ns.sh("ip route show default"), default);
    ctl("network connect --gw-priority 2 --ifname dual vlan11 several");
    let taken = ns.sh("ip route show default; ip -6 route show default");
    let lines: Vec<&str> = taken.lines().collect();
    assert!(
        lines.len() == 2
            && lines[0].contains("via 10.11.0.1 dev dual")
            && lines[1].contains("dev dual"),
        "{taken}"
    );
    ctl("network disconnect vlan11 several");
    assert_eq!(
        ns.sh("ip route show default; ip -6 route show default"),
        default
    );
}

#[test]
fn routed_networks_on_two_parents_share_their_addresses() {
    let _lab = Lab::new();
    for (parent, name) in [("eth9.10", "one"), ("eth9.20", "two")] {
        ctl(&format!(
            "network create --subnet 10.11.0.0/24 -o parent={parent} -o ipvlan_mode=l3 {name}"
        ));
    }
    let _namespaces = ["share-a", "share-b"].map(Namespace::new);
    ctl("network connect --ip 10.11.0.5 one share-a");
    refused(
        "network connect --ip 10.11.0.5 two share-b",
        &["--ip", "10.11.0.5", "in use"],
    );
    refused(
        "network create --subnet 10.11.0.0/25 -o parent=eth9 n",
        &["--subnet", "10.11.0.0/25", "one"],
    );
}

#[test]
fn default_pools_avoid_the_hosts_routes_and_addresses() {
    let _lab = Lab::new();
    sh("ip route add 172.18.5.0/24 dev eth9; ip addr add 172.19.255.1/32 dev eth9");
    ctl("network create free");
    assert_eq!(
        inspect("free")["IPAM"]["Config"][0]["Subnet"],
        "172.20.0.0/16"
    );
}

#[test]
fn an_address_is_announced_on_the_wire() {
    let lab = Lab::new();
    ctl(
        "network create --ipv6 --subnet 192.168.1.0/24 --subnet 2001:db8:1::/64 -o parent=eth9 \
         dual",
    );
    let _ns = Namespace::new("heard");
    lab.wire.sh(
        "tcpdump -l -n -i port0 \"arp or (icmp6 and ip6[40] == 136)\" >/run/seen 2>/run/tcpdump &",
    );
    let has = |file: &str, words: &str| sh(&format!("cat {file}")).contains(words);
    eventually("tcpdump listens", || has("/run/tcpdump", "listening on"));
    ctl("network connect --ip 192.168.1.77 --ip6 2001:db8:1::77 dual heard");
    eventually("the announcement of the IPv4 address", || {
        has("/run/seen", "192.168.1.77")
    });
    eventually("the announcement of the IPv6 address", || {
        has("/run/seen", "neighbor advertisement, tgt is 2001:db8:1::77")
    });
    lab.wire.sh("pkill -x tcpdump");
}
