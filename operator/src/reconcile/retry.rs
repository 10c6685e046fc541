//! When to retry failed writes. Pure.

use std::time::Duration;

use separation_contract::backoff::Backoff;

use crate::decide::Moment;
use crate::observe::workload::WorkloadProblem;

/// Pauses after transient failures.
const BACKOFF: Backoff = Backoff {
    first: Duration::from_millis(500),
    longest: Duration::from_secs(30),
};

/// The pause after a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pause {
    /// None: the write was based on an outdated version.
    None,
    /// Doubled with each failure.
    Growing,
    /// The longest: a user must fix the cause first.
    Longest,
}

/// Consecutive failures, and when the next attempt is due.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Retry {
    failures: u32,
    not_before: Option<Moment>,
}

impl Retry {
    /// Whether an attempt is allowed at `now`.
    pub(super) fn may_attempt(&self, now: Moment) -> bool {
        self.not_before.is_none_or(|at| at <= now)
    }

    /// Whether a retry is due at `now`.
    pub(super) fn is_due(&self, now: Moment) -> bool {
        self.not_before.is_some_and(|at| at <= now)
    }

    pub(super) fn succeeded(&mut self) {
        *self = Self::default();
    }

    pub(super) fn failed(&mut self, pause: Pause, now: Moment) {
        self.failures = self.failures.saturating_add(1);
        let pause = match pause {
            // Two immediate retries, then pauses: another writer may keep changing the object.
            Pause::None if self.failures <= 2 => Duration::ZERO,
            Pause::None | Pause::Growing => BACKOFF.after(self.failures),
            Pause::Longest => BACKOFF.longest,
        };
        self.not_before = Some(now + pause);
    }
}

/// Time without edits by others after which earlier edits are forgotten: twice the longest pause.
const FORGET_EDITS_AFTER: Duration = Duration::from_secs(60);

/// The number of edits that are reverted immediately.
const IMMEDIATE_REVERTS: u32 = 2;

/// Repeated edits of a pool's objects by another field manager. They are reverted with growing pauses, so that two
/// conflicting programs do not overload the API server.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct FieldManagerConflict {
    times: u32,
    last: Option<Moment>,
}

impl FieldManagerConflict {
    /// Whether an edit may be reverted now.
    pub(super) fn may_revert(&self, now: Moment) -> bool {
        let Some(last) = self.last else { return true };
        now.since(last) >= BACKOFF.after(self.times.saturating_sub(IMMEDIATE_REVERTS - 1))
    }

    /// Records that an edit is being reverted.
    pub(super) fn record_revert(&mut self, now: Moment) {
        self.times = self.times.saturating_add(1);
        self.last = Some(now);
    }

    /// Resets after [`FORGET_EDITS_AFTER`] without an edit.
    pub(super) fn forget(&mut self, now: Moment) {
        if self
            .last
            .is_some_and(|last| now.since(last) >= FORGET_EDITS_AFTER)
        {
            *self = Self::default();
        }
    }

    /// The problem to report once edits continue.
    pub(super) fn problem(&self) -> Option<WorkloadProblem> {
        let message = "a user or another controller keeps changing a Deployment, Service or ServiceAccount; the \
                       operator reverts it with growing pauses; fix: find the field manager with kubectl get \
                       deployments,services,serviceaccounts -o yaml --show-managed-fields, and change the pool instead";
        (self.times > IMMEDIATE_REVERTS).then(|| WorkloadProblem::new("FieldManagerConflict", Some(message)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edits_are_reverted_immediately_then_with_growing_pauses_until_they_stop() {
        let mut field_manager_conflict = FieldManagerConflict::default();
        let mut now = Moment::from_millis(1_000);
        let mut pauses = Vec::new();
        for _ in 0..9 {
            let before = now;
            while !field_manager_conflict.may_revert(now) {
                now = now + Duration::from_millis(500);
            }
            pauses.push(now.since(before).as_millis());
            field_manager_conflict.record_revert(now);
        }
        assert_eq!(pauses, [0, 0, 500, 1_000, 2_000, 4_000, 8_000, 16_000, 30_000]);
        assert!(field_manager_conflict.problem().is_some());
        field_manager_conflict.forget(now + Duration::from_secs(59));
        assert!(field_manager_conflict.problem().is_some());
        field_manager_conflict.forget(now + Duration::from_secs(60));
        assert_eq!(field_manager_conflict, FieldManagerConflict::default());
        assert!(field_manager_conflict.problem().is_none() && field_manager_conflict.may_revert(now));
    }

    #[test]
    fn pauses_grow_to_half_a_minute_and_end_with_a_success() {
        let mut retry = Retry::default();
        let now = Moment::from_millis(1_000);
        assert!(retry.may_attempt(now) && !retry.is_due(now));
        for expected in [500, 1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000] {
            retry.failed(Pause::Growing, now);
            assert!(!retry.may_attempt(Moment::from_millis(1_000 + expected - 1)));
            assert!(retry.is_due(Moment::from_millis(1_000 + expected)));
        }
        retry.succeeded();
        assert!(retry.may_attempt(now));
    }

    #[test]
    fn an_outdated_write_is_retried_immediately_only_twice() {
        let mut retry = Retry::default();
        let now = Moment::from_millis(1_000);
        for immediately in [true, true, false] {
            retry.failed(Pause::None, now);
            assert_eq!(retry.may_attempt(now), immediately);
        }
        retry.failed(Pause::Longest, now);
        assert!(!retry.may_attempt(Moment::from_millis(30_999)));
        assert!(retry.may_attempt(Moment::from_millis(31_000)));
    }
}
