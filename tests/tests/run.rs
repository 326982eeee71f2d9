//! `ipvlan-ctl run`: a process with its own network, and nothing left when it ends.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use ipvlan_tests::{Figures, Lab, ctl, ctl_output, settles_as, snapshot, succeeds};
use serde_json::Value;

fn db_net() -> Lab {
    let lab = Lab::new();
    ctl("network create --subnet 192.168.1.0/24 -o parent=eth9 db_net");
    lab
}

fn endpoints() -> Vec<Value> {
    let json: Value = serde_json::from_str(&ctl("network inspect db_net")).expect("JSON");
    json[0]["Containers"]
        .as_object()
        .expect("Containers")
        .values()
        .cloned()
        .collect()
}

#[test]
fn a_command_runs_on_the_network_and_leaves_nothing() {
    let _lab = db_net();
    let before = snapshot();
    let shown =
        ctl("run --rm --net db_net --name web --ip 192.168.1.10 ip -4 -brief addr show eth0");
    assert!(shown.contains("192.168.1.10/24"), "{shown}");
    let shown = ctl("run --rm --net db_net --name web --ip 192.168.1.10 cat /etc/hosts");
    assert!(
        shown.lines().any(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            words.first() == Some(&"192.168.1.10") && words.contains(&"web")
        }),
        "{shown}"
    );
    ctl(&format!(
        "run --rm --net db_net ping -n -q -c 1 -W 2 {}",
        Lab::WIRE
    ));
    assert!(
        !ctl_output(&format!(
            "run --rm --net db_net ping -n -q -c 1 -W 1 {}",
            Lab::HOST
        ))
        .status
        .success()
    );
    assert_eq!(snapshot(), before);
}

#[test]
fn exit_codes_are_passed_through() {
    let _lab = db_net();
    assert_eq!(
        ctl_output("run --rm --net db_net false").status.code(),
        Some(1)
    );
    assert_eq!(
        ctl_output("run --rm --net db_net no-such-command")
            .status
            .code(),
        Some(127)
    );
    let before = snapshot();
    let output = ctl_output("run --rm --net nothing true");
    assert_eq!(output.status.code(), Some(125));
    assert!(String::from_utf8_lossy(&output.stderr).contains("nothing"));
    let output = ctl_output("run --rm --net db_net --ip 10.1.1.1 true");
    assert_eq!(output.status.code(), Some(125));
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(
        message.contains("--ip") && message.contains("10.1.1.1"),
        "{message}"
    );
    assert_eq!(snapshot(), before);
}

#[test]
fn a_detached_command_has_figures_until_it_ends() {
    let lab = db_net();
    let before = snapshot();
    let id = ctl("run -d --rm --net db_net --name ipv1 --ip 192.168.1.10 sleep 20");
    assert_eq!(id.trim().len(), 64, "{id}");
    assert!(lab.wire.pings("192.168.1.10"));
    assert!(Figures::of("ipv1").counters.rx_packets > 0);
    let netns = endpoints()[0]["Netns"].as_str().expect("a path").to_owned();
    let pid = netns
        .trim_start_matches("/proc/")
        .split('/')
        .next()
        .unwrap()
        .to_owned();

    let output = ctl_output("network rm db_net");
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("ipv1"));

    assert!(succeeds(&format!("kill -KILL {pid}")));
    // The supervisor releases what its container had.
    settles_as(&before, snapshot, "the container went");
}

fn inspect(container: &str) -> Value {
    let mut json: Value =
        serde_json::from_str(&ctl(&format!("inspect {container}"))).expect("JSON");
    json[0].take()
}

#[test]
fn several_networks_are_eth0_and_eth1() {
    let _lab = db_net();
    ctl("network create --subnet 10.7.0.0/24 other");
    let before = snapshot();
    let shown = ctl(
        "run --rm --net db_net --net name=other,ip=10.7.0.9,alias=o --name web \
                     sh -c ip${IFS}-4${IFS}-brief${IFS}addr;cat${IFS}/etc/hosts",
    );
    let words: Vec<&str> = shown.split_whitespace().collect();
    assert!(
        words
            .windows(3)
            .any(|w| w[0].starts_with("eth1") && w[2] == "10.7.0.9/24"),
        "{shown}"
    );
    assert!(words.iter().any(|word| word.starts_with("eth0")), "{shown}");
    assert!(shown.contains("10.7.0.9\tweb"), "{shown}");
    // As docker's: a container that runs can be given one more.
    ctl("run -d --net db_net --name later sleep 600");
    ctl("network connect --ip 10.7.0.8 other later");
    assert!(ctl("exec later ip -4 -brief addr show eth1").contains("10.7.0.8/24"));
    assert!(inspect("later")["NetworkSettings"]["Networks"]["other"].is_object());
    ctl("network disconnect other later");
    ctl("rm -f later");
    // The second cannot be had: the first is released.
    let output = ctl_output("run --rm --net db_net --net name=other,ip=10.8.0.9 true");
    assert_eq!(output.status.code(), Some(125));
    assert_eq!(snapshot(), before);
}

#[test]
fn limits_hold_and_go_with_the_container() {
    let _lab = Lab::new();
    let cgroups = || {
        fs::read_dir("/sys/fs/cgroup/ipvlan-ctl").map_or(0, |entries| {
            entries
                .filter(|entry| entry.as_ref().is_ok_and(|entry| entry.path().is_dir()))
                .count()
        })
    };
    let id = ctl("run -d --net none --name small -m 24m --cpus 0.5 sleep 600");
    let cgroup = Path::new("/sys/fs/cgroup/ipvlan-ctl").join(id.trim());
    let file = |name: &str| fs::read_to_string(cgroup.join(name)).expect(name);
    assert_eq!(file("memory.max"), format!("{}\n", 24 << 20));
    assert_eq!(file("cpu.max"), "50000 100000\n");
    assert_eq!(file("cgroup.procs").lines().count(), 2);
    // A cgroup of its own is all it sees.
    assert!(ctl("exec small cat /proc/self/cgroup").contains("0::/\n"));
    // `exec` is limited as well: tail keeps a line that does not end.
    let output = ctl_output("exec small tail /dev/zero");
    assert_eq!(output.status.code(), Some(137), "{output:?}");
    ctl("rm -f small");
    assert_eq!(cgroups(), 0);

    let output = ctl_output("run --net none --name big -m 24m tail /dev/zero");
    assert_eq!(output.status.code(), Some(137), "{output:?}");
    assert_eq!(inspect("big")["State"]["OOMKilled"], true);
    assert_eq!(cgroups(), 0);
    ctl("rm big");

    ctl("run -d --rm --net none --name lost -m 24m sleep 600");
    kill_supervisor("lost");
    ctl("repair");
    assert_eq!(cgroups(), 0);
}

/// Kills who would have released what the container has, and waits for the container's end.
fn kill_supervisor(container: &str) {
    let seen = inspect(container);
    let pid = |value: &Value| value.as_i64().expect("a pid");
    let init = pid(&seen["State"]["Pid"]);
    assert!(succeeds(&format!(
        "kill -KILL {}",
        pid(&seen["IpvlanCtl"]["Supervisor"])
    )));
    let deadline = Instant::now() + Duration::from_secs(20);
    while Path::new(&format!("/proc/{init}/ns/net")).exists() {
        assert!(
            Instant::now() < deadline,
            "the init outlives its supervisor"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn what_a_killed_supervisor_leaves_is_removed() {
    let _lab = db_net();
    let before = snapshot();
    ctl("run -d --rm --net db_net --name web sleep 600");
    kill_supervisor("web");
    ctl("repair");
    settles_as(&before, snapshot, "the container went");
    assert!(!ctl("ps -a").contains("web"));

    ctl("run -d --net db_net --name web sleep 600");
    kill_supervisor("web");
    assert!(ctl("ps -a --filter status=dead").contains("web"));
    ctl("rm web");
    settles_as(&before, snapshot, "the container went");
}
