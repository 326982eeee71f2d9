//! Figures for Prometheus.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Registry, Unit};

use crate::engine::{EndpointStats, Topology};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    OpenMetrics,
    /// Version 0.0.4, which names a counter with its `_total`.
    Text,
}

impl Format {
    /// What the values of `Accept` ask for.
    pub(super) fn of<'a>(mut accepted: impl Iterator<Item = &'a str>) -> Self {
        match accepted.any(|value| value.contains("application/openmetrics-text")) {
            true => Self::OpenMetrics,
            false => Self::Text,
        }
    }

    pub(super) fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

pub(super) fn text(topology: Topology, format: Format) -> String {
    let mut registry = Registry::with_prefix("ipvlan_ctl");
    registry.register_collector(Box::new(topology));
    let mut text = String::new();
    encode(&mut text, &registry).expect("writing to a string does not fail");
    match format {
        Format::OpenMetrics => text,
        Format::Text => older(&text),
    }
}

/// The older format has the same samples, but a counter's `# HELP` and `# TYPE` name the sample.
fn older(text: &str) -> String {
    let is_counter = |name: &str| text.contains(&format!("# TYPE {name} counter\n"));
    text.lines()
        .filter(|line| !line.starts_with("# UNIT ") && *line != "# EOF")
        .map(|line| match described(line) {
            Some((what, name, rest)) if is_counter(name) => {
                format!("# {what} {name}_total {rest}\n")
            }
            _ => format!("{line}\n"),
        })
        .collect()
}

/// The parts of `# HELP NAME …` or `# TYPE NAME …`.
fn described(line: &str) -> Option<(&str, &str, &str)> {
    let mut words = line.strip_prefix("# ")?.splitn(3, ' ');
    Some((words.next()?, words.next()?, words.next()?))
}

type Labels<'a> = Vec<(&'static str, &'a str)>;

impl Collector for Topology {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        let endpoints = || self.branches.iter().flat_map(|branch| &branch.endpoints);
        type Count = fn(&EndpointStats) -> u64;
        let counts: [(&str, &str, &str, Count); 4] = [
            (
                "endpoint_receive",
                "packets",
                "Packets delivered to the endpoint",
                |row| row.figures.total.rx.packets,
            ),
            (
                "endpoint_receive",
                "bytes",
                "Bytes delivered to the endpoint",
                |row| row.figures.total.rx.bytes,
            ),
            (
                "endpoint_transmit",
                "packets",
                "Packets sent by the endpoint",
                |row| row.figures.total.tx.packets,
            ),
            (
                "endpoint_transmit",
                "bytes",
                "Bytes sent by the endpoint",
                |row| row.figures.total.tx.bytes,
            ),
        ];
        for (name, unit, help, count) in counts {
            let samples = endpoints().map(|row| (labels(row), count(row)));
            counter(&mut encoder, (name, unit, help), samples)?;
        }
        let drops = endpoints().flat_map(|row| {
            row.figures.drops.iter().map(|(reason, count)| {
                let mut labels = labels(row);
                labels.push(("reason", reason));
                (labels, *count)
            })
        });
        let help = "Packets of the endpoint that were dropped";
        counter(&mut encoder, ("endpoint_dropped", "packets", help), drops)?;
        let drops = self.parents.iter().flat_map(|parent| {
            parent.drops.iter().map(|(reason, count)| {
                let labels = vec![("parent", parent.name.as_str()), ("reason", *reason)];
                (labels, *count)
            })
        });
        let help = "Packets on a parent that were dropped and belong to no endpoint";
        counter(&mut encoder, ("parent_dropped", "packets", help), drops)?;

        let networks = || {
            self.branches.iter().map(|branch| {
                let labels = vec![
                    ("network", branch.network.name.as_str()),
                    ("parent", branch.network.parent.name()),
                ];
                (branch, labels)
            })
        };
        let help = "Endpoints on the network";
        let samples = networks().map(|(branch, labels)| (labels, branch.endpoints.len() as i64));
        gauge(&mut encoder, ("network_endpoints", help), samples)?;
        let help = "Whether the network's parent is there and up";
        let samples =
            networks().filter_map(|(branch, labels)| Some((labels, branch.parent_is_up()?.into())));
        gauge(&mut encoder, ("network_parent_up", help), samples)?;
        let help = "The program that tells these figures";
        let version = vec![("version", env!("CARGO_PKG_VERSION"))];
        gauge(
            &mut encoder,
            ("build_info", help),
            [(version, 1)].into_iter(),
        )
    }
}

fn labels(row: &EndpointStats) -> Labels<'_> {
    vec![
        ("network", row.network.as_str()),
        ("endpoint", row.endpoint.name.as_str()),
    ]
}

fn counter<'a>(
    encoder: &mut DescriptorEncoder,
    (name, unit, help): (&str, &str, &str),
    samples: impl Iterator<Item = (Labels<'a>, u64)>,
) -> fmt::Result {
    let unit = match unit {
        "bytes" => Unit::Bytes,
        other => Unit::Other(other.into()),
    };
    let mut family = encoder.encode_descriptor(name, help, Some(&unit), MetricType::Counter)?;
    for (labels, value) in samples {
        ConstCounter::new(value).encode(family.encode_family(&labels)?)?;
    }
    Ok(())
}

fn gauge<'a>(
    encoder: &mut DescriptorEncoder,
    (name, help): (&str, &str),
    samples: impl Iterator<Item = (Labels<'a>, i64)>,
) -> fmt::Result {
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    for (labels, value) in samples {
        ConstGauge::new(value).encode(family.encode_family(&labels)?)?;
    }
    Ok(())
}
