//! The daemon's files in the run directory.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::DaemonError;

/// Where a daemon and those who ask it meet: `daemon.sock`, `daemon.lock`, and `daemon.log`,
/// the log of one that was started on demand.
#[derive(Debug, Clone)]
pub struct Home(PathBuf);

/// Held by the one daemon of a run directory, and let go by the kernel however it ends.
#[derive(Debug)]
pub(super) struct Instance(#[expect(dead_code, reason = "held, not read")] File);

impl Home {
    pub fn new(run_dir: &Path) -> Self {
        Self(run_dir.to_owned())
    }

    pub(super) fn socket(&self) -> PathBuf {
        self.0.join("daemon.sock")
    }

    pub(super) fn log(&self) -> PathBuf {
        self.0.join("daemon.log")
    }

    pub(super) fn claim(&self) -> Result<Instance, DaemonError> {
        let path = self.0.join("daemon.lock");
        let failed = |error| DaemonError::File {
            path: path.clone(),
            error,
        };
        self.make().map_err(failed)?;
        let lock = self.open("daemon.lock").map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => Ok(Instance(lock)),
            Err(TryLockError::WouldBlock) => Err(DaemonError::Running(self.0.clone())),
            Err(TryLockError::Error(error)) => Err(failed(error)),
        }
    }

    pub(super) fn make(&self) -> io::Result<()> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.0)
    }

    /// To be written at its end.
    pub(super) fn open(&self, name: &str) -> io::Result<File> {
        OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(self.0.join(name))
    }
}
