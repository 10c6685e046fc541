//! When the first message is taken: after the assignment stood still, so that the first worker up does not sit on
//! everybody's partitions with a long task.

use std::time::{Duration, Instant};

/// The first message waits at most this many settling times after the first partitions came.
const MOST_SETTLING_TIMES: u32 = 5;

/// Waits until the assignment stood still, once.
#[derive(Debug)]
pub(super) struct Settle {
    time: Duration,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// No partition yet.
    Empty,
    /// Partitions came first at the first moment; the second is when to start.
    Waiting { first: Instant, until: Instant },
    /// The first message may have been taken.
    Done,
}

impl Settle {
    pub(super) fn new(time: Duration) -> Self {
        Self {
            time,
            state: State::Empty,
        }
    }

    /// The set of partitions changed at `now`.
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
                until: (now + self.time).min(first + self.time * MOST_SETTLING_TIMES),
            },
        };
    }

    /// Waits until messages may be taken for the first time; for ever if that was so already.
    pub(super) async fn wait(&self) {
        match self.state {
            State::Waiting { until, .. } => tokio::time::sleep_until(until.into()).await,
            State::Empty | State::Done => std::future::pending().await,
        }
    }

    /// Messages are taken from now on.
    pub(super) fn done(&mut self) {
        self.state = State::Done;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_change_starts_the_wait_anew_up_to_a_bound() {
        let second = Duration::from_secs(1);
        let begin = Instant::now();
        let mut settle = Settle::new(second);
        assert_eq!(settle.state, State::Empty);
        for tenths in (0..100).step_by(9) {
            settle.assignment_changed(begin + second / 10 * tenths, true);
        }
        let bound = State::Waiting {
            first: begin,
            until: begin + 5 * second,
        };
        assert_eq!(settle.state, bound);
        settle.assignment_changed(begin + 20 * second, false);
        assert_eq!(settle.state, State::Empty);
        settle.done();
        settle.assignment_changed(begin + 21 * second, true);
        assert_eq!(settle.state, State::Done);
    }
}
