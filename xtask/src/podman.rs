//! Podman for the test VMs, with a netavark that has plugins, which this machine's suite does not have
//! yet: a later suite's, unpacked into the cache as a root of its own with the libraries that it is
//! built for.

use std::path::PathBuf;

use anyhow::Result;

use crate::apt;

const PACKAGES: [&str; 34] = [
    "podman",
    "netavark",
    "conmon",
    "crun",
    "golang-github-containers-common",
    // The links that make a root of it: /lib64, /bin.
    "base-files",
    "libc6",
    "libgcc-s1",
    "libacl1",
    "libassuan9",
    "libatomic1",
    "libattr1",
    "libaudit1",
    "libbsd0",
    "libbz2-1.0",
    "libcap-ng0",
    "libcap2",
    "libcrypt1",
    "libglib2.0-0t64",
    "libgpg-error0",
    "libgpgme11t64",
    "libmd0",
    "libpam0g",
    "libpcre2-8-0",
    "libseccomp2",
    "libselinux1",
    "libsemanage2",
    "libsepol2",
    "libsqlite3-0",
    "libsubid5",
    "libsystemd0",
    "libyajl2",
    "zlib1g",
    "busybox-static",
];

/// The root of what is unpacked; downloaded if the cache lacks it.
pub fn ready() -> Result<PathBuf> {
    apt::unpacked("podman", "trixie", &PACKAGES)
}
