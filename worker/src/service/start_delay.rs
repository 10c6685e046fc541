//! Delays the first message until the assignment is stable, so that the first worker to start does not retain the
//! partitions of all others during a long task.

use std::time::{Duration, Instant};

/// Limit of the delay since the first assignment, in multiples of `SETTLE_MS`.
const MAX_DELAY_FACTOR: u32 = 5;

/// Waits once until the assignment has not changed for some time.
#[derive(Debug)]
pub(super) struct StartDelay {
    time: Duration,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// No partition is assigned yet.
    Empty,
    /// Partitions were first assigned at `first`; messages are delivered from `until`.
    Waiting { first: Instant, until: Instant },
    /// Messages are delivered.
    Done,
}

impl StartDelay {
    pub(super) fn new(time: Duration) -> Self {
        Self {
            time,
            state: State::Empty,
        }
    }

    /// The assignment changed at `now`.
    pub(super) fn assignment_changed(&mut self, now: Instant, owns_any: bool) {
        self.state = match self.state {
            State::Done => State::Done,
            _ if !owns_any => State::Empty,
            State::Empty => State::Waiting {
                first: now,
                until: now + self.time,
            },
            State::Waiting { first, .. } => State::Waiting {
                first,
                until: (now + self.time).min(first + self.time * MAX_DELAY_FACTOR),
            },
        };
    }

    /// Waits until messages may be delivered for the first time; forever without partitions, or after [`Self::done`].
    pub(super) async fn wait(&self) {
        match self.state {
            State::Waiting { until, .. } => tokio::time::sleep_until(until.into()).await,
            State::Empty | State::Done => std::future::pending().await,
        }
    }

    pub(super) fn done(&mut self) {
        self.state = State::Done;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_change_restarts_the_delay_up_to_a_maximum() {
        let second = Duration::from_secs(1);
        let begin = Instant::now();
        let mut delay = StartDelay::new(second);
        assert_eq!(delay.state, State::Empty);
        for tenths in (0..100).step_by(9) {
            delay.assignment_changed(begin + second / 10 * tenths, true);
        }
        let bound = State::Waiting {
            first: begin,
            until: begin + 5 * second,
        };
        assert_eq!(delay.state, bound);
        delay.assignment_changed(begin + 20 * second, false);
        assert_eq!(delay.state, State::Empty);
        delay.done();
        delay.assignment_changed(begin + 21 * second, true);
        assert_eq!(delay.state, State::Done);
    }
}
