//! The process outside: starts a container, gives it its network, waits, and cleans up.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Shutdown};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, kill, sigaction};
use nix::unistd::{Pid, Uid};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::container::{Container, Process, RunDir, State, StateDir};
use super::etc;
use super::init::{self, Order, Reply};
use crate::kernel::{Netns, NetnsError};
use crate::model::Id;

/// What to start. How it is connected is [`Attach`]'s part.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Spec {
    pub id: Id,
    pub name: String,
    pub hostname: String,
    /// The program, looked up in the PATH of `env` inside the container, and its arguments.
    pub command: Vec<String>,
    /// The whole environment.
    pub env: Vec<(String, String)>,
    /// Forget the container when it ends.
    pub remove: bool,
    pub run_dir: RunDir,
}

/// The network of a container and its record, as [`run`] calls for them.
pub trait Attach {
    /// Called while the init waits: the namespace is new and empty, and everything must be
    /// ready in it on return. Returns the addresses for the container's /etc/hosts. On failure
    /// it has undone its own steps.
    fn attach(&mut self, container: &Container, netns: &Netns) -> anyhow::Result<Vec<IpAddr>>;

    /// The command has been executed.
    fn running(&mut self, container: &Container) -> anyhow::Result<()>;

    /// The container has ended, or could not be started after `attach`. Its processes are gone;
    /// its network namespace is still held, so addresses are free again on return, not some
    /// time later when the kernel gets to destroying it.
    fn detach(&mut self, container: &Container, netns: &Netns) -> anyhow::Result<()>;
}

/// Where the command's input comes from and its output goes.
#[derive(Debug)]
pub enum Output {
    /// The supervisor's own standard streams.
    Inherit,
    /// Both outputs to this file; the input is empty.
    Log(File),
}

#[derive(Debug, Error)]
pub enum RunError {
    #[error("run needs root (effective user id 0), not user id {0}")]
    NotRoot(Uid),
    #[error("cannot make namespaces: {0}")]
    Namespaces(io::Error),
    #[error("cannot use {path}: {error}")]
    State { path: PathBuf, error: io::Error },
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
    #[error("command {program:?} not found in the container")]
    NotFound { program: String },
    #[error("cannot execute {program:?} in the container: {error}")]
    NotExecutable { program: String, error: io::Error },
    #[error("the container ended, but cannot release its network: {0:#}")]
    Detach(anyhow::Error),
    #[error("{cause}; and then cannot release its network: {undo:#}")]
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
/// the command. Call it on the thread that lives as long as the process: the container is
/// killed when that thread ends.
pub fn run(
    spec: &Spec,
    network: &mut dyn Attach,
    output: Output,
    started: impl FnOnce(&Container),
) -> Result<u8, RunError> {
    require_root()?;
    let signals = take_signals().map_err(RunError::Wait)?;
    let state = spec.run_dir.container(&spec.id);
    let failed = |error| state_error(&state, error);
    state.create().map_err(failed)?;

    let begun = begin(spec, &state, network, output);
    let (mut init, mut container, netns) = match begun {
        Ok(begun) => begun,
        Err(cause) => {
            // The cause is what the user needs; a folder in /run that stays is not worth more.
            if let Err(e) = state.remove() {
                eprintln!("ipvlan-ctl: cannot remove {}: {e}", state.path().display());
            }
            return Err(cause);
        }
    };
    started(&container);

    let status = init.wait(&signals).map_err(RunError::Wait)?;
    container.state = State::Exited(status);
    state.write_exit(status).map_err(failed)?;
    network
        .detach(&container, &netns)
        .map_err(RunError::Detach)?;
    if spec.remove {
        state.remove().map_err(failed)?;
    }
    Ok(status)
}

/// Refuses anyone but root, before anything is touched.
pub fn require_root() -> Result<(), RunError> {
    match Uid::effective() {
        root if root.is_root() => Ok(()),
        other => Err(RunError::NotRoot(other)),
    }
}

fn state_error(state: &StateDir, error: io::Error) -> RunError {
    RunError::State {
        path: state.path().to_owned(),
        error,
    }
}

/// Up to the command being executed. On failure the network is released again.
fn begin(
    spec: &Spec,
    state: &StateDir,
    network: &mut dyn Attach,
    output: Output,
) -> Result<(Init, Container, Netns), RunError> {
    let mut init = Init::spawn(output).map_err(RunError::Namespaces)?;
    let mut container = Container {
        id: spec.id.clone(),
        name: spec.name.clone(),
        hostname: spec.hostname.clone(),
        init: Process::find(init.pid()).map_err(RunError::Wait)?,
        supervisor: Process::find(Pid::this()).map_err(RunError::Wait)?,
        command: spec.command.clone(),
        created: SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_secs()),
        remove: spec.remove,
        state: State::Created,
    };
    let netns = Netns::open(Path::new(&format!("/proc/{}/ns/net", init.pid())))?;
    let addresses = network
        .attach(&container, &netns)
        .map_err(RunError::Attach)?;

    let executed = etc::write(state, &spec.hostname, &addresses)
        .map_err(|error| state_error(state, error))
        .and_then(|()| init.start(spec, state))
        .and_then(|()| {
            container.state = State::Running;
            network.running(&container).map_err(RunError::Attach)
        });
    match executed {
        Ok(()) => Ok((init, container, netns)),
        Err(cause) => {
            drop(init);
            Err(match network.detach(&container, &netns) {
                Ok(()) => cause,
                Err(undo) => RunError::Undo {
                    cause: Box::new(cause),
                    undo,
                },
            })
        }
    }
}

/// A container's init, from this side. Dropped, it is killed and with it its namespaces.
struct Init {
    child: Child,
    control: UnixStream,
}

impl Init {
    /// Starts an init in new namespaces. It waits for [`Init::start`].
    fn spawn(output: Output) -> io::Result<Self> {
        let (control, theirs) = UnixStream::pair()?;
        let mut command = Command::new("/proc/self/exe");
        command
            .arg0("ipvlan-ctl")
            .arg(init::SUBCOMMAND)
            .arg(theirs.as_raw_fd().to_string())
            .env_clear();
        if let Output::Log(log) = output {
            command
                .stdin(Stdio::null())
                .stdout(log.try_clone()?)
                .stderr(log);
        }
        // SAFETY: the closure makes system calls only, on values made before the fork.
        unsafe {
            command.pre_exec(move || {
                close_on_exec()?;
                rustix::io::fcntl_setfd(&theirs, rustix::io::FdFlags::empty())?;
                // Without our terminal: its Ctrl-C reaches the command through us, once, and
                // the container cannot put input into the user's shell.
                nix::unistd::setsid()?;
                unshare(
                    CloneFlags::CLONE_NEWNET
                        | CloneFlags::CLONE_NEWNS
                        | CloneFlags::CLONE_NEWUTS
                        | CloneFlags::CLONE_NEWIPC,
                )?;
                Ok(())
            });
        }
        // A PID namespace begins with the next child of whoever asks for it. Back to ours right
        // after: meanwhile this thread can start no thread, and later children are not for it.
        let ours = File::open("/proc/thread-self/ns/pid_for_children")?;
        unshare(CloneFlags::CLONE_NEWPID)?;
        let spawned = command.spawn();
        let back = setns(&ours, CloneFlags::CLONE_NEWPID);
        let init = Self {
            child: spawned?,
            control,
        };
        back?;
        Ok(init)
    }

    /// As the host sees it.
    fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id() as i32)
    }

    /// Returns when the command has been executed.
    fn start(&mut self, spec: &Spec, state: &StateDir) -> Result<(), RunError> {
        let order = Order {
            spec: spec.clone(),
            state: state.path().to_owned(),
        };
        let reply = self.ask(&order).map_err(RunError::Control)?;
        if reply.is_empty() {
            return Err(RunError::InitDied(
                self.child.wait().map_err(RunError::Wait)?,
            ));
        }
        let program = || spec.command.first().cloned().unwrap_or_default();
        match serde_json::from_slice(&reply).map_err(|e| RunError::Control(e.into()))? {
            Reply::Started => Ok(()),
            Reply::Setup(reason) => Err(RunError::Setup(reason)),
            Reply::Exec(libc::ENOENT) => Err(RunError::NotFound { program: program() }),
            Reply::Exec(errno) => Err(RunError::NotExecutable {
                program: program(),
                error: io::Error::from_raw_os_error(errno),
            }),
        }
    }

    fn ask(&mut self, order: &Order) -> io::Result<Vec<u8>> {
        match self.control.write_all(&serde_json::to_vec(order)?) {
            // It died before it read: told by the empty reply.
            Err(e) if e.kind() == io::ErrorKind::BrokenPipe => return Ok(Vec::new()),
            other => other?,
        }
        self.control.shutdown(Shutdown::Write)?;
        let mut reply = Vec::new();
        self.control.read_to_end(&mut reply)?;
        Ok(reply)
    }

    /// Passes signals on until the container ends; returns its exit status.
    fn wait(&mut self, signals: &SigSet) -> io::Result<u8> {
        loop {
            if let Some(status) = self.child.try_wait()? {
                // By a signal only if something on the host killed the init itself.
                return Ok(status
                    .code()
                    .unwrap_or_else(|| 128 + status.signal().unwrap_or_default())
                    as u8);
            }
            match signals.wait()? {
                Signal::SIGCHLD => {}
                signal => kill(self.pid(), signal)?,
            }
        }
    }
}

impl Drop for Init {
    fn drop(&mut self) {
        // Both do nothing once it has been waited for. Its exit takes all of its PID namespace
        // along, and wait returns after that.
        if let Err(e) = self.child.kill().and_then(|()| self.child.wait()) {
            eprintln!("ipvlan-ctl: cannot end the container's init: {e}");
        }
    }
}

/// Keeps all but the standard streams from the next program: a descriptor that our caller left
/// open may lead to the host's files. Async-signal-safe.
pub(super) fn close_on_exec() -> io::Result<()> {
    // SAFETY: close_range with this flag closes nothing now; it only marks descriptors.
    match unsafe { libc::close_range(3, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC as i32) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Signals for the command, and SIGCHLD for us: blocked here, to be taken by `sigwait`.
fn take_signals() -> io::Result<SigSet> {
    let signals: SigSet = [
        Signal::SIGCHLD,
        Signal::SIGHUP,
        Signal::SIGINT,
        Signal::SIGQUIT,
        Signal::SIGTERM,
        Signal::SIGUSR1,
        Signal::SIGUSR2,
    ]
    .into_iter()
    .collect();
    signals.thread_block()?;
    // Inherited as ignored, it would keep the exit status from us.
    let default = SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty());
    // SAFETY: the default disposition runs no code of ours.
    unsafe { sigaction(Signal::SIGCHLD, &default) }?;
    Ok(signals)
}
