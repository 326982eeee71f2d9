//! What the daemon does when the host changes.

use super::parent::rests_on;
use super::{Engine, Result, privilege};
use crate::store::Store;

impl Engine {
    /// Refuses who may not change networks, before anything else is tried.
    pub fn require_privileges(&self) -> Result<()> {
        privilege::require()
    }

    /// Tells the programs the host's addresses as they are now; nothing where none are loaded.
    pub async fn follow_host_addresses(&self) -> Result<()> {
        match self.loaded_datapath() {
            Some(datapath) => self.refresh_host_addresses(&datapath).await,
            None => Ok(()),
        }
    }

    /// Is a network on the link of this name?
    pub fn rests_on(&self, link: &str) -> Result<bool> {
        let Some(store) = Store::open_existing(&self.state_dir)? else {
            return Ok(false);
        };
        let networks = store.records().networks()?;
        Ok(networks.iter().any(|row| rests_on(&row.network, link)))
    }
}
