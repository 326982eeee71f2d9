//! Network namespaces, held by file descriptor.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;

use nix::sched::{CloneFlags, setns};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use thiserror::Error;

#[derive(Debug, Error)]
pub enum NetnsError {
    #[error("cannot open network namespace {path}: {source}")]
    Open { path: PathBuf, source: io::Error },
    #[error("{0} is not a network namespace")]
    NotNetns(PathBuf),
    #[error("cannot enter network namespace {path}: {source}")]
    Enter { path: PathBuf, source: nix::Error },
    #[error("cannot read the cookie of network namespace {path}: {source}")]
    Cookie { path: PathBuf, source: io::Error },
    #[error("the thread that entered network namespace {0} panicked")]
    Panicked(PathBuf),
}

/// Tells namespaces apart, within one boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NetnsIdentity {
    /// `SO_NETNS_COOKIE` of its sockets: never given twice in one boot.
    pub cookie: u64,
    /// Inode of its file; given again once the namespace is gone.
    pub inode: u64,
}

impl NetnsIdentity {
    /// Of no namespace: cookies begin at 1.
    pub const NONE: Self = Self {
        cookie: 0,
        inode: 0,
    };

    /// Does the path lead to it? Holds for as long as the namespace is held, since inodes are
    /// given again after that.
    pub fn is_at(&self, path: &Path) -> bool {
        fs::metadata(path).is_ok_and(|file| file.ino() == self.inode)
    }
}

/// An open network namespace. Holding it keeps the namespace alive.
#[derive(Debug)]
pub struct Netns {
    file: File,
    path: PathBuf,
}

impl Netns {
    /// Opens `/proc/PID/ns/net`, a bind mount such as `/run/netns/NAME`, or the like.
    pub fn open(path: &Path) -> Result<Self, NetnsError> {
        let file = File::open(path).map_err(|source| NetnsError::Open {
            path: path.to_owned(),
            source,
        })?;
        let stat = nix::sys::statfs::fstatfs(&file).map_err(|e| NetnsError::Open {
            path: path.to_owned(),
            source: e.into(),
        })?;
        // A mount namespace is nsfs too; entering with CLONE_NEWNET refuses it later.
        if stat.filesystem_type() != nix::sys::statfs::NSFS_MAGIC {
            return Err(NetnsError::NotNetns(path.to_owned()));
        }
        Ok(Self {
            file,
            path: path.to_owned(),
        })
    }

    /// Opens the namespace that is known by this identity: by `path`, or where that leads
    /// elsewhere by now, by any process that is in it.
    pub fn find(identity: NetnsIdentity, path: &Path) -> Result<Option<Self>, NetnsError> {
        let mut paths = std::iter::once(path.to_owned()).chain(paths_of_processes()?);
        Ok(paths.find_map(|path| {
            // A process may end at any time, and its number come again.
            let netns = identity.is_at(&path).then(|| Self::open(&path))?.ok()?;
            (netns.identity().ok()? == identity).then_some(netns)
        }))
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn identity(&self) -> Result<NetnsIdentity, NetnsError> {
        self.identity_by(self.run(own_cookie)?)
    }

    /// The identity, by the cookie that was read inside.
    pub(super) fn identity_by(&self, cookie: io::Result<u64>) -> Result<NetnsIdentity, NetnsError> {
        let failed = |source| NetnsError::Cookie {
            path: self.path.clone(),
            source,
        };
        let inode = self.file.metadata().map_err(failed)?.ino();
        let cookie = cookie.map_err(failed)?;
        Ok(NetnsIdentity { cookie, inode })
    }

    /// The namespace of the calling thread.
    pub fn own() -> Result<Self, NetnsError> {
        Self::open(Path::new("/proc/thread-self/ns/net"))
    }

    /// Is it the namespace of the calling thread?
    pub fn is_own(&self) -> Result<bool, NetnsError> {
        let own = Self::own()?;
        let inode = |netns: &Self| {
            netns
                .file
                .metadata()
                .map(|metadata| (metadata.dev(), metadata.ino()))
                .map_err(|source| NetnsError::Open {
                    path: netns.path.clone(),
                    source,
                })
        };
        Ok(inode(self)? == inode(&own)?)
    }

    /// Runs `work` on a thread of its own inside the namespace: an async worker must never
    /// change its namespace.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, NetnsError> {
        std::thread::scope(|scope| {
            scope
                .spawn(|| {
                    setns(&self.file, CloneFlags::CLONE_NEWNET).map_err(|source| {
                        NetnsError::Enter {
                            path: self.path.clone(),
                            source,
                        }
                    })?;
                    Ok(work())
                })
                .join()
                .unwrap_or_else(|_| Err(NetnsError::Panicked(self.path.clone())))
        })
    }
}

/// The namespaces of all processes.
fn paths_of_processes() -> Result<impl Iterator<Item = PathBuf>, NetnsError> {
    let processes = fs::read_dir("/proc").map_err(|source| NetnsError::Open {
        path: "/proc".into(),
        source,
    })?;
    Ok(processes
        .filter_map(|entry| entry.ok())
        .filter(|entry| entry.file_name().as_encoded_bytes()[0].is_ascii_digit())
        .map(|entry| entry.path().join("ns/net")))
}

/// The cookie of the calling thread's namespace.
pub(super) fn own_cookie() -> io::Result<u64> {
    let socket: OwnedFd = socket(
        AddressFamily::Unix,
        SockType::Datagram,
        SockFlag::SOCK_CLOEXEC,
        None,
    )?;
    let mut cookie = 0_u64;
    let mut length = size_of::<u64>() as libc::socklen_t;
    // SAFETY: `cookie` is writable for the `length` bytes given, and the socket is open.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &mut length,
        )
    };
    nix::errno::Errno::result(result)?;
    Ok(cookie)
}

impl AsFd for Netns {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::{Netlink, Slave};

    /// A namespace that lives as long as the sender is held.
    fn new_netns() -> (Netns, std::sync::mpsc::Sender<()>) {
        let (opened, netns) = std::sync::mpsc::channel();
        let (keep, until) = std::sync::mpsc::channel::<()>();
        std::thread::spawn(move || {
            nix::sched::unshare(CloneFlags::CLONE_NEWNET).unwrap();
            let own = Netns::open(Path::new("/proc/thread-self/ns/net")).unwrap();
            opened.send(own).unwrap();
            let _ = until.recv();
        });
        (netns.recv().unwrap(), keep)
    }

    #[test]
    fn a_file_that_is_no_namespace_is_refused() {
        assert!(matches!(
            Netns::open(Path::new("/proc/self/status")),
            Err(NetnsError::NotNetns(_))
        ));
    }

    #[tokio::test]
    #[ignore = "needs root"]
    async fn a_namespace_keeps_its_number_and_identity() {
        let (netns, _keep) = new_netns();
        let own = Netns::open(Path::new("/proc/thread-self/ns/net")).unwrap();
        assert!(own.is_own().unwrap());
        assert!(!netns.is_own().unwrap());
        assert_ne!(netns.identity().unwrap(), own.identity().unwrap());
        assert_eq!(netns.identity().unwrap(), netns.identity().unwrap());

        let host = Netlink::open().unwrap();
        let nsid = host.nsid(&netns).await.unwrap();
        assert_eq!(host.nsid(&netns).await.unwrap(), nsid);
        assert_eq!(
            Netlink::open_in(&netns).unwrap().free_name().await.unwrap(),
            "eth0"
        );
        let lo = Netlink::open_in(&netns).unwrap().links().await.unwrap();
        assert_eq!(lo.len(), 1);
        assert!(lo[0].view.loopback && !lo[0].up);
        for (nsid, index) in [(nsid, 1), (nsid, 100_000), (nsid + 1000, 100_000)] {
            let slave = Slave {
                nsid,
                index,
                parent: 2,
            };
            assert_eq!(host.slave(slave).await.unwrap(), None);
        }
    }
}
