//! Pools and addresses for an engine that asks for them before it has what they are for: Docker's
//! IPAM has a pool chosen before there is a network, and an address before there is an endpoint.
//!
//! A pool is promised: for a minute, in which the network is made, no other gets it by default. An
//! address is proposed: the next one proposed is another, and it is the endpoint that leases it.

use std::net::IpAddr;

use super::endpoint::Taken;
use super::network::{networks, stored_seed};
use super::{Engine, Result, now, privilege};
use crate::model::ipam::{self, Family};
use crate::model::{Invalid, Pool};

impl Engine {
    /// Promises a pool of this subnet, or the first default one of the family that is free.
    pub async fn promise_pool(
        &self,
        subnet: Option<&str>,
        range: Option<&str>,
        family: Family,
    ) -> Result<Pool> {
        privilege::require()?;
        let mut host = self.host_view().await?;
        if self.store.open_existing()?.is_none() {
            // A wrong request makes no store.
            Pool::asked_for(subnet, range, family, &host)?;
        }
        self.store.open()?.transaction(|records| {
            host.networks = networks(records)?;
            host.ula_seed = stored_seed(records, host.ula_seed)?;
            host.used.extend(records.promised(now())?);
            let pool = Pool::asked_for(subnet, range, family, &host)?;
            records.promise(&pool, now())?;
            Ok(pool)
        })
    }

    /// Takes a promise back; nothing where its network was made.
    pub fn take_back_pool(&self, pool: &Pool) -> Result<()> {
        privilege::require()?;
        if let Some(store) = self.store.open_existing()? {
            store.records().take_promise(&pool.subnet)?;
        }
        Ok(())
    }

    /// Proposes an address for an endpoint out of a network's pool: this one, or the next.
    pub async fn propose_address(&self, pool: &Pool, asked: Option<IpAddr>) -> Result<IpAddr> {
        privilege::require()?;
        let host = self.netlink.addresses().await?;
        let no_network = || {
            let allowed = "it is the subnet of a network of ipvlan-ctl, which alone gets addresses";
            Invalid::new("pool", pool.subnet.to_string(), allowed)
        };
        let Some(mut store) = self.store.open_existing()? else {
            return Err(no_network().into());
        };
        store.transaction(|records| {
            let taken = Taken {
                records,
                host: &host,
            };
            let mut networks = networks(records)?.into_iter();
            let found = networks.find_map(|network| {
                let mut pools = network.pools.iter();
                let of_network = pools.find(|other| other.subnet == pool.subnet)?.clone();
                Some((network, of_network))
            });
            match (found, asked) {
                (Some((network, _)), Some(address)) => {
                    ipam::requested(&network, "--ip", address, &taken)?;
                    Ok(address)
                }
                (Some((_, of_network)), None) => {
                    let of_network = Pool {
                        range: pool.range,
                        ..of_network
                    };
                    let address = ipam::next(&of_network, &taken)?;
                    records.set_cursor(&pool.subnet, address)?;
                    Ok(address)
                }
                // One that no endpoint is to have; whether it may be so is asked of the network.
                (None, Some(address)) => Ok(address),
                (None, None) => Err(no_network().into()),
            }
        })
    }
}
