//! The guides in docs/: their commands are what the tests run.

use crate::sh;

/// The blocks of a guide, in their order.
#[derive(Debug)]
pub struct Guide {
    blocks: Vec<(String, String)>,
}

impl Guide {
    /// Reads a guide's Markdown, where each of `names` stands for what it is called here.
    pub fn of(text: &str, names: &[(&str, &str)]) -> Self {
        let mut text = text.to_owned();
        for (theirs, ours) in names {
            text = text.replace(theirs, ours);
        }
        let fenced = text.split("\n```").skip(1).step_by(2);
        let block = |fenced: &str| {
            let (kind, body) = fenced.split_once('\n').expect("a block has lines");
            (kind.to_owned(), body.to_owned())
        };
        Self {
            blocks: fenced.map(block).collect(),
        }
    }

    /// The `n`th block of this kind, such as `json`.
    pub fn block(&self, kind: &str, n: usize) -> &str {
        let mut found = self.blocks.iter().filter(|(k, _)| k == kind);
        let (_, body) = found.nth(n).unwrap_or_else(|| panic!("no {n}th {kind}"));
        body
    }

    /// Runs the commands of the `n`th session in one shell as root; panics where one fails.
    /// Returns what they print.
    pub fn run(&self, n: usize) -> String {
        sh(&self.commands(n))
    }

    /// The commands of the `n`th session, as a shell script.
    pub fn commands(&self, n: usize) -> String {
        let lines = self.block("console", n).lines();
        lines
            .filter_map(|line| line.strip_prefix("# "))
            .collect::<Vec<_>>()
            .join("\n")
    }
}
