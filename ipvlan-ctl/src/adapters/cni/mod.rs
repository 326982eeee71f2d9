//! A CNI plugin (Container Network Interface, specification 1.1 and back to 0.3.0).
//!
//! A network of the runtime's configuration is a network of ours with the same name, made when
//! an `ADD` first needs it. An attachment is an endpoint named for the container's id. So nothing
//! is kept here: `DEL`, `CHECK` and `GC` find everything by these two names.

mod call;
mod conf;
mod delegate;
mod error;
mod result;

use std::io::{self, Read, Write};
use std::process::ExitCode;

use serde_json::{Value, json};

use call::{Call, Command};
use conf::{Conf, Head, IpamChoice};
use delegate::Delegate;
use error::{Code, Error};
use result::{Addressing, Interface, Ip, Success, Version};

use crate::engine::{ConnectRequest, Engine, EngineError};
use crate::model::{CreateRequest, DOOR_LABEL, Network};
use crate::store::EndpointRow;

/// The value of [`DOOR_LABEL`] on the networks that CNI made.
const DOOR: &str = "cni";

type Result<T, E = Error> = std::result::Result<T, E>;

/// Does what the environment and standard input ask for, and prints the result or the error as
/// JSON. The engine is opened by `with_engine` once the call is known to be sound.
pub fn main(with_engine: impl FnOnce(Work) -> anyhow::Result<Option<Value>>) -> ExitCode {
    let mut input = Vec::new();
    let version = Version::default();
    let done = match io::stdin().lock().read_to_end(&mut input) {
        Err(error) => Err((version, Error::new(Code::Io, format!("stdin: {error}")))),
        Ok(_) => run(&input, with_engine),
    };
    let (output, code) = match done {
        Ok(None) => return ExitCode::SUCCESS,
        Ok(Some(value)) => (value, ExitCode::SUCCESS),
        Err((version, error)) => (error.to_json(version), ExitCode::FAILURE),
    };
    match writeln!(io::stdout().lock(), "{output}") {
        Ok(()) => code,
        Err(_) => ExitCode::FAILURE,
    }
}

fn run(
    input: &[u8],
    with_engine: impl FnOnce(Work) -> anyhow::Result<Option<Value>>,
) -> Result<Option<Value>, (Version, Error)> {
    let latest = |error| (Version::default(), error);
    let command = Command::from_env().map_err(latest)?;
    if command == Command::Version {
        return Ok(Some(versions(input)));
    }
    let head = Head::parse(input).map_err(latest)?;
    let version = head.version;
    let work = Work::new(command, head, input.to_vec()).map_err(|error| (version, error))?;
    with_engine(work).map_err(|error| (version, error.into()))
}

/// The answer to `VERSION`. Its standard input may be anything.
fn versions(input: &[u8]) -> Value {
    let asked = serde_json::from_slice::<Value>(input).ok();
    let asked = asked
        .as_ref()
        .and_then(|conf| conf["cniVersion"].as_str())
        .filter(|asked| asked.parse::<Version>().is_ok())
        .unwrap_or(Version::default().text());
    json!({
        "cniVersion": asked,
        "supportedVersions": Version::ALL.map(Version::text),
    })
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
    fn new(command: Command, head: Head, input: Vec<u8>) -> Result<Self> {
        command.check_version(head.version)?;
        Ok(Self {
            call: Call::from_env(command)?,
            delegate: match &head.ipam {
                IpamChoice::Delegated(plugin) => Some(Delegate::find(plugin)?),
                IpamChoice::Ours | IpamChoice::None => None,
            },
            head,
            input,
        })
    }

    /// Does the work. Returns what is to be printed.
    pub async fn run(self, engine: &Engine) -> anyhow::Result<Option<Value>> {
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
        let given = match &self.delegate {
            Some(delegate) => Some(delegate.add(&self.input)?),
            // As the reference plugin: without `ipam`, those of the plugin before.
            None => conf.previous_addressing(&self.head),
        };
        match self.attach(engine, &conf, given).await {
            Ok(result) => Ok(result.to_json(self.head.version)),
            Err(error) => Err(match &self.delegate {
                // What it gave is not used.
                Some(delegate) => error.and(delegate.run("DEL", &self.input)),
                None => error,
            }),
        }
    }

    async fn attach(
        &self,
        engine: &Engine,
        conf: &Conf,
        given: Option<Addressing>,
    ) -> Result<Success> {
        let mut request = self.network_request(conf, given.is_some());
        if !conf.names_parent() && engine.network_named(&self.head.name)?.is_none() {
            let parent = match conf.previous_master() {
                Some(master) => Some(master),
                None => engine.default_link().await?,
            };
            let parent = parent.ok_or_else(|| {
                Error::new(
                    Code::Config,
                    "invalid master \"\": the host has no default route; name a link",
                )
            })?;
            request.options.push(format!("parent={parent}"));
        }
        let connect = self.connect_request(conf, given.as_ref())?;
        let (network, row) = engine.join(&request, &connect).await?;
        let link = engine.endpoint_link(&row).await?.ok_or_else(|| {
            Error::new(
                Code::TryAgain,
                format!("the interface {} went at once", row.ifname),
            )
        })?;
        let interface = Interface::inside(&row.ifname, &link, &row.netns);
        let own = given.unwrap_or_else(|| Addressing::of(&network, &row));
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

    fn connect_request(&self, conf: &Conf, given: Option<&Addressing>) -> Result<ConnectRequest> {
        let (ip, ip6) = match given {
            Some(_) => (None, None),
            None => self.call.args.addresses(&conf.requested_addresses)?,
        };
        Ok(ConnectRequest {
            netns: self.call.netns()?,
            name: Some(self.call.container()?.to_owned()),
            ip,
            ip6,
            aliases: conf.aliases(self.call.args.pod_name()),
            ifname: Some(self.call.ifname()?.to_owned()),
            gw_priority: 0,
            given: given.map(Addressing::plan).transpose()?,
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
                if view.parent.is_none() {
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
