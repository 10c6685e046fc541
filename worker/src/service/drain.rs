//! How long a running task is expected to take until it ends. Pure: no client, no clock.

use std::time::Duration;

/// The progress of a running task.
#[derive(Debug, Clone, Copy)]
pub(super) struct RunningTask {
    /// Time since it began.
    pub(super) elapsed: Duration,
    /// Its progress, 0 to 100.
    pub(super) percent: u8,
    /// How long the worker's last task took, if there was one.
    pub(super) last: Option<Duration>,
    /// The time limit of a task.
    pub(super) limit: Duration,
}

/// The time until the task ends, by its progress; without any, it takes as long as the worker's last task, and without
/// that, its time limit. It ends at its time limit at the latest.
pub(super) fn expected_rest(task: RunningTask) -> Duration {
    let longest = task.limit.saturating_sub(task.elapsed);
    let expected = match (task.percent, task.last) {
        (0, None) => longest,
        (0, Some(last)) => last.saturating_sub(task.elapsed),
        (percent, _) => task.elapsed * u32::from(100_u8.saturating_sub(percent)) / u32::from(percent),
    };
    expected.min(longest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_progress_counts_then_the_last_task_then_the_time_limit() {
        let seconds = Duration::from_secs;
        for (elapsed, percent, last, expected) in [
            (0, 0, None, 570),
            (100, 0, None, 470),
            (600, 0, None, 0),
            (100, 0, Some(130), 30),
            (100, 0, Some(90), 0),
            (5, 1, Some(5), 495),
            (10, 1, Some(5), 560),
            (60, 75, None, 20),
            (60, 100, Some(500), 0),
            (0, 50, Some(500), 0),
        ] {
            let task = RunningTask {
                elapsed: seconds(elapsed),
                percent,
                last: last.map(seconds),
                limit: seconds(570),
            };
            assert_eq!(expected_rest(task), seconds(expected), "{task:?}");
        }
    }
}
