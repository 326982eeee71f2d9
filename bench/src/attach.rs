//! A container joins a network, by ours and by those who do the same.
//!
//! Each attachment is what its caller waits for, from the start of a process to its end.

use std::fs;
use std::path::PathBuf;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Result, bail, ensure};

use crate::docker::{CONTAINERS, Docker};
use crate::door::{self, Daemon, Door};
use crate::sandbox;
use crate::table::{Compare, Row, Table, Target};

/// How many attachments in a row make a sample of CPU time, which is counted in ticks of 10 ms:
/// as many as Docker has containers.
const BLOCK: usize = CONTAINERS;

/// Docker is slow: its doors take one attachment in a row for so many of the others.
const DOCKERS: usize = 4;

/// What the one before left to do in the background is done by then.
const PAUSE: Duration = Duration::from_millis(100);

#[derive(clap::Args)]
pub struct Args {
    /// The ipvlan-ctl to measure
    #[arg(long, value_name = "FILE")]
    program: PathBuf,
    /// Root of what is unpacked for Podman: netavark, and the libraries that it needs
    #[arg(long, value_name = "DIR")]
    podman: PathBuf,
    /// Root of what is unpacked for Docker
    #[arg(long, value_name = "DIR")]
    docker: PathBuf,
    /// Single attachments of each
    #[arg(long, value_name = "N", default_value_t = 15)]
    rounds: usize,
    /// Attachments of each in a row; a quarter by Docker
    #[arg(long, value_name = "N", default_value_t = 200)]
    row: usize,
}

/// First single attachments of each in turn, then many of each.
pub fn measure(args: &Args) -> Result<Vec<Table>> {
    ensure!(
        args.row > 0 && args.row.is_multiple_of(BLOCK),
        "invalid --row {}: it is a multiple of {BLOCK}, at least {BLOCK}",
        args.row,
    );
    ensure!(args.rounds > 0, "invalid --rounds 0: it is at least 1");
    sandbox::enter()?;
    door::install(&args.program)?;
    door::install_others(&args.podman, &args.docker)?;
    let _docker = Docker::start(&args.docker)?;
    let mut site = Site::default();
    let first = 1 + args.rounds;
    for door in Door::ALL {
        site.ready(door)?;
        door.open(first + args.row)?;
    }
    // Nothing is measured of the first of each, to which all code is new.
    site.sampled(0, [1; 2], 1)?;
    let one = site.sampled(1, [args.rounds; 2], 1)?;
    let blocks = args.row / BLOCK;
    let dockers = blocks.div_ceil(DOCKERS);
    let row = site.sampled(first, [blocks, dockers], BLOCK)?;
    let each = format!(
        "each of {} in a row, or {} by Docker",
        args.row,
        dockers * BLOCK
    );
    Ok(vec![
        table("One attachment", one.times)?,
        table("One attachment, CPU time of the whole machine", one.work)?,
        table(&format!("Attachments, {each}"), row.times)?,
        table(
            &format!("Attachments, CPU time of the whole machine, {each}"),
            row.work,
        )?,
    ])
}

fn table(title: &str, samples: Vec<Vec<f64>>) -> Result<Table> {
    let baseline = Door::Reference;
    let rows = Door::ALL.into_iter().zip(samples).map(|(door, samples)| {
        let baseline = (door != baseline).then(|| baseline.what().into());
        Row {
            what: door.what().into(),
            baseline,
            samples,
        }
    });
    let mut table = Table {
        title: title.into(),
        unit: "ms".into(),
        compare: Compare::Ratio,
        rows: rows.collect(),
        targets: vec![],
    };
    let ours = Door::CniByDaemon.what();
    let got = table.against(ours)?;
    let what = format!("{ours}, against the reference");
    table.targets.push(Target::at_most(what, got, 0.2));
    Ok(table)
}

/// Of each door, in milliseconds of one attachment.
struct Samples {
    /// One for each attachment.
    times: Vec<Vec<f64>>,
    /// One for each block of them.
    work: Vec<Vec<f64>>,
}

/// Where it all happens, by all doors; our daemon runs when it is needed.
#[derive(Default)]
struct Site {
    daemon: Option<Daemon>,
}

impl Site {
    fn ready(&mut self, door: Door) -> Result<()> {
        match (door.needs_daemon(), &self.daemon) {
            (true, None) => self.daemon = Some(Daemon::start()?),
            (false, Some(_)) => self.daemon = None,
            _ => {}
        }
        Ok(())
    }

    /// Attaches the containers from `first` on, in turn by blocks of `size` through each door:
    /// so many blocks of them, and so many of Docker's, which are not more.
    fn sampled(
        &mut self,
        first: usize,
        [blocks, dockers]: [usize; 2],
        size: usize,
    ) -> Result<Samples> {
        let none = || vec![Vec::new(); Door::ALL.len()];
        let (mut times, mut work) = (none(), none());
        for (block, begin) in (first..).step_by(size).take(blocks).enumerate() {
            for (n, door) in Door::ALL.into_iter().enumerate() {
                if door.is_docker() && block >= dockers {
                    continue;
                }
                self.ready(door)?;
                sleep(PAUSE);
                let before = busy()?;
                for number in begin..begin + size {
                    times[n].push(door.attach(number)?.as_secs_f64() * 1e3);
                }
                let spent = busy()? - before;
                work[n].push(spent.as_secs_f64() * 1e3 / size as f64);
                if door.is_docker() {
                    for number in begin..begin + size {
                        door.detach(number)?;
                    }
                }
            }
        }
        Ok(Samples { times, work })
    }
}

/// How long all CPUs were busy since the start (proc(5), `stat`).
fn busy() -> Result<Duration> {
    let stat = fs::read_to_string("/proc/stat")?;
    let first = stat.lines().next().unwrap_or_default();
    let ticks: Vec<u64> = first
        .split_whitespace()
        .skip(1)
        .map_while(|n| n.parse().ok())
        .collect();
    // user, nice, system, idle, iowait, irq, softirq
    let [user, nice, system, _, _, irq, softirq, ..] = ticks[..] else {
        bail!("/proc/stat begins with {first:?}");
    };
    Ok(Duration::from_millis(
        10 * (user + nice + system + irq + softirq),
    ))
}
