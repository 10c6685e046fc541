//! Why a message's work is not done, and what that says about trying again.

use std::error::Error;
use std::fmt;

use super::Dependency;
use crate::error::ErrorClass;

/// Why a message's work is not done.
#[derive(Debug)]
pub struct WorkError {
    class: ErrorClass,
    dependency: Option<Dependency>,
    source: Box<dyn Error + Send + Sync>,
}

impl WorkError {
    /// An error of a class, from any error or text.
    pub fn new(class: ErrorClass, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self {
            class,
            dependency: None,
            source: source.into(),
        }
    }

    /// An error of a dependency, which is no fault of the message.
    pub fn held(dependency: Dependency, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self {
            class: ErrorClass::Dependency,
            dependency: Some(dependency),
            source: source.into(),
        }
    }

    /// The dependency that refuses or fails, of an error of the class `Dependency`.
    pub fn dependency(&self) -> Option<&Dependency> {
        self.dependency.as_ref()
    }

    /// What this failure says about trying again.
    pub fn class(&self) -> ErrorClass {
        self.class
    }

    /// The whole chain of causes, as callers and logs see it.
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

/// An error with all its causes, `: ` between them.
pub fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        // Some errors print their cause themselves.
        if !text.ends_with(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        cause = error.source();
    }
    text
}
