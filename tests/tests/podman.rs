//! Podman's networks by our plugin: a real Podman and a real netavark call it.

use std::io::Write;
use std::process::{Child, Command, Stdio};

use ipvlan_tests::{
    Figures, Guide, Lab, Namespace, Podman, ctl, kernel, result, settles_as, sh, succeeds, traces,
};
use serde_json::{Value, json};

const PLUGIN: &str = "/usr/local/lib/netavark/ipvlan-ctl";

#[test]
fn the_podman_guide_is_true() {
    let _lab = Lab::new();
    let before = traces();
    let guide = Guide::of(
        include_str!("../../docs/podman.md"),
        &[("eth1", Lab::PARENT)],
    );
    let podman = Podman::new();
    let info: Value = serde_json::from_str(&guide.run(0)).expect("info is JSON");
    assert_eq!(info["api_version"], "1.0.0");
    sh("mkdir -p /run/netavark");
    std::fs::write("/etc/netavark/ipv1.json", guide.block("json", 0)).expect("written");
    let said = guide.run(2);
    for word in ["192.168.1.11/24", "1 received", "ipv1 "] {
        assert!(said.contains(word), "{word:?} in {said}");
    }
    settles_as(&before, traces, "netavark leaves nothing");

    // Podman takes long under emulation, and calls us alike on each kernel.
    if kernel() != "6.12" {
        return;
    }
    podman.import();
    let said = guide.run(1);
    for word in ["64 bytes from 192.168.1.3", "ipv1 "] {
        assert!(said.contains(word), "{word:?} in {said}");
    }
    settles_as(&before, traces, "Podman leaves nothing");
    let refused =
        "podman network create --driver ipvlan-ctl --subnet 10.9.0.0/24 -o mode=l9 bad 2>&1";
    let said = sh(&format!("! {refused}"));
    for word in ["-o mode", "l9", "l2, l3, l3s"] {
        assert!(said.contains(word), "{word:?} in {said}");
    }
}

fn place_plugin() {
    sh(&format!(
        "mkdir -p {}; ln -sf \"$IPVLAN_CTL\" {PLUGIN}",
        PLUGIN.trim_end_matches("/ipvlan-ctl")
    ));
}

#[test]
fn the_podman_plugin_makes_a_network_with_the_first_container_and_ends_it_with_the_last() {
    let _lab = Lab::new();
    ctl("network create --subnet 10.77.0.0/24 users_own");
    let before = traces();
    place_plugin();
    let asked = json!({
        "name": "routed", "id": "2f259bab93aa", "driver": "ipvlan-ctl",
        "network_interface": format!("{}.20", Lab::PARENT),
        "subnets": [
            {"subnet": "10.8.0.0/24", "lease_range": {"start_ip": "10.8.0.100"}},
            {"subnet": "fd00:8::/64"},
        ],
        "ipv6_enabled": true, "internal": false, "dns_enabled": true,
        "ipam_options": {"driver": "host-local"},
        "options": {"mode": "l3", "mtu": "1400"},
    });
    let made = plugin(&["create"], &asked).expect("create");
    let mut unchanged = asked.clone();
    unchanged["dns_enabled"] = false.into();
    assert_eq!(made, unchanged);
    settles_as(&before, traces, "create makes nothing yet");

    // Several at once: the first make the network, and the last take it away.
    let containers: Vec<(Namespace, Value)> = (1..=4)
        .map(|n| {
            let name = format!("pod{n}");
            let ips = [format!("10.8.0.{n}0"), format!("fd00:8::{n}0")];
            let options = json!({"interface_name": "net0", "static_ips": ips});
            (
                Namespace::new(&name),
                json!({"container_name": name, "network": made, "network_options": options}),
            )
        })
        .collect();
    let all = |verb: &str| -> Vec<Value> {
        let calls: Vec<Child> = containers
            .iter()
            .map(|(ns, input)| start(&[verb, &format!("/run/netns/{}", ns.name)], input))
            .collect();
        let ends = calls.into_iter().map(result);
        ends.map(|end| end.expect(verb)).collect()
    };
    let said = all("setup");
    let interface = &said[0]["interfaces"]["net0"];
    assert_eq!(interface["subnets"][0]["ipnet"], "10.8.0.10/24");
    assert_eq!(interface["subnets"][1]["ipnet"], "fd00:8::10/64");
    assert_eq!(interface["mac_address"].as_str().map(str::len), Some(17));
    let (first, _) = &containers[0];
    assert!(first.pings("10.8.0.20") && first.pings("fd00:8::40"));
    assert!(first.sh("ip -d link show net0").contains("mode l3"));
    assert!(first.sh("cat /sys/class/net/net0/mtu").contains("1400"));
    assert!(Figures::of("pod1").counters.tx_packets > 0);
    all("teardown");
    settles_as(&before, traces, "the last one takes the network with it");
    all("teardown");

    let input = &containers[0].1;
    let netns = "/run/netns/pod1";
    plugin(&["setup", netns], input).expect("setup again");
    sh("ip netns del pod1");
    plugin(&["teardown", netns], input).expect("teardown without a namespace");
    settles_as(
        &before,
        traces,
        "nothing is left of a namespace that is gone",
    );
    let gone = plugin(&["setup", netns], input).expect_err("no namespace");
    assert!(gone["error"].as_str().expect("error").contains(netns));
    settles_as(&before, traces, "a refused container leaves nothing");
}

#[test]
fn the_podman_plugin_refuses_wrong_words_by_name_and_value() {
    let _lab = Lab::new();
    ctl("network create --subnet 10.77.0.0/24 users_own");
    let ns = Namespace::new("pod");
    ctl("network connect --name pod users_own pod");
    let before = traces();
    place_plugin();
    let good = json!({
        "name": "n", "id": "2f", "driver": "ipvlan-ctl",
        "subnets": [{"subnet": "192.168.1.0/24"}], "options": {"parent": Lab::PARENT},
    });
    for (field, value, words) in [
        (
            "options",
            json!({"colour": "red"}),
            ["colour=red", "host_access"],
        ),
        ("options", json!({"mode": "l9"}), ["-o mode", "l2, l3, l3s"]),
        ("options", json!({"mtu": "9"}), ["-o mtu", "9"]),
        (
            "options",
            json!({"parent": "eth77"}),
            ["-o parent", "eth77"],
        ),
        (
            "network_interface",
            json!("lo"),
            ["-o parent", "--interface-name is \"lo\""],
        ),
        ("subnets", json!([]), ["--subnet", "needs one"]),
        (
            "subnets",
            json!([{"subnet": "10.1.2.3/8"}]),
            ["--subnet", "10.1.2.3/8"],
        ),
        (
            "subnets",
            json!([{"subnet": "10.77.0.0/16"}]),
            ["--subnet", "users_own"],
        ),
        (
            "ipam_options",
            json!({"driver": "dhcp"}),
            ["--ipam-driver", "dhcp"],
        ),
        ("name", json!("users_own"), ["name", "users_own"]),
    ] {
        let mut wrong = good.clone();
        wrong[field] = value;
        let error = plugin(&["create"], &wrong).expect_err("it is refused");
        let error = error["error"].as_str().expect("error");
        for word in words {
            assert!(error.contains(word), "{word:?} in {error}");
        }
    }
    let container = |network: &str, options: Value| {
        let mut network_options = json!({"interface_name": "eth5"});
        for (key, value) in options.as_object().expect("an object") {
            network_options[key] = value.clone();
        }
        let mut config = good.clone();
        config["name"] = network.into();
        json!({"container_name": "pod", "network": config, "network_options": network_options})
    };
    let netns = "/run/netns/pod";
    for (options, words) in [
        (
            json!({"static_mac": "02:00:00:00:00:01"}),
            ["--mac-address", "02:00"],
        ),
        (
            json!({"static_ips": ["10.1.1.1"]}),
            ["10.1.1.1", "192.168.1.0/24"],
        ),
        (json!({"interface_name": "a/b"}), ["a/b", "1 to 15"]),
    ] {
        let input = container("n", options);
        let error = plugin(&["setup", netns], &input).expect_err("it is refused");
        let error = error["error"].as_str().expect("error");
        for word in words {
            assert!(error.contains(word), "{word:?} in {error}");
        }
        settles_as(&before, traces, error);
    }
    // A network that is not Podman's is not for it to use, nor to take away.
    let theirs = container("users_own", json!({}));
    plugin(&["setup", netns], &theirs).expect_err("it is the user's");
    plugin(&["teardown", netns], &theirs).expect("teardown");
    assert!(ns.succeeds("ip link show eth0"));
    settles_as(&before, traces, "refused calls leave nothing");
    assert!(!succeeds(&format!("echo nonsense | {PLUGIN} create")));
}

fn start(words: &[&str], input: &Value) -> Child {
    let mut child = Command::new(PLUGIN)
        .args(words)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the plugin starts");
    let mut stdin = child.stdin.take().expect("a pipe");
    let written = stdin.write_all(input.to_string().as_bytes());
    written.expect("it reads");
    child
}

fn plugin(words: &[&str], input: &Value) -> Result<Value, Value> {
    result(start(words, input))
}
