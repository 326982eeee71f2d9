//! A real Podman, and the netavark that it calls: a later suite's, in a root of its own.

use std::fs;
use std::path::Path;

use crate::{sh, succeeds};

/// What the two roots share.
const SHARED: [&str; 7] = [
    "/proc",
    "/dev",
    "/sys",
    "/run",
    "/etc/netavark",
    "/usr/local/lib/netavark",
    "/var/lib/ipvlan-ctl",
];

/// Where it remembers networks and containers.
const MEMORY: [&str; 2] = ["/var/lib/containers", "/etc/containers/networks"];

/// Nothing of it may need what only a booted system has.
const CONF: &str = r#"[network]
firewall_driver = "none"
[engine]
cgroup_manager = "cgroupfs"
events_logger = "none"
"#;

const STORAGE: &str = r#"[storage]
driver = "vfs"
runroot = "/run/containers/storage"
graphroot = "/var/lib/containers/storage"
"#;

/// `podman` and `netavark` on PATH, and one image, `alpine`, which is busybox.
#[derive(Debug)]
pub struct Podman {
    root: String,
}

impl Podman {
    pub fn new() -> Self {
        let root = std::env::var("IPVLAN_TEST_PODMAN").expect("IPVLAN_TEST_PODMAN names its root");
        let program = std::env::var("IPVLAN_CTL").expect("IPVLAN_CTL names the program under test");
        let program = Path::new(&program).parent().expect("it is in a folder");
        let shared = SHARED.into_iter().chain(program.to_str());
        let shares: String = shared
            .map(|f| format!("mkdir -p {f} {root}{f}; mount --rbind {f} {root}{f}\n"))
            .collect();
        let memories: String = MEMORY
            .map(|f| format!("mkdir -p {root}{f}; mount -t tmpfs podman {root}{f}\n"))
            .concat();
        // What makes containers wants its root to be a mount.
        sh(&format!(
            "mountpoint -q /sys/fs/cgroup || mount -t cgroup2 none /sys/fs/cgroup
             mount --bind {root} {root}
             {shares}
             {memories}"
        ));
        let write = |path: String, text: &str| fs::write(path, text).expect("a file is written");
        write(format!("{root}/etc/containers/containers.conf"), CONF);
        write(format!("{root}/etc/containers/storage.conf"), STORAGE);
        for (name, path) in [
            ("podman", "/usr/bin/podman"),
            ("netavark", "/usr/lib/podman/netavark"),
        ] {
            let enter = format!("#!/bin/sh\nexec chroot {root} {path} \"$@\"\n");
            write(format!("/usr/local/bin/{name}"), &enter);
            sh(&format!("chmod +x /usr/local/bin/{name}"));
        }
        Self { root }
    }

    /// Gives it the image.
    pub fn import(&self) {
        sh("mkdir -p /run/alpine/bin
            cp /bin/busybox /run/alpine/bin
            for name in sh ip ping sleep; do ln -sf busybox /run/alpine/bin/$name; done
            tar -C /run/alpine -c . | podman import - alpine");
    }
}

impl Default for Podman {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        let root = &self.root;
        succeeds(&format!(
            "grep -o ' {root}[^ ]*' /proc/mounts | sort -r | xargs umount -l
             rm -f /usr/local/bin/podman /usr/local/bin/netavark"
        ));
    }
}
