//! The datapath by itself: loaded once, attached and detached without a trace.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::Duration;

use ipvlan_ctl::datapath::{Datapath, EndpointPolicy, Figures, NetworkPolicy};
use ipvlan_tests::{kernel, sh};

/// A pin folder of this test's own.
struct Pins(&'static str);

impl Pins {
    fn new(path: &'static str) -> Self {
        kernel();
        let _ = std::fs::remove_dir_all(path);
        Self(path)
    }

    fn open(&self) -> Datapath {
        Datapath::open(Path::new(self.0)).expect("the programs load")
    }
}

impl Drop for Pins {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(self.0);
    }
}

fn network() -> NetworkPolicy {
    NetworkPolicy {
        number: 1,
        subnets: vec!["10.0.0.0/24".parse().unwrap(), "fd00::/64".parse().unwrap()],
        internal: true,
        host_access: false,
        shared: false,
        vepa: false,
        l3s: false,
        routed: false,
        unstamped: false,
    }
}

fn endpoint() -> EndpointPolicy {
    EndpointPolicy {
        slot: 3,
        parent_index: 2,
        v4: Some([10, 0, 0, 2].into()),
        v6: Some("fd00::2".parse().unwrap()),
        link_local: None,
        dhcp: false,
    }
}

#[test]
fn many_processes_may_be_the_first() {
    let pins = Pins::new("/sys/fs/bpf/test-race");
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| pins.open());
        }
    });
    let names: Vec<String> = std::fs::read_dir(pins.0)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert!(
        !names.iter().any(|name| name.starts_with("draft")),
        "{names:?}"
    );
    Datapath::unpin_all(Path::new(pins.0)).unwrap();
    assert!(!Path::new(pins.0).exists());
}

/// The kernel ends a link some time after its pin went. Here another pin stretches that time.
#[test]
fn a_link_that_is_about_to_end_guards_nothing() {
    if kernel() == "6.1" {
        return; // There are no links.
    }
    let pins = Pins::new("/sys/fs/bpf/test-ending");
    sh("ip link add dp0 type veth peer name dp1; ip link set dp0 up");
    let index: u32 = sh("cat /sys/class/net/dp0/ifindex").trim().parse().unwrap();
    let datapath = pins.open();
    datapath.attach_parent(index, "dp0").unwrap();
    let ending = Path::new("/sys/fs/bpf/test-ending-links");
    fs::create_dir(ending).unwrap();
    for direction in ["ingress", "egress"] {
        let pin = format!("{}/links/parent-{index}-{direction}", pins.0);
        fs::hard_link(pin, ending.join(direction)).unwrap();
    }
    datapath.detach_parent(index, "dp0").unwrap();
    assert!(!datapath.parent_attached(index, "dp0").unwrap());
    thread::scope(|scope| {
        let attaching = scope.spawn(|| datapath.attach_parent(index, "dp0"));
        // It has to wait for them.
        thread::sleep(Duration::from_millis(100));
        fs::remove_dir_all(ending).unwrap();
        attaching.join().unwrap().unwrap();
    });
    assert!(datapath.parent_attached(index, "dp0").unwrap());
    sh("ip link del dp0");
}

#[test]
fn a_parent_is_attached_and_detached_without_a_trace() {
    let pins = Pins::new("/sys/fs/bpf/test-parent");
    sh("ip link add dp0 type dummy; ip link set dp0 up");
    let index: u32 = sh("cat /sys/class/net/dp0/ifindex").trim().parse().unwrap();
    let before = sh("tc qdisc show dev dp0; tc filter show dev dp0 ingress");
    let datapath = pins.open();
    assert!(!datapath.parent_attached(index, "dp0").unwrap());
    for _ in 0..2 {
        datapath.attach_parent(index, "dp0").unwrap();
        assert!(datapath.parent_attached(index, "dp0").unwrap());
    }
    for _ in 0..2 {
        datapath.detach_parent(index, "dp0").unwrap();
    }
    assert!(!datapath.parent_attached(index, "dp0").unwrap());
    assert_eq!(
        sh("tc qdisc show dev dp0; tc filter show dev dp0 ingress"),
        before
    );

    datapath.attach_parent(index, "dp0").unwrap();
    sh("ip link del dp0");
    datapath.detach_parent(index, "dp0").unwrap();
}

#[test]
fn a_qdisc_of_the_hosts_own_is_left_alone() {
    let pins = Pins::new("/sys/fs/bpf/test-qdisc");
    sh("ip link add dp1 type dummy; tc qdisc add dev dp1 clsact
        tc filter add dev dp1 egress matchall action pass");
    let index: u32 = sh("cat /sys/class/net/dp1/ifindex").trim().parse().unwrap();
    let shown = || sh("tc qdisc show dev dp1; tc filter show dev dp1 egress");
    let before = shown();
    let datapath = pins.open();
    datapath.attach_parent(index, "dp1").unwrap();
    datapath.detach_parent(index, "dp1").unwrap();
    assert_eq!(shown(), before);
    sh("ip link del dp1");
}

#[test]
fn records_come_and_go() {
    let pins = Pins::new("/sys/fs/bpf/test-records");
    let datapath = pins.open();
    for _ in 0..2 {
        datapath.put_network(&network()).unwrap();
        datapath.put_endpoint(&network(), &endpoint()).unwrap();
        datapath
            .set_host_addresses(&["10.0.0.1".parse().unwrap()])
            .unwrap();
    }
    assert_eq!(datapath.used_slots().unwrap(), [3]);
    assert_eq!(datapath.figures(&[3]).unwrap(), [Figures::default()]);
    for _ in 0..2 {
        datapath.remove_endpoint(&endpoint()).unwrap();
        datapath.remove_network(&network()).unwrap();
        datapath.set_host_addresses(&[]).unwrap();
    }
    assert_eq!(datapath.used_slots().unwrap(), [0; 0]);
    datapath.put_endpoint(&network(), &endpoint()).unwrap();
    datapath.clear_slot(3).unwrap();
    assert_eq!(datapath.used_slots().unwrap(), [0; 0]);
}
