//! Ending a container from outside.

use std::io;
use std::time::Duration;

use nix::sys::signal::Signal;
use thiserror::Error;

use super::container::Status;
use super::records::{Record, RecordError};

/// How long a supervisor may take to release what its dead container held.
const RELEASE: Duration = Duration::from_secs(30);

#[derive(Debug, Error)]
pub enum EndError {
    #[error("container {0} is not running")]
    NotRunning(String),
    #[error("container {0} is running: stop it first, or remove it by force")]
    Running(String),
    #[error("cannot signal container {name}: {error}")]
    Signal { name: String, error: io::Error },
    #[error("container {name} has ended, but its supervisor, process {pid}, does not")]
    Supervisor { name: String, pid: i32 },
    #[error(transparent)]
    Record(#[from] RecordError),
}

impl Record {
    /// Sends a signal to the container's command; KILL ends the whole container.
    pub fn kill(&self, signal: Signal) -> Result<(), EndError> {
        match self.status() {
            Status::Running if self.signal(signal)? => Ok(()),
            _ => Err(EndError::NotRunning(self.container.spec.name.clone())),
        }
    }

    /// Sends `signal`, and KILL if the container still runs after `patience` (forever if there is
    /// none). Returns when what it held is released. One that has ended is left as it is.
    pub fn stop(&self, signal: Signal, patience: Option<Duration>) -> Result<(), EndError> {
        let supervisor = self.container.supervisor;
        if self.signal(signal)? && !self.wait_for(patience)? {
            self.signal(Signal::SIGKILL)?;
        }
        match supervisor
            .wait(Some(RELEASE))
            .map_err(|error| self.failed(error))?
        {
            true => Ok(()),
            false => Err(EndError::Supervisor {
                name: self.container.spec.name.clone(),
                pid: supervisor.pid,
            }),
        }
    }

    /// Removes a container that has ended; with `force`, ends it first.
    pub fn discard(self, force: bool) -> Result<(), EndError> {
        match self.status() {
            Status::Created | Status::Running if !force => {
                return Err(EndError::Running(self.container.spec.name));
            }
            Status::Created | Status::Running => {
                self.stop(Signal::SIGKILL, Some(RELEASE))?;
            }
            // Its supervisor may still be about to release its network.
            Status::Exited(_) | Status::Dead => self.stop(Signal::SIGKILL, None)?,
        }
        Ok(self.remove()?)
    }

    /// Whether the init was there to be signalled.
    fn signal(&self, signal: Signal) -> Result<bool, EndError> {
        match &self.container.init {
            Some(init) => init.signal(signal).map_err(|error| self.failed(error)),
            None => Ok(false),
        }
    }

    fn wait_for(&self, patience: Option<Duration>) -> Result<bool, EndError> {
        match &self.container.init {
            Some(init) => init.wait(patience).map_err(|error| self.failed(error)),
            None => Ok(true),
        }
    }

    fn failed(&self, error: io::Error) -> EndError {
        EndError::Signal {
            name: self.container.spec.name.clone(),
            error,
        }
    }
}
