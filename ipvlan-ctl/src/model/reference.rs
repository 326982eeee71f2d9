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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::fixtures::{add, host};
    use crate::model::{CreateRequest, HostView, Id};

    fn networks() -> Vec<Network> {
        let mut host = host();
        add("db", 'b', &mut host);
        add("cache", 'c', &mut host);
        // A name that is a prefix of another's id, and an id that shares a prefix.
        add("ccc", 'd', &mut host);
        let shared = Id::from_stored(format!("{}{}", "b".repeat(12), "0".repeat(52)));
        let request = CreateRequest {
            name: "web".into(),
            ..Default::default()
        };
        host.networks
            .push(request.resolve(&host, shared, 0).unwrap());
        let HostView { networks, .. } = host;
        networks
    }

    #[test]
    fn id_then_name_then_prefix() {
        let networks = networks();
        let name = |word: &str| find(&networks, word).map(|n| n.name.as_str());
        assert_eq!(name("db"), Ok("db"));
        assert_eq!(name(&"b".repeat(64)), Ok("db"));
        assert_eq!(name("ccc"), Ok("ccc"));
        assert_eq!(name("cccc"), Ok("cache"));
        assert_eq!(name("d"), Ok("ccc"));
        assert_eq!(name(&format!("{}0", "b".repeat(12))), Ok("web"));
    }

    #[test]
    fn unknown_and_ambiguous_words_are_told_apart() {
        let networks = networks();
        for word in ["", "x", "DB", "dbx", &"b".repeat(65)] {
            let error = find(&networks, word).unwrap_err();
            assert_eq!(error, LookupError::NotFound(word.into()));
            assert_eq!(error.to_string(), format!("no such network: {word}"));
        }
        let error = find(&networks, "bbbb").unwrap_err();
        assert_eq!(
            error.to_string(),
            "network bbbb is ambiguous: 2 ids begin with it"
        );
    }
}
