//! A call as the runtime makes it, and its answer. Both may pass between two processes: the plugin
//! is started for every container, and a daemon has at hand what the plugin must open first.

use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::process::ExitCode;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::call::{Call, Command, Variables};
use super::conf::{Head, IpamChoice};
use super::error::{Code, Error};
use super::result::Version;
use super::{Result, Work};

/// The environment and standard input.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Request {
    variables: Variables,
    input: String,
    /// Device and inode to which the path of the namespace leads, for the caller.
    netns: Option<(u64, u64)>,
}

/// What is to be printed, and whether the call failed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Answer {
    output: String,
    failed: bool,
}

impl Request {
    pub(super) fn read() -> Result<Self> {
        let mut input = Vec::new();
        io::stdin()
            .lock()
            .read_to_end(&mut input)
            .map_err(|error| Error::new(Code::Io, format!("stdin: {error}")))?;
        let variables = Variables::of_env();
        let input = match String::from_utf8(input) {
            Ok(input) => input,
            Err(_) if Command::of(&variables).is_ok_and(|asked| asked == Command::Version) => {
                String::new()
            }
            Err(error) => return Err(Error::new(Code::Decode, format!("stdin: {error}"))),
        };
        Ok(Self {
            netns: file_at(&variables),
            variables,
            input,
        })
    }

    /// Does it take more than this binary to answer?
    pub(super) fn is_of_the_host(&self) -> bool {
        Command::of(&self.variables).is_ok_and(|command| command != Command::Version)
    }

    /// The version of the specification that the answer has.
    pub(super) fn version(&self) -> Version {
        Head::parse(self.input.as_bytes()).map_or_else(|_| Version::default(), |head| head.version)
    }

    /// The work, or the answer where there is none to do.
    pub(super) fn work(self) -> Result<Work, Answer> {
        let latest = |error| Answer::refusal(Version::default(), &error);
        let command = Command::of(&self.variables).map_err(latest)?;
        if command == Command::Version {
            return Err(Answer::success(Some(versions(&self.input))));
        }
        let head = Head::parse(self.input.as_bytes()).map_err(latest)?;
        self.work_by(command, head)
    }

    fn work_by(self, command: Command, head: Head) -> Result<Work, Answer> {
        let version = head.version;
        command
            .check_version(version)
            .and_then(|()| Call::of(command, self.variables))
            .and_then(|call| Work::new(call, head, self.input.into_bytes()))
            .map_err(|error| Answer::refusal(version, &error))
    }

    /// [`Request::work`] for another process than the one that was called. `None` where only that
    /// one can do it: paths lead elsewhere here, or another's plugin is to be run from there.
    pub fn work_for_caller(self) -> Option<Result<Work, Answer>> {
        if file_at(&self.variables) != self.netns {
            return None;
        }
        // What is no call is the plugin's to refuse.
        let command = Command::of(&self.variables).ok()?;
        let head = Head::parse(self.input.as_bytes()).ok()?;
        match head.ipam {
            IpamChoice::Delegated(_) => None,
            IpamChoice::Ours | IpamChoice::None => Some(self.work_by(command, head)),
        }
    }
}

impl Answer {
    pub(super) fn success(output: Option<Value>) -> Self {
        Self {
            output: output.map_or_else(String::new, |output| output.to_string()),
            failed: false,
        }
    }

    pub(super) fn refusal(version: Version, error: &Error) -> Self {
        Self {
            output: error.to_json(version).to_string(),
            failed: true,
        }
    }

    pub(super) fn print(&self) -> ExitCode {
        let printed = match self.output.as_str() {
            "" => Ok(()),
            output => writeln!(io::stdout().lock(), "{output}"),
        };
        match printed {
            Ok(()) if !self.failed => ExitCode::SUCCESS,
            _ => ExitCode::FAILURE,
        }
    }
}

/// `None` where it leads nowhere, which the verb is to say, or may not mind.
fn file_at(variables: &Variables) -> Option<(u64, u64)> {
    let file = fs::metadata(variables.netns.as_deref()?).ok()?;
    Some((file.dev(), file.ino()))
}

/// The answer to `VERSION`. Its standard input may be anything.
fn versions(input: &str) -> Value {
    let asked = serde_json::from_str::<Value>(input).ok();
    let asked = asked
        .as_ref()
        .and_then(|conf| conf["cniVersion"].as_str())
        .filter(|asked| asked.parse::<Version>().is_ok())
        .unwrap_or(Version::default().text());
    json!({
        "cniVersion": asked,
        "supportedVersions": Version::ALL.map(Version::text),
    })
}
