//! Builds the eBPF programs and hands their object file to the crate as `$IPVLAN_EBPF_OBJECT`.
//!
//! Two toolchains can do it, and the first that is complete is taken:
//!
//! 1. rustup's nightly with `rust-src`, which builds `core` for the BPF target itself;
//! 2. Debian's `rustc-web` and `cargo-web` with `libstd-rust-web-dev-bpf`, which ships `core`
//!    prebuilt, so that nothing need be built from the compiler's source.
//!
//! Both link with `bpf-linker`.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

const TARGET: &str = "bpfel-unknown-none";

enum Toolchain {
    Nightly,
    Debian,
}

impl Toolchain {
    const DEBIAN_CARGO: &str = "/usr/bin/cargo";
    const DEBIAN_RUSTC: &str = "/usr/bin/rustc";

    fn find() -> Result<Self, String> {
        if sysroot_of("rustup", &["run", "nightly", "rustc"])
            .is_some_and(|root| root.join("lib/rustlib/src/rust/library/core").is_dir())
        {
            return Ok(Self::Nightly);
        }
        if Path::new(Self::DEBIAN_CARGO).is_file()
            && sysroot_of(Self::DEBIAN_RUSTC, &[])
                .is_some_and(|root| root.join("lib/rustlib").join(TARGET).is_dir())
        {
            return Ok(Self::Debian);
        }
        Err("no compiler for the BPF target. Install one of\n  \
             rustup toolchain install nightly --component rust-src\n  \
             apt-get install rustc-web cargo-web libstd-rust-web-dev-bpf\n\
             or let `cargo xtask setup` do it."
            .into())
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Nightly => "rustup nightly with rust-src",
            Self::Debian => "Debian's rustc-web",
        }
    }

    fn cargo_build(&self) -> Command {
        match self {
            Self::Nightly => {
                let mut command = Command::new("rustup");
                command.args(["run", "nightly", "cargo", "build", "-Zbuild-std=core"]);
                command
            }
            Self::Debian => {
                let mut command = Command::new(Self::DEBIAN_CARGO);
                command.arg("build");
                command
            }
        }
    }
}

/// The compiler's sysroot, if the compiler can be run.
fn sysroot_of(program: &str, args: &[&str]) -> Option<PathBuf> {
    let output = Command::new(program)
        .args(args)
        .args(["--print", "sysroot"])
        .env_remove("RUSTC")
        .env_remove("RUSTUP_TOOLCHAIN")
        .output()
        .ok()?;
    let path = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| PathBuf::from(path.trim()))
}

/// `$BPF_LINKER`, one on PATH, or the one that `cargo xtask setup` built into its cache.
fn find_linker() -> Result<PathBuf, String> {
    if let Some(path) = env::var_os("BPF_LINKER") {
        return Ok(path.into());
    }
    let cache = env::var_os("IPVLAN_CTL_CACHE")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(env::var_os("XDG_CACHE_HOME")?).join("ipvlan-ctl")))
        .or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".cache/ipvlan-ctl")));
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(cache.map(|cache| cache.join("tools/bin")))
        .map(|folder| folder.join("bpf-linker"))
        .find(|file| file.is_file())
        .ok_or_else(|| {
            "bpf-linker is missing. Install it with\n  cargo install bpf-linker\n\
             or let `cargo xtask setup` do it."
                .into()
        })
}

fn build() -> Result<PathBuf, String> {
    for name in ["BPF_LINKER", "IPVLAN_CTL_CACHE", "PATH"] {
        println!("cargo:rerun-if-env-changed={name}");
    }
    let workspace = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("set by cargo"))
        .parent()
        .expect("the crate is in a workspace")
        .to_owned();
    for source in ["ipvlan-ebpf", "ipvlan-common", "Cargo.lock"] {
        println!(
            "cargo:rerun-if-changed={}",
            workspace.join(source).display()
        );
    }
    let out_dir = PathBuf::from(env::var_os("OUT_DIR").expect("set by cargo"));
    // OUT_DIR is TARGET/PROFILE/build/PACKAGE/out; all profiles share one build of the programs.
    let target_dir = out_dir.ancestors().nth(4).unwrap_or(&out_dir).join("ebpf");
    let linker = find_linker()?;
    let toolchain = Toolchain::find()?;

    let mut command = toolchain.cargo_build();
    // The outer cargo's settings are for another compiler and another target.
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        if (text.starts_with("CARGO_") && text != "CARGO_HOME")
            || matches!(
                &*text,
                "RUSTC"
                    | "RUSTFLAGS"
                    | "RUSTC_WRAPPER"
                    | "RUSTC_WORKSPACE_WRAPPER"
                    | "RUSTUP_TOOLCHAIN"
            )
        {
            command.env_remove(&name);
        }
    }
    if let Toolchain::Debian = toolchain {
        // aya-ebpf uses nightly features, which this stable compiler has, but locked.
        command
            .env("RUSTC_BOOTSTRAP", "1")
            .env("RUSTC", Toolchain::DEBIAN_RUSTC);
    }
    // Version 3 has arithmetic and jumps of 32 bits; kernels know it since 5.1. The separator is
    // cargo's.
    let mut flags = OsString::from("-Ctarget-cpu=v3\x1f-Clinker=");
    flags.push(&linker);
    command
        .args([
            "--release",
            "--locked",
            "--package",
            "ipvlan-ebpf",
            "--target",
            TARGET,
        ])
        .arg("--target-dir")
        .arg(&target_dir)
        .env("CARGO_ENCODED_RUSTFLAGS", flags)
        .current_dir(&workspace);
    let output = command
        .output()
        .map_err(|e| format!("cannot run {command:?}: {e}"))?;
    if !output.status.success() {
        return Err(format!(
            "building the eBPF programs with {} failed:\n{}",
            toolchain.name(),
            String::from_utf8_lossy(&output.stderr)
        ));
    }
    let object = out_dir.join("ipvlan-ebpf.o");
    std::fs::copy(target_dir.join(TARGET).join("release/ipvlan-ebpf"), &object)
        .map_err(|e| format!("cannot copy the eBPF object to {}: {e}", object.display()))?;
    Ok(object)
}

fn main() -> ExitCode {
    match build() {
        Ok(object) => {
            println!("cargo:rustc-env=IPVLAN_EBPF_OBJECT={}", object.display());
            ExitCode::SUCCESS
        }
        Err(message) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}
