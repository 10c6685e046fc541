//! docs/benchmarks.md: one section per scenario, each with the date and version of its measurement, so that
//! scenarios can be measured separately.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context, Result};

use super::figures::Section;
use super::machine::{self, Measured};
use crate::project::Project;

const DOCUMENT: &str = "docs/benchmarks.md";

/// Marks the start of a section; invisible to readers.
const MARKER: &str = "<!-- scenario: ";
const MARKER_END: &str = " -->\n";

/// Sections by scenario name.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Document {
    sections: BTreeMap<String, String>,
}

impl Document {
    /// The document in the checkout; empty if there is none.
    pub(super) fn read(project: &Project) -> Self {
        Self::parse(&fs::read_to_string(project.path(DOCUMENT)).unwrap_or_default())
    }

    fn parse(text: &str) -> Self {
        let sections = text.split(MARKER).skip(1).filter_map(|section| {
            let (scenario, section) = section.split_once(MARKER_END)?;
            Some((scenario.to_owned(), section.trim_end().to_owned()))
        });
        Self {
            sections: sections.collect(),
        }
    }

    /// Replaces the section of a scenario.
    pub(super) fn put(&mut self, scenario: &str, section: &Section, measured: &Measured) {
        let text = format!(
            "{}\nMeasured at {} on {}.",
            section.markdown(),
            measured.commit,
            measured.date
        );
        self.sections.insert(scenario.to_owned(), text);
    }

    /// Writes the document with its sections in this order; other sections are dropped.
    pub(super) fn write(&self, project: &Project, scenarios: &[String]) -> Result<()> {
        let text = self.text(&machine::heading()?, scenarios);
        let path = project.path(DOCUMENT);
        fs::create_dir_all(project.path("docs"))
            .and_then(|()| fs::write(&path, text))
            .with_context(|| format!("cannot write {}", path.display()))?;
        println!("wrote {DOCUMENT}");
        Ok(())
    }

    fn text(&self, heading: &str, scenarios: &[String]) -> String {
        let mut text = heading.to_owned();
        for scenario in scenarios {
            if let Some(section) = self.sections.get(scenario) {
                text.push_str(&format!("\n{MARKER}{scenario}{MARKER_END}{section}\n"));
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn section(title: &'static str) -> Section {
        Section {
            title,
            text: "Why.".to_owned(),
            header: vec!["", "figure"],
            rows: vec![vec!["one".to_owned(), "1".to_owned()]],
        }
    }

    #[test]
    fn a_section_is_replaced_and_the_others_stay() {
        let measured = |commit: &str| Measured {
            commit: commit.to_owned(),
            date: "2026-01-02".to_owned(),
        };
        let scenarios = ["speed".to_owned(), "stall".to_owned()];
        let mut document = Document::default();
        document.put("stall", &section("Stall"), &measured("one"));
        document.put("speed", &section("Speed"), &measured("one"));
        let text = document.text("# Benchmarks\n", &scenarios);
        let mut parsed = Document::parse(&text);
        assert_eq!(parsed, document);
        parsed.put("speed", &section("Speed"), &measured("two"));
        let text = parsed.text("# Benchmarks\n", &scenarios);
        let parts = [
            "# Benchmarks",
            "Speed",
            "Measured at two",
            "Stall",
            "Measured at one",
        ];
        let found: Vec<_> = parts.iter().filter_map(|part| text.find(part)).collect();
        assert_eq!(found.len(), parts.len(), "{text}");
        assert!(found.is_sorted(), "{text}");
    }
}
