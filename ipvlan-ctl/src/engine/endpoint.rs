//! `network connect` and `network disconnect`.

use std::cmp::Reverse;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ipnetwork::IpNetwork;
use nix::errno::Errno;

use super::network::seed;
use super::{
    Engine, EngineError, Result, Session, default_name, find_network, netns_path, not_found, now,
    parent, privilege, with_undo,
};
use crate::datapath::{Datapath, EndpointPolicy};
use crate::kernel::{Link, Netlink, Netns, NetnsIdentity, Slave, SlaveAddresses, SlaveRequest};
use crate::model::ipam::{self, Family, Leases};
use crate::model::parent::check_inside;
use crate::model::{AddressPlan, CreateRequest, Id, Invalid, Network, Parent};
use crate::store::{EndpointRow, NetworkRow, Records, State, StoreError};

/// How many indices are tried before giving up, and how often a network may vanish before it is
/// joined; both are rare accidents.
const ATTEMPTS: u32 = 8;

/// In the `parent_index` of an endpoint's row: the parent is in the endpoint's own namespace. The
/// kernel's indices end before.
const INSIDE: u32 = 1 << 31;

/// A namespace that is to join a network.
#[derive(Debug, Clone, Default)]
pub struct ConnectRequest {
    /// A new one if `None`.
    pub id: Option<Id>,
    /// Name, id or prefix of an id.
    pub network: String,
    /// Such as `/proc/PID/ns/net` or `/run/netns/NAME`.
    pub netns: PathBuf,
    /// [`default_name`] of the namespace if `None`.
    pub name: Option<String>,
    pub ip: Option<Ipv4Addr>,
    pub ip6: Option<Ipv6Addr>,
    pub aliases: Vec<String>,
    /// To be asked for names outside; the host's if there are none.
    pub servers: Vec<IpAddr>,
    /// The first free `ethN` if `None`.
    pub ifname: Option<String>,
    /// See [`AddressPlan::gw_priority`].
    pub gw_priority: i32,
    /// Needed where the network has an external IPAM, and only there.
    pub given: Option<Given>,
}

/// What an external IPAM says of an endpoint.
#[derive(Clone)]
pub enum Given {
    Plan(AddressPlan),
    /// It asks a DHCP server through the endpoint's interface, once that is up.
    Asked(Ask),
}

/// Returns what was given; it may take its time.
pub type Ask = Arc<dyn Fn() -> std::result::Result<AddressPlan, IpamError> + Send + Sync>;

/// Whatever an external IPAM fails with.
pub type IpamError = Box<dyn std::error::Error + Send + Sync>;

impl fmt::Debug for Given {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plan(plan) => f.debug_tuple("Plan").field(plan).finish(),
            Self::Asked(_) => f.write_str("Asked"),
        }
    }
}

/// An endpoint that is whole.
#[derive(Debug)]
pub struct Joined {
    pub network: Network,
    pub endpoint: EndpointRow,
    pub link: Link,
}

/// An endpoint's namespace, open, and how it is known later.
pub(super) struct Target {
    pub netns: Netns,
    /// A socket of the namespace.
    pub inside: Netlink,
    pub identity: NetnsIdentity,
    pub nsid: i32,
    pub ifname: String,
}

impl Engine {
    /// Gives a namespace an interface on a network. Nothing has changed when this fails.
    pub async fn connect(&self, request: &ConnectRequest) -> Result<EndpointRow> {
        privilege::require()?;
        request.check()?;
        let target = self.open_target(request).await?;
        self.connect_at(request, &target).await
    }

    pub(super) async fn connect_at(
        &self,
        request: &ConnectRequest,
        target: &Target,
    ) -> Result<EndpointRow> {
        let Some(mut session) = self.existing_session().await? else {
            return Err(not_found(&request.network).into());
        };
        let networks = session.store.records().networks()?;
        let network = find_network(networks, &request.network)?;
        let joined = session.connect(network, request, target).await?;
        Ok(joined.endpoint)
    }

    /// As [`Engine::connect`], on the network that `create` describes, which is made first if
    /// need be (see [`Engine::ensure_network`]); `request` need not name it.
    pub async fn join(&self, create: &CreateRequest, request: &ConnectRequest) -> Result<Joined> {
        privilege::require()?;
        request.check()?;
        let target = self.open_target(request).await?;
        for _ in 0..ATTEMPTS {
            if let Some(mut session) = self.existing_session().await?
                && let Some(row) = session.store.records().network_named(&create.name)?
                && row.state == State::Ready
                && create.check_owned(&row.network).is_ok()
                && create.check_same(&row.network).is_ok()
            {
                match session.connect(row, request, &target).await {
                    // It has gone meanwhile, perhaps with its last endpoint.
                    Err(EngineError::Find(_) | EngineError::NetworkBusy(_)) => {}
                    done => return done,
                }
            }
            self.ensure_network(create).await?;
        }
        Err(EngineError::NetworkBusy(create.name.clone()))
    }

    /// Takes an endpoint off a network. `word` is its name or id, a prefix of its id, or what
    /// names its namespace. With `force`, the endpoint is forgotten even where the kernel
    /// refuses, and it is no error if there is none.
    pub async fn disconnect(&self, network: &str, word: &str, force: bool) -> Result<()> {
        privilege::require()?;
        let Some(mut session) = self.existing_session().await? else {
            return Err(not_found(network).into());
        };
        let owner = session.owner.clone();
        let identity = Netns::open(&netns_path(word))
            .and_then(|netns| netns.identity())
            .ok();
        let reserved = session.store.transaction(|records| {
            let network = find_network(records.networks()?, network)?;
            let path = netns_path(word);
            let endpoints = records.endpoints_like(network.number, word, &path, identity)?;
            let row = find_endpoint(endpoints, word, identity).ok_or_else(|| {
                EngineError::NoEndpoint {
                    network: network.network.name,
                    endpoint: word.to_owned(),
                }
            })?;
            if row.state != State::Ready {
                return Err(EngineError::EndpointBusy(row.name));
            }
            records.begin(&row.id, "network disconnect", &owner)?;
            records.set_endpoint_state(&row.id, State::Removing)?;
            Ok(row)
        });
        let row = match reserved {
            Err(EngineError::NoEndpoint { .. }) if force => return Ok(()),
            other => other?,
        };
        match session.tear_down_endpoint(&row.id).await {
            Err(error) if force => {
                eprintln!("ipvlan-ctl: forgotten all the same: {error}");
                session.forget_endpoint(&row.id)
            }
            other => other,
        }
    }

    async fn open_target(&self, request: &ConnectRequest) -> Result<Target> {
        let netns = Netns::open(&request.netns)?;
        if netns.is_own()? {
            return Err(EngineError::OwnNamespace(target_name(&request.netns)));
        }
        let (inside, identity) = Netlink::open_known(&netns)?;
        Ok(Target {
            identity,
            nsid: self.netlink.nsid(&netns).await?,
            ifname: match &request.ifname {
                Some(ifname) => ifname.clone(),
                None => inside.free_name().await?,
            },
            inside,
            netns,
        })
    }
}

impl ConnectRequest {
    fn check(&self) -> Result<(), Invalid> {
        let names = self.name.iter().map(|name| ("--name", name));
        let aliases = self.aliases.iter().map(|alias| ("--alias", alias));
        for (field, name) in names.chain(aliases) {
            check_name(field, name)?;
        }
        match &self.ifname {
            Some(ifname) => check_ifname(ifname),
            None => Ok(()),
        }
    }
}

pub(super) fn check_name(field: &str, name: &str) -> Result<(), Invalid> {
    let of_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    if name.starts_with(|c: char| c.is_ascii_alphanumeric()) && name.chars().all(of_name) {
        Ok(())
    } else {
        Err(Invalid::new(
            field,
            name,
            "a letter or digit, then letters, digits, '_', '.' and '-'",
        ))
    }
}

/// The kernel's rule (`dev_valid_name` in `net/core/dev.c`); `%` would be a pattern there.
fn check_ifname(ifname: &str) -> Result<(), Invalid> {
    let forbidden = |c: char| matches!(c, '/' | ':' | '%') || !c.is_ascii_graphic();
    if (1..=15).contains(&ifname.len())
        && !matches!(ifname, "." | ".." | "lo" | "all" | "default")
        && !ifname.contains(forbidden)
    {
        Ok(())
    } else {
        Err(Invalid::new(
            "--ifname",
            ifname,
            "1 to 15 visible characters without '/', ':' and '%'",
        ))
    }
}

impl Session<'_> {
    async fn connect(
        &mut self,
        network: NetworkRow,
        request: &ConnectRequest,
        target: &Target,
    ) -> Result<Joined> {
        let (network, host) = self.present_network(network).await?;
        let inside = parent_inside(&network.network, request, target).await?;
        let (network, row) = self
            .reserve_endpoint(&network, inside, request, target, &host)
            .await?;
        match self
            .build_endpoint(&network, row.clone(), request, target)
            .await
        {
            Ok((endpoint, link)) => Ok(Joined {
                network: network.network,
                endpoint,
                link,
            }),
            Err(error) => Err(with_undo(error, self.tear_down_endpoint(&row.id).await)),
        }
    }

    /// The network with its parent there, and the host's own addresses.
    async fn present_network(&mut self, row: NetworkRow) -> Result<(NetworkRow, Vec<IpAddr>)> {
        if row.state != State::Ready {
            return Err(EngineError::NetworkBusy(row.network.name));
        }
        let datapath = self.engine.datapath()?;
        let (row, _) = self.ensure_parent(row, &datapath).await?;
        let host = self.engine.refresh_host_addresses(&datapath).await?;
        Ok((row, host))
    }

    /// Returns the network as it is then, and the endpoint.
    async fn reserve_endpoint(
        &mut self,
        network: &NetworkRow,
        parent_inside: Option<u32>,
        request: &ConnectRequest,
        target: &Target,
        host: &[IpAddr],
    ) -> Result<(NetworkRow, EndpointRow)> {
        let owner = self.owner.clone();
        let boot = &self.engine.boot;
        self.reserve(|records| {
            // It may have been removed meanwhile.
            let mut network = records
                .network(&network.network.id)?
                .filter(|row| row.state == State::Ready)
                .ok_or_else(|| EngineError::NetworkBusy(network.network.name.clone()))?;
            let name = request
                .name
                .clone()
                .unwrap_or_else(|| default_name(&request.netns));
            let neighbours = records.endpoints_in(target.identity, boot)?;
            if let Some(other) = neighbours.into_iter().find(|other| {
                other.network == network.number && other.identity != NetnsIdentity::NONE
            }) {
                return Err(EngineError::AlreadyConnected {
                    target: target_name(&request.netns),
                    network: network.network.name,
                    name: other.name,
                });
            }
            if records.endpoint_named(network.number, &name)?.is_some() {
                return Err(EngineError::EndpointExists {
                    network: network.network.name,
                    name,
                });
            }
            let slot = records.take_slot()?;
            let (leases, plan) = match &request.given {
                Some(Given::Plan(given)) => {
                    admit(&mut network, given, records)?;
                    let leases = given_leases(&network.network, given, records)?;
                    (leases, given.clone())
                }
                Some(Given::Asked(_)) => {
                    has_external_ipam(&network.network)?;
                    let plan = AddressPlan {
                        dhcp: true,
                        ..AddressPlan::default()
                    };
                    (Vec::new(), plan)
                }
                None => {
                    let network = &network.network;
                    let leases = allocate(network, request, &Taken { records, host })?;
                    let leased = |v6: bool| {
                        let mut addresses = leases.iter().map(|lease| lease.address);
                        addresses.find(|address| address.is_ipv6() == v6)
                    };
                    let plan = network.address_plan(leased(false), leased(true));
                    (leases, plan)
                }
            };
            let row = EndpointRow {
                id: request.id.clone().unwrap_or_else(Id::random),
                network: network.number,
                name,
                aliases: request.aliases.clone(),
                servers: request.servers.clone(),
                slot,
                ifname: target.ifname.clone(),
                netns: request.netns.clone(),
                nsid: target.nsid,
                identity: target.identity,
                boot: boot.clone(),
                parent_index: parent_inside.unwrap_or(network.parent_index),
                addresses: AddressPlan {
                    gw_priority: request.gw_priority,
                    ..plan
                },
                link_local: link_local(&network.network, records, slot)?,
                state: State::Creating,
                created: now(),
            };
            records.begin(&row.id, "network connect", &owner)?;
            records.insert_endpoint(&row)?;
            for lease in leases {
                records.lease(lease.address, &row.id)?;
                if let Some(subnet) = lease.next_of {
                    records.set_cursor(&subnet, lease.address)?;
                }
            }
            Ok((network, row))
        })
        .await
    }

    async fn build_endpoint(
        &mut self,
        network: &NetworkRow,
        row: EndpointRow,
        request: &ConnectRequest,
        target: &Target,
    ) -> Result<(EndpointRow, Link)> {
        let datapath = self.engine.datapath()?;
        if network.network.external_ipam {
            // Its subnets may be new.
            datapath.put_network(&parent::policy(network))?;
        }
        let mut row = self
            .make_slave(network, row, request, target, &datapath)
            .await?;
        let slave = slave(&row);
        let Some(link) = self.engine.netlink.slave(slave).await? else {
            return Err(EngineError::WrongLink {
                target: target_name(&request.netns),
                ifname: row.ifname,
            });
        };
        if target.identity != NetnsIdentity::NONE {
            datapath.attach_endpoint(row.slot, &target.netns, &row.ifname)?;
            if let Some(Given::Asked(ask)) = &request.given {
                row = self
                    .ask_for_addresses(network, row, ask, target, &datapath)
                    .await?;
            }
            self.take_default_routes(&row, &target.netns).await?;
            let addresses = SlaveAddresses {
                plan: row.addresses.clone(),
                link_local: row.link_local,
            };
            let inside = &target.inside;
            inside
                .configure_slave(&target.netns, slave.index, &row.ifname, &addresses)
                .await?;
        }
        self.store.transaction(|records| {
            records.set_endpoint_state(&row.id, State::Ready)?;
            records.end(&row.id)
        })?;
        Ok((row, link))
    }

    /// Lets an external IPAM ask for addresses through the endpoint's interface, which is down
    /// again when it has them.
    async fn ask_for_addresses(
        &mut self,
        network: &NetworkRow,
        row: EndpointRow,
        ask: &Ask,
        target: &Target,
        datapath: &Datapath,
    ) -> Result<EndpointRow> {
        let (inside, index) = (&target.inside, slave(&row).index);
        let none = SlaveAddresses {
            plan: AddressPlan::default(),
            link_local: row.link_local,
        };
        inside
            .configure_slave(&target.netns, index, &row.ifname, &none)
            .await?;
        let ask = Arc::clone(ask);
        let given = match tokio::task::spawn_blocking(move || ask()).await {
            Ok(asked) => asked.map_err(EngineError::Ipam)?,
            Err(error) => return Err(EngineError::Ipam(error.into())),
        };
        // The kernel announces addresses as it comes up with them.
        inside.set_down(index, &row.ifname).await?;
        let (network, row) = self
            .reserve(|records| {
                let mut network = records
                    .network(&network.network.id)?
                    .ok_or_else(|| EngineError::NetworkBusy(network.network.name.clone()))?;
                admit(&mut network, &given, records)?;
                for lease in given_leases(&network.network, &given, records)? {
                    records.lease(lease.address, &row.id)?;
                }
                let addresses = AddressPlan {
                    dhcp: true,
                    gw_priority: row.addresses.gw_priority,
                    ..given.clone()
                };
                records.address_endpoint(&row.id, &addresses)?;
                let row = EndpointRow {
                    addresses,
                    ..row.clone()
                };
                Ok((network, row))
            })
            .await?;
        let network = parent::policy(&network);
        datapath.put_network(&network)?;
        datapath.change_endpoint(&network, &policy(&row))?;
        Ok(row)
    }

    /// Makes the slave and its map entries, which come first so that the slave is never without
    /// policy. Where the index or the name is taken, it tries the next.
    async fn make_slave(
        &mut self,
        network: &NetworkRow,
        mut row: EndpointRow,
        request: &ConnectRequest,
        target: &Target,
        datapath: &Datapath,
    ) -> Result<EndpointRow> {
        for _ in 0..ATTEMPTS {
            datapath.put_endpoint(&parent::policy(network), &policy(&row))?;
            let Slave { index, parent, .. } = slave(&row);
            let wanted = SlaveRequest {
                parent,
                index,
                name: row.ifname.clone(),
                mode: network.network.mode,
                flag: network.network.flag,
                mtu: network.network.mtu,
            };
            let netlink = if is_inside(&row) {
                &target.inside
            } else {
                &self.engine.netlink
            };
            let error = match netlink.make_slave(&wanted, &target.netns).await {
                Ok(()) => return Ok(row),
                Err(error) => error,
            };
            if !matches!(error.errno(), Some(Errno::EEXIST | Errno::EBUSY)) {
                return Err(error.into());
            }
            let ifname = match self.what_is_taken(&row, target).await? {
                InTheWay::Name if request.ifname.is_some() => {
                    return Err(EngineError::IfnameTaken {
                        target: target_name(&request.netns),
                        ifname: row.ifname,
                    });
                }
                InTheWay::Name => target.inside.free_name().await?,
                InTheWay::Index => row.ifname.clone(),
                // The parent itself is busy: it is a bridge's port, or has macvlan devices.
                InTheWay::Neither => return Err(error.into()),
            };
            datapath.remove_endpoint(&policy(&row))?;
            (row.slot, row.link_local) = self.store.transaction(|records| {
                let slot = records.take_slot()?;
                let link_local = link_local(&network.network, records, slot)?;
                records.move_endpoint(&row.id, slot, &ifname, link_local)?;
                Ok::<_, EngineError>((slot, link_local))
            })?;
            row.ifname = ifname;
        }
        Err(EngineError::NoIndex {
            target: target_name(&request.netns),
            ifname: row.ifname,
        })
    }

    /// What the kernel's `EEXIST` or `EBUSY` was about.
    async fn what_is_taken(&self, row: &EndpointRow, target: &Target) -> Result<InTheWay> {
        let index = slave(row).index;
        let inside = target.inside.links().await?;
        if inside.iter().any(|link| link.view.name == row.ifname) {
            return Ok(InTheWay::Name);
        }
        let host = self.engine.netlink.links().await?;
        let taken = inside
            .iter()
            .chain(&host)
            .any(|link| link.view.index == index);
        Ok(if taken {
            InTheWay::Index
        } else {
            InTheWay::Neither
        })
    }

    /// Takes back [`Session::build_endpoint`] and the reservation, however far they got.
    pub(super) async fn tear_down_endpoint(&mut self, id: &Id) -> Result<()> {
        let torn_down = self.dismantle_endpoint(id).await;
        self.or_abandon(id, torn_down)
    }

    async fn dismantle_endpoint(&mut self, id: &Id) -> Result<()> {
        // Building may have changed the row.
        let Some(mut row) = self.store.records().endpoint(id)? else {
            return Ok(());
        };
        if row.boot == self.engine.boot {
            row = self.engine.where_it_is(row).await?;
            // The slave goes first: its policy holds as long as it is there.
            self.engine.netlink.delete_slave(slave(&row)).await?;
            if let Some(datapath) = self.engine.loaded_datapath() {
                datapath.remove_endpoint(&policy(&row))?;
            }
        }
        // First, so that who completes this after us does it too; what it meets in the namespace
        // is no reason to keep the endpoint.
        let handed_over = self.hand_over_routes(&row).await;
        self.forget_endpoint(id)?;
        handed_over
    }

    /// Takes from a namespace the default routes of those endpoints that a new one outranks.
    async fn take_default_routes(&self, new: &EndpointRow, netns: &Netns) -> Result<()> {
        let wanted = new.addresses.default_routes();
        let boot = &self.engine.boot;
        for other in self.store.records().endpoints_in(new.identity, boot)? {
            if other.addresses.gw_priority < new.addresses.gw_priority {
                let mut routes = other.addresses.default_routes();
                routes.retain(|route| wanted.iter().any(|wanted| wanted.to == route.to));
                Netlink::take_routes(netns, slave(&other).index, &other.ifname, routes).await?;
            }
        }
        Ok(())
    }

    /// The routes that a namespace lost with an endpoint, above all the default route, are those
    /// of the one left in it that has the highest priority from then on.
    async fn hand_over_routes(&self, gone: &EndpointRow) -> Result<()> {
        let boot = &self.engine.boot;
        let mut left = self.store.records().endpoints_in(gone.identity, boot)?;
        left.retain(|row| row.state == State::Ready);
        if left.is_empty() {
            return Ok(());
        }
        left.sort_by_key(|row| Reverse(row.addresses.gw_priority));
        // The path may be gone, or lead to another namespace by now.
        let netns = match Netns::open(&gone.netns) {
            Ok(netns) if netns.identity()? == gone.identity => netns,
            _ => return Ok(()),
        };
        for row in left {
            if self.engine.is_alive(&row).await? {
                let index = slave(&row).index;
                Netlink::give_routes(&netns, index, &row.ifname, &row.addresses).await?;
            }
        }
        Ok(())
    }

    fn forget_endpoint(&mut self, id: &Id) -> Result<()> {
        self.store.transaction(|records| {
            records.end(id)?;
            records.delete_endpoint(id)?;
            Ok(())
        })
    }
}

enum InTheWay {
    Name,
    Index,
    Neither,
}

/// The endpoint that `word`, or the namespace that it names, means.
fn find_endpoint(
    mut endpoints: Vec<EndpointRow>,
    word: &str,
    identity: Option<NetnsIdentity>,
) -> Option<EndpointRow> {
    let by = |found: &dyn Fn(&EndpointRow) -> bool| endpoints.iter().position(found);
    let prefix = |row: &EndpointRow| !word.is_empty() && row.id.as_str().starts_with(word);
    let position = by(&|row| row.name == word || row.id.as_str() == word)
        .or_else(|| by(&|row| identity.is_some_and(|identity| row.identity == identity)))
        .or_else(|| by(&|row| row.netns == netns_path(word)))
        .or_else(|| {
            by(&prefix).filter(|_| endpoints.iter().filter(|row| prefix(row)).count() == 1)
        });
    position.map(|position| endpoints.swap_remove(position))
}

pub(super) fn slave(row: &EndpointRow) -> Slave {
    Slave {
        nsid: row.nsid,
        index: Datapath::FIRST_IFINDEX + row.slot,
        parent: row.parent_index & !INSIDE,
    }
}

fn is_inside(row: &EndpointRow) -> bool {
    row.parent_index & INSIDE != 0
}

/// The `parent_index` of an endpoint that is to be made, where its parent is in its namespace.
async fn parent_inside(
    network: &Network,
    request: &ConnectRequest,
    target: &Target,
) -> Result<Option<u32>> {
    let Parent::Inside { name } = &network.parent else {
        return Ok(None);
    };
    let invalid = |allowed: String| Invalid::new("-o parent", name, allowed);
    let link = target
        .inside
        .link_named(name)
        .await?
        .ok_or_else(|| invalid(format!("{} has no such link", target_name(&request.netns))))?;
    check_inside(&link.view, network.mtu)?;
    Ok(Some(link.view.index | INSIDE))
}

/// What the programs must know of an endpoint.
pub(super) fn policy(row: &EndpointRow) -> EndpointPolicy {
    let address = |network: Option<IpNetwork>| network.map(|network| network.ip());
    EndpointPolicy {
        slot: row.slot,
        // Addresses of one namespace are nothing to those of another.
        parent_index: if is_inside(row) {
            row.slot | INSIDE
        } else {
            row.parent_index
        },
        v4: match address(row.addresses.v4) {
            Some(IpAddr::V4(v4)) => Some(v4),
            _ => None,
        },
        v6: match address(row.addresses.v6) {
            Some(IpAddr::V6(v6)) => Some(v6),
            _ => None,
        },
        link_local: row.link_local,
        dhcp: row.addresses.dhcp,
    }
}

struct Lease {
    address: IpAddr,
    /// The pool whose cursor moves: the address was not asked for by `--ip` or `--ip6`.
    next_of: Option<IpNetwork>,
}

/// Takes in what an external IPAM has given, and its subnets where they are new to the network.
fn admit(network: &mut NetworkRow, given: &AddressPlan, records: &Records<'_>) -> Result<()> {
    let body = &mut network.network;
    has_external_ipam(body)?;
    let known = body.clone();
    let networks: Vec<Network> = records.networks()?.into_iter().map(|r| r.network).collect();
    for address in given.v4.into_iter().chain(given.v6) {
        body.admit(address, &networks)?;
    }
    if *body != known {
        records.set_network(network.number, body)?;
    }
    Ok(())
}

fn has_external_ipam(network: &Network) -> Result<(), Invalid> {
    if network.external_ipam {
        Ok(())
    } else {
        Err(Invalid::new(
            "network",
            &network.name,
            "it gives addresses itself; none of another IPAM are taken",
        ))
    }
}

fn given_leases(
    network: &Network,
    given: &AddressPlan,
    records: &Records<'_>,
) -> Result<Vec<Lease>> {
    given
        .hosts()
        .map(|address| {
            ipam::requested(network, "IPAM address", address, records)?;
            Ok(Lease {
                address,
                next_of: None,
            })
        })
        .collect()
}

/// What an endpoint cannot have: what others have leased, and what the host holds itself.
pub(super) struct Taken<'r> {
    pub records: &'r Records<'r>,
    pub host: &'r [IpAddr],
}

impl Leases for Taken<'_> {
    type Error = StoreError;

    fn leased_until(&self, address: IpAddr) -> Result<Option<IpAddr>, StoreError> {
        if self.host.contains(&address) {
            return Ok(Some(address));
        }
        self.records.leased_until(address)
    }

    fn cursor(&self, subnet: &IpNetwork) -> Result<Option<IpAddr>, StoreError> {
        self.records.cursor(subnet)
    }
}

/// Chooses the addresses of an endpoint: those asked for, or the next ones.
fn allocate(network: &Network, request: &ConnectRequest, taken: &Taken<'_>) -> Result<Vec<Lease>> {
    if network.external_ipam {
        return Err(Invalid::new(
            "network",
            &network.name,
            "its addresses come from another IPAM; only the runtime that made it can connect to it",
        )
        .into());
    }
    let families = [
        (network.ipv4, Family::V4, "--ip", request.ip.map(IpAddr::V4)),
        (
            network.ipv6,
            Family::V6,
            "--ip6",
            request.ip6.map(IpAddr::V6),
        ),
    ];
    let mut leases = Vec::new();
    for (enabled, family, field, asked) in families {
        leases.push(match asked {
            Some(address) => {
                ipam::requested(network, field, address, taken)?;
                Lease {
                    address,
                    next_of: None,
                }
            }
            None if enabled => {
                let (pool, address) = ipam::allocate(network, family, taken)?;
                Lease {
                    address,
                    next_of: Some(pool.subnet),
                }
            }
            None => continue,
        });
    }
    Ok(leases)
}

/// A link-local address that no other endpoint of this host has, nor, the seed being random,
/// one of a neighbour: the host's 40 bits and the slot.
fn link_local(
    network: &Network,
    records: &Records<'_>,
    slot: u32,
) -> Result<Option<Ipv6Addr>, StoreError> {
    if !network.ipv6 {
        return Ok(None);
    }
    let [a, b, c, d, e] = seed(records)?;
    let [_, _, high, low] = slot.to_be_bytes();
    let mut bytes = [0; 16];
    (bytes[0], bytes[1]) = (0xfe, 0x80);
    bytes[9..].copy_from_slice(&[a, b, c, d, e, high, low]);
    Ok(Some(bytes.into()))
}

/// A namespace as messages name it.
fn target_name(netns: &Path) -> String {
    netns.display().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_rules() {
        for good in ["a", "web-1", "db.example_2"] {
            check_name("--name", good).unwrap();
        }
        for bad in ["", "-a", "a b", "ä", "a/b"] {
            check_name("--name", bad).unwrap_err();
        }
        for good in ["eth0", "a-b.c", "exactly15chars_"] {
            check_ifname(good).unwrap();
        }
        for bad in ["", "sixteen_chars_xx", "a/b", "eth%d", "a b", "..", "lo"] {
            check_ifname(bad).unwrap_err();
        }
    }
}
