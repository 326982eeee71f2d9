//! `ipvlan-ctl daemon`: what goes on between commands.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::process::Command;
use std::time::Duration;

use ipvlan_tests::{
    Daemon, Figures, Lab, Namespace, Running, ctl, ctl_command, ctl_output, eventually, refused,
    sh, snapshot, succeeds,
};

const SOCKET: &str = "/run/ipvlan-ctl/daemon.sock";

#[test]
fn the_daemon_follows_addresses_that_come_and_go() {
    let _lab = Lab::new();
    ctl("network create --subnet 192.168.1.0/24 --gateway 192.168.1.3 -o parent=eth9 db_net");
    let ns = Namespace::new("asks");
    ctl("network connect db_net asks");
    let _daemon = Daemon::start();
    // The wire, which is the gateway, has no route for it: only our programs can count it.
    let is_the_hosts = || {
        let before = Figures::of("asks").dropped("endpoint-to-host");
        ns.succeeds("ping -n -q -c 1 -W 1 10.77.0.1");
        Figures::of("asks").dropped("endpoint-to-host") > before
    };
    assert!(!is_the_hosts());
    sh("ip addr add 10.77.0.1/32 dev lo");
    eventually("an address that came is the host's", is_the_hosts);
    sh("ip addr del 10.77.0.1/32 dev lo");
    eventually("an address that went is not", || !is_the_hosts());
}

#[test]
fn the_daemon_repairs_what_vanishes() {
    let _lab = Lab::new();
    ctl("network create --subnet 192.168.1.0/24 -o parent=eth9 db_net");
    ctl("network create --subnet 10.8.0.0/24 lonely");
    let _daemon = Daemon::start();
    let before = snapshot();
    let gone = Namespace::new("gone");
    ctl("network connect db_net gone");
    drop(gone);
    eventually("a namespace that is gone is released", || {
        snapshot() == before
    });
    let dummy = sh("ip -brief link | grep -o '^di-[0-9a-f]*'");
    sh(&format!("ip link del {}", dummy.trim()));
    eventually("a parent of ours comes back", || {
        succeeds(&format!("ip link show {}", dummy.trim()))
    });
}

#[test]
fn the_daemon_is_one_and_tells_how_it_is() {
    let _lab = Lab::new();
    refused("daemon status", &["does not run", "ipvlan-ctl daemon"]);
    let mut daemon = Daemon::start();
    assert!(ctl("daemon status").starts_with("running, pid "));
    let status: serde_json::Value =
        serde_json::from_str(&ctl("daemon status --json")).expect("JSON");
    assert!(succeeds(&format!("kill -0 {}", status["pid"])));
    let second = ctl_output("daemon");
    assert_eq!(second.status.code(), Some(1));
    let message = String::from_utf8_lossy(&second.stderr);
    assert_eq!(message.lines().count(), 1, "{message}");
    assert!(message.contains("runs already"), "{message}");

    for request in ["", "{}\n", "\"nonsense\"\n", &"x".repeat(10_000)] {
        let mut stream = UnixStream::connect(SOCKET).expect("it listens");
        stream.write_all(request.as_bytes()).expect("it takes");
        stream
            .shutdown(std::net::Shutdown::Write)
            .expect("it hears");
        let mut reply = String::new();
        BufReader::new(stream).read_line(&mut reply).expect("text");
        assert!(reply.contains("not a request"), "{request:.20}: {reply}");
    }
    assert!(ctl("daemon status").starts_with("running"));

    assert!(daemon.end_by("KILL").code().is_none());
    let mut daemon = Daemon::start();
    assert_eq!(daemon.end_by("TERM").code(), Some(0));
    assert!(!std::path::Path::new(SOCKET).exists());
}

#[test]
fn the_daemon_tells_the_service_manager() {
    let _lab = Lab::new();
    let path = "/run/ipvlan-notify";
    let _ = std::fs::remove_file(path);
    let manager = UnixDatagram::bind(path).expect("a socket");
    manager
        .set_read_timeout(Some(Duration::from_secs(30)))
        .expect("a time-out");
    let hear = |wanted: &str| {
        loop {
            let mut message = [0; 256];
            let length = manager.recv(&mut message).expect(wanted);
            let message = String::from_utf8_lossy(&message[..length]).into_owned();
            if message.contains(wanted) {
                return message;
            }
        }
    };
    let mut command = ctl_command(["daemon", "--log-format", "json"]);
    command
        .env("NOTIFY_SOCKET", path)
        .env("WATCHDOG_USEC", "200000");
    let mut daemon = Daemon::start_by(command);
    hear("READY=1");
    hear("WATCHDOG=1");
    daemon.signal("HUP");
    assert!(hear("RELOADING=1").contains("MONOTONIC_USEC="));
    hear("READY=1");
    assert_eq!(daemon.end_by("TERM").code(), Some(0));
    hear("STOPPING=1");
}

/// Systemd, as pid 1 of namespaces of its own, with our unit and nothing else. All in its namespace
/// ends with it.
struct Systemd {
    unshare: Running,
    pid: String,
}

impl Systemd {
    fn start() -> Self {
        let unit = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../contrib/systemd/ipvlan-ctl.service"
        );
        let program = std::env::var("IPVLAN_CTL").expect("IPVLAN_CTL names the program");
        let script = format!(
            "mount -t proc proc /proc
             umount -R /sys/fs/cgroup
             mount -t cgroup2 cgroup2 /sys/fs/cgroup
             mkdir -p /run/systemd
             mount -t tmpfs systemd /run/systemd
             mkdir -p /run/systemd/system/ipvlan-ctl.service.d
             cp {unit} /run/systemd/system/
             printf '[Unit]\nDefaultDependencies=no\n[Service]\nExecStart=\nExecStart={program} daemon\n' \
               > /run/systemd/system/ipvlan-ctl.service.d/here.conf
             exec env -i PATH=$PATH container=test /lib/systemd/systemd \
               --system --unit=ipvlan-ctl.service --log-target=null"
        );
        let mut unshare = Command::new("unshare");
        unshare
            .args(["--pid", "--fork", "--mount", "--cgroup", "--kill-child"])
            .args(["--propagation", "private", "sh", "-ec", &script]);
        let mut systemd = Self {
            unshare: Running::start(&mut unshare),
            pid: String::new(),
        };
        eventually("the unit is active", || {
            ctl_output("daemon status").status.success()
        });
        let child = sh(&format!("pgrep -P {}", systemd.unshare.0.id()));
        systemd.pid = child.trim().to_owned();
        systemd
    }

    fn ctl(&self, words: &str) -> String {
        sh(&format!(
            "nsenter -t {} --pid --mount --cgroup systemctl {words} ipvlan-ctl.service",
            self.pid
        ))
    }
}

#[test]
fn the_daemon_runs_as_its_hardened_unit() {
    let _lab = Lab::new();
    ctl("network create --subnet 192.168.1.0/24 -o parent=eth9 db_net");
    let web = Namespace::new("web");
    ctl("network connect --ip 192.168.1.10 db_net web");
    let systemd = Systemd::start();
    let names = || web.sh("dig @127.0.0.11 +short +time=5 +tries=2 web");
    let pid = || systemd.ctl("show --property MainPID");
    assert_eq!(names(), "192.168.1.10\n");
    let before = pid();
    systemd.ctl("reload");
    assert_eq!(pid(), before);
    let plugin = "curl --silent --fail --unix-socket /run/docker/plugins/ipvlan-ctl.sock \
                  --request POST http://docker/Plugin.Activate";
    assert!(sh(plugin).contains("NetworkDriver"));
    // What it may do for the programs, too: the host's addresses are written into their maps.
    sh("ip addr add 10.77.0.1/32 dev lo");
    let dropped = || {
        web.succeeds("ping -n -q -c 1 -W 1 10.77.0.1");
        Figures::of("web").dropped("endpoint-to-host") > 0
    };
    web.sh("ip route add 10.77.0.1 dev eth0");
    web.sh("ip neigh add 10.77.0.1 lladdr 02:00:00:00:00:01 dev eth0");
    eventually("an address that came is the host's", dropped);
    sh("ip addr del 10.77.0.1/32 dev lo");
    systemd.ctl("restart");
    assert_ne!(pid(), before);
    assert_eq!(names(), "192.168.1.10\n");
    systemd.ctl("stop");
    let ended = systemd.ctl("show --property ActiveState,Result");
    assert!(
        ended.contains("ActiveState=inactive") && ended.contains("Result=success"),
        "{ended}"
    );
}
