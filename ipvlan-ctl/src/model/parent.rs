//! Which device goes under a network: one that exists, a VLAN of one, a dummy, or one of each
//! container's own.

use super::options::{self, DriverOptions, Families};
use super::{HostView, Id, Invalid, LinkView, Mode, Network, Parent};

/// Longest name of a link (`IFNAMSIZ` less the final zero), in bytes.
const MAX_LINK_NAME: usize = 15;
const MAX_VID: u16 = 4094;

/// A network's parent, and the largest MTU of a slave on it.
#[derive(Debug)]
pub struct Placement {
    pub parent: Parent,
    /// `None` for a dummy, whose MTU is ours to set, and for a link that is not known yet.
    pub mtu: Option<u32>,
}

/// Finds the parent that `options` ask for and checks that a network may have it.
pub fn place(options: &DriverOptions, host: &HostView, id: &Id) -> Result<Placement, Invalid> {
    if options.link_in_container {
        return inside(options);
    }
    let Some(name) = &options.parent else {
        if options.shared_parent {
            return Err(Invalid::new(
                options::field(options::SHARED_PARENT),
                "true",
                "it needs -o parent=LINK; without one each network has a dummy of its own",
            ));
        }
        let name = format!("di-{}", id.short());
        return Ok(Placement {
            parent: Parent::Dummy { name },
            mtu: None,
        });
    };
    // The users first: they hold a parent also while its link is gone.
    let users: Vec<_> = host
        .networks
        .iter()
        .filter(|network| network.parent.is_of_host() && network.parent.name() == name)
        .collect();
    for user in &users {
        check_sharing(options, name, user)?;
    }
    let made_by_us = users
        .iter()
        .find(|user| matches!(user.parent, Parent::Vlan { .. }));
    match (link(host, name), made_by_us) {
        (Some(link), made_by_us) => {
            check_link(link, host)?;
            let parent = match made_by_us {
                Some(user) => user.parent.clone(),
                None => Parent::Existing { name: name.clone() },
            };
            Ok(Placement {
                parent,
                mtu: Some(link.mtu),
            })
        }
        (None, _) => vlan(name, host),
    }
}

fn check_sharing(options: &DriverOptions, name: &str, user: &Network) -> Result<(), Invalid> {
    let invalid = |allowed: String| Err(Invalid::new(field(), name, allowed));
    let who = format!("network {} ({})", user.name, user.id.short());
    if matches!(user.parent, Parent::Dummy { .. }) {
        return invalid(format!("it is the dummy of {who}; use another link"));
    }
    if !(options.shared_parent && user.shared_parent) {
        return invalid(format!(
            "{who} uses it; use another link or VLAN, or create both networks with -o {}=true",
            options::SHARED_PARENT
        ));
    }
    if (options.mode, options.flag) != (user.mode, user.flag) {
        return invalid(format!(
            "{who} shares it with mode {} and flag {}, which hold for all of a parent's networks",
            user.mode, user.flag
        ));
    }
    Ok(())
}

/// Whether ipvlan slaves can be put on `link`.
fn check_link(link: &LinkView, host: &HostView) -> Result<(), Invalid> {
    let invalid = |allowed: String| Err(Invalid::new(field(), &link.name, allowed));
    if link.loopback {
        return invalid("the loopback device cannot be a parent; use another link".into());
    }
    if link.ipvlan {
        return invalid("it is an ipvlan slave itself; use its parent".into());
    }
    if let Some(index) = link.master {
        let master = match host.links.iter().find(|l| l.index == index) {
            Some(master) => master.name.clone(),
            None => format!("link {index}"),
        };
        return invalid(format!("it is enslaved to {master}; use {master} itself"));
    }
    Ok(())
}

/// The 802.1Q sub-interface that a missing link's name `base.vid` asks for.
fn vlan(name: &str, host: &HostView) -> Result<Placement, Invalid> {
    let invalid = |allowed: String| Err(Invalid::new(field(), name, allowed));
    let hint =
        || format!("no such link; name one that exists, or LINK.VID (1 to {MAX_VID}) for a VLAN");
    let Some((base, vid)) = name.rsplit_once('.').filter(|(base, _)| !base.is_empty()) else {
        return invalid(hint());
    };
    let Some(base) = link(host, base) else {
        return if base.contains('.') {
            invalid(hint())
        } else {
            invalid(format!(
                "its base {base:?} is no link; name one that exists"
            ))
        };
    };
    let Some(vid) = options::decimal(vid)
        .and_then(|vid| u16::try_from(vid).ok())
        .filter(|vid| (1..=MAX_VID).contains(vid))
    else {
        return invalid(format!(
            "the VLAN id after the last dot is 1 to {MAX_VID}, without leading zeros"
        ));
    };
    if base.loopback {
        return invalid("the loopback device cannot carry a VLAN; use another link".into());
    }
    if base.ipvlan {
        return invalid(format!(
            "{} is an ipvlan slave itself; use its parent",
            base.name
        ));
    }
    if name.len() > MAX_LINK_NAME {
        return invalid(format!(
            "a link's name has {MAX_LINK_NAME} bytes at most; create the VLAN under a shorter name"
        ));
    }
    Ok(Placement {
        parent: Parent::Vlan {
            name: name.to_owned(),
            base: base.name.clone(),
            vid,
        },
        mtu: Some(base.mtu),
    })
}

/// A link that each container brings along.
fn inside(options: &DriverOptions) -> Result<Placement, Invalid> {
    let invalid = |key: &str, value: &str, allowed: String| {
        Err(Invalid::new(options::field(key), value, allowed))
    };
    let Some(name) = options.parent.clone() else {
        let allowed = "it needs -o parent=LINK, the link's name in each container";
        return invalid(options::LINK_IN_CONTAINER, "true", allowed.into());
    };
    let is_visible = |c: char| c.is_ascii_graphic() && !matches!(c, '/' | ':');
    if name.len() > MAX_LINK_NAME || !name.chars().all(is_visible) {
        let allowed = format!("a link's name has {MAX_LINK_NAME} visible characters at most");
        return invalid(options::PARENT, &name, allowed);
    }
    if name == "lo" {
        let allowed = "the loopback device cannot be a parent; use another link";
        return invalid(options::PARENT, &name, allowed.into());
    }
    if options.shared_parent {
        let allowed = "a parent in each container is shared by none";
        return invalid(options::SHARED_PARENT, "true", allowed.into());
    }
    if options.mode == Mode::L3s {
        let allowed = "with a parent in each container it is l2 or l3: l3s delivers behind the \
                       slave's own programs";
        return invalid(options::MODE, "l3s", allowed.into());
    }
    Ok(Placement {
        parent: Parent::Inside { name },
        mtu: None,
    })
}

/// Whether `link`, found in a container, can be the parent there of slaves with this MTU.
pub fn check_inside(link: &LinkView, mtu: Option<u32>) -> Result<(), Invalid> {
    check_link(link, &HostView::default())?;
    match mtu {
        Some(mtu) if mtu > link.mtu => Err(Invalid::new(
            "--mtu",
            mtu.to_string(),
            format!(
                "{} has {} there, which is the most it can be",
                link.name, link.mtu
            ),
        )),
        _ => Ok(()),
    }
}

/// Checks the MTU asked for, or the one inherited, against the parent's.
pub fn check_mtu(
    options: &DriverOptions,
    parent_mtu: Option<u32>,
    families: Families,
) -> Result<(), Invalid> {
    let (Some(parent_mtu), Some(parent)) = (parent_mtu, &options.parent) else {
        return Ok(());
    };
    match options.mtu {
        Some(mtu) if mtu > parent_mtu => Err(Invalid::new(
            options.mtu_field,
            mtu.to_string(),
            format!("the parent {parent} has {parent_mtu}, which is the most it can be"),
        )),
        None if parent_mtu < families.min_mtu() => Err(Invalid::new(
            field(),
            parent,
            format!(
                "its MTU is {parent_mtu}; {} needs {} or more",
                if families.v6 { "IPv6" } else { "IPv4" },
                families.min_mtu()
            ),
        )),
        _ => Ok(()),
    }
}

fn field() -> String {
    options::field(options::PARENT)
}

fn link<'h>(host: &'h HostView, name: &str) -> Option<&'h LinkView> {
    host.links.iter().find(|link| link.name == name)
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::{create, host, network, refused};
    use super::super::{HostView, Parent};

    fn vlan(name: &str, base: &str, vid: u16) -> Parent {
        Parent::Vlan {
            name: name.into(),
            base: base.into(),
            vid,
        }
    }

    #[test]
    fn existing_links() {
        let mut host = host();
        let existing = |name: &str| Parent::Existing { name: name.into() };
        let net = network("-o parent=eth0 n", &host);
        assert_eq!((net.parent, net.internal), (existing("eth0"), false));
        let net = network("--internal -o parent=eth0 n", &host);
        assert_eq!((net.parent, net.internal), (existing("eth0"), true));
        // A bridge's own device is a link like others, and so is a VLAN that someone else made.
        network("-o parent=br0 n", &host);
        let mut theirs = host.links[1].clone();
        (theirs.index, theirs.name) = (99, "eth0.7".into());
        host.links.push(theirs);
        assert_eq!(
            network("-o parent=eth0.7 n", &host).parent,
            existing("eth0.7")
        );

        refused("-o parent=lo n", &host, "-o parent", "lo", "loopback");
        refused(
            "-o parent=port n",
            &host,
            "-o parent",
            "port",
            "enslaved to br0",
        );
        refused(
            "-o parent=slave n",
            &host,
            "-o parent",
            "slave",
            "ipvlan slave",
        );
    }

    #[test]
    fn no_parent_is_a_dummy_and_internal() {
        let host = host();
        for line in ["n", "-o parent= n", "--internal n"] {
            let net = network(line, &host);
            let name = format!("di-{}", net.id.short());
            assert!(net.internal && name.len() == 15);
            assert_eq!(net.parent, Parent::Dummy { name });
        }
        let alone = "-o shared_parent=true n";
        refused(alone, &host, "-o shared_parent", "true", "-o parent=");
    }

    #[test]
    fn a_link_of_each_containers_own() {
        let mut host = host();
        let inside = "-o link_in_container=true -o parent=eth0";
        let made = create(&format!("{inside} first"), &mut host);
        assert_eq!(
            (made.parent, made.internal),
            (
                Parent::Inside {
                    name: "eth0".into()
                },
                false
            )
        );
        // The names are not the host's.
        create(&format!("{inside} second"), &mut host);
        create("-o parent=eth0 hosts_own", &mut host);
        network("-o link_in_container=true -o parent=nosuch n", &host);
        for (more, field, value) in [
            ("-o parent=lo", "-o parent", "lo"),
            (
                "-o parent=sixteen_letters_",
                "-o parent",
                "sixteen_letters_",
            ),
            ("-o parent=a/b", "-o parent", "a/b"),
            ("", "-o link_in_container", "true"),
            (
                "-o parent=eth0 -o shared_parent=true",
                "-o shared_parent",
                "true",
            ),
            ("-o parent=eth0 -o ipvlan_mode=l3s", "-o ipvlan_mode", "l3s"),
            ("-o parent=eth0 --internal", "--internal", "true"),
            (
                "-o parent=eth0 --label=io.ipvlan-ctl.door=docker",
                "-o link_in_container",
                "true",
            ),
        ] {
            let line = format!("-o link_in_container=true {more} n");
            refused(&line, &host, field, value, "");
        }
        let mut link = host.links[1].clone();
        link.mtu = 1500;
        super::check_inside(&link, Some(1500)).unwrap();
        super::check_inside(&link, Some(1501)).unwrap_err();
    }

    #[test]
    fn vlans_on_the_fly() {
        let host = host();
        for (name, base, vid) in [
            ("eth0.1", "eth0", 1),
            ("eth0.4094", "eth0", 4094),
            ("wan.a.10", "wan.a", 10),
        ] {
            let net = network(&format!("-o parent={name} n"), &host);
            assert_eq!(net.parent, vlan(name, base, vid));
            assert!(!net.internal);
        }
        for (name, allowed) in [
            ("eth0.0", "1 to 4094"),
            ("eth0.4095", "1 to 4094"),
            ("eth0.65546", "1 to 4094"),
            ("eth0.010", "1 to 4094"),
            ("eth0.+1", "1 to 4094"),
            ("eth0.", "1 to 4094"),
            ("eth0.x", "1 to 4094"),
            ("eth9.10", "\"eth9\""),
            ("eth0.10.20", "LINK.VID"),
            ("eth9", "LINK.VID"),
            (".10", "LINK.VID"),
            (".", "LINK.VID"),
            ("lo.10", "loopback"),
            ("slave.10", "ipvlan slave"),
        ] {
            let line = format!("-o parent={name} n");
            refused(&line, &host, "-o parent", name, allowed);
        }
        let mut host = host;
        host.links[2].name = "enp0s31f6abc".into();
        let line = "-o parent=enp0s31f6abc.100 n";
        refused(line, &host, "-o parent", "enp0s31f6abc.100", "15 bytes");
        assert_eq!(
            network("-o parent=enp0s31f6abc.10 n", &host)
                .parent
                .name()
                .len(),
            15
        );
    }

    #[test]
    fn a_parent_has_one_network() {
        let mut host = host();
        create("-o parent=eth0 first", &mut host);
        for more in ["", "-o shared_parent=true", "-o ipvlan_mode=l3"] {
            let line = format!("-o parent=eth0 {more} second");
            refused(&line, &host, "-o parent", "eth0", "network first");
        }
        // The same parent's VLANs are other links.
        create("-o parent=eth0.10 tenth", &mut host);
        refused(
            "-o parent=eth0.10 n",
            &host,
            "-o parent",
            "eth0.10",
            "tenth",
        );
        network("-o parent=eth0.11 n", &host);
        // Also while the link is away.
        host.links.retain(|link| link.name != "eth0.10");
        refused(
            "-o parent=eth0.10 n",
            &host,
            "-o parent",
            "eth0.10",
            "tenth",
        );
        // Another network's dummy is never shared.
        let dummy = create("dummy", &mut host).parent.name().to_owned();
        let line = format!("-o shared_parent=true -o parent={dummy} n");
        refused(&line, &host, "-o parent", &dummy, "network dummy");
    }

    #[test]
    fn sharing_needs_both_and_one_mode_and_flag() {
        let mut host = host();
        let shared = "-o shared_parent=true -o parent=eth0 -o ipvlan_mode=l3";
        create(&format!("{shared} first"), &mut host);
        create(&format!("{shared} second"), &mut host);
        let parent = |host: &HostView, more: &str| {
            let line = format!("-o parent=eth0 {more} n");
            refused(&line, host, "-o parent", "eth0", "network first");
        };
        parent(&host, "-o ipvlan_mode=l3");
        parent(&host, "-o ipvlan_mode=l3 -o shared_parent=false");
        parent(&host, "-o shared_parent=true -o ipvlan_mode=l3s");
        parent(
            &host,
            "-o shared_parent=true -o ipvlan_mode=l3 -o ipvlan_flag=vepa",
        );
    }

    #[test]
    fn a_shared_vlan_stays_ours() {
        let mut host = host();
        let shared = "-o shared_parent=true -o parent=eth0.10";
        let ours = vlan("eth0.10", "eth0", 10);
        assert_eq!(create(&format!("{shared} a"), &mut host).parent, ours);
        assert_eq!(create(&format!("{shared} b"), &mut host).parent, ours);
        host.links.retain(|link| link.name != "eth0.10");
        assert_eq!(create(&format!("{shared} c"), &mut host).parent, ours);
    }
}
