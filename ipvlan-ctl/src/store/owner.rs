use std::fs;
use std::path::PathBuf;

use super::StoreError;

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

/// When the process began; `None` if there is none or it is a zombie.
fn started(pid: u32) -> Result<Option<u64>, StoreError> {
    let path = PathBuf::from(format!("/proc/{pid}/stat"));
    let stat = match fs::read_to_string(&path) {
        Ok(stat) => stat,
        Err(error)
            if error.kind() == std::io::ErrorKind::NotFound
                || error.raw_os_error() == Some(libc::ESRCH) =>
        {
            return Ok(None);
        }
        Err(source) => return Err(StoreError::Proc { path, source }),
    };
    // Field 2, the command, is in parentheses and may hold anything; 3 follows it.
    let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
    let mut fields = fields.split_ascii_whitespace();
    if matches!(fields.next(), Some("Z" | "X")) {
        return Ok(None);
    }
    match fields.nth(18).and_then(|field| field.parse().ok()) {
        Some(started) => Ok(Some(started)),
        None => Err(StoreError::Corrupt(format!(
            "{} has no start time",
            path.display()
        ))),
    }
}
