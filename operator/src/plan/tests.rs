//! Tests of validation.

use std::num::NonZeroU32;
use std::time::Duration;

use separation_contract::failure_policy::FailurePolicy;

use super::*;
use crate::crd::from_yaml;
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
    assert_eq!(plan.processor.on_failure, FailurePolicy::RetryOnFailure(2));
    let policy = &plan.processor.policy;
    assert_eq!(
        (policy.limits.min(), policy.limits.max(), policy.mode),
        (0, 8, Mode::Active)
    );
    assert_eq!(
        policy.target,
        Target::DrainWithin {
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
fn a_poll_interval_may_be_a_fraction_of_a_second() {
    let mut pool = full();
    pool.spec.processor.scaling.poll_interval_seconds = 0.25;
    let plan = PoolPlan::from_pool(&pool).expect("a plan");
    assert_eq!(plan.processor.poll_interval, Duration::from_millis(250));
}

#[test]
fn all_problems_are_reported_together() {
    let mut pool = full();
    pool.spec.kafka.bootstrap_servers = "kafka".into();
    pool.spec.storage.s3.endpoint = Some("s3:9000".into());
    pool.spec.model.name = Some("builtin".into());
    pool.spec.processor.heartbeat_interval_ms = 60_000;
    pool.spec.processor.scaling.max_replicas = -1;
    pool.spec.processor.scaling.poll_interval_seconds = f64::NAN;
    pool.spec.uploader.scaling.min_replicas = 9;
    pool.spec.uploader.scaling.target.tasks_per_replica = None;
    pool.spec.uploader.on_failure.max_retries = Some(1);
    let problems = PoolPlan::from_pool(&pool).unwrap_err();
    insta::assert_snapshot!(problems);
}
