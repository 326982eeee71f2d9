//! A Docker daemon for the test VMs: Debian's packages, unpacked into the cache. They are not
//! installed: that would start a daemon on this machine. They come from the suite whose Docker has
//! the modes and flags of today's ipvlan driver; runc, which is no daemon, is this machine's own.

use std::fs;
use std::path::PathBuf;

use anyhow::Result;

use crate::apt::Archive;
use crate::progress::step;
use crate::setup::cache;

const SUITE: &str = "trixie";
const PACKAGES: [&str; 3] = ["docker.io", "docker-cli", "containerd"];

/// The root of what is unpacked; downloaded if the cache lacks it.
pub fn ready() -> Result<PathBuf> {
    let folder = cache()?.join(format!("docker-{SUITE}"));
    if !folder.is_dir() {
        // Whatever fails in here leaves nothing that looks like it.
        let work = tempfile::Builder::new()
            .prefix(".docker-")
            .tempdir_in(cache()?)?;
        step("Fetching Docker for the tests", |step| {
            let archive = Archive::open(work.path().join("apt"), &[SUITE], step)?;
            let root = work.path().join("root");
            for package in PACKAGES {
                archive.unpack(package, &root, step)?;
            }
            Ok(fs::rename(root, &folder)?)
        })?;
    }
    Ok(folder)
}
