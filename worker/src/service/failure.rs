//! What becomes of a message whose work failed. Pure.

use crate::error::ErrorClass;
use crate::settings::FailurePolicy;

/// What becomes of a message whose work failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It stays uncommitted, for whoever owns its partition.
    Leave,
    /// It goes to the tail of its topic, and is committed.
    PutBack,
    /// Its caller is told, and it is committed.
    GiveUp,
}

/// Decides by the failure's class, the policy, and how often the message was put back before.
pub(super) fn verdict(class: ErrorClass, policy: FailurePolicy, put_back_before: u32) -> Verdict {
    match (class, policy) {
        // A dependency's failure never gets here, and would be no fault of the message.
        (ErrorClass::Interrupted | ErrorClass::Dependency, _) => Verdict::Leave,
        (ErrorClass::Transient | ErrorClass::TimedOut, FailurePolicy::RetryOnFailure { max_retries })
            if put_back_before < max_retries =>
        {
            Verdict::PutBack
        }
        _ => Verdict::GiveUp,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_class_and_the_policy_decide() {
        let retry = FailurePolicy::RetryOnFailure { max_retries: 2 };
        let always = FailurePolicy::AlwaysCommit;
        for (class, policy, before, expected) in [
            (ErrorClass::Transient, always, 0, Verdict::GiveUp),
            (ErrorClass::Transient, retry, 0, Verdict::PutBack),
            (ErrorClass::Transient, retry, 1, Verdict::PutBack),
            (ErrorClass::Transient, retry, 2, Verdict::GiveUp),
            (ErrorClass::TimedOut, retry, 0, Verdict::PutBack),
            (ErrorClass::TimedOut, always, 0, Verdict::GiveUp),
            (ErrorClass::Permanent, retry, 0, Verdict::GiveUp),
            (ErrorClass::Bug, retry, 0, Verdict::GiveUp),
            (ErrorClass::Interrupted, retry, 0, Verdict::Leave),
            (ErrorClass::Interrupted, always, 9, Verdict::Leave),
            (ErrorClass::Dependency, always, 9, Verdict::Leave),
        ] {
            assert_eq!(
                verdict(class, policy, before),
                expected,
                "{class:?} {policy:?} {before}"
            );
        }
    }
}
