//! Attaching the programs: pinned TCX links from kernel 6.6 on, clsact filters before.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::thread;
use std::time::{Duration, Instant};

use aya::programs::links::{FdLink, LinkError, PinnedLink};
use aya::programs::tc::{SchedClassifierLink, TcAttachOptions};
use aya::programs::{LinkOrder, ProgramError, SchedClassifier, TcAttachType};
use aya::util::KernelVersion;
use nix::net::if_::if_nametoindex;

use super::programs::{self, OpenSet};
use super::{DatapathError, Result, clsact, pins};

/// A program and where it goes on its device.
pub struct Hook {
    pub program: &'static str,
    pub attach_type: TcAttachType,
    direction: &'static str,
}

impl Hook {
    pub const PARENT: [Self; 2] = [
        Self {
            program: "parent_ingress",
            attach_type: TcAttachType::Ingress,
            direction: "ingress",
        },
        Self {
            program: "parent_egress",
            attach_type: TcAttachType::Egress,
            direction: "egress",
        },
    ];
    pub const ENDPOINT: [Self; 2] = [
        Self {
            program: "endpoint_ingress",
            attach_type: TcAttachType::Ingress,
            direction: "ingress",
        },
        Self {
            program: "endpoint_egress",
            attach_type: TcAttachType::Egress,
            direction: "egress",
        },
    ];

    pub const LOOPBACK: [Self; 1] = [Self {
        program: "loopback_egress",
        attach_type: TcAttachType::Egress,
        direction: "egress",
    }];

    /// The hook that a link with this pin's name is for.
    fn of_pin(name: &str) -> Option<&'static Self> {
        let (owner, _) = name.split_once('-')?;
        let (_, direction) = name.rsplit_once('-')?;
        let hooks: &[Self] = match owner {
            "parent" => &Self::PARENT,
            "slot" => &Self::ENDPOINT,
            "loopback" => &Self::LOOPBACK,
            _ => return None,
        };
        hooks.iter().find(|hook| hook.direction == direction)
    }
}

/// The loop-back is the first device of every namespace (`LOOPBACK_IFINDEX`, net/flow.h).
pub const LOOPBACK_INDEX: u32 = 1;

/// Whose programs, and under which name their links are pinned.
#[derive(Clone, Copy)]
pub enum Owner {
    /// By ifindex in the controller's namespace.
    Parent(u32),
    /// By slot.
    Endpoint(u32),
    /// The loop-back of the controller's namespace.
    Loopback,
}

impl Owner {
    fn hooks(self) -> &'static [Hook] {
        match self {
            Self::Parent(_) => &Hook::PARENT,
            Self::Endpoint(_) => &Hook::ENDPOINT,
            Self::Loopback => &Hook::LOOPBACK,
        }
    }

    /// Of the device, where it is the controller's own and its clsact qdisc may be ours to remove.
    fn index(self) -> Option<u32> {
        match self {
            Self::Parent(index) => Some(index),
            Self::Endpoint(_) => None,
            Self::Loopback => Some(LOOPBACK_INDEX),
        }
    }

    fn pin(self, root: &Path, hook: &Hook) -> PathBuf {
        let direction = hook.direction;
        pins::links_folder(root).join(match self {
            Self::Parent(index) => format!("parent-{index}-{direction}"),
            Self::Endpoint(slot) => format!("slot-{slot}-{direction}"),
            Self::Loopback => format!("loopback-{direction}"),
        })
    }
}

/// How long a link without a pin is waited for. The kernel ends it within a moment, and a process
/// pins it at once.
const PATIENCE: Duration = Duration::from_secs(20);
const PAUSE: Duration = Duration::from_millis(5);

/// Does this kernel have TCX, whose links a container cannot remove?
pub fn has_tcx() -> bool {
    static HAS: LazyLock<bool> = LazyLock::new(|| {
        KernelVersion::current().is_ok_and(|version| version >= KernelVersion::new(6, 6, 0))
    });
    *HAS
}

/// Attaches the owner's programs to `device` of the calling thread's namespace, or puts them in
/// the place of other ones of ours.
pub fn attach(root: &Path, owner: Owner, device: &str) -> Result<()> {
    let _held = programs::hold(root)?;
    let mut set = OpenSet::current(root)?;
    let tcx = has_tcx();
    if !tcx {
        clsact::ensure_qdisc(root, owner.index(), device)?;
    }
    for hook in owner.hooks() {
        let pin = owner.pin(root, hook);
        if attached_here(&mut set, &pin, hook, device)? {
            continue;
        }
        if tcx {
            attach_tcx(&pin, hook, device, &mut set)?;
        } else if !replace_filter(hook, device, &mut set)? {
            add_filter(hook, device, &mut set)?;
        }
    }
    Ok(())
}

fn attach_tcx(pin: &Path, hook: &Hook, device: &str, set: &mut OpenSet) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if pin.exists() {
            if relink(pin, hook, set)? && attached_here(set, pin, hook, device)? {
                return Ok(());
            }
            // Of a device that is gone.
            unlink(pin)?;
        }
        match link_tcx(pin, hook, device, set.get(hook)?) {
            // By a link without a pin: it is about to end, or to be pinned by another process.
            Err(e) if is_attached_already(&*e) && Instant::now() < deadline => thread::sleep(PAUSE),
            linked => {
                return linked.map_err(|e| attach_error(hook, device, pins::chain(&*e)));
            }
        }
    }
}

type AnyError = Box<dyn std::error::Error>;

fn link_tcx(
    pin: &Path,
    hook: &Hook,
    device: &str,
    program: &mut SchedClassifier,
) -> std::result::Result<(), AnyError> {
    let id = program.attach_with_options(
        device,
        hook.attach_type,
        TcAttachOptions::TcxOrder(LinkOrder::first()),
    )?;
    let link: FdLink = program.take_link(id)?.try_into()?;
    link.pin(pin)?;
    Ok(())
}

/// The kernel attaches a program to a device once only (`bpf_mprog_attach`, kernel/bpf/mprog.c).
fn is_attached_already(error: &(dyn std::error::Error + 'static)) -> bool {
    matches!(
        error.downcast_ref(),
        Some(ProgramError::SyscallError(e)) if e.io_error.raw_os_error() == Some(libc::EEXIST)
    )
}

/// Puts the set's program in the place of the one that a pinned link has. `false` if the link or
/// its device is gone.
fn relink(pin: &Path, hook: &Hook, set: &mut OpenSet) -> Result<bool> {
    let failed = |why| attach_error(hook, &pin.display().to_string(), why);
    let link = match PinnedLink::from_pin(pin) {
        Ok(link) => FdLink::from(link),
        Err(LinkError::SyscallError(e)) if e.io_error.kind() == io::ErrorKind::NotFound => {
            return Ok(false);
        }
        Err(e) => return Err(failed(pins::chain(&e))),
    };
    let link = SchedClassifierLink::try_from(link).map_err(|e| failed(pins::chain(&e)))?;
    match set.get(hook)?.attach_to_link(link) {
        Ok(_) => Ok(true),
        Err(ProgramError::SyscallError(e)) if e.io_error.raw_os_error() == Some(libc::ENOLINK) => {
            Ok(false)
        }
        Err(e) => Err(failed(pins::chain(&e))),
    }
}

/// Puts the set's programs in the place of those that pinned links have.
pub fn relink_all(root: &Path, set: &mut OpenSet) -> Result<()> {
    for (name, pin) in links(root)? {
        if let Some(hook) = Hook::of_pin(&name) {
            relink(&pin, hook, set)?;
        }
    }
    Ok(())
}

/// Puts the set's programs in the place of our filters on `device` of the calling thread's
/// namespace, where there are any.
pub fn replace_filters(hooks: &[Hook], device: &str, set: &mut OpenSet) -> Result<()> {
    // A device that is gone has no filters.
    if if_nametoindex(device).is_ok() {
        for hook in hooks {
            replace_filter(hook, device, set)?;
        }
    }
    Ok(())
}

/// Replaces our filter, whichever set it is of. `false` if there is none.
fn replace_filter(hook: &Hook, device: &str, set: &mut OpenSet) -> Result<bool> {
    if !clsact::is_ours(device, hook.attach_type, hook.program)? {
        return Ok(false);
    }
    let clsact = clsact::options();
    let failed = |why| attach_error(hook, device, why);
    let filter = SchedClassifierLink::attached(
        device,
        hook.attach_type,
        clsact.priority,
        clsact.handle,
        None,
    )
    .map_err(|e| failed(e.to_string()))?;
    let program = set.get(hook)?;
    let replace = |program: &mut SchedClassifier| -> std::result::Result<(), ProgramError> {
        let id = program.attach_to_link(filter)?;
        keep_filter(program.take_link(id)?);
        Ok(())
    };
    replace(program).map_err(|e| failed(pins::chain(&e)))?;
    Ok(true)
}

fn add_filter(hook: &Hook, device: &str, set: &mut OpenSet) -> Result<()> {
    let program = set.get(hook)?;
    let mut attach = || -> std::result::Result<(), ProgramError> {
        let id = program.attach_with_options(
            device,
            hook.attach_type,
            TcAttachOptions::Netlink(clsact::options()),
        )?;
        keep_filter(program.take_link(id)?);
        Ok(())
    };
    attach().map_err(|e| attach_error(hook, device, pins::chain(&e)))
}

/// The filter stays with the device; dropping the handle would remove it.
fn keep_filter(filter: SchedClassifierLink) {
    std::mem::forget(filter);
}

/// Are the owner's programs of the current set attached to `device` of the calling thread's
/// namespace?
pub fn attached(root: &Path, owner: Owner, device: &str) -> Result<bool> {
    let _held = programs::hold(root)?;
    let mut set = OpenSet::current(root)?;
    for hook in owner.hooks() {
        if !attached_here(&mut set, &owner.pin(root, hook), hook, device)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// With TCX, only what has a pin stays: the kernel ends a link some time after its pin went.
fn attached_here(set: &mut OpenSet, pin: &Path, hook: &Hook, device: &str) -> Result<bool> {
    if has_tcx() && !pin.exists() {
        return Ok(false);
    }
    let ours = set
        .get(hook)?
        .info()
        .map_err(|e| attach_error(hook, device, pins::chain(&e)))?
        .id();
    if has_tcx() {
        let (_, programs) = SchedClassifier::query_tcx(device, hook.attach_type)
            .map_err(|e| attach_error(hook, device, pins::chain(&e)))?;
        Ok(programs.iter().any(|program| program.id() == ours))
    } else {
        Ok(clsact::program_ids(device, hook.attach_type)?.contains(&ours))
    }
}

/// Detaches the owner's programs. With TCX, removing the pin is all; clsact filters of an
/// endpoint end with its slave, those of a parent are removed by name.
pub fn detach(root: &Path, owner: Owner, device: Option<&str>) -> Result<()> {
    for hook in owner.hooks() {
        unlink(&owner.pin(root, hook))?;
    }
    match (owner.index(), device) {
        _ if has_tcx() => Ok(()),
        (Some(index), Some(device)) => clsact::detach(root, index, device, owner.hooks()),
        (Some(index), None) => clsact::forget(root, index),
        (None, _) => Ok(()),
    }
}

/// Slots with a pinned link.
pub fn linked_slots(root: &Path) -> Result<Vec<u32>> {
    let slot = |name: &str| name.strip_prefix("slot-")?.split('-').next()?.parse().ok();
    Ok(links(root)?
        .iter()
        .filter_map(|(name, _)| slot(name))
        .collect())
}

/// The pinned links, by name.
fn links(root: &Path) -> Result<Vec<(String, PathBuf)>> {
    let folder = pins::links_folder(root);
    let entries = fs::read_dir(&folder).map_err(pins::io_error("read", &folder))?;
    entries
        .map(|entry| {
            let entry = entry.map_err(pins::io_error("read", &folder))?;
            let name = entry.file_name().to_string_lossy().into_owned();
            Ok((name, entry.path()))
        })
        .collect()
}

fn unlink(pin: &Path) -> Result<()> {
    match fs::remove_file(pin) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(pins::io_error("remove", pin)(e)),
        _ => Ok(()),
    }
}

fn attach_error(hook: &Hook, device: &str, why: String) -> DatapathError {
    DatapathError::Attach {
        program: hook.program,
        device: device.to_owned(),
        why,
    }
}
