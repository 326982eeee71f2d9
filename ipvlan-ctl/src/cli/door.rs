//! The executable as other engines call it, by a name or from a folder of its own.
//!
//! They do so for every container. So these command lines are parsed by themselves, and an empty
//! one not at all: to set up the words of the whole program costs as much as joining a network.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

use super::Places;
use crate::adapters::{cni, netavark};

/// Which engine has called.
#[derive(Debug)]
pub(super) enum Door {
    Cni,
    Netavark,
}

#[derive(Debug, Parser)]
#[command(name = "ipvlan-ctl-cni", version)]
struct Cni {
    #[command(flatten)]
    places: Places,
}

#[derive(Debug, Parser)]
#[command(name = "ipvlan-ctl", version)]
struct Netavark {
    #[command(flatten)]
    places: Places,
    #[command(subcommand)]
    verb: netavark::Verb,
}

impl Door {
    /// `None` where a person has called.
    pub fn called() -> Option<Self> {
        let path = PathBuf::from(std::env::args_os().next()?);
        match path.file_name()?.to_str()? {
            "ipvlan-ctl-cni" => Some(Self::Cni),
            // A plugin there is called as its driver, so whatever the user calls it.
            _ if path.parent()?.file_name()? == "netavark" => Some(Self::Netavark),
            _ => None,
        }
    }

    pub fn run(self) -> anyhow::Result<ExitCode> {
        match self {
            Self::Cni => {
                let places = Places::without_words().unwrap_or_else(|| Cni::parse().places);
                Ok(be_cni(&places.absolute()?))
            }
            Self::Netavark => {
                let call = Netavark::parse();
                Ok(be_netavark(call.verb, &call.places.absolute()?))
            }
        }
    }
}

pub(super) fn be_cni(places: &Places) -> ExitCode {
    cni::main(
        |request| Ok(places.daemon().answer_cni(places.place()?, request)?),
        |work| places.with_engine(async |engine| Ok(work.run(engine).await)),
    )
}

pub(super) fn be_netavark(verb: netavark::Verb, places: &Places) -> ExitCode {
    netavark::main(verb, |work| {
        places.with_engine(async |engine| work.run(engine).await)
    })
}
