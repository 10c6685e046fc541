//! Learned times in the status, by which they survive a restart.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::crd::{EstimatesStatus, RoleStatus};
use crate::decide::LearnedSummary;

/// The learned times of a role; none before the first observation. `before` is the role's current status.
pub(super) fn estimates_status(
    learned: &LearnedSummary,
    before: Option<&RoleStatus>,
    now: &Time,
) -> Option<EstimatesStatus> {
    if (learned.tasks, learned.starts) == (0, 0) {
        return None;
    }
    let number = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    let estimates = |updated_time: Time| EstimatesStatus {
        tasks: number(learned.tasks),
        task_seconds: (learned.tasks > 0).then(|| number(learned.task_seconds)),
        task_tail_seconds: (learned.tasks > 0).then(|| number(learned.task_tail_seconds)),
        starts: number(learned.starts),
        startup_seconds: (learned.starts > 0).then(|| number(learned.startup_seconds)),
        updated_time,
    };
    let before = before.and_then(|before| before.estimates.as_ref());
    let unchanged = before
        .map(|before| estimates(before.updated_time.clone()))
        .filter(|unchanged| Some(unchanged) == before);
    Some(unchanged.unwrap_or_else(|| estimates(now.clone())))
}

/// The learned times that a status reports. A time without observations does not count, nor do observations without a
/// time.
pub(crate) fn learned(status: &EstimatesStatus) -> LearnedSummary {
    let positive = |number: i64| u64::try_from(number).unwrap_or(0);
    let seconds = |seconds: Option<i64>| positive(seconds.unwrap_or(0));
    let (task_seconds, startup_seconds) = (seconds(status.task_seconds), seconds(status.startup_seconds));
    let count = |number: i64, seconds: u64| if seconds > 0 { positive(number) } else { 0 };
    LearnedSummary {
        tasks: count(status.tasks, task_seconds),
        task_seconds,
        task_tail_seconds: seconds(status.task_tail_seconds),
        starts: count(status.starts, startup_seconds),
        startup_seconds,
    }
}
