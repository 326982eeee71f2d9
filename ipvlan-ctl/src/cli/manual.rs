//! Completion scripts and man pages, out of the definitions of the command line.

use std::fs;
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, CommandFactory, ValueEnum};
use clap_complete::Shell;

use super::{Cli, print};

/// The hidden subcommand that leads to [`write`]: `cargo xtask man` calls it.
pub(super) const SUBCOMMAND: &str = "_man";

/// Print a completion script for a shell
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  ipvlan-ctl completion bash > /etc/bash_completion.d/ipvlan-ctl\n  ipvlan-ctl completion zsh > /usr/local/share/zsh/site-functions/_ipvlan-ctl\n  ipvlan-ctl completion fish > /etc/fish/completions/ipvlan-ctl.fish"
)]
pub(super) struct Completion {
    shell: OfShell,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum OfShell {
    Bash,
    Zsh,
    Fish,
}

impl Completion {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let shell = match self.shell {
            OfShell::Bash => Shell::Bash,
            OfShell::Zsh => Shell::Zsh,
            OfShell::Fish => Shell::Fish,
        };
        let mut script = Vec::new();
        let mut command = Cli::command();
        let name = command.get_name().to_owned();
        clap_complete::generate(shell, &mut command, name, &mut script);
        print(&String::from_utf8(script)?)?;
        Ok(ExitCode::SUCCESS)
    }
}

/// Writes a man page for each command.
pub(super) fn write(folder: &Path) -> anyhow::Result<ExitCode> {
    let failed = || format!("cannot write the man pages to {}", folder.display());
    fs::create_dir_all(folder).with_context(failed)?;
    clap_mangen::generate_to(Cli::command(), folder).with_context(failed)?;
    Ok(ExitCode::SUCCESS)
}
