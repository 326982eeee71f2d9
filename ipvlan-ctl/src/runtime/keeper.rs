//! A keeper, from its supervisor's side.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command};

use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::unistd::Pid;

use super::container::Process;
use super::control::{self, Order, Reply};
use super::init;
use super::rootfs::own_program;
use super::streams::Inside;
use super::supervisor::RunError;

/// For who writes docker's `IMAGE /bin/sh`.
const NO_IMAGES: &str = ": there are no images, the first word is the command";

/// Dropped, it is killed; and the container with it whose first process it is.
pub(super) struct Keeper {
    child: Child,
    control: UnixStream,
}

impl Keeper {
    /// Starts a keeper in new namespaces. It waits for [`Keeper::start`].
    pub(super) fn in_new_namespaces(streams: Inside) -> Result<Self, RunError> {
        // A PID namespace begins with the next child of whoever asks for it. Back to ours right
        // after: meanwhile this thread can start no thread, and later children are not for it.
        let ours =
            File::open("/proc/thread-self/ns/pid_for_children").map_err(RunError::Namespaces)?;
        unshare(CloneFlags::CLONE_NEWPID).map_err(|e| RunError::Namespaces(e.into()))?;
        let spawned = Self::spawn(
            streams,
            CloneFlags::CLONE_NEWNET
                | CloneFlags::CLONE_NEWNS
                | CloneFlags::CLONE_NEWUTS
                | CloneFlags::CLONE_NEWIPC,
        );
        let back = setns(&ours, CloneFlags::CLONE_NEWPID);
        let keeper = spawned?;
        back.map_err(|e| RunError::Namespaces(e.into()))?;
        Ok(keeper)
    }

    /// Starts a keeper that is going to join a container.
    pub(super) fn to_join(streams: Inside) -> Result<Self, RunError> {
        Self::spawn(streams, CloneFlags::empty())
    }

    fn spawn(streams: Inside, namespaces: CloneFlags) -> Result<Self, RunError> {
        let program = own_program().map_err(|e| RunError::Setup(e.to_string()))?;
        let (control, theirs) = UnixStream::pair().map_err(RunError::Control)?;
        let mut command = Command::new(format!("/proc/self/fd/{}", program.as_raw_fd()));
        command
            .arg0("ipvlan-ctl")
            .arg(init::SUBCOMMAND)
            .arg(theirs.as_raw_fd().to_string())
            .env_clear()
            .stdin(streams.stdin)
            .stdout(streams.stdout)
            .stderr(streams.stderr);
        // SAFETY: the closure makes system calls only, on values made before the fork.
        unsafe {
            command.pre_exec(move || {
                close_on_exec()?;
                rustix::io::fcntl_setfd(&theirs, rustix::io::FdFlags::empty())?;
                // Without our terminal: its Ctrl-C reaches the command through us, once, and
                // the container cannot put input into the user's shell.
                nix::unistd::setsid()?;
                unshare(namespaces)?;
                Ok(())
            });
        }
        let child = command.spawn().map_err(RunError::Namespaces)?;
        Ok(Self { child, control })
    }

    /// As the host sees it.
    pub(super) fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id() as i32)
    }

    pub(super) fn process(&self) -> Result<Process, RunError> {
        Process::find(self.pid()).map_err(RunError::Wait)
    }

    /// Returns when the command has been executed, with the controlling end of its terminal if
    /// it has one.
    pub(super) fn start(&mut self, order: &Order) -> Result<Option<OwnedFd>, RunError> {
        let (reply, terminal) = control::ask(&self.control, order).map_err(RunError::Control)?;
        let program = || order.task.command.first().cloned().unwrap_or_default();
        match reply {
            None => Err(RunError::InitDied(
                self.child.wait().map_err(RunError::Wait)?,
            )),
            Some(Reply::Started) => Ok(terminal),
            Some(Reply::Setup(reason)) => Err(RunError::Setup(reason)),
            Some(Reply::Exec(libc::ENOENT)) => Err(RunError::NotFound {
                program: program(),
                hint: match order.task.command.get(1) {
                    Some(second) if second.starts_with('/') => NO_IMAGES,
                    _ => "",
                },
            }),
            Some(Reply::Exec(errno)) => Err(RunError::NotExecutable {
                program: program(),
                error: io::Error::from_raw_os_error(errno),
            }),
        }
    }

    /// Hands each signal that comes to `pass`, until the keeper ends; returns its exit status.
    pub(super) fn wait(
        &mut self,
        signals: &SigSet,
        mut pass: impl FnMut(Pid, Signal) -> io::Result<()>,
    ) -> io::Result<u8> {
        loop {
            if let Some(status) = self.child.try_wait()? {
                // By a signal only if something on the host killed the keeper itself.
                return Ok(status
                    .code()
                    .unwrap_or_else(|| 128 + status.signal().unwrap_or_default())
                    as u8);
            }
            match signals.wait()? {
                Signal::SIGCHLD => {}
                signal => pass(self.pid(), signal)?,
            }
        }
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        // Both do nothing once it has been waited for. Its exit takes all of its PID namespace
        // along, and wait returns after that.
        if let Err(e) = self.child.kill().and_then(|()| self.child.wait()) {
            eprintln!("ipvlan-ctl: cannot end the container's init: {e}");
        }
    }
}

/// Passes a signal on. One that has ended meanwhile is told by its SIGCHLD.
pub(super) fn pass_on(keeper: Pid, signal: Signal) -> io::Result<()> {
    match kill(keeper, signal) {
        Ok(()) | Err(nix::errno::Errno::ESRCH) => Ok(()),
        Err(e) => Err(e.into()),
    }
}

/// Keeps all but the standard streams from the next program: a descriptor that our caller left
/// open may lead to the host's files. Async-signal-safe.
pub(crate) fn close_on_exec() -> io::Result<()> {
    // SAFETY: close_range with this flag closes nothing now; it only marks descriptors.
    match unsafe { libc::close_range(3, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC as i32) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
