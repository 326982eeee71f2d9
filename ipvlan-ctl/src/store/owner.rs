use std::fs;
use std::path::PathBuf;

use super::StoreError;
use crate::kernel;

/// A process for as long as it lives: a pid alone may be another's later.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    pub pid: u32,
    /// Clock ticks since boot.
    pub started: u64,
    pub boot: String,
}

impl Owner {
    /// The calling process.
    pub fn current() -> Result<Self, StoreError> {
        let pid = std::process::id();
        Ok(Self {
            pid,
            started: started(pid)?.ok_or_else(|| {
                StoreError::Corrupt(format!("/proc knows no process {pid}, which is this one"))
            })?,
            boot: boot_id()?,
        })
    }

    pub fn is_alive(&self) -> Result<bool, StoreError> {
        Ok(self.boot == boot_id()? && started(self.pid)? == Some(self.started))
    }
}

/// Identifier of this boot of the machine.
pub fn boot_id() -> Result<String, StoreError> {
    let path = PathBuf::from("/proc/sys/kernel/random/boot_id");
    match fs::read_to_string(&path) {
        Ok(id) => Ok(id.trim().to_owned()),
        Err(source) => Err(StoreError::Proc { path, source }),
    }
}

/// [`kernel::started`], with the store's error.
fn started(pid: u32) -> Result<Option<u64>, StoreError> {
    kernel::started(pid).map_err(|source| StoreError::Proc {
        path: PathBuf::from(format!("/proc/{pid}/stat")),
        source,
    })
}
