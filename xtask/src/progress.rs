//! What the user sees of a long step: a spinner with the tool's latest line on a terminal, plain
//! lines elsewhere.

use std::io::{BufRead, BufReader, IsTerminal};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use indicatif::{ProgressBar, ProgressStyle};

/// How many of a failed tool's last lines are shown.
const TAIL: usize = 30;

pub struct Step {
    what: String,
    spinner: Option<ProgressBar>,
}

/// Does a long piece of work, telling what it is and how long it took.
pub fn step<T>(what: impl Into<String>, work: impl FnOnce(&Step) -> Result<T>) -> Result<T> {
    let what = what.into();
    let began = Instant::now();
    let spinner = std::io::stderr().is_terminal().then(|| {
        let style = ProgressStyle::with_template("{spinner} {prefix} ({elapsed}) {wide_msg:.dim}")
            .expect("the template is valid");
        let bar = ProgressBar::new_spinner().with_style(style);
        bar.set_prefix(what.clone());
        bar.enable_steady_tick(Duration::from_millis(120));
        bar
    });
    if spinner.is_none() {
        eprintln!("==> {what}");
    }
    let step = Step { what, spinner };
    let done = work(&step);
    if let Some(spinner) = &step.spinner {
        spinner.finish_and_clear();
    }
    if done.is_ok() {
        eprintln!("    {}: done in {:.1} s", step.what, began.elapsed().as_secs_f32());
    }
    done
}

impl Step {
    /// Runs a tool to its end, showing its latest line; its last lines come with the error if it
    /// fails.
    pub fn run(&self, command: &mut Command) -> Result<()> {
        let name = command.get_program().to_string_lossy().into_owned();
        let (reader, writer) = std::io::pipe()?;
        command.stdin(Stdio::null()).stdout(writer.try_clone()?).stderr(writer);
        let mut child = command.spawn().with_context(|| format!("cannot start `{name}`"))?;
        // The command holds the pipe's writing end, which must close for the reader to end.
        command.stdout(Stdio::null()).stderr(Stdio::null());

        let mut tail = std::collections::VecDeque::new();
        for line in BufReader::new(reader).split(b'\n') {
            let line = String::from_utf8_lossy(&line?).trim_end().to_owned();
            if let Some(spinner) = &self.spinner {
                spinner.set_message(line.clone());
            }
            if tail.len() == TAIL {
                tail.pop_front();
            }
            tail.push_back(line);
        }
        let status = child.wait()?;
        if !status.success() {
            let tail: Vec<_> = tail.into();
            bail!("`{name}` ended with {status}:\n{}", tail.join("\n"));
        }
        Ok(())
    }
}

/// A tool's standard output; its standard error comes with the error if it fails.
pub fn output(command: &mut Command) -> Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output =
        command.stdin(Stdio::null()).output().with_context(|| format!("cannot start `{name}`"))?;
    if !output.status.success() {
        bail!(
            "`{name}` ended with {}: {}",
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    String::from_utf8(output.stdout).with_context(|| format!("the output of `{name}`"))
}
