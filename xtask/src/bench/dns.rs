//! How many questions a second the resolver answers.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use nix::unistd::geteuid;

use super::{measured, report};
use crate::apt;
use crate::cargo::build_ipvlan_bench;
use crate::setup;

/// Where the aardvark-dns comes from that it is measured beside.
const SUITE: &str = "bookworm";

#[derive(clap::Args)]
pub struct Args {
    /// Samples of each case
    #[arg(long, value_name = "N", default_value_t = 15)]
    rounds: usize,
}

/// Measures, and prints the table.
pub fn bench(args: Args) -> Result<ExitCode> {
    ensure!(
        geteuid().is_root(),
        "this benchmark makes network namespaces: run it as root"
    );
    let aardvark = aardvark()?;
    let bench = build_ipvlan_bench(&setup::build_tools()?)?;
    let rounds = args.rounds.to_string();
    let aardvark = aardvark.to_str().context("the cache's path is no text")?;
    let words = ["dns", "--rounds", &rounds, "--aardvark", aardvark];
    report(&bench, &[measured(&bench, &words)?], None)
}

/// Debian's.
fn aardvark() -> Result<PathBuf> {
    let root = apt::unpacked("aardvark-dns", SUITE, &["aardvark-dns"])?;
    Ok(root.join("usr/lib/podman/aardvark-dns"))
}
