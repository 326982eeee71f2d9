//! Who is served, and what each may see: the endpoints of the store, as views of the resolver.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use super::DaemonError;
use super::keepers::{Keepers, Watch};
use crate::dns::{Member, Server, Upstream, View, Zone};
use crate::engine::NamedEndpoint;
use crate::kernel::{Netns, NetnsIdentity};

/// The host's name servers.
const RESOLV_CONF: &str = "/etc/resolv.conf";

#[derive(Debug)]
pub(super) struct Names {
    server: Server,
    keepers: Keepers,
    /// By cookie.
    served: HashMap<u64, Served>,
    /// Namespaces that could not be served, told once.
    refused: HashSet<u64>,
    upstreams: HashMap<Vec<IpAddr>, Arc<Upstream>>,
    /// Of the host.
    servers: Vec<IpAddr>,
}

#[derive(Debug)]
struct Served {
    identity: NetnsIdentity,
    /// What it is known by.
    path: PathBuf,
    _watch: Watch,
}

impl Names {
    pub(super) fn start() -> Result<Self, DaemonError> {
        Ok(Self {
            server: Server::start()?,
            keepers: Keepers::new().map_err(DaemonError::Watch)?,
            served: HashMap::new(),
            refused: HashSet::new(),
            upstreams: HashMap::new(),
            servers: Vec::new(),
        })
    }

    /// Reads the host's name servers; an upstream's memory begins anew.
    pub(super) fn read_servers(&mut self) {
        self.upstreams.clear();
        self.servers = match std::fs::read(RESOLV_CONF) {
            Ok(text) => {
                let (config, mistakes) = resolv_conf::Config::parse_with_errors(&text);
                for mistake in mistakes {
                    tracing::warn!("{RESOLV_CONF}: {mistake}");
                }
                config.nameservers.iter().map(IpAddr::from).collect()
            }
            Err(error) => {
                tracing::warn!("cannot read {RESOLV_CONF}: {error}");
                Vec::new()
            }
        };
        tracing::info!(servers = ?self.servers, "name servers of the host");
    }

    pub(super) fn count(&self) -> usize {
        self.served.len()
    }

    /// Serves exactly these endpoints from now on.
    pub(super) fn follow(&mut self, endpoints: &[NamedEndpoint]) {
        let zones = zones(endpoints);
        let mut namespaces: HashMap<u64, Vec<&NamedEndpoint>> = HashMap::new();
        for endpoint in endpoints {
            let cookie = endpoint.endpoint.identity.cookie;
            namespaces.entry(cookie).or_default().push(endpoint);
        }
        self.refused
            .retain(|cookie| namespaces.contains_key(cookie));
        self.served
            .retain(|cookie, _| namespaces.contains_key(cookie));
        for (cookie, own) in namespaces {
            let view = View {
                zones: own
                    .iter()
                    .filter_map(|endpoint| zones.get(&endpoint.endpoint.network).cloned())
                    .collect(),
                upstream: match own.iter().any(|endpoint| !endpoint.internal) {
                    true => self.upstream(&own),
                    false => None,
                },
            };
            if self.served.contains_key(&cookie) {
                self.server.show(cookie, view);
            } else if let Err(why) = self.begin(own[0], view)
                && self.refused.insert(cookie)
            {
                tracing::warn!(
                    "no names in the namespace of {}: {why}",
                    own[0].endpoint.name
                );
            }
        }
        self.server
            .keep_only(|cookie| self.served.contains_key(&cookie));
    }

    fn begin(&mut self, endpoint: &NamedEndpoint, view: View) -> Result<(), String> {
        let row = &endpoint.endpoint;
        let netns = Netns::find(row.identity, &row.netns)
            .map_err(|error| error.to_string())?
            .ok_or("it is gone, or nothing leads to it")?;
        let watch = self
            .keepers
            .watch(netns.path())
            .map_err(|error| format!("cannot watch {}: {error}", netns.path().display()))?;
        self.server
            .serve(row.identity.cookie, &netns, view)
            .map_err(|error| error.to_string())?;
        self.refused.remove(&row.identity.cookie);
        self.served.insert(
            row.identity.cookie,
            Served {
                identity: row.identity,
                path: netns.path().to_owned(),
                _watch: watch,
            },
        );
        Ok(())
    }

    /// Returns when something that keeps a namespace may have gone. May be cancelled.
    pub(super) async fn changed(&self) {
        self.keepers.changed().await;
    }

    /// Leaves the namespaces that nothing but we keep.
    pub(super) fn leave_the_dead(&mut self) {
        let Self {
            served, keepers, ..
        } = self;
        served.retain(|_, served| {
            if served.identity.is_at(&served.path) {
                return true;
            }
            let another = match Netns::find(served.identity, &served.path) {
                Ok(Some(netns)) => netns.path().to_owned(),
                Ok(None) => return false,
                Err(error) => {
                    tracing::error!(%error, "cannot look for a namespace");
                    return false;
                }
            };
            match keepers.watch(&another) {
                Ok(watch) => {
                    served.path = another;
                    served._watch = watch;
                    true
                }
                // It has ended meanwhile, with whatever else was in the namespace.
                Err(_) => false,
            }
        });
        self.server
            .keep_only(|cookie| self.served.contains_key(&cookie));
    }

    /// The name servers that a namespace was given, or else the host's, if there are any.
    fn upstream(&mut self, own: &[&NamedEndpoint]) -> Option<Arc<Upstream>> {
        let given = own.iter().map(|endpoint| &endpoint.endpoint.servers);
        let servers = given
            .into_iter()
            .find(|servers| !servers.is_empty())
            .unwrap_or(&self.servers);
        if servers.is_empty() {
            return None;
        }
        if let Some(upstream) = self.upstreams.get(servers) {
            return Some(upstream.clone());
        }
        match Upstream::new(servers) {
            Ok(upstream) => {
                let upstream = Arc::new(upstream);
                self.upstreams.insert(servers.clone(), upstream.clone());
                Some(upstream)
            }
            Err(error) => {
                tracing::error!(%error, "cannot ask name servers");
                None
            }
        }
    }
}

/// By the number of the network.
fn zones(endpoints: &[NamedEndpoint]) -> HashMap<u32, Arc<Zone>> {
    let mut networks: HashMap<u32, (&str, Vec<Member>)> = HashMap::new();
    for endpoint in endpoints {
        let row = &endpoint.endpoint;
        let address = |address: Option<ipnetwork::IpNetwork>| address.map(|address| address.ip());
        let member = Member {
            name: row.name.clone(),
            others: row
                .aliases
                .iter()
                .cloned()
                .chain([row.id.short().to_owned()])
                .collect(),
            addresses: [row.addresses.v4, row.addresses.v6]
                .into_iter()
                .filter_map(address)
                .collect(),
        };
        let (_, members) = networks
            .entry(row.network)
            .or_insert((&endpoint.network, Vec::new()));
        members.push(member);
    }
    networks
        .into_iter()
        .map(|(number, (name, members))| (number, Arc::new(Zone::new(name, &members))))
        .collect()
}
