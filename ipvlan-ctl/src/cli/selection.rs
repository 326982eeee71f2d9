//! Which endpoints a command is about.

use clap::Args;

use crate::engine;

#[derive(Debug, Args)]
pub(super) struct Selection {
    /// Only on this network, by name, id or beginning of an id; may be repeated
    #[arg(long = "network", value_name = "NETWORK")]
    networks: Vec<String>,
    /// Only these endpoints, by name, id or beginning of an id
    #[arg(value_name = "NAME")]
    endpoints: Vec<String>,
}

impl From<Selection> for engine::Selection {
    fn from(selection: Selection) -> Self {
        Self {
            networks: selection.networks,
            endpoints: selection.endpoints,
        }
    }
}
