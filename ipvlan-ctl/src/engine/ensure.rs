//! Networks that a container runtime's configuration describes: made when they are first needed.

use std::time::{Duration, Instant};

use super::{Engine, EngineError, Result, privilege};
use crate::model::{CreateRequest, Network};
use crate::store::{NetworkRow, State};

/// How long to wait for another process that makes or removes the network.
const PATIENCE: Duration = Duration::from_secs(30);
/// Between two looks, the first time; twice as long each time, for a hundred may wait at once.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

impl Engine {
    /// The network with this very name, if there is one.
    pub fn network_named(&self, name: &str) -> Result<Option<Network>> {
        let row = self.row_named(name)?;
        Ok(row
            .filter(|row| row.state == State::Ready)
            .map(|row| row.network))
    }

    /// The network with this very name, if it is [`Network::is_of_door`].
    pub fn network_of_door(&self, name: &str, door: &str) -> Result<Option<Network>> {
        let network = self.network_named(name)?;
        Ok(network.filter(|network| network.is_of_door(door)))
    }

    /// The network of the request's name: made if there is none, and made again if the one that
    /// is there differs, has no endpoints and carries the request's labels, so that the same
    /// runtime made it.
    ///
    /// Errors: it differs and is in use, or is not the runtime's; and those of
    /// [`Engine::create_network`].
    pub async fn ensure_network(&self, request: &CreateRequest) -> Result<Network> {
        privilege::require()?;
        let deadline = Instant::now() + PATIENCE;
        let mut pause = FIRST_PAUSE;
        loop {
            match self.row_named(&request.name)? {
                None => match self.create_network(request).await {
                    // Another process was quicker.
                    Err(EngineError::Invalid(bad))
                        if bad.field == "name" && self.row_named(&request.name)?.is_some() => {}
                    other => return other,
                },
                Some(row) if row.state == State::Ready => {
                    let owned = request.check_owned(&row.network);
                    match owned.and_then(|()| request.check_same(&row.network)) {
                        Ok(()) => return Ok(row.network),
                        Err(bad) => self.remove_if_idle(request, &row, bad.into()).await?,
                    }
                }
                Some(_) if Instant::now() < deadline => {
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
                Some(row) => return Err(EngineError::NetworkBusy(row.network.name)),
            }
        }
    }

    /// Removes the network so that it can be made again; `otherwise` is why it cannot stay.
    async fn remove_if_idle(
        &self,
        request: &CreateRequest,
        row: &NetworkRow,
        otherwise: EngineError,
    ) -> Result<()> {
        request.check_owned(&row.network)?;
        match self.remove_network(row.network.id.as_str(), false).await {
            Ok(_) | Err(EngineError::Find(_)) => Ok(()),
            Err(EngineError::InUse { .. }) => Err(otherwise),
            Err(error) => Err(error),
        }
    }

    fn row_named(&self, name: &str) -> Result<Option<NetworkRow>> {
        let Some(store) = self.store.open_existing()? else {
            return Ok(None);
        };
        Ok(store.records().network_named(name)?)
    }

    /// The host's link with the default route, IPv4 before IPv6.
    pub async fn default_link(&self) -> Result<Option<String>> {
        let routes = self.netlink.routes().await?;
        let Some((index, _)) = routes.iter().find(|(_, route)| route.to.prefix() == 0) else {
            return Ok(None);
        };
        let links = self.netlink.links().await?;
        Ok(links
            .into_iter()
            .find(|link| link.view.index == *index)
            .map(|link| link.view.name))
    }
}
