//! What is known of one container.

use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::unistd::Pid;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::PidfdFlags;
use serde::{Deserialize, Serialize};

use super::cgroup::Cgroup;
use super::spec::Spec;
use crate::kernel;

/// One container as it is recorded.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Container {
    #[serde(flatten)]
    pub spec: Spec,
    /// Seconds since the Unix epoch.
    pub created: u64,
    /// Who waits for it and releases what it held: `run` itself, or the shim of `run -d`.
    pub supervisor: Process,
    /// The container's PID 1, as the host sees it, once there is one.
    pub init: Option<Process>,
    /// When the command was executed, in seconds since the Unix epoch.
    pub started: Option<u64>,
    /// Where its resources are limited, if they are.
    pub cgroup: Option<Cgroup>,
}

/// How a container ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    /// The command's exit status; 128 + n for signal n.
    pub status: u8,
    /// Seconds since the Unix epoch.
    pub finished: u64,
    /// The kernel killed something in it for want of memory.
    pub oom_killed: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Status {
    /// Being made: the command waits for its network.
    Created,
    Running,
    Exited(End),
    /// Its supervisor was killed, and it with that.
    Dead,
}

impl Status {
    /// In docker's words.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Running => "running",
            Self::Exited(_) => "exited",
            Self::Dead => "dead",
        }
    }
}

/// A process that can be told from a later one with the same pid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    pub pid: i32,
    /// In clock ticks since boot: field 22 of `/proc/PID/stat`.
    pub start_time: u64,
}

impl Process {
    /// A process that is there now.
    pub fn find(pid: Pid) -> io::Result<Self> {
        Ok(Self {
            pid: pid.as_raw(),
            start_time: kernel::started(pid.as_raw() as u32)?.ok_or(io::ErrorKind::NotFound)?,
        })
    }

    pub fn is_alive(&self) -> bool {
        kernel::started(self.pid as u32).is_ok_and(|found| found == Some(self.start_time))
    }

    /// A descriptor that means this process and no later one; nothing if it has ended.
    pub fn open(&self) -> io::Result<Option<OwnedFd>> {
        let Some(pid) = rustix::process::Pid::from_raw(self.pid) else {
            return Ok(None);
        };
        match rustix::process::pidfd_open(pid, PidfdFlags::empty()) {
            Err(rustix::io::Errno::SRCH) => Ok(None),
            Err(e) => Err(e.into()),
            // What was opened may be a later one.
            Ok(process) => Ok(self.is_alive().then_some(process)),
        }
    }

    /// Whether it ended before the time was up.
    pub fn wait(&self, patience: Option<Duration>) -> io::Result<bool> {
        let Some(process) = self.open()? else {
            return Ok(true);
        };
        let deadline = patience.map(|patience| Instant::now() + patience);
        loop {
            let left = deadline.map(|deadline| {
                let left = deadline.saturating_duration_since(Instant::now());
                Timespec {
                    tv_sec: left.as_secs().try_into().unwrap_or(i64::MAX),
                    tv_nsec: left.subsec_nanos().into(),
                }
            });
            match poll(&mut [PollFd::new(&process, PollFlags::IN)], left.as_ref()) {
                Err(rustix::io::Errno::INTR) => {}
                Err(e) => return Err(e.into()),
                Ok(ended) => return Ok(ended > 0),
            }
        }
    }

    /// Whether it was there to be signalled.
    pub fn signal(&self, signal: Signal) -> io::Result<bool> {
        let Some(process) = self.open()? else {
            return Ok(false);
        };
        let signal = rustix::process::Signal::from_named_raw(signal as i32)
            .ok_or(io::ErrorKind::InvalidInput)?;
        match rustix::process::pidfd_send_signal(process, signal) {
            Err(rustix::io::Errno::SRCH) => Ok(false),
            Err(e) => Err(e.into()),
            Ok(()) => Ok(true),
        }
    }
}

#[cfg(test)]
mod tests {
    use nix::sys::wait::{Id, WaitPidFlag, waitid};

    use super::*;

    #[test]
    fn a_process_is_known_until_it_ends() {
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .unwrap();
        let pid = Pid::from_raw(child.id() as i32);
        let process = Process::find(pid).unwrap();
        assert!(process.start_time >= Process::find(Pid::this()).unwrap().start_time);
        assert!(process.is_alive());
        let namesake = Process {
            start_time: process.start_time - 1,
            ..process
        };
        assert!(!namesake.is_alive());

        child.kill().unwrap();
        // Leaves the zombie for now.
        waitid(Id::Pid(pid), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT).unwrap();
        assert!(!process.is_alive());
        child.wait().unwrap();
        assert!(!process.is_alive());
        assert!(Process::find(pid).is_err());
    }
}
