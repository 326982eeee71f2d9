//! Other programs in the place of those that are attached, under traffic.

use std::path::Path;
use std::process::Stdio;

use ipvlan_ctl::datapath::{Datapath, Device, Programs};
use ipvlan_ctl::kernel::Netns;
use ipvlan_tests::{
    Lab, Namespace, Stream, ctl, ctl_command, ctl_output, eventually, figures_equal_the_kernels,
};
use nix::net::if_::if_nametoindex;

const PINS: &str = "/sys/fs/bpf/ipvlan-ctl";

/// `ipv1` and `ipv2` on a network, with a stream between them and one to the wire; and a network
/// in mode l3, so that the host's loop-back is guarded too.
struct Busy {
    lab: Lab,
    one: Namespace,
    two: Namespace,
    between: Stream,
    wire: Stream,
}

impl Busy {
    fn new() -> Self {
        let lab = Lab::new();
        let one = Namespace::new("ipv1");
        let two = Namespace::new("ipv2");
        ctl("network create --subnet 192.168.1.0/24 -o parent=eth9 db_net");
        ctl("network create --subnet 10.9.0.0/24 -o ipvlan_mode=l3 routed");
        ctl("network connect --ip 192.168.1.10 db_net ipv1");
        ctl("network connect --ip 192.168.1.11 db_net ipv2");
        let busy = Self {
            between: Stream::start(&one, &two, "192.168.1.11:7000"),
            wire: Stream::start(&one, &lab.wire, "192.168.1.3:7000"),
            lab,
            one,
            two,
        };
        busy.run();
        busy
    }

    /// Lets some traffic pass.
    fn run(&self) {
        self.between.run(200);
        self.wire.run(200);
    }

    /// Nothing was lost, in the streams and in the figures.
    fn end(self) {
        let sent = self.between.end() + self.wire.end();
        let counters = figures_equal_the_kernels("ipv1", &self.one);
        assert!(counters.tx_packets >= sent, "{sent} of {counters:?}");
        figures_equal_the_kernels("ipv2", &self.two);
        drop(self.lab);
    }
}

fn datapath() -> Datapath {
    Datapath::open(Path::new(PINS)).expect("the programs are loaded")
}

/// The programs of another build: the same code, but another object.
fn other_build(version: &str) -> Programs {
    let mut programs = Programs::built_in();
    programs.object.to_mut().extend(b"another build");
    programs.version = version.parse().expect("a version");
    programs
}

fn own_version() -> String {
    Programs::built_in().version.to_string()
}

fn netns(namespace: &str) -> Netns {
    Netns::open(&Path::new("/run/netns").join(namespace)).expect("a namespace")
}

/// The dummy link that the network in mode l3 is on.
fn routed() -> String {
    format!("di-{}", ctl("network ls -q --filter name=routed").trim())
}

/// Puts these programs in the place of the others, as their binary would.
fn install(programs: &Programs) {
    let endpoint = |name| Device::Endpoint {
        netns: netns(name),
        ifname: "eth0".into(),
    };
    let devices = [
        Device::Parent(Lab::PARENT.into()),
        Device::Parent(routed()),
        Device::Loopback,
        endpoint("ipv1"),
        endpoint("ipv2"),
    ];
    let due = datapath()
        .upgrade(programs)
        .expect("they load")
        .expect("they differ");
    due.finish(&devices).expect("they are attached");
    only(programs);
}

/// The folders of the pinned sets.
fn sets() -> Vec<String> {
    let mut names = names(&Path::new(PINS).join(format!("abi{}", ipvlan_common::ABI)));
    names.retain(|name| name.starts_with("programs-"));
    names
}

fn names(folder: &Path) -> Vec<String> {
    std::fs::read_dir(folder)
        .expect("a folder")
        .map(|entry| entry.expect("an entry").file_name())
        .map(|name| name.into_string().expect("text"))
        .collect()
}

/// Exactly this set is pinned, and its programs are attached everywhere.
fn only(programs: &Programs) {
    let folder = datapath().program_folder().expect("a set");
    let name = folder.file_name().expect("a name").to_str().expect("text");
    assert_eq!(sets(), [name]);
    let set = programs.set().to_string();
    let hash = set.split(['(', ')']).nth(1).expect("a hash");
    assert!(name.ends_with(hash), "{name} is not {set}");
    for parent in [Lab::PARENT, &routed()] {
        let index = if_nametoindex(parent).expect(parent);
        assert!(datapath().parent_attached(index, parent).expect(parent));
    }
    assert!(datapath().loopback_attached().expect("lo"));
    for name in ["ipv1", "ipv2"] {
        let netns = netns(name);
        let index = netns.run(|| if_nametoindex("eth0"));
        let slot = index.expect(name).expect(name) - Datapath::FIRST_IFINDEX;
        let attached = datapath().endpoint_attached(slot, &netns, "eth0");
        assert!(attached.expect(name));
    }
}

/// One host goes through all of it, since under emulation to load programs takes seconds.
#[test]
fn an_upgrade_loses_no_packet_and_no_count() {
    let busy = Busy::new();
    install(&other_build(&own_version()));
    busy.run();
    killed_while_it_upgrades();
    busy.run();
    only_one_of_many_upgrades();
    busy.run();
    assert_eq!(ctl("repair"), "", "there is nothing left to do");
    an_older_version_leaves_a_newer_ones();
    busy.run();
    let said = ctl("repair --downgrade");
    assert!(said.contains("replaced the programs 99.0.0"), "{said}");
    only(&Programs::built_in());
    busy.run();
    busy.end();
}

fn killed_while_it_upgrades() {
    let mut killed = ctl_command(["repair"])
        .stdout(Stdio::null())
        .spawn()
        .expect("ipvlan-ctl starts");
    eventually("it loads its programs", || {
        let names = names(Path::new(PINS));
        names.iter().any(|name| name.starts_with("draft-"))
    });
    killed.kill().expect("kill");
    assert!(!killed.wait().expect("wait").success());
}

fn only_one_of_many_upgrades() {
    let racing: Vec<_> = (0..3)
        .map(|_| {
            ctl_command(["repair"])
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .expect("ipvlan-ctl starts")
        })
        .collect();
    let mut said = String::new();
    for one in racing {
        let output = one.wait_with_output().expect("wait");
        let message = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{message}");
        said += &String::from_utf8_lossy(&output.stdout);
    }
    assert_eq!(said.matches("replaced the programs").count(), 1, "{said}");
    only(&Programs::built_in());
}

fn an_older_version_leaves_a_newer_ones() {
    let newer = other_build("99.0.0");
    // As if its process had been killed when the programs were loaded, but not yet attached.
    drop(datapath().upgrade(&newer).expect("they load"));
    assert_eq!(sets().len(), 2);

    let late = Namespace::new("late");
    let output = ctl_output("network connect --ip 192.168.1.12 db_net late");
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{message}");
    assert!(message.contains("by 99.0.0"), "{message}");
    only(&newer);
    assert!(late.pings("192.168.1.11"));
    let said = ctl("repair");
    assert!(said.contains("left the programs 99.0.0"), "{said}");
    only(&newer);
    ctl("network disconnect db_net late");
}

#[test]
fn pins_that_were_deleted_by_hand_are_made_anew() {
    let lab = Lab::new();
    let (one, two) = (Namespace::new("ipv1"), Namespace::new("ipv2"));
    ctl("network create --subnet 192.168.1.0/24 -o parent=eth9 db_net");
    ctl("network connect --ip 192.168.1.10 db_net ipv1");
    std::fs::remove_dir_all(PINS).expect("the pins are deleted");

    // Before 6.6 the filters with the old programs are still there.
    ctl("network connect --ip 192.168.1.11 db_net ipv2");
    assert!(two.pings(Lab::WIRE));
    let said = ctl("repair");
    assert!(said.contains("programs of endpoint ipv1 again"), "{said}");
    assert!(one.pings("192.168.1.11") && one.pings(Lab::WIRE));
    one.sh("ip addr add 192.168.1.66/24 dev eth0");
    assert!(!one.succeeds("ping -n -q -c 1 -W 1 -I 192.168.1.66 192.168.1.3"));
    assert_eq!(ctl("repair"), "", "there is nothing left to do");
    drop(lab);
}
