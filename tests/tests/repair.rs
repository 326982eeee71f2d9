//! Truth after anything: what was lost is released, what was interrupted is taken back.

use std::fs;
use std::path::Path;
use std::process::Stdio;

use ipvlan_ctl::engine::{ConnectRequest, Engine, EngineError, netns_path};
use ipvlan_ctl::model::CreateRequest;
use ipvlan_tests::{
    Lab, Namespace, ctl, ctl_command, eventually, killed_before, refused, settles_as, sh, snapshot,
    traces,
};

const STATE: &str = "/var/lib/ipvlan-ctl";
const PINS: &str = "/sys/fs/bpf/ipvlan-ctl";

fn db_net() -> Lab {
    let lab = Lab::new();
    ctl("network create --subnet 192.168.1.0/24 -o parent=eth9 db_net");
    lab
}

#[test]
fn a_namespace_that_vanished_is_released() {
    let _lab = db_net();
    let before = snapshot();
    let gone = Namespace::new("gone");
    ctl("network connect db_net gone");
    drop(gone);
    // Its end reaches its links in the background.
    eventually("the endpoint is released", || {
        ctl("repair").contains("released endpoint gone")
    });
    settles_as(&before, snapshot, "released");
    assert_eq!(ctl("repair"), "", "there is nothing left to do");
}

#[test]
fn a_slave_deleted_by_hand_is_released() {
    let _lab = db_net();
    let ns = Namespace::new("byhand");
    let before = snapshot();
    ctl("network connect --ip 192.168.1.10 db_net byhand");
    ns.sh("ip link del eth0");
    ctl("network connect --ip 192.168.1.10 db_net byhand");
    assert!(
        ns.sh("ip -4 -brief addr show eth0")
            .contains("192.168.1.10/24")
    );
    ctl("network disconnect db_net byhand");
    settles_as(&before, snapshot, "disconnected");
}

#[test]
fn a_dummy_deleted_by_hand_is_made_again() {
    let _lab = Lab::new();
    ctl("network create --subnet 10.8.0.0/24 lonely");
    let dummy = sh("ip -brief link | grep -o '^di-[0-9a-f]*'");
    sh(&format!("ip link del {}", dummy.trim()));
    let ns = Namespace::new("late");
    ctl("network connect lonely late");
    assert!(ns.sh("ip -4 -brief addr show eth0").contains("10.8.0."));
    sh(&format!("ip link show {}", dummy.trim()));
}

#[test]
fn a_renamed_parent_is_the_same_parent() {
    let lab = db_net();
    let ns = Namespace::new("before");
    ctl("network connect --ip 192.168.1.10 db_net before");
    sh("ip link set eth9 down; ip link set eth9 name lan0; ip link set lan0 up");
    ctl("repair");
    assert!(ns.pings(Lab::WIRE), "down, renamed and up again");
    let late = Namespace::new("after");
    ctl("network connect db_net after");
    assert!(late.pings(Lab::WIRE));
    assert!(ctl("network inspect db_net").contains("lan0"));
    sh("ip link set lan0 down; ip link set lan0 name eth9; ip link set eth9 up");
    drop((ns, late));
    drop(lab);
}

/// Entries of the programs' maps, with what there is outside of them.
fn host() -> String {
    snapshot()
        + &sh("cd /sys/fs/bpf/ipvlan-ctl/abi* 2>/dev/null || exit 0
               for map in ADDRESSES SUBNETS; do bpftool map dump pinned $map; done")
}

/// Does some work in this process.
fn by_engine<T>(work: impl AsyncFnOnce(&Engine) -> Result<T, EngineError>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let worked = runtime.block_on(async {
        let engine = Engine::new(Path::new(STATE), Path::new(PINS))?;
        work(&engine).await
    });
    worked.unwrap_or_else(|error| panic!("{error}"))
}

/// What is made and taken away over and over: by the program where it is to be killed, else in this
/// process, since most of the time goes into the start of the program.
struct Victim {
    make: String,
    unmake: String,
    request: Request,
}

enum Request {
    Network(CreateRequest),
    Endpoint(ConnectRequest),
}

impl Victim {
    const NAME: &str = "victim";

    fn network(subnet: &str, parent: &str) -> Self {
        Self {
            make: format!("network create --subnet {subnet} -o parent={parent} victim"),
            unmake: "network rm victim".into(),
            request: Request::Network(CreateRequest {
                name: Self::NAME.into(),
                subnets: vec![subnet.into()],
                options: vec![format!("parent={parent}")],
                ..CreateRequest::default()
            }),
        }
    }

    fn endpoint(network: &str) -> Self {
        Self {
            make: format!("network connect {network} victim"),
            unmake: format!("network disconnect {network} victim"),
            request: Request::Endpoint(ConnectRequest {
                network: network.into(),
                netns: netns_path(Self::NAME),
                ..ConnectRequest::default()
            }),
        }
    }

    fn is_there(&self) -> bool {
        traces().contains(Self::NAME)
    }

    fn make_here(&self) {
        by_engine(async |engine| match &self.request {
            Request::Network(request) => engine.create_network(request).await.map(drop),
            Request::Endpoint(request) => engine.connect(request).await.map(drop),
        });
    }

    fn unmake_here(&self) {
        by_engine(async |engine| match &self.request {
            Request::Network(_) => engine.remove_network(Self::NAME, false).await.map(drop),
            Request::Endpoint(request) => {
                engine.disconnect(&request.network, Self::NAME, false).await
            }
        });
    }

    /// Kills the verb that makes it, and then the one that takes it away, before each of their
    /// steps. What was half made or half removed is gone after repair; what was whole still is, can
    /// be taken away, and nothing of it is left. `now` tells more of the host than [`traces`] does,
    /// and is asked once all is over: whatever leaks stays.
    fn survives_every_kill(&self, now: impl Fn() -> String) {
        let (before, traces_before) = (now(), traces());
        for step in 1.. {
            let killed = killed_before(step, &self.make);
            let after = format!("`{}` killed before {killed:?}", self.make);
            by_engine(Engine::repair);
            if self.is_there() {
                self.unmake_here();
            }
            settles_as(&traces_before, traces, &after);
            if is_last(&self.make, step, killed.as_deref()) {
                break;
            }
        }
        nothing_is_left(&before, &now, &self.make);

        let kept = KeptPrograms::of(self);
        let mut whole = traces_before.clone();
        for step in 1.. {
            if !self.is_there() {
                kept.put_back();
                self.make_here();
                whole = traces();
            }
            let killed = killed_before(step, &self.unmake);
            let after = format!("`{}` killed before {killed:?}", self.unmake);
            by_engine(Engine::repair);
            let expected = if killed.is_some() && self.is_there() {
                &whole
            } else {
                &traces_before
            };
            settles_as(expected, traces, &after);
            if is_last(&self.unmake, step, killed.as_deref()) {
                break;
            }
        }
        nothing_is_left(&before, &now, &self.unmake);
    }
}

fn nothing_is_left(before: &str, now: impl Fn() -> String, verb: &str) {
    settles_as(before, now, &format!("all kills of `{verb}`"));
    assert_eq!(ctl("repair"), "", "everything has been repaired at once");
}

/// Has the verb fewer steps than this one, before which it was to be killed?
fn is_last(verb: &str, step: usize, killed: Option<&str>) -> bool {
    if killed.is_none() {
        println!("`{verb}` has {} steps", step - 1);
        assert!(step > 5, "`{verb}` changes something in more steps");
    }
    killed.is_none()
}

/// The maps and programs, pinned in another folder too until the value ends. Where the last network
/// takes them away, the next need not have them verified: that takes longer than all else.
struct KeptPrograms;

impl KeptPrograms {
    const FOLDER: &str = "/sys/fs/bpf/kept";

    fn of(victim: &Victim) -> Self {
        ctl(&victim.make);
        link_tree(Path::new(PINS), Path::new(Self::FOLDER), "abi");
        ctl(&victim.unmake);
        Self
    }

    /// Unless they are in their place.
    fn put_back(&self) {
        if !Path::new(PINS).exists() {
            link_tree(Path::new(Self::FOLDER), Path::new(PINS), "");
        }
    }
}

impl Drop for KeptPrograms {
    fn drop(&mut self) {
        fs::remove_dir_all(Self::FOLDER).expect("the kept programs");
    }
}

/// Gives what is in a folder, if its name begins so, a second name in another.
fn link_tree(from: &Path, to: &Path, prefix: &str) {
    fs::create_dir(to).expect("a new folder");
    for entry in fs::read_dir(from).expect("a readable folder") {
        let (path, name) = entry.map(|e| (e.path(), e.file_name())).expect("an entry");
        if !name.to_string_lossy().starts_with(prefix) {
            continue;
        }
        if path.is_dir() {
            link_tree(&path, &to.join(name), "");
        } else {
            fs::hard_link(&path, to.join(name)).expect("a second pin");
        }
    }
}

#[test]
fn a_connect_killed_at_any_step_leaves_nothing() {
    let _lab = db_net();
    let ns = Namespace::new(Victim::NAME);
    Victim::endpoint("db_net").survives_every_kill(|| {
        host() + &ns.sh("ip -brief link; ip -oneline addr; ip route; tc qdisc show")
    });
}

#[test]
fn the_first_create_killed_at_any_step_leaves_nothing() {
    // It brings the programs with it, and the last network takes them away.
    let _lab = Lab::new();
    Victim::network("192.168.1.0/24", "eth9").survives_every_kill(host);
}

#[test]
fn a_later_create_killed_at_any_step_leaves_nothing() {
    let _lab = db_net();
    Victim::network("10.10.0.0/24", "eth9.10").survives_every_kill(host);
}

#[test]
fn fifty_at_once_get_fifty_addresses() {
    let _lab = db_net();
    let before = traces();
    let names: Vec<String> = (0..50).map(|i| format!("many{i}")).collect();
    // One process for all: of each kind there would be fifty.
    let add: String = names.iter().map(|n| format!("netns add {n}\n")).collect();
    sh(&format!("ip -batch - <<'END'\n{add}END"));
    let namespaces: Vec<Namespace> = names.into_iter().map(|name| Namespace { name }).collect();
    let running: Vec<_> = namespaces
        .iter()
        .map(|ns| {
            ctl_command(["network", "connect", "db_net", &ns.name])
                .stderr(Stdio::piped())
                .spawn()
                .expect("ipvlan-ctl starts")
        })
        .collect();
    for child in running {
        let output = child.wait_with_output().expect("wait");
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        assert!(
            output.stderr.is_empty(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    let text = sh("for i in $(seq 0 49); do ip -n many$i -4 -oneline addr show dev eth0; done");
    let mut addresses: Vec<&str> = text
        .lines()
        .filter_map(|line| line.split_whitespace().nth(3))
        .collect();
    addresses.sort_unstable();
    addresses.dedup();
    assert_eq!(addresses.len(), 50, "{text}");

    drop(namespaces);
    eventually("all are released at once", || {
        by_engine(Engine::repair);
        traces() == before
    });
}

#[test]
fn a_parent_deleted_and_made_again_by_its_owner_serves_again() {
    let lab = db_net();
    let ns = Namespace::new("lost");
    ctl("network connect --ip 192.168.1.10 db_net lost");
    sh("ip link del eth9");
    eventually("the endpoint is released", || {
        ctl("repair").contains("db_net waits for its parent eth9") && !traces().contains("lost")
    });
    assert!(ctl("network inspect db_net").contains("\"ParentState\": \"absent\""));
    refused("network connect db_net lost", &["db_net", "eth9"]);

    sh("ip link add eth9 type veth peer name port0 netns wire
        ip addr add 192.168.1.2/24 dev eth9
        ip link set eth9 up");
    lab.wire.sh("ip link set port0 master sw0 up");
    ctl("network connect --ip 192.168.1.10 db_net lost");
    assert!(ns.pings(Lab::WIRE));
    assert!(
        !ns.pings(Lab::HOST),
        "the new link is guarded as the old one was"
    );
    let parents = traces().matches("/links/parent-").count();
    assert!(parents <= 2, "nothing is pinned for the old link");
}

#[test]
fn a_vlan_link_of_ours_that_vanished_is_made_again() {
    let _lab = Lab::new();
    ctl("network create --subnet 10.10.0.0/24 -o parent=eth9.10 vlan10");
    let before = traces();
    sh("ip link del eth9.10");
    assert!(ctl("repair").contains("restored network vlan10 on eth9.10"));
    assert!(sh("ip -details link show eth9.10").contains("vlan protocol 802.1Q id 10"));
    let ns = Namespace::new("late");
    ctl("network connect vlan10 late");
    assert!(
        ns.sh("ip -4 -brief addr show eth0")
            .contains("10.10.0.2/24")
    );
    ctl("network disconnect vlan10 late");
    ctl("network rm vlan10");
    assert!(before.contains("eth9.10") && !traces().contains("eth9.10"));
}

/// Another boot, as far as files tell, until the value ends.
struct Reboot;

impl Reboot {
    const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

    /// What a reboot does to the host: endpoints, links of ours and pins are gone.
    fn new(lost: Vec<Namespace>) -> Self {
        drop(lost);
        sh("rm -r /sys/fs/bpf/ipvlan-ctl
            tc qdisc del dev eth9 clsact 2>/dev/null || true
            for link in $(ip -brief link | grep -o '^di-[0-9a-f]*'); do ip link del $link; done
            echo 01234567-89ab-cdef-0123-456789abcdef >/run/boot_id");
        sh(&format!("mount --bind /run/boot_id {}", Self::BOOT_ID));
        Self
    }
}

impl Drop for Reboot {
    fn drop(&mut self) {
        sh(&format!("umount {}", Self::BOOT_ID));
    }
}

#[test]
fn networks_survive_a_reboot_and_endpoints_end_with_it() {
    let _lab = db_net();
    ctl("network create --subnet 10.8.0.0/24 lonely");
    let lost = ["boot-a", "boot-b"].map(Namespace::new);
    ctl("network connect --ip 192.168.1.10 db_net boot-a");
    ctl("network connect lonely boot-b");
    let reboot = Reboot::new(lost.into());
    assert_eq!(ctl("network ls -q").lines().count(), 2);
    assert_eq!(ctl("stats --json").matches("boot-a").count(), 0);

    let ns = Namespace::new("new");
    ctl("network connect --ip 192.168.1.10 db_net new");
    assert!(ns.pings(Lab::WIRE));
    assert!(!ns.pings(Lab::HOST));
    for name in ["boot-a", "boot-b"] {
        assert!(!traces().contains(name), "{name} is released");
    }
    let late = Namespace::new("late");
    ctl("network connect lonely late");
    assert!(late.sh("ip -4 -brief addr show eth0").contains("10.8.0."));
    assert_eq!(ctl("repair"), "");
    for (network, name) in [("db_net", "new"), ("lonely", "late")] {
        ctl(&format!("network disconnect {network} {name}"));
        ctl(&format!("network rm {network}"));
    }
    assert_eq!(
        traces().matches("/sys/fs/bpf").count(),
        0,
        "the last one takes the pins"
    );
    drop(reboot);
}
