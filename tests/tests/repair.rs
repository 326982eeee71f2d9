//! Truth after anything: what was lost is released, what was interrupted is taken back.

use std::process::Stdio;
use std::time::Instant;

use ipvlan_tests::{Lab, Namespace, ctl, ctl_command, sh, snapshot};

fn db_net() -> Lab {
    let lab = Lab::new();
    ctl("network create --subnet 192.168.1.0/24 -o parent=eth9 db_net");
    lab
}

/// The namespace's end reaches its links and their TCX programs in the background.
fn settle() {
    std::thread::sleep(std::time::Duration::from_millis(500));
}

#[test]
fn a_namespace_that_vanished_is_released() {
    let _lab = db_net();
    let before = snapshot();
    let gone = Namespace::new("gone");
    ctl("network connect db_net gone");
    drop(gone);
    settle();
    let said = ctl("repair");
    assert!(said.contains("gone"), "{said}");
    assert_eq!(snapshot(), before);
    assert_eq!(ctl("repair"), "", "there is nothing left to do");
}

#[test]
fn a_slave_deleted_by_hand_is_released() {
    let _lab = db_net();
    let ns = Namespace::new("byhand");
    let before = snapshot();
    ctl("network connect --ip 192.168.1.10 db_net byhand");
    ns.sh("ip link del eth0");
    settle();
    ctl("network connect --ip 192.168.1.10 db_net byhand");
    assert!(
        ns.sh("ip -4 -brief addr show eth0")
            .contains("192.168.1.10/24")
    );
    ctl("network disconnect db_net byhand");
    settle();
    assert_eq!(snapshot(), before);
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

#[test]
fn killed_at_any_moment_leaves_nothing_after_repair() {
    let _lab = db_net();
    let _ns = Namespace::new("victim");
    let before = snapshot();
    let began = Instant::now();
    ctl("network connect db_net victim");
    let whole = began.elapsed();
    ctl("network disconnect db_net victim");

    // Kills spread over the time that a whole connect takes fall on all of its steps.
    const KILLS: u32 = 16;
    let mut killed = 0;
    for i in 0..KILLS {
        let delay = whole * i / KILLS;
        let mut connect = ctl_command(["network", "connect", "db_net", "victim"])
            .stderr(Stdio::null())
            .spawn()
            .expect("ipvlan-ctl starts");
        std::thread::sleep(delay);
        connect.kill().expect("kill");
        let status = connect.wait().expect("wait");
        killed += u32::from(!status.success());
        ctl("repair");
        if status.success() {
            ctl("network disconnect db_net victim");
        }
        settle();
        assert_eq!(snapshot(), before, "killed after {delay:?} of {whole:?}");
    }
    assert!(
        killed > KILLS / 2,
        "only {killed} of {KILLS} were killed while at work"
    );
}

#[test]
fn fifty_at_once_get_fifty_addresses() {
    let _lab = db_net();
    let namespaces: Vec<Namespace> = (0..50)
        .map(|i| Namespace::new(&format!("many{i}")))
        .collect();
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
    let mut addresses: Vec<String> = namespaces
        .iter()
        .map(|ns| ns.sh("ip -4 -oneline addr show eth0 | grep -o 'inet [0-9./]*'"))
        .collect();
    addresses.sort();
    addresses.dedup();
    assert_eq!(addresses.len(), 50);
}
