//! What a process in a container may do.

use std::collections::BTreeMap;

use caps::errors::CapsError;
use caps::{CapSet, Capability, CapsHashSet};
use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};

use super::user::Identity;
use crate::model::Invalid;

/// The set Docker gives by default. It lacks NET_ADMIN and SYS_ADMIN: a container can neither
/// change its addresses nor undo its mounts.
const DEFAULT: [Capability; 14] = [
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

/// The capabilities that `--cap-add` and `--cap-drop` leave, by docker's rules: names with or
/// without `CAP_`, in any case, or `ALL`. They come in the kernel's order.
pub fn capabilities(add: &[String], drop: &[String]) -> Result<Vec<Capability>, Invalid> {
    let supported: BTreeMap<u8, Capability> = caps::runtime::thread_all_supported()
        .into_iter()
        .map(|capability| (capability.index(), capability))
        .collect();
    let parse = |field: &str, words: &[String]| -> Result<(bool, Vec<Capability>), Invalid> {
        let mut parsed = Vec::new();
        let mut all = false;
        for word in words {
            let name = word.to_ascii_uppercase();
            let short = name.strip_prefix("CAP_").unwrap_or(&name);
            let known = supported
                .values()
                .find(|known| known.to_string().strip_prefix("CAP_") == Some(short));
            match (short, known) {
                ("ALL", _) => all = true,
                (_, Some(known)) => parsed.push(*known),
                (_, None) => {
                    let allowed = "ALL, or a capability of this kernel such as NET_ADMIN";
                    return Err(Invalid::new(field, word, allowed));
                }
            }
        }
        Ok((all, parsed))
    };
    let (add_all, add) = parse("--cap-add", add)?;
    let (drop_all, drop) = parse("--cap-drop", drop)?;
    Ok(supported
        .into_values()
        .filter(|capability| match (add_all, drop_all) {
            (true, _) => !drop.contains(capability),
            (false, true) => add.contains(capability),
            (false, false) => {
                add.contains(capability)
                    || DEFAULT.contains(capability) && !drop.contains(capability)
            }
        })
        .collect())
}

/// Makes this thread, which is root, and whatever it executes, this user with no more than
/// these capabilities.
pub(super) fn become_user(identity: &Identity, keep: &[Capability]) -> std::io::Result<()> {
    let keep: CapsHashSet = keep.iter().copied().collect();
    // The bounding set first: shrinking it takes SETPCAP, and it is what root gets on exec.
    for capability in caps::runtime::thread_all_supported() {
        if !keep.contains(&capability) {
            caps::drop(None, CapSet::Bounding, capability).map_err(std::io::Error::other)?;
        }
    }
    let groups: Vec<Gid> = identity.groups.iter().copied().map(Gid::from_raw).collect();
    setgroups(&groups)?;
    let gid = Gid::from_raw(identity.gid);
    setresgid(gid, gid, gid)?;
    let uid = Uid::from_raw(identity.uid);
    // The kernel takes all capabilities from who stops being root.
    setresuid(uid, uid, uid)?;
    hold_only(keep).map_err(std::io::Error::other)
}

/// Lets go of all but these in this thread.
pub(super) fn hold_only(keep: CapsHashSet) -> Result<(), CapsError> {
    caps::clear(None, CapSet::Ambient)?;
    caps::clear(None, CapSet::Inheritable)?;
    let held = caps::read(None, CapSet::Permitted)?;
    let keep = keep.intersection(&held).copied().collect();
    caps::set(None, CapSet::Effective, &keep)?;
    caps::set(None, CapSet::Permitted, &keep)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn left(add: &[&str], drop: &[&str]) -> Result<Vec<String>, Invalid> {
        let words = |words: &[&str]| {
            words
                .iter()
                .map(|word| word.to_string())
                .collect::<Vec<_>>()
        };
        let left = capabilities(&words(add), &words(drop))?;
        Ok(left
            .iter()
            .map(|capability| capability.to_string())
            .collect())
    }

    #[test]
    fn added_and_dropped_as_docker_does() {
        let default = left(&[], &[]).unwrap();
        assert_eq!(default.len(), DEFAULT.len());
        assert_eq!(left(&[], &["all"]).unwrap(), Vec::<String>::new());
        assert_eq!(
            left(&["net_admin", "CAP_SYS_TIME"], &["ALL"]).unwrap(),
            ["CAP_NET_ADMIN", "CAP_SYS_TIME"]
        );
        let all = left(&["ALL"], &[]).unwrap();
        assert!(all.len() > 35, "{all:?}");
        assert_eq!(left(&["ALL"], &["NET_RAW"]).unwrap().len(), all.len() - 1);
        let changed = left(&["NET_ADMIN"], &["Cap_Net_Raw", "kill"]).unwrap();
        assert_eq!(changed.len(), default.len() - 1);
        assert!(!changed.contains(&"CAP_NET_RAW".to_owned()));
    }

    #[test]
    fn an_unknown_capability_is_refused() {
        for (add, drop, field) in [
            (&["NET_ADMON"][..], &[][..], "--cap-add"),
            (&[], &[""], "--cap-drop"),
        ] {
            let error = left(add, drop).unwrap_err();
            assert_eq!(error.field, field);
        }
    }
}
