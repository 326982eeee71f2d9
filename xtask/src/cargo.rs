//! Calls to cargo, and what it tells about the workspace.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result, bail, ensure};
use cargo_metadata::{Message, MetadataCommand, Package, TargetKind};

use crate::setup::BuildTools;

/// The crate whose test targets run on the kernels of the matrix.
const KERNEL_TESTS: &str = "ipvlan-tests";

/// The workspace's root folder.
pub fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("xtask is a folder of the workspace")
}

/// A cargo command in the workspace, told where the eBPF linker is.
pub fn cargo(tools: &BuildTools) -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo
        .current_dir(workspace())
        .env("BPF_LINKER", &tools.bpf_linker);
    cargo
}

/// Builds the release `ipvlan-ctl` and returns its path. It is linked statically: engines start it
/// for each container, and a third of such a start went into finding and binding libraries.
pub fn build_ipvlan_ctl(tools: &BuildTools) -> Result<PathBuf> {
    let target = host_target()?;
    let flags = format!(
        "CARGO_TARGET_{}_RUSTFLAGS",
        target.to_uppercase().replace('-', "_")
    );
    let mut build = release_build(tools, "ipvlan-ctl");
    // Flags for a target that is named reach neither build scripts nor macros, which are dynamic.
    build
        .env(flags, "-C target-feature=+crt-static")
        .args(["--target", &target]);
    only_executable(build, "ipvlan-ctl")
}

/// The target that this machine's compiler builds for.
fn host_target() -> Result<String> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = Command::new(rustc)
        .arg("-vV")
        .output()
        .context("cannot start rustc")?;
    let text = String::from_utf8(output.stdout).context("rustc -vV is not text")?;
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host.context("rustc -vV names no host")?.to_owned())
}

/// Writes the man pages of `ipvlan-ctl`, and says where.
pub fn write_manual(tools: &BuildTools) -> Result<ExitCode> {
    let folder = workspace().join("target/man");
    let written = Command::new(build_ipvlan_ctl(tools)?)
        .arg("_man")
        .arg(&folder)
        .status()
        .context("cannot start ipvlan-ctl")?;
    ensure!(written.success(), "ipvlan-ctl wrote no man pages");
    println!("{}", folder.display());
    Ok(ExitCode::SUCCESS)
}

/// Builds the release `ipvlan-bench` and returns its path.
pub fn build_ipvlan_bench(tools: &BuildTools) -> Result<PathBuf> {
    only_executable(release_build(tools, "ipvlan-bench"), "ipvlan-bench")
}

/// A build of a package's program of the same name.
fn release_build(tools: &BuildTools, name: &str) -> Command {
    let mut build = cargo(tools);
    build.args(["build", "--release", "--package", name, "--bin", name]);
    build
}

fn only_executable(mut build: Command, name: &str) -> Result<PathBuf> {
    let mut built = executables(&mut build)?;
    ensure!(built.len() == 1, "cargo built no {name}");
    Ok(built.remove(0).1)
}

/// Builds the kernel tests and returns each test's name and path.
pub fn build_kernel_tests(tools: &BuildTools) -> Result<Vec<(String, PathBuf)>> {
    let mut build = cargo(tools);
    build.args(["test", "--no-run", "--package", KERNEL_TESTS]);
    for name in kernel_tests()? {
        build.args(["--test", &name]);
    }
    let mut tests = executables(&mut build)?;
    tests.sort();
    ensure!(
        !tests.is_empty(),
        "the crate {KERNEL_TESTS} has no test target"
    );
    Ok(tests)
}

fn kernel_tests() -> Result<Vec<String>> {
    let metadata = MetadataCommand::new()
        .current_dir(workspace())
        .no_deps()
        .exec()?;
    let is_ours = |package: &&Package| package.name.as_str() == KERNEL_TESTS;
    let package = metadata
        .packages
        .iter()
        .find(is_ours)
        .context("no crate of kernel tests")?;
    let tests = package
        .targets
        .iter()
        .filter(|target| target.kind.contains(&TargetKind::Test));
    Ok(tests.map(|target| target.name.clone()).collect())
}

/// Runs a cargo build and returns the name and path of each executable that it made.
fn executables(build: &mut Command) -> Result<Vec<(String, PathBuf)>> {
    build
        .arg("--message-format=json-render-diagnostics")
        .stdout(Stdio::piped());
    let mut child = build.spawn().context("cannot start cargo")?;
    let stdout = child.stdout.take().expect("stdout is piped");
    let mut built = Vec::new();
    for message in Message::parse_stream(std::io::BufReader::new(stdout)) {
        if let Message::CompilerArtifact(artifact) = message?
            && let Some(executable) = artifact.executable
        {
            built.push((artifact.target.name, executable.into_std_path_buf()));
        }
    }
    if !child.wait()?.success() {
        bail!("the build failed");
    }
    Ok(built)
}
