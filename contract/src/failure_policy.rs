//! Policies for failed tasks.

/// Handling of tasks that fail with a transient error or a timeout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailurePolicy {
    /// The failure is published and the task committed.
    AlwaysCommit,
    /// The task is republished to the end of its topic with `retry_count + 1`, and committed; at most this many times.
    RetryOnFailure(u32),
}

impl FailurePolicy {
    /// Its name in pools and in `ON_FAILURE`.
    pub fn name(self) -> &'static str {
        match self {
            Self::AlwaysCommit => "AlwaysCommit",
            Self::RetryOnFailure(_) => "RetryOnFailure",
        }
    }
}
