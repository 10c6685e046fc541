//! Errors of the work on a message, with their class.

use std::error::Error;
use std::fmt;

use separation_daemon::chain;

use super::Dependency;
use crate::error::ErrorClass;

/// Why the work on a message failed.
#[derive(Debug)]
pub struct WorkError {
    class: ErrorClass,
    dependency: Option<Dependency>,
    source: Box<dyn Error + Send + Sync>,
}

impl WorkError {
    /// An error of this class, from any error or text.
    pub fn new(class: ErrorClass, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self {
            class,
            dependency: None,
            source: source.into(),
        }
    }

    /// A failure of a dependency, which is not the message's fault.
    pub fn held(dependency: Dependency, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self {
            class: ErrorClass::Dependency,
            dependency: Some(dependency),
            source: source.into(),
        }
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
