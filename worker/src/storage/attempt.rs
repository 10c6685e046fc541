//! The ID of one attempt at a task.

use std::fmt;

use uuid::Uuid;

/// The ID of one attempt at a task: 32 hexadecimal digits, unique.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct AttemptId(Uuid);

impl AttemptId {
    /// A new random ID.
    #[expect(
        clippy::new_without_default,
        reason = "a default value that differs on each call is unexpected"
    )]
    pub fn new() -> Self {
        Self(Uuid::new_v4())
    }

    /// Whether the name of a directory is an attempt's ID.
    pub(crate) fn is_valid(name: &str) -> bool {
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
    fn an_attempt_id_is_recognized_by_its_form() {
        assert!(AttemptId::is_valid(&AttemptId::new().to_string()));
        for other in ["", "manifest.json", "0123456789abcdef0123456789abcdeF", "0123"] {
            assert!(!AttemptId::is_valid(other), "{other}");
        }
    }
}
