//! Errors of the work on a message, with their class.

use std::error::Error;
use std::fmt;

use separation_contract::api_task::FailureCode;
use separation_daemon::chain;

use super::Dependency;
use crate::error::ErrorClass;

/// Why the work on a message failed.
#[derive(Debug)]
pub struct WorkError {
    class: ErrorClass,
    dependency: Option<Dependency>,
    code: Option<FailureCode>,
    source: Box<dyn Error + Send + Sync>,
}

impl WorkError {
    /// An error of this class, from any error or text.
    pub fn new(class: ErrorClass, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self {
            class,
            dependency: None,
            code: None,
            source: source.into(),
        }
    }

    /// A failure of a dependency, which is not the message's fault.
    pub fn held(dependency: Dependency, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self {
            class: ErrorClass::Dependency,
            dependency: Some(dependency),
            code: None,
            source: source.into(),
        }
    }

    /// This error with the code that the HTTP API v1 reports.
    #[must_use]
    pub fn with_code(mut self, code: FailureCode) -> Self {
        self.code = Some(code);
        self
    }

    /// The code that the HTTP API v1 reports; by default that of the error's class.
    pub fn code(&self) -> FailureCode {
        self.code.unwrap_or(match self.class {
            ErrorClass::TimedOut => FailureCode::TimedOut,
            _ => FailureCode::Internal,
        })
    }

    /// The dependency that refuses or fails, for errors of the class `Dependency`.
    pub fn dependency(&self) -> Option<&Dependency> {
        self.dependency.as_ref()
    }

    /// The class, which decides about retries.
    pub fn class(&self) -> ErrorClass {
        self.class
    }

    /// The error with its complete chain of causes, as webhooks and logs show it.
    pub fn message(&self) -> String {
        chain(&*self.source)
    }
}

impl fmt::Display for WorkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message())
    }
}

impl Error for WorkError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_code_is_that_of_the_class_unless_it_is_set() {
        let error = |class| WorkError::new(class, "no");
        assert_eq!(error(ErrorClass::TimedOut).code(), FailureCode::TimedOut);
        assert_eq!(error(ErrorClass::Permanent).code(), FailureCode::Internal);
        let coded = error(ErrorClass::TimedOut).with_code(FailureCode::InputUnreadable);
        assert_eq!(coded.code(), FailureCode::InputUnreadable);
    }
}
