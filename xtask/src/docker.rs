//! A Docker daemon for the test VMs: Debian's packages, unpacked into the cache. They are not
//! installed: that would start a daemon on this machine. They come from the suite whose Docker has
//! the modes and flags of today's ipvlan driver; runc, which is no daemon, is this machine's own.

use std::path::PathBuf;

use anyhow::Result;

use crate::apt;

/// The root of what is unpacked; downloaded if the cache lacks it.
pub fn ready() -> Result<PathBuf> {
    apt::unpacked(
        "docker",
        "trixie",
        &["docker.io", "docker-cli", "containerd"],
    )
}
