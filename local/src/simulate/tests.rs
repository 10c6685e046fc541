//! Tests of simulations; all inputs are fixed.

use std::fs;
use std::num::NonZeroU32;
use std::time::Duration;

use clap::Parser;
use separation_operator::decide::{History, Moment, Target, decide};
use separation_operator::plan::ScaleDownWindows;

use super::comparison::run_policies;
use super::explain::explain;
use super::operate::operate;
use super::outcome::Outcome;
use super::pool::SimulatedPool;
use super::*;

#[derive(Debug, Parser)]
struct Command {
    #[command(flatten)]
    arguments: SimulateArguments,
}

/// The default pool on a trace, with these arguments.
pub(super) fn scenario(trace: &str, arguments: &[&str]) -> Scenario {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("trace");
    fs::write(&file, trace).expect("a file");
    let trace = ["simulate", "--trace", file.to_str().expect("a path")];
    let command = Command::parse_from(trace.iter().chain(arguments));
    command.arguments.scenario().expect("a scenario")
}

fn bursts() -> Trace {
    let bursts = Bursts {
        length: Duration::from_secs(2 * 3600),
        tasks_per_hour: 40,
        burst: 24,
        burst_every: Duration::from_secs(3600),
        task: Duration::from_secs(90),
        seed: 7,
    };
    bursts.trace().expect("few tasks")
}

/// Every kind of target.
fn targets() -> [Target; 3] {
    let deadline = Duration::from_secs(60);
    let [within_seconds, task_seconds] = [300, 90].map(|seconds| NonZeroU32::new(seconds).expect("not 0"));
    [
        Target::TasksPerReplica(NonZeroU32::MIN),
        Target::DrainDeadline {
            within_seconds,
            task_seconds,
        },
        Target::StartDeadline { deadline },
    ]
}

#[test]
fn a_burst_gets_a_worker_for_each_task_in_one_write_and_then_none() {
    let lines = r#"{"at_seconds": 1, "tasks": 24}"#;
    let report = simulate(&scenario(lines, &["--max", "24"])).unwrap();
    let steps: Vec<_> = report
        .changes
        .iter()
        .map(|change| (change.at_ms, change.from, change.to))
        .collect();
    assert_eq!(steps.first(), Some(&(2_000, 0, 24)));
    assert_eq!(steps.last().map(|step| step.2), Some(0));
    assert_eq!(report.unstarted_tasks, 0);
    let waiting = report.waiting.expect("tasks were started");
    // Until the next reading 1 s, start-up 20 s, rebalance 3 s.
    assert!(waiting.max_seconds < 26.0, "{waiting:?}");
}

#[test]
fn a_running_task_is_never_stopped_by_an_outage() {
    let lines = r#"
        {"at_seconds": 0, "tasks": 6, "task_seconds": 600}
        {"at_seconds": 60, "kafka_away_seconds": 300}
    "#;
    let report = simulate(&scenario(lines, &["--max", "24"])).unwrap();
    let during = |sample: &&Sample| (60_000..360_000).contains(&sample.at_ms);
    assert!(
        report
            .samples
            .iter()
            .filter(during)
            .all(|sample| sample.desired == 6 && sample.lag.is_none())
    );
    assert!(report.reasons.contains_key("HeldUnknownLag"));
}

#[test]
fn the_same_scenario_gives_the_same_report() {
    let scenario = Scenario {
        trace: bursts(),
        ..scenario("", &["--max", "24"])
    };
    let report = simulate(&scenario).unwrap();
    assert_eq!(report, simulate(&scenario).unwrap());
    assert_eq!(report.tasks, 80 + 3 * 24);
    assert_eq!(report.unstarted_tasks, 0);
    insta::assert_snapshot!(report);
}

#[test]
fn a_longer_stabilization_wastes_more_and_changes_less() {
    let lines: String = (0..40)
        .map(|n| format!("{{\"at_seconds\": {}, \"tasks\": 3}}\n", n * 240))
        .collect();
    let with = |seconds| {
        let mut scenario = scenario(&lines, &["--max", "24"]);
        scenario.role.windows = ScaleDownWindows {
            others: Some(Duration::from_secs(seconds)),
            last_replica: Some(Duration::from_secs(seconds)),
        };
        simulate(&scenario).unwrap()
    };
    let (short, long) = (with(0), with(600));
    assert!(short.worker_hours.wasted < long.worker_hours.wasted);
    assert!(short.changes.len() > long.changes.len());
}

#[test]
fn a_topic_has_partitions() {
    let nothing = Scenario {
        partitions: 0,
        ..scenario("", &[])
    };
    assert_eq!(simulate(&nothing), Err(ScenarioError::NoPartitions));
}

/// Every reading is decided, until `end`.
fn operate_each_reading(scenario: &Scenario, end: Moment) -> Outcome {
    let mut pool = SimulatedPool::new(scenario);
    let mut history = History::default();
    let mut now = Moment::default();
    loop {
        pool.advance(now);
        let observation = pool.observe(now);
        let policy = scenario.role.policy_with(observation.estimates);
        let mut decision = decide(&policy, &observation, history, now);
        while decision.execute_next(now, |write| pool.apply(write)).is_some() {}
        history = decision.history;
        if now >= end {
            return pool.finish(now);
        }
        now = now + scenario.role.lag_check_period;
    }
}

#[test]
fn readings_are_skipped_only_if_they_decide_nothing_else() {
    for target in targets() {
        let mut scenario = scenario("", &["--max", "24", "--start-up-spread", "30"]);
        scenario.trace = bursts();
        let away = [3_000_000, 3_100_000].map(Moment::from_millis);
        scenario.trace.outages.push((away[0], away[1]));
        scenario.role.policy.target = target;
        let (mut readings, mut decided) = (0, 0);
        let operated = operate(&scenario, None, |reading| {
            readings += 1 + reading.repeated;
            decided += 1;
        });
        let expected = operate_each_reading(&scenario, operated.end);
        let outcome = operated.pool.finish(operated.end);
        assert_eq!(outcome.waits_ms, expected.waits_ms, "{target}");
        assert_eq!(outcome.pod_time, expected.pod_time, "{target}");
        assert_eq!(outcome.starts, expected.starts, "{target}");
        assert_eq!(readings, operated.end.as_millis() / 2_000 + 1, "{target}");
        assert!(
            decided < readings,
            "{target}: none of {readings} readings was skipped"
        );
    }
}

#[test]
fn each_task_begins_and_ends_once_under_the_operator() {
    for placement in ["placed", "hashed"] {
        let arguments = ["--max", "24", "--placement", placement, "--start-up-spread", "50"];
        let scenario = Scenario {
            trace: bursts(),
            ..scenario("", &arguments)
        };
        let policies = targets().map(ComparedPolicy::Operator);
        for run in run_policies(&scenario, &policies).unwrap() {
            let (outcome, policy) = (run.outcome, run.policy);
            assert_eq!(
                outcome.completed,
                scenario.trace.arrivals.len() as u64,
                "{policy}"
            );
            assert_eq!((outcome.unstarted(), outcome.repeated), (0, 0), "{policy}");
            assert_eq!(outcome.lost, Duration::ZERO, "{policy}");
        }
    }
}

/// Partitions in turn would begin another order.
#[test]
fn a_worker_takes_the_oldest_message_of_its_partitions() {
    let lines: String = (0..40)
        .map(|second| format!("{{\"at_seconds\": {second}, \"tasks\": 1, \"task_seconds\": 10}}\n"))
        .collect();
    let scenario = scenario(
        &lines,
        &["--max", "1", "--partitions", "8", "--placement", "hashed"],
    );
    let [target, ..] = targets();
    let outcome = run_policies(&scenario, &[ComparedPolicy::Operator(target)])
        .unwrap()
        .remove(0)
        .outcome;
    let waits = outcome.waits_ms.iter().flatten();
    let begun: Vec<u64> = (0..)
        .zip(waits)
        .map(|(second, wait)| 1_000 * second + wait)
        .collect();
    assert_eq!(begun.len(), 40);
    assert!(begun.is_sorted(), "{begun:?}");
}

#[test]
fn keda_loses_tasks_that_run_when_it_scales_down() {
    let lines = r#"
        {"at_seconds": 0, "tasks": 20, "task_seconds": 60}
        {"at_seconds": 0, "tasks": 4, "task_seconds": 1200}
    "#;
    let scenario = scenario(lines, &["--max", "24"]);
    let run = run_policies(&scenario, &[ComparedPolicy::Keda])
        .unwrap()
        .remove(0);
    assert_eq!(run.outcome.completed, 24);
    assert!(run.outcome.repeated > 0);
    assert!(run.outcome.lost > Duration::ZERO);
    let comparison = Comparison::new(&scenario, &[run]);
    assert!(comparison.to_string().contains("KEDA, modeled from its source"));
}

#[test]
fn the_optimum_costs_the_least_of_policies_that_do_not_let_tasks_wait_for_others() {
    let with = |arguments: &[&str]| Scenario {
        trace: bursts(),
        ..scenario("", arguments)
    };
    let scaled = with(&["--max", "24", "--partitions", "48"]);
    let [tasks_per_replica, _, start_deadline] = targets().map(ComparedPolicy::Operator);
    let policies = [
        ComparedPolicy::Optimum,
        ComparedPolicy::Keda,
        tasks_per_replica,
        start_deadline,
    ];
    let comparison = compare(&scaled, &policies).unwrap();
    let optimum = &comparison.policies[0];
    assert_eq!(
        (optimum.ratio_to_optimum, optimum.begun_in_time_percent),
        (1.0, 100.0)
    );
    for result in &comparison.policies[1..] {
        assert!(result.ratio_to_optimum > 1.0, "{result:?}");
    }
    // Workers that are always there let no task wait either.
    let always = with(&["--min", "24", "--max", "24"]);
    assert!(simulate(&always).unwrap().worker_hours.total > optimum.gpu_hours);
}

#[test]
fn a_decision_is_explained_at_its_time() {
    let lines = r#"{"at_seconds": 1, "tasks": 3, "task_seconds": 40}"#;
    let scenario = scenario(lines, &["--start-deadline", "60"]);
    let at = |seconds: u64| explain(&scenario, Moment::from_millis(1_000 * seconds)).unwrap();
    let text = at(2).expect("a decision");
    assert!(text.starts_with("decision at 2 s: BacklogCovered, "), "{text}");
    assert!(text.lines().count() > 3, "{text}");
    assert!(at(31).expect("a decision").starts_with("decision at 32 s: "));
    assert_eq!(at(100_000), None);
}
