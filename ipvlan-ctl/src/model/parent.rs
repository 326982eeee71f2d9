//! Which device a network's slaves sit on, and who makes it.

use super::options::{Options, parent_field};
use super::{HostView, Id, Invalid, LinkView, Network, Parent};

/// Longest name of a link, in bytes (`IFNAMSIZ` without its terminator).
const MAX_LINK_NAME: usize = 15;

impl Parent {
    /// Name of the dummy under a network without a parent, as Docker names it.
    pub fn dummy(id: &Id) -> Self {
        Self::Dummy {
            name: format!("di-{}", id.short()),
        }
    }
}

/// The parent that the options name: a link of the host, a VLAN sub-interface that is to be
/// made, or a dummy when none is named.
pub fn resolve(options: &Options, host: &HostView, id: &Id) -> Result<Parent, Invalid> {
    let Some(name) = &options.parent else {
        return Ok(Parent::dummy(id));
    };
    let users = || host.networks.iter().filter(|n| n.parent.name() == name);
    for user in users() {
        check_sharing(options, name, user)?;
    }
    let own = users().map(|user| user.parent.clone()).next();
    match (host.link(name), own) {
        (Some(link), own) => {
            check_link(link, host)?;
            Ok(own.unwrap_or_else(|| Parent::Existing { name: name.clone() }))
        }
        // Made by us for that network and gone since: it will be made anew.
        (None, Some(vlan @ Parent::Vlan { .. })) => Ok(vlan),
        (None, _) => missing(name, host),
    }
}

/// One parent has one mode and flag in the kernel, so both networks must agree on them, and each
/// must say that it shares. (That their subnets are disjoint is checked with the subnets.)
fn check_sharing(options: &Options, name: &str, user: &Network) -> Result<(), Invalid> {
    let refuse = |why: String| Err(invalid(name, why));
    let by = format!("network {} ({}) uses it", user.name, user.id.short());
    if let Parent::Dummy { .. } = user.parent {
        return refuse(format!("{by}, alone; give another parent"));
    }
    if !(options.shared_parent && user.shared_parent) {
        return refuse(format!(
            "{by}; give another parent or VLAN, or -o shared_parent=true to both networks"
        ));
    }
    if (options.mode, options.flag) != (user.mode, user.flag) {
        return refuse(format!(
            "{by} with ipvlan_mode={} and ipvlan_flag={}; networks that share a parent have the \
             same mode and flag",
            user.mode, user.flag
        ));
    }
    Ok(())
}

fn check_link(link: &LinkView, host: &HostView) -> Result<(), Invalid> {
    let refuse = |why: String| Err(invalid(&link.name, why));
    if link.loopback {
        return refuse("the loopback device cannot be a parent".into());
    }
    if link.ipvlan {
        return refuse("it is an ipvlan device itself; give the device under it".into());
    }
    let master = link
        .master
        .and_then(|index| host.links.iter().find(|l| l.index == index));
    match master {
        // A VRF routes for its members and leaves their receive path alone.
        Some(master) if master.kind.as_deref() == Some("vrf") => Ok(()),
        Some(master) => refuse(format!(
            "it belongs to {} ({}), which takes its packets; give that device, or one that \
             belongs to none",
            master.name,
            master.kind.as_deref().unwrap_or("unknown kind")
        )),
        None if link.master.is_some() => {
            refuse("it belongs to a bridge, bond or team, which takes its packets".into())
        }
        None => Ok(()),
    }
}

/// A name that no link has: good only as `BASE.VID`, where BASE is a link.
fn missing(name: &str, host: &HostView) -> Result<Parent, Invalid> {
    let hint = "no such link; give a link of this host, or LINK.VLAN (such as eth0.10, VLAN 1 to \
                4094) to have a VLAN sub-interface made";
    let Some((base, vid)) = name.rsplit_once('.') else {
        return Err(invalid(name, hint));
    };
    let Some(base_link) = host.link(base) else {
        let why = match base.contains('.') || base.is_empty() {
            true => hint.to_owned(),
            false => format!("there is no link {base:?} to make a VLAN sub-interface of"),
        };
        return Err(invalid(name, why));
    };
    if base_link.loopback {
        return Err(invalid(name, "the loopback device carries no VLANs"));
    }
    if base_link.ipvlan {
        let why = format!("{base} is an ipvlan device itself; give the device under it");
        return Err(invalid(name, why));
    }
    let vid = vlan_id(vid).ok_or_else(|| {
        invalid(
            name,
            format!("the VLAN after {base:?} and the dot is 1 to 4094"),
        )
    })?;
    if name.len() > MAX_LINK_NAME {
        let why = format!("the name of a link has at most {MAX_LINK_NAME} bytes");
        return Err(invalid(name, why));
    }
    Ok(Parent::Vlan {
        name: name.to_owned(),
        base: base.to_owned(),
        vid,
    })
}

/// Digits only, without leading zeros: `eth0.010` would be a second name of `eth0.10`.
fn vlan_id(text: &str) -> Option<u16> {
    let plain = text.bytes().all(|b| b.is_ascii_digit()) && !text.starts_with('0');
    text.parse()
        .ok()
        .filter(|vid| plain && (1..=4094).contains(vid))
}

fn invalid(name: &str, why: impl Into<String>) -> Invalid {
    Invalid::new(parent_field(), name, why)
}
