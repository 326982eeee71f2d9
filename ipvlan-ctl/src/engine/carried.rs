//! Endpoints whose slave another engine carries: Docker asks for a link in the host's namespace,
//! moves it into the container's, and back when that ends.
//!
//! The kernel takes the programs off a device that is moved, and until they are on again what it
//! sends lacks the stamp and reaches nobody. Its index stays the same, so that it is found again.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::time::{Duration, Instant};

use super::endpoint::{ConnectRequest, Target, check_name, slave};
use super::{Engine, EngineError, Result, Session, find_network, no_such, privilege};
use crate::datapath::Datapath;
use crate::kernel::{Netlink, Netns, NetnsIdentity};
use crate::model::{Id, Invalid, Network};
use crate::store::{EndpointRow, State};

/// How the name of a link begins that waits in the host's namespace to be carried.
const PREFIX: &str = "iv-";

/// How long the other engine may take to name its link and set it up. It does both at once.
const PATIENCE: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(10);

impl Engine {
    /// Makes an endpoint with this id, whose slave is in the host's namespace and down.
    pub async fn prepare_endpoint(
        &self,
        network: &Id,
        id: &Id,
        ip: Option<Ipv4Addr>,
        ip6: Option<Ipv6Addr>,
    ) -> Result<EndpointRow> {
        privilege::require()?;
        let netns = Netns::own()?;
        let ifname = format!("{PREFIX}{}", id.short());
        let target = Target {
            identity: NetnsIdentity::NONE,
            nsid: self.netlink.nsid(&netns).await?,
            ifname: ifname.clone(),
            inside: self.netlink.clone(),
            netns,
        };
        let request = ConnectRequest {
            id: Some(id.clone()),
            network: network.to_string(),
            netns: target.netns.path().to_owned(),
            name: Some(id.short().to_owned()),
            ip,
            ip6,
            ifname: Some(ifname),
            ..ConnectRequest::default()
        };
        self.connect_at(&request, &target).await
    }

    /// Notes the namespace that an endpoint's slave will be carried to; it need not be there yet.
    pub fn expect_endpoint(&self, network: &Id, id: &Id, netns: &Path) -> Result<EndpointRow> {
        privilege::require()?;
        let Some(mut store) = self.store.open_existing()? else {
            return Err(no_such(id));
        };
        store.transaction(|records| {
            let network = find_network(records.networks()?, network.as_str())?;
            let row = ready(records.endpoint(id)?)
                .filter(|row| row.network == network.number)
                .ok_or_else(|| no_such(id))?;
            records.set_netns(id, netns)?;
            Ok(row)
        })
    }

    /// Looks after the link of this name in the host's namespace, which came or went. Returns
    /// the endpoint if its slave was carried away, guarded by now.
    pub async fn follow_carried(&self, link: &str) -> Result<Option<(Network, EndpointRow)>> {
        if !link.starts_with(PREFIX) {
            return Ok(None);
        }
        let Some(store) = self.store.open_existing()? else {
            return Ok(None);
        };
        let mut rows = store.records().endpoints()?.into_iter();
        let Some(row) = ready(rows.find(|row| row.ifname == link)) else {
            return Ok(None);
        };
        if self.is_alive(&row).await? {
            return Ok(None);
        }
        let mut session = Session::new(self, store)?;
        let Some(row) = session.follow(&row).await? else {
            return Ok(None);
        };
        let mut networks = session.store.records().networks()?.into_iter();
        let network = networks.find(|network| network.number == row.network);
        Ok(network.map(|network| (network.network, row)))
    }

    /// Gives an endpoint the name by which its engine's users know it.
    pub fn rename_endpoint(&self, id: &Id, name: &str) -> Result<()> {
        check_name("name", name)?;
        let Some(mut store) = self.store.open_existing()? else {
            return Err(no_such(id));
        };
        store.transaction(|records| {
            let row = records.endpoint(id)?.ok_or_else(|| no_such(id))?;
            match records.endpoint_named(row.network, name)? {
                Some(other) if other.id != *id => {
                    let taken = "another endpoint of its network is called so";
                    Err(Invalid::new("name", name, taken).into())
                }
                _ => Ok(records.rename_endpoint(id, name)?),
            }
        })
    }

    /// Gives a network the name by which its engine's users know it.
    pub fn rename_network(&self, id: &Id, name: &str) -> Result<()> {
        let Some(mut store) = self.store.open_existing()? else {
            return Err(super::not_found(id.as_str()).into());
        };
        store.transaction(|records| {
            let rows = records.networks()?;
            if let Some(other) = rows.iter().find(|row| row.network.name == name)
                && other.network.id != *id
            {
                let taken = "another network is called so";
                return Err(Invalid::new("name", name, taken).into());
            }
            let mut row = find_network(rows, id.as_str())?;
            row.network.name = name.to_owned();
            Ok::<_, EngineError>(records.set_network(row.number, &row.network)?)
        })
    }

    /// The row of an endpoint with the place where its slave is by now, if that can be told.
    pub(super) async fn where_it_is(&self, row: EndpointRow) -> Result<EndpointRow> {
        if self.is_alive(&row).await? {
            return Ok(row);
        }
        Ok(self.find_carried(&row).await?.map_or(row, |(row, _)| row))
    }

    /// A slave that is not where it was: in the namespace that its endpoint is to be in, or in
    /// the host's.
    async fn find_carried(&self, row: &EndpointRow) -> Result<Option<(EndpointRow, Netns)>> {
        if row.boot != self.boot {
            return Ok(None);
        }
        for netns in [Netns::open(&row.netns).ok(), Some(Netns::own()?)] {
            let Some(netns) = netns else { continue };
            let found = EndpointRow {
                nsid: self.netlink.nsid(&netns).await?,
                identity: match netns.is_own()? {
                    true => NetnsIdentity::NONE,
                    false => netns.identity()?,
                },
                ..row.clone()
            };
            if let Some(link) = self.netlink.slave(slave(&found)).await? {
                let ifname = link.view.name;
                return Ok(Some((EndpointRow { ifname, ..found }, netns)));
            }
        }
        Ok(None)
    }
}

impl Session<'_> {
    /// Guards a slave that was carried elsewhere, and writes down where it is; `None` if it is
    /// gone.
    pub(super) async fn follow(&mut self, row: &EndpointRow) -> Result<Option<EndpointRow>> {
        let Some((mut row, netns)) = self.engine.find_carried(row).await? else {
            return Ok(None);
        };
        if row.identity != NetnsIdentity::NONE {
            let datapath = self.engine.datapath()?;
            self.guard(&datapath, &mut row, &netns).await?;
        }
        self.store.transaction(|records| {
            records.place_endpoint(&row.id, row.nsid, row.identity, &row.ifname)
        })?;
        Ok(Some(row))
    }

    /// Attaches the programs at once, and waits until the other engine is done with the link.
    async fn guard(&self, datapath: &Datapath, row: &mut EndpointRow, netns: &Netns) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        if row.link_local.is_some() {
            // The other engine may be quicker.
            Netlink::withhold_link_local(netns, slave(row).index, &row.ifname).await?;
        }
        let mut attached = false;
        loop {
            // The other engine renames the link, perhaps right now.
            match datapath.attach_endpoint(row.slot, netns, &row.ifname) {
                Ok(()) => attached = true,
                Err(error) if Instant::now() >= deadline => return Err(error.into()),
                Err(_) => {}
            }
            let Some(link) = self.engine.netlink.slave(slave(row)).await? else {
                return Ok(());
            };
            row.ifname = link.view.name;
            if attached && (link.up || Instant::now() >= deadline) {
                break;
            }
            tokio::time::sleep(PAUSE).await;
        }
        if let Some(link_local) = row.link_local {
            Netlink::give_link_local(netns, slave(row).index, &row.ifname, link_local).await?;
        }
        Ok(())
    }
}

fn ready(row: Option<EndpointRow>) -> Option<EndpointRow> {
    row.filter(|row| row.state == State::Ready)
}
