//! What `run` and `exec` say alike about a command.

use std::io::{self, IsTerminal};
use std::path::PathBuf;

use clap::Args;

use crate::model::Invalid;
use crate::runtime::{Task, User};

#[derive(Debug, Args)]
pub(super) struct TaskArgs {
    /// Keep its standard input open
    #[arg(short, long)]
    interactive: bool,
    /// Give it a terminal
    #[arg(short, long)]
    tty: bool,
    /// Set a variable of its environment, or pass the caller's on (repeatable)
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    env: Vec<String>,
    /// Directory to start in [default: /]
    #[arg(short, long, value_name = "DIR")]
    workdir: Option<PathBuf>,
    /// User, and group, by name or number [default: root]
    #[arg(short, long, value_name = "USER[:GROUP]")]
    user: Option<String>,
    #[command(flatten)]
    words: Words,
}

#[derive(Debug, Args)]
struct Words {
    /// The command and its arguments
    #[arg(
        required = true,
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "COMMAND"
    )]
    command: Vec<String>,
}

impl TaskArgs {
    /// The task that these words make out of one with the defaults. With `attached`, its streams
    /// are the caller's.
    pub(super) fn apply(self, defaults: Task, attached: bool) -> Result<Task, Invalid> {
        if attached && self.tty && self.interactive && !io::stdin().is_terminal() {
            let allowed = "needs a terminal as standard input; leave -t out";
            return Err(Invalid::new("-t", "true", allowed));
        }
        let mut env = defaults.env;
        if self.tty {
            set(&mut env, "TERM", "xterm");
        }
        for word in &self.env {
            match word.split_once('=') {
                Some(("", _)) => {
                    return Err(Invalid::new("--env", word, "NAME or NAME=VALUE"));
                }
                Some((name, value)) => set(&mut env, name, value),
                None if word.is_empty() => {
                    return Err(Invalid::new("--env", word, "NAME or NAME=VALUE"));
                }
                // As docker: one that the caller has not is not set.
                None => match std::env::var(word) {
                    Ok(value) => set(&mut env, word, &value),
                    Err(_) => env.retain(|(name, _)| name != word),
                },
            }
        }
        let workdir = match self.workdir {
            Some(workdir) if !workdir.is_absolute() => {
                let value = workdir.display().to_string();
                return Err(Invalid::new("--workdir", value, "an absolute path"));
            }
            Some(workdir) => Some(workdir),
            None => defaults.workdir,
        };
        let user = match self.user {
            Some(text) => text
                .parse::<User>()
                .map_err(|allowed| Invalid::new("--user", text, allowed.to_string()))?,
            None => defaults.user,
        };
        Ok(Task {
            command: self.words.command,
            env,
            workdir,
            user,
            capabilities: defaults.capabilities,
            tty: self.tty,
            interactive: self.interactive,
        })
    }
}

fn set(env: &mut Vec<(String, String)>, name: &str, value: &str) {
    match env.iter_mut().find(|(known, _)| known == name) {
        Some((_, known)) => *known = value.to_owned(),
        None => env.push((name.to_owned(), value.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        task: TaskArgs,
    }

    fn apply(words: &[&str]) -> Result<Task, Invalid> {
        let defaults = Task {
            command: Vec::new(),
            env: vec![("A".into(), "1".into()), ("B".into(), "2".into())],
            workdir: Some("/srv".into()),
            user: User::default(),
            capabilities: Vec::new(),
            tty: false,
            interactive: false,
        };
        let line = Line::parse_from(["test"].iter().chain(words));
        line.task.apply(defaults, false)
    }

    #[test]
    fn words_go_over_defaults() {
        let task = apply(&["-it", "-e", "B=x=y", "-e", "C=", "sh", "-e", "-c"]).unwrap();
        assert_eq!(task.command, ["sh", "-e", "-c"]);
        assert!(task.tty && task.interactive);
        let env: Vec<_> = task.env.iter().map(|(n, v)| format!("{n}={v}")).collect();
        assert_eq!(env, ["A=1", "B=x=y", "TERM=xterm", "C="]);
        assert_eq!(task.workdir, Some("/srv".into()));
        assert_eq!(apply(&["-w", "/", "x"]).unwrap().workdir, Some("/".into()));
        let unset = apply(&["-e", "NO_SUCH_VARIABLE_HERE", "-e", "PATH", "x"]).unwrap();
        assert_eq!(
            unset.env.last().map(|(name, _)| name.as_str()),
            Some("PATH")
        );
        assert_eq!(unset.env.len(), 3);
    }

    #[test]
    fn wrong_words_are_refused() {
        for (words, field) in [
            (["-e", "=x", "sh"], "--env"),
            (["-e", "", "sh"], "--env"),
            (["-w", "srv", "sh"], "--workdir"),
            (["-u", "a:b:c", "sh"], "--user"),
        ] {
            assert_eq!(apply(&words).unwrap_err().field, field);
        }
    }
}
