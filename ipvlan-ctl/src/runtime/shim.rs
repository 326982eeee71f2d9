//! A supervisor that outlives `run -d`: `ipvlan-ctl _shim`.
//!
//! It takes one request on its standard input and answers on its standard output, once, when
//! the command has been executed or could not be. Its standard error is `run`'s until the
//! container has a folder, and then the `shim.log` in it.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode, Stdio};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::keeper::close_on_exec;
use super::supervisor::RunError;

/// The hidden subcommand that leads to [`main`].
pub const SUBCOMMAND: &str = "_shim";

/// What became of a request.
#[derive(Debug, Serialize, Deserialize)]
pub enum Outcome {
    /// The command has been executed, and the shim watches over it.
    Started,
    Failed {
        /// What `run` is to exit with.
        status: u8,
        /// One line.
        message: String,
    },
}

/// Hands `request` to a new shim; returns when the command runs or has failed to.
pub fn start<R: Serialize>(request: &R) -> io::Result<Outcome> {
    let mut command = Command::new("/proc/self/exe");
    command
        .arg0("ipvlan-ctl")
        .arg(SUBCOMMAND)
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    // SAFETY: both calls are async-signal-safe.
    unsafe {
        command.pre_exec(|| {
            close_on_exec()?;
            nix::unistd::setsid()?;
            Ok(())
        });
    }
    let mut shim = command.spawn()?;
    let (Some(mut stdin), Some(mut stdout)) = (shim.stdin.take(), shim.stdout.take()) else {
        unreachable!("both were asked for");
    };
    stdin.write_all(&serde_json::to_vec(request)?)?;
    drop(stdin);
    let mut answer = Vec::new();
    stdout.read_to_end(&mut answer)?;
    if answer.is_empty() {
        let status = shim.wait()?;
        return Err(io::Error::other(format!(
            "the shim ended without an answer ({status})"
        )));
    }
    // It is init's child from now on: we do not wait for it.
    Ok(serde_json::from_slice(&answer)?)
}

/// The shim itself. `supervise` runs the request to its end, and calls its second argument
/// when the command has been executed.
pub fn main<R: DeserializeOwned>(
    supervise: impl FnOnce(R, &mut dyn FnMut()) -> Result<u8, RunError>,
) -> ExitCode {
    let result = (|| {
        let request = serde_json::from_reader(io::stdin().lock())?;
        let mut started = false;
        let result = supervise(request, &mut || {
            started = true;
            if let Err(e) = answer(&Outcome::Started) {
                // `run` has been killed meanwhile; the container is there all the same.
                eprintln!("ipvlan-ctl: cannot answer: {e}");
            }
        });
        match result {
            Ok(_) => Ok(ExitCode::SUCCESS),
            Err(e) if started => Err(io::Error::other(e)),
            Err(e) => answer(&Outcome::Failed {
                status: e.exit_status(),
                message: e.to_string(),
            })
            .map(|()| ExitCode::FAILURE),
        }
    })();
    result.unwrap_or_else(|e| {
        eprintln!("ipvlan-ctl: {e}");
        ExitCode::FAILURE
    })
}

/// Sends the one answer and lets go of the pipes of `run`.
fn answer(outcome: &Outcome) -> io::Result<()> {
    let sent = io::stdout().write_all(&serde_json::to_vec(outcome)?);
    let sent = sent.and_then(|()| io::stdout().flush());
    let null = File::options().read(true).write(true).open("/dev/null")?;
    nix::unistd::dup2_stdin(&null)?;
    nix::unistd::dup2_stdout(&null)?;
    sent
}
