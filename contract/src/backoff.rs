//! Waits between retries.

use std::time::Duration;

/// Waits that double with each consecutive failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// The wait after the first failure.
    pub first: Duration,
    /// The longest wait.
    pub longest: Duration,
}

impl Backoff {
    /// The wait after `failures` consecutive failures; zero after none.
    pub fn after(&self, failures: u32) -> Duration {
        let Some(doublings) = failures.checked_sub(1) else {
            return Duration::ZERO;
        };
        let wait = self.first.saturating_mul(2_u32.saturating_pow(doublings));
        wait.min(self.longest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest() {
        let backoff = Backoff {
            first: Duration::from_secs(1),
            longest: Duration::from_secs(30),
        };
        let waits = [0, 1, 2, 5, 6, 7, u32::MAX].map(|failures| backoff.after(failures).as_secs());
        assert_eq!(waits, [0, 1, 2, 16, 30, 30, 30]);
    }
}
