//! Scenarios of arguments and pools.

use clap::Parser;

use super::*;

#[derive(Debug, Parser)]
struct Command {
    #[command(flatten)]
    arguments: SimulateArguments,
}

/// The scenario of arguments, with a pool whose scaling and uploader are these.
fn scenario(scaling: &str, arguments: &[&str]) -> anyhow::Result<Scenario> {
    let directory = tempfile::tempdir()?;
    let file = directory.path().join("pool.yaml");
    let pool = format!("{DEFAULT_POOL}  processor: {{scaling: {scaling}}}\n  uploader: {{enabled: false}}\n");
    fs::write(&file, pool)?;
    let pool = ["simulate", "--pool", file.to_str().context("a path")?];
    let command = Command::parse_from(pool.iter().chain(arguments));
    command.arguments.scenario()
}

/// Duration in milliseconds of the one task of a trace, and the target's seconds per task.
fn task(scaling: &str, arguments: &[&str]) -> (u128, Option<u32>) {
    let directory = tempfile::tempdir().expect("a directory");
    let trace = directory.path().join("trace.jsonl");
    fs::write(&trace, r#"{"at_seconds": 0, "tasks": 1}"#).expect("a file");
    let trace = ["--trace", trace.to_str().expect("a path")];
    let arguments: Vec<&str> = trace.iter().chain(arguments).copied().collect();
    let scenario = scenario(scaling, &arguments).expect("a scenario");
    let target_seconds = match scenario.role.policy.target {
        Target::DrainDeadline { task_seconds, .. } => Some(task_seconds.get()),
        Target::TasksPerReplica(_) | Target::StartDeadline { .. } => None,
    };
    (scenario.trace.arrivals[0].task.as_millis(), target_seconds)
}

#[test]
fn task_time_is_the_pools_unless_the_arguments_set_it() {
    let pool = "{target: {type: DrainDeadline, drainDeadlineSeconds: 600}, estimates: {taskSeconds: 300}}";
    assert_eq!(task(pool, &[]), (300_000, Some(300)));
    assert_eq!(task(pool, &["--task-seconds", "40"]), (40_000, Some(300)));
    assert_eq!(task(pool, &["--drain-deadline", "60"]), (300_000, Some(300)));
    assert_eq!(
        task(pool, &["--drain-deadline", "60", "--task-seconds", "40"]),
        (40_000, Some(40))
    );
    assert_eq!(task("{estimates: {taskSeconds: 300}}", &[]), (300_000, None));
    assert_eq!(task("{}", &[]), (90_000, None));
    assert_eq!(task("{}", &["--drain-deadline", "60"]), (90_000, Some(90)));
}

/// Lag check period, time after which a reading is stale, and both stabilization windows.
fn times(scaling: &str, arguments: &[&str]) -> [Duration; 4] {
    let role = scenario(scaling, arguments).expect("a scenario").role;
    let policy = role.policy_with(Estimates::default());
    [
        role.lag_check_period,
        policy.stale_after,
        policy.stabilization,
        policy.last_replica_stabilization,
    ]
}

#[test]
fn times_are_the_pools_unless_the_arguments_set_them() {
    let pool = "{lagCheckPeriodSeconds: 4, \
                scaleDown: {stabilizationWindowSeconds: 60, lastReplicaStabilizationWindowSeconds: 600}}";
    let seconds = |times: [f64; 4]| times.map(Duration::from_secs_f64);
    assert_eq!(times(pool, &[]), seconds([4.0, 22.0, 60.0, 600.0]));
    assert_eq!(
        times(
            pool,
            &["--lag-check-seconds", "0.5", "--stabilization-window", "30"]
        ),
        seconds([0.5, 11.5, 30.0, 30.0])
    );
    assert_eq!(
        times(pool, &["--last-replica-stabilization-window", "900"]),
        seconds([4.0, 22.0, 60.0, 900.0])
    );
}

#[test]
fn known_times_are_the_pools_else_those_of_the_trace_and_the_start_up() {
    let times = |scaling: &str, arguments: &[&str]| match scenario(scaling, arguments).expect("a scenario") {
        Scenario {
            estimates: EstimateSource::Given(estimates),
            ..
        } => [estimates.startup, estimates.task, estimates.task_tail].map(|time| time.as_secs()),
        _ => panic!("learned"),
    };
    let burst = [
        "--tasks-per-hour",
        "0",
        "--hours",
        "0",
        "--burst",
        "1000",
        "--start-up",
        "8.5",
    ];
    let [startup, task, tail] = times("{}", &burst);
    assert_eq!(startup, 11);
    // Uniform from 45 s to 135 s.
    assert!(
        (85..95).contains(&task) && (129..132).contains(&tail),
        "{task} {tail}"
    );
    let declared = "{estimates: {taskSeconds: 60, startupSeconds: 30}}";
    assert_eq!(times(declared, &burst)[..2], [30, 60]);
    assert_eq!(times(declared, &["--task-tail-seconds", "70"]), [30, 60, 70]);
    let learned = scenario("{}", &["--learn"]).expect("a scenario");
    assert_eq!(learned.estimates, EstimateSource::Learned);
}

#[test]
fn compared_policies_have_the_pools_target_where_it_is_of_their_type() {
    let all = "pool,tasks-per-replica,drain-deadline,start-deadline,keda,optimum";
    let compared = |arguments: &[&str]| {
        let policies = ["simulate", "--policies", all];
        let command = Command::parse_from(policies.iter().chain(arguments));
        let scenario = command.arguments.scenario().expect("a scenario");
        let policies = command.arguments.compared(&scenario);
        policies
            .iter()
            .map(ComparedPolicy::to_string)
            .collect::<Vec<_>>()
            .join("; ")
    };
    assert_eq!(
        compared(&["--start-up", "90"]),
        "TasksPerReplica 1; TasksPerReplica 1; DrainDeadline 600 s; StartDeadline 90 s; \
         KEDA, modeled from its source; optimum in hindsight"
    );
    let with_target = |arguments: &[&str]| compared(arguments).split("; KEDA").next().map(str::to_owned);
    assert_eq!(
        with_target(&["--start-deadline", "45"]).as_deref(),
        Some("StartDeadline 45 s; TasksPerReplica 1; DrainDeadline 600 s; StartDeadline 45 s")
    );
    assert_eq!(
        with_target(&["--drain-deadline", "300"]).as_deref(),
        Some("DrainDeadline 300 s; TasksPerReplica 1; DrainDeadline 300 s; StartDeadline 60 s")
    );
}

#[test]
fn a_written_trace_is_read_again() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("trace.csv");
    let path = file.to_str().expect("a path");
    let genai = ["simulate", "--synthetic", "genai", "--days", "3"];
    let written = Command::parse_from(genai.iter().chain(&["--write-trace", path]));
    written.arguments.run().expect("a file");
    let read = Command::parse_from(["simulate", "--trace", path])
        .arguments
        .scenario();
    let generated = Command::parse_from(genai).arguments.scenario();
    assert_eq!(
        read.expect("a scenario").trace,
        generated.expect("a scenario").trace
    );
}

#[test]
fn only_a_start_deadline_is_explained() {
    let run = |arguments: &[&str]| {
        let explain = ["simulate", "--hours", "1", "--explain", "--at", "10"];
        Command::parse_from(explain.iter().chain(arguments))
            .arguments
            .run()
    };
    let error = run(&[]).expect_err("no schedule").to_string();
    assert!(error.contains("TasksPerReplica 1 has no schedule"), "{error}");
    let text = run(&["--start-deadline", "60"]).expect("a schedule");
    assert!(text.starts_with("decision at 10 s: "), "{text}");
}

#[test]
fn a_disabled_role_is_not_simulated() {
    let error = scenario("{}", &["--role", "uploader"])
        .map(drop)
        .expect_err("refused");
    assert!(
        error.to_string().contains("spec.uploader.enabled is false"),
        "{error}"
    );
}
