//! `run` and `shell`: the fresh ipvlan-ctl, here or in a VM.

use std::ffi::OsString;
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, ExitCode, ExitStatus, Stdio};

use anyhow::{Context, Result};
use nix::unistd::geteuid;

use crate::cargo::build_ipvlan_ctl;
use crate::kernels::{Kernel, Line};
use crate::setup;
use crate::vm::{Job, Stream, Vm};

#[derive(clap::Args)]
pub struct Args {
    /// Run in a VM even where this host has ipvlan
    #[arg(long)]
    vm: bool,
    /// Run in a VM with this kernel
    #[arg(long, value_name = "K")]
    kernel: Option<Line>,
    /// What ipvlan-ctl is given; without it, the tour is run
    #[arg(last = true)]
    args: Vec<OsString>,
}

pub fn run(args: Args) -> Result<ExitCode> {
    let binary = build_ipvlan_ctl(&setup::build_tools()?)?;
    let asked_for_vm = args.vm || args.kernel.is_some();
    let line = args.kernel.unwrap_or_default();

    if !args.args.is_empty() {
        if asked_for_vm {
            let command = [vec![binary.clone().into_os_string()], args.args].concat();
            return in_vm(line, command, &binary);
        }
        let status = Command::new(&binary).args(args.args).status();
        return Ok(exit_code(status.context("cannot start ipvlan-ctl")?));
    }

    let tour = vec![std::env::current_exe()?.into_os_string(), "tour".into()];
    if !asked_for_vm && geteuid().is_root() && host_has_ipvlan() {
        println!("On this host, in namespaces of its own");
        let status = Command::new("unshare")
            .args(["--net", "--mount", "--propagation", "private"])
            .args(tour)
            .env("IPVLAN_CTL", &binary)
            .status();
        return Ok(exit_code(status.context("cannot start unshare")?));
    }
    in_vm(line, tour, &binary)
}

/// An interactive shell in a VM.
pub fn shell(line: Line) -> Result<ExitCode> {
    let tools = setup::build_tools()?;
    let binary = build_ipvlan_ctl(&tools)?;
    // The user's own start files are made for another machine, and slow under emulation.
    let mut job = job(vec!["bash".into(), "--norc".into()], &binary);
    job.env
        .push(("PS1", format!("[kernel {line}] \\w \\$ ").into()));
    job.env.push((
        "TERM",
        std::env::var_os("TERM").unwrap_or_else(|| "vt100".into()),
    ));
    let vm = Vm::new(Kernel::ready(line)?, None, &setup::vm_tools()?)?;
    Ok(ExitCode::from(vm.interactive(&job)?))
}

fn in_vm(line: Line, command: Vec<OsString>, binary: &Path) -> Result<ExitCode> {
    let vm_tools = setup::vm_tools()?;
    let kernel = Kernel::ready(line)?;
    eprintln!("==> In a VM with kernel {}", kernel.release);
    let vm = Vm::new(kernel, None, &vm_tools)?;
    let status = vm.run(&job(command, binary), &mut |stream, bytes| match stream {
        Stream::Out => std::io::stdout()
            .write_all(bytes)
            .and_then(|()| std::io::stdout().flush()),
        Stream::Err => std::io::stderr().write_all(bytes),
    })?;
    Ok(ExitCode::from(status))
}

fn job(command: Vec<OsString>, binary: &Path) -> Job {
    let folder = binary.parent().expect("an executable has a folder");
    Job {
        command,
        env: vec![("IPVLAN_CTL", binary.into())],
        path: vec![folder.to_owned()],
    }
}

/// Whether an ipvlan slave can be made here, tried in a network namespace that ends with the try.
fn host_has_ipvlan() -> bool {
    let make = "ip link add parent0 type dummy && ip link add link parent0 type ipvlan mode l2";
    let tried = Command::new("unshare")
        .args(["--net", "sh", "-c", make])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    tried.is_ok_and(|status| status.success())
}

/// A child's exit status as ours; a signal's is 128 + its number, as in a shell.
fn exit_code(status: ExitStatus) -> ExitCode {
    let code = status
        .code()
        .unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
    ExitCode::from(code as u8)
}
