//! The name of one try at one task.

use std::fmt;

use uuid::Uuid;

/// The name of one try at one task: 32 hexadecimal digits, never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct AttemptId(Uuid);

impl AttemptId {
    /// A new name.
    #[expect(
        clippy::new_without_default,
        reason = "a default that differs each time would surprise"
    )]
    pub fn new() -> Self {
        Self(Uuid::new_v4())
    }

    /// Whether a name of a folder is that of an attempt.
    pub(crate) fn is_one(name: &str) -> bool {
        name.len() == 32 && name.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    }
}

impl fmt::Display for AttemptId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.simple().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attempt_is_recognised_by_its_name() {
        assert!(AttemptId::is_one(&AttemptId::new().to_string()));
        for other in ["", "manifest.json", "0123456789abcdef0123456789abcdeF", "0123"] {
            assert!(!AttemptId::is_one(other), "{other}");
        }
    }
}
