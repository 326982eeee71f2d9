//! The measuring half of `cargo xtask bench`. Each subcommand measures one thing as root, in
//! namespaces that end with it, and prints its tables as JSON; `report` shows such files.

mod attach;
mod bpf;
mod connect;
mod dns;
mod docker;
mod door;
mod exchange;
mod frame;
mod guest;
mod ipam;
mod plot;
mod programs;
mod report;
mod sandbox;
mod stats;
mod table;
mod veth;

use anyhow::Result;
use clap::Parser;

#[derive(Parser)]
enum Bench {
    /// The programs of the datapath alone, by BPF_PROG_TEST_RUN
    Programs(programs::Args),
    /// The programs against nftables, on the same devices
    Veth(veth::Args),
    /// Containers on ipvlan, and on what else there is; needs a kernel with all of it
    Guest(guest::Args),
    /// Address allocation against the number of leases
    Ipam(ipam::Args),
    /// The resolver, beside aardvark-dns
    Dns(dns::Args),
    #[command(hide = true)]
    Answer,
    /// `stats --json` of many endpoints
    Stats(stats::Args),
    /// A container joins a network, by ours and by others
    Attach(attach::Args),
    /// Many endpoints of one network, one after the other
    Connect(connect::Args),
    /// Shows measured tables
    Report(report::Args),
}

fn main() -> Result<()> {
    let tables = match Bench::parse() {
        Bench::Programs(args) => programs::measure(&args)?,
        Bench::Veth(args) => veth::measure(&args)?,
        Bench::Guest(args) => guest::measure(&args)?,
        Bench::Ipam(args) => ipam::measure(&args)?,
        Bench::Dns(args) => dns::measure(&args)?,
        Bench::Answer => return dns::answer(),
        Bench::Stats(args) => stats::measure(&args)?,
        Bench::Attach(args) => attach::measure(&args)?,
        Bench::Connect(args) => connect::measure(&args)?,
        Bench::Report(args) => return report::show(&args),
    };
    println!("{}", serde_json::to_string_pretty(&tables)?);
    Ok(())
}
