//! Address allocation: serial, per pool, over an abstract set of leases.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::IpNetwork;
use thiserror::Error;

use super::address::{Family, bounds, number};
use super::{AddressPlan, Network, Pool};

/// What allocation asks of the lease table.
///
/// Leases are the host's, not a network's: overlapping subnets exist only where two l3 networks
/// share one set of leases, so an address is leased once or not at all.
pub trait Leases {
    type Error;

    /// `None` if `address` is free. Else the last address of the run of consecutive leases that
    /// it lies in, or any leased address from `address` up to there. Cost must not grow with the
    /// number of leases: keep maximal runs (first, last), looked up by their first address.
    fn leased_until(&self, address: IpAddr) -> Result<Option<IpAddr>, Self::Error>;

    /// The address of `subnet` that serial allocation handed out last (a requested address does
    /// not move it), whether or not it has been released since.
    fn cursor(&self, subnet: &IpNetwork) -> Result<Option<IpAddr>, Self::Error>;
}

#[derive(Debug, Error, PartialEq, Eq)]
pub enum AllocError<E> {
    /// The pools of that family that are full, as a list.
    #[error("no address left in {0}")]
    Exhausted(String),
    #[error("invalid {field} {address}: {why}")]
    Requested {
        field: &'static str,
        address: IpAddr,
        why: String,
    },
    #[error(transparent)]
    Leases(E),
}

/// The addresses that the user asked for; the others are allocated.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Wanted {
    /// `--ip`
    pub v4: Option<Ipv4Addr>,
    /// `--ip6`
    pub v6: Option<Ipv6Addr>,
}

/// Addresses and default routes for a new endpoint of `network`: what is `wanted`, where it may
/// be leased, and the next free address elsewhere. The caller records the leases, and moves the
/// cursor of the pools that allocated.
pub fn plan<L: Leases>(
    network: &Network,
    wanted: Wanted,
    leases: &L,
) -> Result<AddressPlan, AllocError<L::Error>> {
    let v4 = match wanted.v4 {
        Some(address) => Some(requested(network, "--ip", address.into(), leases)?.1),
        None if network.ipv4 => Some(allocate(network, Family::V4, leases)?.1),
        None => None,
    };
    let v6 = match wanted.v6 {
        Some(address) => Some(requested(network, "--ip6", address.into(), leases)?.1),
        None if network.ipv6 => Some(allocate(network, Family::V6, leases)?.1),
        None => None,
    };
    Ok(network.address_plan(v4, v6))
}

/// The next free address of the network's first pool of this family that has room.
pub fn allocate<'n, L: Leases>(
    network: &'n Network,
    family: Family,
    leases: &L,
) -> Result<(&'n Pool, IpAddr), AllocError<L::Error>> {
    let mut full = Vec::new();
    for pool in network.pools_of(family) {
        match next(pool, leases) {
            Ok(address) => return Ok((pool, address)),
            Err(AllocError::Exhausted(subnet)) => full.push(subnet),
            Err(other) => return Err(other),
        }
    }
    if full.is_empty() {
        full.push(format!(
            "network {}: it has no {family} subnet",
            network.name
        ));
    }
    Err(AllocError::Exhausted(full.join(", ")))
}

/// The next free address of `pool` after the cursor, round its range.
pub fn next<L: Leases>(pool: &Pool, leases: &L) -> Result<IpAddr, AllocError<L::Error>> {
    let (first, last) = bounds(pool.dynamic());
    let cursor = leases.cursor(&pool.subnet).map_err(AllocError::Leases)?;
    let start = match cursor.map(number) {
        Some(cursor) if (first..last).contains(&cursor) => cursor + 1,
        // At the end of the range, or left outside it: begin anew.
        _ => first,
    };
    let mut found = first_free(pool, start, last, leases)?;
    if found.is_none() && start > first {
        found = first_free(pool, first, start - 1, leases)?;
    }
    found.ok_or_else(|| AllocError::Exhausted(pool.dynamic().to_string()))
}

/// The first address from `from` to `to` that is neither reserved nor leased. Each step passes a
/// reserved address or a whole run of leases, so that steps are bounded by the reservations when
/// runs are maximal.
fn first_free<L: Leases>(
    pool: &Pool,
    from: u128,
    to: u128,
    leases: &L,
) -> Result<Option<IpAddr>, AllocError<L::Error>> {
    let family = Family::of(pool.subnet.network());
    let mut at = from;
    while at <= to {
        let address = family.address(at);
        let passed = if pool.is_reserved(address) {
            at
        } else {
            match leases.leased_until(address).map_err(AllocError::Leases)? {
                None => return Ok(Some(address)),
                Some(end) => number(end).max(at),
            }
        };
        match passed.checked_add(1) {
            Some(next) => at = next,
            None => break,
        }
    }
    Ok(None)
}

/// Checks that `address` may be leased: in one of the network's subnets (its `--ip-range` does
/// not matter), not reserved, free. Returns the pool it lies in, and the address.
pub fn requested<'n, L: Leases>(
    network: &'n Network,
    field: &'static str,
    address: IpAddr,
    leases: &L,
) -> Result<(&'n Pool, IpAddr), AllocError<L::Error>> {
    let refuse = |why: String| {
        Err(AllocError::Requested {
            field,
            address,
            why,
        })
    };
    let family = Family::of(address);
    let Some(pool) = network.pool_of(address) else {
        let subnets: Vec<_> = network
            .pools_of(family)
            .map(|pool| pool.subnet.to_string())
            .collect();
        return refuse(if subnets.is_empty() {
            format!("network {} has no {family} subnet", network.name)
        } else {
            format!("it must lie in {}", subnets.join(" or "))
        });
    };
    if let Some(reserved) = pool.reserved_as(address) {
        return refuse(format!("it is {reserved} of {}", pool.subnet));
    }
    if leases
        .leased_until(address)
        .map_err(AllocError::Leases)?
        .is_some()
    {
        return refuse("another endpoint has it".into());
    }
    Ok((pool, address))
}

/// Leases in a host where networks may overlap (l3 on different parents): what one network
/// reserves as gateway or auxiliary address counts as leased for the others.
#[derive(Debug, Clone, Copy)]
pub struct WithReservations<'a, L> {
    pub leases: &'a L,
    /// Every network of the host.
    pub networks: &'a [Network],
}

impl<L: Leases> Leases for WithReservations<'_, L> {
    type Error = L::Error;

    fn leased_until(&self, address: IpAddr) -> Result<Option<IpAddr>, Self::Error> {
        let mut pools = self.networks.iter().filter_map(|n| n.pool_of(address));
        if pools.any(|pool| pool.reserved_by_choice(address)) {
            return Ok(Some(address));
        }
        self.leases.leased_until(address)
    }

    fn cursor(&self, subnet: &IpNetwork) -> Result<Option<IpAddr>, Self::Error> {
        self.leases.cursor(subnet)
    }
}

/// Checks that nobody has what a new network reserves; in an overlapping l3 network an endpoint
/// may.
pub fn check_reservations<L: Leases>(
    network: &Network,
    leases: &L,
) -> Result<(), AllocError<L::Error>> {
    for pool in &network.pools {
        let gateway = pool.gateway.map(|address| ("--gateway", address));
        let aux = pool.aux.values().map(|address| ("--aux-address", *address));
        for (field, address) in gateway.into_iter().chain(aux) {
            if leases
                .leased_until(address)
                .map_err(AllocError::Leases)?
                .is_some()
            {
                return Err(AllocError::Requested {
                    field,
                    address,
                    why: "an endpoint of a network that overlaps this one has it".into(),
                });
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::collections::{BTreeMap, BTreeSet};
    use std::convert::Infallible;

    use proptest::prelude::*;

    use super::*;
    use crate::model::fixtures::{add, host, made};

    /// Leases as the store keeps them: maximal runs by their first address, and a cursor.
    #[derive(Debug, Default)]
    struct Table {
        runs: BTreeMap<(Family, u128), u128>,
        cursor: BTreeMap<IpNetwork, IpAddr>,
        questions: Cell<u32>,
    }

    impl Leases for Table {
        type Error = Infallible;

        fn leased_until(&self, address: IpAddr) -> Result<Option<IpAddr>, Infallible> {
            self.questions.set(self.questions.get() + 1);
            let family = Family::of(address);
            let run = self.run_before(family, number(address));
            Ok(run
                .filter(|(_, last)| *last >= number(address))
                .map(|(_, last)| family.address(last)))
        }

        fn cursor(&self, subnet: &IpNetwork) -> Result<Option<IpAddr>, Infallible> {
            Ok(self.cursor.get(subnet).copied())
        }
    }

    impl Table {
        /// The run that begins at `at` or last before it.
        fn run_before(&self, family: Family, at: u128) -> Option<(u128, u128)> {
            let mut before = self.runs.range((family, 0)..=(family, at));
            before.next_back().map(|((_, first), last)| (*first, *last))
        }

        fn lease(&mut self, address: IpAddr) {
            let (family, at) = (Family::of(address), number(address));
            assert_eq!(
                self.leased_until(address),
                Ok(None),
                "{address} leased twice"
            );
            let left = self.run_before(family, at);
            let first = match left {
                Some((first, last)) if last + 1 == at => first,
                _ => at,
            };
            let next = at.checked_add(1);
            let joined = next.and_then(|next| self.runs.remove(&(family, next)));
            self.runs.insert((family, first), joined.unwrap_or(at));
        }

        fn release(&mut self, address: IpAddr) {
            let (family, at) = (Family::of(address), number(address));
            let (first, last) = self.run_before(family, at).expect("a run");
            assert!(at <= last, "{address} released but not leased");
            self.runs.remove(&(family, first));
            if first < at {
                self.runs.insert((family, first), at - 1);
            }
            if at < last {
                self.runs.insert((family, at + 1), last);
            }
        }

        /// Allocates from `pool` and records it, as the engine does.
        fn take(&mut self, pool: &Pool) -> Option<IpAddr> {
            match next(pool, self) {
                Ok(address) => {
                    self.lease(address);
                    self.cursor.insert(pool.subnet, address);
                    Some(address)
                }
                Err(AllocError::Exhausted(_)) => None,
                Err(other) => panic!("{other}"),
            }
        }

        fn leased_in(&self, pool: &Pool) -> u128 {
            let leased = addresses(pool.subnet, pool.family())
                .filter(|address| self.leased_until(*address) != Ok(None));
            leased.count() as u128
        }
    }

    fn pool(subnet: &str) -> Pool {
        Pool::new(subnet.parse().unwrap())
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn taken(table: &mut Table, pool: &Pool) -> Vec<String> {
        std::iter::from_fn(|| table.take(pool))
            .map(|address| address.to_string())
            .collect()
    }

    #[test]
    fn small_pools_are_used_to_the_last_address() {
        for (subnet, expected) in [
            ("10.0.0.0/30", vec!["10.0.0.1", "10.0.0.2"]),
            ("10.0.0.0/31", vec!["10.0.0.0", "10.0.0.1"]),
            ("10.0.0.0/32", vec!["10.0.0.0"]),
            (
                "255.255.255.252/30",
                vec!["255.255.255.253", "255.255.255.254"],
            ),
            ("255.255.255.255/32", vec!["255.255.255.255"]),
            ("0.0.0.0/31", vec!["0.0.0.0", "0.0.0.1"]),
            ("fd00::/126", vec!["fd00::1", "fd00::2", "fd00::3"]),
            ("fd00::/127", vec!["fd00::", "fd00::1"]),
            ("fd00::/128", vec!["fd00::"]),
            (
                "ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe/127",
                vec![
                    "ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe",
                    "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
                ],
            ),
        ] {
            assert_eq!(
                taken(&mut Table::default(), &pool(subnet)),
                expected,
                "{subnet}"
            );
        }
        assert_eq!(
            taken(&mut Table::default(), &pool("255.255.255.0/24")).len(),
            254
        );
    }

    #[test]
    fn wide_pools_begin_at_their_first_address() {
        for (subnet, first) in [("0.0.0.0/1", "0.0.0.1"), ("8000::/1", "8000::1")] {
            assert_eq!(Table::default().take(&pool(subnet)), Some(ip(first)));
        }
    }

    #[test]
    fn allocation_goes_on_after_the_last_one_round_the_range() {
        let mut pool = pool("10.0.0.0/24");
        pool.range = Some("10.0.0.8/30".parse().unwrap());
        let mut table = Table::default();
        let mut next = || table.take(&pool).unwrap();
        assert_eq!([next(), next()], [ip("10.0.0.8"), ip("10.0.0.9")]);
        table.release(ip("10.0.0.8"));
        assert_eq!(
            taken(&mut table, &pool),
            ["10.0.0.10", "10.0.0.11", "10.0.0.8"]
        );
        let error = super::next(&pool, &table).unwrap_err();
        assert_eq!(error.to_string(), "no address left in 10.0.0.8/30");
    }

    #[test]
    fn a_cursor_outside_the_range_begins_anew() {
        let mut pool = pool("10.0.0.0/24");
        pool.range = Some("10.0.0.8/30".parse().unwrap());
        for cursor in ["10.0.0.1", "10.0.0.11", "10.0.0.200"] {
            let mut table = Table::default();
            table.cursor.insert(pool.subnet, ip(cursor));
            assert_eq!(table.take(&pool), Some(ip("10.0.0.8")), "{cursor}");
        }
    }

    #[test]
    fn a_network_allocates_from_its_first_subnet_with_room() {
        let network = made(
            "n --ipv6 --subnet 10.1.0.0/31 --subnet fd00::/127 --subnet 10.2.0.0/31",
            &host(),
        );
        let mut table = Table::default();
        let mut given = Vec::new();
        let error = loop {
            match allocate(&network, Family::V4, &table) {
                Ok((pool, address)) => {
                    assert!(pool.subnet.contains(address));
                    table.lease(address);
                    given.push(address.to_string());
                }
                Err(error) => break error,
            }
        };
        assert_eq!(given, ["10.1.0.0", "10.1.0.1", "10.2.0.0", "10.2.0.1"]);
        assert_eq!(
            error.to_string(),
            "no address left in 10.1.0.0/31, 10.2.0.0/31"
        );
        let (_, v6) = allocate(&network, Family::V6, &table).unwrap();
        assert_eq!(v6, ip("fd00::"));
        let v4_only = made("n", &host());
        let error = allocate(&v4_only, Family::V6, &table).unwrap_err();
        assert!(
            error
                .to_string()
                .contains("network n: it has no IPv6 subnet"),
            "{error}"
        );
    }

    #[test]
    fn a_plan_has_an_address_of_each_family() {
        let network = made(
            "n -o parent=eth0 --ipv6 --subnet 10.1.0.0/24 --subnet 10.2.0.0/24 --subnet fd00::/64",
            &host(),
        );
        let table = Table::default();
        let dynamic = plan(&network, Wanted::default(), &table).unwrap();
        assert_eq!(dynamic.v4.unwrap().to_string(), "10.1.0.2/24");
        assert_eq!(dynamic.v6.unwrap().to_string(), "fd00::2/64");
        let wanted = Wanted {
            v4: Some([10, 2, 0, 77].into()),
            v6: None,
        };
        let asked = plan(&network, wanted, &table).unwrap();
        assert_eq!(asked.v4.unwrap().to_string(), "10.2.0.77/24");
        assert_eq!(asked.gateway4, Some(ip("10.2.0.1")));
        assert_eq!(asked.v6, dynamic.v6);
        let v6_only = made("n --ipv6 --ipv4=false", &host());
        let only = plan(&v6_only, Wanted::default(), &table).unwrap();
        assert!(only.v4.is_none() && only.v6.is_some());
    }

    #[test]
    fn requested_addresses_may_lie_outside_the_range() {
        let line = "n --subnet 10.1.0.0/24 --ip-range 10.1.0.128/25";
        let network = made(line, &host());
        let (pool, address) =
            requested(&network, "--ip", ip("10.1.0.5"), &Table::default()).unwrap();
        assert_eq!((pool, address), (&network.pools[0], ip("10.1.0.5")));
    }

    #[test]
    fn bad_requests_are_refused() {
        let line = "n --subnet 10.1.0.0/24 --subnet 10.2.0.0/24 --gateway 10.1.0.1 \
                    --aux-address a=10.2.0.7";
        let network = made(line, &host());
        let mut table = Table::default();
        table.lease(ip("10.1.0.5"));
        for (address, why) in [
            ("10.3.0.1", "it must lie in 10.1.0.0/24 or 10.2.0.0/24"),
            ("10.1.0.0", "it is the network address of 10.1.0.0/24"),
            ("10.2.0.255", "it is the broadcast address of 10.2.0.0/24"),
            ("10.1.0.1", "it is the gateway of 10.1.0.0/24"),
            (
                "10.2.0.7",
                "it is the auxiliary address \"a\" of 10.2.0.0/24",
            ),
            ("10.1.0.5", "another endpoint has it"),
        ] {
            let error = requested(&network, "--ip", ip(address), &table).unwrap_err();
            assert_eq!(error.to_string(), format!("invalid --ip {address}: {why}"));
        }
        let wanted = Wanted {
            v4: None,
            v6: Some("fd00::1".parse().unwrap()),
        };
        let error = plan(&network, wanted, &table).unwrap_err();
        assert_eq!(
            error.to_string(),
            "invalid --ip6 fd00::1: network n has no IPv6 subnet"
        );
    }

    #[test]
    fn overlapping_networks_respect_each_other() {
        let mut host = host();
        let l3 = "-o ipvlan_mode=l3 --subnet 10.1.0.0/29";
        let first = format!("a -o parent=eth0 {l3} --gateway 10.1.0.1 --aux-address x=10.1.0.3");
        add(&first, 'b', &mut host);
        let second = add(&format!("b -o parent=eth1 {l3}"), 'c', &mut host);
        let mut table = Table::default();
        let mut given = Vec::new();
        loop {
            let leases = WithReservations {
                leases: &table,
                networks: &host.networks,
            };
            let Ok((_, address)) = allocate(&second, Family::V4, &leases) else {
                break;
            };
            table.lease(address);
            given.push(address.to_string());
        }
        assert_eq!(given, ["10.1.0.2", "10.1.0.4", "10.1.0.5", "10.1.0.6"]);

        let third = |options: &str| made(&format!("c -o parent=eth1.3 {l3} {options}"), &host);
        assert_eq!(
            check_reservations(&third("--gateway 10.1.0.1"), &table),
            Ok(())
        );
        for (field, option) in [("--gateway", "10.1.0.2"), ("--aux-address", "x=10.1.0.2")] {
            let network = third(&format!("{field} {option}"));
            let error = check_reservations(&network, &table).unwrap_err();
            assert!(
                error
                    .to_string()
                    .starts_with(&format!("invalid {field} 10.1.0.2: "))
            );
        }
    }

    /// The cost of one allocation, in questions to the lease table, is the same with 100,000
    /// leases as with none: in one run, in alternation with free addresses, and round the end.
    #[test]
    fn cost_does_not_grow_with_leases() {
        const LEASES: u128 = 100_000;
        for subnet in ["10.0.0.0/8", "fd00::/64"] {
            for step in [1, 2] {
                let pool = pool(subnet);
                let (first, last) = bounds(pool.subnet);
                let mut table = Table::default();
                for n in 0..LEASES {
                    table.lease(pool.family().address(first + 1 + n * step));
                }
                for cursor in [first, first + LEASES * step / 2, last] {
                    table
                        .cursor
                        .insert(pool.subnet, pool.family().address(cursor));
                    for _ in 0..100 {
                        table.questions.set(0);
                        let address = next(&pool, &table).unwrap();
                        assert!(table.questions.get() <= 2, "{subnet} {step} {cursor}");
                        table.lease(address);
                        table.cursor.insert(pool.subnet, address);
                    }
                }
            }
        }
    }

    /// A pool of at most 256 addresses, at the ends and in the middle of the address space.
    fn any_pool() -> impl Strategy<Value = Pool> {
        let base = prop_oneof![
            Just((Family::V4, 0)),
            Just((Family::V4, u128::from(u32::MAX) - 255)),
            Just((Family::V4, 0x0a01_0200)),
            Just((Family::V6, 0)),
            Just((Family::V6, u128::MAX - 255)),
            Just((Family::V6, 0xfd00 << 112)),
        ];
        // Offsets are taken modulo the size of the subnet.
        let offsets = proptest::collection::vec(any::<u8>(), 0..4);
        (
            base,
            0..=8u8,
            proptest::option::of((0..=8u8, any::<u8>())),
            offsets,
        )
            .prop_map(|((family, base), host_bits, range, offsets)| {
                let prefix = |offset: u128, host_bits: u8| {
                    let first = (base + offset) >> host_bits << host_bits;
                    IpNetwork::new(family.address(first), family.width() - host_bits).unwrap()
                };
                let size = 1u128 << host_bits;
                let mut pool = Pool::new(prefix(0, host_bits));
                pool.range = range
                    .map(|(bits, offset)| prefix(u128::from(offset) % size, bits.min(host_bits)));
                let mut reserved = offsets
                    .into_iter()
                    .map(|offset| family.address(base + u128::from(offset) % size));
                pool.gateway = reserved.next();
                pool.aux = reserved
                    .map(|address| (address.to_string(), address))
                    .collect();
                pool
            })
    }

    #[derive(Debug, Clone)]
    enum Step {
        Allocate,
        /// The lease with this rank, modulo their number.
        Release(usize),
        /// The address at this offset, modulo the size of the subnet.
        Request(u8),
    }

    fn any_step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => Just(Step::Allocate),
            2 => any::<usize>().prop_map(Step::Release),
            1 => any::<u8>().prop_map(Step::Request),
        ]
    }

    fn addresses(prefix: IpNetwork, family: Family) -> impl Iterator<Item = IpAddr> {
        let (first, last) = bounds(prefix);
        (first..=last).map(move |n| family.address(n))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1000))]

        /// Any history of allocations, releases and requests: no address twice, none outside
        /// the range, none reserved, and exhaustion only when nothing is left.
        #[test]
        fn any_history_is_sound(
            pool in any_pool(),
            steps in proptest::collection::vec(any_step(), 0..400),
        ) {
            let network = Network { pools: vec![pool.clone()], ..made("n", &host()) };
            let mut table = Table::default();
            let mut leased = BTreeSet::new();
            let usable: BTreeSet<_> = addresses(pool.dynamic(), pool.family())
                .filter(|address| !pool.is_reserved(*address))
                .collect();
            prop_assert_eq!(usable.len() as u128, pool.dynamic_capacity());
            for step in steps {
                match step {
                    Step::Allocate => match table.take(&pool) {
                        Some(address) => {
                            prop_assert!(usable.contains(&address), "{} is not usable", address);
                            prop_assert!(leased.insert(address), "{} given twice", address);
                        }
                        None => prop_assert!(usable.is_subset(&leased)),
                    },
                    Step::Release(_) if leased.is_empty() => {}
                    Step::Release(rank) => {
                        let address = *leased.iter().nth(rank % leased.len()).unwrap();
                        leased.remove(&address);
                        table.release(address);
                    }
                    Step::Request(offset) => {
                        let all: Vec<_> = addresses(pool.subnet, pool.family()).collect();
                        let address = all[usize::from(offset) % all.len()];
                        let free = !pool.is_reserved(address) && !leased.contains(&address);
                        let answer = requested(&network, "--ip", address, &table);
                        prop_assert_eq!(answer.is_ok(), free);
                        if free {
                            table.lease(address);
                            leased.insert(address);
                        }
                    }
                }
            }
        }

        /// A released address is the last to be handed out again.
        #[test]
        fn a_released_address_rests(pool in any_pool(), before in 0..300usize) {
            let mut table = Table::default();
            let mut last = None;
            for _ in 0..before {
                last = table.take(&pool).or(last);
            }
            if let Some(last) = last {
                let others = pool.dynamic_capacity() - table.leased_in(&pool);
                table.release(last);
                for _ in 0..others {
                    prop_assert_ne!(table.take(&pool), Some(last));
                }
                prop_assert_eq!(table.take(&pool), Some(last));
                prop_assert_eq!(table.take(&pool), None);
            }
        }
    }
}
