//! The containers of a host, as folders under the run directory.
//!
//! A container's folder is called by its name, so that the file system itself keeps names
//! unique: it is made whole elsewhere and renamed into place, where a name that is taken refuses
//! it; and it is renamed away before it is taken apart. What a killed process leaves in between
//! carries that process in its name, for [`RunDir::sweep`].

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::unistd::Pid;
use rustix::fs::{CWD, RenameFlags, renameat_with};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::container::{Container, End, Process, Status};
use super::log;

const RECORD: &str = "container.json";
const END: &str = "exit";

#[derive(Debug, Error)]
pub enum RecordError {
    #[error("cannot use {path}: {error}")]
    Io { path: PathBuf, error: io::Error },
    #[error("cannot read {path}: {error}")]
    Content {
        path: PathBuf,
        error: serde_json::Error,
    },
    #[error(
        "the container name {name:?} is in use by container {id}: remove that one first, or take another name"
    )]
    NameTaken { name: String, id: String },
    #[error("no such container: {0}")]
    NotFound(String),
    #[error("{word:?} is ambiguous: it begins the ids of {}", .names.join(", "))]
    Ambiguous { word: String, names: Vec<String> },
}

/// Names the path that an error is about.
trait At<T> {
    fn at(self, path: &Path) -> Result<T, RecordError>;
}

impl<T, E: Into<io::Error>> At<T> for Result<T, E> {
    fn at(self, path: &Path) -> Result<T, RecordError> {
        self.map_err(|error| RecordError::Io {
            path: path.to_owned(),
            error: error.into(),
        })
    }
}

/// Where live state is kept: nothing in it means anything after a reboot.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RunDir(PathBuf);

impl RunDir {
    pub const DEFAULT: &str = "/run/ipvlan-ctl";

    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Every container, the newest first, as docker lists them.
    pub fn containers(&self) -> Result<Vec<Record>, RecordError> {
        let mut records = Vec::new();
        for folder in self.folders()? {
            if !is_hidden(&folder)
                && let Some(record) = Record::read(folder)?
            {
                records.push(record);
            }
        }
        records.sort_by(|a, b| {
            let key = |record: &Record| {
                let container = &record.container;
                (container.created, container.supervisor.start_time)
            };
            key(b).cmp(&key(a))
        });
        Ok(records)
    }

    /// The container that a word means, by docker's rule: a full id, else a name, else the
    /// beginning of one id only.
    pub fn find(&self, word: &str) -> Result<Record, RecordError> {
        let mut records = self.containers()?;
        let id = |record: &Record| record.container.spec.id.as_str().to_owned();
        let exact = records
            .iter()
            .position(|record| id(record) == word)
            .or_else(|| records.iter().position(|r| r.container.spec.name == word));
        if let Some(found) = exact {
            return Ok(records.swap_remove(found));
        }
        records.retain(|record| !word.is_empty() && id(record).starts_with(word));
        match records.len() {
            0 => Err(RecordError::NotFound(word.to_owned())),
            1 => Ok(records.remove(0)),
            _ => Err(RecordError::Ambiguous {
                word: word.to_owned(),
                names: records
                    .into_iter()
                    .map(|record| record.container.spec.name)
                    .collect(),
            }),
        }
    }

    /// Records a new container, if its name is free: also one that was to be forgotten, and whose
    /// supervisor was killed, is no more.
    pub(super) fn claim(&self, container: Container) -> Result<Record, RecordError> {
        let name = container.spec.name.clone();
        let folder = self.root().join(&name);
        let staging = self.hidden(&container)?;
        // Others have no business in the logs.
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&staging)
            .at(&staging)?;
        let mut record = Record {
            folder: staging.clone(),
            container,
            end: None,
        };
        let claimed = record.write().and_then(|()| {
            // Made now, so that who waits for the end can hold it open.
            write_private(&staging.join(END), b"").at(&staging)?;
            loop {
                match renameat_with(CWD, &staging, CWD, &folder, RenameFlags::NOREPLACE) {
                    Err(rustix::io::Errno::EXIST) => {}
                    other => return other.at(&folder),
                }
                match Record::read(folder.clone())? {
                    // None of ours.
                    None if folder.exists() => return Err(rustix::io::Errno::EXIST).at(&folder),
                    // Gone meanwhile.
                    None => {}
                    Some(holder) if holder.container.spec.remove && holder.is_lost()? => {
                        holder.remove()?;
                    }
                    Some(holder) => {
                        return Err(RecordError::NameTaken {
                            name: name.clone(),
                            id: holder.container.spec.id.short().to_owned(),
                        });
                    }
                }
            }
        });
        match claimed {
            Ok(()) => {
                record.folder = folder;
                Ok(record)
            }
            Err(cause) => {
                remove_all(&staging)?;
                Err(cause)
            }
        }
    }

    /// Removes what killed processes left: containers that were to be forgotten, and folders half
    /// made or half removed. Returns one line for each.
    pub fn sweep(&self) -> Result<Vec<String>, RecordError> {
        let mut done = Vec::new();
        for folder in self.folders()? {
            if is_hidden(&folder) {
                if maker(&folder).is_none_or(|maker| !maker.is_alive()) {
                    remove_all(&folder)?;
                    done.push(format!("removed {}", folder.display()));
                }
            } else if let Some(record) = Record::read(folder)?
                && record.is_lost()?
            {
                let spec = &record.container.spec;
                let (name, forgotten) = (spec.name.clone(), spec.remove);
                if forgotten {
                    record.remove()?;
                    done.push(format!(
                        "removed container {name}, whose supervisor was killed"
                    ));
                } else if record.release()? {
                    done.push(format!(
                        "removed the cgroup of container {name}, which is dead"
                    ));
                }
            }
        }
        Ok(done)
    }

    fn root(&self) -> PathBuf {
        self.0.join("containers")
    }

    fn folders(&self) -> Result<Vec<PathBuf>, RecordError> {
        let root = self.root();
        match fs::read_dir(&root) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(e) => Err(e).at(&root),
            Ok(entries) => entries
                .map(|entry| entry.map(|entry| entry.path()).at(&root))
                .collect(),
        }
    }

    /// A folder of this process's own: names of containers do not begin with a dot.
    fn hidden(&self, container: &Container) -> Result<PathBuf, RecordError> {
        let root = self.root();
        hidden(&root, container)
    }
}

fn hidden(root: &Path, container: &Container) -> Result<PathBuf, RecordError> {
    let maker = Process::find(Pid::this()).at(root)?;
    let id = &container.spec.id;
    Ok(root.join(format!(".{}-{}-{id}", maker.pid, maker.start_time)))
}

fn is_hidden(folder: &Path) -> bool {
    folder
        .file_name()
        .is_some_and(|name| name.as_encoded_bytes().starts_with(b"."))
}

/// Who made a hidden folder.
fn maker(folder: &Path) -> Option<Process> {
    let mut parts = folder.file_name()?.to_str()?.strip_prefix('.')?.split('-');
    Some(Process {
        pid: parts.next()?.parse().ok()?,
        start_time: parts.next()?.parse().ok()?,
    })
}

/// One container's folder, and what its files said when they were read: `container.json` and,
/// once it has ended, `exit`. Besides there are `hosts`, `hostname` and `resolv.conf` as the
/// container sees them, `log` (its output), and `shim.log` for a detached one.
#[derive(Debug)]
pub struct Record {
    folder: PathBuf,
    pub container: Container,
    end: Option<End>,
}

impl Record {
    /// Nothing if the container has been removed meanwhile.
    fn read(folder: PathBuf) -> Result<Option<Self>, RecordError> {
        let path = folder.join(RECORD);
        let text = match fs::read(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other.at(&path)?,
        };
        let container =
            serde_json::from_slice(&text).map_err(|error| RecordError::Content { path, error })?;
        let Some(mut file) = open_end(&folder)? else {
            return Ok(None);
        };
        Ok(Some(Self {
            end: read_end(&mut file).at(&folder)?,
            folder,
            container,
        }))
    }

    pub fn path(&self) -> &Path {
        &self.folder
    }

    pub fn status(&self) -> Status {
        let container = &self.container;
        let alive = |process: &Process| process.is_alive();
        match &self.end {
            Some(end) => Status::Exited(end.clone()),
            None if !alive(&container.supervisor)
                && !container.init.as_ref().is_some_and(alive) =>
            {
                // It may have ended in order since the record was read.
                match open_end(&self.folder).map(|file| file.map(|mut file| read_end(&mut file))) {
                    Ok(Some(Ok(Some(end)))) => Status::Exited(end),
                    _ => Status::Dead,
                }
            }
            None if container.started.is_some() => Status::Running,
            None => Status::Created,
        }
    }

    /// The path of the container's network namespace while it runs.
    pub fn netns(&self) -> Option<PathBuf> {
        let init = self.container.init?;
        let path = format!("/proc/{}/ns/net", init.pid);
        (self.status() == Status::Running).then(|| path.into())
    }

    /// Whether its supervisor was killed. Then its init has been told to end, too, which is waited
    /// for.
    fn is_lost(&self) -> Result<bool, RecordError> {
        const DYING: Duration = Duration::from_secs(10);
        let container = &self.container;
        if self.end.is_none()
            && !container.supervisor.is_alive()
            && let Some(init) = container.init
        {
            init.wait(Some(DYING)).at(&self.folder)?;
        }
        Ok(self.status() == Status::Dead)
    }

    /// Waits until the container has ended and what it held is released; nothing if its
    /// supervisor was killed.
    pub fn wait(&self) -> Result<Option<End>, RecordError> {
        // Opened first: it can be read even once the folder is gone.
        let file = open_end(&self.folder)?;
        self.container.supervisor.wait(None).at(&self.folder)?;
        match (&self.end, file) {
            (Some(end), _) => Ok(Some(end.clone())),
            (None, Some(mut file)) => read_end(&mut file).at(&self.folder),
            (None, None) => Ok(None),
        }
    }

    /// See [`log::read`]. With `follow`, goes on until the container ends.
    pub fn logs(
        &self,
        tail: Option<usize>,
        follow: bool,
        entry: impl FnMut(&log::Entry) -> io::Result<()>,
    ) -> io::Result<()> {
        let writer = follow.then_some(self.container.supervisor);
        log::read(&self.folder, tail, writer, entry)
    }

    /// Removes the record of a container that has ended, and its cgroup.
    pub fn remove(self) -> Result<(), RecordError> {
        self.release()?;
        let root = self.folder.parent().unwrap_or(&self.folder);
        let hidden = hidden(root, &self.container)?;
        match fs::rename(&self.folder, &hidden) {
            // Someone else was quicker.
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            other => {
                other.at(&self.folder)?;
                remove_all(&hidden)
            }
        }
    }

    /// Removes the cgroup, if there is one and it is there.
    pub(super) fn release(&self) -> Result<bool, RecordError> {
        match &self.container.cgroup {
            Some(cgroup) => cgroup.remove().at(cgroup.path()),
            None => Ok(false),
        }
    }

    /// Writes what is known now.
    pub(super) fn write(&mut self) -> Result<(), RecordError> {
        let path = self.folder.join(RECORD);
        let new = self.folder.join("container.json.new");
        let text =
            serde_json::to_vec_pretty(&self.container).map_err(|error| RecordError::Content {
                path: path.clone(),
                error,
            })?;
        write_private(&new, &text).at(&new)?;
        fs::rename(&new, &path).at(&path)
    }

    /// Writes how it ended, to where [`Record::wait`] looks for it.
    pub(super) fn finish(&mut self, end: End) -> Result<(), RecordError> {
        let path = self.folder.join(END);
        let text = serde_json::to_vec(&end).map_err(|error| RecordError::Content {
            path: path.clone(),
            error,
        })?;
        let mut file = OpenOptions::new().write(true).open(&path).at(&path)?;
        // In one go: readers see all of it or nothing.
        file.write_all(&text).at(&path)?;
        self.end = Some(end);
        Ok(())
    }

    pub(super) fn shim_log(&self) -> Result<File, RecordError> {
        let path = self.folder.join("shim.log");
        OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(&path)
            .at(&path)
    }
}

fn open_end(folder: &Path) -> Result<Option<File>, RecordError> {
    let path = folder.join(END);
    match File::open(&path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        other => other.map(Some).at(&path),
    }
}

fn read_end(file: &mut File) -> io::Result<Option<End>> {
    let mut text = Vec::new();
    file.read_to_end(&mut text)?;
    match text.is_empty() {
        true => Ok(None),
        false => Ok(Some(serde_json::from_slice(&text)?)),
    }
}

fn write_private(path: &Path, text: &[u8]) -> io::Result<()> {
    fs::write(path, text)?;
    fs::set_permissions(path, Permissions::from_mode(0o600))
}

fn remove_all(folder: &Path) -> Result<(), RecordError> {
    match fs::remove_dir_all(folder) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other.at(folder),
    }
}
