//! Name servers outside, for what is no endpoint's name.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use hickory_proto::op::{Query, ResponseCode};
use hickory_proto::rr::Record;
use hickory_resolver::config::{
    NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts, ServerOrderingStrategy,
};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::{Resolver, TokioResolver};

/// How long one server has: clients give up after five seconds, and another server is to have
/// its turn by then.
const PATIENCE: Duration = Duration::from_secs(2);

/// Answers that are remembered, by question.
const CACHED: u64 = 4096;

/// What came of asking.
#[derive(Debug)]
pub enum Outcome {
    Records(Vec<Record>),
    /// The name does not exist, or has nothing of the kind.
    Nothing {
        code: ResponseCode,
        /// Says how long that may be remembered.
        soa: Option<Box<Record>>,
    },
    Failed,
}

/// Name servers, asked in their order from the host's namespace, with a cache.
pub struct Upstream(TokioResolver);

impl fmt::Debug for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Upstream")
    }
}

impl Upstream {
    pub fn new(servers: &[IpAddr]) -> Result<Self, NetError> {
        let servers = servers.iter().copied().map(NameServerConfig::udp_and_tcp);
        let config = ResolverConfig::from_parts(None, Vec::new(), servers.collect());
        let mut options = ResolverOpts::default();
        options.timeout = PATIENCE;
        options.attempts = 1;
        options.edns0 = true;
        options.cache_size = CACHED;
        options.use_hosts_file = ResolveHosts::Never;
        options.num_concurrent_reqs = 1;
        options.preserve_intermediates = true;
        options.server_ordering_strategy = ServerOrderingStrategy::UserProvidedOrder;
        let resolver = Resolver::builder_with_config(config, TokioRuntimeProvider::default())
            .with_options(options)
            .build()?;
        Ok(Self(resolver))
    }

    pub async fn ask(&self, query: &Query) -> Outcome {
        let mut name = query.name().clone();
        name.set_fqdn(true);
        match self.0.lookup(name, query.query_type()).await {
            Ok(found) => Outcome::Records(found.answers().to_vec()),
            Err(NetError::Dns(DnsError::NoRecordsFound(nothing))) => Outcome::Nothing {
                code: nothing.response_code,
                soa: nothing.soa.map(|soa| Box::new(soa.into_record_of_rdata())),
            },
            Err(NetError::Dns(DnsError::ResponseCode(code))) => {
                Outcome::Nothing { code, soa: None }
            }
            Err(error) => {
                tracing::debug!(%error, "no answer from upstream");
                Outcome::Failed
            }
        }
    }
}
