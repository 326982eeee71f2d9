//! `ipvlan-ctl network graph`: the host's networks as a picture.

mod dot;
mod mermaid;
mod svg;
mod tree;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, ValueEnum};

use super::print;
use crate::engine::{Engine, Selection};
use crate::model::Invalid;
use tree::Node;

/// Draw networks with their parents, VLANs, endpoints and traffic
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  ipvlan-ctl network graph --output networks.svg")]
pub(super) struct Command {
    /// What to draw [default: by the ending of --output, else dot]
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// A file to write, whose name ends in .svg, .dot, .gv, .mmd or .mermaid
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Only these networks, by name, id or beginning of an id
    #[arg(value_name = "NETWORK")]
    networks: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// A picture, for browsers and documents
    Svg,
    /// Graphviz
    Dot,
    /// Mermaid's flowchart, as Markdown on many sites takes it
    Mermaid,
}

impl Command {
    pub(super) async fn run(self, engine: &Engine) -> anyhow::Result<ExitCode> {
        let format = match (self.format, &self.output) {
            (Some(format), _) => format,
            (None, Some(output)) => Format::of(output)?,
            (None, None) => Format::Dot,
        };
        let selection = Selection {
            networks: self.networks,
            ..Selection::default()
        };
        let topology = engine.topology(&selection).await?;
        let text = format.draw(&tree::trees(&topology.branches));
        match &self.output {
            None => print(&text)?,
            Some(path) => std::fs::write(path, text)
                .with_context(|| format!("cannot write {}", path.display()))?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl Format {
    fn of(output: &Path) -> Result<Self, Invalid> {
        match output.extension().and_then(|ending| ending.to_str()) {
            Some("svg") => Ok(Self::Svg),
            Some("dot" | "gv") => Ok(Self::Dot),
            Some("mmd" | "mermaid") => Ok(Self::Mermaid),
            _ => Err(Invalid::new(
                "--output",
                output.display().to_string(),
                "a name that ends in .svg, .dot, .gv, .mmd or .mermaid; or give --format",
            )),
        }
    }

    fn draw(self, trees: &[Node]) -> String {
        match self {
            Self::Svg => svg::draw(trees),
            Self::Dot => dot::draw(trees),
            Self::Mermaid => mermaid::draw(trees),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ending_says_what_to_draw() {
        for (name, format) in [
            ("a.svg", Format::Svg),
            ("/tmp/a.b.gv", Format::Dot),
            ("a.mmd", Format::Mermaid),
        ] {
            assert_eq!(Format::of(Path::new(name)).unwrap(), format);
        }
        for name in ["a.png", "svg", ""] {
            let error = Format::of(Path::new(name)).unwrap_err().to_string();
            assert!(error.contains(".svg, .dot"), "{error}");
        }
    }

    /// Each drawing of a small host is a file beside the code, to be looked at when it changes.
    #[test]
    fn drawings_are_as_they_were() {
        let trees = tree::tests::host();
        let mut changed = Vec::new();
        for (format, golden) in [
            (Format::Svg, include_str!("golden/host.svg")),
            (Format::Dot, include_str!("golden/host.dot")),
            (Format::Mermaid, include_str!("golden/host.mmd")),
        ] {
            let drawn = format.draw(&trees);
            if drawn != golden {
                let path = std::env::temp_dir().join(format!("ipvlan-ctl-host-{format:?}"));
                std::fs::write(&path, drawn).unwrap();
                changed.push(path);
            }
        }
        assert!(
            changed.is_empty(),
            "drawn anew, to be looked at: {changed:?}"
        );
    }

    #[test]
    fn nothing_is_a_drawing_too() {
        assert!(Format::Svg.draw(&[]).contains("no networks"));
        assert_eq!(Format::Mermaid.draw(&[]), "flowchart LR\n");
    }
}
