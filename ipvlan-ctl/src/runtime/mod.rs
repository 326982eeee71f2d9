//! Processes in namespaces of their own.
//!
//! ```text
//! ipvlan-ctl run          the supervisor, in the host's namespaces: starts, attaches, waits, releases
//!   └─ ipvlan-ctl _init   PID 1 of the new namespaces: sets them up, forwards signals, reaps
//!        └─ COMMAND
//! ```
//!
//! With `-d` the supervisor is `ipvlan-ctl _shim`, a process in a session of its own that
//! outlives `run`. Both kinds of supervisor are the one function [`run`].
//!
//! Every stage is a fresh exec of this binary, never a bare fork, so a supervisor may have
//! threads. The init dies with its supervisor (`PR_SET_PDEATHSIG`) and everything in the
//! namespaces dies with the init, so no crash leaves a process behind; what it does leave is
//! a record, which [`Container::is_lost`] tells from a live one.

mod container;
mod etc;
pub mod init;
mod loopback;
mod privileges;
mod rootfs;
pub mod shim;
mod supervisor;

pub use container::{Container, Process, RunDir, State, StateDir};
pub use supervisor::{Attach, Output, RunError, Spec, require_root, run};
