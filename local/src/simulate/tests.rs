//! Tests of simulations; all inputs are fixed.

use std::num::NonZeroU32;

use separation_operator::decide::{Policy, ReplicaLimits, Target};

use super::*;

fn policy() -> Policy {
    let seconds = Duration::from_secs;
    Policy {
        limits: ReplicaLimits::new(0..=24).expect("in order"),
        target: Target::TasksPerReplica(NonZeroU32::MIN),
        mode: Mode::Auto,
        stabilization: seconds(120),
        last_replica_stabilization: seconds(120),
        cooldown: seconds(2),
        rebalance_hold: seconds(25),
        stale_after: seconds(16),
    }
}

fn scenario(lines: &str) -> Scenario {
    Scenario {
        policy: policy(),
        lag_check_period: Duration::from_secs(2),
        partitions: 24,
        start_up: Duration::from_secs(20),
        rebalance: Duration::from_secs(3),
        trace: Trace::parse(lines, Duration::from_secs(90)).expect("a trace"),
    }
}

#[test]
fn a_burst_gets_a_worker_for_each_task_in_one_write_and_then_none() {
    let report = simulate(&scenario(r#"{"at_seconds": 1, "tasks": 24}"#)).unwrap();
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
    let report = simulate(&scenario(lines)).unwrap();
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
    let synthetic = Synthetic {
        length: Duration::from_secs(2 * 3600),
        tasks_per_hour: 40,
        burst: 24,
        burst_every: Duration::from_secs(3600),
        task: Duration::from_secs(90),
        seed: 7,
    };
    let scenario = Scenario {
        trace: synthetic.trace().unwrap(),
        ..scenario("")
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
        let mut scenario = scenario(&lines);
        scenario.policy.stabilization = Duration::from_secs(seconds);
        scenario.policy.last_replica_stabilization = Duration::from_secs(seconds);
        simulate(&scenario).unwrap()
    };
    let (short, long) = (with(0), with(600));
    assert!(short.worker_hours.wasted < long.worker_hours.wasted);
    assert!(short.changes.len() > long.changes.len());
}

#[test]
fn invalid_lines_are_named() {
    let refused = |text: &str| {
        Trace::parse(text, Duration::from_secs(1))
            .unwrap_err()
            .to_string()
    };
    assert!(refused("{\"at_seconds\": 1}\n{\"at\": 2}").starts_with("line 2 is not a valid event; fix: "));
    assert!(refused("{\"at_seconds\": -1}").starts_with("line 1: -1 s is not between"));
    assert!(refused("{\"at_seconds\": 1e300}").starts_with("line 1: "));
    assert!(refused("{\"at_seconds\": 1, \"tasks\": 99999999999}").starts_with("more than"));
    let nothing = Scenario {
        partitions: 0,
        ..scenario("")
    };
    assert_eq!(simulate(&nothing), Err(ScenarioError::NoPartitions));
}
