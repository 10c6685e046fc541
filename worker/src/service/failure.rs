//! Decides what happens to a message whose processing failed. Pure.

use separation_contract::failure_policy::FailurePolicy;

use crate::error::ErrorClass;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FailureDecision {
    /// It stays uncommitted for the next owner of its partition.
    LeaveUncommitted,
    /// It is republished to the end of its topic, and committed.
    Requeue,
    /// The failure is reported to the task's webhook, and the message committed.
    Report,
}

/// Decides by the failure's class, the policy, and how often the message was requeued before.
pub(super) fn decide(class: ErrorClass, policy: FailurePolicy, requeued_before: u32) -> FailureDecision {
    match (class, policy) {
        // A dependency's failure is retried and never reaches this point; it is not the message's fault.
        (ErrorClass::Interrupted | ErrorClass::Dependency, _) => FailureDecision::LeaveUncommitted,
        (ErrorClass::Transient | ErrorClass::TimedOut, FailurePolicy::RetryOnFailure(max_retries))
            if requeued_before < max_retries =>
        {
            FailureDecision::Requeue
        }
        _ => FailureDecision::Report,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_class_and_the_policy_decide() {
        let retry = FailurePolicy::RetryOnFailure(2);
        let always = FailurePolicy::AlwaysCommit;
        for (class, policy, before, expected) in [
            (ErrorClass::Transient, always, 0, FailureDecision::Report),
            (ErrorClass::Transient, retry, 0, FailureDecision::Requeue),
            (ErrorClass::Transient, retry, 1, FailureDecision::Requeue),
            (ErrorClass::Transient, retry, 2, FailureDecision::Report),
            (ErrorClass::TimedOut, retry, 0, FailureDecision::Requeue),
            (ErrorClass::TimedOut, always, 0, FailureDecision::Report),
            (ErrorClass::Permanent, retry, 0, FailureDecision::Report),
            (ErrorClass::Bug, retry, 0, FailureDecision::Report),
            (
                ErrorClass::Interrupted,
                retry,
                0,
                FailureDecision::LeaveUncommitted,
            ),
            (
                ErrorClass::Interrupted,
                always,
                9,
                FailureDecision::LeaveUncommitted,
            ),
            (
                ErrorClass::Dependency,
                always,
                9,
                FailureDecision::LeaveUncommitted,
            ),
        ] {
            assert_eq!(
                decide(class, policy, before),
                expected,
                "{class:?} {policy:?} {before}"
            );
        }
    }
}
