//! The optimum in hindsight of a policy that lets no task wait: every task begins when it arrives, and a worker is kept
//! over a gap if that costs less than starting one again.
//!
//! Worker `n` is busy while at least `n` tasks run. So its cost is its busy time, and for each gap the shorter of the
//! gap and a start-up. Tasks wait only if more than `maxReplicas` would run. A policy that lets tasks wait for a worker
//! that is busy may need less.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use separation_operator::decide::Moment;

use super::outcome::Outcome;
use super::scenario::Scenario;

/// One worker of the optimum.
#[derive(Clone)]
struct Level {
    /// Since when its pod exists.
    since: Moment,
    /// When its last task ended; none while it runs one.
    idle_since: Option<Moment>,
}

/// A change of the number of tasks, or of pods.
type Change = (Moment, i64);

/// The optimum's costs for the scenario's trace.
pub(super) fn optimum(scenario: &Scenario) -> Outcome {
    let mut outcome = Outcome::new(&scenario.trace);
    let max = usize::try_from(scenario.role.policy.limits.max()).unwrap_or(usize::MAX);
    let mut free: BinaryHeap<Reverse<Moment>> = BinaryHeap::new();
    let mut tasks: Vec<Change> = Vec::new();
    for (task, arrival) in scenario.trace.arrivals.iter().enumerate() {
        let begin = match free.peek() {
            Some(Reverse(earliest)) if free.len() == max => arrival.at.max(*earliest),
            _ => arrival.at,
        };
        while free.peek().is_some_and(|Reverse(earliest)| *earliest <= begin) {
            free.pop();
        }
        let end = begin + arrival.task;
        if end > begin {
            free.push(Reverse(end));
            tasks.extend([(begin, 1), (end, -1)]);
        }
        outcome.pod_time += arrival.task;
        outcome.begun(task, arrival.at, begin);
        outcome.completed += 1;
    }
    // A task that ends when another begins leaves it its worker.
    tasks.sort_unstable();
    let mut pods = pods(&tasks, scenario.start_up + scenario.rebalance, &mut outcome);
    pods.sort_unstable();
    record(&mut outcome, &tasks, &pods);
    outcome
}

/// When pods begin and end. Adds the time of start-ups, and of gaps that pods are kept for.
fn pods(tasks: &[Change], start_up: Duration, outcome: &mut Outcome) -> Vec<Change> {
    let mut pods = Vec::new();
    let mut levels: Vec<Level> = Vec::new();
    let mut running = 0;
    for (at, change) in tasks {
        if *change < 0 {
            running -= 1;
            levels[running].idle_since = Some(*at);
            continue;
        }
        let created = Level {
            since: before(*at, start_up),
            idle_since: None,
        };
        match levels.get_mut(running) {
            Some(level) => {
                let idle_since = level.idle_since.unwrap_or(*at);
                let gap = at.since(idle_since);
                outcome.pod_time += gap.min(start_up);
                level.idle_since = None;
                if gap > start_up {
                    outcome.starts += 1;
                    pods.extend([(level.since, 1), (idle_since, -1)]);
                    *level = created;
                }
            }
            None => {
                outcome.starts += 1;
                outcome.pod_time += start_up;
                levels.push(created);
            }
        }
        running += 1;
    }
    for level in levels {
        pods.extend([(level.since, 1), (level.idle_since.unwrap_or(level.since), -1)]);
    }
    pods
}

/// The start of the clock if the moment would be before it.
fn before(moment: Moment, duration: Duration) -> Moment {
    Moment::default() + moment.since(Moment::default()).saturating_sub(duration)
}

fn record(outcome: &mut Outcome, tasks: &[Change], pods: &[Change]) {
    let (mut lag, mut count) = (0_i64, 0_i64);
    let mut pods = pods.iter().peekable();
    for (at, change) in tasks {
        while let Some((since, change)) = pods.next_if(|(since, _)| since <= at) {
            count += change;
            outcome
                .timeline
                .set(*since, lag.unsigned_abs(), count.unsigned_abs());
        }
        lag += change;
        outcome
            .timeline
            .set(*at, lag.unsigned_abs(), count.unsigned_abs());
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::scenario;
    use super::*;

    /// Pod time in seconds, starts, and the longest wait in seconds of tasks (arrival, time), with start-ups of 20 s.
    fn check(tasks: &[(u64, u64)], max: &str) -> (u64, u64, f64) {
        let rows: String = tasks.iter().map(|(at, task)| format!("{at},{task}\n")).collect();
        let scenario = scenario(
            &format!("arrival_seconds,task_seconds\n{rows}"),
            &["--max", max, "--rebalance", "0"],
        );
        let outcome = optimum(&scenario);
        let waits = outcome.waits().expect("tasks");
        (outcome.pod_time.as_secs(), outcome.starts, waits.max_seconds)
    }

    #[test]
    fn a_worker_is_kept_over_gaps_that_are_shorter_than_a_start_up() {
        assert_eq!(check(&[(100, 30)], "24"), (20 + 30, 1, 0.0));
        assert_eq!(check(&[(0, 30)], "24"), (20 + 30, 1, 0.0));
        assert_eq!(check(&[(100, 30), (145, 30)], "24"), (20 + 30 + 15 + 30, 1, 0.0));
        assert_eq!(check(&[(100, 30), (400, 30)], "24"), (2 * (20 + 30), 2, 0.0));
        assert_eq!(check(&[(100, 30), (130, 30)], "24"), (20 + 60, 1, 0.0));
        assert_eq!(
            check(&[(100, 30), (110, 5), (112, 5)], "24"),
            (3 * 20 + 40, 3, 0.0)
        );
    }

    #[test]
    fn tasks_wait_only_beyond_the_maximum() {
        assert_eq!(
            check(&[(100, 30), (100, 30), (110, 10)], "2"),
            (2 * 20 + 70, 2, 20.0)
        );
        assert_eq!(check(&[(100, 0), (100, 30)], "1"), (20 + 30, 1, 0.0));
    }
}
