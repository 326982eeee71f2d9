//! The ground the other tests stand on: the VM is the kernel it claims to be, and has ipvlan.

use std::path::Path;

use ipvlan_tests::{kernel, sh};

#[test]
fn the_kernel_is_the_one_asked_for() {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").expect("a release");
    assert!(
        release.starts_with(&format!("{}.", kernel())),
        "{release} is no {}",
        kernel()
    );
    assert!(
        Path::new("/lib/modules")
            .join(release.trim())
            .join("modules.dep")
            .is_file()
    );
}

#[test]
fn ipvlan_works_in_every_mode() {
    kernel();
    for mode in ["l2", "l3", "l3s"] {
        let shown = sh(&format!(
            "ip link add smoke-parent type dummy
             ip link set smoke-parent up
             trap 'ip link del smoke-parent' EXIT
             ip link add link smoke-parent name smoke-slave type ipvlan mode {mode}
             ip -details link show smoke-slave"
        ));
        assert!(
            shown.contains(&format!("ipvlan  mode {mode} ")),
            "no mode {mode} in: {shown}"
        );
    }
}

#[test]
fn other_modules_load_on_demand() {
    kernel();
    sh("ip link add smoke-bridge type bridge && ip link del smoke-bridge");
}

#[test]
fn bpffs_and_cgroup2_are_mounted() {
    kernel();
    let mounts = std::fs::read_to_string("/proc/self/mounts").expect("mounts");
    for (path, kind) in [("/sys/fs/bpf", "bpf"), ("/sys/fs/cgroup", "cgroup2")] {
        let mounted = mounts.lines().any(|line| {
            let mut words = line.split(' ').skip(1);
            words.next() == Some(path) && words.next() == Some(kind)
        });
        assert!(mounted, "no {kind} at {path}: {mounts}");
    }
}

#[test]
fn nothing_leads_out() {
    kernel();
    let cards = sh("ls -d /sys/class/net/*/device 2>/dev/null || true");
    assert_eq!(cards, "", "a VM has no network card");
}
