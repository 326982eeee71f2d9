//! The CNI plugin: beside the reference plugin, driven by a real runtime, and damaged.

use std::io::Write;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use ipvlan_tests::{
    Daemon, Figures, Guide, Lab, Namespace, Raw, Running, ctl, ctl_command, datagram_by,
    eventually, figures_equal_the_kernels, kernel, mac_of, result, settles_as, sh, succeeds,
    traces,
};
use serde_json::{Value, json};

/// Where Debian has the reference plugins.
const REFERENCE: &str = "/usr/lib/cni";
/// Where the plugin is under its own name.
const OURS: &str = "/run/cni-test";

/// A configuration on the lab's parent, which `more` adds to.
fn conf(more: Value) -> Value {
    sh(&format!(
        "mkdir -p {OURS}; ln -sf \"$IPVLAN_CTL\" {OURS}/ipvlan-ctl-cni"
    ));
    let mut conf = json!({
        "cniVersion": "1.1.0",
        "name": "pods",
        "type": "ipvlan-ctl-cni",
        "master": Lab::PARENT,
    });
    for (key, value) in more.as_object().expect("an object") {
        conf[key] = value.clone();
    }
    conf
}

fn own_ipam() -> Value {
    json!({"ipam": {"type": "ipvlan-ctl", "subnets": [
        {"subnet": "192.168.1.0/24", "range": "192.168.1.128/25"},
    ]}})
}

/// An attachment as a runtime knows it.
struct Attachment<'a> {
    container: &'a str,
    netns: String,
    args: &'a str,
}

impl<'a> Attachment<'a> {
    fn of(ns: &'a Namespace) -> Self {
        Self {
            container: &ns.name,
            netns: format!("/run/netns/{}", ns.name),
            args: "",
        }
    }

    fn start(&self, command: &str, conf: &Value) -> Child {
        let plugin = conf["type"].as_str().expect("a type");
        let folder = match plugin {
            "ipvlan-ctl-cni" => OURS,
            _ => REFERENCE,
        };
        let mut child = Command::new(format!("{folder}/{plugin}"))
            .env("CNI_COMMAND", command)
            .env("CNI_CONTAINERID", self.container)
            .env("CNI_NETNS", &self.netns)
            .env("CNI_IFNAME", "eth0")
            .env("CNI_ARGS", self.args)
            .env("CNI_PATH", format!("{OURS}:{REFERENCE}"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the plugin starts");
        let mut stdin = child.stdin.take().expect("a pipe");
        // A plugin that needs no configuration may end first.
        let _ = stdin.write_all(conf.to_string().as_bytes());
        child
    }

    fn run(&self, command: &str, conf: &Value) -> Result<Value, Value> {
        result(self.start(command, conf))
    }
}

#[test]
fn with_host_local_it_is_what_the_reference_plugin_is() {
    let _lab = Lab::new();
    for (mode, version) in [("l2", "1.0.0"), ("l3s", "0.3.1")] {
        let seen: Vec<(Value, String)> = ["ipvlan", "ipvlan-ctl-cni"]
            .into_iter()
            .map(|plugin| {
                let before = traces();
                let ns = Namespace::new("pod");
                let attachment = Attachment::of(&ns);
                let conf = conf(json!({
                    "type": plugin, "cniVersion": version, "mode": mode, "mtu": 1400,
                    "ipam": {
                        "type": "host-local", "dataDir": format!("/run/{plugin}-{mode}"),
                        "ranges": [
                            [{"subnet": "192.168.1.0/24", "rangeStart": "192.168.1.50"}],
                            [{"subnet": "fd00:1::/64"}],
                        ],
                        "routes": [
                            {"dst": "0.0.0.0/0"},
                            {"dst": "10.9.0.0/16", "gw": "192.168.1.3"},
                            {"dst": "::/0"},
                        ],
                    },
                    "dns": {"nameservers": ["192.168.1.1"]},
                }));
                let mut result = attachment.run("ADD", &conf).expect("ADD");
                let inside = ns.sh(
                    "ip -d link show eth0 | grep -o \"mtu 1400\\|ipvlan *mode [a-z0-9]*\"
                     ip -o addr show dev eth0 scope global | grep -o \"inet.*scope global\"
                     ip route; ip -6 route show default | grep -o \"default.*eth0\"",
                );
                result["interfaces"][0]["mac"] = Value::Null;
                if version != "0.3.1" {
                    let mut check = conf.clone();
                    check["prevResult"] = result.clone();
                    check["prevResult"]["interfaces"][0]["mac"] = "".into();
                    attachment.run("CHECK", &check).expect("CHECK");
                }
                attachment.run("DEL", &conf).expect("DEL");
                let left = sh(&format!(
                    "ls /run/{plugin}-{mode}/pods | grep -v \"lock\\|last\" || true"
                ));
                assert_eq!(left, "", "{plugin} leaves a lease");
                if plugin == "ipvlan-ctl-cni" {
                    ctl("network rm pods");
                }
                settles_as(&before, traces, plugin);
                (result, inside)
            })
            .collect();
        let [reference, ours] = &seen[..] else {
            panic!("two plugins")
        };
        assert_eq!(ours, reference, "mode {mode}, version {version}");
    }
}

#[test]
fn check_finds_each_damage() {
    let _lab = Lab::new();
    let conf = conf(own_ipam());
    let ns = Namespace::new("pod");
    let attachment = Attachment {
        args: "IgnoreUnknown=1;K8S_POD_NAME=web-0;IP=192.168.1.200",
        ..Attachment::of(&ns)
    };
    attachment.run("STATUS", &conf).expect("STATUS");
    let result = attachment.run("ADD", &conf).expect("ADD");
    assert_eq!(result["ips"][0]["address"], "192.168.1.200/24");
    assert_eq!(
        result["routes"][0],
        json!({"dst": "0.0.0.0/0", "gw": "192.168.1.1"})
    );
    assert_eq!(result["interfaces"][0]["mtu"], 1500);
    assert!(ns.pings(Lab::WIRE));
    assert!(!ns.pings(Lab::HOST), "as every endpoint of ours");

    let mut check = conf.clone();
    check["prevResult"] = result.clone();
    attachment.run("CHECK", &check).expect("CHECK");
    let damaged = |check: &Value, words: &[&str]| {
        let found = attachment.run("CHECK", check).expect_err("damage");
        assert_eq!(found["code"], 101, "{found}");
        let message = found["msg"].as_str().expect("msg");
        for word in words {
            assert!(message.contains(word), "{word:?} in {message}");
        }
    };
    ns.sh("ip addr flush dev eth0 scope global; ip link set eth0 down");
    damaged(
        &check,
        &["192.168.1.200/24", "route to 0.0.0.0/0", "eth0 is down"],
    );
    ns.sh("ip link del eth0");
    damaged(&check, &["eth0 is gone"]);
    attachment.run("DEL", &conf).expect("DEL");
    check["prevResult"] = attachment.run("ADD", &conf).expect("ADD again");
    assert_eq!(check["prevResult"]["ips"], result["ips"]);
    // The configuration names no MTU: the container may choose a smaller one.
    ns.sh("ip link set eth0 mtu 1300");
    attachment.run("CHECK", &check).expect("CHECK");
    let mut other = check.clone();
    other["prevResult"]["ips"][0]["address"] = "192.168.1.201/24".into();
    sh("ip link set eth9 down");
    damaged(&other, &["the parent eth9 is down", "192.168.1.201"]);
    sh("ip link set eth9 up");
    let elsewhere = Namespace::new("elsewhere");
    let moved = Attachment {
        netns: Attachment::of(&elsewhere).netns,
        ..Attachment::of(&ns)
    };
    moved.run("CHECK", &check).expect_err("another namespace");
    // One of the two maps alone has lost it.
    let map = sh("echo /sys/fs/bpf/ipvlan-ctl/abi*/ADDRESSES");
    let map = map.trim();
    let entries: Value = serde_json::from_str(&sh(&format!("bpftool -j map dump pinned {map}")))
        .expect("bpftool prints JSON");
    let key: Vec<&str> = entries[0]["key"]
        .as_array()
        .expect("bytes")
        .iter()
        .map(|byte| byte.as_str().expect("0xNN"))
        .collect();
    sh(&format!(
        "bpftool map delete pinned {map} key {}",
        key.join(" ")
    ));
    damaged(&check, &["no record"]);
    ctl("repair");
    attachment.run("CHECK", &check).expect("CHECK after repair");
    match kernel().as_str() {
        "6.1" => drop(ns.sh("tc qdisc del dev eth0 clsact")),
        _ => drop(sh("rm /sys/fs/bpf/ipvlan-ctl/links/slot-*")),
    }
    eventually("the loss of the programs is found", || {
        attachment
            .run("CHECK", &check)
            .is_err_and(|error| error["msg"].as_str().expect("msg").contains("programs"))
    });
    attachment.run("DEL", &conf).expect("DEL");
    attachment.run("DEL", &conf).expect("DEL again");
    let unknown = attachment.run("CHECK", &check).expect_err("no container");
    assert_eq!(unknown["code"], 3);
}

#[test]
fn gc_releases_what_its_list_lacks_and_a_changed_configuration_waits_for_that() {
    let _lab = Lab::new();
    let before = traces();
    let conf = conf(own_ipam());
    let pods = ["keep", "drop"].map(Namespace::new);
    for ns in &pods {
        Attachment::of(ns).run("ADD", &conf).expect("ADD");
    }
    let attachment = Attachment::of(&pods[0]);
    let without = attachment.run("GC", &conf).expect_err("GC without a list");
    assert_eq!(without["code"], 7);
    let mut list = conf.clone();
    list["cni.dev/valid-attachments"] = json!([{"containerID": "keep", "ifname": "eth0"}]);
    attachment.run("GC", &list).expect("GC");
    assert!(pods[0].pings(Lab::WIRE));
    assert!(!pods[1].succeeds("ip link show eth0"));

    let mut changed = conf.clone();
    changed["mode"] = "l3".into();
    let late = Attachment::of(&pods[1]);
    let error = late.run("ADD", &changed).expect_err("in use");
    assert_eq!(error["code"], 7);
    let message = error["msg"].as_str().expect("msg");
    assert!(message.contains("mode"), "{message}");
    attachment.run("DEL", &changed).expect("DEL");
    late.run("ADD", &changed).expect("ADD");
    assert!(pods[1].sh("ip -d link show eth0").contains("mode l3"));

    changed["cni.dev/valid-attachments"] = json!([]);
    late.run("GC", &changed).expect("GC");
    settles_as(&before, traces, "GC leaves nothing");
}

/// Attaches `count` containers at once and then detaches them.
fn many_at_once(count: usize) {
    let conf = conf(own_ipam());
    let before = traces();
    sh(&format!("seq -f \"netns add pod%g\" {count} | ip -batch -"));
    let names: Vec<String> = (1..=count).map(|i| format!("pod{i}")).collect();
    let all = |command: &str| -> Vec<Value> {
        let children: Vec<Child> = names
            .iter()
            .map(|name| {
                let attachment = Attachment {
                    container: name,
                    netns: format!("/run/netns/{name}"),
                    args: "",
                };
                attachment.start(command, &conf)
            })
            .collect();
        children
            .into_iter()
            .map(|child| result(child).unwrap_or_else(|error| panic!("{command}: {error}")))
            .collect()
    };
    // The first find no network and race to make it.
    let results = all("ADD");
    let mut addresses: Vec<String> = results
        .iter()
        .map(|result| result["ips"][0]["address"].to_string())
        .collect();
    addresses.sort();
    addresses.dedup();
    assert_eq!(addresses.len(), count, "each has an address of its own");
    all("DEL");
    sh(&format!("seq -f \"netns del pod%g\" {count} | ip -batch -"));
    ctl("network rm pods");
    settles_as(&before, traces, "all at once leave nothing");
}

#[test]
fn many_at_once_leave_nothing() {
    let _lab = Lab::new();
    // Under emulation a hundred take minutes where each does its own work.
    many_at_once(25);
    let _daemon = Daemon::start();
    many_at_once(100);
}

#[test]
fn a_daemon_does_the_work_or_leaves_it_to_the_plugin() {
    let _lab = Lab::new();
    let conf = conf(own_ipam());
    let pods = ["one", "two", "three", "four"].map(Namespace::new);
    let [one, two, three, four] = pods.each_ref().map(Attachment::of);
    let alone = one.run("ADD", &conf).expect("ADD without a daemon");
    let mut daemon = Daemon::start();
    let waits = |child: &mut Child| {
        std::thread::sleep(Duration::from_secs(3));
        child.try_wait().expect("it can be asked").is_none()
    };

    daemon.signal("STOP");
    let mut add = two.start("ADD", &conf);
    assert!(waits(&mut add), "the plugin did it itself");
    let mut gone = three.start("ADD", &conf);
    assert!(waits(&mut gone));
    gone.kill().expect("it runs");
    gone.wait().expect("it ends");
    daemon.signal("CONT");
    let served = result(add).expect("ADD by the daemon");
    assert_eq!(shape(&served), shape(&alone));
    let mut check = conf.clone();
    check["prevResult"] = served;
    two.run("CHECK", &check).expect("CHECK by the daemon");
    assert!(pods[1].pings(Lab::WIRE));
    assert_eq!(
        endpoints(),
        ["one", "two"],
        "whose caller was gone before its turn has not come"
    );
    let error = one.run("ADD", &conf).expect_err("it is there");
    assert_eq!(error["code"], 100);
    let mut elsewhere = Attachment::of(&pods[2]);
    elsewhere.netns = "/run/netns/nowhere".into();
    let error = elsewhere.run("ADD", &conf).expect_err("no namespace");
    assert_eq!(error["code"], 3);

    daemon.signal("STOP");
    let mut add = three.start("ADD", &conf);
    assert!(waits(&mut add));
    daemon.end_by("KILL");
    result(add).expect("the plugin does what the daemon did not");

    // Another's links and store are not the daemon's.
    let _other = Daemon::start_by({
        let mut other = ctl_command(["daemon", "--state-dir", "/run/other", "--http", "off"]);
        other.args(["--docker-plugin", "off"]);
        other
    });
    four.run("ADD", &conf).expect("ADD by the plugin");
    assert_eq!(endpoints(), ["one", "two", "three", "four"]);
    assert!(!succeeds("test -e /run/other/state.db"));
    for attachment in [&one, &two, &three, &four] {
        attachment.run("DEL", &conf).expect("DEL");
    }
    assert!(!pods.iter().any(|ns| ns.succeeds("ip link show eth0")));
}

/// A DHCP server on the wire, and the daemon of the reference's DHCP plugin.
struct Dhcp {
    server: Option<Running>,
    _clients: Running,
}

impl Dhcp {
    const LEASES: &str = "/run/cni-test/dhcp.leases";

    fn start() -> Self {
        sh(&format!(
            "mkdir -p {OURS} /run/cni; rm -f {} /run/cni/dhcp.sock",
            Self::LEASES
        ));
        let clients = Running::start(
            Command::new(format!("{REFERENCE}/dhcp"))
                .args(["daemon", "-broadcast", "-timeout", "2s", "-resendmax", "1s"])
                .stderr(Stdio::null()),
        );
        eventually("the plugin's daemon listens", || {
            succeeds("test -S /run/cni/dhcp.sock")
        });
        Self {
            server: Some(Self::serve()),
            _clients: clients,
        }
    }

    /// Clients are to renew their leases after five seconds.
    fn serve() -> Running {
        let server = Running::start(
            Command::new("ip")
                .args(["netns", "exec", "wire", "dnsmasq", "--keep-in-foreground"])
                .args([
                    "--port=0",
                    "--conf-file=/dev/null",
                    "--user=root",
                    "--no-ping",
                ])
                .args(["--interface=sw0", "--dhcp-authoritative"])
                .args(["--dhcp-range=192.168.1.100,192.168.1.120,255.255.255.0,2m"])
                .args(["--dhcp-option=option:router,192.168.1.3"])
                .args(["--dhcp-option=option:T1,5"])
                .arg(format!("--dhcp-leasefile={}", Self::LEASES)),
        );
        eventually("the server listens", || {
            succeeds("ip netns exec wire ss -Hlun sport 67 | grep -q .")
        });
        server
    }

    /// When the lease of an address ends, in seconds since 1970, if there is one.
    fn lease(address: &str) -> Option<u64> {
        let leases = std::fs::read_to_string(Self::LEASES).expect("the server's leases");
        let words = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let mut leases = leases.lines().map(words);
        let lease = leases.find(|lease| lease.get(2).is_some_and(|leased| leased == address))?;
        Some(lease[0].parse().expect("a time"))
    }
}

#[test]
fn a_dhcp_server_gives_addresses() {
    let lab = Lab::new();
    let mut dhcp = Dhcp::start();
    // Debian's plugin does not speak 1.1 yet.
    let conf = conf(json!({"cniVersion": "1.0.0", "ipam": {"type": "dhcp"}}));
    let pods = ["one", "two"].map(Namespace::new);
    let attachments = pods.each_ref().map(Attachment::of);
    let before = traces();
    let addresses = attachments.each_ref().map(|attachment| {
        let result = attachment.run("ADD", &conf).expect("ADD");
        assert_eq!(result["ips"][0]["gateway"], "192.168.1.3", "{result}");
        let address = result["ips"][0]["address"].as_str().expect("an address");
        address.strip_suffix("/24").expect("a prefix").to_owned()
    });
    let [one, two] = &pods;
    assert_ne!(addresses[0], addresses[1], "one MAC, two clients");
    assert!(one.pings(Lab::WIRE) && two.pings(Lab::WIRE));
    assert!(one.pings(&addresses[1]));
    assert!(one.sh("ip route").contains("default via 192.168.1.3"));
    assert!(!succeeds(&format!("ping -n -q -c 2 -W 1 {}", addresses[0])));

    let leased = Dhcp::lease(&addresses[0]).expect("a lease");
    eventually("the lease is renewed", || {
        Dhcp::lease(&addresses[0]).is_some_and(|renewed| renewed > leased)
    });
    // What it asked before it had an address counts, too.
    figures_equal_the_kernels("one", one);

    // To ask is all that it may do without an address.
    let raw = Raw::on(one, "eth0");
    let macs = [mac_of(Some(one), "eth0"), [0xff; 6]];
    let frame = |ports, to: [u8; 4]| datagram_by(ports, macs, [0; 4], to, "x");
    let spoofed = || Figures::of("one").dropped("spoofed-source");
    let dropped = spoofed();
    raw.send(&frame([68, 67], [255; 4]));
    assert_eq!(spoofed(), dropped);
    raw.send(&frame([68, 68], [255; 4]));
    raw.send(&frame([68, 67], [192, 168, 1, 3]));
    assert_eq!(spoofed(), dropped + 2);

    for (attachment, address) in attachments.iter().zip(&addresses) {
        attachment.run("DEL", &conf).expect("DEL");
        eventually("the lease is given back", || Dhcp::lease(address).is_none());
    }
    ctl("network rm pods");
    settles_as(&before, traces, "DEL");

    dhcp.server = None;
    let [attachment, _] = &attachments;
    let error = attachment.run("ADD", &conf).expect_err("no server answers");
    let message = error["msg"].as_str().expect("msg");
    assert!(message.contains("IPAM plugin dhcp"), "{message}");
    assert!(!one.succeeds("ip link show eth0"));
    ctl("network rm pods");
    settles_as(&before, traces, "an ADD that got no address");

    let mut killed = attachment.start("ADD", &conf);
    eventually("it asks", || {
        one.succeeds("ip link show eth0 up | grep -q UP")
    });
    killed.kill().expect("it runs");
    killed.wait().expect("it ends");
    ctl("repair");
    assert!(!one.succeeds("ip link show eth0"));
    ctl("network rm pods");
    settles_as(&before, traces, "an ADD that was killed while it asked");
    drop(lab);
}

#[test]
fn static_addresses_are_taken_as_they_are() {
    let _lab = Lab::new();
    let pod = Namespace::new("pod");
    let attachment = Attachment::of(&pod);
    let conf = conf(json!({"cniVersion": "1.0.0", "ipam": {
        "type": "static",
        "addresses": [{"address": "192.168.1.77/24", "gateway": "192.168.1.3"}],
        "routes": [{"dst": "0.0.0.0/0"}],
    }}));
    let result = attachment.run("ADD", &conf).expect("ADD");
    assert_eq!(result["ips"][0]["address"], "192.168.1.77/24", "{result}");
    assert!(pod.pings(Lab::WIRE));
    assert!(pod.sh("ip route").contains("default via 192.168.1.3"));
    let mut check = conf.clone();
    check["prevResult"] = result;
    attachment.run("CHECK", &check).expect("CHECK");
    attachment.run("DEL", &conf).expect("DEL");
    assert!(!pod.succeeds("ip link show eth0"));
}

#[test]
fn a_master_in_the_container_carries_it() {
    let lab = Lab::new();
    let before = traces();
    // The host's link of that name is another.
    ctl("network create --subnet 10.77.0.0/24 -o parent=eth9 hosts_own");
    let pod = Namespace::new("pod");
    let attachment = Attachment::of(&pod);
    let conf = conf({
        let mut more = own_ipam();
        more["linkInContainer"] = true.into();
        more
    });
    let error = attachment.run("ADD", &conf).expect_err("no such link");
    assert_eq!(error["code"], 7, "{error}");
    let message = error["msg"].as_str().expect("msg");
    assert!(
        message.contains("master") && message.contains("eth9"),
        "{message}"
    );

    pod.sh("ip link add eth9 type veth peer name port1 netns wire; ip link set eth9 up");
    lab.wire.sh("ip link set port1 master sw0 up");
    let result = attachment.run("ADD", &conf).expect("ADD");
    let mut check = conf.clone();
    check["prevResult"] = result;
    attachment.run("CHECK", &check).expect("CHECK");
    assert!(pod.pings(Lab::WIRE));
    figures_equal_the_kernels("pod", &pod);
    assert!(Figures::of("pod").counters.rx_packets > 0);
    pod.sh("ip addr add 192.168.1.66/24 dev eth0");
    assert!(!pod.succeeds("ping -n -q -c 2 -W 1 -I 192.168.1.66 192.168.1.3"));
    assert!(Figures::of("pod").dropped("spoofed-source") > 0);
    assert!(!pod.pings(Lab::HOST), "over the wire to the host");

    let inspect: Value = serde_json::from_str(&ctl("network inspect pods")).expect("JSON");
    assert_eq!(inspect[0]["IpvlanCtl"]["ParentKind"], "inside");
    assert_eq!(ctl("repair"), "");
    attachment.run("STATUS", &conf).expect("STATUS");
    attachment.run("DEL", &conf).expect("DEL");
    assert!(!pod.succeeds("ip link show eth0"));
    assert!(pod.succeeds("ip link show eth9"), "it is the container's");

    // The slave goes with the master, and the endpoint with the slave.
    attachment.run("ADD", &conf).expect("ADD");
    pod.sh("ip link del eth9");
    attachment.run("CHECK", &check).expect_err("it is gone");
    assert!(ctl("repair").contains("pod"));
    attachment.run("DEL", &conf).expect("DEL");
    ctl("network rm pods hosts_own");
    settles_as(&before, traces, "the networks' end");
}

/// The names of all, the oldest first.
fn endpoints() -> Vec<String> {
    let stats: Value = serde_json::from_str(&ctl("stats --json")).expect("JSON");
    let rows = stats["endpoints"].as_array().expect("endpoints");
    let names = rows.iter().map(|row| row["name"].as_str().expect("a name"));
    names.map(Into::into).collect()
}

/// A result without what differs between two attachments.
fn shape(result: &Value) -> Value {
    let mut result = result.clone();
    result["interfaces"][0]["sandbox"] = Value::Null;
    result["ips"][0]["address"] = Value::Null;
    result
}

#[test]
fn wrong_calls_are_refused_with_their_code() {
    let _lab = Lab::new();
    let ns = Namespace::new("pod");
    let good = conf(own_ipam());
    ctl("network create --subnet 10.77.0.0/24 users_own");
    let before = traces();
    let attachment = Attachment::of(&ns);
    let leases = "/run/cni-test/leases";
    for (more, code, words) in [
        (json!({"master": "eth77"}), 7, ["master", "eth77"]),
        (json!({"mode": "l9"}), 7, ["mode", "l9"]),
        (json!({"mtu": 9000}), 7, ["mtu", "9000"]),
        (json!({"cniVersion": "2.0.0"}), 1, ["cniVersion", "2.0.0"]),
        (json!({"hostAcces": true}), 2, ["hostAcces", "true"]),
        (json!({"name": "users_own"}), 7, ["name", "users_own"]),
        (
            json!({"ipam": {"type": "dhcp"}, "mode": "l3"}),
            7,
            ["mode", "l3"],
        ),
        (
            json!({"ipam": {"type": "dhcp"}, "internal": true}),
            7,
            ["internal", "true"],
        ),
        // Its daemon does not run.
        (
            json!({"cniVersion": "1.0.0", "ipam": {"type": "dhcp"}}),
            999,
            ["dhcp", "dhcp.sock"],
        ),
        (
            json!({"ipam": {"type": "nosuch"}}),
            7,
            ["ipam.type", "nosuch"],
        ),
        (json!({"ipam": {"type": "../x"}}), 7, ["ipam.type", "../x"]),
        (
            json!({"runtimeConfig": {"ips": ["10.1.1.1"]}}),
            100,
            ["10.1.1.1", "192.168.1.0/24"],
        ),
        // The delegate gives two addresses of one family, which go back to it.
        (
            json!({"cniVersion": "1.0.0", "ipam": {
                "type": "host-local", "dataDir": leases,
                "ranges": [[{"subnet": "192.168.1.0/25"}], [{"subnet": "192.168.1.128/25"}]],
            }}),
            7,
            ["IPAM address", "192.168.1.1"],
        ),
    ] {
        let mut conf = good.clone();
        for (key, value) in more.as_object().expect("an object") {
            conf[key] = value.clone();
        }
        let error = attachment.run("ADD", &conf).expect_err("it is refused");
        assert_eq!(error["code"], code, "{error}");
        for word in words {
            assert!(
                error["msg"].as_str().expect("msg").contains(word),
                "{error}"
            );
        }
    }
    // A network that was made for one of them may stay until the runtime's next call.
    let mut gc = good.clone();
    gc["cni.dev/valid-attachments"] = json!([]);
    attachment.run("GC", &gc).expect("GC");
    settles_as(&before, traces, "refused calls leave nothing");
    assert_eq!(
        sh(&format!(
            "ls {leases}/pods | grep -v \"lock\\|last\" || true"
        )),
        ""
    );
    let nowhere = Attachment {
        netns: "/run/netns/nowhere".into(),
        ..Attachment::of(&ns)
    };
    assert_eq!(
        nowhere.run("ADD", &good).expect_err("no namespace")["code"],
        3
    );
    let nameless = Attachment {
        container: "",
        ..Attachment::of(&ns)
    };
    let error = nameless.run("ADD", &good).expect_err("no container");
    assert_eq!(error["code"], 4);
    assert_eq!(
        attachment.run("NOTHING", &good).expect_err("no command")["code"],
        4
    );
    let versions = attachment.run("VERSION", &json!({"type": "ipvlan-ctl-cni"}));
    assert_eq!(versions.expect("VERSION")["supportedVersions"][4], "1.1.0");
}

#[test]
fn the_guide_is_true() {
    let _lab = Lab::new();
    let before = traces();
    let guide = Guide::of(include_str!("../../docs/cni.md"), &[("eth1", Lab::PARENT)]);
    sh("mkdir -p /srv/rootfs/bin /srv/rootfs/proc
        cp /bin/busybox /srv/rootfs/bin/
        mountpoint -q /sys/fs/cgroup || mount -t cgroup2 none /sys/fs/cgroup");
    guide.run(0);
    let list = guide.block("json", 0);
    std::fs::write("/etc/cni/net.d/10-pods.conflist", list).expect("written");
    std::fs::write("/etc/cni/pods.json", guide.block("json", 1)).expect("written");
    {
        let _containerd = Containerd::start();
        let said = guide.run(1);
        assert!(said.contains("1 packets received"), "{said}");
    }
    assert!(
        !ctl("stats").contains("web"),
        "an endpoint goes with its container"
    );
    let said = guide.run(2);
    assert!(said.contains("\"192.168.1.129/24\""), "{said}");
    assert!(said.contains("1 received"), "{said}");
    assert!(said.contains("pod1"), "{said}");
    settles_as(&before, traces, "the guide leaves nothing");
}

/// containerd, which ends with the value.
struct Containerd(Child);

impl Containerd {
    fn start() -> Self {
        let child = Command::new("containerd")
            .args(["--log-level", "error"])
            .spawn()
            .expect("containerd starts");
        let containerd = Self(child);
        eventually("containerd is ready", || succeeds("ctr version"));
        containerd
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
        // dockerd takes any socket in there for that of a containerd that runs.
        let _ = std::fs::remove_dir_all("/run/containerd");
    }
}
