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

#[cfg(test)]
mod tests {
    use super::super::fixtures::{host, network};
    use super::super::{Id, Network};
    use super::*;

    fn named(name: &str, id: &str) -> Network {
        Network {
            id: Id::from_stored(format!("{id:0<64}")),
            ..network(name, &host())
        }
    }

    #[test]
    fn full_id_then_name_then_unique_prefix() {
        let full = format!("{:0<64}", "abc1");
        let networks = [
            named("one", "abc1"),
            named("abc", "abc2"),
            named(&full, "ffff"),
            named("f", "0123"),
        ];
        let name = |word: &str| find(&networks, word).map(|n| n.name.clone());
        assert_eq!(name("one"), Ok("one".into()));
        assert_eq!(name(&full), Ok("one".into()), "an id before a name");
        assert_eq!(name("abc"), Ok("abc".into()), "a name before a prefix");
        assert_eq!(name("f"), Ok("f".into()), "a name before a prefix");
        assert_eq!(name("abc2"), Ok("abc".into()));
        assert_eq!(name("ff"), Ok(full));
        for word in ["", "on", "ABC1", "abc3", "zz"] {
            assert_eq!(
                name(word),
                Err(FindError::NotFound { word: word.into() }),
                "{word}"
            );
        }
        let ambiguous = name("ab").unwrap_err();
        assert_eq!(
            ambiguous.to_string(),
            "network \"ab\" is ambiguous: it begins the ids abc100000000, abc200000000"
        );
    }
}
