//! Statistics of several runs, and tables of them.

use std::fmt::Write;

use anyhow::{Context, Result};

/// Minimum, median and maximum of repeated measurements.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Spread {
    pub(super) min: f64,
    pub(super) median: f64,
    pub(super) max: f64,
}

/// One scenario's section of the document.
#[derive(Debug)]
pub(super) struct Section {
    pub(super) title: &'static str,
    /// How it was measured.
    pub(super) text: String,
    pub(super) header: Vec<&'static str>,
    pub(super) rows: Vec<Vec<String>>,
}

impl Spread {
    /// `None` for an empty list. The median of an even number of values is the mean of the middle two.
    pub(super) fn from_figures(mut figures: Vec<f64>) -> Option<Self> {
        figures.sort_by(f64::total_cmp);
        let (min, max) = (*figures.first()?, *figures.last()?);
        let middle = figures.len() / 2;
        let median = if figures.len() % 2 == 1 {
            figures[middle]
        } else {
            f64::midpoint(figures[middle - 1], figures[middle])
        };
        Some(Self { min, median, max })
    }

    /// A row of four cells: the label, and min, median, max with this many decimals.
    ///
    /// # Errors
    /// For an empty list.
    pub(super) fn row(label: impl Into<String>, figures: Vec<f64>, digits: usize) -> Result<Vec<String>> {
        let spread = Self::from_figures(figures).context("there were no runs")?;
        Ok([vec![label.into()], spread.cells(digits).to_vec()].concat())
    }

    /// Three cells: min, median, max, each with this many decimals.
    pub(super) fn cells(self, digits: usize) -> [String; 3] {
        [self.min, self.median, self.max].map(|figure| format!("{figure:.digits$}"))
    }
}

impl Section {
    pub(super) fn markdown(&self) -> String {
        format!(
            "## {}\n\n{}\n\n{}",
            self.title,
            single_spaced(&self.text),
            table(&self.header, &self.rows)
        )
    }
}

/// The text with runs of spaces collapsed, so that a literal may be indented like the code around it.
fn single_spaced(text: &str) -> String {
    let words = |line: &str| {
        line.split(' ')
            .filter(|word| !word.is_empty())
            .collect::<Vec<_>>()
            .join(" ")
    };
    text.lines().map(words).collect::<Vec<_>>().join("\n")
}

/// A Markdown table with aligned columns: the first one to the left, the others, which hold numbers, to the
/// right.
pub(super) fn table(header: &[&str], rows: &[Vec<String>]) -> String {
    let widths: Vec<usize> = (0..header.len())
        .map(|column| {
            let cells = rows
                .iter()
                .filter_map(|row| row.get(column))
                .map(|cell| cell.chars().count());
            cells
                .chain([header[column].chars().count(), 3])
                .max()
                .unwrap_or(3)
        })
        .collect();
    let mut text = String::new();
    let mut line = |cells: Vec<&str>| {
        for (column, width) in widths.iter().enumerate() {
            let cell = cells.get(column).copied().unwrap_or_default();
            // Writing to a string cannot fail.
            let _ = if column == 0 {
                write!(text, "| {cell:<width$} ")
            } else {
                write!(text, "| {cell:>width$} ")
            };
        }
        text.push_str("|\n");
    };
    line(header.to_vec());
    let rules: Vec<String> = widths
        .iter()
        .enumerate()
        .map(|(column, width)| match column {
            0 => "-".repeat(*width),
            _ => format!("{}:", "-".repeat(width - 1)),
        })
        .collect();
    line(rules.iter().map(String::as_str).collect());
    for row in rows {
        line(row.iter().map(String::as_str).collect());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_a_section_are_separated_by_one_space() {
        let section = Section {
            title: "Title",
            text: "only pods that were                idle\nmay go".to_owned(),
            header: vec![""],
            rows: Vec::new(),
        };
        let text = section.markdown();
        assert!(text.contains("only pods that were idle\nmay go\n"), "{text}");
    }

    #[test]
    fn the_median_is_the_one_in_the_middle() {
        assert_eq!(
            Spread::from_figures(vec![3.0, 1.0, 2.0]),
            Some(Spread {
                min: 1.0,
                median: 2.0,
                max: 3.0
            })
        );
        assert_eq!(
            Spread::from_figures(vec![4.0, 1.0]).map(|spread| spread.median),
            Some(2.5)
        );
        assert_eq!(Spread::from_figures(vec![]), None);
    }

    #[test]
    fn tables_are_aligned() {
        let rows = [
            vec!["5 minutes".to_owned(), "210".to_owned()],
            vec!["1 hour".to_owned(), "1210.5".to_owned()],
        ];
        assert_eq!(
            table(&["song", "MB"], &rows),
            "| song      |     MB |\n| --------- | -----: |\n| 5 minutes |    210 |\n| 1 hour    | 1210.5 |\n"
        );
    }
}
