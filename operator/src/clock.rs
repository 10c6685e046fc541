//! The time that decisions take as an argument: monotonic, and counted from before the start of the process.

use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

use crate::decide::Moment;

/// The time of a process's start. Pods and messages may be this much older than the process.
const START: Duration = Duration::from_secs(30 * 24 * 3_600);

/// A monotonic clock; copies share one start.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    start: Instant,
}

impl Clock {
    /// Starts long after `Moment::default()`, so that nothing can have happened then.
    pub fn start() -> Self {
        Self {
            start: Instant::now(),
        }
    }

    /// The current moment.
    pub fn now(self) -> Moment {
        Moment::default() + START + self.start.elapsed()
    }
}

/// The current moment and the time of day, to convert times that other programs report.
#[derive(Debug, Clone, Copy)]
pub struct WallClock {
    now: Moment,
    time: Timestamp,
}

impl WallClock {
    /// `time` is the time of day at `now`.
    pub fn new(now: Moment, time: Timestamp) -> Self {
        Self { now, time }
    }

    /// Reads the time of day; `now` is the current moment.
    pub fn read(now: Moment) -> Self {
        Self::new(now, Timestamp::now())
    }

    /// The time of day.
    pub fn time(self) -> Timestamp {
        self.time
    }

    /// The moment of a time of day: now at the latest, because clocks of machines differ.
    pub fn moment(self, time: Timestamp) -> Moment {
        let age = Duration::try_from(self.time.duration_since(time));
        self.moment_before(age.unwrap_or_default())
    }

    /// The moment of `age` ago.
    pub fn moment_before(self, age: Duration) -> Moment {
        Moment::from_millis(self.now.as_millis().saturating_sub(millis(age)))
    }

    /// The time of day of `age` ago, in milliseconds since the Unix epoch.
    pub fn unix_millis_before(self, age: Duration) -> i64 {
        let now = self.time.as_millisecond();
        now.saturating_sub_unsigned(millis(age))
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_of_day_is_a_moment_before_now_also_before_the_process_started() {
        let now = Clock::start().now();
        let clock = WallClock::new(now, "2026-01-02T00:00:00Z".parse().expect("a time"));
        let moment = |time: &str| clock.moment(time.parse().expect("a time"));
        let day = Duration::from_secs(24 * 3_600);
        assert_eq!(now.since(moment("2026-01-01T00:00:00Z")), day);
        assert_eq!(moment("2026-01-01T00:00:00Z") + day, now);
        assert_eq!(moment("2026-01-02T00:00:05Z"), now, "another clock is ahead");
    }

    #[test]
    fn an_age_is_the_same_on_both_clocks() {
        let time = Timestamp::from_second(1_000).expect("a time");
        let clock = WallClock::new(Moment::from_millis(90_000), time);
        let age = Duration::from_secs(60);
        assert_eq!(clock.moment_before(age), Moment::from_millis(30_000));
        assert_eq!(clock.unix_millis_before(age), 940_000);
    }
}
