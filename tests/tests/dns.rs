//! Names: 127.0.0.11 in every endpoint's namespace.

use std::net::UdpSocket;
use std::time::Duration;

use ipvlan_ctl::kernel::Netns;
use ipvlan_tests::{
    Daemon, Lab, Namespace, ctl, ctl_command, ctl_output, eventually, sh, succeeds,
};

/// What `dig` prints with these words, asking the namespace's own resolver.
fn dig(ns: &Namespace, words: &str) -> String {
    ns.sh(&format!("dig @127.0.0.11 +time=5 +tries=2 {words}"))
}

fn short(ns: &Namespace, words: &str) -> String {
    dig(ns, &format!("+short {words}"))
}

fn status(ns: &Namespace, words: &str) -> String {
    let said = dig(ns, &format!("+noall +comments {words}"));
    let status = said.split("status: ").nth(1).expect("a status");
    status.split(',').next().expect("a word").to_owned()
}

#[test]
fn dns_knows_names_of_shared_networks() {
    let _lab = Lab::new();
    ctl("network create --subnet 192.168.1.0/24 --ipv6 --subnet fd00:1::/64 -o parent=eth9 db_net");
    ctl("network create --subnet 10.8.0.0/24 inner");
    let [web, db, apart] = ["web", "db", "apart"].map(Namespace::new);
    ctl("network connect --ip 192.168.1.10 --ip6 fd00:1::10 --alias www --alias all db_net web");
    let _daemon = Daemon::start();
    ctl("network connect --ip 192.168.1.11 --name DB.main --alias all db_net db");
    ctl("network connect --ip 10.8.0.11 inner db");
    ctl("network connect --ip 10.8.0.12 --alias all inner apart");

    for name in ["web", "WeB", "www.", "web.db_net"] {
        assert_eq!(short(&db, &format!("{name} A")), "192.168.1.10\n", "{name}");
        assert_eq!(
            short(&db, &format!("{name} AAAA")),
            "fd00:1::10\n",
            "{name}"
        );
    }
    assert_eq!(short(&web, "db.main"), "192.168.1.11\n");
    assert_eq!(short(&apart, "db"), "10.8.0.11\n");
    for name in ["web", "all.db_net"] {
        assert_eq!(
            status(&apart, name),
            "SERVFAIL",
            "{name} is no name of its network"
        );
    }
    let mut all: Vec<String> = short(&web, "all").lines().map(Into::into).collect();
    all.sort();
    assert_eq!(all, ["192.168.1.10", "192.168.1.11"]);

    assert_eq!(short(&web, "-x 192.168.1.11"), "DB.main.db_net.\n");
    assert_eq!(short(&web, "-x fd00:1::10"), "web.db_net.\n");
    assert_eq!(short(&db, "-x 10.8.0.12"), "apart.inner.\n");
    let nothing = dig(&apart, "db AAAA");
    assert!(
        nothing.contains("status: NOERROR") && nothing.contains("ANSWER: 0"),
        "{nothing}"
    );
    assert!(dig(&web, "web").contains("600\tIN\tA"));
    assert!(dig(&web, "+tcp web").contains("192.168.1.10"));
    assert!(dig(&web, "+bufsize=1232 web").contains("EDNS: version: 0"));
    assert_eq!(status(&web, "+edns=1 +noednsneg web"), "BADVERS");

    ctl("network disconnect db_net web");
    assert_eq!(short(&db, "all"), "192.168.1.11\n");
    ctl("network connect --ip 192.168.1.12 db_net web");
    assert_eq!(short(&db, "web"), "192.168.1.12\n");
    eventually("a namespace that is deleted is left", || {
        ctl("daemon status").contains("3 namespaces")
    });
    drop(web);
    eventually("a namespace that is deleted is left", || {
        ctl("daemon status").contains("2 namespaces")
    });
    assert_eq!(status(&db, "web"), "SERVFAIL");
}

/// Programs of the namespace ask our resolver from now on.
fn use_it(ns: &Namespace) {
    let folder = format!("/etc/netns/{}", ns.name);
    std::fs::create_dir_all(&folder).expect("a folder");
    std::fs::write(
        format!("{folder}/resolv.conf"),
        "nameserver 127.0.0.11\noptions ndots:0\n",
    )
    .expect("a file");
}

/// A program that asks musl's resolver, and prints the addresses in order.
const ASK: &str = r#"
#include <arpa/inet.h>
#include <netdb.h>
#include <stdio.h>
int main(int n, char **v) {
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *found;
    int error = getaddrinfo(v[1], 0, &hints, &found);
    if (error) { printf("error %d\n", error); return 1; }
    for (char text[64]; found; found = found->ai_next)
        puts(getnameinfo(found->ai_addr, found->ai_addrlen, text, 64, 0, 0, NI_NUMERICHOST)
                 ? "?" : text);
}"#;

#[test]
fn dns_serves_every_resolver() {
    let _lab = Lab::new();
    ctl("network create --subnet 192.168.1.0/24 --ipv6 --subnet fd00:1::/64 -o parent=eth9 db_net");
    let [ipv1, ipv2] = ["ipv1", "ipv2"].map(Namespace::new);
    let _daemon = Daemon::start();
    ctl("network connect --ip 192.168.1.10 --ip6 fd00:1::10 db_net ipv1");
    ctl("network connect --ip 192.168.1.11 db_net ipv2");
    use_it(&ipv2);
    std::fs::write("/tmp/ask.c", ASK).expect("a file");
    sh("musl-gcc -static -o /tmp/ask /tmp/ask.c");

    assert_eq!(
        ipv2.sh("getent ahostsv4 ipv1 | head -1 | cut -d' ' -f1"),
        "192.168.1.10\n"
    );
    assert_eq!(
        ipv2.sh("getent ahostsv6 ipv1 | head -1 | cut -d' ' -f1"),
        "fd00:1::10\n"
    );
    assert!(ipv2.sh("getent hosts 192.168.1.10").contains("ipv1.db_net"));
    assert!(ipv2.sh("busybox nslookup ipv1.").contains("192.168.1.10"));
    assert!(
        ipv2.sh("busybox nslookup 192.168.1.10")
            .contains("ipv1.db_net")
    );
    let musl = ipv2.sh("/tmp/ask ipv1");
    assert!(
        musl.contains("192.168.1.10") && musl.contains("fd00:1::10"),
        "{musl}"
    );
    assert!(!ipv2.succeeds("/tmp/ask other"));
    let pings = ipv2.sh("ping -4 -c 4 -i 0.2 ipv1");
    assert!(pings.contains("4 received"), "{pings}");
    drop(ipv1);
}

#[test]
fn dns_asks_outside_only_for_who_may() {
    let lab = Lab::new();
    ctl("network create --subnet 192.168.1.0/24 -o parent=eth9 db_net");
    ctl("network create --subnet 10.8.0.0/24 inner");
    let [free, apart] = ["free", "apart"].map(Namespace::new);
    ctl("network connect --ip 192.168.1.10 db_net free");
    ctl("network connect inner apart");
    let before = std::fs::read("/etc/resolv.conf").unwrap_or_default();
    std::fs::write("/etc/resolv.conf", "nameserver 192.168.1.3\n").expect("a file");
    let _daemon = Daemon::start();
    std::fs::write("/etc/resolv.conf", before).expect("a file");
    lab.wire.sh(
        "rm -f /run/asked
         dnsmasq --no-resolv --no-hosts --local-ttl=60 --local=/example/ --pid-file=/run/outside.pid \
           --log-queries --log-facility=/run/asked --host-record=www.example,203.0.113.7 \
           --txt-record=long.example,$(for i in 1 2 3 4 5 6 7 8; do printf %0200d, $i; done)end",
    );
    assert_eq!(short(&free, "www.example"), "203.0.113.7\n");
    assert_eq!(status(&free, "nothing.example"), "NXDOMAIN");
    let nothing = dig(&free, "www.example AAAA");
    assert!(
        nothing.contains("status: NOERROR") && nothing.contains("ANSWER: 0"),
        "{nothing}"
    );
    // Too long for UDP: dig asks again by TCP, and so do we.
    assert!(short(&free, "+noedns long.example TXT").contains("end"));
    let cut = dig(&free, "+noedns +ignore long.example TXT");
    assert!(cut.contains("flags: qr tc"), "{cut}");

    for name in ["www.example", "secret.example"] {
        assert_eq!(status(&apart, name), "SERVFAIL", "{name}");
    }
    let asked = std::fs::read_to_string("/run/asked").expect("a log");
    assert!(
        asked.contains("www.example") && !asked.contains("secret"),
        "{asked}"
    );

    sh("kill $(cat /run/outside.pid)");
    assert_eq!(
        short(&free, "www.example"),
        "203.0.113.7\n",
        "it is remembered"
    );
    assert_eq!(status(&free, "later.example"), "SERVFAIL");
    // Now that it has another network, it may ask.
    ctl("network connect --ip 192.168.1.11 db_net apart");
    assert_eq!(short(&apart, "www.example"), "203.0.113.7\n");
    ctl("network disconnect db_net apart");
    assert_eq!(status(&apart, "www.example"), "SERVFAIL");
}

#[test]
fn dns_begins_again_where_a_daemon_was_killed() {
    let _lab = Lab::new();
    ctl("network create --subnet 192.168.1.0/24 -o parent=eth9 db_net");
    let web = Namespace::new("web");
    ctl("network connect --ip 192.168.1.10 db_net web");
    // Known by a process that ends, with another one in its namespace.
    let known = std::process::Command::new("unshare")
        .args(["--net", "sh", "-c", "sleep 600 & exec sleep 600"])
        .spawn();
    let mut known = known.expect("unshare starts");
    let pid = known.id();
    eventually("it is in a namespace of its own", || {
        succeeds(&format!(
            "[ \"$(readlink /proc/{pid}/ns/net)\" != \"$(readlink /proc/$$/ns/net)\" ]"
        )) && succeeds(&format!("pgrep -P {pid} sleep"))
    });
    let other = sh(&format!("pgrep -P {pid} sleep"));
    let other = other.trim();
    ctl(&format!(
        "network connect --name known --ip 192.168.1.11 db_net {pid}"
    ));
    let ask = |pid: &str| {
        succeeds(&format!(
            "nsenter -t {pid} -n dig @127.0.0.11 +short +time=5 +tries=1 web | grep -q 192.168.1.10"
        ))
    };
    let mut daemon = Daemon::start();
    assert!(ask(other));
    known.kill().expect("it is killed");
    known.wait().expect("it ends");
    assert!(ask(other), "the other process keeps the namespace");
    daemon.end_by("KILL");
    assert!(!ask(other), "no daemon, no names");
    let _daemon = Daemon::start();
    assert!(ask(other));
    assert_eq!(short(&web, "known"), "192.168.1.11\n");
    sh(&format!("kill {other}"));
    eventually("the namespace ends with its last process", || {
        ctl("network inspect db_net").contains("\"web\"")
            && !ctl("network inspect db_net").contains("\"known\"")
    });
    assert_eq!(status(&web, "known"), "SERVFAIL");
}

/// `run` as a user has it, who starts no daemon first.
fn run(words: &[&str]) -> String {
    let output = ctl_command([&["run", "--net", "db_net"][..], words].concat())
        .env_remove("IPVLAN_CTL_NO_DAEMON")
        .output()
        .expect("it starts");
    let error = String::from_utf8_lossy(&output.stderr);
    let said = String::from_utf8(output.stdout).expect("text");
    assert!(output.status.success(), "{words:?}: {error}{said}");
    assert_eq!(error, "", "{words:?}");
    said
}

#[test]
fn dns_comes_with_run_and_ends_after_it() {
    let lab = Lab::new();
    // The next free addresses are the host's and the wire's.
    ctl("network create --subnet 192.168.1.0/24 --ip-range 192.168.1.64/26 -o parent=eth9 db_net");
    lab.wire.sh(
        "dnsmasq --no-resolv --no-hosts --pid-file=/run/outside.pid --host-record=www.example,203.0.113.7",
    );
    let id = run(&[
        "-d",
        "--name",
        "ipv1",
        "--ip",
        "192.168.1.10",
        "sleep",
        "600",
    ]);
    assert!(ctl("daemon status").starts_with("running"));
    let script = format!(
        "cat /etc/resolv.conf
         ping -n -c 4 -i 0.2 ipv1
         getent ahostsv4 {}
         getent ahostsv4 www.example",
        &id[..12]
    );
    let options = [
        "--dns",
        "192.168.1.3",
        "--dns-search",
        ".",
        "--dns-opt",
        "timeout:9",
    ];
    let said = run(&[&["--rm"], &options[..], &["sh", "-ec", &script]].concat());
    for wanted in [
        "nameserver 127.0.0.11\noptions timeout:9 ndots:0\n",
        "4 received",
        "192.168.1.10 ",
        "203.0.113.7 ",
    ] {
        assert!(said.contains(wanted), "{wanted:?} in {said}");
    }
    sh("kill $(cat /run/outside.pid)");

    ctl("rm -f ipv1");
    eventually("a daemon that was started on demand ends", || {
        !ctl_output("daemon status").status.success()
    });
    let shown = ctl("run --rm --no-daemon --net db_net cat /etc/resolv.conf");
    assert!(!shown.contains("127.0.0.11"), "{shown}");
    assert!(!ctl_output("daemon status").status.success());

    let refused = ctl_command(["run", "--net", "db_net", "--dns-search", "a b", "true"]).output();
    let refused = refused.expect("it starts");
    assert_eq!(refused.status.code(), Some(125));
    let message = String::from_utf8_lossy(&refused.stderr);
    assert!(
        message.contains("--dns-search") && message.contains("a b"),
        "{message}"
    );
}

/// A query for the A records of `web`.
fn query(id: u16) -> Vec<u8> {
    let mut packet = id.to_be_bytes().to_vec();
    packet.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 3]);
    packet.extend(b"web\0\0\x01\0\x01");
    packet
}

/// Packets that are no good query: cut, counts that lie, names that point at themselves or out.
fn strange() -> Vec<Vec<u8>> {
    let good = query(7);
    let with = |place: usize, bytes: &[u8]| {
        let mut packet = good.clone();
        packet.splice(place..place + bytes.len(), bytes.iter().copied());
        packet
    };
    let mut all: Vec<Vec<u8>> = (0..good.len())
        .map(|length| good[..length].to_vec())
        .collect();
    all.extend([
        with(4, &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]),
        with(6, &[0xff, 0xff]),
        with(10, &[0, 1]),
        with(12, &[0xc0, 0x0c]),
        with(12, &[0xc0, 0xff]),
        with(12, &[0x3f]),
        with(12, &[0x40]),
        with(2, &[0x80]),
        with(2, &[0x78]),
        vec![0xff; 512],
        vec![0; 4000],
        [good.clone(), vec![0xff; 500]].concat(),
    ]);
    all
}

#[test]
fn dns_loses_no_query() {
    const ALL: u16 = 10_000;
    let _lab = Lab::new();
    ctl("network create --subnet 192.168.1.0/24 -o parent=eth9 db_net");
    let web = Namespace::new("web");
    let _daemon = Daemon::start();
    ctl("network connect --ip 192.168.1.10 db_net web");
    let netns = Netns::open(std::path::Path::new("/run/netns/web")).expect("it is there");
    netns
        .run(|| {
            let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
            socket.connect("127.0.0.11:53").expect("an address");
            socket
                .set_read_timeout(Some(Duration::from_secs(20)))
                .expect("a time-out");
            // A second socket throws stones; what comes back to it is not read.
            let stones = UdpSocket::bind("127.0.0.1:0").expect("a socket");
            stones.connect("127.0.0.11:53").expect("an address");
            let strange = strange();
            let mut answered = vec![false; usize::from(ALL)];
            let mut next = 0;
            let mut send = || {
                if next < ALL {
                    socket.send(&query(next)).expect("sent");
                    if next % 10 == 0 {
                        let stone = &strange[usize::from(next / 10) % strange.len()];
                        stones.send(stone).expect("thrown");
                    }
                    next += 1;
                }
            };
            (0..64).for_each(|_| send());
            let mut packet = [0; 512];
            for _ in 0..ALL {
                let length = socket.recv(&mut packet).expect("an answer");
                assert_eq!(packet[length - 4..length], [192, 168, 1, 10]);
                let id = usize::from(u16::from_be_bytes([packet[0], packet[1]]));
                assert!(!std::mem::replace(&mut answered[id], true), "answered once");
                send();
            }
        })
        .expect("the namespace can be entered");
    assert_eq!(short(&web, "+tcp web"), "192.168.1.10\n");
}
