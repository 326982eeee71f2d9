//! The process outside: starts a container, gives it its network, waits, and cleans up.

use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::process::ExitStatus;
use std::time::{SystemTime, UNIX_EPOCH};

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use nix::unistd::{Pid, Uid};
use thiserror::Error;

use super::cgroup::{Cgroup, CgroupError};
use super::container::{Container, End, Process};
use super::control::{Order, Place};
use super::etc;
use super::keeper::{Keeper, pass_on};
use super::log::Log;
use super::records::{Record, RecordError, RunDir};
use super::spec::Spec;
use super::streams::{Console, Flow, Streams};
use crate::kernel::{Netns, NetnsError};

/// What a container has after [`Attach::attach`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Attached {
    /// For its /etc/hosts.
    pub addresses: Vec<IpAddr>,
    /// What answers for names in its namespace, if anything does.
    pub resolver: Option<IpAddr>,
}

/// The network of a container and its record, as [`run`] calls for them.
pub trait Attach {
    /// Called while the init waits: the namespace is new and empty, and everything must be
    /// ready in it on return. On failure it has undone its own steps.
    fn attach(&mut self, container: &Container, netns: &Netns) -> anyhow::Result<Attached>;

    /// The container has ended, or could not be started after `attach`. Its processes are gone;
    /// its network namespace is still held, so addresses are free again on return, not some
    /// time later when the kernel gets to destroying it.
    fn detach(&mut self, container: &Container, netns: &Netns) -> anyhow::Result<()>;
}

#[derive(Debug, Error)]
pub enum RunError {
    #[error("run needs root (effective user id 0), not user id {0}")]
    NotRoot(Uid),
    #[error("cannot make namespaces: {0}")]
    Namespaces(io::Error),
    #[error(transparent)]
    Record(#[from] RecordError),
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    #[error("cannot write the container's files of /etc: {0}")]
    Etc(io::Error),
    #[error("cannot connect the container's streams: {0}")]
    Streams(io::Error),
    #[error("cannot write the container's output: {0}")]
    Output(io::Error),
    #[error(transparent)]
    Netns(#[from] NetnsError),
    #[error("{0:#}")]
    Attach(anyhow::Error),
    #[error("the container's init ended before it started the command ({0})")]
    InitDied(ExitStatus),
    #[error("cannot talk to the container's init: {0}")]
    Control(io::Error),
    #[error("cannot set the container up: {0}")]
    Setup(String),
    #[error("command {program:?} not found in the container{hint}")]
    NotFound { program: String, hint: &'static str },
    #[error("cannot execute {program:?} in the container: {error}")]
    NotExecutable { program: String, error: io::Error },
    #[error("container {0} is not running")]
    NotRunning(String),
    #[error("the container ended, but cannot release its network: {0:#}")]
    Detach(anyhow::Error),
    #[error("{cause}; and then cannot release what it had: {undo:#}")]
    Undo {
        cause: Box<RunError>,
        undo: anyhow::Error,
    },
    #[error("cannot wait for the container: {0}")]
    Wait(io::Error),
}

impl RunError {
    /// The exit status of `run`, as Docker's: 127 not found, 126 not executable, else 125.
    pub fn exit_status(&self) -> u8 {
        match self {
            Self::NotFound { .. } => 127,
            Self::NotExecutable { .. } => 126,
            Self::Undo { cause, .. } => cause.exit_status(),
            _ => 125,
        }
    }
}

/// Runs a container from its creation to its end, and returns the command's exit status
/// (128 + n for signal n). Calls `started` once the command has been executed. If it could not
/// be, nothing is left behind.
///
/// Signals that ask a process to end are blocked in this thread from here on, and passed to
/// the command; in the foreground, the third request to end kills it. Call it on the thread that
/// lives as long as the process: the container is killed when that thread ends.
pub fn run(
    run_dir: &RunDir,
    spec: &Spec,
    network: &mut dyn Attach,
    console: Console,
    started: impl FnOnce(),
) -> Result<u8, RunError> {
    require_root()?;
    let signals = take_signals().map_err(RunError::Wait)?;
    let cgroup = Cgroup::plan(&spec.id, &spec.limits)?;
    let mut record = run_dir.claim(Container {
        spec: spec.clone(),
        created: now(),
        supervisor: Process::find(Pid::this()).map_err(RunError::Wait)?,
        init: None,
        started: None,
        cgroup,
    })?;
    let begun = begin(&mut record, network, console);
    let (mut keeper, netns, flow) = match begun {
        Ok(begun) => begun,
        Err(cause) => {
            // The cause is what the user needs; what stays here, the next command removes.
            if let Err(e) = record.remove() {
                eprintln!("ipvlan-ctl: {e}");
            }
            return Err(cause);
        }
    };
    started();

    let status = wait(&mut keeper, &signals, &flow, console).map_err(RunError::Wait)?;
    let cgroup = record.container.cgroup.clone();
    record.finish(End {
        status,
        finished: now(),
        oom_killed: cgroup.as_ref().is_some_and(Cgroup::oom_killed),
    })?;
    let released = network
        .detach(&record.container, &netns)
        .map_err(RunError::Detach);
    // After the network: a reader of the output may take its time.
    let carried = flow.finish().map_err(RunError::Output);
    if spec.remove {
        record.remove()?;
    } else {
        record.release()?;
    }
    released.and(carried).map(|()| status)
}

/// Refuses anyone but root, before anything is touched.
pub fn require_root() -> Result<(), RunError> {
    match Uid::effective() {
        root if root.is_root() => Ok(()),
        other => Err(RunError::NotRoot(other)),
    }
}

/// Up to the command being executed. On failure the network is released again.
fn begin(
    record: &mut Record,
    network: &mut dyn Attach,
    console: Console,
) -> Result<(Keeper, Netns, Flow), RunError> {
    let spec = record.container.spec.clone();
    if console == Console::Detached {
        nix::unistd::dup2_stderr(record.shim_log()?).map_err(|e| RunError::Streams(e.into()))?;
    }
    if let Some(cgroup) = &record.container.cgroup {
        cgroup.create(&spec.limits)?;
    }
    let log = Log::create(record.path()).map_err(RunError::Streams)?;
    let (streams, inside) =
        Streams::new(&spec.task, console, Some(log)).map_err(RunError::Streams)?;
    let mut keeper = Keeper::in_new_namespaces(inside)?;
    record.container.init = Some(keeper.process()?);
    // Before there is anything to release, so that whoever finds us killed knows the init.
    record.write()?;
    if let Some(cgroup) = &record.container.cgroup {
        cgroup.add(keeper.pid())?;
    }
    let netns = Netns::open(Path::new(&format!("/proc/{}/ns/net", keeper.pid())))?;
    let attached = network
        .attach(&record.container, &netns)
        .map_err(RunError::Attach)?;

    let files = etc::write(
        record.path(),
        &spec.hostname,
        &attached.addresses,
        &spec.dns,
        attached.resolver,
    );
    let executed = files.map_err(RunError::Etc).and_then(|()| {
        let order = Order {
            place: Place::New {
                hostname: spec.hostname.clone(),
                rootfs: spec.rootfs.clone(),
                state: record.path().to_owned(),
            },
            size: streams.size(),
            task: spec.task.clone(),
        };
        let terminal = keeper.start(&order)?;
        record.container.started = Some(now());
        record.write()?;
        streams
            .begin(&spec.task, terminal)
            .map_err(RunError::Streams)
    });
    match executed {
        Ok(flow) => Ok((keeper, netns, flow)),
        Err(cause) => {
            drop(keeper);
            Err(match network.detach(&record.container, &netns) {
                Ok(()) => cause,
                Err(undo) => RunError::Undo {
                    cause: Box::new(cause),
                    undo,
                },
            })
        }
    }
}

/// Passes signals on until the container ends.
fn wait(keeper: &mut Keeper, signals: &SigSet, flow: &Flow, console: Console) -> io::Result<u8> {
    /// As many requests to end docker's client takes before it gives up.
    const PATIENCE: u32 = 3;
    let mut requests = 0;
    keeper.wait(signals, |keeper, signal| match signal {
        Signal::SIGWINCH => flow.resize(),
        Signal::SIGINT | Signal::SIGTERM if console == Console::Caller && !flow.is_raw() => {
            requests += 1;
            let signal = match requests {
                PATIENCE.. => Signal::SIGKILL,
                _ => signal,
            };
            pass_on(keeper, signal)
        }
        other => pass_on(keeper, other),
    })
}

/// Signals for the command, and SIGCHLD and SIGWINCH for us: blocked here, to be taken by
/// `sigwait`. What the terminal's job control sends stays ours.
pub(super) fn take_signals() -> io::Result<SigSet> {
    let signals: SigSet = Signal::iterator()
        .filter(|signal| {
            !matches!(
                signal,
                Signal::SIGKILL
                    | Signal::SIGSTOP
                    | Signal::SIGTSTP
                    | Signal::SIGTTIN
                    | Signal::SIGTTOU
                    | Signal::SIGCONT
                    | Signal::SIGILL
                    | Signal::SIGTRAP
                    | Signal::SIGABRT
                    | Signal::SIGBUS
                    | Signal::SIGFPE
                    | Signal::SIGSEGV
                    | Signal::SIGSYS
                    | Signal::SIGPIPE
                    | Signal::SIGURG
            )
        })
        .collect();
    signals.thread_block()?;
    // Inherited as ignored, it would keep the exit status from us.
    let default = SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty());
    // SAFETY: the default disposition runs no code of ours.
    unsafe { sigaction(Signal::SIGCHLD, &default) }?;
    Ok(signals)
}

/// Seconds since the Unix epoch.
fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}
