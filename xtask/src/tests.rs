//! `test`: unit tests here, kernel tests on each kernel, one line of totals.

use std::ffi::OsString;
use std::io::{self, BufRead, BufReader, Write};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::process::{ExitCode, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result};
use clap::ValueEnum;

use crate::cargo::{build_ipvlan_ctl, build_kernel_tests, cargo};
use crate::docker;
use crate::kernels::{Kernel, Line};
use crate::podman;
use crate::setup::{self, BuildTools};
use crate::vm::{Job, Stream, Vm};

#[derive(clap::Args)]
pub struct Args {
    /// Only this kernel; may be given more than once [default: all]
    #[arg(long = "kernel", value_name = "K")]
    kernels: Vec<Line>,
    /// Unit tests only
    #[arg(long, conflicts_with_all = ["vm_only", "kernels"])]
    unit: bool,
    /// Kernel tests only
    #[arg(long)]
    vm_only: bool,
    /// How many VMs run at once [default: one per CPU, since tests mostly wait]
    #[arg(long, value_name = "N")]
    jobs: Option<NonZeroUsize>,
    /// Minutes after which a VM is given up
    #[arg(long, value_name = "MINUTES", default_value_t = 50)]
    timeout: u64,
    /// Only tests whose name contains this
    filter: Option<String>,
}

pub fn test(args: Args) -> Result<ExitCode> {
    let tools = setup::build_tools()?;
    let mut totals = Totals::default();
    if !args.vm_only {
        unit_tests(&tools, &args, &mut totals)?;
    }
    if !args.unit {
        kernel_tests(&tools, &args, &mut totals)?;
    }
    println!();
    for trouble in &totals.troubles {
        println!("{trouble}");
    }
    println!(
        "{} passed, {} failed, {} skipped",
        totals.passed, totals.failed, totals.skipped
    );
    Ok(if totals.failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn unit_tests(tools: &BuildTools, args: &Args, totals: &mut Totals) -> Result<()> {
    heading("unit tests");
    setup::test_tools()?;
    let mut test = cargo(tools);
    test.args([
        "test",
        "--workspace",
        "--exclude",
        "ipvlan-ebpf",
        "--no-fail-fast",
    ]);
    test.args(&args.filter).stdout(Stdio::piped());
    let mut test = test.spawn().context("cannot start cargo")?;
    let failed_before = totals.failed;
    for line in BufReader::new(test.stdout.take().expect("stdout is piped")).split(b'\n') {
        let line = [line?, b"\n".to_vec()].concat();
        io::stdout().write_all(&line)?;
        totals.read(&line);
    }
    if !test.wait()?.success() && totals.failed == failed_before {
        totals.trouble("unit tests: cargo failed before they all ran".into());
    }
    Ok(())
}

fn kernel_tests(tools: &BuildTools, args: &Args, totals: &mut Totals) -> Result<()> {
    let ipvlan_ctl = build_ipvlan_ctl(tools)?;
    let binaries = build_kernel_tests(tools)?;
    let vm_tools = setup::vm_tools()?;
    let docker = docker::ready()?;
    let podman = podman::ready()?;
    let lines = if args.kernels.is_empty() {
        Line::value_variants().to_vec()
    } else {
        args.kernels.clone()
    };
    let deadline = Some(Duration::from_secs(60 * args.timeout));
    let mut runs = Vec::new();
    let mut shown = Vec::new();
    for line in lines {
        let vm = Vm::new(Kernel::ready(line)?, deadline, &vm_tools)?;
        let (tell, told) = channel();
        runs.push((line, vm, tell));
        shown.push((line, told));
    }

    // Each VM tells into a channel of its own, and they are shown one after the other: the first
    // one live, the next from where it is by then.
    runs.reverse();
    let jobs = args
        .jobs
        .or_else(|| std::thread::available_parallelism().ok())
        .map_or(1, NonZeroUsize::get);
    let runs = Arc::new(Mutex::new(runs));
    let workers: Vec<_> = (0..jobs)
        .map(|_| {
            let runs = Arc::clone(&runs);
            let (ipvlan_ctl, binaries) = (ipvlan_ctl.clone(), binaries.clone());
            let docker = docker.clone();
            let podman = podman.clone();
            let filter = args.filter.clone();
            std::thread::spawn(move || {
                loop {
                    let next = runs.lock().expect("no worker panics with the lock").pop();
                    let Some((line, vm, tell)) = next else { break };
                    let mut job = job(line, &ipvlan_ctl, &binaries, filter.as_deref());
                    // Not on PATH: its containerd is for itself only.
                    job.env.push(("IPVLAN_TEST_DOCKER", docker.clone().into()));
                    job.env.push(("IPVLAN_TEST_PODMAN", podman.clone().into()));
                    run_in(&vm, &job, &tell);
                }
            })
        })
        .collect();
    for (line, told) in shown {
        heading(&format!("kernel {line}"));
        show(line, told, binaries.len(), totals)?;
    }
    for worker in workers {
        worker
            .join()
            .expect("a worker reports its errors by its channel");
    }
    Ok(())
}

/// All test binaries, one after the other. One that ends without a result says so.
fn job(
    line: Line,
    ipvlan_ctl: &std::path::Path,
    binaries: &[(String, PathBuf)],
    filter: Option<&str>,
) -> Job {
    const EACH: &str = r#"
        filter=$1; shift; bad=0
        while [ $# -gt 0 ]; do
            echo; echo "-- $1"
            "$2" --test-threads=1 ${filter:+"$filter"}; status=$?
            case $status in
                0) ;;
                101) bad=1 ;;
                *) bad=1; echo "$1 ended with status $status and no result" ;;
            esac
            shift 2
        done
        exit $bad"#;
    let mut command: Vec<OsString> = vec![
        "sh".into(),
        "-c".into(),
        EACH.into(),
        "sh".into(),
        filter.unwrap_or("").into(),
    ];
    for (name, path) in binaries {
        command.extend([name.into(), path.into()]);
    }
    let mut env = vec![
        ("IPVLAN_CTL", ipvlan_ctl.into()),
        ("IPVLAN_TEST_KERNEL", line.to_string().into()),
    ];
    if let Some(backtrace) = std::env::var_os("RUST_BACKTRACE") {
        env.push(("RUST_BACKTRACE", backtrace));
    }
    let folders = [
        Some(ipvlan_ctl),
        binaries.first().map(|(_, path)| path.as_path()),
    ];
    let path = folders
        .into_iter()
        .flatten()
        .filter_map(|file| Some(file.parent()?.to_owned()));
    Job {
        command,
        env,
        path: path.collect(),
    }
}

enum News {
    Output(Stream, Vec<u8>),
    Ended(Result<u8, crate::vm::Error>),
}

fn run_in(vm: &Vm, job: &Job, tell: &Sender<News>) {
    // Nobody listens any more only when the whole run is being given up.
    let status = vm.run(job, &mut |stream, bytes| {
        tell.send(News::Output(stream, bytes.to_vec()))
            .map_err(io::Error::other)
    });
    let _ = tell.send(News::Ended(status));
}

/// Prints a VM's output and counts its results.
fn show(line: Line, told: Receiver<News>, binaries: usize, totals: &mut Totals) -> Result<()> {
    let mut unfinished = Vec::new();
    let results_before = totals.results;
    let failed_before = totals.failed;
    for news in told {
        match news {
            News::Output(Stream::Err, bytes) => io::stderr().write_all(&bytes)?,
            News::Output(Stream::Out, bytes) => {
                io::stdout().write_all(&bytes)?;
                io::stdout().flush()?;
                unfinished.extend(bytes);
                while let Some(end) = unfinished.iter().position(|byte| *byte == b'\n') {
                    let line: Vec<_> = unfinished.drain(..=end).collect();
                    totals.read(&line);
                }
            }
            News::Ended(Err(error)) => totals.trouble(format!("kernel {line}: {error}")),
            News::Ended(Ok(status)) => {
                let missing = binaries.saturating_sub(totals.results - results_before);
                if missing > 0 {
                    totals.trouble(format!(
                        "kernel {line}: {missing} test programs gave no result"
                    ));
                } else if status != 0 && totals.failed == failed_before {
                    totals.trouble(format!("kernel {line}: the test run ended with {status}"));
                }
            }
        }
    }
    Ok(())
}

fn heading(what: &str) {
    println!("\n==== {what} ====");
}

/// What all test programs counted.
#[derive(Debug, Default, PartialEq)]
struct Totals {
    passed: usize,
    failed: usize,
    skipped: usize,
    /// How many test programs gave a result.
    results: usize,
    /// What failed beside single tests.
    troubles: Vec<String>,
}

impl Totals {
    /// Adds a line of libtest's output, if it is a program's result.
    fn read(&mut self, line: &[u8]) {
        let Ok(line) = std::str::from_utf8(line) else {
            return;
        };
        let Some(result) = line.trim().strip_prefix("test result: ") else {
            return;
        };
        let Some((_, counts)) = result.split_once(". ") else {
            return;
        };
        for count in counts.split("; ") {
            let Some((number, what)) = count.split_once(' ') else {
                continue;
            };
            let Ok(number) = number.parse::<usize>() else {
                continue;
            };
            match what {
                "passed" => self.passed += number,
                "failed" => self.failed += number,
                "ignored" => self.skipped += number,
                _ => {}
            }
        }
        self.results += 1;
    }

    /// Counts something that is no single test as a failure.
    fn trouble(&mut self, what: String) {
        self.failed += 1;
        self.troubles.push(what);
    }
}

#[cfg(test)]
mod counting {
    use super::*;

    #[test]
    fn totals_are_the_sums_of_all_results() {
        let mut totals = Totals::default();
        let lines = "running 3 tests\ntest a ... ok\n\
            test result: FAILED. 12 passed; 1 failed; 2 ignored; 0 measured; 4 filtered out; finished in 0.01s\n\
            test result: ok. 3 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s\n";
        for line in lines.lines() {
            totals.read(line.as_bytes());
        }
        assert_eq!(
            totals,
            Totals {
                passed: 15,
                failed: 1,
                skipped: 2,
                results: 2,
                troubles: vec![]
            }
        );
    }
}
