//! `ipvlan-ctl stats`.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal};
use std::net::IpAddr;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use serde::Serialize;

use super::print;
use super::reading::{Reader, Reading, Row, Sort, interval};
use super::selection::Selection;
use super::table::table;
use super::units::{bits, si};
use crate::datapath::{Families, Figure};
use crate::engine::{EndpointStats, Engine, ParentStats, Rates};
use crate::model::{Id, Invalid};

/// Show packets and bytes of endpoints, and what was dropped and why
///
/// On a terminal, or with --interval, it goes on until it is interrupted; else it reports once.
#[derive(Debug, Args)]
pub(super) struct Command {
    /// Print JSON, with the drops of the parents too; once, or with --interval by lines
    #[arg(long)]
    json: bool,
    /// Report once; with --interval, what happened in that time
    #[arg(long)]
    no_stream: bool,
    /// Time between reports [default: 1s]
    #[arg(long, value_name = "TIME", value_parser = interval)]
    interval: Option<Duration>,
    /// By what to sort [default: the oldest first]
    #[arg(long, value_enum)]
    sort: Option<Sort>,
    #[command(flatten)]
    selection: Selection,
}

impl Command {
    pub(super) async fn run(self, engine: &Engine) -> anyhow::Result<ExitCode> {
        let on_terminal = io::stdout().is_terminal();
        let streams = !self.no_stream && (self.interval.is_some() || on_terminal && !self.json);
        if !streams && self.interval.is_none() && self.sort == Some(Sort::Rate) {
            let allowed = "a rate lies between two readings: give --interval too";
            return Err(Invalid::new("--sort", "rate", allowed).into());
        }
        let interval = self.interval.unwrap_or(Duration::from_secs(1));
        let mut reader = Reader::new(self.selection);
        if !streams {
            let reading = once(&mut reader, engine, self.interval, self.sort).await?;
            print(&match self.json {
                true => serde_json::to_string_pretty(&Report::from(&reading))? + "\n",
                false => as_table(&reading, self.interval.is_some()),
            })?;
            return Ok(ExitCode::SUCCESS);
        }
        let mut ticks = tokio::time::interval(interval);
        loop {
            ticks.tick().await;
            let reading = once(&mut reader, engine, None, self.sort).await?;
            print(&match (self.json, on_terminal) {
                (true, _) => serde_json::to_string(&Report::from(&reading))? + "\n",
                (false, true) => in_place(&as_table(&reading, true)),
                (false, false) => as_table(&reading, true) + "\n",
            })?;
        }
    }
}

async fn once(
    reader: &mut Reader,
    engine: &Engine,
    over: Option<Duration>,
    sort: Option<Sort>,
) -> anyhow::Result<Reading> {
    let mut reading = reader.read(engine).await?;
    if let Some(time) = over {
        tokio::time::sleep(time).await;
        reading = reader.read(engine).await?;
    }
    if let Some(sort) = sort {
        sort.sort(&mut reading.rows);
    }
    Ok(reading)
}

/// Over what a terminal shows: each line clears what is left of the last, so that nothing
/// flickers.
fn in_place(text: &str) -> String {
    format!("\x1b[H{}\x1b[J", text.replace('\n', "\x1b[K\n"))
}

/// What `--json` prints. Written straight from the reading: a tree of values would cost more than
/// all the rest for thousands of endpoints.
#[derive(Serialize)]
struct Report<'r> {
    endpoints: Vec<Endpoint<'r>>,
    parents: Vec<Parent<'r>>,
}

#[derive(Serialize)]
struct Endpoint<'r> {
    name: &'r str,
    id: &'r Id,
    network: &'r str,
    ipv4: Option<IpAddr>,
    ipv6: Option<IpAddr>,
    rx: &'r Figure,
    tx: &'r Figure,
    families: &'r Families,
    drops: &'r BTreeMap<&'static str, u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    per_second: Option<Rates>,
}

#[derive(Serialize)]
struct Parent<'r> {
    name: &'r str,
    drops: &'r BTreeMap<&'static str, u64>,
}

impl<'r> From<&'r Reading> for Report<'r> {
    fn from(reading: &'r Reading) -> Self {
        let endpoint = |row: &'r Row| {
            let EndpointStats {
                endpoint,
                network,
                figures,
            } = &row.stats;
            Endpoint {
                name: &endpoint.name,
                id: &endpoint.id,
                network,
                ipv4: endpoint.addresses.v4.map(|address| address.ip()),
                ipv6: endpoint.addresses.v6.map(|address| address.ip()),
                rx: &figures.total.rx,
                tx: &figures.total.tx,
                families: &figures.families,
                drops: &figures.drops,
                per_second: row.rates,
            }
        };
        let parent = |parent: &'r ParentStats| Parent {
            name: &parent.name,
            drops: &parent.drops,
        };
        Self {
            endpoints: reading.rows.iter().map(endpoint).collect(),
            parents: reading.parents.iter().map(parent).collect(),
        }
    }
}

fn as_table(reading: &Reading, with_rates: bool) -> String {
    let rows = &reading.rows;
    if !with_rates {
        return table(
            [
                "NAME", "NETWORK", "ADDRESS", "RX-PKTS", "RX-BYTES", "TX-PKTS", "TX-BYTES", "DROPS",
            ],
            rows.iter().map(totals),
        );
    }
    table(
        [
            "NAME", "NETWORK", "ADDRESS", "RX-PKTS", "RX-BYTES", "TX-PKTS", "TX-BYTES", "RX-PKT/S",
            "RX-BIT/S", "TX-PKT/S", "TX-BIT/S", "DROPS",
        ],
        rows.iter().map(|row| {
            let [name, network, address, a, b, c, d, drops] = totals(row);
            let [rx_packets, rx_bits, tx_packets, tx_bits] = rates(row.rates);
            [
                name, network, address, a, b, c, d, rx_packets, rx_bits, tx_packets, tx_bits, drops,
            ]
        }),
    )
}

fn totals(row: &Row) -> [String; 8] {
    let figures = &row.stats.figures;
    [
        row.stats.endpoint.name.clone(),
        row.stats.network.clone(),
        row.addresses(),
        figures.total.rx.packets.to_string(),
        figures.total.rx.bytes.to_string(),
        figures.total.tx.packets.to_string(),
        figures.total.tx.bytes.to_string(),
        drops(&figures.drops),
    ]
}

fn rates(rates: Option<Rates>) -> [String; 4] {
    match rates {
        None => ["-"; 4].map(Into::into),
        Some(rates) => [
            si(rates.rx.packets),
            bits(rates.rx.bytes),
            si(rates.tx.packets),
            bits(rates.tx.bytes),
        ],
    }
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
    use super::*;
    use crate::cli::reading::tests::row;

    #[test]
    fn drops_in_one_word() {
        assert_eq!(super::drops(&[].into()), "-");
        let drops = [("spoofed-source", 2), ("malformed", 1)].into();
        assert_eq!(super::drops(&drops), "malformed=1,spoofed-source=2");
    }

    #[test]
    fn rates_are_shown_where_they_are_known() {
        let mut reading = Reading {
            rows: vec![row("a", 1, 1000)],
            parents: Vec::new(),
        };
        let text = as_table(&reading, true);
        let words: Vec<&str> = text.lines().nth(1).unwrap().split_whitespace().collect();
        assert_eq!(words[7..9], ["10", "8.00k"], "{text}");
        let json = |reading: &Reading| serde_json::to_value(Report::from(reading)).unwrap();
        let rate = &json(&reading)["endpoints"][0]["per_second"];
        assert_eq!(rate["rx"]["bytes"], 1000.0);

        reading.rows[0].rates = None;
        let text = as_table(&reading, true);
        let words: Vec<&str> = text.lines().nth(1).unwrap().split_whitespace().collect();
        assert_eq!(words[7..9], ["-", "-"], "{text}");
        assert!(!as_table(&reading, false).contains("/S"));
        assert!(json(&reading)["endpoints"][0].get("per_second").is_none());
    }

    #[test]
    fn a_report_leaves_nothing_of_the_last() {
        assert_eq!(in_place("ab\nc\n"), "\x1b[Hab\x1b[K\nc\x1b[K\n\x1b[J");
    }
}
