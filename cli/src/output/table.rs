//! Tables for people: left-aligned columns without lines, in upper-case headings.

use comfy_table::{ContentArrangement, Table, TableStyle, presets::NOTHING};

/// A table of these rows; every row has as many cells as there are headings.
pub(crate) fn table(headings: &[&str], rows: Vec<Vec<String>>) -> String {
    let mut table = Table::new();
    let style: TableStyle = NOTHING;
    table
        .load_style(style)
        .set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(headings.iter().map(|heading| heading.to_uppercase()));
    table.add_rows(rows);
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    trimmed(&table.to_string())
}

/// Names and values below one another.
pub(crate) fn sheet(rows: Vec<(&str, String)>) -> String {
    let mut table = Table::new();
    table
        .load_style(NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled);
    for (name, value) in rows {
        table.add_row([format!("{name}:"), value]);
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    trimmed(&table.to_string())
}

fn trimmed(text: &str) -> String {
    let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_lines_end_without_blanks() {
        let text = table(
            &["name", "state"],
            vec![
                vec!["a".into(), "Protected".into()],
                vec!["long-name".into(), "x".into()],
            ],
        );
        assert_eq!(text, "NAME       STATE\na          Protected\nlong-name  x");
    }
}
