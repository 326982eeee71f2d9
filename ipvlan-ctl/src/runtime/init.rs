//! The keeper of a task: `ipvlan-ctl _init CONTROL`.
//!
//! It waits on CONTROL, a socket to its supervisor, for its order. As the first process of a
//! new container it has been executed inside its namespaces, and makes the container's
//! surroundings; for `exec` it joins those of a running one. Then it starts the command and does
//! what a PID 1 must: pass signals on, reap, end as the command ended.

use std::fs::File;
use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode};

use caps::{Capability, CapsHashSet};
use nix::errno::Errno;
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::prctl;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, kill, sigaction};
use nix::sys::stat::Mode;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::container::Process;
use super::control::{self, Order, Place, Reply};
use super::spec::Task;
use super::terminal::Pty;
use super::user::Identity;
use super::{loopback, privileges, rootfs};

/// The hidden subcommand that leads to [`main`].
pub const SUBCOMMAND: &str = "_init";

/// `control` is the descriptor that the supervisor left open for us.
pub fn main(control: RawFd) -> ExitCode {
    // SAFETY: the supervisor passes this descriptor to us alone, and nothing else here has
    // taken it: we are the first code of a fresh program.
    let control = unsafe { UnixStream::from_raw_fd(control) };
    match start(control) {
        Ok(Some(started)) => ExitCode::from(serve(started.command)),
        // The supervisor has gone, or has been told why.
        Ok(None) => ExitCode::FAILURE,
        Err(e) => {
            eprintln!("ipvlan-ctl: container init: {e}");
            ExitCode::FAILURE
        }
    }
}

/// A command that has been executed.
struct Started {
    command: Pid,
    /// Held until the command ends: a terminal that nobody has open for a moment would tell the
    /// supervisor that it is gone.
    _terminal: Option<OwnedFd>,
}

/// Why a command was not executed.
enum Failure {
    Setup(String),
    Exec(io::Error),
}

/// Nothing if there is nothing to serve.
fn start(control: UnixStream) -> io::Result<Option<Started>> {
    rustix::io::fcntl_setfd(&control, rustix::io::FdFlags::CLOEXEC)?;
    // Asked for before we wait: a supervisor that is gone already closes the socket instead.
    prctl::set_pdeathsig(Signal::SIGKILL)?;
    // Keeps the container's root off our memory and descriptors, also in the moment when the
    // command is a copy of us that has not been executed yet.
    prctl::set_dumpable(false)?;
    default_dispositions()?;
    signals().thread_block()?;

    let Some(order) = control::receive(&control)? else {
        return Ok(None);
    };
    let outcome = surround(&order.place)
        .map_err(Failure::Setup)
        .and_then(|()| execute(&order));
    let (reply, terminal, started) = match outcome {
        Ok((started, controller)) => (Reply::Started, controller, Some(started)),
        Err(Failure::Setup(reason)) => (Reply::Setup(reason), None, None),
        Err(Failure::Exec(e)) => {
            let errno = e.raw_os_error().unwrap_or(libc::EINVAL);
            (Reply::Exec(errno), None, None)
        }
    };
    control::answer(&control, &reply, terminal)?;
    Ok(started)
}

fn surround(place: &Place) -> Result<(), String> {
    nix::sys::stat::umask(Mode::S_IWGRP | Mode::S_IWOTH);
    match place {
        Place::New {
            hostname,
            rootfs,
            state,
        } => make_surroundings(hostname, rootfs.as_deref(), state)?,
        Place::Join(init) => {
            join(*init).map_err(|e| format!("cannot enter the container: {e}"))?;
        }
    }
    prctl::set_no_new_privs().map_err(|e| format!("cannot set no_new_privs: {e}"))
}

fn make_surroundings(hostname: &str, rootfs: Option<&Path>, state: &Path) -> Result<(), String> {
    let failed = |what: &str, e: &dyn std::fmt::Display| format!("cannot {what}: {e}");
    // Not earlier: the supervisor has put us into the container's cgroup meanwhile.
    unshare(CloneFlags::CLONE_NEWCGROUP).map_err(|e| failed("hide the cgroups", &e))?;
    nix::unistd::sethostname(hostname).map_err(|e| failed("set the hostname", &e))?;
    loopback::set_up().map_err(|e| failed("set lo up", &e))?;
    rootfs::enter(rootfs, state).map_err(|e| e.to_string())
}

/// Enters all namespaces of a container; children are born into its PID namespace.
fn join(init: Process) -> io::Result<()> {
    let init = init.open()?.ok_or(Errno::ESRCH)?;
    setns(
        init,
        CloneFlags::CLONE_NEWNET
            | CloneFlags::CLONE_NEWNS
            | CloneFlags::CLONE_NEWUTS
            | CloneFlags::CLONE_NEWIPC
            | CloneFlags::CLONE_NEWPID
            | CloneFlags::CLONE_NEWCGROUP,
    )?;
    Ok(())
}

/// Returns once the command has been executed, with the controlling end of its terminal.
fn execute(order: &Order) -> Result<(Started, Option<OwnedFd>), Failure> {
    let task = &order.task;
    let identity = task.user.look_up().map_err(Failure::Setup)?;
    enter_workdir(task.workdir.as_deref().unwrap_or(Path::new("/"))).map_err(Failure::Setup)?;
    let pty = match task.tty {
        true => Some(
            Pty::open(identity.uid, order.size)
                .map_err(|e| Failure::Setup(format!("cannot make a terminal: {e}")))?,
        ),
        false => None,
    };
    let terminal = pty.as_ref().map(|pty| &pty.terminal);
    let command = spawn(task, &identity, terminal).map_err(Failure::Exec)?;
    // Enough to pass signals on to whoever the command has become.
    privileges::hold_only(CapsHashSet::from([Capability::CAP_KILL]))
        .map_err(|e| Failure::Setup(format!("cannot drop capabilities: {e}")))?;
    let (controller, terminal) = match pty {
        Some(pty) => (Some(pty.controller), Some(pty.terminal)),
        None => (None, None),
    };
    let started = Started {
        command,
        _terminal: terminal,
    };
    Ok((started, controller))
}

fn enter_workdir(workdir: &Path) -> Result<(), String> {
    let failed =
        |e: &dyn std::fmt::Display| format!("cannot enter the working directory {workdir:?}: {e}");
    match nix::unistd::chdir(workdir) {
        // As docker does where the root can be written.
        Err(Errno::ENOENT) => {
            std::fs::create_dir_all(workdir).map_err(|e| failed(&e))?;
            nix::unistd::chdir(workdir).map_err(|e| failed(&e))?;
        }
        other => other.map_err(|e| failed(&e))?,
    }
    // Fails for a folder that is not below the container's root.
    nix::unistd::getcwd().map(drop).map_err(|e| failed(&e))
}

fn spawn(task: &Task, identity: &Identity, terminal: Option<&OwnedFd>) -> io::Result<Pid> {
    let (program, arguments) = task.command.split_first().ok_or(Errno::ENOENT)?;
    let mut command = Command::new(program);
    command
        .args(arguments)
        .env_clear()
        .env("HOME", &identity.home)
        .envs(task.env.iter().map(|(name, value)| (name, value)));
    if let Some(terminal) = terminal {
        command
            .stdin(File::from(terminal.try_clone()?))
            .stdout(File::from(terminal.try_clone()?))
            .stderr(File::from(terminal.try_clone()?));
    }
    let tty = terminal.is_some();
    let identity = identity.clone();
    let capabilities = task.capabilities.clone();
    // SAFETY: this process has one thread, so its copy may do anything it could do itself.
    unsafe {
        command.pre_exec(move || {
            nix::unistd::setsid()?;
            if tty {
                rustix::process::ioctl_tiocsctty(io::stdin())?;
            }
            privileges::become_user(&identity, &capabilities)?;
            // Another user is forgiven the first one's.
            prctl::set_pdeathsig(Signal::SIGKILL)?;
            Ok(SigSet::empty().thread_set_mask()?)
        });
    }
    // Its Child is dropped: `serve` reaps it among all others.
    let child = command.spawn()?;
    Ok(Pid::from_raw(child.id() as i32))
}

/// Serves until the command ends; returns its exit status, 128 + n for signal n. Where we are
/// the container's first process, whatever else still runs in it dies with us.
fn serve(command: Pid) -> u8 {
    let signals = signals();
    loop {
        // One SIGCHLD may stand for many children.
        loop {
            match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(pid, status)) if pid == command => return status as u8,
                Ok(WaitStatus::Signaled(pid, signal, _)) if pid == command => {
                    return 128 + signal as u8;
                }
                Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => break,
                Ok(_) | Err(_) => {}
            }
        }
        match signals.wait() {
            Ok(Signal::SIGCHLD) => {}
            // Fails only if the command has just ended, which its SIGCHLD tells.
            Ok(signal) => drop(kill(command, signal)),
            Err(e) => unreachable!("sigwait of a valid set: {e}"),
        }
    }
}

/// What we wait for: all that can be passed on, and SIGCHLD. A fault of our own is fatal all
/// the same.
fn signals() -> SigSet {
    Signal::iterator()
        .filter(|signal| !matches!(signal, Signal::SIGKILL | Signal::SIGSTOP))
        .collect()
}

/// A caller may have had us ignore signals (nohup, SIGCHLD): the command must not inherit
/// that, and an ignored SIGCHLD would take the exit statuses from us.
fn default_dispositions() -> nix::Result<()> {
    let default = SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty());
    for signal in signals().iter() {
        // SAFETY: the default disposition runs no code of ours.
        unsafe { sigaction(signal, &default) }?;
    }
    Ok(())
}
