//! `network connect`, the command from its start to its end, against how many endpoints the
//! network has by then.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Result;
use clap::value_parser;

use crate::sandbox::{self, sh};
use crate::table::{Compare, Row, Table, Target};

const NETWORK: &str = "bench";

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
}

/// Connects one namespace after the other, all of them to one network.
pub fn measure(args: &Args) -> Result<Vec<Table>> {
    sandbox::enter()?;
    sh("ip link add eth9 type dummy; ip link set eth9 up")?;
    let names: Vec<String> = (1..=args.endpoints).map(|n| format!("e{n}")).collect();
    let batch: String = names.iter().map(|n| format!("netns add {n}\n")).collect();
    sh(&format!("ip -batch - <<'END'\n{batch}END"))?;

    let create = format!("network create --subnet 10.0.0.0/16 -o parent=eth9 {NETWORK}");
    time(&args.program, &create)?;
    let connect = |name: &String| time(&args.program, &format!("network connect {NETWORK} {name}"));
    for name in names.iter().take(WARM_UP) {
        connect(name)?;
        time(
            &args.program,
            &format!("network disconnect {NETWORK} {name}"),
        )?;
    }
    let times = names.iter().map(connect).collect::<Result<Vec<f64>>>()?;
    Ok(vec![table(&times)?])
}

/// Runs the program with a line's words; returns how long it took, in milliseconds.
fn time(program: &Path, line: &str) -> Result<f64> {
    let started = Instant::now();
    sandbox::run_ctl(program, line)?;
    Ok(started.elapsed().as_secs_f64() * 1e3)
}

/// The first, some in the middle and the last, which are compared with the first.
fn table(times: &[f64]) -> Result<Table> {
    let begins = [0, (times.len() - ROW) / 2, times.len() - ROW];
    let what = |begin: usize| format!("{} to {}", begin + 1, begin + ROW);
    let rows = begins.into_iter().map(|begin| Row {
        what: what(begin),
        baseline: (begin > 0).then(|| what(0)),
        samples: times[begin..begin + ROW].to_vec(),
    });
    let mut table = Table {
        title: format!(
            "`ipvlan-ctl network connect`, of {} to one network",
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
