//! A running `ipvlan-ctl daemon`.

use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

use crate::{ctl_command, ctl_output};

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
pub struct Daemon {
    child: Option<Child>,
}

impl Daemon {
    /// Starts one and waits until it is ready.
    pub fn start() -> Self {
        Self::start_by(ctl_command(["daemon"]))
    }

    /// [`Daemon::start`] by a command of the test's own.
    pub fn start_by(mut command: Command) -> Self {
        let child = command.spawn().expect("ipvlan-ctl starts");
        let daemon = Self { child: Some(child) };
        eventually("the daemon is ready", || {
            ctl_output("daemon status").status.success()
        });
        daemon
    }

    pub fn signal(&self, signal: &str) {
        let pid = self.child.as_ref().expect("it runs").id().to_string();
        let sent = Command::new("kill").args(["-s", signal, &pid]).status();
        assert!(sent.expect("kill starts").success());
    }

    /// Sends a signal and waits for the end.
    pub fn end_by(mut self, signal: &str) -> ExitStatus {
        self.signal(signal);
        let mut child = self.child.take().expect("it runs");
        child.wait().expect("it can be waited for")
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
