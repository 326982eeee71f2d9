//! A host of the benchmark's own: nothing that it makes is seen, or left, outside.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

/// Moves this process into new network and mount namespaces, with a bpffs of their own in the
/// usual place and no named network namespaces. Call it before any thread is started.
pub fn enter() -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS)
        .context("cannot make namespaces: benchmarks run as root")?;
    let none = None::<&str>;
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(none, "/", none, private, none).context("cannot make mounts private")?;
    mount(
        Some("bpf"),
        "/sys/fs/bpf",
        Some("bpf"),
        MsFlags::empty(),
        none,
    )
    .context("cannot mount a bpffs")?;
    mount(Some("run"), "/run", Some("tmpfs"), MsFlags::empty(), none)
        .context("cannot mount a tmpfs on /run")?;
    sh("ip link set lo up")
}

/// An ipvlan-ctl that finds and leaves nothing outside, with a line's words.
pub fn ctl(program: &Path, line: &str) -> Command {
    let mut command = Command::new(program);
    command
        .args(line.split_whitespace())
        .env("IPVLAN_CTL_STATE_DIR", "/run/state")
        .env("IPVLAN_CTL_RUN_DIR", "/run/ipvlan-ctl");
    command
}

/// Runs such a line to its end; what it says is an error's.
pub fn run_ctl(program: &Path, line: &str) -> Result<()> {
    let output = ctl(program, line).output();
    let output = output.context("cannot start ipvlan-ctl")?;
    ensure!(
        output.status.success(),
        "`{line}` failed: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

/// Runs a shell script to its end.
pub fn sh(script: &str) -> Result<()> {
    output(script).map(drop)
}

/// Runs a shell script and returns what it printed.
pub fn output(script: &str) -> Result<String> {
    let output = Command::new("sh")
        .args(["-ec", script])
        .output()
        .context("cannot start sh")?;
    ensure!(
        output.status.success(),
        "`{script}` ended with {}: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(String::from_utf8(output.stdout)?)
}
