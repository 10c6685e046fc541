//! Tests of validation.

use std::num::NonZeroU32;
use std::time::Duration;

use super::*;
use crate::crd::from_yaml;
use crate::crd::{ModelSpec, ScaleDownSpec, TargetKind, TargetSpec};
use crate::decide::{Mode, Target};

const FULL: &str = include_str!("../../tests/pools/full.yaml");

fn full() -> SeparationPool {
    from_yaml(FULL).expect("a pool")
}

#[test]
fn the_full_example_becomes_a_plan() {
    let plan = PoolPlan::from_pool(&full()).expect("a plan");
    assert_eq!(plan.id.to_string(), "media/vocals");
    assert_eq!(plan.kafka.security_protocol(), "SASL_SSL");
    assert_eq!(plan.processor.task_timeout, Duration::from_secs(570));
    assert_eq!(plan.uploader.task_timeout, Duration::from_secs(270));
    assert_eq!(plan.processor.dead_letter_topic, "uvr_tasks_dead_letters");
    assert_eq!(plan.processor.max_retries, 2);
    let policy = &plan.processor.policy;
    assert_eq!(
        (policy.limits.min(), policy.limits.max(), policy.mode),
        (0, 8, Mode::Auto)
    );
    assert_eq!(
        policy.target,
        Target::DrainDeadline {
            within_seconds: NonZeroU32::new(600).unwrap(),
            task_seconds: NonZeroU32::new(90).unwrap(),
        }
    );
    assert_eq!(
        plan.uploader.policy.target,
        Target::TasksPerReplica(NonZeroU32::MIN)
    );
    assert_eq!(policy.rebalance_hold, Duration::from_secs(25));
}

#[test]
fn the_last_replica_has_a_stabilization_window_of_its_own() {
    let windows = |others, last| {
        let mut pool = full();
        pool.spec.processor.role.scaling.scale_down = Some(ScaleDownSpec {
            stabilization_window_seconds: others,
            last_replica_stabilization_window_seconds: last,
        });
        let policy = PoolPlan::from_pool(&pool).expect("a plan").processor.policy;
        [policy.stabilization, policy.last_replica_stabilization].map(|window| window.as_secs())
    };
    assert_eq!(windows(None, None), [120, 120]);
    assert_eq!(windows(Some(30), None), [30, 30]);
    assert_eq!(windows(Some(30), Some(600)), [30, 600]);
    assert_eq!(windows(None, Some(0)), [120, 0]);
}

#[test]
fn an_absent_model_and_target_are_the_operators_defaults() {
    let mut pool = full();
    pool.spec.processor.model = None;
    pool.spec.processor.role.scaling.target = None;
    let plan = PoolPlan::from_pool(&pool).expect("a plan");
    assert_eq!(plan.model, None);
    assert_eq!(
        plan.processor.policy.target,
        Target::TasksPerReplica(NonZeroU32::MIN)
    );
}

#[test]
fn a_model_has_one_source_and_a_checksum_if_it_is_downloaded() {
    let check = |model: ModelSpec, expected: Result<Model, &str>| {
        let mut pool = full();
        pool.spec.processor.model = Some(model);
        match (PoolPlan::from_pool(&pool), expected) {
            (Ok(plan), expected) => assert_eq!(plan.model.ok_or(""), expected),
            (Err(problems), expected) => {
                let expected = expected.expect_err("it is valid");
                assert!(problems.to_string().contains(expected), "{problems}");
            }
        }
    };
    let uri = Some("s3://models/a.onnx".to_owned());
    let sha256 = Some("0f".repeat(32));
    let of_file = ModelSpec {
        path: Some("/models/a.onnx".into()),
        ..ModelSpec::default()
    };
    let downloaded = ModelSpec {
        uri: uri.clone(),
        sha256: sha256.clone(),
        ..ModelSpec::default()
    };
    check(of_file.clone(), Ok(Model::named("/models/a.onnx")));
    check(
        downloaded.clone(),
        Ok(Model {
            name: "s3://models/a.onnx".into(),
            sha256: sha256.clone(),
        }),
    );
    let unchecked = ModelSpec {
        sha256: None,
        ..downloaded
    };
    check(unchecked, Err("spec.processor.model.sha256"));
    check(
        ModelSpec {
            uri,
            ..of_file.clone()
        },
        Err("set exactly one of name, path"),
    );
    check(
        ModelSpec { sha256, ..of_file },
        Err("set exactly one of name, path"),
    );
    check(ModelSpec::default(), Err("set exactly one of name, path"));
}

#[test]
fn all_problems_are_reported_together() {
    let mut pool = full();
    pool.spec.kafka.bootstrap_servers = "kafka".into();
    let storage = &mut pool.spec.storage;
    storage.s3.endpoint = Some("s3:9000".into());
    storage.s3.public_endpoint = Some("s3.example".into());
    storage.stems.retention_days = Some(0);
    storage
        .inputs
        .as_mut()
        .expect("the full pool has it")
        .retention_days = Some(4_000);
    storage.staging.persistent_volume_claim = None;
    let api = pool.spec.api.as_mut().expect("the full pool has one");
    api.public_url = Some("songs.example".into());
    api.max_input_seconds = Some(-1);
    let processor = &mut pool.spec.processor;
    processor.model.as_mut().expect("the full pool has one").name = Some("builtin".into());
    processor.role.consumer.heartbeat_interval_ms = 60_000;
    processor.role.scaling.max_replicas = -1;
    processor.role.scaling.lag_check_period_seconds = 0;
    pool.spec.uploader.scaling.min_replicas = 9;
    pool.spec.uploader.scaling.target = Some(TargetSpec {
        kind: TargetKind::DrainDeadline,
        tasks_per_replica: None,
        drain_deadline_seconds: Some(60),
    });
    pool.spec.uploader.max_retries = -1;
    let problems = PoolPlan::from_pool(&pool).unwrap_err();
    insta::assert_snapshot!(problems);
}
