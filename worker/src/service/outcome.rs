//! The outcomes of a message.

/// Outcome of one message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MessageOutcome {
    /// Processed and committed.
    Done,
    /// Already completed by an earlier attempt; only the remaining steps were run.
    Duplicate,
    /// It failed; the failure was reported and the message committed.
    Failed,
    /// It failed, and was republished to the end of its topic.
    Requeued,
    /// Sent to the dead-letter topic and committed.
    DeadLetter,
    /// Its partition was reassigned to another worker.
    Lost,
    /// Its partition is read again from another offset.
    Moved,
    /// Its topic was deleted.
    TopicDeleted,
    /// The worker was stopped while a dependency refused it; the message is left to another worker.
    Released,
}

impl MessageOutcome {
    /// The `outcome` label of metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Duplicate => "duplicate",
            Self::Failed => "failed",
            Self::Requeued => "requeued",
            Self::DeadLetter => "dead_letter",
            Self::Lost => "lost",
            Self::Moved => "moved",
            Self::TopicDeleted => "topic_deleted",
            Self::Released => "released",
        }
    }
}
