//! Measured tables as a picture: a bar for each row, from nothing to its median, with its spread.

use std::path::Path;

use anyhow::{Context, Result, anyhow};
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::table::Table;

const WIDTH: i32 = 960;
const MARGIN: i32 = 16;
/// Where the bars begin.
const LEFT: i32 = 420;
/// Room for a figure at the right of the longest bar.
const RIGHT: i32 = 90;
const TITLE: i32 = 40;
const ROW: i32 = 24;
const BAR: i32 = 14;

const INK: RGBColor = RGBColor(40, 40, 40);
const COLOUR: RGBColor = RGBColor(66, 120, 181);
const BASELINE: RGBColor = RGBColor(160, 160, 160);

/// Writes an SVG with a chart for each table, one below the other.
pub fn draw(tables: &[Table], path: &Path) -> Result<()> {
    let height = tables.iter().map(height_of).sum::<i32>() + MARGIN;
    let area = SVGBackend::new(path, (WIDTH as u32, height as u32)).into_drawing_area();
    chart(&area, tables)
        .map_err(|e| anyhow!("{e}"))
        .with_context(|| format!("cannot draw {}", path.display()))
}

fn height_of(table: &Table) -> i32 {
    TITLE + ROW * table.rows.len() as i32 + MARGIN
}

type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;
type Drawn = Result<(), Box<dyn std::error::Error>>;

fn chart(area: &Area, tables: &[Table]) -> Drawn {
    area.fill(&WHITE)?;
    let mut top = MARGIN;
    for table in tables {
        table_at(area, table, top)?;
        top += height_of(table);
    }
    area.present()?;
    Ok(())
}

fn table_at(area: &Area, table: &Table, top: i32) -> Drawn {
    let text = |size: i32, horizontal| {
        ("sans-serif", size)
            .into_font()
            .color(&INK)
            .pos(Pos::new(horizontal, VPos::Center))
    };
    area.draw(&Text::new(
        format!("{} ({})", table.title, table.unit),
        (MARGIN, top + TITLE / 2 - 4),
        text(16, HPos::Left),
    ))?;
    let greatest = table.rows.iter().map(|row| row.range().1);
    let greatest = greatest.fold(f64::MIN_POSITIVE, f64::max);
    let x = |value: f64| LEFT + (value / greatest * f64::from(WIDTH - LEFT - RIGHT)) as i32;
    for (i, row) in (0..).zip(&table.rows) {
        let middle = top + TITLE + ROW * i + ROW / 2;
        let colour = if row.baseline.is_some() {
            COLOUR
        } else {
            BASELINE
        };
        let (least, most) = row.range();
        area.draw(&Text::new(
            row.what.clone(),
            (LEFT - 8, middle),
            text(13, HPos::Right),
        ))?;
        area.draw(&Rectangle::new(
            [
                (LEFT, middle - BAR / 2),
                (x(row.median()), middle + BAR / 2),
            ],
            colour.filled(),
        ))?;
        area.draw(&PathElement::new(
            [(x(least), middle), (x(most), middle)],
            INK.stroke_width(1),
        ))?;
        area.draw(&Text::new(
            format!("{:.1}", row.median()),
            (x(most) + 8, middle),
            text(13, HPos::Left),
        ))?;
    }
    Ok(())
}
