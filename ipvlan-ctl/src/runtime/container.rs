//! What is known of one container, and its folder under the run directory.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use crate::model::Id;

/// One container as it is recorded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Container {
    pub id: Id,
    /// Unique among the containers of the host; the short id where the user gave none.
    pub name: String,
    pub hostname: String,
    /// The container's PID 1, as the host sees it.
    pub init: Process,
    /// Who waits for it and releases what it held: `run` itself, or the shim of `run -d`.
    pub supervisor: Process,
    /// The program and its arguments; never empty.
    pub command: Vec<String>,
    /// Seconds since the Unix epoch.
    pub created: u64,
    /// Forget the container when it ends (`--rm`).
    pub remove: bool,
    pub state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// The namespaces exist; the command waits for its network.
    Created,
    /// The command has been executed.
    Running,
    /// It ended with this exit status (128 + n for signal n).
    Exited(u8),
}

impl Container {
    /// Whether its supervisor was killed, so that nobody will release its endpoints: for
    /// `repair`. While a supervisor lives, a container that has just ended is its business.
    pub fn is_lost(&self) -> bool {
        !matches!(self.state, State::Exited(_))
            && !self.supervisor.is_alive()
            && !self.init.is_alive()
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
            start_time: start_time(pid)?,
        })
    }

    pub fn is_alive(&self) -> bool {
        start_time(Pid::from_raw(self.pid)).is_ok_and(|found| found == self.start_time)
    }
}

/// Start time of a live process, in clock ticks since boot. A zombie has ended: not found.
fn start_time(pid: Pid) -> io::Result<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // Field 2 is the command in parentheses, which may itself hold spaces and parentheses.
    let mut fields = stat
        .rsplit_once(')')
        .into_iter()
        .flat_map(|(_, rest)| rest.split(' '));
    let state = fields.nth(1);
    if matches!(state, Some("Z" | "X")) {
        return Err(io::ErrorKind::NotFound.into());
    }
    fields
        .nth(18)
        .and_then(|ticks| ticks.parse().ok())
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, format!("/proc/{pid}/stat")))
}

/// Where live state is kept: nothing in it means anything after a reboot.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RunDir(PathBuf);

impl RunDir {
    pub const DEFAULT: &str = "/run/ipvlan-ctl";

    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The folder of one container, which need not exist.
    pub fn container(&self, id: &Id) -> StateDir {
        StateDir(self.0.join("containers").join(id.as_str()))
    }
}

/// One container's folder: `hosts`, `hostname`, `resolv.conf` as the container sees them, and
/// for a detached one `log` (its output) and `shim.log`; `exit` (the status, in decimal) once
/// it has ended.
#[derive(Debug, Clone)]
pub struct StateDir(PathBuf);

impl StateDir {
    pub fn path(&self) -> &Path {
        &self.0
    }

    pub fn create(&self) -> io::Result<()> {
        // Others have no business in the logs.
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.0)
    }

    pub fn log(&self) -> io::Result<File> {
        self.append("log")
    }

    pub fn shim_log(&self) -> io::Result<File> {
        self.append("shim.log")
    }

    pub fn write_exit(&self, status: u8) -> io::Result<()> {
        fs::write(self.0.join("exit"), format!("{status}\n"))
    }

    /// Removes the folder; one that is gone already is no error.
    pub fn remove(&self) -> io::Result<()> {
        match fs::remove_dir_all(&self.0) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }

    fn append(&self, name: &str) -> io::Result<File> {
        OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(self.0.join(name))
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
