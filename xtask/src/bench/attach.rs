//! What it costs that a container joins a network, by ours and by others.

use std::process::ExitCode;

use anyhow::{Context, Result};

use super::{folder, measured_in_vm, report};
use crate::cargo::{build_ipvlan_bench, build_ipvlan_ctl};
use crate::kernels::Line;
use crate::{docker, podman, setup};

#[derive(clap::Args)]
pub struct Args {
    /// Single attachments of each
    #[arg(long, value_name = "N", default_value_t = 15)]
    rounds: usize,
    /// Attachments of each in a row
    #[arg(long, value_name = "N", default_value_t = 200)]
    row: usize,
    /// The kernel to boot
    #[arg(long, value_name = "K", default_value_t)]
    kernel: Line,
}

/// Measures in a VM, prints the tables and draws them.
pub fn bench(args: Args) -> Result<ExitCode> {
    let tools = setup::build_tools()?;
    let folders = [
        build_ipvlan_ctl(&tools)?,
        podman::ready()?,
        docker::ready()?,
    ];
    let bench = build_ipvlan_bench(&tools)?;
    let mut words = vec!["attach".to_owned()];
    for (flag, path) in ["--program", "--podman", "--docker"].iter().zip(folders) {
        let path = path.to_str().context("the path is not text")?;
        words.extend([flag.to_string(), path.to_owned()]);
    }
    words.extend(["--rounds".into(), args.rounds.to_string()]);
    words.extend(["--row".into(), args.row.to_string()]);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let attach = measured_in_vm(&bench, &words, args.kernel)?;
    let plot = folder()?.join("attach.svg");
    let code = report(&bench, &[attach], Some(&plot))?;
    println!("{}", plot.display());
    Ok(code)
}
