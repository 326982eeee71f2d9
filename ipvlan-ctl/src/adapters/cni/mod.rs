//! A CNI plugin (Container Network Interface, specification 1.1 and back to 0.3.0).
//!
//! A network of the runtime's configuration is a network of ours with the same name, made when
//! an `ADD` first needs it. An attachment is an endpoint named for the container's id. So nothing
//! is kept here: `DEL`, `CHECK` and `GC` find everything by these two names.

mod call;
mod conf;
mod delegate;
mod error;
mod request;
mod result;

use std::process::ExitCode;
use std::sync::{Arc, OnceLock};

use serde_json::Value;

pub use request::{Answer, Request};

use call::{Call, Command};
use conf::{Conf, Head, IpamChoice};
use delegate::Delegate;
use error::{Code, Error};
use result::{Addressing, Interface, Ip, Success, Version};

use crate::engine::{Ask, ConnectRequest, Engine, EngineError, Given};
use crate::model::{CreateRequest, DOOR_LABEL, Network};
use crate::store::EndpointRow;

/// The value of [`DOOR_LABEL`] on the networks that CNI made.
const DOOR: &str = "cni";

type Result<T, E = Error> = std::result::Result<T, E>;

/// Does what the environment and standard input ask for, and prints the result or the error as
/// JSON. A daemon is asked first by `ask_daemon`, which returns `None` where there is none to do
/// it; the engine is opened by `with_engine` once the call is known to be sound.
pub fn main(
    ask_daemon: impl FnOnce(&Request) -> anyhow::Result<Option<Answer>>,
    with_engine: impl FnOnce(Work) -> anyhow::Result<Answer>,
) -> ExitCode {
    let answer = match Request::read() {
        Ok(request) => answer(request, ask_daemon, with_engine),
        Err(error) => Answer::refusal(Version::default(), &error),
    };
    answer.print()
}

fn answer(
    request: Request,
    ask_daemon: impl FnOnce(&Request) -> anyhow::Result<Option<Answer>>,
    with_engine: impl FnOnce(Work) -> anyhow::Result<Answer>,
) -> Answer {
    if request.is_of_the_host() {
        match ask_daemon(&request) {
            Ok(Some(answer)) => return answer,
            Ok(None) => {}
            // Nothing is known of what it has done, so the runtime is to start anew.
            Err(error) => {
                let error = Error::new(Code::TryAgain, format!("{error:#}"));
                return Answer::refusal(request.version(), &error);
            }
        }
    }
    match request.work() {
        Ok(work) => {
            let version = work.head.version;
            with_engine(work).unwrap_or_else(|error| Answer::refusal(version, &error.into()))
        }
        Err(answer) => answer,
    }
}

/// A call that is sound as far as it can be known without the host.
#[derive(Debug)]
pub struct Work {
    call: Call,
    head: Head,
    input: Vec<u8>,
    delegate: Option<Delegate>,
}

impl Work {
    fn new(call: Call, head: Head, input: Vec<u8>) -> Result<Self> {
        Ok(Self {
            call,
            delegate: match &head.ipam {
                IpamChoice::Delegated(plugin) => Some(Delegate::find(plugin)?),
                IpamChoice::Ours | IpamChoice::None => None,
            },
            head,
            input,
        })
    }

    pub async fn run(self, engine: &Engine) -> Answer {
        let version = self.head.version;
        match self.output(engine).await {
            Ok(output) => Answer::success(output),
            Err(error) => Answer::refusal(version, &error),
        }
    }

    /// Does the work. Returns what is to be printed.
    async fn output(&self, engine: &Engine) -> Result<Option<Value>> {
        Ok(match self.call.command {
            Command::Add => Some(self.add(engine).await?),
            Command::Del => self.del(engine).await.map(|()| None)?,
            Command::Check => self.check(engine).await.map(|()| None)?,
            Command::Status => self.status(engine).await.map(|()| None)?,
            Command::Gc => self.gc(engine).await.map(|()| None)?,
            Command::Version => None,
        })
    }

    async fn add(&self, engine: &Engine) -> Result<Value> {
        let conf = Conf::parse(&self.input)?;
        let source = match &self.delegate {
            Some(delegate) if delegate.asks_through_interface() => Source::asked(delegate, self),
            Some(delegate) => Source::Given(delegate.add(&self.input)?),
            // As the reference plugin: without `ipam`, those of the plugin before.
            None => match conf.previous_addressing(&self.head) {
                Some(previous) => Source::Given(previous),
                None => Source::Ours,
            },
        };
        match self.attach(engine, &conf, source).await {
            Ok(result) => Ok(result.to_json(self.head.version)),
            Err(error) => Err(match &self.delegate {
                // What it gave is not used.
                Some(delegate) => error.and(delegate.run("DEL", &self.input)),
                None => error,
            }),
        }
    }

    async fn attach(&self, engine: &Engine, conf: &Conf, source: Source) -> Result<Success> {
        let external = !matches!(source, Source::Ours);
        let mut request = self.network_request(conf, external);
        if !conf.names_parent() && engine.network_named(&self.head.name)?.is_none() {
            let parent = match conf.previous_master() {
                Some(master) => Some(master),
                None if conf.link_in_container => None,
                None => engine.default_link().await?,
            };
            let parent = parent.ok_or_else(|| {
                let why = if conf.link_in_container {
                    "with linkInContainer name the link of the container"
                } else {
                    "the host has no default route; name a link"
                };
                Error::invalid("master", "\"\"", why)
            })?;
            request.options.push(format!("parent={parent}"));
        }
        let connect = self.connect_request(conf, &source)?;
        let joined = engine.join(&request, &connect).await?;
        let row = &joined.endpoint;
        let interface = Interface::inside(&row.ifname, &joined.link, &row.netns);
        let own = source
            .addressing()
            .unwrap_or_else(|| Addressing::of(&joined.network, row));
        Ok(conf.result(interface, own))
    }

    fn network_request(&self, conf: &Conf, external: bool) -> CreateRequest {
        CreateRequest {
            name: self.head.name.clone(),
            external_ipam: external,
            labels: vec![format!("{DOOR_LABEL}={DOOR}")],
            ..conf.network_request()
        }
    }

    fn connect_request(&self, conf: &Conf, source: &Source) -> Result<ConnectRequest> {
        let (ip, ip6) = match source {
            Source::Ours => self.call.args.addresses(&conf.requested_addresses)?,
            Source::Given(_) | Source::Asked { .. } => (None, None),
        };
        Ok(ConnectRequest {
            netns: self.call.netns()?,
            name: Some(self.call.container()?.to_owned()),
            ip,
            ip6,
            aliases: conf.aliases(self.call.args.pod_name()),
            ifname: Some(self.call.ifname()?.to_owned()),
            gw_priority: 0,
            given: source.given()?,
            ..ConnectRequest::default()
        })
    }

    /// Succeeds where there is nothing to delete.
    async fn del(&self, engine: &Engine) -> Result<()> {
        let released = match &self.delegate {
            Some(delegate) => delegate.run("DEL", &self.input),
            None => Ok(()),
        };
        if let Some(row) = self.attachment(engine)? {
            self.disconnect(engine, &row).await?;
        }
        released
    }

    fn attachment(&self, engine: &Engine) -> Result<Option<EndpointRow>> {
        let row = engine.endpoint_named(&self.head.name, self.call.container()?)?;
        let ifname = self.call.ifname()?;
        Ok(row.filter(|row| row.ifname == ifname))
    }

    async fn disconnect(&self, engine: &Engine, row: &EndpointRow) -> Result<()> {
        let network = &self.head.name;
        match engine.disconnect(network, row.id.as_str(), false).await {
            // Another process was quicker.
            Err(EngineError::NoEndpoint { .. } | EngineError::Find(_)) => Ok(()),
            other => Ok(other?),
        }
    }

    async fn check(&self, engine: &Engine) -> Result<()> {
        let conf = Conf::parse(&self.input)?;
        if let Some(delegate) = &self.delegate {
            delegate.run("CHECK", &self.input)?;
        }
        let previous = conf.previous.as_ref().ok_or_else(|| {
            Error::new(
                Code::Config,
                "invalid prevResult: CHECK needs the one of ADD",
            )
        })?;
        let row = self.attachment(engine)?.ok_or_else(|| {
            let (name, call) = (&self.head.name, &self.call);
            Error::new(
                Code::UnknownContainer,
                format!("network {name} has no container {}", call.shown()),
            )
        })?;
        let mut damage = engine
            .check_endpoint(&self.head.name, &row.name, &self.call.netns()?)
            .await?;
        damage.extend(previous.differences(&row));
        if damage.is_empty() {
            Ok(())
        } else {
            Err(Error::new(Code::Damaged, damage.join("; ")))
        }
    }

    async fn status(&self, engine: &Engine) -> Result<()> {
        let unavailable = |error: EngineError| Error::new(Code::Unavailable, error.to_string());
        let conf = Conf::parse(&self.input)?;
        engine.require_privileges().map_err(unavailable)?;
        let request = self.network_request(&conf, self.delegate.is_some());
        match engine.network_named(&self.head.name)? {
            Some(network) => {
                let view = engine
                    .inspect(network.id.as_str())
                    .await
                    .map_err(unavailable)?;
                if network.parent.is_of_host() && view.parent.is_none() {
                    let parent = network.parent.name();
                    return Err(Error::new(
                        Code::Unavailable,
                        format!("the master {parent} is not there"),
                    ));
                }
            }
            None => {
                engine.plan_network(&request).await.map_err(unavailable)?;
            }
        }
        match &self.delegate {
            Some(delegate) => delegate.run("STATUS", &self.input),
            None => Ok(()),
        }
    }

    /// Releases what the runtime does not list, and the network itself when it lists nothing.
    async fn gc(&self, engine: &Engine) -> Result<()> {
        let valid = self.head.valid_attachments()?;
        if let Some(network) = engine.network_of_door(&self.head.name, DOOR)? {
            let view = engine.inspect(network.id.as_str()).await?;
            for row in &view.endpoints {
                let listed = valid
                    .iter()
                    .any(|(container, ifname)| *container == row.name && *ifname == row.ifname);
                if !listed {
                    self.disconnect(engine, row).await?;
                }
            }
            if valid.is_empty() {
                match engine.remove_network(network.id.as_str(), false).await {
                    Ok(_) | Err(EngineError::Find(_) | EngineError::InUse { .. }) => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
        match &self.delegate {
            Some(delegate) => delegate.run("GC", &self.input),
            None => Ok(()),
        }
    }
}

/// Where an endpoint's addresses come from.
enum Source {
    Ours,
    Given(Addressing),
    /// From a plugin that asks once the interface is there.
    Asked {
        ask: Ask,
        answer: Arc<OnceLock<Addressing>>,
    },
}

impl Source {
    fn asked(delegate: &Delegate, work: &Work) -> Self {
        let (delegate, input) = (delegate.clone(), work.input.clone());
        let answer = Arc::new(OnceLock::new());
        let told = Arc::clone(&answer);
        Self::Asked {
            ask: Arc::new(move || {
                let addressing = delegate.add(&input)?;
                let plan = addressing.plan()?;
                told.get_or_init(|| addressing);
                Ok(plan)
            }),
            answer,
        }
    }

    fn given(&self) -> Result<Option<Given>> {
        Ok(match self {
            Self::Ours => None,
            Self::Given(addressing) => Some(Given::Plan(addressing.plan()?)),
            Self::Asked { ask, .. } => Some(Given::Asked(Arc::clone(ask))),
        })
    }

    /// What another has given.
    fn addressing(&self) -> Option<Addressing> {
        match self {
            Self::Ours => None,
            Self::Given(addressing) => Some(addressing.clone()),
            Self::Asked { answer, .. } => answer.get().cloned(),
        }
    }
}

impl Addressing {
    /// What our own IPAM gave.
    fn of(network: &Network, row: &EndpointRow) -> Self {
        let plan = &row.addresses;
        let ips = [plan.v4, plan.v6].into_iter().flatten().map(|address| Ip {
            address,
            gateway: network.pool_of(address.ip()).and_then(|pool| pool.gateway),
            interface: None,
        });
        Self {
            ips: ips.collect(),
            routes: plan.all_routes().into_iter().map(Into::into).collect(),
            dns: None,
        }
    }
}
