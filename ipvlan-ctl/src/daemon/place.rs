use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// What must be the same for two processes if one is to do the other's work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    version: String,
    state_dir: PathBuf,
    pin_dir: PathBuf,
    /// Device and inode of the network namespace whose links are parents.
    host: (u64, u64),
}

impl Place {
    /// The caller's, with these folders.
    pub fn here(state_dir: PathBuf, pin_dir: PathBuf) -> io::Result<Self> {
        let host = fs::metadata("/proc/self/ns/net")?;
        Ok(Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            state_dir,
            pin_dir,
            host: (host.dev(), host.ino()),
        })
    }
}
