//! Who is served, and what each may see: the endpoints of the store, as views of the resolver.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use super::DaemonError;
use super::keepers::{Keepers, Watch};
use crate::dns::{Member, Server, Upstream, View, Zone};
use crate::engine::{ChangedEndpoints, NamedEndpoint};
use crate::kernel::{Netns, NetnsIdentity};
use crate::model::Id;

/// The host's name servers.
const RESOLV_CONF: &str = "/etc/resolv.conf";

#[derive(Debug)]
pub(super) struct Names {
    server: Server,
    keepers: Keepers,
    endpoints: HashMap<Id, NamedEndpoint>,
    /// By the number of the network.
    zones: HashMap<u32, Arc<Zone>>,
    /// The endpoints in each namespace, the oldest first; by cookie.
    namespaces: HashMap<u64, Vec<Id>>,
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
            endpoints: HashMap::new(),
            zones: HashMap::new(),
            namespaces: HashMap::new(),
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

    pub(super) fn has_endpoints(&self) -> bool {
        !self.endpoints.is_empty()
    }

    /// Serves exactly these endpoints from now on.
    pub(super) fn follow_all(&mut self, endpoints: Vec<NamedEndpoint>) {
        let here: HashSet<&Id> = endpoints.iter().map(|e| &e.endpoint.id).collect();
        let gone = self.endpoints.keys().filter(|id| !here.contains(id));
        let mut changes: ChangedEndpoints = gone.map(|id| (id.clone(), None)).collect();
        changes.extend(
            endpoints
                .into_iter()
                .map(|endpoint| (endpoint.endpoint.id.clone(), Some(endpoint))),
        );
        self.follow(changes);
    }

    /// Follows endpoints that came, changed or went, at the cost of these.
    pub(super) fn follow(&mut self, changes: ChangedEndpoints) {
        let mut zones: HashMap<u32, Changed> = HashMap::new();
        // Those that were refused are tried again.
        let mut namespaces = std::mem::take(&mut self.refused);
        let told = namespaces.clone();
        for (id, now) in changes {
            if let Some(before) = self.endpoints.remove(&id) {
                let changed = zones.entry(before.endpoint.network).or_default();
                changed.gone.push(member(&before));
                namespaces.insert(before.endpoint.identity.cookie);
            }
            if let Some(now) = now {
                let (network, cookie) = (now.endpoint.network, now.endpoint.identity.cookie);
                self.zones
                    .entry(network)
                    .or_insert_with(|| Arc::new(Zone::new(&now.network, &[])));
                zones.entry(network).or_default().come.push(member(&now));
                namespaces.insert(cookie);
                let inside = self.namespaces.entry(cookie).or_default();
                if !inside.contains(&id) {
                    inside.push(id.clone());
                }
                self.endpoints.insert(id, now);
            }
        }
        for (network, changed) in zones {
            if let Some(zone) = self.zones.get(&network) {
                zone.change(&changed.gone, &changed.come);
                if zone.is_empty() {
                    self.zones.remove(&network);
                }
            }
        }
        for cookie in namespaces {
            self.follow_namespace(cookie, told.contains(&cookie));
        }
        self.server
            .keep_only(|cookie| self.served.contains_key(&cookie));
    }

    fn follow_namespace(&mut self, cookie: u64, told: bool) {
        let Self {
            endpoints,
            namespaces,
            ..
        } = self;
        let Some(ids) = namespaces.get_mut(&cookie) else {
            return;
        };
        ids.retain(|id| {
            let endpoint = endpoints.get(id);
            endpoint.is_some_and(|endpoint| endpoint.endpoint.identity.cookie == cookie)
        });
        let own: Vec<NamedEndpoint> = ids.iter().map(|id| endpoints[id].clone()).collect();
        let Some(first) = own.first() else {
            self.namespaces.remove(&cookie);
            self.served.remove(&cookie);
            return;
        };
        let zones = own.iter();
        let view = View {
            zones: zones
                .filter_map(|endpoint| self.zones.get(&endpoint.endpoint.network).cloned())
                .collect(),
            upstream: match own.iter().any(|endpoint| !endpoint.internal) {
                true => self.upstream(&own),
                false => None,
            },
        };
        if self.served.contains_key(&cookie) {
            self.server.show(cookie, view);
        } else if let Err(why) = self.begin(first, view) {
            self.refused.insert(cookie);
            if !told {
                let name = &first.endpoint.name;
                tracing::warn!("no names in the namespace of {name}: {why}");
            }
        }
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
    fn upstream(&mut self, own: &[NamedEndpoint]) -> Option<Arc<Upstream>> {
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

/// What changes in one zone.
#[derive(Debug, Default)]
struct Changed {
    gone: Vec<Member>,
    come: Vec<Member>,
}

fn member(endpoint: &NamedEndpoint) -> Member {
    let row = &endpoint.endpoint;
    let short = row.id.short().to_owned();
    Member {
        name: row.name.clone(),
        others: row.aliases.iter().cloned().chain([short]).collect(),
        addresses: row.addresses.hosts().collect(),
    }
}
