//! Starting a daemon where a command needs one and none runs.

use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::SigSet;
use thiserror::Error;

use super::{AskError, Home};

#[derive(Debug, Error)]
pub enum LaunchError {
    #[error(transparent)]
    Ask(#[from] AskError),
    #[error("cannot start a daemon: {0}")]
    Start(io::Error),
    #[error("the daemon that was started does not answer; see {}", .0.display())]
    Silent(PathBuf),
}

/// How long a daemon may take to be ready.
const PATIENCE: Duration = Duration::from_secs(20);

/// How long one that has ended is not started again.
const AGAIN: Duration = Duration::from_secs(1);

impl Home {
    /// Returns when a daemon knows of all that has been changed: the one that runs, or else
    /// one that is started with these words and outlives the caller.
    pub fn ensure(&self, words: &[OsString]) -> Result<(), LaunchError> {
        match self.refresh() {
            Err(AskError::NotRunning) => {}
            other => return Ok(other?),
        }
        let deadline = Instant::now() + PATIENCE;
        let mut daemon = self.start(words).map_err(LaunchError::Start)?;
        let mut again_at = Instant::now() + AGAIN;
        loop {
            match self.refresh() {
                // It is not ready yet, or another one was quicker and is not.
                Err(AskError::NotRunning) if Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(5));
                }
                Err(AskError::NotRunning) => return Err(LaunchError::Silent(self.log())),
                other => return Ok(other?),
            }
            let ended = daemon.try_wait().map_err(LaunchError::Start)?.is_some();
            // Another one that was just ending may have been in its way.
            if ended && Instant::now() > again_at {
                daemon = self.start(words).map_err(LaunchError::Start)?;
                again_at = Instant::now() + AGAIN;
            }
        }
    }

    /// It is a child of ours until we end, and then init's: we do not wait for it.
    fn start(&self, words: &[OsString]) -> io::Result<Child> {
        self.make()?;
        let log = self.open("daemon.log")?;
        let mut command = Command::new("/proc/self/exe");
        command
            .arg0("ipvlan-ctl")
            .args(words)
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        // SAFETY: all three calls are async-signal-safe.
        unsafe {
            command.pre_exec(|| {
                crate::runtime::close_on_exec()?;
                // Whoever runs a container has signals blocked.
                SigSet::empty().thread_set_mask()?;
                nix::unistd::setsid()?;
                Ok(())
            });
        }
        command.spawn()
    }
}
