//! What building and testing need, and getting it.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;

use crate::apt;
use crate::kernels::{Kernel, Line};
use crate::progress::{output, step};

const BPF_LINKER_VERSION: &str = "0.13.0";

/// The folder of Debian's LLVM, which must be at least as new as the one of Debian's `rustc-web`.
const LLVM: &str = "/usr/lib/llvm-22";

/// Debian's own way to eBPF: a compiler with a prebuilt `core` for BPF, and what `bpf-linker` is
/// built from.
const DEBIAN_EBPF: [&str; 8] = [
    "rustc-web",
    "cargo-web",
    "libstd-rust-web-dev-bpf",
    "llvm-22-dev",
    "libpolly-22-dev",
    "zlib1g-dev",
    "libzstd-dev",
    "libxml2-dev",
];

/// What boots a VM.
const VM: [&str; 8] = [
    "qemu-system-x86",
    "busybox-static",
    "kmod",
    "cpio",
    "xz-utils",
    "zstd",
    "debian-archive-keyring",
    "util-linux",
];

/// What is called inside a VM, which sees the host's own files.
const GUEST: [&str; 18] = [
    "bind9-dnsutils",
    "dnsmasq-base",
    "ethtool",
    "musl-tools",
    "iproute2",
    "iputils-ping",
    "iperf3",
    "tcpdump",
    "bpftool",
    "nftables",
    "procps",
    "containernetworking-plugins",
    "containerd",
    "curl",
    // Of this machine's own suite, unlike the rest of Docker: it needs the libc that it is built for.
    "runc",
    "systemd",
    "prometheus",
    "tmux",
];

/// What the native tests call.
const NATIVE: [&str; 4] = ["chromium", "chromium-driver", "iproute2", "util-linux"];

/// The folder of what is downloaded and built once.
///
/// Errors: none of IPVLAN_CTL_CACHE, XDG_CACHE_HOME and HOME is set to an absolute path.
pub fn cache() -> Result<PathBuf> {
    let path = |name| {
        std::env::var_os(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    let cache = path("IPVLAN_CTL_CACHE")
        .or_else(|| path("XDG_CACHE_HOME").map(|folder| folder.join("ipvlan-ctl")))
        .or_else(|| path("HOME").map(|folder| folder.join(".cache/ipvlan-ctl")))
        .context("no folder for the cache: set IPVLAN_CTL_CACHE to an absolute path")?;
    fs::create_dir_all(&cache).with_context(|| format!("cannot make {}", cache.display()))?;
    Ok(cache)
}

/// Proof that ipvlan-ctl can be built here.
pub struct BuildTools {
    pub bpf_linker: PathBuf,
}

/// Proof that a VM can be started here.
pub struct VmTools(());

/// Everything: the tools, and the kernels asked for (all, if none is).
pub fn everything(lines: &[Line]) -> Result<ExitCode> {
    let tools = build_tools()?;
    test_tools()?;
    vm_tools()?;
    let lines = if lines.is_empty() {
        Line::value_variants()
    } else {
        lines
    };
    println!("bpf-linker  {}", tools.bpf_linker.display());
    for line in lines {
        let kernel = Kernel::ready(*line)?;
        println!(
            "kernel {:<4} {} in {}",
            line.to_string(),
            kernel.release,
            kernel.folder.display()
        );
    }
    Ok(ExitCode::SUCCESS)
}

/// Gets what building needs: a C compiler (for SQLite), a compiler and a linker for eBPF.
pub fn build_tools() -> Result<BuildTools> {
    if which("cc").is_none() {
        apt::require(&["gcc", "libc6-dev"])?;
    }
    if let Some(bpf_linker) = std::env::var_os("BPF_LINKER") {
        let bpf_linker = PathBuf::from(bpf_linker);
        ensure!(
            bpf_linker.is_file(),
            "BPF_LINKER={}: no such file",
            bpf_linker.display()
        );
        return Ok(BuildTools { bpf_linker });
    }
    let on_path = which("bpf-linker");
    match on_path {
        Some(bpf_linker) if rustup_has_sources() => Ok(BuildTools { bpf_linker }),
        _ => {
            apt::require(&DEBIAN_EBPF)?;
            Ok(BuildTools {
                bpf_linker: own_bpf_linker()?,
            })
        }
    }
}

/// Gets what the native tests call.
pub fn test_tools() -> Result<()> {
    apt::require(&NATIVE)
}

/// Gets what a VM needs on the host and inside.
pub fn vm_tools() -> Result<VmTools> {
    apt::require(&[VM.as_slice(), GUEST.as_slice()].concat())?;
    Ok(VmTools(()))
}

/// Whether the ecosystem's usual route to eBPF is there: a nightly that can build `core`.
fn rustup_has_sources() -> bool {
    let sysroot = Command::new("rustup")
        .args(["run", "nightly", "rustc", "--print", "sysroot"])
        .env("RUSTUP_AUTO_INSTALL", "0")
        .output();
    sysroot.is_ok_and(|sysroot| {
        let sysroot = String::from_utf8_lossy(&sysroot.stdout).into_owned();
        let library = PathBuf::from(sysroot.trim()).join("lib/rustlib/src/rust/library");
        library.join("core/Cargo.toml").is_file()
    })
}

/// `bpf-linker` in the cache, built against Debian's LLVM if it is not there.
fn own_bpf_linker() -> Result<PathBuf> {
    let tools = cache()?.join("tools");
    let bpf_linker = tools.join("bin/bpf-linker");
    let version = output(Command::new(&bpf_linker).arg("--version"));
    if version.is_ok_and(|version| version.contains(BPF_LINKER_VERSION)) {
        return Ok(bpf_linker);
    }
    step(
        format!("Building bpf-linker {BPF_LINKER_VERSION}"),
        |step| {
            step.run(
                Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
                    .args([
                        "install",
                        "bpf-linker",
                        "--version",
                        BPF_LINKER_VERSION,
                        "--locked",
                    ])
                    .args([
                        "--force",
                        "--no-default-features",
                        "--features",
                        "llvm-22",
                        "--root",
                    ])
                    .arg(&tools)
                    // One is read by the crate that binds LLVM, the other by bpf-linker's own build.
                    .env("LLVM_SYS_221_PREFIX", LLVM)
                    .env("LLVM_PREFIX", LLVM),
            )
        },
    )?;
    Ok(bpf_linker)
}

fn which(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|folder| folder.join(program))
        .find(|file| file.is_file())
}
