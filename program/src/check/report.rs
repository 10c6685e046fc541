//! Prints findings as text or JSON lines, and keeps the worst result.

use anyhow::Context as _;
use separation_contract::check::{CheckResult, Finding};
use serde::Serialize;

use crate::output::print;

/// Format of the findings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    /// Grouped by object, for people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Findings so far.
pub(super) struct Report {
    format: Format,
    worst: CheckResult,
    /// The object of the last printed finding.
    object: String,
}

#[derive(Serialize)]
struct Line<'a> {
    object: &'a str,
    #[serde(flatten)]
    finding: &'a Finding,
}

impl Report {
    pub(super) fn new(format: Format) -> Self {
        Self {
            format,
            worst: CheckResult::Ok,
            object: String::new(),
        }
    }

    /// Prints the findings about an object.
    pub(super) fn add(&mut self, object: &str, findings: &[Finding]) -> anyhow::Result<()> {
        for finding in findings {
            self.worst = self.worst.max(finding.result);
            match self.format {
                Format::Json => {
                    let line = serde_json::to_string(&Line { object, finding });
                    print(&(line.context("cannot write JSON")? + "\n"))?;
                }
                Format::Text => {
                    if self.object != object {
                        object.clone_into(&mut self.object);
                        print(&format!("{object}\n"))?;
                    }
                    print(&text(finding))?;
                }
            }
        }
        Ok(())
    }

    /// The worst result.
    pub(super) fn worst(&self) -> CheckResult {
        self.worst
    }
}

fn text(finding: &Finding) -> String {
    let Finding {
        check,
        result,
        message,
        fix,
    } = finding;
    let mut text = format!("  {:7}  {check:8}  {}\n", result.name(), on_one_line(message));
    if let Some(fix) = fix {
        text += &format!("{:21}fix: {}\n", "", on_one_line(fix));
    }
    text
}

/// Texts of brokers, pods and users could move a terminal's cursor.
fn on_one_line(text: &str) -> String {
    text.replace(char::is_control, " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_is_a_line_and_its_fix_another_without_control_characters() {
        let finding = Finding::problem("topics", "topic \u{1b}[2Ja\nb is missing; fix: create it");
        assert_eq!(
            text(&finding),
            "  problem  topics    topic  [2Ja b is missing\n                     fix: create it\n"
        );
    }

    #[test]
    fn a_line_of_json_has_the_object_and_the_finding() {
        let finding = Finding::ok("leader", "a leads");
        let line = Line {
            object: "operator a/b",
            finding: &finding,
        };
        let line = serde_json::to_string(&line).unwrap();
        let expected = r#"{"object":"operator a/b","check":"leader","result":"ok","message":"a leads"}"#;
        assert_eq!(line, expected);
    }
}
