//! When to try again what failed. Pure.

use std::time::Duration;

use crate::decide::Moment;
use crate::observe::workload::Trouble;

/// The first pause after a failure that may pass.
const FIRST_PAUSE: Duration = Duration::from_millis(500);

/// The longest pause: 0.5 s doubled six times.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// How long something waits after it failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pause {
    /// Not at all: what it rested on was not new.
    None,
    /// Longer each time.
    Growing,
    /// The longest: a person must do something first.
    Longest,
}

/// Failures in a row, and when the next try is due.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Retry {
    failures: u32,
    not_before: Option<Moment>,
}

impl Retry {
    /// Whether it may be tried at `now`.
    pub(super) fn is_over(&self, now: Moment) -> bool {
        self.not_before.is_none_or(|at| at <= now)
    }

    /// Whether a pause is over and nothing was tried since.
    pub(super) fn is_due(&self, now: Moment) -> bool {
        self.not_before.is_some_and(|at| at <= now)
    }

    /// It was done.
    pub(super) fn succeeded(&mut self) {
        *self = Self::default();
    }

    /// It was not.
    pub(super) fn failed(&mut self, pause: Pause, now: Moment) {
        self.failures = self.failures.saturating_add(1);
        let pause = match pause {
            // Twice in a row at once, then not: whoever writes against us is not outrun.
            Pause::None if self.failures <= 2 => Duration::ZERO,
            Pause::None | Pause::Growing => doubled(self.failures - 1),
            Pause::Longest => LONGEST_PAUSE,
        };
        self.not_before = Some(now + pause);
    }
}

/// The first pause, doubled so often, up to the longest one.
fn doubled(times: u32) -> Duration {
    FIRST_PAUSE
        .saturating_mul(2_u32.saturating_pow(times))
        .min(LONGEST_PAUSE)
}

/// For how long somebody must have left our Deployment alone before what they did is forgotten: twice the longest pause.
const LEFT_ALONE_FOR: Duration = Duration::from_secs(60);

/// How often edits are put back at once.
const PUT_BACK_AT_ONCE: u32 = 2;

/// Somebody who writes to our Deployment again and again. What they write is put back ever more slowly, so that two
/// programs that want different things do not keep an API server busy.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Contest {
    times: u32,
    last: Option<Moment>,
}

impl Contest {
    /// Whether an edit may be put back now.
    pub(super) fn may_put_back(&self, now: Moment) -> bool {
        let Some(last) = self.last else { return true };
        let pause = match self.times.checked_sub(PUT_BACK_AT_ONCE) {
            None => Duration::ZERO,
            Some(more) => doubled(more),
        };
        now.since(last) >= pause
    }

    /// An edit is being put back.
    pub(super) fn put_back(&mut self, now: Moment) {
        self.times = self.times.saturating_add(1);
        self.last = Some(now);
    }

    /// Forgets what is long ago.
    pub(super) fn forget(&mut self, now: Moment) {
        if self.last.is_some_and(|last| now.since(last) >= LEFT_ALONE_FOR) {
            *self = Self::default();
        }
    }

    /// What a person should know once it goes on.
    pub(super) fn trouble(&self) -> Option<Trouble> {
        let message = "somebody else writes to the Deployment's spec again and again, and it is put back ever more slowly; \
                       fix: find out who with kubectl get deployment --show-managed-fields, and change the pool instead";
        (self.times > PUT_BACK_AT_ONCE).then(|| Trouble::new("EditedByOthers", Some(message)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edits_are_put_back_at_once_then_ever_more_slowly_until_nobody_edits() {
        let mut contest = Contest::default();
        let mut now = Moment::from_millis(1_000);
        let mut waited = Vec::new();
        for _ in 0..9 {
            let before = now;
            while !contest.may_put_back(now) {
                now = now + Duration::from_millis(500);
            }
            waited.push(now.since(before).as_millis());
            contest.put_back(now);
        }
        assert_eq!(waited, [0, 0, 500, 1_000, 2_000, 4_000, 8_000, 16_000, 30_000]);
        assert!(contest.trouble().is_some());
        contest.forget(now + Duration::from_secs(59));
        assert!(contest.trouble().is_some());
        contest.forget(now + Duration::from_secs(60));
        assert_eq!(contest, Contest::default());
        assert!(contest.trouble().is_none() && contest.may_put_back(now));
    }

    #[test]
    fn pauses_grow_to_half_a_minute_and_end_with_a_success() {
        let mut retry = Retry::default();
        let now = Moment::from_millis(1_000);
        assert!(retry.is_over(now) && !retry.is_due(now));
        for expected in [500, 1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000] {
            retry.failed(Pause::Growing, now);
            assert!(!retry.is_over(Moment::from_millis(1_000 + expected - 1)));
            assert!(retry.is_due(Moment::from_millis(1_000 + expected)));
        }
        retry.succeeded();
        assert!(retry.is_over(now));
    }

    #[test]
    fn what_rested_on_something_old_is_tried_at_once_but_not_for_ever() {
        let mut retry = Retry::default();
        let now = Moment::from_millis(1_000);
        for at_once in [true, true, false] {
            retry.failed(Pause::None, now);
            assert_eq!(retry.is_over(now), at_once);
        }
        retry.failed(Pause::Longest, now);
        assert!(!retry.is_over(Moment::from_millis(30_999)));
        assert!(retry.is_over(Moment::from_millis(31_000)));
    }
}
