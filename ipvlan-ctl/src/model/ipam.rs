//! Address allocation: serial, per pool, over an abstract set of leases.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::IpNetwork;
use thiserror::Error;

use super::pool::{nth, number};
use super::{Network, Pool};

/// What allocation asks of the lease table.
///
/// An address is leased at most once on a host, whatever the network: subnets of two networks
/// overlap only where these share their addresses (l3 on different parents), and then the
/// prefixes need not even be equal. So occupancy is asked by address and never by pool; only the
/// cursor belongs to a pool.
///
/// For a cost that does not grow with the number of leases, keep the runs of neighbouring leases
/// beside the leases themselves, with addresses as big-endian blobs (4 or 16 bytes, so `length`
/// tells the families apart and byte order is address order):
///
/// ```sql
/// CREATE TABLE runs (family INTEGER, first BLOB, last BLOB, PRIMARY KEY (family, first))
///     WITHOUT ROWID;
/// -- leased_until(a): one descent of the index; leased if `last >= a`.
/// SELECT last FROM runs WHERE family = ?1 AND first <= ?2 ORDER BY first DESC LIMIT 1;
/// ```
///
/// [`lease`] and [`release`] say how one lease more or less changes the runs: at most two are
/// looked up and three written, in the transaction that writes the lease.
pub trait Leases {
    type Error;

    /// `None` if `address` is free, else the last address of the run of consecutive leases
    /// that it is part of. A shorter answer (such as `address` itself) is allowed and only slower.
    fn leased_until(&self, address: IpAddr) -> Result<Option<IpAddr>, Self::Error>;

    /// The address handed out last by [`next`] in the pool of `subnet`.
    fn cursor(&self, subnet: &IpNetwork) -> Result<Option<IpAddr>, Self::Error>;
}

/// Consecutive leased addresses of one family, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    pub first: IpAddr,
    pub last: IpAddr,
}

/// The run that `address` makes with the one that ends just before it and the one that begins
/// just after it. It replaces those two.
pub fn lease(before: Option<Run>, address: IpAddr, after: Option<Run>) -> Run {
    Run {
        first: before.map_or(address, |run| run.first),
        last: after.map_or(address, |run| run.last),
    }
}

/// What is left of `run` without `address`, which lies in it. The two replace it.
pub fn release(run: Run, address: IpAddr) -> (Option<Run>, Option<Run>) {
    let before = predecessor(address).filter(|_| run.first < address);
    let after = successor(address).filter(|_| address < run.last);
    (
        before.map(|last| Run { last, ..run }),
        after.map(|first| Run { first, ..run }),
    )
}

/// The address after this one in its family, if it is not the family's last.
pub fn successor(address: IpAddr) -> Option<IpAddr> {
    match address {
        IpAddr::V4(v4) => u32::from(v4).checked_add(1).map(|n| IpAddr::V4(n.into())),
        IpAddr::V6(v6) => u128::from(v6).checked_add(1).map(|n| IpAddr::V6(n.into())),
    }
}

/// The address before this one in its family, if it is not the family's first.
pub fn predecessor(address: IpAddr) -> Option<IpAddr> {
    match address {
        IpAddr::V4(v4) => u32::from(v4).checked_sub(1).map(|n| IpAddr::V4(n.into())),
        IpAddr::V6(v6) => u128::from(v6).checked_sub(1).map(|n| IpAddr::V6(n.into())),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    V4,
    V6,
}

impl Family {
    pub fn of(subnet: &IpNetwork) -> Self {
        match subnet {
            IpNetwork::V4(_) => Self::V4,
            IpNetwork::V6(_) => Self::V6,
        }
    }

    /// The prefix of a default route.
    pub fn everything(self) -> IpNetwork {
        let any = match self {
            Self::V4 => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            Self::V6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        };
        IpNetwork::new(any, 0).expect("0 is a prefix length")
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        })
    }
}

#[derive(Debug, Error)]
pub enum AllocError<E> {
    /// The ranges that are full, separated by commas.
    #[error("no address left in {0}")]
    Exhausted(String),
    #[error("network {network} has no {family} subnet")]
    NoSubnet { network: String, family: Family },
    #[error("invalid {field} {address}: {why}")]
    Requested {
        field: &'static str,
        address: IpAddr,
        why: String,
    },
    #[error(transparent)]
    Leases(#[from] E),
}

/// The next free address of `pool` after the cursor, round its range.
pub fn next<L: Leases>(pool: &Pool, leases: &L) -> Result<IpAddr, AllocError<L::Error>> {
    let (first, last) = pool.dynamic_bounds();
    let (first, last) = (number(first), number(last));
    let start = match leases.cursor(&pool.subnet)?.map(number) {
        Some(cursor) if (first..last).contains(&cursor) => cursor + 1,
        _ => first,
    };
    let reserved = pool.reserved();
    // Each step leaves at least one address behind, and a whole run or reserved address of it.
    let free = |from: u128, to: u128| -> Result<Option<IpAddr>, L::Error> {
        let mut candidate = from;
        while candidate <= to {
            let address = nth(candidate, &pool.subnet);
            let taken = if reserved.contains(&candidate) {
                candidate
            } else {
                match leases.leased_until(address)? {
                    None => return Ok(Some(address)),
                    Some(end) => number(end).max(candidate),
                }
            };
            match taken.checked_add(1) {
                Some(after) => candidate = after,
                None => break,
            }
        }
        Ok(None)
    };
    if let Some(address) = free(start, last)? {
        return Ok(address);
    }
    if start > first
        && let Some(address) = free(first, start - 1)?
    {
        return Ok(address);
    }
    Err(AllocError::Exhausted(
        pool.range.unwrap_or(pool.subnet).to_string(),
    ))
}

/// The next address of `family` on `network`, out of its first pool that has one.
pub fn allocate<'n, L: Leases>(
    network: &'n Network,
    family: Family,
    leases: &L,
) -> Result<(&'n Pool, IpAddr), AllocError<L::Error>> {
    let mut full = Vec::new();
    for pool in network.pools_of(family) {
        match next(pool, leases) {
            Ok(address) => return Ok((pool, address)),
            Err(AllocError::Exhausted(range)) => full.push(range),
            Err(other) => return Err(other),
        }
    }
    Err(if full.is_empty() {
        AllocError::NoSubnet {
            network: network.name.clone(),
            family,
        }
    } else {
        AllocError::Exhausted(full.join(", "))
    })
}

/// Checks that `address`, given as `field` (`--ip` or `--ip6`), may be leased: in one of the
/// network's pools (also outside its range), not reserved, free. Returns the pool it lies in.
pub fn requested<'n, L: Leases>(
    network: &'n Network,
    field: &'static str,
    address: IpAddr,
    leases: &L,
) -> Result<&'n Pool, AllocError<L::Error>> {
    let refuse = |why: String| AllocError::Requested {
        field,
        address,
        why,
    };
    let Some(pool) = network.pool_of(address) else {
        let subnets: Vec<_> = network.pools.iter().map(|p| p.subnet.to_string()).collect();
        return Err(refuse(format!(
            "it must lie in a subnet of network {}: {}",
            network.name,
            subnets.join(", ")
        )));
    };
    if let Some(why) = pool.reservation(address) {
        return Err(refuse(format!(
            "it is {why} in {}; name another",
            pool.subnet
        )));
    }
    if leases.leased_until(address)?.is_some() {
        return Err(refuse(format!(
            "it is in use; name a free address of {}",
            pool.subnet
        )));
    }
    Ok(pool)
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet, HashMap};
    use std::convert::Infallible;

    use proptest::prelude::*;

    use super::super::fixtures::{host, network as resolve};
    use super::super::pool::{covers, overlap, span};
    use super::*;

    /// Runs kept by [`lease`] and [`release`], as the store keeps them.
    #[derive(Debug, Default)]
    struct Runs {
        runs: BTreeMap<IpAddr, Run>,
        cursors: HashMap<IpNetwork, IpAddr>,
    }

    impl Runs {
        fn of(&self, address: IpAddr) -> Option<Run> {
            let (_, run) = self.runs.range(..=address).next_back()?;
            (run.last >= address).then_some(*run)
        }

        fn replace(&mut self, old: &[Option<Run>], new: &[Option<Run>]) {
            for run in old.iter().flatten() {
                self.runs.remove(&run.first);
            }
            self.runs
                .extend(new.iter().flatten().map(|run| (run.first, *run)));
        }

        fn lease(&mut self, address: IpAddr) {
            assert_eq!(self.of(address), None, "{address} is leased");
            let before = predecessor(address).and_then(|a| self.of(a));
            let after = successor(address).and_then(|a| self.of(a));
            let merged = lease(before, address, after);
            self.replace(&[before, after], &[Some(merged)]);
        }

        fn release(&mut self, address: IpAddr) {
            let run = self.of(address).expect("leased");
            let (before, after) = release(run, address);
            self.replace(&[Some(run)], &[before, after]);
        }

        /// Allocates and leases, as the engine does in one transaction.
        fn take(&mut self, pool: &Pool) -> Option<IpAddr> {
            match next(pool, self) {
                Ok(address) => {
                    self.lease(address);
                    self.cursors.insert(pool.subnet, address);
                    Some(address)
                }
                Err(AllocError::Exhausted(_)) => None,
                Err(other) => panic!("{other}"),
            }
        }
    }

    impl Leases for Runs {
        type Error = Infallible;

        fn leased_until(&self, address: IpAddr) -> Result<Option<IpAddr>, Infallible> {
            Ok(self.of(address).map(|run| run.last))
        }

        fn cursor(&self, subnet: &IpNetwork) -> Result<Option<IpAddr>, Infallible> {
            Ok(self.cursors.get(subnet).copied())
        }
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn pool(subnet: &str) -> Pool {
        Pool::new(subnet.parse().unwrap())
    }

    fn take_all(pool: &Pool) -> Vec<String> {
        let mut leases = Runs::default();
        std::iter::from_fn(|| leases.take(pool))
            .map(|address| address.to_string())
            .collect()
    }

    #[test]
    fn small_pools_are_used_up_before_they_are_exhausted() {
        for (subnet, all) in [
            (
                "10.0.0.0/29",
                &[
                    "10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.5", "10.0.0.6",
                ][..],
            ),
            ("10.0.0.0/30", &["10.0.0.1", "10.0.0.2"]),
            ("10.0.0.0/31", &["10.0.0.0", "10.0.0.1"]),
            ("10.0.0.9/32", &["10.0.0.9"]),
            (
                "255.255.255.252/30",
                &["255.255.255.253", "255.255.255.254"],
            ),
            (
                "255.255.255.254/31",
                &["255.255.255.254", "255.255.255.255"],
            ),
            ("fd00::/126", &["fd00::1", "fd00::2", "fd00::3"]),
            ("fd00::/127", &["fd00::", "fd00::1"]),
            ("fd00::9/128", &["fd00::9"]),
        ] {
            assert_eq!(take_all(&pool(subnet)), all, "{subnet}");
            assert_eq!(pool(subnet).capacity(), all.len() as u128, "{subnet}");
        }
        let end = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe/127";
        assert_eq!(take_all(&pool(end)).len(), 2);
    }

    #[test]
    fn reserved_addresses_are_passed_over() {
        let mut pool = pool("10.0.0.0/29");
        pool.gateway = Some(ip("10.0.0.1"));
        pool.aux.insert("nas".into(), ip("10.0.0.4"));
        assert_eq!(
            take_all(&pool),
            ["10.0.0.2", "10.0.0.3", "10.0.0.5", "10.0.0.6"]
        );
        pool.range = Some("10.0.0.4/30".parse().unwrap());
        assert_eq!(take_all(&pool), ["10.0.0.5", "10.0.0.6"]);
        pool.range = Some("10.0.0.4/32".parse().unwrap());
        assert_eq!(take_all(&pool), [""; 0]);
    }

    #[test]
    fn a_released_address_is_given_again_only_after_the_others() {
        let pool = pool("10.0.0.0/29");
        let mut leases = Runs::default();
        let take = |leases: &mut Runs| leases.take(&pool).unwrap().to_string();
        assert_eq!(take(&mut leases), "10.0.0.1");
        assert_eq!(take(&mut leases), "10.0.0.2");
        leases.release(ip("10.0.0.2"));
        for other in 3..=6 {
            assert_eq!(take(&mut leases), format!("10.0.0.{other}"));
        }
        assert_eq!(take(&mut leases), "10.0.0.2", "round the range");
        let full = next(&pool, &leases).unwrap_err().to_string();
        assert_eq!(full, "no address left in 10.0.0.0/29");
        // The only free one, even if it is the one given last.
        leases.release(ip("10.0.0.2"));
        assert_eq!(take(&mut leases), "10.0.0.2");
    }

    #[test]
    fn a_cursor_outside_the_range_starts_it_again() {
        let mut pool = pool("10.0.0.0/24");
        pool.range = Some("10.0.0.64/26".parse().unwrap());
        for cursor in ["10.0.0.9", "10.0.0.127", "10.0.0.200"] {
            let mut leases = Runs::default();
            leases.cursors.insert(pool.subnet, ip(cursor));
            assert_eq!(leases.take(&pool), Some(ip("10.0.0.64")), "{cursor}");
        }
    }

    #[test]
    fn a_pool_after_the_other() {
        let line = "--ipv6 --subnet=10.0.0.0/30 --subnet=10.0.1.0/30 --subnet=fd00::/127 n";
        let net = resolve(line, &host());
        let mut leases = Runs::default();
        let mut take = |family| {
            let (pool, address) = allocate(&net, family, &leases).map_err(|e| e.to_string())?;
            leases.lease(address);
            leases.cursors.insert(pool.subnet, address);
            Ok::<_, String>((pool.subnet.to_string(), address.to_string()))
        };
        let got: Vec<_> = (0..4).map(|_| take(Family::V4).unwrap().1).collect();
        assert_eq!(got, ["10.0.0.1", "10.0.0.2", "10.0.1.1", "10.0.1.2"]);
        assert_eq!(
            take(Family::V4),
            Err("no address left in 10.0.0.0/30, 10.0.1.0/30".into())
        );
        let six = ("fd00::/127".to_owned(), "fd00::".to_owned());
        assert_eq!(take(Family::V6), Ok(six));
        let only_v4 = resolve("four", &host());
        assert_eq!(
            allocate(&only_v4, Family::V6, &Runs::default())
                .unwrap_err()
                .to_string(),
            "network four has no IPv6 subnet"
        );
    }

    #[test]
    fn requested_addresses() {
        let net = resolve(
            "--subnet=10.0.0.0/24 --subnet=10.0.1.0/24 --gateway=10.0.1.1 \
             --ip-range=10.0.1.128/25 --aux-address=nas=10.0.1.5 n",
            &host(),
        );
        let mut leases = Runs::default();
        leases.lease(ip("10.0.1.9"));
        let ask = |address: &str| {
            requested(&net, "--ip", ip(address), &leases)
                .map(|pool| pool.subnet.to_string())
                .map_err(|e| e.to_string())
        };
        assert_eq!(ask("10.0.0.200"), Ok("10.0.0.0/24".into()));
        assert_eq!(ask("10.0.1.200"), Ok("10.0.1.0/24".into()), "in the range");
        assert_eq!(ask("10.0.1.10"), Ok("10.0.1.0/24".into()), "outside it");
        for (address, why) in [
            (
                "10.0.2.1",
                "a subnet of network n: 10.0.0.0/24, 10.0.1.0/24",
            ),
            ("fd00::1", "a subnet of network n: 10.0.0.0/24, 10.0.1.0/24"),
            ("10.0.1.0", "network address"),
            ("10.0.1.255", "broadcast address"),
            ("10.0.1.1", "gateway in 10.0.1.0/24"),
            ("10.0.1.5", "aux address \"nas\""),
            ("10.0.1.9", "in use"),
        ] {
            let bad = ask(address).unwrap_err();
            assert!(
                bad.starts_with(&format!("invalid --ip {address}: ")),
                "{bad}"
            );
            assert!(bad.contains(why) && !bad.contains('\n'), "{bad}");
        }
    }

    #[test]
    fn overlapping_subnets_share_their_leases() {
        let (wide, narrow) = (pool("10.0.0.0/16"), pool("10.0.0.0/24"));
        let mut leases = Runs::default();
        let given: Vec<_> = (0..6)
            .map(|n| {
                leases
                    .take(if n % 2 == 0 { &wide } else { &narrow })
                    .unwrap()
            })
            .collect();
        let distinct: BTreeSet<_> = given.iter().collect();
        assert_eq!(distinct.len(), given.len(), "{given:?}");
    }

    /// With 100,000 leases, in one run or each beside a free address, next answers after a few
    /// lookups, also when it must go round.
    #[test]
    fn the_number_of_lookups_does_not_grow_with_the_leases() {
        struct Counted<'r>(&'r Runs, std::cell::Cell<u32>);
        impl Leases for Counted<'_> {
            type Error = Infallible;
            fn leased_until(&self, address: IpAddr) -> Result<Option<IpAddr>, Infallible> {
                self.1.set(self.1.get() + 1);
                self.0.leased_until(address)
            }
            fn cursor(&self, subnet: &IpNetwork) -> Result<Option<IpAddr>, Infallible> {
                self.0.cursor(subnet)
            }
        }
        for subnet in ["10.0.0.0/8", "fd00::/64"] {
            let mut pool = pool(subnet);
            pool.gateway = pool.first_usable();
            let (first, last) = span(&pool.subnet);
            for step in [1, 2] {
                let mut leases = Runs::default();
                let run = |from: u128, len: u128| Run {
                    first: nth(first + 2 + from, &pool.subnet),
                    last: nth(first + 1 + from + len, &pool.subnet),
                };
                leases.runs = match step {
                    1 => [run(0, 100_000)].map(|r| (r.first, r)).into(),
                    _ => (0..100_000)
                        .map(|n| run(n * step, 1))
                        .map(|r| (r.first, r))
                        .collect(),
                };
                for cursor in [first + 1, first + 50_000, first + 100_000, last] {
                    leases
                        .cursors
                        .insert(pool.subnet, nth(cursor, &pool.subnet));
                    let counted = Counted(&leases, 0.into());
                    next(&pool, &counted).unwrap();
                    assert!(counted.1.get() <= 3, "{subnet} {step} {}", counted.1.get());
                }
            }
        }
    }

    /// Pools small enough to be used up, at any place of either address space, with a gateway,
    /// aux addresses and a range at random.
    fn any_pool() -> impl Strategy<Value = Pool> {
        let subnet = prop_oneof![
            (any::<u32>(), 25u8..=32).prop_map(|(a, prefix)| IpNetwork::new(
                Ipv4Addr::from(a).into(),
                prefix
            )
            .unwrap()),
            (any::<u128>(), 121u8..=128).prop_map(|(a, prefix)| IpNetwork::new(
                Ipv6Addr::from(a).into(),
                prefix
            )
            .unwrap()),
            Just("255.255.255.192/26".parse().unwrap()),
            Just("0.0.0.0/26".parse().unwrap()),
            Just(
                "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffc0/122"
                    .parse()
                    .unwrap()
            ),
        ];
        let extras = (
            any::<Option<u128>>(),
            prop::collection::vec(any::<u128>(), 0..5),
            any::<Option<(u8, u128)>>(),
        );
        (subnet, extras).prop_map(|(subnet, (gateway, aux, range))| {
            let (first, last) = span(&subnet);
            let within = |n: u128| nth(first + n % (last - first + 1), &subnet);
            let mut pool = Pool::new(IpNetwork::new(subnet.network(), subnet.prefix()).unwrap());
            pool.gateway = gateway.map(within);
            for (n, aux) in aux.into_iter().map(within).enumerate() {
                if pool.gateway != Some(aux) && !pool.aux.values().any(|a| *a == aux) {
                    pool.aux.insert(format!("aux{n}"), aux);
                }
            }
            pool.range = range.map(|(longer, n)| {
                let bits = if subnet.is_ipv4() { 32 } else { 128 };
                let prefix = (subnet.prefix() + longer % 8).min(bits);
                let net = IpNetwork::new(within(n), prefix).unwrap();
                IpNetwork::new(net.network(), prefix).unwrap()
            });
            pool
        })
    }

    /// Every address of the pool that may be given dynamically, found the long way.
    fn dynamic(pool: &Pool) -> BTreeSet<IpAddr> {
        let (first, last) = span(&pool.subnet);
        (first..=last)
            .map(|n| nth(n, &pool.subnet))
            .filter(|a| pool.range.is_none_or(|range| range.contains(*a)))
            .filter(|a| !pool.is_reserved(*a))
            .collect()
    }

    proptest! {
        #[test]
        fn every_dynamic_address_is_given_once_and_no_other(pool in any_pool()) {
            let mut leases = Runs::default();
            let given: Vec<_> = std::iter::from_fn(|| leases.take(&pool)).collect();
            let distinct: BTreeSet<_> = given.iter().copied().collect();
            prop_assert_eq!(distinct.len(), given.len());
            prop_assert_eq!(&distinct, &dynamic(&pool));
            let usage = pool.usage(given.len() as u64, given.len() as u64);
            prop_assert_eq!(usage.available, 0);
            prop_assert_eq!(pool.usage(0, 0).available, given.len() as u128);
        }

        /// Any course of leases (dynamic or asked for) and releases keeps to the model: a set.
        #[test]
        fn any_course_of_leases_and_releases(
            pool in any_pool(),
            steps in prop::collection::vec((0u8..4, any::<prop::sample::Index>()), 0..300),
        ) {
            let dynamic = dynamic(&pool);
            let (first, last) = span(&pool.subnet);
            let net = {
                let mut net = resolve("n", &host());
                net.pools = vec![pool.clone()];
                net
            };
            let mut leases = Runs::default();
            let mut model: BTreeSet<IpAddr> = BTreeSet::new();
            for (what, index) in steps {
                match what {
                    0 if !model.is_empty() => {
                        let address = *index.get(&model.iter().collect::<Vec<_>>()).to_owned();
                        leases.release(address);
                        model.remove(&address);
                    }
                    1 => {
                        let width = (last - first) as usize + 1;
                        let address = nth(first + index.index(width) as u128, &pool.subnet);
                        let allowed = !pool.is_reserved(address) && !model.contains(&address);
                        prop_assert_eq!(requested(&net, "--ip", address, &leases).is_ok(), allowed);
                        if allowed {
                            leases.lease(address);
                            model.insert(address);
                        }
                    }
                    _ => match leases.take(&pool) {
                        Some(address) => {
                            prop_assert!(dynamic.contains(&address), "{} is not dynamic", address);
                            prop_assert!(model.insert(address), "{} given twice", address);
                        }
                        None => prop_assert!(dynamic.is_subset(&model), "exhausted too early"),
                    },
                }
            }
            for n in first..=last {
                let address = nth(n, &pool.subnet);
                prop_assert_eq!(leases.of(address).is_some(), model.contains(&address));
            }
            for run in leases.runs.values() {
                prop_assert!(successor(run.last).is_none_or(|a| leases.of(a).is_none()), "runs merge");
            }
            prop_assert!(leases.runs.len() <= model.len());
        }

        /// Released and asked for again, another one is given while there is another.
        #[test]
        fn the_one_just_released_is_not_given_at_once(pool in any_pool(), before in 0usize..130) {
            let dynamic = dynamic(&pool);
            let mut leases = Runs::default();
            let given: Vec<_> = (0..=before).map_while(|_| leases.take(&pool)).collect();
            if let Some(last) = given.last() {
                leases.release(*last);
                let again = leases.take(&pool);
                prop_assert!(again.is_some());
                prop_assert_eq!(again == Some(*last), given.len() == dynamic.len());
            }
        }

        /// A store that knows no runs, only leases, gets the same answers.
        #[test]
        fn short_answers_change_nothing(pool in any_pool(), taken in any::<u128>(), at in any::<u128>()) {
            struct Single(BTreeSet<IpAddr>, IpAddr);
            impl Leases for Single {
                type Error = Infallible;
                fn leased_until(&self, a: IpAddr) -> Result<Option<IpAddr>, Infallible> {
                    Ok(self.0.contains(&a).then_some(a))
                }
                fn cursor(&self, _: &IpNetwork) -> Result<Option<IpAddr>, Infallible> {
                    Ok(Some(self.1))
                }
            }
            let (first, last) = span(&pool.subnet);
            let mut runs = Runs::default();
            let cursor = nth(first + at % (last - first + 1), &pool.subnet);
            runs.cursors.insert(pool.subnet, cursor);
            let leased: BTreeSet<_> = (first..=last)
                .filter(|n| taken >> (n - first) & 1 == 1)
                .map(|n| nth(n, &pool.subnet))
                .collect();
            leased.iter().for_each(|a| runs.lease(*a));
            prop_assert_eq!(next(&pool, &runs).ok(), next(&pool, &Single(leased, cursor)).ok());
        }

        #[test]
        fn overlap_and_cover_are_what_they_say(a in any::<u32>(), p in 0u8..=32, b in any::<u32>(), q in 0u8..=32, near in any::<bool>()) {
            let b = if near { a ^ (b & 0xff) } else { b };
            let net = |n: u32, prefix| IpNetwork::new(Ipv4Addr::from(n).into(), prefix).unwrap();
            let (a, b) = (net(a, p), net(b, q));
            let ((a0, a1), (b0, b1)) = (span(&a), span(&b));
            prop_assert_eq!(overlap(&a, &b), a0 <= b1 && b0 <= a1);
            prop_assert_eq!(covers(&a, &b), a0 <= b0 && b1 <= a1);
        }
    }
}
