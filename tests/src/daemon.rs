//! A running `ipvlan-ctl daemon`.

use std::process::{Command, ExitStatus};
use std::time::{Duration, Instant};

use crate::{Running, ctl_command, ctl_output};

/// Waits until `condition` holds; panics with `what` where it never does.
pub fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(90);
    while !condition() {
        assert!(Instant::now() < deadline, "never: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// A daemon that ends with the value.
#[derive(Debug)]
pub struct Daemon(Running);

impl Daemon {
    /// Starts one and waits until it is ready.
    pub fn start() -> Self {
        Self::start_by(ctl_command(["daemon"]))
    }

    /// [`Daemon::start`] by a command of the test's own.
    pub fn start_by(mut command: Command) -> Self {
        let daemon = Self(Running::start(&mut command));
        eventually("the daemon is ready", || {
            ctl_output("daemon status").status.success()
        });
        daemon
    }

    pub fn signal(&self, signal: &str) {
        self.0.signal(signal);
    }

    /// Sends a signal and waits for the end.
    pub fn end_by(&mut self, signal: &str) -> ExitStatus {
        self.0.end_by(signal)
    }
}
