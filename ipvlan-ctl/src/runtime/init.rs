//! The first process of a container: `ipvlan-ctl _init CONTROL`.
//!
//! It is executed already inside its namespaces and waits on CONTROL, a socket to its
//! supervisor, until the network is there. Then it makes the container's surroundings, starts
//! the command, and does what a PID 1 must: pass signals on, reap, end as the command ended.

use std::io::{self, Read, Write};
use std::os::fd::{FromRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use nix::errno::Errno;
use nix::sys::prctl;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, kill, sigaction};
use nix::sys::stat::Mode;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use super::supervisor::Spec;
use super::{loopback, privileges, rootfs};

/// The hidden subcommand that leads to [`main`].
pub const SUBCOMMAND: &str = "_init";

/// What the supervisor sends once the network is there.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Order {
    pub spec: Spec,
    /// The folder that holds the container's files of /etc.
    pub state: PathBuf,
}

/// What it gets back. The socket closing without one means that the init was killed.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Reply {
    /// The command has been executed.
    Started,
    /// The surroundings could not be made.
    Setup(String),
    /// The command could not be executed: the system's error number.
    Exec(i32),
}

/// `control` is the descriptor that the supervisor left open for us.
pub fn main(control: RawFd) -> ExitCode {
    // SAFETY: the supervisor passes this descriptor to us alone, and nothing else here has
    // taken it: we are the first code of a fresh program.
    let mut control = unsafe { UnixStream::from_raw_fd(control) };
    match start(&mut control) {
        Ok(Some(command)) => {
            drop(control);
            ExitCode::from(serve(command))
        }
        // The supervisor has gone, or has been told why.
        Ok(None) => ExitCode::FAILURE,
        Err(e) => {
            eprintln!("ipvlan-ctl: container init: {e}");
            ExitCode::FAILURE
        }
    }
}

/// The command's PID, or none if there is nothing to serve.
fn start(control: &mut UnixStream) -> io::Result<Option<Pid>> {
    rustix::io::fcntl_setfd(&*control, rustix::io::FdFlags::CLOEXEC)?;
    // Asked for before we wait: a supervisor that is gone already closes the socket instead.
    prctl::set_pdeathsig(Signal::SIGKILL)?;
    // Keeps the container's root off /proc/1/exe, which is the host's ipvlan-ctl.
    prctl::set_dumpable(false)?;
    default_dispositions()?;
    signals().thread_block()?;

    let mut order = Vec::new();
    control.read_to_end(&mut order)?;
    if order.is_empty() {
        return Ok(None);
    }
    let order: Order = serde_json::from_slice(&order)?;
    let (reply, command) = match surround(&order) {
        Err(reason) => (Reply::Setup(reason), None),
        Ok(()) => match execute(&order.spec) {
            Err(e) => (Reply::Exec(e.raw_os_error().unwrap_or(libc::EINVAL)), None),
            Ok(pid) => (Reply::Started, Some(pid)),
        },
    };
    control.write_all(&serde_json::to_vec(&reply)?)?;
    Ok(command)
}

fn surround(order: &Order) -> Result<(), String> {
    let failed = |what: &str, e: &dyn std::fmt::Display| format!("cannot {what}: {e}");
    nix::sys::stat::umask(Mode::S_IWGRP | Mode::S_IWOTH);
    nix::unistd::sethostname(&order.spec.hostname).map_err(|e| failed("set the hostname", &e))?;
    loopback::set_up().map_err(|e| failed("set lo up", &e))?;
    rootfs::enter(&order.state).map_err(|e| e.to_string())?;
    nix::unistd::setgroups(&[]).map_err(|e| failed("leave groups", &e))?;
    privileges::drop_capabilities().map_err(|e| failed("drop capabilities", &e))?;
    prctl::set_no_new_privs().map_err(|e| failed("set no_new_privs", &e))
}

/// Returns once the command has been executed, or with why it was not.
fn execute(spec: &Spec) -> io::Result<Pid> {
    let (program, arguments) = spec.command.split_first().ok_or(Errno::ENOENT)?;
    let mut command = Command::new(program);
    command
        .args(arguments)
        .env_clear()
        .envs(spec.env.iter().map(|(name, value)| (name, value)))
        .current_dir("/");
    // SAFETY: sigprocmask is async-signal-safe.
    unsafe {
        command.pre_exec(|| Ok(SigSet::empty().thread_set_mask()?));
    }
    // Its Child is dropped: `serve` reaps it among all others.
    let child = command.spawn()?;
    Ok(Pid::from_raw(child.id() as i32))
}

/// Serves until the command ends; returns its exit status, 128 + n for signal n. Whatever else
/// still runs in the namespace dies with us.
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

/// What we wait for: all that can be passed on, and SIGCHLD. Faults of our own stay fatal.
fn signals() -> SigSet {
    Signal::iterator()
        .filter(|signal| {
            !matches!(
                signal,
                Signal::SIGKILL
                    | Signal::SIGSTOP
                    | Signal::SIGILL
                    | Signal::SIGTRAP
                    | Signal::SIGABRT
                    | Signal::SIGBUS
                    | Signal::SIGFPE
                    | Signal::SIGSEGV
                    | Signal::SIGSYS
                    | Signal::SIGPIPE
            )
        })
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
