//! Docker's networks by our driver: a stock dockerd, and our daemon beside it.

use std::fs;

use ipvlan_tests::{
    Daemon, Docker, Figures, Guide, Lab, ctl, ctl_command, eventually, kernel, refused, settles_as,
    sh, traces,
};
use serde_json::Value;

/// Where dockerd looks for our socket by itself, and where the one lies that it finds by our spec
/// file.
const PLUGIN: &str = "/run/docker/plugins/ipvlan-ctl.sock";
const ELSEWHERE: &str = "/run/elsewhere/ipvlan-ctl.sock";
const SPECS: &str = "/etc/docker/plugins";

fn daemon(plugin: &str) -> Daemon {
    let sockets = ["--docker-api", Docker::API, "--docker-plugin", plugin];
    Daemon::start_by(ctl_command(["daemon"].into_iter().chain(sockets)))
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
    let mut ours = daemon(PLUGIN);
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
        holds_in(&lab, &docker);
        killed(&mut ours, &mut docker);
        stopped(&mut ours, &mut docker);
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

/// Two stacks, a VLAN, mode l3, an internal network, and our IPAM.
fn more(guide: &Guide, docker: &Docker) {
    let said = docker.sh(&guide.commands(2));
    assert_eq!(said.matches(" 0% packet loss").count(), 1, "{said}");
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
    let dropped = |reason: &str| Figures::on("db_net", "ipv1").dropped(reason);
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

/// Of what is wired to the internal network's parent only its own subnet is reached, and the host
/// never.
fn holds_in(lab: &Lab, docker: &Docker) {
    sh("ip addr add 10.40.0.254/24 dev eth9.40");
    lab.wire
        .sh("ip link add link sw0 name sw0.40 type vlan id 40
         ip addr add 10.40.0.253/24 dev sw0.40; ip addr add 10.41.0.1/24 dev sw0.40
         ip link set sw0.40 up");
    sh("ping -c 1 -w 5 10.40.0.253");
    docker.exec("i1", "ping -c 1 -w 5 10.40.0.253");
    let routes = docker.exec("i1", "ip route");
    assert!(!routes.contains("default"), "{routes}");

    let dropped = |reason: &str| Figures::of("i1").dropped(reason);
    let (outside, to_host) = (dropped("outside-internal"), dropped("endpoint-to-host"));
    docker.sh(
        "! docker exec --privileged i1 sh -c 'ip route add 10.41.0.0/24 dev eth0
             ping -c 1 -W 1 10.41.0.1 || ping -c 1 -W 1 10.40.0.254'",
    );
    assert!(dropped("outside-internal") > outside);
    assert!(dropped("endpoint-to-host") > to_host);
    sh("! ping -c 1 -W 1 10.40.0.11");
    lab.wire.sh("! ping -c 1 -W 1 -I 10.41.0.1 10.40.0.11");
}

/// Each is killed in turn. Docker ends its containers then, as it is not told otherwise yet.
fn killed(ours: &mut Daemon, docker: &mut Docker) {
    ours.end_by("KILL");
    *ours = daemon(PLUGIN);
    assert!(are_known(&["ipv1", "v10", "r1"]));
    assert_eq!(ctl("repair"), "");
    docker.sh("docker restart -t 0 ipv1 && docker exec ipv1 ping -c 3 192.168.1.3");
    eventually("it is known again", || are_known(&["ipv1"]));

    docker.restart_by("KILL", &["--live-restore"], || ());
    docker.sh("docker start ipv1 v10");
    eventually("they are known again", || are_known(&["ipv1", "v10"]));
    docker.sh("docker exec ipv1 ping -c 3 192.168.1.3");
    assert_eq!(driver_of(docker, "db_net"), "ipvlan-ctl");
}

/// Each is stopped in turn while containers run, which neither they nor their figures notice.
/// Ours then serves elsewhere, where Docker finds it by the spec file.
fn stopped(ours: &mut Daemon, docker: &mut Docker) {
    let container = docker.netns("ipv1");
    let pings = || {
        sh(&format!(
            "nsenter --net={} ping -c 2 -w 5 192.168.1.3",
            container.display()
        ))
    };
    let sent = || Figures::on("db_net", "ipv1").counters.tx_packets;
    let before = (traces(), sent());

    assert_eq!(ours.end_by("TERM").code(), Some(0));
    pings();
    let spec = include_str!("../../contrib/docker/ipvlan-ctl.spec").replace(PLUGIN, ELSEWHERE);
    fs::create_dir_all(SPECS).expect("a folder for spec files");
    fs::write(format!("{SPECS}/ipvlan-ctl.spec"), spec).expect("a spec file");
    *ours = daemon(ELSEWHERE);
    pings();

    docker.restart_by("TERM", &["--live-restore"], || drop(pings()));
    pings();
    assert_eq!(before.0, traces());
    assert!(sent() >= before.1 + 8);
    assert!(are_known(&["ipv1", "v10"]));
    assert_eq!(ctl("repair"), "");
    assert_eq!(driver_of(docker, "db_net"), "ipvlan-ctl");

    // What was there before is Docker's to change still, and so is what is new.
    docker.sh("docker network disconnect isolated1 ipv1
         docker network connect isolated3 ipv1
         docker run --rm --net=db_net busybox ping -c 3 192.168.1.11");
    fs::remove_file(format!("{SPECS}/ipvlan-ctl.spec")).expect("the spec file is there");
}

fn driver_of(docker: &Docker, network: &str) -> String {
    let said = docker.sh(&format!("docker network inspect {network}"));
    let said: Value = serde_json::from_str(&said).expect("docker prints JSON");
    said[0]["Driver"].as_str().expect("a driver").to_owned()
}
