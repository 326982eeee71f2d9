//! IPAM plugins, run as the specification says: found in `CNI_PATH`, with the same environment
//! and the same standard input.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::Value;

use super::Result;
use super::error::{Code, Error};
use super::result::{Addressing, Success};

/// The plugin that asks a DHCP server, by a daemon of its own.
pub(super) const DHCP: &str = "dhcp";

#[derive(Debug, Clone)]
pub(super) struct Delegate {
    name: String,
    path: PathBuf,
}

impl Delegate {
    pub fn find(name: &str) -> Result<Self> {
        let unusable =
            |allowed: &str| Err(Error::invalid("ipam.type", format!("{name:?}"), allowed));
        if name.contains('/') {
            return unusable("it is the name of a plugin, not a path");
        }
        let folders = std::env::var_os("CNI_PATH").unwrap_or_default();
        let found = std::env::split_paths(&folders)
            .map(|folder| folder.join(name))
            .find(|path| path.is_file());
        match found {
            Some(path) => Ok(Self {
                name: name.to_owned(),
                path,
            }),
            None => unusable(&format!(
                "no such plugin in CNI_PATH ({})",
                folders.to_string_lossy()
            )),
        }
    }

    /// Does it ask through the container's interface, which must be there first?
    pub fn asks_through_interface(&self) -> bool {
        self.name == DHCP
    }

    /// The addresses that `ADD` gives.
    pub fn add(&self, input: &[u8]) -> Result<Addressing> {
        let output = self.call("ADD", input)?;
        let given = self.read(&output).and_then(|result: Success| {
            if result.ips.is_empty() {
                Err(self.failed("it gave no address"))
            } else {
                Ok(result.addressing())
            }
        });
        // What cannot be used must not stay leased.
        given.map_err(|error| error.and(self.run("DEL", input)))
    }

    /// Runs a command that has no result.
    pub fn run(&self, command: &str, input: &[u8]) -> Result<()> {
        self.call(command, input).map(drop)
    }

    fn call(&self, command: &str, input: &[u8]) -> Result<Vec<u8>> {
        let mut child = Command::new(&self.path)
            .env("CNI_COMMAND", command)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| self.failed(error))?;
        let written = match child.stdin.take() {
            Some(mut stdin) => stdin.write_all(input),
            None => Ok(()),
        };
        let output = child
            .wait_with_output()
            .map_err(|error| self.failed(error))?;
        if output.status.success() {
            // One that needs no input may close it early.
            return Ok(output.stdout);
        }
        let told: Option<Value> = serde_json::from_slice(&output.stdout).ok();
        let told = told.as_ref().and_then(|told| {
            let code = told["code"].as_u64()?;
            Some((code, told["msg"].as_str()?, told["details"].as_str()))
        });
        Err(match told {
            Some((code, message, details)) => Error {
                code: Code::Other(code),
                message: format!("IPAM plugin {}: {message}", self.name),
                details: details.unwrap_or_default().to_owned(),
            },
            None => match written {
                Ok(()) => self.failed(format!("it ended with {}", output.status)),
                Err(error) => self.failed(error),
            },
        })
    }

    fn read(&self, output: &[u8]) -> Result<Success> {
        serde_json::from_slice(output).map_err(|error| {
            Error::new(
                Code::Decode,
                format!("the result of IPAM plugin {}: {error}", self.name),
            )
        })
    }

    fn failed(&self, why: impl ToString) -> Error {
        let why = why.to_string();
        Error::new(Code::Failed, format!("IPAM plugin {}: {why}", self.name))
    }
}
