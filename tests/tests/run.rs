//! `ipvlan-ctl run`: a process with its own network, and nothing left when it ends.

use ipvlan_tests::{Figures, Lab, ctl, ctl_output, snapshot, succeeds};
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
    for _ in 0..50 {
        if snapshot() == before {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    assert_eq!(
        snapshot(),
        before,
        "the supervisor releases what its container had"
    );
}
