//! Which endpoints somebody asks about.

use super::{EngineError, Network, Result, find};
use crate::store::{EndpointRow, NetworkRow};

/// Networks and endpoints; an empty list means all.
#[derive(Debug, Clone, Default)]
pub struct Selection {
    /// As [`find`](crate::model::find) takes them.
    pub networks: Vec<String>,
    /// Names and ids, or beginnings of ids where no endpoint is called so.
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
            let mut named = rows.iter();
            if !named.any(|row| is_called(row, word) || begins(row, word)) {
                return Err(EngineError::NoSuchEndpoint(word.clone()));
            }
        }
        let taken: Vec<bool> = rows
            .iter()
            .map(|row| self.takes(row, rows.iter()))
            .collect();
        let mut taken = taken.into_iter();
        rows.retain(|_| taken.next().unwrap_or_default());
        Ok(rows)
    }

    /// Is this one of `all` meant?
    pub(super) fn takes<'r>(
        &self,
        row: &EndpointRow,
        all: impl Iterator<Item = &'r EndpointRow> + Clone,
    ) -> bool {
        let is_meant = |word: &String| {
            is_called(row, word)
                || (begins(row, word) && !all.clone().any(|other| is_called(other, word)))
        };
        self.endpoints.is_empty() || self.endpoints.iter().any(is_meant)
    }
}

fn is_called(row: &EndpointRow, word: &str) -> bool {
    row.name == word || row.id.as_str() == word
}

/// Is `word` the beginning of its id?
fn begins(row: &EndpointRow, word: &str) -> bool {
    !word.is_empty() && row.id.as_str().starts_with(word)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Id;
    use crate::store::fixtures::endpoint;

    #[test]
    fn a_name_goes_before_the_beginning_of_an_id() {
        let row = |name: &str, id: &str| EndpointRow {
            id: Id::from_stored(format!("{id:0<64}")),
            ..endpoint(1, name, 0)
        };
        let rows = || vec![row("abc", "1"), row("web", "abc1"), row("db", "abd2")];
        let named = |words: &[&str]| {
            let selection = Selection {
                endpoints: words.iter().map(|&word| word.into()).collect(),
                ..Selection::default()
            };
            let taken = selection.endpoints_of(rows());
            taken.map(|rows| rows.into_iter().map(|row| row.name).collect::<Vec<_>>())
        };
        assert_eq!(named(&[]).unwrap(), ["abc", "web", "db"]);
        assert_eq!(named(&["abc"]).unwrap(), ["abc"]);
        assert_eq!(named(&["abc", "abc1"]).unwrap(), ["abc", "web"]);
        assert_eq!(named(&["ab"]).unwrap(), ["web", "db"]);
        for nobody in ["", "x", "ABC"] {
            named(&[nobody]).unwrap_err();
        }
    }
}
