//! Terminals: the container's own, and the caller's.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use nix::sys::stat::Mode;
use nix::unistd::{Gid, Uid};
use rustix::fs::OFlags;
use rustix::pty::OpenptFlags;
use rustix::termios::{OptionalActions, Termios, Winsize};
use serde::{Deserialize, Serialize};

/// Of a terminal, in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Size {
    rows: u16,
    columns: u16,
}

impl Size {
    pub(super) fn of(terminal: impl AsFd) -> io::Result<Self> {
        let size = rustix::termios::tcgetwinsize(terminal)?;
        Ok(Self {
            rows: size.ws_row,
            columns: size.ws_col,
        })
    }

    /// Tells whoever works on the terminal, by SIGWINCH, if it is another.
    pub(super) fn set(self, terminal: impl AsFd) -> io::Result<()> {
        let size = Winsize {
            ws_row: self.rows,
            ws_col: self.columns,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        Ok(rustix::termios::tcsetwinsize(terminal, size)?)
    }
}

/// A new pseudo-terminal of the container that this process is in.
pub(super) struct Pty {
    /// The supervisor's end.
    pub controller: OwnedFd,
    /// The command's end.
    pub terminal: OwnedFd,
}

impl Pty {
    /// Debian's, and everyone's, group `tty`.
    const GROUP: u32 = 5;

    pub(super) fn open(owner: u32, size: Option<Size>) -> io::Result<Self> {
        let controller = rustix::fs::open(
            "/dev/pts/ptmx",
            OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC | OFlags::NONBLOCK,
            rustix::fs::Mode::empty(),
        )?;
        // A container that could mount something else here must not choose what we talk to.
        const DEVPTS: rustix::fs::FsWord = libc::DEVPTS_SUPER_MAGIC as rustix::fs::FsWord;
        if rustix::fs::fstatfs(&controller)?.f_type != DEVPTS {
            return Err(io::Error::other("/dev/pts/ptmx is no pseudo-terminal"));
        }
        let flags = rustix::fs::fcntl_getfl(&controller)?;
        rustix::fs::fcntl_setfl(&controller, flags - OFlags::NONBLOCK)?;
        rustix::pty::unlockpt(&controller)?;
        let terminal = rustix::pty::ioctl_tiocgptpeer(
            &controller,
            OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC,
        )?;
        nix::sys::stat::fchmod(&terminal, Mode::from_bits_truncate(0o620))?;
        let group = Some(Gid::from_raw(Self::GROUP));
        nix::unistd::fchown(&terminal, Some(Uid::from_raw(owner)), group)?;
        if let Some(size) = size {
            size.set(&controller)?;
        }
        Ok(Self {
            controller,
            terminal,
        })
    }
}

/// The caller's terminal while each key goes to the container; as it was before once dropped.
pub(super) struct Raw {
    before: Termios,
}

impl Raw {
    /// Of the standard input.
    pub(super) fn set() -> io::Result<Self> {
        let before = rustix::termios::tcgetattr(io::stdin())?;
        let mut raw = before.clone();
        raw.make_raw();
        rustix::termios::tcsetattr(io::stdin(), OptionalActions::Now, &raw)?;
        Ok(Self { before })
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // Fails where the terminal has been hung up: then there is nothing to restore.
        let _ = rustix::termios::tcsetattr(io::stdin(), OptionalActions::Now, &self.before);
    }
}
