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

#[cfg(test)]
mod tests {
    use crate::model::fixtures::{add, host, link, made, refused};
    use crate::model::{HostView, Parent};

    const FIELD: &str = "-o parent";

    fn vlan(name: &str, base: &str, vid: u16) -> Parent {
        Parent::Vlan {
            name: name.into(),
            base: base.into(),
            vid,
        }
    }

    #[test]
    fn no_parent_means_an_internal_network_on_a_dummy() {
        for line in ["n", "n -o parent=", "n -o parent", "n --internal"] {
            let network = made(line, &host());
            let name = String::from("di-aaaaaaaaaaaa");
            assert_eq!(network.parent, Parent::Dummy { name });
            assert!(network.internal);
        }
    }

    #[test]
    fn an_existing_parent_is_used_also_when_internal() {
        for internal in [false, true] {
            let flag = if internal { "--internal" } else { "" };
            let network = made(&format!("n -o parent=eth0 {flag}"), &host());
            assert_eq!(
                network.parent,
                Parent::Existing {
                    name: "eth0".into()
                }
            );
            assert_eq!(network.internal, internal);
        }
    }

    #[test]
    fn loopback_ipvlan_and_enslaved_links_are_refused() {
        let mut host = host();
        host.links.push(super::LinkView {
            ipvlan: true,
            ..link(4, "ipvl0")
        });
        host.links.push(super::LinkView {
            kind: Some("bridge".into()),
            ..link(5, "br0")
        });
        host.links.push(super::LinkView {
            kind: Some("vrf".into()),
            ..link(6, "blue")
        });
        for (index, name, master) in [(7, "port", 5), (8, "lost", 99), (9, "member", 6)] {
            host.links.push(super::LinkView {
                master: Some(master),
                ..link(index, name)
            });
        }
        refused("n -o parent=lo", &host, FIELD, "lo", &["loopback"]);
        refused("n -o parent=lo.5", &host, FIELD, "lo.5", &["loopback"]);
        refused(
            "n -o parent=ipvl0",
            &host,
            FIELD,
            "ipvl0",
            &["ipvlan device itself"],
        );
        refused(
            "n -o parent=ipvl0.5",
            &host,
            FIELD,
            "ipvl0.5",
            &["ipvlan device itself"],
        );
        refused("n -o parent=port", &host, FIELD, "port", &["br0 (bridge)"]);
        refused(
            "n -o parent=lost",
            &host,
            FIELD,
            "lost",
            &["bridge, bond or team"],
        );
        made("n -o parent=member", &host);
        made("n -o parent=br0", &host);
    }

    #[test]
    fn a_missing_sub_interface_is_to_be_made() {
        let mut host = host();
        host.links.push(link(4, "lan.1"));
        assert_eq!(
            made("n -o parent=eth0.10", &host).parent,
            vlan("eth0.10", "eth0", 10)
        );
        assert_eq!(
            made("n -o parent=eth0.1", &host).parent,
            vlan("eth0.1", "eth0", 1)
        );
        assert_eq!(
            made("n -o parent=eth0.4094", &host).parent,
            vlan("eth0.4094", "eth0", 4094)
        );
        assert_eq!(
            made("n -o parent=lan.1.20", &host).parent,
            vlan("lan.1.20", "lan.1", 20)
        );
        let name = String::from("lan.1");
        assert_eq!(
            made("n -o parent=lan.1", &host).parent,
            Parent::Existing { name }
        );
    }

    #[test]
    fn a_bad_missing_parent_is_refused() {
        let mut host = host();
        host.links.push(link(4, "enp129s0f1np1"));
        for name in ["eth9", "di-0123", "a.b.10", ".10", ".", "ö"] {
            refused(
                &format!("n -o parent={name}"),
                &host,
                FIELD,
                name,
                &["eth0.10", "4094"],
            );
        }
        refused(
            "n -o parent=eth9.10",
            &host,
            FIELD,
            "eth9.10",
            &["no link \"eth9\""],
        );
        for vid in [
            "0",
            "4095",
            "65546",
            "-1",
            "+5",
            "010",
            "x",
            "",
            "99999999999",
        ] {
            let name = format!("eth0.{vid}");
            refused(
                &format!("n -o parent={name}"),
                &host,
                FIELD,
                &name,
                &["1 to 4094"],
            );
        }
        let long = "enp129s0f1np1.10";
        refused(
            &format!("n -o parent={long}"),
            &host,
            FIELD,
            long,
            &["15 bytes"],
        );
        made("n -o parent=enp129s0f1np1.5", &host);
    }

    /// A host where network `first` has eth0.10, which exists by now.
    fn host_with_first(options: &str) -> HostView {
        let mut host = host();
        add(
            &format!("first -o parent=eth0.10 --subnet 10.1.0.0/24 {options}"),
            'b',
            &mut host,
        );
        host.links.push(link(4, "eth0.10"));
        host
    }

    #[test]
    fn a_parent_in_use_is_refused_unless_both_share() {
        let ask = "n --subnet 10.2.0.0/24 -o parent=eth0.10";
        let named = ["network first (bbbbbbbbbbbb)", "shared_parent=true"];
        refused(ask, &host_with_first(""), FIELD, "eth0.10", &named);
        let sharing = host_with_first("-o shared_parent=true");
        refused(ask, &sharing, FIELD, "eth0.10", &named);
        let ask = &format!("{ask} -o shared_parent=true");
        refused(ask, &host_with_first(""), FIELD, "eth0.10", &named);
        // Made by us for the first: it is ours for both, whether it is there now or not.
        assert_eq!(made(ask, &sharing).parent, vlan("eth0.10", "eth0", 10));
        let mut gone = sharing.clone();
        gone.links.pop();
        assert_eq!(made(ask, &gone).parent, vlan("eth0.10", "eth0", 10));
        // The VLAN's base and its other VLANs are free.
        made("n --subnet 10.2.0.0/24 -o parent=eth0", &sharing);
        made("n --subnet 10.2.0.0/24 -o parent=eth0.11", &sharing);
    }

    #[test]
    fn sharing_needs_one_mode_one_flag_and_disjoint_subnets() {
        let host = host_with_first("-o shared_parent=true -o ipvlan_mode=l3");
        let ask = "n -o parent=eth0.10 -o shared_parent=true";
        let same = ["ipvlan_mode=l3 and ipvlan_flag=bridge", "network first"];
        refused(
            &format!("{ask} -o ipvlan_mode=l3s"),
            &host,
            FIELD,
            "eth0.10",
            &same,
        );
        let ask = format!("{ask} -o ipvlan_mode=l3");
        let other_flag = format!("{ask} -o ipvlan_flag=private");
        refused(&other_flag, &host, FIELD, "eth0.10", &same);
        let overlapping = format!("{ask} --subnet 10.1.0.128/25");
        refused(
            &overlapping,
            &host,
            "--subnet",
            "10.1.0.128/25",
            &["10.1.0.0/24", "first"],
        );
        made(&format!("{ask} --subnet 10.1.1.0/24"), &host);
    }

    #[test]
    fn the_dummy_of_a_network_is_its_own() {
        let mut host = host();
        add("first -o shared_parent=true", 'b', &mut host);
        host.links.push(link(4, "di-bbbbbbbbbbbb"));
        let line = "n -o shared_parent=true -o parent=di-bbbbbbbbbbbb";
        refused(line, &host, FIELD, "di-bbbbbbbbbbbb", &["network first"]);
    }
}
