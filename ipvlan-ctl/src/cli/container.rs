//! Containers that are there: `exec`, `ps`, `stop`, `kill`, `rm`, `logs`, `wait`.

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, ValueEnum};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::inspect::timestamp;
use super::table::table;
use super::task::TaskArgs;
use super::{Places, print, report};
use crate::model::Invalid;
use crate::runtime::{self, Container, Entry, Record, RecordError, RunError, Status, Stream};

/// Run another command in a running container
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  ipvlan-ctl exec -it ipv1 sh")]
pub(super) struct Exec {
    /// Name, id or beginning of an id
    container: String,
    #[command(flatten)]
    task: TaskArgs,
}

impl Exec {
    /// As docker's: 126 and 127 as of `run`, and 1 for what is wrong before that.
    pub(super) fn run(self, places: &Places) -> ExitCode {
        let exec = || -> anyhow::Result<u8> {
            let record = places.run_dir().find(&self.container)?;
            let defaults = record.container.spec.task.clone();
            let task = self.task.apply(defaults, true)?;
            Ok(runtime::exec(&record, &task)?)
        };
        match exec() {
            Ok(status) => ExitCode::from(status),
            Err(e) => {
                report(&e);
                match e.downcast_ref().map(RunError::exit_status) {
                    Some(status @ (126 | 127)) => ExitCode::from(status),
                    _ => ExitCode::FAILURE,
                }
            }
        }
    }
}

/// Does something to each container that is named; one that fails does not stop the others.
fn each(
    places: &Places,
    words: &[String],
    mut work: impl FnMut(Record, &str) -> anyhow::Result<()>,
) -> anyhow::Result<ExitCode> {
    let mut code = ExitCode::SUCCESS;
    for word in words {
        let done = places
            .run_dir()
            .find(word)
            .map_err(anyhow::Error::from)
            .and_then(|record| work(record, word));
        if let Err(error) = done {
            report(&error);
            code = ExitCode::FAILURE;
        }
    }
    Ok(code)
}

/// Stop containers: TERM first, and KILL if that is not enough
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  ipvlan-ctl stop -t 3 ipv1 ipv2")]
pub(super) struct Stop {
    /// Seconds to wait before KILL; -1 for no end
    #[arg(
        short,
        long,
        value_name = "SECONDS",
        default_value_t = 10,
        allow_negative_numbers = true
    )]
    time: i64,
    /// Signal to send first
    #[arg(short, long, value_name = "SIGNAL", default_value = "TERM")]
    signal: String,
    /// Names, ids or beginnings of ids
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

impl Stop {
    pub(super) fn run(self, places: &Places) -> anyhow::Result<ExitCode> {
        runtime::require_root()?;
        let signal = parse_signal(&self.signal)?;
        let patience = u64::try_from(self.time).ok().map(Duration::from_secs);
        each(places, &self.containers, |record, word| {
            record.stop(signal, patience)?;
            Ok(print(&format!("{word}\n"))?)
        })
    }
}

/// Send a signal to the commands of running containers
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  ipvlan-ctl kill -s HUP ipv1")]
pub(super) struct Kill {
    /// By name or number; KILL ends all that runs in the container
    #[arg(short, long, value_name = "SIGNAL", default_value = "KILL")]
    signal: String,
    /// Names, ids or beginnings of ids
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

impl Kill {
    pub(super) fn run(self, places: &Places) -> anyhow::Result<ExitCode> {
        runtime::require_root()?;
        let signal = parse_signal(&self.signal)?;
        each(places, &self.containers, |record, word| {
            record.kill(signal)?;
            Ok(print(&format!("{word}\n"))?)
        })
    }
}

/// `TERM`, `SIGTERM` or `15`. STOP would stop a container's init, and not its command.
fn parse_signal(word: &str) -> Result<Signal, Invalid> {
    let name = word.to_ascii_uppercase();
    let long = format!("SIG{}", name.strip_prefix("SIG").unwrap_or(&name));
    let named = long.parse::<Signal>().ok();
    let numbered = word
        .parse::<i32>()
        .ok()
        .and_then(|number| Signal::try_from(number).ok());
    named
        .or(numbered)
        .filter(|signal| *signal != Signal::SIGSTOP)
        .ok_or_else(|| {
            let allowed = "a signal by name or number from 1 to 31, but not STOP";
            Invalid::new("--signal", word, allowed)
        })
}

/// Remove containers that have ended
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  ipvlan-ctl rm -f ipv1")]
pub(super) struct Rm {
    /// End those that run, by KILL; none of that name is no error
    #[arg(short, long)]
    force: bool,
    /// Names, ids or beginnings of ids
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

impl Rm {
    pub(super) fn run(self, places: &Places) -> anyhow::Result<ExitCode> {
        runtime::require_root()?;
        let mut lost = false;
        let mut there = self.containers;
        if self.force {
            there.retain(|word| match places.run_dir().find(word) {
                Err(error @ RecordError::NotFound(_)) => {
                    report(&error.into());
                    false
                }
                _ => true,
            });
        }
        let code = each(places, &there, |record, word| {
            lost |= record.status() == Status::Dead;
            record.discard(self.force)?;
            Ok(print(&format!("{word}\n"))?)
        })?;
        if lost {
            // What such a one had on its networks.
            places.with_engine(async |engine| Ok(engine.repair().await?))?;
        }
        Ok(code)
    }
}

/// Wait until containers have ended, and print their exit codes
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  ipvlan-ctl wait ipv1")]
pub(super) struct Wait {
    /// Names, ids or beginnings of ids
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

impl Wait {
    pub(super) fn run(self, places: &Places) -> anyhow::Result<ExitCode> {
        each(places, &self.containers, |record, _| {
            let status = record.wait()?.map_or(KILLED, |end| end.status);
            Ok(print(&format!("{status}\n"))?)
        })
    }
}

/// Exit status of what ended by KILL.
const KILLED: u8 = 128 + 9;

/// Print what a container has written
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  ipvlan-ctl logs -f --tail 20 ipv1")]
pub(super) struct Logs {
    /// Go on until the container ends
    #[arg(short, long)]
    follow: bool,
    /// Only as many lines from the end; `all` for all
    #[arg(
        short = 'n',
        long,
        value_name = "NUMBER",
        default_value = "all",
        allow_negative_numbers = true
    )]
    tail: String,
    /// Begin each line with its time
    #[arg(short, long)]
    timestamps: bool,
    /// Name, id or beginning of an id
    container: String,
}

impl Logs {
    pub(super) fn run(self, places: &Places) -> anyhow::Result<ExitCode> {
        let tail = match self.tail.as_str() {
            "all" => None,
            number => Some(
                number
                    .parse()
                    .map_err(|_| Invalid::new("--tail", number, "a number of lines, or all"))?,
            ),
        };
        let record = places.run_dir().find(&self.container)?;
        record.logs(tail, self.follow, |entry| write(entry, self.timestamps))?;
        Ok(ExitCode::SUCCESS)
    }
}

fn write(entry: &Entry, timestamps: bool) -> io::Result<()> {
    let mut line = match timestamps {
        true => format!("{} ", entry.time),
        false => String::new(),
    };
    line += &entry.log;
    match entry.stream {
        Stream::Stdout => print(&line),
        Stream::Stderr => io::stderr().write_all(line.as_bytes()),
    }
}

/// List containers
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  ipvlan-ctl ps -a --filter status=exited")]
pub(super) struct Ps {
    /// Also those that do not run
    #[arg(short, long)]
    all: bool,
    /// Print ids only
    #[arg(short, long)]
    quiet: bool,
    /// Print ids and commands in full
    #[arg(long)]
    no_trunc: bool,
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
    /// As --format json
    #[arg(long)]
    json: bool,
    /// id=, name=, network=, status= or exited= (repeatable)
    #[arg(short, long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Format {
    Table,
    /// One JSON object per line
    Json,
}

impl Ps {
    pub(super) fn run(self, places: &Places) -> anyhow::Result<ExitCode> {
        let filter = Filter::parse(&self.filter)?;
        let mut rows = Vec::new();
        for record in places.run_dir().containers()? {
            let status = record.status();
            // As docker: who asks for a status means those that do not run, too.
            let shown = self.all || filter.names_a_status() || status == Status::Running;
            if shown && filter.takes(&record.container, &status) {
                rows.push(Row::of(&record.container, &status, self.no_trunc));
            }
        }
        print(&match self.format {
            _ if self.quiet => rows.into_iter().map(|row| row.id + "\n").collect(),
            Format::Table if !self.json => table(
                [
                    "CONTAINER ID",
                    "COMMAND",
                    "CREATED",
                    "STATUS",
                    "NETWORKS",
                    "NAMES",
                ],
                rows.into_iter().map(Row::columns),
            ),
            _ => rows
                .iter()
                .map(|row| row.json().to_string() + "\n")
                .collect(),
        })?;
        Ok(ExitCode::SUCCESS)
    }
}

/// A line of `ps`.
struct Row {
    id: String,
    command: String,
    created: u64,
    state: &'static str,
    status: String,
    networks: String,
    name: String,
}

impl Row {
    fn of(container: &Container, status: &Status, no_trunc: bool) -> Self {
        const LONGEST: usize = 20;
        let spec = &container.spec;
        let mut command = spec.task.command.join(" ");
        if !no_trunc && command.chars().count() > LONGEST {
            command = command.chars().take(LONGEST - 1).chain(['…']).collect();
        }
        Self {
            id: match no_trunc {
                true => spec.id.to_string(),
                false => spec.id.short().to_owned(),
            },
            command: format!("{command:?}"),
            created: container.created,
            state: status.name(),
            status: describe(container, status),
            networks: spec.networks.join(","),
            name: spec.name.clone(),
        }
    }

    fn columns(self) -> [String; 6] {
        [
            self.id,
            self.command,
            format!("{} ago", duration(since(self.created))),
            self.status,
            self.networks,
            self.name,
        ]
    }

    /// Docker has every value as a string.
    fn json(&self) -> Value {
        json!({
            "Command": self.command,
            "CreatedAt": timestamp(self.created),
            "ID": self.id,
            "Names": self.name,
            "Networks": self.networks,
            "RunningFor": format!("{} ago", duration(since(self.created))),
            "State": self.state,
            "Status": self.status,
        })
    }
}

fn describe(container: &Container, status: &Status) -> String {
    match status {
        Status::Created => "Created".to_owned(),
        Status::Running => {
            let started = container.started.unwrap_or(container.created);
            format!("Up {}", duration(since(started)))
        }
        Status::Exited(end) => {
            format!(
                "Exited ({}) {} ago",
                end.status,
                duration(since(end.finished))
            )
        }
        Status::Dead => "Dead".to_owned(),
    }
}

/// Seconds since a time in seconds since the epoch.
fn since(time: u64) -> u64 {
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    now.saturating_sub(time)
}

/// Seconds in the one unit that fits, in docker's words.
fn duration(seconds: u64) -> String {
    const MINUTE: u64 = 60;
    const HOUR: u64 = 60 * MINUTE;
    const DAY: u64 = 24 * HOUR;
    match seconds {
        0 => "Less than a second".to_owned(),
        1 => "1 second".to_owned(),
        2..MINUTE => format!("{seconds} seconds"),
        MINUTE..120 => "About a minute".to_owned(),
        120..HOUR => format!("{} minutes", seconds / MINUTE),
        HOUR..7200 => "About an hour".to_owned(),
        _ if seconds < 2 * DAY => format!("{} hours", seconds / HOUR),
        _ if seconds < 14 * DAY => format!("{} days", seconds / DAY),
        _ => format!("{} weeks", seconds / (7 * DAY)),
    }
}

/// What `--filter` asks of a container: one of the values of each key.
#[derive(Debug)]
struct Filter(Vec<(String, String)>);

impl Filter {
    const KEYS: [&str; 5] = ["exited", "id", "name", "network", "status"];
    const STATES: [&str; 4] = ["created", "running", "exited", "dead"];

    fn parse(words: &[String]) -> Result<Self, Invalid> {
        words
            .iter()
            .map(|word| {
                let allowed = match word.split_once('=') {
                    Some(("status", state)) if !Self::STATES.contains(&state) => {
                        format!("status= and one of {}", Self::STATES.join(", "))
                    }
                    Some(("exited", code)) if code.parse::<u8>().is_err() => {
                        "exited= and an exit code from 0 to 255".to_owned()
                    }
                    Some((key, value)) if Self::KEYS.contains(&key) => {
                        return Ok((key.into(), value.into()));
                    }
                    _ => format!("KEY=VALUE, where KEY is {}", Self::KEYS.join(", ")),
                };
                Err(Invalid::new("--filter", word, allowed))
            })
            .collect::<Result<_, _>>()
            .map(Self)
    }

    fn names_a_status(&self) -> bool {
        self.0
            .iter()
            .any(|(key, _)| matches!(key.as_str(), "status" | "exited"))
    }

    fn takes(&self, container: &Container, status: &Status) -> bool {
        let spec = &container.spec;
        let is = |key: &str, value: &str| match key {
            "id" => spec.id.as_str().starts_with(value),
            "name" => spec.name.contains(value),
            "network" => spec.networks.iter().any(|network| network == value),
            "status" => status.name() == value,
            _ => matches!(status, Status::Exited(end) if end.status.to_string() == value),
        };
        self.0.iter().all(|(key, _)| {
            let mut values = self.0.iter().filter(|(other, _)| other == key);
            values.any(|(_, value)| is(key, value))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_dockers() {
        for (seconds, text) in [
            (0, "Less than a second"),
            (1, "1 second"),
            (59, "59 seconds"),
            (60, "About a minute"),
            (119, "About a minute"),
            (120, "2 minutes"),
            (3599, "59 minutes"),
            (3600, "About an hour"),
            (7200, "2 hours"),
            (86400, "24 hours"),
            (2 * 86400, "2 days"),
            (15 * 86400, "2 weeks"),
        ] {
            assert_eq!(duration(seconds), text);
        }
    }

    #[test]
    fn signals_by_name_and_number() {
        for word in ["TERM", "sigterm", "SIGTERM", "15"] {
            assert_eq!(parse_signal(word), Ok(Signal::SIGTERM));
        }
        for word in ["", "SIG", "0", "64", "-9", "STOP", "19", "NOSUCH"] {
            assert_eq!(parse_signal(word).unwrap_err().field, "--signal", "{word}");
        }
    }

    #[test]
    fn a_filter_that_means_nothing_is_refused() {
        for word in ["name", "image=x", "status=up", "exited=256"] {
            let error = Filter::parse(&[word.to_owned()]).unwrap_err();
            assert_eq!(
                (error.field.as_str(), error.value.as_str()),
                ("--filter", word)
            );
        }
    }
}
