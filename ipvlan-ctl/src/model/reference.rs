//! Which network a word on the command line means.

use thiserror::Error;

use super::Network;

#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum LookupError {
    #[error("no such network: {0}")]
    NotFound(String),
    #[error("network {word} is ambiguous: {count} ids begin with it")]
    Ambiguous { word: String, count: usize },
}

/// The network with this id or else this name, or else the only one whose id begins with it:
/// Docker's order.
pub fn find<'a>(networks: &'a [Network], word: &str) -> Result<&'a Network, LookupError> {
    let by_id = networks.iter().find(|n| n.id.as_str() == word);
    let by_name = || networks.iter().find(|n| n.name == word);
    if let Some(network) = by_id.or_else(by_name) {
        return Ok(network);
    }
    let mut by_prefix = networks
        .iter()
        .filter(|n| !word.is_empty() && n.id.as_str().starts_with(word));
    match (by_prefix.next(), by_prefix.count()) {
        (None, _) => Err(LookupError::NotFound(word.to_owned())),
        (Some(network), 0) => Ok(network),
        (Some(_), others) => Err(LookupError::Ambiguous {
            word: word.to_owned(),
            count: others + 1,
        }),
    }
}
