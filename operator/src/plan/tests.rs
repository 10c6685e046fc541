//! Tests of validation.

use std::num::NonZeroU32;
use std::time::Duration;

use super::*;
use crate::crd::from_yaml;
use crate::crd::{EstimatesSpec, ModelSpec, ScaleDownSpec, TargetKind, TargetSpec};
use crate::decide::{DeclaredEstimates, Estimates, Mode, Target};

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

/// A role that begins each task within a minute.
fn with_start_deadline(estimates: EstimatesSpec, windows: [Option<i32>; 2]) -> RolePlan {
    let mut pool = full();
    let scaling = &mut pool.spec.processor.role.scaling;
    scaling.target = Some(TargetSpec {
        kind: TargetKind::StartDeadline,
        tasks_per_replica: None,
        drain_deadline_seconds: None,
        start_deadline_seconds: Some(60),
    });
    scaling.estimates = Some(estimates);
    scaling.scale_down = Some(ScaleDownSpec {
        stabilization_window_seconds: windows[0],
        last_replica_stabilization_window_seconds: windows[1],
    });
    PoolPlan::from_pool(&pool).expect("a plan").processor
}

#[test]
fn a_start_deadline_needs_no_estimates_and_keeps_those_of_the_spec() {
    let seconds = Duration::from_secs;
    let learning = with_start_deadline(EstimatesSpec::default(), [None; 2]);
    let deadline = seconds(60);
    assert_eq!(learning.policy.target, Target::StartDeadline { deadline });
    assert_eq!(learning.declared, DeclaredEstimates::default());
    let estimates = EstimatesSpec {
        task_seconds: Some(23),
        startup_seconds: Some(20),
    };
    let declared = with_start_deadline(estimates, [None; 2]);
    let expected = DeclaredEstimates {
        task: Some(seconds(23)),
        startup: Some(seconds(20)),
    };
    assert_eq!(declared.declared, expected);
    // Before the first start-up is observed, the windows follow from the declared time.
    assert_eq!(
        [
            declared.policy.stabilization,
            declared.policy.last_replica_stabilization
        ],
        [seconds(60), seconds(120)]
    );
}

#[test]
fn windows_of_a_start_deadline_follow_the_start_up_time_unless_the_spec_sets_them() {
    let windows = |startup: u64, windows: [Option<i32>; 2]| {
        let plan = with_start_deadline(EstimatesSpec::default(), windows);
        let policy = plan.policy_with(Estimates {
            startup: Duration::from_secs(startup),
            ..Estimates::default()
        });
        [policy.stabilization, policy.last_replica_stabilization].map(|window| window.as_secs())
    };
    for (startup, expected) in [
        (0, [60, 120]),
        (20, [60, 120]),
        (30, [90, 120]),
        (31, [93, 124]),
        (60, [180, 240]),
        (180, [180, 240]),
    ] {
        assert_eq!(windows(startup, [None, None]), expected, "{startup}");
    }
    assert_eq!(windows(40, [Some(30), None]), [30, 30]);
    assert_eq!(windows(40, [None, Some(0)]), [120, 0]);
    assert_eq!(windows(40, [Some(30), Some(600)]), [30, 600]);
    // The other targets do not depend on it.
    let drain = PoolPlan::from_pool(&full()).expect("a plan").processor;
    assert_eq!(drain.policy_with(Estimates::default()), drain.policy);
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

const MSK: &str = "b-1.songs.abc.c2.kafka.eu-central-1.amazonaws.com:9098";

/// The plan of a pool with these brokers, and these other fields of `spec.kafka`.
fn kafka(servers: &str, fields: &str) -> Result<KafkaPlan, Problems> {
    let text = format!(
        "
apiVersion: separation.dev/v1beta1
kind: SeparationPool
metadata: {{name: vocals, namespace: media}}
spec:
  kafka: {{bootstrapServers: '{servers}', {fields}}}
  storage: {{stems: {{bucket: stems}}, staging: {{s3: {{}}}}}}
"
    );
    PoolPlan::from_pool(&from_yaml(&text).expect("a pool")).map(|plan| plan.kafka)
}

/// As [`kafka`], with tokens.
fn with_tokens(oauth: &str) -> Result<KafkaPlan, Problems> {
    let sasl = format!("sasl: {{mechanism: OAUTHBEARER, oauth: {{{oauth}}}}}");
    kafka("k:1", &format!("tls: {{}}, {sasl}"))
}

#[test]
fn each_kind_of_credentials_has_its_secrets() {
    let msk = kafka(MSK, "tls: {}, sasl: {mechanism: AWS_MSK_IAM}");
    let certificate = kafka("k:1", "tls: {clientCertificateSecretRef: {name: user}}");
    let password = kafka("k:1", "sasl: {username: ann, passwordSecretRef: {name: ann}}");
    let client = with_tokens(
        "tokenEndpoint: 'https://login.example/token', clientIDSecretRef: {name: client}, \
         clientSecretRef: {name: client}, trustedCertificateSecretRefs: [{name: idp-ca}]",
    );
    for (plan, secrets) in [
        (kafka("k:1", ""), ""),
        (certificate, "user/tls.crt user/tls.key"),
        (password, "ann/password"),
        (client, "client/clientID client/clientSecret idp-ca/ca.crt"),
        (with_tokens("serviceAccountToken: {audience: kafka}"), ""),
        (msk, ""),
    ] {
        let plan = plan.expect("a plan");
        let keys = plan.secret_keys().into_iter();
        let keys: Vec<String> = keys.map(|key| format!("{}/{}", key.secret, key.key)).collect();
        assert_eq!(keys.join(" "), secrets, "{plan:?}");
    }
}

#[test]
fn a_region_that_is_written_precedes_that_of_the_brokers() {
    let region = |aws: &str| {
        let fields = format!("tls: {{}}, sasl: {{mechanism: AWS_MSK_IAM{aws}}}");
        kafka(MSK, &fields).map(|plan| plan.sasl)
    };
    let of = |region: &str| {
        Ok(Some(SaslPlan::AwsIam {
            region: region.to_owned(),
        }))
    };
    assert_eq!(region(""), of("eu-central-1"));
    assert_eq!(region(", aws: {region: us-east-1}"), of("us-east-1"));
    // It becomes part of the host name that AWS credentials are requested from.
    let refused = region(", aws: {region: evil.example/}").unwrap_err().to_string();
    assert!(
        refused.starts_with("spec.kafka.sasl.aws.region: `evil.example/`"),
        "{refused}"
    );
}

#[test]
fn settings_of_tokens_that_the_schema_cannot_check_are_refused() {
    let refused = |oauth: &str| {
        let client = "clientID: songs, clientSecretRef: {name: client}";
        let plan = with_tokens(&format!("{oauth}, {client}"));
        plan.err().map(|problems| problems.to_string())
    };
    let endpoint = "spec.kafka.sasl.oauth.tokenEndpoint";
    let extensions = "spec.kafka.sasl.oauth.extensions";
    for (oauth, field) in [
        ("tokenEndpoint: 'https://login.example/token?policy=a'", None),
        (
            "tokenEndpoint: 'https://ann:secret@login.example/token'",
            Some(endpoint),
        ),
        ("tokenEndpoint: 'https://login.example/token#a'", Some(endpoint)),
        ("tokenEndpoint: 'https://'", Some(endpoint)),
        (
            "tokenEndpoint: 'https://a/', extensions: {logicalCluster: lkc-1}",
            None,
        ),
        (
            "tokenEndpoint: 'https://a/', extensions: {auth: other}",
            Some(extensions),
        ),
        (
            "tokenEndpoint: 'https://a/', extensions: {logicalCluster: ''}",
            Some(extensions),
        ),
        (
            "tokenEndpoint: 'https://a/', extensions: {logical-cluster: lkc-1}",
            Some(extensions),
        ),
        (
            "tokenEndpoint: 'https://a/', extensions: {logicalCluster: \"a\\x01auth=b\"}",
            Some(extensions),
        ),
    ] {
        let found = refused(oauth);
        let named = found.as_deref().and_then(|problem| problem.split(": ").next());
        assert_eq!(named, field, "{oauth}: {found:?}");
    }
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
        start_deadline_seconds: None,
    });
    pool.spec.uploader.max_retries = -1;
    let problems = PoolPlan::from_pool(&pool).unwrap_err();
    insta::assert_snapshot!(problems);
}
