//! Which endpoints somebody asks about.

use super::{EngineError, Network, Result, find};
use crate::store::{EndpointRow, NetworkRow};

/// Networks and endpoints; an empty list means all.
#[derive(Debug, Clone, Default)]
pub struct Selection {
    /// As [`find`](crate::model::find) takes them.
    pub networks: Vec<String>,
    /// Names, ids or beginnings of ids.
    pub endpoints: Vec<String>,
}

impl Selection {
    /// Those of the networks that are meant; an error if a word means none of them.
    pub(super) fn networks_of(&self, mut rows: Vec<NetworkRow>) -> Result<Vec<NetworkRow>> {
        let networks: Vec<Network> = rows.iter().map(|row| row.network.clone()).collect();
        let meant = self
            .networks
            .iter()
            .map(|word| Ok(&find(&networks, word)?.id))
            .collect::<Result<Vec<_>>>()?;
        if !meant.is_empty() {
            rows.retain(|row| meant.contains(&&row.network.id));
        }
        Ok(rows)
    }

    /// Those of the endpoints that are meant; an error if a word means none of them.
    pub(super) fn endpoints_of(&self, mut rows: Vec<EndpointRow>) -> Result<Vec<EndpointRow>> {
        for word in &self.endpoints {
            if !rows.iter().any(|row| is_meant(row, word)) {
                return Err(EngineError::NoSuchEndpoint(word.clone()));
            }
        }
        rows.retain(|row| self.takes(row));
        Ok(rows)
    }

    pub(super) fn takes(&self, row: &EndpointRow) -> bool {
        self.endpoints.is_empty() || self.endpoints.iter().any(|word| is_meant(row, word))
    }
}

/// Does `word` name this endpoint, by name, id or the beginning of its id?
fn is_meant(row: &EndpointRow, word: &str) -> bool {
    row.name == word || (!word.is_empty() && row.id.as_str().starts_with(word))
}
