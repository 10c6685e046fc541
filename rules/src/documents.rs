//! Tables, links and sections of Markdown.

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

/// The targets of links, such as `docs/api.md#errors`.
#[must_use]
pub fn links(text: &str) -> Vec<&str> {
    let rests = outside_code(text).flat_map(|line| line.split("](").skip(1));
    rests.filter_map(|rest| rest.split(')').next()).collect()
}

/// The text from the heading with this anchor to the next heading of its level or a higher one.
#[must_use]
pub fn section(text: &str, anchor: &str) -> Option<String> {
    let mut lines = outside_code(text).skip_while(|line| level(line) == 0 || anchor_of(line) != anchor);
    let heading = lines.next()?;
    let below = lines.take_while(|line| level(line) == 0 || level(line) > level(heading));
    Some(below.fold(heading.to_owned(), |text, line| text + "\n" + line))
}

/// The lines that are not in code blocks.
fn outside_code(text: &str) -> impl Iterator<Item = &str> {
    let mut is_code = false;
    text.lines().filter(move |line| {
        let is_fence = line.trim_start().starts_with("```");
        is_code ^= is_fence;
        !is_code && !is_fence
    })
}

/// The level of a heading; 0 of any other line.
fn level(line: &str) -> usize {
    let marks = line.chars().take_while(|letter| *letter == '#').count();
    if line[marks..].starts_with(' ') { marks } else { 0 }
}

/// The anchor of a heading, as GitHub makes it.
fn anchor_of(heading: &str) -> String {
    let title = heading.trim_start_matches('#').trim().to_lowercase();
    let kept = title
        .chars()
        .filter(|letter| letter.is_alphanumeric() || " -_".contains(*letter));
    kept.map(|letter| if letter == ' ' { '-' } else { letter })
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

    #[test]
    fn links_in_code_are_no_links() {
        let text = "[a](b.md), ![c](d.png)\n```sh\n[e](f)\n```\n[g](#h)";
        assert_eq!(links(text), ["b.md", "d.png", "#h"]);
    }

    #[test]
    fn a_section_ends_at_the_next_heading_of_its_level() {
        let text = "# A\n## 5. For `B`, it-is\none\n```sh\n# code\n```\n### C\ntwo\n## D\nthree";
        assert_eq!(
            section(text, "5-for-b-it-is").unwrap(),
            "## 5. For `B`, it-is\none\n### C\ntwo"
        );
        assert_eq!(section(text, "code"), None);
    }
}
