//! What a container is to be, and what is executed in it.

use std::path::PathBuf;

use caps::Capability;
use serde::{Deserialize, Serialize};

use super::cgroup::Limits;
use super::etc::Dns;
use super::user::User;
use crate::model::Id;

/// What to start. How it is connected is [`Attach`](super::Attach)'s part.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Spec {
    pub id: Id,
    /// Unique among the containers of the host; the short id where the user gave none.
    pub name: String,
    pub hostname: String,
    pub dns: Dns,
    pub task: Task,
    /// The networks that were asked for, in the order of their interfaces.
    pub networks: Vec<String>,
    /// The container's root, absolute; the host's, read-only, if none is given.
    pub rootfs: Option<PathBuf>,
    pub limits: Limits,
    /// Forget the container when it ends (`--rm`).
    pub remove: bool,
}

/// One command in a container, and as whom it runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Task {
    /// The program, looked up in the PATH of `env` inside the container, and its arguments;
    /// never empty.
    pub command: Vec<String>,
    /// The whole environment but HOME, which is its user's where it is not named here.
    pub env: Vec<(String, String)>,
    /// Absolute; `/` if none is given.
    pub workdir: Option<PathBuf>,
    pub user: User,
    pub capabilities: Vec<Capability>,
    /// Give it a terminal of the container's own (`-t`).
    pub tty: bool,
    /// Keep its input open (`-i`); it is empty otherwise.
    pub interactive: bool,
}
