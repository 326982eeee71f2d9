//! Limits of memory and processor time, by cgroup v2.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::model::{Id, Invalid};

/// All our cgroups are below this one.
const PARENT: &str = "ipvlan-ctl";
/// The kernel's own period, in microseconds.
const PERIOD: u64 = 100_000;

/// What a container may use at most.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Bytes of memory, and as many of swap.
    pub memory: Option<u64>,
    /// Processors, in billionths of one.
    pub nano_cpus: Option<u64>,
}

#[derive(Debug, Error)]
pub enum CgroupError {
    #[error("{flag} needs the controller {controller:?} of cgroup v2, which {found}")]
    NoController {
        flag: &'static str,
        controller: &'static str,
        found: String,
    },
    #[error("cannot use {path}: {error}")]
    Io { path: PathBuf, error: io::Error },
}

impl Limits {
    /// As docker takes `--memory` and `--cpus`: bytes with a binary unit, and a decimal fraction
    /// of the processors that are there.
    pub fn parse(memory: Option<&str>, cpus: Option<&str>) -> Result<Self, Invalid> {
        const LEAST: u64 = 6 << 20;
        let memory = memory
            .map(|text| {
                let allowed = "a number of bytes, at least 6m, with a unit of b, k, m or g if any";
                parse_size::Config::new()
                    .with_binary()
                    .parse_size(text)
                    .ok()
                    .filter(|bytes| (LEAST..=i64::MAX as u64).contains(bytes))
                    .ok_or_else(|| Invalid::new("--memory", text, allowed))
            })
            .transpose()?;
        let nano_cpus = cpus
            .map(|text| {
                let there = std::thread::available_parallelism().map_or(1, |there| there.get());
                text.parse()
                    .ok()
                    .filter(|cpus: &f64| (0.01..=there as f64).contains(cpus))
                    .map(|cpus| (cpus * 1e9).round() as u64)
                    .ok_or_else(|| {
                        let allowed = format!("from 0.01 to the {there} processors that are there");
                        Invalid::new("--cpus", text, allowed)
                    })
            })
            .transpose()?;
        Ok(Self { memory, nano_cpus })
    }
}

/// A cgroup of a container's own, by its folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Cgroup(PathBuf);

impl Cgroup {
    /// What the cgroup of a container with these limits is to be; nothing if it has none.
    /// Changes nothing.
    pub(super) fn plan(id: &Id, limits: &Limits) -> Result<Option<Self>, CgroupError> {
        let wanted = wanted(limits);
        let Some((flag, controller)) = wanted.first().copied() else {
            return Ok(None);
        };
        let missing = |flag, controller, found: &str| CgroupError::NoController {
            flag,
            controller,
            found: found.to_owned(),
        };
        let Some(root) = mount_point()? else {
            return Err(missing(flag, controller, "is not mounted on this host"));
        };
        let there = read(&root.join("cgroup.controllers"))?;
        for (flag, controller) in wanted {
            if !there.split_whitespace().any(|there| there == controller) {
                let found = format!("has only {:?} on this host", there.trim());
                return Err(missing(flag, controller, &found));
            }
        }
        Ok(Some(Self(root.join(PARENT).join(id.as_str()))))
    }

    /// Makes a cgroup that was planned.
    pub(super) fn create(&self, limits: &Limits) -> Result<(), CgroupError> {
        let path = self.path();
        let parent = path.parent().unwrap_or(path);
        let root = parent.parent().unwrap_or(parent);
        fs::create_dir_all(path).map_err(|error| failed(path, error))?;
        for (_, controller) in wanted(limits) {
            for above in [root, parent] {
                write(
                    &above.join("cgroup.subtree_control"),
                    &format!("+{controller}"),
                )?;
            }
        }
        if let Some(memory) = limits.memory {
            write(&path.join("memory.max"), &memory.to_string())?;
            let swap = path.join("memory.swap.max");
            // A kernel without swap accounting has no such file.
            if swap.exists() {
                write(&swap, &memory.to_string())?;
            }
        }
        if let Some(nano_cpus) = limits.nano_cpus {
            let quota = u128::from(nano_cpus) * u128::from(PERIOD) / 1_000_000_000;
            write(&path.join("cpu.max"), &format!("{quota} {PERIOD}"))?;
        }
        Ok(())
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    /// Moves a process in, for itself and its children.
    pub(super) fn add(&self, process: Pid) -> Result<(), CgroupError> {
        write(&self.0.join("cgroup.procs"), &process.to_string())
    }

    /// Whether the kernel has killed something in it for want of memory.
    pub(super) fn oom_killed(&self) -> bool {
        fs::read_to_string(self.0.join("memory.events")).is_ok_and(|events| {
            events
                .lines()
                .any(|line| line.starts_with("oom_kill ") && line != "oom_kill 0")
        })
    }

    /// Removes the cgroup of a container whose processes are gone; tells whether it was there.
    pub(super) fn remove(&self) -> io::Result<bool> {
        // Processes leave it a moment after they are reaped.
        let deadline = Instant::now() + Duration::from_secs(5);
        loop {
            match fs::remove_dir(&self.0) {
                Ok(()) => return Ok(true),
                Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false),
                Err(e) if e.kind() == io::ErrorKind::ResourceBusy && Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(5));
                }
                Err(e) => return Err(e),
            }
        }
    }
}

/// Which controllers the limits need, and for which flag.
fn wanted(limits: &Limits) -> Vec<(&'static str, &'static str)> {
    let memory = limits.memory.map(|_| ("--memory", "memory"));
    let cpu = limits.nano_cpus.map(|_| ("--cpus", "cpu"));
    memory.into_iter().chain(cpu).collect()
}

/// Where cgroup v2 is mounted, if it is.
fn mount_point() -> Result<Option<PathBuf>, CgroupError> {
    // ID PARENT MAJOR:MINOR ROOT MOUNT-POINT OPTIONS … - TYPE SOURCE OPTIONS
    let mounts = read(Path::new("/proc/self/mountinfo"))?;
    Ok(mounts.lines().find_map(|line| {
        let (mount, kind) = line.split_once(" - ")?;
        let point = mount.split(' ').nth(4)?;
        kind.starts_with("cgroup2 ").then(|| point.into())
    }))
}

fn read(path: &Path) -> Result<String, CgroupError> {
    fs::read_to_string(path).map_err(|error| failed(path, error))
}

fn write(path: &Path, text: &str) -> Result<(), CgroupError> {
    fs::write(path, text).map_err(|error| failed(path, error))
}

fn failed(path: &Path, error: io::Error) -> CgroupError {
    CgroupError::Io {
        path: path.to_owned(),
        error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_read_as_docker_reads_them() {
        for (text, bytes) in [
            ("6m", 6 << 20),
            ("64M", 64 << 20),
            ("1.5g", 3 << 29),
            ("16MiB", 16 << 20),
            ("8388608", 8 << 20),
        ] {
            let limits = Limits::parse(Some(text), None).unwrap();
            assert_eq!(limits.memory, Some(bytes), "{text}");
        }
        let limits = Limits::parse(None, Some("0.25")).unwrap();
        assert_eq!(limits.nano_cpus, Some(250_000_000));
        assert_eq!(Limits::parse(None, None).unwrap(), Limits::default());
    }

    #[test]
    fn limits_that_make_no_sense_are_refused() {
        for wrong in ["", "lots", "5m", "-1", "0", "64x", "99999999999g"] {
            let error = Limits::parse(Some(wrong), None).unwrap_err();
            assert_eq!(
                (error.field.as_str(), error.value.as_str()),
                ("--memory", wrong)
            );
        }
        for wrong in ["", "0", "-1", "NaN", "inf", "1e9", "one"] {
            let error = Limits::parse(None, Some(wrong)).unwrap_err();
            assert_eq!(
                (error.field.as_str(), error.value.as_str()),
                ("--cpus", wrong)
            );
        }
    }
}
