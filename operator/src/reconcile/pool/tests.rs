//! The status of one pool, without a cluster.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::EnvVar;
use kube::core::DeserializeGuard;
use separation_contract::environment::AWS_REGION;
use separation_kafka::ReadError;
use serde_json::{Value, json};

use super::super::conflicts::shared_groups;
use super::super::group_offsets::tests::{identity, polled};
use super::*;
use crate::decide::{
    Estimates, GroupReading, History, LagReading, Member, MemberWork, Observation, Workload, decide,
};
use crate::names::{client_id, pool_tag};
use crate::plan::Model;
use crate::watch::pool_snapshot;

const NOW: Moment = Moment::from_millis(1_000);

/// A pool whose lag cannot be read, and was last known at midnight.
struct UnreadPool {
    snapshot: PoolSnapshot,
    state: PoolState,
    cache: Cache,
}

impl UnreadPool {
    /// With this spec of its processors and of its S3 server.
    fn new(processor: &Value, s3: &Value) -> Self {
        let role = json!({
            "lag": {"state": "Unknown", "summary": "?", "lastKnownTime": at("00:00:00")},
            "offsets": {"initializedTime": at("00:00:00"), "initialOffset": "Earliest", "partitions": 8},
            "estimates": {"tasks": 700, "taskSeconds": 23, "taskTailSeconds": 70,
                          "starts": 3, "startupSeconds": 40, "updatedTime": at("00:00:00")},
        });
        let object = json!({
            "apiVersion": "separation.dev/v1beta1",
            "kind": "SeparationPool",
            "metadata": {"name": "vocals", "namespace": "media", "uid": "uid", "generation": 2},
            "spec": {
                "kafka": {"bootstrapServers": "kafka:9092"},
                "storage": {"s3": s3, "stems": {"bucket": "stems"}, "staging": {"s3": {}}},
                "processor": processor,
            },
            "status": {"processor": role, "uploader": role},
        });
        let object: DeserializeGuard<SeparationPool> = serde_json::from_value(object).expect("a pool");
        let (id, snapshot) = pool_snapshot(&object);
        let mut state = PoolState::new(&id, &snapshot, NOW);
        state.plan(&snapshot, &settings());
        if let Some(plan) = state.plan.clone() {
            for role in Role::ALL {
                cannot_read(&mut state, &plan, role);
            }
        }
        let cache = Cache::new([None]);
        Self {
            snapshot,
            state,
            cache,
        }
    }

    fn status(&mut self, time: &str) -> SeparationPoolStatus {
        let status = self.state.due_status(&self.cache, &self.snapshot, NOW, &at(time));
        status.expect("a changed status")
    }

    fn is_due(&self, time: &str) -> bool {
        self.state.is_due(NOW, &at(time))
    }
}

fn settings() -> Arc<WorkerSettings> {
    Arc::new(WorkerSettings {
        model: Model::named("builtin"),
        image: "worker".into(),
        image_pull_secrets: Vec::new(),
        allowed: BTreeSet::new(),
        audiences: BTreeSet::new(),
    })
}

fn at(time: &str) -> Time {
    Time(format!("2026-01-01T{time}Z").parse().expect("a time"))
}

fn cannot_read(state: &mut PoolState, plan: &PoolPlan, role: Role) {
    let error = ReadError::new("Secret kafka-user does not exist");
    let observation = Observation {
        lag: LagReading {
            at: NOW,
            lag: Lag::Unknown {
                why: Arc::clone(&error.why),
            },
        },
        group: GroupReading::NotRead,
        workload: Workload::default(),
        conflict: None,
        refusal: None,
        estimates: Estimates::default(),
        queue: None,
    };
    let decision = decide(&plan.role(role).policy, &observation, History::default(), NOW);
    let role = state.role(role);
    role.cannot_read(&error, NOW);
    role.explanation = Some(decision.explanation);
}

/// Status, reason and message of a condition.
fn condition<'a>(status: &'a SeparationPoolStatus, type_: &str) -> (&'a str, &'a str, &'a str) {
    let mut conditions = status.conditions.iter();
    let found = conditions.find(|found| found.type_ == type_);
    let found = found.expect("a condition");
    (&found.status, &found.reason, &found.message)
}

#[test]
fn a_pool_without_readings_is_due_once_its_lag_has_been_unknown_for_five_minutes() {
    let mut pool = UnreadPool::new(&json!({}), &json!({}));
    let status = pool.status("00:04:00");
    assert_eq!(condition(&status, "Ready").0, "True");
    assert!(!pool.is_due("00:05:00"));
    assert!(pool.is_due("00:05:01"));
    let status = pool.status("00:05:01");
    let (ready, reason, _) = condition(&status, "Ready");
    assert_eq!((ready, reason), ("False", "LagUnknown"));
    assert!(!pool.is_due("00:05:02"), "only once");
}

#[test]
fn a_long_grace_period_is_reported_once_for_each_generation() {
    let mut pool = UnreadPool::new(&json!({}), &json!({}));
    let warnings = std::mem::take(&mut pool.state.event_state.warnings);
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(
        warnings[0].starts_with("processor: pods have 630 s"),
        "{warnings:?}"
    );
    pool.state.plan(&pool.snapshot, &settings());
    // Nor by the next leader, once a status was written.
    let status = pool.snapshot.status.as_mut().expect("a status");
    Arc::make_mut(status).observed_generation = Some(2);
    let mut next = PoolState::new(&pool.state.id, &pool.snapshot, NOW);
    next.plan(&pool.snapshot, &settings());
    for state in [&pool.state, &next] {
        assert_eq!(state.event_state.warnings, Vec::<String>::new());
    }
    let short = UnreadPool::new(&json!({"drainSeconds": 25}), &json!({}));
    assert_eq!(short.state.event_state.warnings, Vec::<String>::new());
}

#[test]
fn the_effective_region_is_the_one_that_workers_get() {
    for (s3, expected) in [
        (json!({}), None),
        (json!({"endpoint": "http://s3:9000"}), Some("auto")),
        (
            json!({"endpoint": "http://s3:9000", "region": "us-east-1"}),
            Some("us-east-1"),
        ),
    ] {
        let mut pool = UnreadPool::new(&json!({}), &s3);
        let processor = pool.status("00:04:00").processor.expect("a processor");
        let effective = processor.effective.expect("settings").region;
        assert_eq!(effective, expected.unwrap_or_default());
        let plan = pool.state.plan.as_ref().expect("a plan");
        let given = crate::apply::variables(plan, &plan.processor, &Model::named("builtin"), None);
        let is_region = |variable: &EnvVar| variable.name == AWS_REGION;
        let given = given.into_iter().find(is_region);
        let given = given.and_then(|variable| variable.value);
        assert_eq!(given.as_deref(), expected, "{s3}");
    }
}

#[test]
fn malformed_fields_without_a_schema_stall_a_pool_that_keeps_its_offsets() {
    let malformed = json!({
        "affinity": {"nodeAffinity": "gpu"},
        "env": [{"name": "TOKEN", "valueFrom": {"secretKeyRef": "token"}}],
    });
    let mut pool = UnreadPool::new(&malformed, &json!({}));
    let status = pool.status("00:04:00");
    let (stalled, reason, message) = condition(&status, "Stalled");
    assert_eq!((stalled, reason), ("True", "InvalidSpec"));
    let problems: Vec<&str> = message.lines().collect();
    assert_eq!(problems.len(), 2, "{message}");
    for (problem, field, path) in [
        (problems[0], "affinity", "pod.spec.affinity"),
        (
            problems[1],
            "env[TOKEN].valueFrom",
            "pod.spec.containers.env.valueFrom",
        ),
    ] {
        assert!(
            problem.starts_with(&format!("spec.processor.{field}: is not a valid ")),
            "{problem}"
        );
        let fix = format!("; fix: compare it with kubectl explain {path}");
        assert!(problem.ends_with(&fix), "{problem}");
    }
    for role in Role::ALL {
        let kept = role_status(&status, role).expect("a role");
        assert!(kept.offsets.is_some() && pool.state.role_ref(role).adoption().is_some());
    }
}

#[test]
fn learned_times_are_those_of_the_leader_before_also_of_a_disabled_role() {
    for is_enabled in [true, false] {
        let mut pool = UnreadPool::new(&json!({"enabled": is_enabled}), &json!({}));
        let before = pool.snapshot.status.clone().expect("a status");
        let after = pool.status("00:04:00");
        for role in Role::ALL {
            let estimates = |status: &SeparationPoolStatus| role_status(status, role)?.estimates.clone();
            assert_eq!(estimates(&after), estimates(&before));
            assert_eq!(pool.state.role_ref(role).learning.summary().tasks, 700);
        }
    }
}

#[test]
fn a_disabled_role_has_no_metrics_and_one_that_is_not_read_has_unknown_lag() {
    let mut pool = UnreadPool::new(&json!({}), &json!({}));
    let plan = pool.state.plan.clone().expect("a plan");
    let metrics = Metrics::new();
    let lag_known = || {
        let series = r#"separation_pool_lag_known{namespace="media",pool="vocals",role="processor"} "#;
        let text = String::from_utf8(metrics.text()).expect("text");
        text.lines()
            .find_map(|line| line.strip_prefix(series).map(str::to_owned))
    };
    read_group(&mut pool.state, &plan, None);
    pool.state.update_metrics(Role::Processor, &metrics, NOW);
    assert_eq!(lag_known().as_deref(), Some("1"));
    pool.state.stop_reading();
    assert_eq!(lag_known().as_deref(), Some("0"));
    let disabled = UnreadPool::new(&json!({"enabled": false}), &json!({}));
    pool.state.plan = disabled.state.plan;
    pool.state.update_metrics(Role::Processor, &metrics, NOW);
    assert_eq!(lag_known(), None);
}

/// A pool that has initialized the offsets of its group, which other pools name too.
fn user_of_group(namespace: &str, created: &str) -> (Arc<PoolId>, PoolSnapshot) {
    let object = json!({
        "apiVersion": "separation.dev/v1beta1",
        "kind": "SeparationPool",
        "metadata": {
            "name": "vocals", "namespace": namespace, "uid": namespace, "creationTimestamp": created,
        },
        "spec": {
            "kafka": {"bootstrapServers": "kafka:9092"},
            "storage": {"stems": {"bucket": "stems"}, "staging": {"s3": {}}},
            "processor": {"consumerGroup": "separators"},
        },
        "status": {"processor": {"offsets": {
            "initializedTime": created, "initialOffset": "Earliest", "partitions": 1,
            "clusterID": "one", "topicID": "topic", "consumerGroup": "separators",
        }}},
    });
    let object: DeserializeGuard<SeparationPool> = serde_json::from_value(object).expect("a pool");
    pool_snapshot(&object)
}

/// Applies a reading of the processors' group with this member.
fn read_group(pool: &mut PoolState, plan: &PoolPlan, member: Option<&str>) {
    let members = member.into_iter().map(|client_id| Member {
        pod: client_id.into(),
        work: MemberWork::Partitions(vec![0]),
    });
    let group = GroupReading::Stable {
        at: NOW,
        members: members.collect(),
    };
    let offsets = &pool.role_ref(Role::Processor).offsets;
    let topic = identity("one", "topic");
    let polled = polled(offsets, &plan.processor, topic, &[Some(3)], group, NOW);
    pool.read(polled, plan, &at("00:00:00"));
}

#[test]
fn a_pool_whose_workers_were_members_holds_a_copy_also_without_replicas_and_after_a_restart() {
    let (id, mut snapshot) = user_of_group("media", "2026-01-01T00:00:00Z");
    let (copy_id, copy_snapshot) = user_of_group("copies", "2025-01-01T00:00:00Z");
    let plan = snapshot.plan.clone().expect("a plan");
    let mut pool = PoolState::new(&id, &snapshot, NOW);
    let mut copy = PoolState::new(&copy_id, &copy_snapshot, NOW);
    let held = |pool: &PoolState, snapshot: &PoolSnapshot, copy: &PoolState| {
        let uses = |state: &PoolState| state.group_uses(&plan, GroupProof::Members);
        let held = shared_groups([
            (&id, snapshot, uses(pool)),
            (&copy_id, &copy_snapshot, uses(copy)),
        ]);
        let held: Vec<String> = held.keys().map(ToString::to_string).collect();
        held
    };
    let worker = client_id("vocals-processor-5c7-x2x", &pool_tag("media"));
    // The members of another pool prove nothing.
    read_group(&mut copy, &plan, Some(&worker));
    assert_eq!(held(&pool, &snapshot, &copy), Vec::<String>::new());
    for member in [Some(worker.as_str()), None] {
        read_group(&mut pool, &plan, member);
        read_group(&mut copy, &plan, member);
        assert_eq!(held(&pool, &snapshot, &copy), ["copies/vocals processor"]);
    }
    let status = snapshot.status.as_mut().map(Arc::make_mut).expect("a status");
    let processor = status.processor.as_mut().expect("a role");
    processor.offsets = pool.role_ref(Role::Processor).adoption().cloned();
    let restarted = PoolState::new(&id, &snapshot, NOW);
    assert_eq!(held(&restarted, &snapshot, &copy), ["copies/vocals processor"]);
}
