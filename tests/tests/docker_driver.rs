//! Docker's networks by our driver: a stock dockerd, and our daemon beside it.

use ipvlan_tests::{
    Daemon, Docker, Figures, Guide, Lab, ctl, ctl_command, eventually, kernel, refused, settles_as,
    traces,
};
use serde_json::Value;

fn daemon() -> Daemon {
    Daemon::start_by(ctl_command(["daemon", "--docker-api", Docker::API]))
}

/// `stats` has these containers by their names.
fn are_known(containers: &[&str]) -> bool {
    let stats = ctl("stats");
    let is_known = |name: &str| {
        let mut lines = stats.lines();
        lines.any(|line| line.starts_with(&format!("{name} ")))
    };
    containers.iter().all(|name| is_known(name))
}

#[test]
fn docker_s_networks_are_ours() {
    let lab = Lab::new();
    let before = traces();
    let mut ours = daemon();
    let mut docker = Docker::start();
    let guide = Guide::of(
        include_str!("../../docs/docker.md"),
        &[("eth1", Lab::PARENT)],
    );
    page(&guide, &docker);
    guards(&docker);
    if kernel() == "6.12" {
        // Nothing of this depends on the kernel, and Docker is slow in a VM.
        refuses(&docker);
        more(&guide, &docker);
        ours = restart(ours, &mut docker);
        docker.sh(&guide.commands(5));
    } else {
        docker.sh("docker rm -f ipv1 && docker network rm db_net isolated1 isolated2 isolated3");
    }
    settles_as(&before, traces, "Docker leaves nothing");
    drop((docker, ours, lab));
}

fn page(guide: &Guide, docker: &Docker) {
    let said = docker.sh(&guide.commands(1));
    assert_eq!(said.matches(" 0% packet loss").count(), 2, "{said}");
    assert!(said.contains("\"192.168.10.0/24\""), "{said}");
    eventually("it has its name", || are_known(&["ipv1"]));
    let links = docker.exec("ipv1", "ip -o addr");
    assert!(links.contains("eth0    inet 192.168.1.11/24"), "{links}");
    assert!(links.contains("eth1    inet 192.168.10."), "{links}");
    assert!(!links.contains("fe80:"), "{links}");
    refused("network rm isolated3", &["Docker's", "docker network rm"]);
}

/// What cannot be is refused in one line, and nothing is left of it.
fn refuses(docker: &Docker) {
    let before = &traces();
    let create = "docker network create -d ipvlan-ctl --subnet=10.9.0.0/24";
    for (line, words) in [
        (
            "--ipam-driver=ipvlan-ctl --ipam-opt=a=b x",
            ["--ipam-opt", "a=b", "there are none"],
        ),
        (
            "--ipam-driver=ipvlan-ctl --gateway=10.9.0.255 x",
            ["--gateway", "10.9.0.255", "broadcast"],
        ),
        ("-o parent=eth77 x", ["-o parent", "eth77", "LINK.VID"]),
        (
            "-o ipvlan_mode=12 x",
            ["-o ipvlan_mode", "12", "l2, l3, l3s"],
        ),
        (
            "-o ipvlan_flag=x x",
            ["-o ipvlan_flag", "x", "bridge, private, vepa"],
        ),
        (
            "-o colour=red x",
            ["-o", "colour=red", "parent, ipvlan_mode"],
        ),
    ] {
        let said = docker.sh(&format!("{create} {line} 2>&1 && exit 1 || true"));
        assert_eq!(said.lines().count(), 1, "{said}");
        for word in words {
            assert!(said.contains(word), "{word} in {said}");
        }
    }
    settles_as(before, traces, "what is refused leaves nothing");
    docker.sh(&format!("{create} x"));
    let mac = "02:00:00:00:00:09";
    let said = docker.sh(&format!(
        "docker run --rm --net=x --mac-address={mac} busybox true 2>&1 && exit 1 || true"
    ));
    assert!(said.contains(mac), "{said}");
    docker.sh("docker network rm x");
    settles_as(before, traces, "a refused container leaves nothing");
}

/// Two stacks, a VLAN, mode l3, and our IPAM.
fn more(guide: &Guide, docker: &Docker) {
    docker.sh(&guide.commands(2));
    let said = docker.sh(&guide.commands(3));
    assert_eq!(said.matches(" 0% packet loss").count(), 1, "{said}");
    eventually("each has its name", || {
        are_known(&["v10", "r1", "o1", "o2"])
    });
    let said = docker.sh(&guide.commands(4));
    assert!(said.contains("192.168.1.11"), "{said}");
    assert!(said.contains("\"Name\": \"db_net\""), "{said}");
    let links = docker.exec("v10", "ip -o -6 addr show dev eth0");
    assert_eq!(links.matches("inet6 fe80:").count(), 1, "{links}");
    assert!(links.contains("inet6 fd00:10::"), "{links}");
    let routes = docker.exec("v10", "ip -6 route");
    assert!(
        routes.contains("default via fd00:10::1 dev eth0"),
        "{routes}"
    );
    let routes = docker.exec("r1", "ip route");
    assert!(routes.contains("default dev eth0"), "{routes}");
    for (container, address) in [("o1", "192.168.20.64/24"), ("o2", "192.168.20.66/24")] {
        let links = docker.exec(container, "ip -o -4 addr show dev eth0");
        assert!(links.contains(address), "{links}");
    }
    let pooled = docker.sh("docker network inspect pooled");
    assert!(pooled.contains("172.18.0.0/16"), "{pooled}");
    assert!(pooled.contains("\"Subnet\": \"fd"), "{pooled}");
}

/// The programs are on the link that Docker has moved.
fn guards(docker: &Docker) {
    let dropped = |reason: &str| Figures::of("ipv1").dropped(reason);
    let (to_host, spoofed) = (dropped("endpoint-to-host"), dropped("spoofed-neighbour"));
    docker.sh(&format!(
        "! docker exec --privileged ipv1 sh -c 'ping -c 1 -W 1 {} ||
             {{ ip addr add 192.168.1.77/24 dev eth0
               ping -c 1 -W 1 -I 192.168.1.77 192.168.1.3; }}'",
        Lab::HOST
    ));
    assert!(dropped("endpoint-to-host") > to_host);
    assert!(dropped("spoofed-neighbour") > spoofed);
    docker.exec("--privileged ipv1", "ip addr del 192.168.1.77/24 dev eth0");
}

/// Each is killed in turn.
fn restart(ours: Daemon, docker: &mut Docker) -> Daemon {
    ours.end_by("KILL");
    let ours = daemon();
    assert!(are_known(&["ipv1", "v10", "r1"]));
    assert_eq!(ctl("repair"), "");
    docker.sh("docker restart -t 0 ipv1 && docker exec ipv1 ping -c 3 192.168.1.3");
    eventually("it is known again", || are_known(&["ipv1"]));

    docker.restart_by("KILL");
    docker.sh("docker start ipv1 v10");
    eventually("they are known again", || are_known(&["ipv1", "v10"]));
    docker.sh("docker exec ipv1 ping -c 3 192.168.1.3");
    let network: Value = serde_json::from_str(&docker.sh("docker network inspect db_net"))
        .expect("docker prints JSON");
    assert_eq!(network[0]["Driver"], "ipvlan-ctl");
    ours
}
