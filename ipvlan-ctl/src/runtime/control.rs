//! What a supervisor and a keeper say to each other: one order, one reply.

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};
use serde::{Deserialize, Serialize};

use super::container::Process;
use super::spec::Task;
use super::terminal::Size;

/// What the supervisor sends once everything else is there.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Order {
    pub task: Task,
    pub place: Place,
    /// Of the terminal, where the task gets one.
    pub size: Option<Size>,
}

/// Where the task is to run.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Place {
    /// In the namespaces that the keeper is in, which are new.
    New {
        hostname: String,
        rootfs: Option<PathBuf>,
        /// The folder that holds the container's files of /etc.
        state: PathBuf,
    },
    /// In those of a running container, by its init.
    Join(Process),
}

/// What it gets back. The socket closing without one means that the keeper was killed.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Reply {
    /// The command has been executed.
    Started,
    /// The surroundings could not be made.
    Setup(String),
    /// The command could not be executed: the system's error number.
    Exec(i32),
}

/// The supervisor's part. Returns the reply, if there is one, and the controlling end of the
/// task's terminal.
pub(super) fn ask(
    mut control: &UnixStream,
    order: &Order,
) -> io::Result<(Option<Reply>, Option<OwnedFd>)> {
    match control.write_all(&serde_json::to_vec(order)?) {
        // It died before it read: told by the empty reply.
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => return Ok((None, None)),
        other => other?,
    }
    control.shutdown(Shutdown::Write)?;
    let mut reply = vec![0; 64];
    let mut space = nix::cmsg_space!([libc::c_int; 1]);
    let (length, passed) = {
        let mut parts = [IoSliceMut::new(&mut reply)];
        let message = recvmsg::<()>(
            control.as_raw_fd(),
            &mut parts,
            Some(&mut space),
            MsgFlags::MSG_CMSG_CLOEXEC,
        )?;
        let passed = message.cmsgs()?.find_map(|passed| match passed {
            ControlMessageOwned::ScmRights(descriptors) => descriptors.first().copied(),
            _ => None,
        });
        (message.bytes, passed)
    };
    // SAFETY: the kernel has just made this descriptor for us; it has no other owner.
    let terminal = passed.map(|descriptor| unsafe { OwnedFd::from_raw_fd(descriptor) });
    reply.truncate(length);
    control.read_to_end(&mut reply)?;
    match reply.is_empty() {
        true => Ok((None, terminal)),
        false => Ok((Some(serde_json::from_slice(&reply)?), terminal)),
    }
}

/// The keeper's part: the order, if the supervisor is still there.
pub(super) fn receive(mut control: &UnixStream) -> io::Result<Option<Order>> {
    let mut order = Vec::new();
    control.read_to_end(&mut order)?;
    match order.is_empty() {
        true => Ok(None),
        false => Ok(Some(serde_json::from_slice(&order)?)),
    }
}

pub(super) fn answer(
    mut control: &UnixStream,
    reply: &Reply,
    terminal: Option<OwnedFd>,
) -> io::Result<()> {
    let bytes = serde_json::to_vec(reply)?;
    let descriptors: Vec<_> = terminal.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&descriptors)];
    let passed = if descriptors.is_empty() {
        &[][..]
    } else {
        &rights
    };
    let sent = sendmsg::<()>(
        control.as_raw_fd(),
        &[IoSlice::new(&bytes)],
        passed,
        MsgFlags::empty(),
        None,
    )?;
    control.write_all(&bytes[sent..])
}
