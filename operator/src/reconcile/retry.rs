//! When to try again what failed. Pure.

use std::time::Duration;

use crate::decide::Moment;

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
            Pause::None | Pause::Growing => {
                let doubled = 2_u32.saturating_pow(self.failures.min(10) - 1);
                FIRST_PAUSE.saturating_mul(doubled).min(LONGEST_PAUSE)
            }
            Pause::Longest => LONGEST_PAUSE,
        };
        self.not_before = Some(now + pause);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
