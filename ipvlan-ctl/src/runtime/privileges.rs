//! What a process in a container may do.

use caps::errors::CapsError;
use caps::{CapSet, Capability, CapsHashSet};

/// The set Docker gives by default. It lacks NET_ADMIN and SYS_ADMIN: a container can neither
/// change its addresses nor undo its mounts.
pub(super) const DEFAULT: [Capability; 14] = [
    Capability::CAP_AUDIT_WRITE,
    Capability::CAP_CHOWN,
    Capability::CAP_DAC_OVERRIDE,
    Capability::CAP_FOWNER,
    Capability::CAP_FSETID,
    Capability::CAP_KILL,
    Capability::CAP_MKNOD,
    Capability::CAP_NET_BIND_SERVICE,
    Capability::CAP_NET_RAW,
    Capability::CAP_SETFCAP,
    Capability::CAP_SETGID,
    Capability::CAP_SETPCAP,
    Capability::CAP_SETUID,
    Capability::CAP_SYS_CHROOT,
];

/// Keeps only [`DEFAULT`] in this thread, and in whatever it executes as root.
pub(super) fn drop_capabilities() -> Result<(), CapsError> {
    let keep: CapsHashSet = DEFAULT.into_iter().collect();
    // The bounding set first: shrinking it takes SETPCAP, and it is what root gets on exec.
    for capability in caps::runtime::thread_all_supported() {
        if !keep.contains(&capability) {
            caps::drop(None, CapSet::Bounding, capability)?;
        }
    }
    caps::clear(None, CapSet::Ambient)?;
    caps::clear(None, CapSet::Inheritable)?;
    let held = caps::read(None, CapSet::Permitted)?;
    let keep = keep.intersection(&held).copied().collect();
    caps::set(None, CapSet::Effective, &keep)?;
    caps::set(None, CapSet::Permitted, &keep)
}
