//! A network gets one endpoint after the other: what each costs, against how many there are by then.

use std::path::PathBuf;

use anyhow::Result;
use clap::value_parser;

use crate::door::{self, Daemon, Door};
use crate::sandbox;
use crate::table::{Compare, Row, Table, Target};

/// How many neighbouring connects make a row; there are at least two rows.
const ROW: usize = 50;

/// An emulated machine is slow at first, when all code is new to it.
const WARM_UP: usize = 20;

#[derive(clap::Args)]
pub struct Args {
    /// The ipvlan-ctl to measure
    #[arg(long, value_name = "FILE")]
    program: PathBuf,
    /// Endpoints of the network in the end
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = value_parser!(u32).range(100..))]
    endpoints: u32,
    /// By our CNI plugin with the daemon running, instead of the command line without
    #[arg(long)]
    cni: bool,
}

/// Connects one namespace after the other, all of them to one network.
pub fn measure(args: &Args) -> Result<Vec<Table>> {
    sandbox::enter()?;
    door::install(&args.program)?;
    let door = match args.cni {
        true => Door::CniByDaemon,
        false => Door::Cli,
    };
    let _daemon = door.needs_daemon().then(Daemon::start).transpose()?;
    let endpoints = args.endpoints as usize;
    door.open(endpoints)?;
    for number in 0..WARM_UP {
        door.attach(number)?;
        door.detach(number)?;
    }
    let times = (0..endpoints).map(|number| Ok(door.attach(number)?.as_secs_f64() * 1e3));
    Ok(vec![table(door, &times.collect::<Result<Vec<f64>>>()?)?])
}

/// The first, some in the middle and the last, which are compared with the first.
fn table(door: Door, times: &[f64]) -> Result<Table> {
    let begins = [0, (times.len() - ROW) / 2, times.len() - ROW];
    let what = |begin: usize| format!("{} to {}", begin + 1, begin + ROW);
    let rows = begins.into_iter().map(|begin| Row {
        what: what(begin),
        baseline: (begin > 0).then(|| what(0)),
        samples: times[begin..begin + ROW].to_vec(),
    });
    let mut table = Table {
        title: format!(
            "{}, of {} endpoints of one network",
            door.what(),
            times.len()
        ),
        unit: "ms".into(),
        compare: Compare::Ratio,
        rows: rows.collect(),
        targets: vec![],
    };
    let last = table.against(&what(begins[2]))?;
    table.targets = vec![Target::at_most("the last against the first", last, 1.2)];
    Ok(table)
}
