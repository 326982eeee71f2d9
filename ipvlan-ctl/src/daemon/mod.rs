//! The daemon: what must go on between commands.
//!
//! It has names answered, serves metrics and a page, follows the host's addresses, and repairs
//! when a parent comes back or a namespace is gone. Everything it knows is in the store and the
//! kernel, so it can be stopped and started
//! at any time; no packet of an endpoint passes through it.

mod control;
mod home;
mod keepers;
mod launch;
mod names;
mod place;
mod web;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use thiserror::Error;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

pub use control::{AskError, Status};
pub use home::Home;
pub use launch::LaunchError;
pub use place::Place;
pub use web::Listen;

use crate::adapters::cni;
use crate::adapters::docker::{self, Docker};
use crate::dns::ServerError;
use crate::engine::{Engine, EngineError, Seen, Selection};
use crate::kernel::{HostEvent, HostEvents, KernelError};
use control::{Control, Reply, Request};
use names::Names;
use sd_notify::NotifyState;
use web::Web;

#[derive(Debug, Error)]
pub enum DaemonError {
    #[error("a daemon runs already for {}", .0.display())]
    Running(PathBuf),
    #[error("cannot use {}: {error}", path.display())]
    File { path: PathBuf, error: io::Error },
    #[error("cannot listen on {address}: {error}")]
    Listen {
        address: SocketAddr,
        error: io::Error,
    },
    #[error("cannot listen for Docker at its plugin socket: {0}")]
    Docker(io::Error),
    #[error("cannot take signals: {0}")]
    Signals(io::Error),
    #[error("cannot watch for ends: {0}")]
    Watch(io::Error),
    #[error(transparent)]
    Dns(#[from] ServerError),
    #[error(transparent)]
    Kernel(#[from] KernelError),
    #[error(transparent)]
    Engine(#[from] EngineError),
}

/// How long to wait for more events of one kind before acting: a namespace's end or a link's
/// comings and goings are told in several.
const SETTLE: Duration = Duration::from_millis(100);

/// How long a daemon that ends when it is idle waits for another endpoint.
const IDLE: Duration = Duration::from_secs(10);

/// Serves until SIGTERM or SIGINT, or with `until_idle` until there are no endpoints. SIGHUP
/// reads everything anew.
pub async fn serve(
    engine: &Engine,
    home: &Home,
    place: Place,
    http: Listen,
    sockets: docker::Sockets,
    until_idle: bool,
) -> Result<(), DaemonError> {
    engine.require_privileges()?;
    let _instance = home.claim()?;
    take_all_descriptors();
    let mut ends = [SignalKind::terminate(), SignalKind::interrupt()]
        .into_iter()
        .map(signal)
        .collect::<io::Result<Vec<Signal>>>()
        .map_err(DaemonError::Signals)?;
    let mut reload = signal(SignalKind::hangup()).map_err(DaemonError::Signals)?;
    // Before the first look, so that nothing is missed between the two.
    let mut daemon = Daemon {
        engine,
        place,
        events: HostEvents::listen()?,
        due: None,
        idle_since: None,
        seen: None,
        names: Names::start()?,
        docker: Docker::listen(sockets).map_err(DaemonError::Docker)?,
    };
    let mut control = Control::listen(home)?;
    let mut web = Web::listen(http).await?;
    daemon.look_at_everything().await;
    engine.leave_looking_to_caller();
    daemon.ask_docker_for_names();
    let mut watchdog = watchdog();
    notify(&[NotifyState::Ready]);
    tracing::info!(pid = std::process::id(), "ready");
    loop {
        let [terminate, interrupt] = ends.as_mut_slice() else {
            unreachable!("two signals were asked for");
        };
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = reload.recv() => {
                tracing::info!("reloading");
                notify_reloading();
                daemon.look_at_everything().await;
                notify(&[NotifyState::Ready]);
            }
            // The command may have been killed meanwhile.
            (request, reply) = control.next() => if !reply.is_closed() {
                let _ = reply.send(daemon.answer(request).await);
            },
            reply = web.next() => {
                // Whoever asked may be gone.
                let _ = reply.send(engine.topology(&Selection::default()).await);
            }
            event = daemon.events.next() => daemon.follow(event).await?,
            event = daemon.docker.next() => daemon.serve_docker(event).await,
            () = daemon.names.changed() => daemon.names.leave_the_dead(),
            () = until(daemon.due.map(|due| due.at)) => daemon.look_where_due().await,
            () = until(daemon.idle_since.filter(|_| until_idle).map(|since| since + IDLE)) => break,
            () = watchdog.tick() => notify(&[NotifyState::Watchdog]),
        }
    }
    notify(&[NotifyState::Stopping]);
    tracing::info!("stopping");
    Ok(())
}

/// Where to look for what has vanished, and when.
#[derive(Debug, Clone, Copy)]
struct Due {
    at: Instant,
    endpoints: bool,
    parents: bool,
}

struct Daemon<'e> {
    engine: &'e Engine,
    place: Place,
    events: HostEvents,
    due: Option<Due>,
    /// `None` while there are endpoints, or networks of Docker's.
    idle_since: Option<Instant>,
    /// `None` if all endpoints are to be read anew.
    seen: Option<Seen>,
    names: Names,
    docker: Docker,
}

impl Daemon<'_> {
    async fn look_at_everything(&mut self) {
        self.names.read_servers();
        self.seen = None;
        self.follow_addresses().await;
        self.repair().await;
    }

    fn follow_names(&mut self) -> Result<(), EngineError> {
        let changed = match self.seen {
            Some(seen) => self.engine.changed_endpoints(seen)?,
            None => None,
        };
        let seen = match changed {
            Some((seen, changed)) => {
                self.names.follow(changed);
                seen
            }
            None => {
                let (seen, endpoints) = self.engine.named_endpoints()?;
                self.names.follow_all(endpoints);
                seen
            }
        };
        self.seen = Some(seen);
        self.note_idleness()
    }

    fn note_idleness(&mut self) -> Result<(), EngineError> {
        let is_dockers = || -> Result<bool, EngineError> {
            let networks = self.engine.networks()?;
            Ok(networks.iter().any(|network| network.is_dockers()))
        };
        self.idle_since = match self.names.has_endpoints() || is_dockers()? {
            true => None,
            false => self.idle_since.or(Some(Instant::now())),
        };
        Ok(())
    }

    async fn answer(&mut self, request: Request) -> Reply {
        match request {
            Request::Refresh => match self.follow_names() {
                Ok(()) => Reply::Done,
                Err(error) => Reply::Failed(error.to_string()),
            },
            Request::Status => Reply::Status(Status {
                pid: std::process::id(),
                version: env!("CARGO_PKG_VERSION").to_owned(),
                namespaces: self.names.count(),
            }),
            Request::Cni(place, request) if place == self.place => {
                match request.work_for_caller() {
                    Some(Ok(work)) => Reply::Cni(self.work_for_cni(work).await),
                    Some(Err(answer)) => Reply::Cni(answer),
                    None => Reply::Declined,
                }
            }
            Request::Cni(..) => Reply::Declined,
        }
    }

    async fn work_for_cni(&mut self, work: cni::Work) -> cni::Answer {
        let answer = work.run(self.engine).await;
        if let Err(error) = self.follow_names() {
            tracing::error!(%error, "cannot read the endpoints");
        }
        answer
    }

    async fn follow(&mut self, event: Option<HostEvent>) -> Result<(), DaemonError> {
        match event {
            Some(HostEvent::Address) => self.follow_addresses().await,
            Some(HostEvent::Link(name)) => {
                self.follow_carried(&name).await;
                match self.engine.rests_on(&name) {
                    Ok(true) => self.due().parents = true,
                    Ok(false) => {}
                    Err(error) => tracing::error!(%error, "cannot read the networks"),
                }
            }
            Some(HostEvent::NamespaceGone) => self.due().endpoints = true,
            Some(HostEvent::Lost) => {
                tracing::warn!("events of the kernel were lost");
                self.look_at_everything().await;
            }
            None => {
                tracing::warn!("the socket of the kernel's events failed: opening another");
                self.events = HostEvents::listen()?;
                self.look_at_everything().await;
            }
        }
        Ok(())
    }

    /// At once: until then the endpoint reaches nobody.
    async fn follow_carried(&self, link: &str) {
        match self.engine.follow_carried(link).await {
            Ok(None) => {}
            Ok(Some((network, endpoint))) => {
                tracing::debug!(%endpoint.name, path = %endpoint.netns.display(), "followed");
                if network.is_dockers() {
                    self.docker.ask_names(&network.id, Some(&endpoint.id));
                }
            }
            Err(error) => tracing::error!(%error, "cannot guard an endpoint"),
        }
    }

    async fn serve_docker(&mut self, event: docker::Event) {
        match event {
            docker::Event::Names(names) => self.docker.take_names(self.engine, &names),
            docker::Event::Call(call, reply) => {
                let answer = docker::answer(self.engine, &call).await;
                if let Err(error) = &answer {
                    tracing::warn!(%error, "refused Docker");
                } else if let Some(network) = call.made_network() {
                    self.docker.ask_names(&network, None);
                }
                // dockerd may have been killed meanwhile.
                let _ = reply.send(answer);
                if let Err(error) = self.note_idleness() {
                    tracing::error!(%error, "cannot read the networks");
                }
            }
        }
    }

    /// Those that came while no daemon ran have their ids as names.
    fn ask_docker_for_names(&self) {
        match self.engine.networks() {
            Ok(networks) => {
                for network in networks.iter().filter(|network| network.is_dockers()) {
                    self.docker.ask_names(&network.id, None);
                }
            }
            Err(error) => tracing::error!(%error, "cannot read the networks"),
        }
    }

    /// At once: until then an address that came is not guarded in all modes.
    async fn follow_addresses(&self) {
        if let Err(error) = self.engine.follow_host_addresses().await {
            tracing::error!(%error, "cannot follow the host's addresses");
        }
    }

    fn due(&mut self) -> &mut Due {
        self.due.get_or_insert_with(|| Due {
            at: Instant::now() + SETTLE,
            endpoints: false,
            parents: false,
        })
    }

    /// A parent changes with each endpoint that joins, so that it must be hurt for a repair.
    async fn look_where_due(&mut self) {
        let Some(due) = self.due.take() else {
            return;
        };
        let hurt = match due.parents {
            true => self.engine.parents_are_hurt().await,
            false => Ok(false),
        };
        match hurt {
            Ok(false) if due.endpoints => {
                let released = self.engine.release_gone().await;
                self.tell_repaired(released);
            }
            Ok(false) => {}
            Ok(true) => self.repair().await,
            Err(error) => tracing::error!(%error, "cannot look at the parents"),
        }
    }

    async fn repair(&mut self) {
        self.due = None;
        let repaired = self.engine.repair().await;
        self.tell_repaired(repaired);
    }

    fn tell_repaired(&mut self, repaired: Result<Vec<String>, EngineError>) {
        match repaired {
            Ok(done) => {
                for done in done {
                    tracing::info!("{done}");
                }
            }
            Err(error) => tracing::error!(%error, "cannot repair"),
        }
        if let Err(error) = self.follow_names() {
            tracing::error!(%error, "cannot read the endpoints");
        }
    }
}

/// Each namespace takes some, and the usual limit is 1,024.
fn take_all_descriptors() {
    let limit = getrlimit(Resource::Nofile);
    let wanted = Rlimit {
        current: limit.maximum,
        ..limit
    };
    if let Err(error) = setrlimit(Resource::Nofile, wanted) {
        tracing::warn!(%error, "cannot raise the limit of open files");
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

/// Ticks twice as often as the service manager asks for, or never.
struct Watchdog(Option<tokio::time::Interval>);

fn watchdog() -> Watchdog {
    Watchdog(sd_notify::watchdog_enabled().map(|deadline| {
        let mut ticks = interval(deadline / 2);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ticks
    }))
}

impl Watchdog {
    async fn tick(&mut self) {
        match &mut self.0 {
            Some(ticks) => drop(ticks.tick().await),
            None => std::future::pending().await,
        }
    }
}

fn notify_reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => notify(&[NotifyState::Reloading, now]),
        Err(error) => tracing::warn!(%error, "cannot read the clock"),
    }
}

/// Does nothing where no service manager listens.
fn notify(state: &[NotifyState]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!(%error, "cannot notify the service manager");
    }
}
