//! Attaching the programs: pinned TCX links from kernel 6.6 on, clsact filters before.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use aya::programs::links::FdLink;
use aya::programs::tc::TcAttachOptions;
use aya::programs::{LinkOrder, ProgramError, SchedClassifier, TcAttachType};
use aya::util::KernelVersion;

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

    fn open(&self, root: &Path) -> std::result::Result<SchedClassifier, ProgramError> {
        SchedClassifier::from_pin(pins::abi_folder(root).join(self.program))
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

/// Does this kernel have TCX, whose links a container cannot remove?
pub fn has_tcx() -> bool {
    KernelVersion::current().is_ok_and(|version| version >= KernelVersion::new(6, 6, 0))
}

/// Attaches the owner's programs to `device` of the calling thread's namespace.
pub fn attach(root: &Path, owner: Owner, device: &str) -> Result<()> {
    let tcx = has_tcx();
    if !tcx {
        clsact::ensure_qdisc(root, owner.index(), device)?;
    }
    for hook in owner.hooks() {
        if tcx {
            attach_tcx(root, owner, hook, device)?
        } else {
            attach_clsact(root, hook, device)?
        }
    }
    Ok(())
}

fn attach_tcx(root: &Path, owner: Owner, hook: &Hook, device: &str) -> Result<()> {
    let pin = owner.pin(root, hook);
    if pin.exists() {
        if attached_here(root, hook, device)? {
            return Ok(());
        }
        // Of a device that is gone.
        unlink(&pin)?;
    }
    let attach = || -> std::result::Result<(), Box<dyn std::error::Error>> {
        let mut program = hook.open(root)?;
        let id = program.attach_with_options(
            device,
            hook.attach_type,
            TcAttachOptions::TcxOrder(LinkOrder::first()),
        )?;
        let link: FdLink = program.take_link(id)?.try_into()?;
        link.pin(&pin)?;
        Ok(())
    };
    attach().map_err(|e| attach_error(hook, device, pins::chain(&*e)))
}

fn attach_clsact(root: &Path, hook: &Hook, device: &str) -> Result<()> {
    if attached_here(root, hook, device)? {
        return Ok(());
    }
    let attach = || -> std::result::Result<(), ProgramError> {
        let mut program = hook.open(root)?;
        let id = program.attach_with_options(
            device,
            hook.attach_type,
            TcAttachOptions::Netlink(clsact::options()),
        )?;
        // The filter stays with the device; dropping the handle would remove it.
        std::mem::forget(program.take_link(id)?);
        Ok(())
    };
    attach().map_err(|e| attach_error(hook, device, pins::chain(&e)))
}

/// Are these programs attached to `device` of the calling thread's namespace?
pub fn attached(root: &Path, hooks: &[Hook], device: &str) -> Result<bool> {
    for hook in hooks {
        if !attached_here(root, hook, device)? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn attached_here(root: &Path, hook: &Hook, device: &str) -> Result<bool> {
    let id = |program: SchedClassifier| program.info().map(|info| info.id());
    let ours = hook
        .open(root)
        .and_then(id)
        .map_err(|e| attach_error(hook, device, pins::chain(&e)))?;
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
    let folder = pins::links_folder(root);
    let entries = fs::read_dir(&folder).map_err(pins::io_error("read", &folder))?;
    let mut slots = Vec::new();
    for entry in entries {
        let entry = entry.map_err(pins::io_error("read", &folder))?;
        let name = entry.file_name();
        let slot = name
            .to_str()
            .and_then(|name| name.strip_prefix("slot-"))
            .and_then(|rest| rest.split('-').next())
            .and_then(|slot| slot.parse::<u32>().ok());
        slots.extend(slot);
    }
    Ok(slots)
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
