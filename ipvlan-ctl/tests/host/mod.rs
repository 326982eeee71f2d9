//! A host to run containers on, and what tests look for there. Needs root: namespaces are real.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Output};
use std::time::{Duration, Instant};

pub const BINARY: &str = env!("CARGO_BIN_EXE_ipvlan-ctl");

/// A run directory of the test's own.
pub struct Host {
    pub run_dir: tempfile::TempDir,
}

impl Host {
    pub fn new() -> Self {
        assert!(
            nix::unistd::Uid::effective().is_root(),
            "these tests make namespaces: run them as root"
        );
        Self {
            run_dir: tempfile::tempdir().unwrap(),
        }
    }

    /// Any command of ours, with these words.
    pub fn ctl(&self, words: &[&str]) -> Command {
        let mut command = Command::new(BINARY);
        command
            .env("IPVLAN_CTL_RUN_DIR", self.run_dir.path())
            .env("IPVLAN_CTL_STATE_DIR", self.run_dir.path().join("state"))
            .args(words);
        command
    }

    /// Its output, or its failure.
    pub fn output(&self, words: &[&str]) -> Output {
        self.ctl(words).output().unwrap()
    }

    /// What it prints; it must succeed.
    pub fn stdout(&self, words: &[&str]) -> String {
        stdout(self.output(words))
    }

    pub fn command(&self, options: &[&str], command: &[&str]) -> Command {
        let mut run = self.ctl(&["run", "--net", "none"]);
        run.args(options).args(command);
        run
    }

    /// Runs to the end.
    pub fn run(&self, options: &[&str], command: &[&str]) -> Output {
        self.command(options, command).output().unwrap()
    }

    /// Runs a shell script that must succeed; returns its output.
    pub fn sh(&self, script: &str) -> String {
        stdout(self.run(&["--rm"], &["sh", "-ec", script]))
    }

    /// Folders of containers that are on record.
    pub fn records(&self) -> Vec<PathBuf> {
        match fs::read_dir(self.run_dir.path().join("containers")) {
            Ok(entries) => entries.map(|entry| entry.unwrap().path()).collect(),
            Err(_) => Vec::new(),
        }
    }
}

pub fn stdout(output: Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

pub fn stderr(output: &Output) -> &str {
    str::from_utf8(&output.stderr).unwrap()
}

pub fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !condition() {
        assert!(Instant::now() < deadline, "still not after 10 s: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A sleep that no other process on the machine does, to be found by its command line.
pub fn marked_sleep(mark: u32) -> String {
    format!("sleep 600.{}{mark}", std::process::id())
}

pub fn running(command_line: &str) -> bool {
    let wanted = command_line.replace(' ', "\0") + "\0";
    fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| fs::read(entry.unwrap().path().join("cmdline")).ok())
        .any(|found| found == wanted.as_bytes())
}

/// Waits for the first line of a child's output.
pub fn wait_for_line(child: &mut Child, line: &str) {
    let mut read = String::new();
    BufReader::new(child.stdout.as_mut().unwrap())
        .read_line(&mut read)
        .unwrap();
    assert_eq!(read.trim(), line);
}
