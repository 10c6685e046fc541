//! Findings of the `check` commands of worker and operator. `separation-worker check` prints each as a line of JSON, which
//! `separation-operator check --in-cluster` reads.

use serde::{Deserialize, Serialize};

/// Separates a message from its fix, in errors of one line and of several.
const BEFORE_FIX: [&str; 2] = ["; fix: ", "\nfix: "];

/// The result of a check, from the best to the worst.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CheckResult {
    /// It works.
    Ok,
    /// It works with a restriction, or could not be checked.
    Warning,
    /// It does not work.
    Problem,
}

impl CheckResult {
    /// The result as a word.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Problem => "problem",
        }
    }
}

/// A finding of a check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// Name of the check, such as `topics` or `store`.
    pub check: String,
    /// Its result.
    pub result: CheckResult,
    /// The facts: which object, with its values.
    pub message: String,
    /// How to repair it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
}

impl Finding {
    /// A check without a problem.
    pub fn ok(check: &str, message: impl AsRef<str>) -> Self {
        Self::new(check, CheckResult::Ok, message)
    }

    /// A restriction, or a check that could not be made; `text` may contain the fix after `; fix: `.
    pub fn warning(check: &str, text: impl AsRef<str>) -> Self {
        Self::new(check, CheckResult::Warning, text)
    }

    /// A problem; `text` may contain the fix after `; fix: `.
    pub fn problem(check: &str, text: impl AsRef<str>) -> Self {
        Self::new(check, CheckResult::Problem, text)
    }

    /// A finding with this result; `text` may contain the fix after `; fix: `.
    pub fn new(check: &str, result: CheckResult, text: impl AsRef<str>) -> Self {
        let text = text.as_ref();
        let mut split = BEFORE_FIX.iter().filter_map(|before| text.split_once(*before));
        let (message, fix) = match split.next() {
            Some((message, fix)) => (message, Some(fix.to_owned())),
            None => (text, None),
        };
        Self {
            check: check.to_owned(),
            result,
            message: message.to_owned(),
            fix,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_separates_the_fix_and_survives_json() {
        for (text, fix) in [
            ("no broker answers", None),
            ("no broker answers; fix: check the port", Some("check the port")),
            ("no broker answers\nfix: check the port", Some("check the port")),
        ] {
            let finding = Finding::problem("kafka", text);
            assert_eq!(
                (&*finding.message, finding.fix.as_deref()),
                ("no broker answers", fix)
            );
            let line = serde_json::to_string(&finding).unwrap();
            assert_eq!(serde_json::from_str::<Finding>(&line).unwrap(), finding, "{line}");
        }
        assert!(CheckResult::Ok < CheckResult::Warning && CheckResult::Warning < CheckResult::Problem);
    }
}
