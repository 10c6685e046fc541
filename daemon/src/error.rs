//! Texts of errors, and the error of an invalid setting.

use std::error::Error;

/// An error with all its causes, separated by `: `.
pub fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        // Some errors include their cause in their own text.
        if !text.ends_with(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        cause = error.source();
    }
    text
}

/// An invalid setting.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{name}: {problem}; fix: {fix}")]
pub struct SettingError {
    /// The option, such as `--lease-name`, or the environment variable.
    pub name: &'static str,
    /// The problem with its value.
    pub problem: String,
    /// How to fix it.
    pub fix: String,
}

impl SettingError {
    /// The error of the setting `name`.
    pub fn new(name: &'static str, problem: impl Into<String>, fix: impl Into<String>) -> Self {
        let (problem, fix) = (problem.into(), fix.into());
        Self { name, problem, fix }
    }
}
