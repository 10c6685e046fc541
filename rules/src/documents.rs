//! Tables in Markdown.

/// The names in the first cells of the first table below a line that contains `marker`, without code marks and brackets of links.
#[must_use]
pub fn first_cells(text: &str, marker: &str) -> Vec<String> {
    let below = text.lines().skip_while(|line| !line.contains(marker));
    let table = below
        .skip_while(|line| !is_row(line))
        .take_while(|line| is_row(line));
    // Header and rule.
    table.skip(2).flat_map(names_in_first_cell).collect()
}

fn is_row(line: &str) -> bool {
    line.trim_start_matches("//!").trim_start().starts_with('|')
}

/// A cell may list several names, separated by commas.
fn names_in_first_cell(line: &str) -> Vec<String> {
    let cell = line
        .trim_start_matches("//!")
        .trim()
        .split('|')
        .nth(1)
        .unwrap_or_default();
    let name = |name: &str| {
        name.chars()
            .filter(|letter| !"`[] ".contains(*letter))
            .collect::<String>()
    };
    cell.split(',')
        .map(name)
        .filter(|name| !name.is_empty())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_table_below_the_marker_is_read() {
        let text = "| a | b |\n|---|---|\n| x | y |\n\nModules of z\n\n| module | does |\n|---|---|\n| `one` | 1 |\n| [`two`], `three` | 2 |\n\ntext";
        assert_eq!(first_cells(text, "Modules of z"), ["one", "two", "three"]);
        assert!(first_cells(text, "missing").is_empty());
    }
}
