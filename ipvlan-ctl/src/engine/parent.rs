//! Parents: found, made where they are ours, and guarded by the parent programs.

use nix::errno::Errno;

use super::{EngineError, Result, Session};
use crate::datapath::{Datapath, NetworkPolicy};
use crate::kernel::Link;
use crate::model::{Flag, Mode, Network, Parent};
use crate::store::NetworkRow;

/// What the programs must know of a network.
pub(super) fn policy(row: &NetworkRow) -> NetworkPolicy {
    let network = &row.network;
    NetworkPolicy {
        number: row.number,
        subnets: network.pools.iter().map(|pool| pool.subnet).collect(),
        internal: network.internal,
        host_access: network.host_access,
        shared: network.shared_parent,
        vepa: network.flag == Flag::Vepa,
        l3s: network.mode == Mode::L3s,
        routed: is_routed(row),
        unstamped: !network.parent.is_of_host(),
    }
}

/// Do its endpoints' packets go through the host's routing?
pub(super) fn is_routed(row: &NetworkRow) -> bool {
    row.network.mode != Mode::L2 && row.network.parent.is_of_host()
}

/// Do the programs guard the host's side of this network?
fn is_guarded(row: &NetworkRow, index: u32, name: &str, datapath: &Datapath) -> Result<bool> {
    Ok(datapath.parent_attached(index, name)?
        && (!is_routed(row) || datapath.loopback_attached()?))
}

/// The parent among the host's links: the one with the index of this boot, though it may have
/// been renamed, or else the one with its name.
pub(super) fn find<'l>(row: &NetworkRow, boot: &str, links: &'l [Link]) -> Option<&'l Link> {
    let is_kind = |link: &&Link| match row.network.parent {
        Parent::Existing { .. } => true,
        Parent::Vlan { .. } => link.view.kind.as_deref() == Some("vlan"),
        Parent::Dummy { .. } => link.view.kind.as_deref() == Some("dummy"),
        Parent::Inside { .. } => false,
    };
    let by_index = links
        .iter()
        .find(|link| row.parent_boot == boot && link.view.index == row.parent_index);
    by_index
        .or_else(|| {
            links
                .iter()
                .find(|link| link.view.name == row.network.parent.name())
        })
        .filter(is_kind)
}

/// Is the parent there, the same and under the same name?
pub(super) fn is_as_known(row: &NetworkRow, boot: &str, links: &[Link]) -> bool {
    let is_found = || {
        find(row, boot, links).is_some_and(|link| {
            link.view.index == row.parent_index && link.view.name == row.network.parent.name()
        })
    };
    row.parent_boot == boot && (!row.network.parent.is_of_host() || is_found())
}

/// [`is_as_known`], and guarded by the programs.
pub(super) fn is_well(
    row: &NetworkRow,
    boot: &str,
    links: &[Link],
    datapath: &Datapath,
) -> Result<bool> {
    let parent = &row.network.parent;
    Ok(is_as_known(row, boot, links)
        && (!parent.is_of_host() || is_guarded(row, row.parent_index, parent.name(), datapath)?))
}

impl Session<'_> {
    /// Makes sure that the parent is there and that the programs guard it. Returns the row as
    /// it is then, and whether anything had to be done.
    pub(super) async fn ensure_parent(
        &mut self,
        mut row: NetworkRow,
        datapath: &Datapath,
    ) -> Result<(NetworkRow, bool)> {
        let boot = &self.engine.boot;
        if !row.network.parent.is_of_host() {
            let is_new = row.parent_boot != *boot;
            if is_new {
                row.parent_boot = boot.clone();
                self.store.records().set_parent(row.number, 0, boot)?;
            }
            return Ok((row, is_new));
        }
        if row.parent_boot == *boot
            && let Some(link) = self.engine.netlink.link(row.parent_index).await?
            && is_well(&row, boot, &[link], datapath)?
        {
            return Ok((row, false));
        }
        let links = self.engine.netlink.links().await?;
        let found = find(&row, boot, &links).map(|link| link.view.clone());
        let (index, name) = match found {
            Some(link) => (link.index, link.name),
            None => {
                let name = row.network.parent.name().to_owned();
                (self.make_parent(&mut row, &links).await?, name)
            }
        };
        let same_boot = row.parent_boot == *boot;
        if row.parent_index == index
            && same_boot
            && row.network.parent.name() == name
            && is_guarded(&row, index, &name, datapath)?
        {
            return Ok((row, false));
        }
        if same_boot && row.parent_index != 0 && row.parent_index != index {
            // Its link went and came back: what is pinned for the old one holds nothing.
            datapath.forget_parent(row.parent_index)?;
        }
        if row.network.parent.name() != name {
            rename(&mut row.network, name.clone());
        }
        row.parent_index = index;
        row.parent_boot = boot.clone();
        self.store.transaction(|records| {
            records.set_network(row.number, &row.network)?;
            records.set_parent(row.number, index, boot)
        })?;
        datapath.put_network(&policy(&row))?;
        datapath.attach_parent(index, &name)?;
        if is_routed(&row) {
            datapath.attach_loopback()?;
        }
        Ok((row, true))
    }

    async fn make_parent(&mut self, row: &mut NetworkRow, links: &[Link]) -> Result<u32> {
        let netlink = &self.engine.netlink;
        let gone = |parent: &str| EngineError::ParentGone {
            network: row.network.name.clone(),
            parent: parent.to_owned(),
        };
        let (name, made) = match &row.network.parent {
            Parent::Existing { name } | Parent::Inside { name } => return Err(gone(name)),
            Parent::Dummy { name } => (name, netlink.make_dummy(name, row.network.mtu).await),
            Parent::Vlan { name, base, vid } => {
                let base = links
                    .iter()
                    .find(|link| link.view.name == *base)
                    .ok_or_else(|| gone(base))?;
                (name, netlink.make_vlan(name, base.view.index, *vid).await)
            }
        };
        match made {
            Err(error) if error.errno() == Some(Errno::EEXIST) => {
                // Someone made it meanwhile. A dummy's name holds the network's id, so it was
                // another process of ours; a VLAN link we then did not make.
                let link = netlink.link_named(name).await?.ok_or(error)?;
                if matches!(row.network.parent, Parent::Vlan { .. }) && row.parent_index == 0 {
                    row.network.parent = Parent::Existing { name: name.clone() };
                    self.store.records().set_network(row.number, &row.network)?;
                }
                Ok(link.view.index)
            }
            other => Ok(other?),
        }
    }

    /// Deletes the parent's link if it is ours and no other network is on it.
    pub(super) async fn delete_parent(&self, row: &NetworkRow) -> Result<()> {
        if matches!(
            row.network.parent,
            Parent::Existing { .. } | Parent::Inside { .. }
        ) || !self.others_on_parent(row)?.is_empty()
        {
            return Ok(());
        }
        let netlink = &self.engine.netlink;
        let links = netlink.links().await?;
        match find(row, &self.engine.boot, &links) {
            Some(link) => Ok(netlink
                .delete_link(link.view.index, &link.view.name)
                .await?),
            None => Ok(()),
        }
    }

    fn others_on_parent(&self, row: &NetworkRow) -> Result<Vec<NetworkRow>> {
        Ok(others_on_parent(self.store.records().networks()?, row))
    }
}

/// The other networks on the parent of `row`.
pub(super) fn others_on_parent(networks: Vec<NetworkRow>, row: &NetworkRow) -> Vec<NetworkRow> {
    networks
        .into_iter()
        .filter(|other| {
            let (one, other_one) = (&row.network.parent, &other.network.parent);
            other.number != row.number
                && one.is_of_host()
                && other_one.is_of_host()
                && one.name() == other_one.name()
        })
        .collect()
}

fn rename(network: &mut Network, new: String) {
    match &mut network.parent {
        Parent::Existing { name }
        | Parent::Vlan { name, .. }
        | Parent::Dummy { name }
        | Parent::Inside { name } => *name = new,
    }
}

/// Is the link the network's parent, or what its parent is on?
pub(super) fn rests_on(network: &Network, link: &str) -> bool {
    match &network.parent {
        Parent::Vlan { name, base, .. } => name == link || base == link,
        Parent::Existing { name } | Parent::Dummy { name } => name == link,
        Parent::Inside { .. } => false,
    }
}
