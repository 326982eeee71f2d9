use comfy_table::Table;
use comfy_table::presets::NOTHING;

/// Columns padded with spaces and without lines, as docker prints them; ends with a newline.
pub(super) fn table<const N: usize>(
    header: [&str; N],
    rows: impl IntoIterator<Item = [String; N]>,
) -> String {
    let mut table = Table::new();
    table.load_style(NOTHING).set_header(header);
    for row in rows {
        table.add_row(row);
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 3));
    }
    let mut text = table.trim_fmt();
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    #[test]
    fn columns_are_padded_and_lines_trimmed() {
        let rows = [["a".into(), "bb".into()], ["cccc".into(), "".into()]];
        assert_eq!(
            super::table(["X", "Y"], rows),
            "X      Y\na      bb\ncccc\n"
        );
        assert_eq!(super::table(["X", "Y"], []), "X   Y\n");
    }
}
