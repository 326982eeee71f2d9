use std::collections::{BTreeSet, HashSet};
use std::net::IpAddr;

use proptest::prelude::*;

use super::fixtures::endpoint;
use super::*;
use crate::kernel::NetnsIdentity;
use crate::model::ipam::{self, Leases};
use crate::model::{Flag, Id, Mode, Network, Parent, Pool};

fn network(name: &str) -> Network {
    Network {
        id: Id::random(),
        name: name.into(),
        created: 1,
        parent: Parent::Dummy {
            name: "di-0".into(),
        },
        mode: Mode::L2,
        flag: Flag::Bridge,
        internal: true,
        host_access: false,
        shared_parent: false,
        external_ipam: false,
        ipv4: true,
        ipv6: false,
        mtu: None,
        pools: Vec::new(),
        labels: Default::default(),
        options: Default::default(),
    }
}

/// Makes an endpoint with the next address of 10.0.0.0/8.
fn lease_next(records: &Records<'_>, network: u32, name: &str) -> Result<IpAddr, StoreError> {
    let pool = Pool::new("10.0.0.0/8".parse().unwrap());
    let address = ipam::next(&pool, records).unwrap();
    let row = endpoint(network, name, records.take_slot()?);
    records.insert_endpoint(&row)?;
    records.lease(address, &row.id)?;
    records.set_cursor(&pool.subnet, address)?;
    Ok(address)
}

#[test]
fn rows_come_back_as_they_went() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path()).unwrap();
    let records = store.records();
    let network = network("a");
    let number = records.insert_network(&network).unwrap();
    records.set_parent(number, 4, "boot").unwrap();
    let row = records.network(&network.id).unwrap().unwrap();
    assert_eq!(
        row,
        NetworkRow {
            number,
            network,
            state: State::Creating,
            parent_index: 4,
            parent_boot: "boot".into(),
        }
    );
    let endpoint = endpoint(number, "e", 0);
    records.insert_endpoint(&endpoint).unwrap();
    assert_eq!(
        Store::open_existing(directory.path())
            .unwrap()
            .unwrap()
            .records()
            .endpoints()
            .unwrap(),
        [endpoint]
    );
}

#[test]
fn reading_makes_no_store() {
    let directory = tempfile::tempdir().unwrap();
    let inside = directory.path().join("state");
    assert!(Store::open_existing(&inside).unwrap().is_none());
    assert!(!inside.exists());
}

#[test]
fn a_store_of_a_later_version_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path()).unwrap();
    store
        .connection
        .pragma_update(None, "user_version", VERSION + 1)
        .unwrap();
    drop(store);
    assert!(matches!(
        Store::open(directory.path()),
        Err(StoreError::Newer { .. })
    ));
}

#[test]
fn an_error_rolls_back() {
    let directory = tempfile::tempdir().unwrap();
    let mut store = Store::open(directory.path()).unwrap();
    let number = store.records().insert_network(&network("n")).unwrap();
    let failed = store.transaction(|records| {
        lease_next(records, number, "e")?;
        Err::<(), _>(StoreError::Corrupt("on purpose".into()))
    });
    assert!(failed.is_err());
    let records = store.records();
    assert!(records.endpoints().unwrap().is_empty());
    assert_eq!(
        records.leased_in(&"10.0.0.0/8".parse().unwrap()).unwrap(),
        0
    );
    assert_eq!(records.meta("last_slot").unwrap(), None);
}

#[test]
fn names_are_unique() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path()).unwrap();
    let records = store.records();
    let number = records.insert_network(&network("n")).unwrap();
    assert!(records.insert_network(&network("n")).is_err());
    records.insert_endpoint(&endpoint(number, "e", 0)).unwrap();
    assert!(records.insert_endpoint(&endpoint(number, "e", 1)).is_err());
    assert!(records.insert_endpoint(&endpoint(number, "f", 0)).is_err());
    assert!(
        records.delete_network(number).is_err(),
        "it has an endpoint"
    );
}

#[test]
fn fifty_at_once_get_fifty_addresses_and_slots() {
    let directory = tempfile::tempdir().unwrap();
    // No store yet: they race for making it too.
    let results: Vec<(IpAddr, u32)> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..50)
            .map(|n| {
                let path = directory.path();
                scope.spawn(move || {
                    let mut store = Store::open(path).unwrap();
                    store
                        .transaction(|records| {
                            let number = match records.networks()?.first() {
                                Some(row) => row.number,
                                None => records.insert_network(&network("n"))?,
                            };
                            let name = format!("e{n}");
                            let address = lease_next(records, number, &name)?;
                            let slot = records
                                .endpoints()?
                                .into_iter()
                                .find(|row| row.name == name)
                                .unwrap()
                                .slot;
                            Ok::<_, StoreError>((address, slot))
                        })
                        .unwrap()
                })
            })
            .collect();
        workers
            .into_iter()
            .map(|worker| worker.join().unwrap())
            .collect()
    });
    let addresses: BTreeSet<_> = results.iter().map(|(address, _)| address).collect();
    let slots: BTreeSet<_> = results.iter().map(|(_, slot)| slot).collect();
    assert_eq!((addresses.len(), slots.len()), (50, 50));
}

#[test]
fn slots_go_round() {
    let directory = tempfile::tempdir().unwrap();
    let mut store = Store::open(directory.path()).unwrap();
    store
        .transaction(|records| {
            let number = records.insert_network(&network("n"))?;
            let take = |name: &str| {
                let row = endpoint(number, name, records.take_slot()?);
                records.insert_endpoint(&row)?;
                Ok::<_, StoreError>(row)
            };
            let first = take("a")?;
            let second = take("b")?;
            assert_eq!((first.slot, second.slot), (0, 1));
            records.delete_endpoint(&first.id)?;
            assert_eq!(take("c")?.slot, 2, "a slot given back rests");
            records.set_meta("last_slot", "16383")?;
            assert_eq!(take("d")?.slot, 0, "round the end");
            assert_eq!(take("e")?.slot, 3, "past those in use");
            Ok::<_, StoreError>(())
        })
        .unwrap();
}

#[test]
fn an_owner_lives_as_long_as_its_process() {
    let own = Owner::current().unwrap();
    assert!(own.is_alive().unwrap());
    let later = Owner {
        started: own.started + 1,
        ..own.clone()
    };
    assert!(!later.is_alive().unwrap(), "another process of this pid");
    let before_reboot = Owner {
        boot: "another".into(),
        ..own
    };
    assert!(!before_reboot.is_alive().unwrap());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// Runs answer as a plain set of leases would.
    #[test]
    fn runs_agree_with_leases(steps in prop::collection::vec((any::<bool>(), 0_u8..24), 0..80)) {
        let directory = tempfile::tempdir().unwrap();
        let mut store = Store::open(directory.path()).unwrap();
        let pool = "10.0.0.0/24".parse().unwrap();
        store.transaction(|records| {
            let number = records.insert_network(&network("n"))?;
            let mut model = std::collections::BTreeMap::new();
            for (lease, last) in steps {
                let address: IpAddr = [10, 0, 0, last].into();
                if lease {
                    if model.contains_key(&last) {
                        continue;
                    }
                    let row = endpoint(number, &last.to_string(), last.into());
                    records.insert_endpoint(&row)?;
                    records.lease(address, &row.id)?;
                    model.insert(last, row.id);
                } else if let Some(id) = model.remove(&last) {
                    records.delete_endpoint(&id)?;
                }
                for n in 0..24 {
                    let end = (n..24).take_while(|n| model.contains_key(n)).last();
                    let at = |n: u8| IpAddr::from([10, 0, 0, n]);
                    assert_eq!(records.leased_until(at(n))?, end.map(at));
                }
                assert_eq!(records.leased_in(&pool)?, model.len() as u64);
            }
            Ok::<_, StoreError>(())
        }).unwrap();
    }
}

#[test]
fn endpoints_are_found_without_reading_all() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path()).unwrap();
    let records = store.records();
    let number = records.insert_network(&network("n")).unwrap();
    for slot in 0..10 {
        let mut row = endpoint(number, &format!("n{slot}"), slot);
        row.identity.cookie = (slot / 2).into();
        records.insert_endpoint(&row).unwrap();
    }
    let slots = |rows: Vec<EndpointRow>| rows.iter().map(|row| row.slot).collect::<Vec<_>>();
    let some = |from, count| slots(records.some_endpoints(from, count).unwrap());
    assert_eq!(some(3, 4), [3, 4, 5, 6]);
    assert_eq!(some(8, 4), [8, 9, 0, 1], "round the end");
    assert_eq!(some(4, 99), [4, 5, 6, 7, 8, 9, 0, 1, 2, 3], "each once");
    assert_eq!(some(9999, 2), [0, 1]);

    let netns = |cookie| NetnsIdentity { cookie, inode: 5 };
    let inside = |boot| slots(records.endpoints_in(netns(2), boot).unwrap());
    assert_eq!(inside("b"), [4, 5]);
    assert_eq!(inside("another"), [0; 0]);

    let named = records.endpoint_named(number, "n7").unwrap().unwrap();
    assert_eq!(named.slot, 7);
    assert_eq!(records.endpoint_named(number + 1, "n7").unwrap(), None);
    let like = |word: &str, path: &str, identity| {
        let rows = records.endpoints_like(number, word, Path::new(path), identity);
        slots(rows.unwrap())
    };
    assert_eq!(like("n7", "/none", None), [7]);
    assert_eq!(like(&named.id.as_str()[..12], "/none", None), [7]);
    assert_eq!(like("none", "/none", Some(netns(3))), [6, 7]);
    assert_eq!(like("none", "/run/netns/x", None).len(), 10);
    assert_eq!(like("none", "/none", None), [0; 0]);
}

#[test]
fn changes_are_known_for_a_while() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let records = store.records();
    assert_eq!(records.newest_change().unwrap(), 0);
    assert_eq!(records.changes_since(0).unwrap(), None);
    let number = records.insert_network(&network("n")).unwrap();
    let rows = [endpoint(number, "a", 1), endpoint(number, "b", 2)];
    records.insert_endpoint(&rows[0]).unwrap();
    let first = records.newest_change().unwrap();
    assert_eq!(
        records.changes_since(first).unwrap(),
        Some((first, HashSet::new()))
    );
    records.insert_endpoint(&rows[1]).unwrap();
    records
        .set_endpoint_state(&rows[1].id, State::Ready)
        .unwrap();
    records.delete_endpoint(&rows[0].id).unwrap();
    let ids = rows.each_ref().map(|row| row.id.clone());
    let (newest, changed) = records.changes_since(first).unwrap().unwrap();
    assert_eq!(changed, HashSet::from(ids));
    assert_eq!(newest, records.newest_change().unwrap());

    for _ in 0..1024 {
        records
            .set_endpoint_state(&rows[1].id, State::Ready)
            .unwrap();
    }
    assert_eq!(records.changes_since(first).unwrap(), None);
    assert!(records.changes_since(newest + 1).unwrap().is_some());
    assert_eq!(records.changes_since(newest + 2000).unwrap(), None);
}

#[test]
fn abandoned_work_is_nobodys() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let id = Id::random();
    store
        .records()
        .begin(&id, "repair", &Owner::current().unwrap())
        .unwrap();
    assert!(
        store.records().intents().unwrap()[0]
            .owner
            .is_alive()
            .unwrap()
    );
    store.records().abandon(&id).unwrap();
    assert!(
        !store.records().intents().unwrap()[0]
            .owner
            .is_alive()
            .unwrap()
    );
}

#[test]
fn a_promise_is_kept_once_and_not_for_long() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let records = store.records();
    let subnet = |text: &str| text.parse::<ipnetwork::IpNetwork>().unwrap();
    let ranged = Pool {
        range: Some(subnet("10.0.0.128/25")),
        ..Pool::new(subnet("10.0.0.0/24"))
    };
    records.promise(&ranged, 100).unwrap();
    records
        .promise(&Pool::new(subnet("fd00::/64")), 130)
        .unwrap();
    assert_eq!(records.promised(150).unwrap().len(), 2);
    let kept = records.take_promise(&ranged.subnet).unwrap();
    assert_eq!(kept, ranged.range);
    assert_eq!(records.take_promise(&ranged.subnet).unwrap(), None);
    assert_eq!(records.promised(150).unwrap(), [subnet("fd00::/64")]);
    // The clock may have been set back.
    for now in [191, 129] {
        records
            .promise(&Pool::new(subnet("fd00::/64")), 130)
            .unwrap();
        assert!(records.promised(now).unwrap().is_empty(), "{now}");
    }
}
