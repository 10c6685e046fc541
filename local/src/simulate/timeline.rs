//! Lag, pods and waits over time, in a bounded number of steps.

use std::time::Duration;

use separation_operator::decide::Moment;

/// Steps of the trace's length: one for each pixel or two of a chart.
const STEPS: u64 = 720;

/// The highest lag, number of pods and wait in each step.
#[derive(Debug, Clone)]
pub(super) struct Timeline {
    step: Duration,
    pub(super) lag: Series,
    pub(super) pods: Series,
    /// Waits in milliseconds, at the arrival of the task.
    pub(super) waits: Series,
}

/// The highest value in each step.
#[derive(Debug, Clone, Default)]
pub(super) struct Series {
    highest: Vec<u64>,
    current: u64,
}

impl Timeline {
    /// Steps for a trace of this length; later events add steps.
    pub(super) fn new(length: Duration) -> Self {
        let millis = u64::try_from(length.as_millis()).unwrap_or(u64::MAX);
        Self {
            step: Duration::from_millis(millis / STEPS + 1),
            lag: Series::default(),
            pods: Series::default(),
            waits: Series::default(),
        }
    }

    pub(super) fn step(&self) -> Duration {
        self.step
    }

    /// The lag and the number of pods from `now` on.
    pub(super) fn set(&mut self, now: Moment, lag: u64, pods: u64) {
        let index = self.index(now);
        self.lag.set(index, lag);
        self.pods.set(index, pods);
    }

    /// The wait of a task that arrived at `arrival`.
    pub(super) fn waited(&mut self, arrival: Moment, millis: u64) {
        let index = self.index(arrival);
        self.waits.set(index, millis);
        self.waits.current = 0;
    }

    fn index(&self, at: Moment) -> usize {
        let step = u64::try_from(self.step.as_millis()).unwrap_or(u64::MAX);
        usize::try_from(at.as_millis() / step).unwrap_or(usize::MAX)
    }
}

impl Series {
    /// The value from step `index` on. Steps may be set in any order if the value does not last.
    fn set(&mut self, index: usize, value: u64) {
        if self.highest.len() <= index {
            self.highest.resize(index + 1, self.current);
        }
        self.highest[index] = self.highest[index].max(value);
        self.current = value;
    }

    /// The highest value of each step.
    pub(super) fn highest(&self) -> &[u64] {
        &self.highest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_has_its_highest_value_and_a_value_lasts_until_the_next() {
        let mut timeline = Timeline::new(Duration::from_millis(10 * STEPS - 1));
        assert_eq!(timeline.step(), Duration::from_millis(10));
        let at = Moment::from_millis;
        timeline.set(at(12), 5, 1);
        timeline.set(at(14), 2, 3);
        timeline.set(at(41), 1, 0);
        assert_eq!(timeline.lag.highest(), [0, 5, 2, 2, 2]);
        assert_eq!(timeline.pods.highest(), [0, 3, 3, 3, 3]);
        timeline.waited(at(25), 7);
        timeline.waited(at(5), 9);
        assert_eq!(timeline.waits.highest(), [9, 0, 7]);
    }
}
