//! Another command in a running container.

use std::io;

use nix::sys::signal::Signal;

use super::container::Status;
use super::control::{Order, Place};
use super::keeper::{Keeper, pass_on};
use super::records::Record;
use super::spec::Task;
use super::streams::{Console, Streams};
use super::supervisor::{RunError, require_root, take_signals};

/// Runs a task in the container with the caller's streams; returns its exit status (128 + n for
/// signal n). The command ends with this process, if not before.
///
/// As [`run`](super::run), blocks signals and passes them on; the same thread must live on.
pub fn exec(record: &Record, task: &Task) -> Result<u8, RunError> {
    require_root()?;
    let container = &record.container;
    let not_running = || RunError::NotRunning(container.spec.name.clone());
    let init = match (record.status(), container.init) {
        (Status::Running, Some(init)) => init,
        _ => return Err(not_running()),
    };
    let signals = take_signals().map_err(RunError::Wait)?;
    let (streams, inside) = Streams::new(task, Console::Caller, None).map_err(RunError::Streams)?;
    let mut keeper = Keeper::to_join(inside)?;
    if let Some(cgroup) = &container.cgroup {
        cgroup.add(keeper.pid())?;
    }
    let order = Order {
        task: task.clone(),
        place: Place::Join(init),
        size: streams.size(),
    };
    let started = keeper.start(&order).map_err(|cause| match init.is_alive() {
        true => cause,
        false => not_running(),
    });
    let flow = streams.begin(task, started?).map_err(RunError::Streams)?;
    let status = keeper
        .wait(&signals, |keeper, signal| -> io::Result<()> {
            match signal {
                Signal::SIGWINCH => flow.resize(),
                other => pass_on(keeper, other),
            }
        })
        .map_err(RunError::Wait)?;
    flow.finish().map_err(RunError::Output)?;
    Ok(status)
}
