//! From the word a user typed to the network it means.

use thiserror::Error;

use super::Network;

#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum FindError {
    #[error("network {word:?} not found")]
    NotFound { word: String },
    /// `matches` are the short ids.
    #[error("network {word:?} is ambiguous: it begins the ids {}", matches.join(", "))]
    Ambiguous { word: String, matches: Vec<String> },
}

/// The network that `word` names, by Docker's rule: a full id, else a name, else the beginning
/// of one id only.
pub fn find<'n>(networks: &'n [Network], word: &str) -> Result<&'n Network, FindError> {
    let exact = networks
        .iter()
        .find(|n| n.id.as_str() == word)
        .or_else(|| networks.iter().find(|n| n.name == word));
    if let Some(network) = exact {
        return Ok(network);
    }
    let mut begun = networks
        .iter()
        .filter(|n| !word.is_empty() && n.id.as_str().starts_with(word));
    match (begun.next(), begun.next()) {
        (None, _) => Err(FindError::NotFound { word: word.into() }),
        (Some(network), None) => Ok(network),
        (Some(first), Some(second)) => Err(FindError::Ambiguous {
            word: word.into(),
            matches: [first, second]
                .into_iter()
                .chain(begun)
                .map(|n| n.id.short().to_owned())
                .collect(),
        }),
    }
}
