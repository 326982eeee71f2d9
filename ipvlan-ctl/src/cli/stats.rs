//! `ipvlan-ctl stats`.

use std::collections::BTreeMap;
use std::process::ExitCode;

use clap::Args;
use serde_json::{Value, json};

use super::print;
use super::table::table;
use crate::engine::{EndpointStats, Engine, Stats};

#[derive(Debug, Args)]
pub(super) struct Command {
    /// Print JSON, with the drops of the parents too
    #[arg(long)]
    json: bool,
    /// Only these endpoints, by name, id or beginning of an id
    #[arg(value_name = "NAME")]
    names: Vec<String>,
}

impl Command {
    pub(super) async fn run(self, engine: &Engine) -> anyhow::Result<ExitCode> {
        let stats = engine.stats(&self.names).await?;
        let text = if self.json {
            format!("{:#}\n", as_json(&stats))
        } else {
            as_table(&stats)
        };
        print(&text)?;
        Ok(ExitCode::SUCCESS)
    }
}

fn as_json(stats: &Stats) -> Value {
    let endpoints: Vec<Value> = stats
        .endpoints
        .iter()
        .map(|stats| {
            let endpoint = &stats.endpoint;
            let figures = &stats.figures;
            json!({
                "name": endpoint.name,
                "id": endpoint.id,
                "network": stats.network,
                "ipv4": endpoint.addresses.v4.map(|address| address.ip()),
                "ipv6": endpoint.addresses.v6.map(|address| address.ip()),
                "rx": figures.total.rx,
                "tx": figures.total.tx,
                "families": figures.families,
                "drops": figures.drops,
            })
        })
        .collect();
    let parents: Vec<Value> = stats
        .parents
        .iter()
        .map(|parent| json!({ "name": parent.name, "drops": parent.drops }))
        .collect();
    json!({ "endpoints": endpoints, "parents": parents })
}

fn as_table(stats: &Stats) -> String {
    table(
        [
            "NAME", "NETWORK", "ADDRESS", "RX-PKTS", "RX-BYTES", "TX-PKTS", "TX-BYTES", "DROPS",
        ],
        stats.endpoints.iter().map(row),
    )
}

fn row(stats: &EndpointStats) -> [String; 8] {
    let total = &stats.figures.total;
    let addresses = &stats.endpoint.addresses;
    let addresses: Vec<String> = addresses
        .v4
        .into_iter()
        .chain(addresses.v6)
        .map(|address| address.ip().to_string())
        .collect();
    [
        stats.endpoint.name.clone(),
        stats.network.clone(),
        addresses.join(","),
        total.rx.packets.to_string(),
        total.rx.bytes.to_string(),
        total.tx.packets.to_string(),
        total.tx.bytes.to_string(),
        drops(&stats.figures.drops),
    ]
}

fn drops(drops: &BTreeMap<&'static str, u64>) -> String {
    if drops.is_empty() {
        return "-".into();
    }
    let drops: Vec<String> = drops
        .iter()
        .map(|(reason, count)| format!("{reason}={count}"))
        .collect();
    drops.join(",")
}

#[cfg(test)]
mod tests {
    #[test]
    fn drops_in_one_word() {
        assert_eq!(super::drops(&[].into()), "-");
        let drops = [("spoofed-source", 2), ("malformed", 1)].into();
        assert_eq!(super::drops(&drops), "malformed=1,spoofed-source=2");
    }
}
