//! `bench`: how fast it is. The measuring itself is done by the crate `ipvlan-bench`, which is
//! built and run from here.

mod datapath;
mod dns;
mod ipam;
mod stats;

use std::process::ExitCode;

use anyhow::Result;
use clap::Subcommand;

#[derive(Subcommand)]
pub enum Bench {
    /// What a packet costs
    Datapath(datapath::Args),
    /// What an address costs, against the number of leases
    Ipam(ipam::Args),
    /// How many names are resolved in a second, beside aardvark-dns
    Dns(dns::Args),
    /// What it costs to read the figures of many endpoints
    Stats(stats::Args),
}

impl Bench {
    pub fn run(self) -> Result<ExitCode> {
        match self {
            Bench::Datapath(args) => datapath::bench(args),
            Bench::Ipam(args) => ipam::bench(args),
            Bench::Dns(args) => dns::bench(args),
            Bench::Stats(args) => stats::bench(args),
        }
    }
}
