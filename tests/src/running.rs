//! A process that a test started.

use std::process::{Child, Command, ExitStatus};

/// It is killed with the value, if it has not ended by then.
#[derive(Debug)]
pub struct Running(pub Child);

impl Running {
    pub fn start(command: &mut Command) -> Self {
        match command.spawn() {
            Ok(child) => Self(child),
            Err(error) => panic!("{command:?} does not start: {error}"),
        }
    }

    pub fn signal(&self, signal: &str) {
        let pid = self.0.id().to_string();
        let sent = Command::new("kill").args(["-s", signal, &pid]).status();
        assert!(sent.expect("kill starts").success());
    }

    /// Sends a signal and waits for the end.
    pub fn end_by(&mut self, signal: &str) -> ExitStatus {
        self.signal(signal);
        self.0.wait().expect("it can be waited for")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It has ended already where all went well.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
