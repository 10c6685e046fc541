//! `StartDeadline` on synthetic loads: tasks begin in time where partitions and `maxReplicas` allow it.

use std::fmt::Write as _;
use std::time::Duration;

use separation_operator::decide::Target;

use super::comparison::{ComparedPolicy, compare};
use super::generator::GenerativeRequests;
use super::random::Rng;
use super::tests::scenario;

/// Start-ups take 20 s and a rebalance 3 s. `tasks` are arrivals and times in seconds.
fn check(tasks: &[(f64, f64)], deadline_seconds: u64, arguments: &[&str]) {
    let mut csv = "arrival_seconds,task_seconds\n".to_owned();
    for (at, task) in tasks {
        writeln!(csv, "{at:.3},{task:.3}").expect("a string");
    }
    check_trace(&csv, deadline_seconds, arguments);
}

fn check_trace(csv: &str, deadline_seconds: u64, arguments: &[&str]) {
    let deadline = deadline_seconds.to_string();
    let arguments = [&["--start-deadline", deadline.as_str()][..], arguments].concat();
    let scenario = scenario(csv, &arguments);
    let target = Target::StartDeadline {
        deadline: Duration::from_secs(deadline_seconds),
    };
    let comparison = compare(&scenario, &[ComparedPolicy::Operator(target)]).expect("a comparison");
    let result = &comparison.policies[0];
    assert!(result.begun_in_time_percent >= 97.0, "{result:?}");
}

#[test]
fn tasks_of_a_steady_load_begin_in_time() {
    let tasks: Vec<_> = (0..180).map(|n| (20.0 * f64::from(n), 30.0)).collect();
    check(&tasks, 60, &["--max", "24", "--partitions", "48"]);
}

#[test]
fn tasks_of_bursts_of_1_to_500_begin_in_time() {
    let mut rng = Rng::new(1);
    let mut tasks = Vec::new();
    for (number, size) in (0..).zip([1, 5, 20, 100, 500]) {
        let at = 1.0 + 900.0 * f64::from(number);
        tasks.extend((0..size).map(|_| (at, 20.0 + 20.0 * rng.uniform())));
    }
    check(&tasks, 60, &["--max", "512", "--partitions", "512"]);
}

#[test]
fn tasks_of_busy_days_and_empty_nights_begin_in_time() {
    let trace = GenerativeRequests { days: 3, seed: 5 }
        .trace()
        .expect("few tasks");
    check_trace(&trace.csv(), 120, &["--max", "24", "--partitions", "48"]);
}

/// The longest tasks of 1,920 take 30 times the median.
#[test]
fn tasks_with_a_heavy_tail_begin_in_time() {
    let mut rng = Rng::new(1);
    let mut at = 0.0;
    let tasks: Vec<_> = (0..1_920)
        .map(|_| {
            at += 15.0 * rng.exponential();
            (at, 20.0 * rng.log_normal(1.0))
        })
        .collect();
    check(&tasks, 180, &["--max", "24", "--partitions", "48"]);
}

/// Rules that divide by the rate of completions fail here, and the times are not known.
#[test]
fn tasks_begin_in_time_if_none_completes_for_an_hour() {
    let first = (0..12).map(|_| (1.0, 4_000.0));
    let second = (0..12).map(|_| (9_000.0, 4_000.0));
    let tasks: Vec<_> = first.chain(second).collect();
    check(&tasks, 60, &["--max", "24", "--partitions", "48", "--learn"]);
}
