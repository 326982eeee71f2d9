//! What it costs that a container joins a network, by ours and by others.

use std::process::ExitCode;

use anyhow::{Context, Result};

use super::{connect, folder, measured_in_vm, report};
use crate::cargo::{build_ipvlan_bench, build_ipvlan_ctl};
use crate::kernels::Line;
use crate::{docker, podman, setup};

#[derive(clap::Args)]
pub struct Args {
    /// Single attachments of each
    #[arg(long, value_name = "N", default_value_t = 15)]
    rounds: usize,
    /// Attachments of each in a row; a quarter by Docker
    #[arg(long, value_name = "N", default_value_t = 200)]
    row: usize,
    /// Endpoints of one network in the end, by our CNI plugin, one after the other; 0 for none
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = endpoints)]
    endpoints: u32,
    /// The kernel to boot
    #[arg(long, value_name = "K", default_value_t)]
    kernel: Line,
}

fn endpoints(text: &str) -> Result<u32, &'static str> {
    match text.parse() {
        Ok(n) if n == 0 || n >= connect::FEWEST => Ok(n),
        _ => Err("0, or 100 and more"),
    }
}

/// Measures in a VM, and the many endpoints in another; prints the tables and draws them.
pub fn bench(args: Args) -> Result<ExitCode> {
    let tools = setup::build_tools()?;
    let program = build_ipvlan_ctl(&tools)?;
    let folders = [program.clone(), podman::ready()?, docker::ready()?];
    let bench = build_ipvlan_bench(&tools)?;
    let mut words = vec!["attach".to_owned()];
    for (flag, path) in ["--program", "--podman", "--docker"].iter().zip(folders) {
        let path = path.to_str().context("the path is not text")?;
        words.extend([flag.to_string(), path.to_owned()]);
    }
    words.extend(["--rounds".into(), args.rounds.to_string()]);
    words.extend(["--row".into(), args.row.to_string()]);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let mut measured = vec![measured_in_vm(&bench, &words, args.kernel)?];
    if args.endpoints > 0 {
        let many = connect::measured(&bench, &program, args.endpoints, true, args.kernel)?;
        measured.push(many);
    }
    let plot = folder()?.join("attach.svg");
    let code = report(&bench, &measured, Some(&plot))?;
    println!("{}", plot.display());
    Ok(code)
}
