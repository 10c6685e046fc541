//! docs/benchmarks.md: one section for each scenario, each with when and of what it was measured, so that one can be
//! measured again without the others.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context, Result};

use super::figures::Section;
use super::machine::{self, Measured};
use crate::project::Project;

const DOCUMENT: &str = "docs/benchmarks.md";

/// What begins a section: readers do not see it.
const MARK: &str = "<!-- scenario: ";
const MARK_END: &str = " -->\n";

/// Sections by the names of their scenarios.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Document {
    sections: BTreeMap<String, String>,
}

impl Document {
    /// The document as it lies in the checkout; empty where there is none.
    pub(super) fn read(project: &Project) -> Self {
        Self::parse(&fs::read_to_string(project.path(DOCUMENT)).unwrap_or_default())
    }

    fn parse(text: &str) -> Self {
        let sections = text.split(MARK).skip(1).filter_map(|section| {
            let (scenario, section) = section.split_once(MARK_END)?;
            Some((scenario.to_owned(), section.trim_end().to_owned()))
        });
        Self {
            sections: sections.collect(),
        }
    }

    /// Puts in what a scenario measured now.
    pub(super) fn put(&mut self, scenario: &str, section: &Section, measured: &Measured) {
        let text = format!(
            "{}\nMeasured at {} on {}.",
            section.markdown(),
            measured.commit,
            measured.date
        );
        self.sections.insert(scenario.to_owned(), text);
    }

    /// Writes the document, its sections in the order of these scenarios; sections of other names are dropped.
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
                text.push_str(&format!("\n{MARK}{scenario}{MARK_END}{section}\n"));
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
        let mut again = Document::parse(&text);
        assert_eq!(again, document);
        again.put("speed", &section("Speed"), &measured("two"));
        let text = again.text("# Benchmarks\n", &scenarios);
        let places = [
            "# Benchmarks",
            "Speed",
            "Measured at two",
            "Stall",
            "Measured at one",
        ];
        let found: Vec<_> = places.iter().filter_map(|place| text.find(place)).collect();
        assert_eq!(found.len(), places.len(), "{text}");
        assert!(found.is_sorted(), "{text}");
    }
}
