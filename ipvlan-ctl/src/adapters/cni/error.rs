use serde_json::{Value, json};
use thiserror::Error as ThisError;

use super::result::Version;
use crate::engine::EngineError;
use crate::kernel::NetnsError;

/// The specification's error codes; from 100 on they are the plugin's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Code {
    IncompatibleVersion,
    UnsupportedField,
    UnknownContainer,
    Environment,
    Io,
    Decode,
    Config,
    TryAgain,
    Unavailable,
    Failed,
    /// `CHECK` found something.
    Damaged,
    /// A delegate's.
    Other(u64),
}

impl Code {
    fn number(self) -> u64 {
        match self {
            Self::IncompatibleVersion => 1,
            Self::UnsupportedField => 2,
            Self::UnknownContainer => 3,
            Self::Environment => 4,
            Self::Io => 5,
            Self::Decode => 6,
            Self::Config => 7,
            Self::TryAgain => 11,
            Self::Unavailable => 50,
            Self::Failed => 100,
            Self::Damaged => 101,
            Self::Other(number) => number,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, ThisError)]
#[error("{message}")]
pub(super) struct Error {
    pub code: Code,
    pub message: String,
    pub details: String,
}

impl Error {
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            details: String::new(),
        }
    }

    /// A wrong field of the configuration.
    pub fn invalid(field: &str, value: impl ToString, allowed: &str) -> Self {
        let value = value.to_string();
        Self::new(Code::Config, format!("invalid {field} {value}: {allowed}"))
    }

    /// The error together with what went wrong in taking back what had been done.
    pub fn and(mut self, undone: Result<(), Self>) -> Self {
        if let Err(undone) = undone {
            self.details = format!("taking it back failed too: {undone}");
        }
        self
    }

    pub fn to_json(&self, version: Version) -> Value {
        let mut json = json!({
            "cniVersion": version.text(),
            "code": self.code.number(),
            "msg": self.message.replace('\n', " "),
        });
        if !self.details.is_empty() {
            json["details"] = self.details.as_str().into();
        }
        json
    }
}

impl From<EngineError> for Error {
    fn from(error: EngineError) -> Self {
        let error = match error {
            EngineError::Ipam(other) => match other.downcast::<Self>() {
                Ok(own) => return *own,
                Err(other) => EngineError::Ipam(other),
            },
            other => other,
        };
        let code = match &error {
            EngineError::Invalid(bad) if bad.field == "--ifname" => Code::Environment,
            EngineError::Invalid(_) | EngineError::ParentGone { .. } => Code::Config,
            EngineError::Netns(NetnsError::Open { .. } | NetnsError::NotNetns(_)) => {
                Code::UnknownContainer
            }
            EngineError::NetworkBusy(_) | EngineError::EndpointBusy(_) | EngineError::Find(_) => {
                Code::TryAgain
            }
            EngineError::Store(_) | EngineError::Read { .. } => Code::Io,
            _ => Code::Failed,
        };
        let mut error = match error {
            EngineError::Invalid(mut bad) => {
                bad.field = field(&bad.field).to_owned();
                Self::new(code, bad.to_string())
            }
            other => Self::new(code, other.to_string()),
        };
        if error.code == Code::UnknownContainer {
            error.details = "CNI_NETNS names no network namespace".into();
        }
        error
    }
}

impl From<anyhow::Error> for Error {
    fn from(error: anyhow::Error) -> Self {
        match error.downcast::<Self>() {
            Ok(error) => error,
            Err(error) => match error.downcast::<EngineError>() {
                Ok(error) => error.into(),
                Err(error) => Self::new(Code::Failed, format!("{error:#}")),
            },
        }
    }
}

/// What a flag of the command line is called in a CNI configuration.
fn field(flag: &str) -> &str {
    match flag {
        "-o parent" => "master",
        "-o ipvlan_mode" => "mode",
        "-o ipvlan_flag" => "flag",
        "-o com.docker.network.driver.mtu" | "--mtu" => "mtu",
        "-o host_access" => "hostAccess",
        "-o shared_parent" => "sharedParent",
        "-o link_in_container" => "linkInContainer",
        "--internal" => "internal",
        "--subnet" => "ipam.subnets.subnet",
        "--gateway" => "ipam.subnets.gateway",
        "--ip-range" => "ipam.subnets.range",
        "--ifname" => "CNI_IFNAME",
        "--name" => "CNI_CONTAINERID",
        "--alias" => "runtimeConfig.aliases",
        other => other,
    }
}
