//! Measured tables for people.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use comfy_table::presets::ASCII_MARKDOWN;
use comfy_table::{CellAlignment, ContentArrangement, Table as Text};

use crate::table::{Compare, Table};

/// Prints the tables of some files, in Markdown.
pub fn show(files: &[PathBuf]) -> Result<()> {
    for file in files {
        let name = || file.display().to_string();
        let tables: Vec<Table> =
            serde_json::from_slice(&fs::read(file).with_context(name)?).with_context(name)?;
        for table in &tables {
            println!("### {}\n\n{}\n", table.title, markdown(table));
        }
    }
    Ok(())
}

fn markdown(table: &Table) -> Text {
    let mut text = Text::new();
    text.load_style(ASCII_MARKDOWN)
        .set_content_arrangement(ContentArrangement::Disabled);
    let compared = match table.compare {
        Compare::Difference => "over the first",
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
