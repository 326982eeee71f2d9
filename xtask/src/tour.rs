//! The main job, shown: runs as root where ipvlan is at hand, on the host or in a VM.

use std::process::{Command, ExitCode};

use anyhow::{Context, Result};

pub fn tour() -> Result<ExitCode> {
    let ipvlan_ctl = std::env::var_os("IPVLAN_CTL").context("IPVLAN_CTL names no ipvlan-ctl")?;
    println!("The tour is not written yet; this is only `ipvlan-ctl --version`:");
    let status = Command::new(ipvlan_ctl).arg("--version").status()?;
    Ok(if status.success() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
