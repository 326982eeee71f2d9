//! What keeps a namespace alive beside our own sockets in it.
//!
//! Those would keep it for ever, with its addresses; so they are closed when the process that
//! it is known by ends, or the file is removed, unless another process is in it still.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::Notify;
use tokio::task::AbortHandle;

/// Tells when one of the watched may have gone.
#[derive(Debug)]
pub(super) struct Keepers {
    ended: Arc<Notify>,
    /// Watches the folders of files. A folder is watched once, and until the daemon ends.
    files: AsyncFd<OwnedFd>,
}

/// A watch for one namespace; it ends with the value.
#[derive(Debug)]
pub(super) struct Watch(Option<AbortHandle>);

impl Drop for Watch {
    fn drop(&mut self) {
        if let Some(task) = &self.0 {
            task.abort();
        }
    }
}

impl Keepers {
    pub(super) fn new() -> io::Result<Self> {
        let files = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
        Ok(Self {
            ended: Arc::default(),
            files: readable(files)?,
        })
    }

    /// Watches what a namespace is known by: a process (`/proc/PID/ns/net`) or a file.
    pub(super) fn watch(&self, path: &Path) -> io::Result<Watch> {
        match process_of(path) {
            Some(pid) => self.watch_process(pid),
            None => self.watch_file(path),
        }
    }

    fn watch_process(&self, pid: Pid) -> io::Result<Watch> {
        let process = readable(pidfd_open(pid, PidfdFlags::empty())?)?;
        let ended = self.ended.clone();
        let task = tokio::spawn(async move {
            // A pidfd becomes readable when its process ends.
            if process.readable().await.is_ok() {
                ended.notify_one();
            }
        });
        Ok(Watch(Some(task.abort_handle())))
    }

    fn watch_file(&self, path: &Path) -> io::Result<Watch> {
        let folder = path.parent().unwrap_or(Path::new("/"));
        let away = WatchFlags::DELETE | WatchFlags::MOVED_FROM;
        inotify::add_watch(self.files.get_ref(), folder, away)?;
        Ok(Watch(None))
    }

    /// Returns when it is time to look. May be cancelled.
    pub(super) async fn changed(&self) {
        tokio::select! {
            () = self.ended.notified() => {}
            ready = self.files.readable() => {
                if let Ok(mut ready) = ready {
                    // What happened is seen by looking at the files themselves.
                    let mut events = [0; 4096];
                    while rustix::io::read(self.files.get_ref(), &mut events).is_ok() {}
                    ready.clear_ready();
                }
            }
        }
    }
}

/// The process of `/proc/PID/ns/net`.
fn process_of(path: &Path) -> Option<Pid> {
    let pid = path.strip_prefix("/proc").ok()?.iter().next()?;
    Pid::from_raw(pid.to_str()?.parse().ok()?)
}

fn readable(descriptor: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` is one open descriptor until it is dropped, and nothing takes it out
    // of the `AsyncFd`.
    Ok(unsafe { AsyncFd::register_with_interest(descriptor, Interest::READABLE) }?)
}
