//! The way between a command's standard streams, the caller's, and the log.
//!
//! A command never gets the caller's own streams: one that is a terminal would be a way to the
//! host. It gets pipes or a terminal of the container's, and threads here carry the bytes.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use nix::fcntl::OFlag;
use nix::unistd::pipe2;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::termios::isatty;

use super::log::{Lines, Log, Stream};
use super::spec::Task;
use super::terminal::{Raw, Size};

/// Who is at the other end of a command's streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Console {
    /// This process's standard streams.
    Caller,
    /// Nobody: there is only the log.
    Detached,
}

/// A keeper's standard streams, which its command inherits where it gets no terminal.
pub(super) struct Inside {
    pub stdin: Stdio,
    pub stdout: Stdio,
    pub stderr: Stdio,
}

/// Our ends, before anything flows.
pub(super) struct Streams {
    console: Console,
    log: Option<Arc<Mutex<Log>>>,
    input: Option<OwnedFd>,
    /// None where the command gets a terminal.
    outputs: Option<[OwnedFd; 2]>,
}

impl Streams {
    pub(super) fn new(
        task: &Task,
        console: Console,
        log: Option<Log>,
    ) -> io::Result<(Self, Inside)> {
        let mut streams = Self {
            console,
            log: log.map(Mutex::new).map(Arc::new),
            input: None,
            outputs: None,
        };
        let mut inside = Inside {
            stdin: Stdio::null(),
            stdout: Stdio::null(),
            stderr: Stdio::null(),
        };
        if !task.tty {
            let (out, out_inside) = pipe2(OFlag::O_CLOEXEC)?;
            let (err, err_inside) = pipe2(OFlag::O_CLOEXEC)?;
            inside.stdout = out_inside.into();
            inside.stderr = err_inside.into();
            streams.outputs = Some([out, err]);
            if task.interactive {
                let (in_inside, input) = pipe2(OFlag::O_CLOEXEC)?;
                inside.stdin = in_inside.into();
                streams.input = Some(input);
            }
        }
        Ok((streams, inside))
    }

    /// The size that the command's terminal is to begin with.
    pub(super) fn size(&self) -> Option<Size> {
        match self.console {
            Console::Caller => Size::of(io::stdin()).ok(),
            Console::Detached => None,
        }
    }

    /// Lets it flow. `terminal` is the controlling end of the command's terminal, if it has one.
    pub(super) fn begin(self, task: &Task, terminal: Option<OwnedFd>) -> io::Result<Flow> {
        let (over, ended) = pipe2(OFlag::O_CLOEXEC)?;
        let mut outputs = Vec::new();
        let mut sources = Vec::new();
        match (&terminal, self.outputs) {
            (Some(terminal), _) => sources.push((terminal.try_clone()?, Stream::Stdout)),
            (None, Some([out, err])) => {
                sources.extend([(out, Stream::Stdout), (err, Stream::Stderr)]);
            }
            (None, None) => {}
        }
        for (from, stream) in sources {
            let output = Output {
                from,
                over: over.try_clone()?,
                to: match (self.console, stream) {
                    (Console::Detached, _) => None,
                    (Console::Caller, Stream::Stdout) => Some(owned(io::stdout())?),
                    (Console::Caller, Stream::Stderr) => Some(owned(io::stderr())?),
                },
                log: self.log.clone(),
                stream,
            };
            outputs.push(std::thread::spawn(move || output.carry()));
        }
        let input = match (&terminal, self.input) {
            (Some(terminal), _) if task.interactive => Some(terminal.try_clone()?),
            (_, input) => input,
        };
        let mut kept_input = None;
        match (self.console, input) {
            (Console::Caller, Some(input)) => {
                let from = owned(io::stdin())?;
                // Nobody waits for it: it may sleep in a read until the process ends.
                std::thread::spawn(move || carry_input(from, input.into()));
            }
            // As docker's `-di`: open, though nobody writes to it.
            (Console::Detached, input) => kept_input = input,
            (Console::Caller, None) => {}
        }
        let raw = match self.console {
            Console::Caller if terminal.is_some() && task.interactive && isatty(io::stdin()) => {
                Some(Raw::set()?)
            }
            _ => None,
        };
        Ok(Flow {
            terminal,
            outputs,
            raw,
            _input: kept_input,
            ended,
        })
    }
}

/// Streams that flow.
pub(super) struct Flow {
    terminal: Option<OwnedFd>,
    outputs: Vec<JoinHandle<io::Result<()>>>,
    raw: Option<Raw>,
    _input: Option<OwnedFd>,
    /// Closed when the command has ended.
    ended: OwnedFd,
}

impl Flow {
    /// Whether the command's terminal is worked on from ours, so that Ctrl-C is a key.
    pub(super) fn is_raw(&self) -> bool {
        self.raw.is_some()
    }

    /// Gives the command's terminal the size of the caller's.
    pub(super) fn resize(&self) -> io::Result<()> {
        match (&self.terminal, Size::of(io::stdin())) {
            (Some(terminal), Ok(size)) => size.set(terminal),
            _ => Ok(()),
        }
    }

    /// Carries what the command, which has ended, has written. What its children still hold
    /// open is not waited for.
    pub(super) fn finish(self) -> io::Result<()> {
        drop(self.ended);
        let mut result = Ok(());
        for output in self.outputs {
            let done = output
                .join()
                .unwrap_or_else(|_| Err(io::Error::other("a thread panicked")));
            result = result.and(done);
        }
        result
    }
}

/// One output of the command.
struct Output {
    from: OwnedFd,
    /// Ends when the command has ended.
    over: OwnedFd,
    to: Option<File>,
    log: Option<Arc<Mutex<Log>>>,
    stream: Stream,
}

impl Output {
    fn carry(mut self) -> io::Result<()> {
        let mut from = File::from(self.from);
        let mut buffer = vec![0; 64 << 10];
        let mut kept = Kept {
            lines: Lines::default(),
            log: self.log,
            stream: self.stream,
            trouble: None,
        };
        let mut over = false;
        while wait_for_data(&from, &self.over, &mut over)? {
            let length = match from.read(&mut buffer) {
                Ok(0) => break,
                Ok(length) => length,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                // A terminal that nobody inside has open any more.
                Err(e) if e.raw_os_error() == Some(libc::EIO) => break,
                Err(e) => return Err(e),
            };
            kept.push(&buffer[..length]);
            match self.to.as_mut().map(|to| to.write_all(&buffer[..length])) {
                None | Some(Ok(())) => {}
                // The reader has gone, as in `… | head -1`: closing our end tells the command.
                Some(Err(e)) if e.kind() == io::ErrorKind::BrokenPipe => break,
                Some(Err(e)) => return Err(e),
            }
        }
        kept.finish()
    }
}

/// One output on its way into the log. A log that cannot be written, as on a full disk, does not
/// stop the output itself.
struct Kept {
    lines: Lines,
    log: Option<Arc<Mutex<Log>>>,
    stream: Stream,
    trouble: Option<io::Error>,
}

impl Kept {
    fn push(&mut self, bytes: &[u8]) {
        if let Some(log) = self.log.clone()
            && let Err(e) = self
                .lines
                .push(bytes, |line| write(&log, self.stream, line))
        {
            self.trouble = Some(e);
            self.log = None;
        }
    }

    fn finish(self) -> io::Result<()> {
        match (self.trouble, self.log, self.lines.rest()) {
            (Some(trouble), ..) => Err(trouble),
            (None, Some(log), rest) if !rest.is_empty() => write(&log, self.stream, rest),
            _ => Ok(()),
        }
    }
}

fn write(log: &Mutex<Log>, stream: Stream, line: &[u8]) -> io::Result<()> {
    let mut log = log.lock().unwrap_or_else(PoisonError::into_inner);
    log.write(stream, line)
}

/// Whether there is something to read, or the other end is closed. `over` becomes true when
/// nothing more is to be waited for.
fn wait_for_data(from: &File, end: &OwnedFd, over: &mut bool) -> io::Result<bool> {
    const AT_ONCE: Timespec = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    loop {
        let mut events = [
            PollFd::new(from, PollFlags::IN),
            PollFd::new(end, PollFlags::IN),
        ];
        let (watched, patience) = match over {
            true => (&mut events[..1], Some(&AT_ONCE)),
            false => (&mut events[..], None),
        };
        match poll(watched, patience) {
            Err(rustix::io::Errno::INTR) => continue,
            Err(e) => return Err(e.into()),
            Ok(0) => return Ok(false),
            Ok(_) => {}
        }
        if !events[0].revents().is_empty() {
            return Ok(true);
        }
        *over = true;
    }
}

/// Until the input ends, or whoever reads it has gone; either closes the command's input.
fn carry_input(from: File, mut to: File) {
    // Nobody is there to be told of an error, and neither side can do anything about it.
    let _ = io::copy(&mut &from, &mut to);
}

/// A descriptor of our own for one of the standard streams, without Rust's buffers.
fn owned(stream: impl AsFd) -> io::Result<File> {
    Ok(stream.as_fd().try_clone_to_owned()?.into())
}
