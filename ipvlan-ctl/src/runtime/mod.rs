//! Processes in namespaces of their own.
//!
//! ```text
//! ipvlan-ctl run          the supervisor, in the host's namespaces: starts, attaches, waits, releases
//!   └─ ipvlan-ctl _init   PID 1 of the new namespaces: sets them up, forwards signals, reaps
//!        └─ COMMAND
//! ipvlan-ctl exec         joins a running container
//!   └─ ipvlan-ctl _init   enters its namespaces, forwards signals, reaps
//!        └─ COMMAND       in the container, as a process of its PID 1's namespace
//! ```
//!
//! With `-d` the supervisor is `ipvlan-ctl _shim`, a process in a session of its own that
//! outlives `run`. Both kinds of supervisor are the one function [`run`].
//!
//! Every stage is a fresh exec of this binary, never a bare fork, so a supervisor may have
//! threads. The init dies with its supervisor (`PR_SET_PDEATHSIG`) and everything in the
//! namespaces dies with the init, so no crash leaves a process behind; what it does leave is
//! a record, which [`Status::Dead`] tells from a live one and [`RunDir::sweep`] cleans up after.

mod cgroup;
mod container;
mod control;
mod end;
mod etc;
mod exec;
pub mod init;
mod keeper;
mod log;
mod loopback;
mod privileges;
mod records;
mod rootfs;
pub mod shim;
mod spec;
mod streams;
mod supervisor;
mod terminal;
mod user;

pub use cgroup::Limits;
pub use container::{Container, End, Process, Status};
pub use end::EndError;
pub use etc::Dns;
pub use exec::exec;
pub(crate) use keeper::close_on_exec;
pub use log::{Entry, Stream};
pub use privileges::capabilities;
pub use records::{Record, RecordError, RunDir};
pub use spec::{Spec, Task};
pub use streams::Console;
pub use supervisor::{Attach, Attached, RunError, require_root, run};
pub use user::User;
