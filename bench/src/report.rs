//! Measured tables for people.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use comfy_table::presets::ASCII_MARKDOWN;
use comfy_table::{CellAlignment, ContentArrangement, Table as Text};

use crate::plot;
use crate::table::{Compare, Table, Target};

#[derive(clap::Args)]
pub struct Args {
    /// Draw them too, as SVG
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,
    /// What the other subcommands printed
    #[arg(required = true)]
    files: Vec<PathBuf>,
}

/// Prints the tables of some files, in Markdown, and draws them where asked to.
pub fn show(args: &Args) -> Result<()> {
    let mut tables = Vec::new();
    for file in &args.files {
        let name = || file.display().to_string();
        let more: Vec<Table> =
            serde_json::from_slice(&fs::read(file).with_context(name)?).with_context(name)?;
        tables.extend(more);
    }
    for table in &tables {
        println!("### {}\n\n{}\n", table.title, markdown(table));
        for target in &table.targets {
            println!("{}", line(target));
        }
        println!();
    }
    match &args.plot {
        Some(path) => plot::draw(&tables, path),
        None => Ok(()),
    }
}

/// A target, and whether it is met.
fn line(target: &Target) -> String {
    let Target {
        what, got, limit, ..
    } = target;
    let bound = if target.at_most {
        "at most"
    } else {
        "at least"
    };
    let met = if target.is_met() { "met" } else { "missed" };
    format!("- {what}: {got:.2}, {bound} {limit}: {met}")
}

fn markdown(table: &Table) -> Text {
    let mut text = Text::new();
    text.load_style(ASCII_MARKDOWN)
        .set_content_arrangement(ContentArrangement::Disabled);
    let compared = match table.compare {
        Compare::Difference => "added",
        Compare::Ratio => "against the first",
    };
    text.set_header(["", table.unit.as_str(), "least to greatest", compared]);
    for row in &table.rows {
        let (least, greatest) = row.range();
        let compared = match (table.compare, table.compared(row)) {
            (_, None) => String::new(),
            (Compare::Difference, Some(difference)) => format!("{difference:+.1}"),
            (Compare::Ratio, Some(ratio)) => format!("{ratio:.2}"),
        };
        text.add_row([
            row.what.clone(),
            format!("{:.1}", row.median()),
            format!("{least:.1} to {greatest:.1}"),
            compared,
        ]);
    }
    for column in text.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    text
}
