//! A container's output as it is kept: one JSON object per line, as docker's `json-file`.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use rustix::event::{PollFd, PollFlags, poll};
use serde::{Deserialize, Serialize};

use super::container::Process;

/// Its name in the container's folder.
pub(super) const FILE: &str = "log";
/// What was in it before it grew too large.
const OLD: &str = "log.1";
/// A log that has this many bytes becomes the old one: the folder is in memory, and what a
/// container may write there must end somewhere.
const MOST: u64 = 4 << 20;
/// A longer line is kept as several entries.
const LINE: usize = 16 << 10;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stream {
    Stdout,
    Stderr,
}

/// One line of output, or the part of one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// With its line feed, if it had one.
    pub log: String,
    pub stream: Stream,
    /// RFC 3339, in nanoseconds.
    pub time: String,
}

/// The log of a running container.
#[derive(Debug)]
pub(super) struct Log {
    path: PathBuf,
    file: File,
    length: u64,
}

impl Log {
    pub(super) fn create(folder: &Path) -> io::Result<Self> {
        let path = folder.join(FILE);
        Ok(Self {
            file: create(&path)?,
            path,
            length: 0,
        })
    }

    pub(super) fn write(&mut self, stream: Stream, text: &[u8]) -> io::Result<()> {
        let entry = Entry {
            log: String::from_utf8_lossy(text).into_owned(),
            stream,
            time: humantime::format_rfc3339_nanos(SystemTime::now()).to_string(),
        };
        let mut line = serde_json::to_vec(&entry)?;
        line.push(b'\n');
        if self.length + line.len() as u64 > MOST {
            std::fs::rename(&self.path, self.path.with_file_name(OLD))?;
            self.file = create(&self.path)?;
            self.length = 0;
        }
        self.file.write_all(&line)?;
        self.length += line.len() as u64;
        Ok(())
    }
}

fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(path)
}

/// Cuts a stream of bytes into what becomes one entry each.
#[derive(Debug, Default)]
pub(super) struct Lines(Vec<u8>);

impl Lines {
    pub(super) fn push(
        &mut self,
        bytes: &[u8],
        mut line: impl FnMut(&[u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.0.extend_from_slice(part);
            while self.0.ends_with(b"\n") || self.0.len() >= LINE {
                let rest = self.0.split_off(self.0.len().min(LINE));
                line(&std::mem::replace(&mut self.0, rest))?;
            }
        }
        Ok(())
    }

    /// What is left without a line feed.
    pub(super) fn rest(&self) -> &[u8] {
        &self.0
    }
}

/// Reads a log, the last `tail` entries of it if given, and then what comes until `writer` has
/// ended if it is given. A line in the making is waited for.
pub(super) fn read(
    folder: &Path,
    tail: Option<usize>,
    writer: Option<Process>,
    mut entry: impl FnMut(&Entry) -> io::Result<()>,
) -> io::Result<()> {
    // Watched before it is read, so that nothing comes unseen in between.
    let watch = match writer {
        Some(writer) => Some(Watch::new(folder, writer)?),
        None => None,
    };
    let mut last = VecDeque::new();
    if let Ok(old) = File::open(folder.join(OLD)) {
        Reader::new(old)?.read(&mut |found| keep(&mut last, tail, found))?;
    }
    let mut reader = match File::open(folder.join(FILE)) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => Reader::new(other?)?,
    };
    reader.read(&mut |found| keep(&mut last, tail, found))?;
    for found in &last {
        entry(found)?;
    }
    let Some(mut watch) = watch else {
        return Ok(());
    };
    loop {
        // Asked before the log is read: what it wrote last is read then.
        let ended = watch.wait()?;
        reader.read(&mut entry)?;
        if let Ok(newer) = File::open(folder.join(FILE)) {
            let newer = Reader::new(newer)?;
            if newer.inode != reader.inode {
                reader = newer;
                reader.read(&mut entry)?;
            }
        }
        if ended {
            return Ok(());
        }
    }
}

fn keep(last: &mut VecDeque<Entry>, tail: Option<usize>, entry: &Entry) -> io::Result<()> {
    last.push_back(entry.clone());
    if tail.is_some_and(|tail| last.len() > tail) {
        last.pop_front();
    }
    Ok(())
}

/// One file of a log, read up to its last whole line.
struct Reader {
    file: BufReader<File>,
    inode: u64,
    /// A line that was not whole yet.
    begun: Vec<u8>,
}

impl Reader {
    fn new(file: File) -> io::Result<Self> {
        Ok(Self {
            inode: file.metadata()?.ino(),
            file: BufReader::new(file),
            begun: Vec::new(),
        })
    }

    fn read(&mut self, entry: &mut impl FnMut(&Entry) -> io::Result<()>) -> io::Result<()> {
        loop {
            self.file.read_until(b'\n', &mut self.begun)?;
            if !self.begun.ends_with(b"\n") {
                return Ok(());
            }
            entry(&serde_json::from_slice(&self.begun)?)?;
            self.begun.clear();
        }
    }
}

/// Sleeps until a folder or a process changes.
struct Watch {
    folder: Inotify,
    /// None once it has ended.
    writer: Option<std::os::fd::OwnedFd>,
}

impl Watch {
    fn new(folder: &Path, writer: Process) -> io::Result<Self> {
        let watch = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
        watch.add_watch(folder, AddWatchFlags::IN_MODIFY | AddWatchFlags::IN_CREATE)?;
        Ok(Self {
            folder: watch,
            writer: writer.open()?,
        })
    }

    /// Whether the writer has ended.
    fn wait(&mut self) -> io::Result<bool> {
        let Some(writer) = &self.writer else {
            return Ok(true);
        };
        let mut events = [
            PollFd::new(&self.folder, PollFlags::IN),
            PollFd::new(writer, PollFlags::IN),
        ];
        poll(&mut events, None)?;
        let ended = !events[1].revents().is_empty();
        match self.folder.read_events() {
            Ok(_) | Err(nix::errno::Errno::EAGAIN) => Ok(ended),
            Err(e) => Err(e.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(folder: &Path, tail: Option<usize>) -> Vec<String> {
        let mut found = Vec::new();
        read(folder, tail, None, |entry| {
            found.push(entry.log.clone());
            Ok(())
        })
        .unwrap();
        found
    }

    #[test]
    fn lines_are_cut_wherever_they_come_in_parts() {
        let mut lines = Lines::default();
        let mut cut = Vec::new();
        for part in [&b"one\ntw"[..], b"o", b"\n\nthree"] {
            lines
                .push(part, |line| {
                    cut.push(String::from_utf8(line.to_vec()).unwrap());
                    Ok(())
                })
                .unwrap();
        }
        assert_eq!(cut, ["one\n", "two\n", "\n"]);
        assert_eq!(lines.rest(), b"three");

        let mut lengths = Vec::new();
        let long = vec![b'x'; 2 * LINE + 7];
        Lines::default()
            .push(&long, |line| {
                lengths.push(line.len());
                Ok(())
            })
            .unwrap();
        assert_eq!(lengths, [LINE, LINE]);
    }

    #[test]
    fn the_last_entries_are_found_also_in_the_old_log() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(entries(folder.path(), None), Vec::<String>::new());
        let mut log = Log::create(folder.path()).unwrap();
        let text = "x".repeat(LINE - 9);
        let mut written = 0;
        while !folder.path().join(OLD).exists() {
            log.write(Stream::Stdout, format!("{written:08}{text}\n").as_bytes())
                .unwrap();
            written += 1;
        }
        log.write(Stream::Stderr, b"\xffend\n").unwrap();
        assert_eq!(entries(folder.path(), None).len(), written + 1);
        let last = entries(folder.path(), Some(3));
        assert_eq!(last.len(), 3);
        assert!(last[0].starts_with(&format!("{:08}", written - 2)));
        assert_eq!(last[2], "\u{fffd}end\n");
        assert_eq!(entries(folder.path(), Some(0)), Vec::<String>::new());
        let size = |name: &str| folder.path().join(name).metadata().unwrap().len();
        assert!(size(OLD) <= MOST && size(FILE) < MOST);
    }
}
