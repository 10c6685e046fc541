//! Tests of what pods need for Kafka besides variables: certificates, tokens, and time to release a task.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::*;
use crate::crd::from_value;
use crate::plan::Model;
use crate::settings::Allowance;

fn settings() -> WorkerSettings {
    WorkerSettings {
        image: "separation-worker:test".into(),
        image_pull_secrets: Vec::new(),
        model: Model::named("builtin"),
        allowed: BTreeSet::new(),
        audiences: BTreeSet::from(["kafka".to_owned()]),
    }
}

/// A pool with this `oauth` and this spec of its processors.
fn plan(oauth: &Value, processor: &Value) -> Arc<PoolPlan> {
    let pool = from_value(json!({
        "apiVersion": "separation.dev/v1beta1",
        "kind": "SeparationPool",
        "metadata": {"name": "vocals", "namespace": "media"},
        "spec": {
            "kafka": {
                "bootstrapServers": "k:1",
                "tls": {},
                "sasl": {"mechanism": "OAUTHBEARER", "oauth": oauth},
            },
            "storage": {"stems": {"bucket": "stems"}, "staging": {"s3": {}}},
            "processor": processor,
            "api": {"basicAuthSecretRef": {"name": "api"}},
        },
    }));
    Arc::new(PoolPlan::from_pool(&pool.expect("a pool")).expect("a plan"))
}

#[test]
fn only_tokens_of_listed_audiences_are_mounted_unless_any_is_allowed() {
    let plan = plan(&json!({"serviceAccountToken": {"audience": "vault"}}), &json!({}));
    let built = |settings: WorkerSettings| {
        let api = plan.api.as_ref().expect("an API");
        let api = api_objects(&plan, api, None, &settings, None).map(drop);
        let manifest = Manifest::new(Arc::clone(&plan), Role::Processor, Arc::new(settings));
        [api, manifest.deployment(0).map(drop)]
    };
    for refused in built(settings()) {
        let refused = refused.expect_err("refused").to_string();
        assert!(
            refused.starts_with("spec.kafka.sasl.oauth.serviceAccountToken.audience: ")
                && refused.contains("fix: add it to identity.audiences"),
            "{refused}"
        );
    }
    let allowed = WorkerSettings {
        allowed: BTreeSet::from([Allowance::ServiceAccount]),
        ..settings()
    };
    assert_eq!(built(allowed), [Ok(()), Ok(())]);
}

fn deployment(plan: &Arc<PoolPlan>, role: Role) -> Result<Deployment, Problems> {
    Manifest::new(Arc::clone(plan), role, Arc::new(settings())).deployment(0)
}

/// The pods of both roles and of the API.
fn pods(plan: &Arc<PoolPlan>) -> [Value; 3] {
    let api = plan.api.as_ref().expect("an API");
    let api = api_objects(plan, api, None, &settings(), None).expect("an API");
    let workers = Role::ALL.map(|role| deployment(plan, role).expect("a Deployment"));
    let [processor, uploader] = workers;
    [processor, uploader, api.deployment]
        .map(|deployment| serde_json::to_value(deployment.spec.template.spec).expect("JSON"))
}

/// Checks that all pods have a volume, read-only at a path.
fn check(oauth: &Value, name: &str, path: &str, sources: &Value) {
    let volume = json!({"name": name, "projected": {"defaultMode": 0o440, "sources": sources}});
    let mount = json!({"name": name, "mountPath": path, "readOnly": true});
    for pod in pods(&plan(oauth, &json!({}))) {
        let volumes = pod["volumes"].as_array().expect("a list");
        assert!(volumes.contains(&volume), "{volumes:?}");
        let mounts = pod["containers"][0]["volumeMounts"].as_array().expect("a list");
        assert!(mounts.contains(&mount), "{mounts:?}");
        // No token for the API server.
        assert_eq!(pod["automountServiceAccountToken"], false);
    }
}

#[test]
fn a_service_account_token_is_only_for_the_brokers() {
    check(
        &json!({"serviceAccountToken": {"audience": "kafka", "expirationSeconds": 600}}),
        "kafka-token",
        "/etc/separation/kafka-token",
        &json!([{"serviceAccountToken": {"audience": "kafka", "expirationSeconds": 600, "path": "token"}}]),
    );
}

#[test]
fn each_certificate_of_a_token_endpoint_is_a_file() {
    let file = |name: &str, path: &str| json!({"secret": {"name": name, "items": [{"key": "ca.crt", "path": path}]}});
    check(
        &json!({
            "tokenEndpoint": "https://login.example/token",
            "clientID": "songs",
            "clientSecretRef": {"name": "client"},
            "trustedCertificateSecretRefs": [{"name": "old"}, {"name": "new"}],
        }),
        "kafka-oauth-ca",
        OAUTH_CA_PATH,
        &json!([file("old", "0.crt"), file("new", "1.crt")]),
    );
}

#[test]
fn a_pod_template_keeps_the_token_and_cannot_replace_it() {
    let with_template = |template: Value| {
        let oauth = json!({"serviceAccountToken": {"audience": "kafka"}});
        let plan = plan(&oauth, &json!({"podTemplate": template}));
        deployment(&plan, Role::Processor)
    };
    let labels = json!({"metadata": {"labels": {"team": "audio"}}});
    assert!(with_template(labels).is_ok());
    // A token without an audience is one for the API server.
    let source = json!({"serviceAccountToken": {"path": "token"}});
    let volume = json!({"name": "kafka-token", "projected": {"sources": [source]}});
    let refused = with_template(json!({"spec": {"volumes": [volume]}})).unwrap_err();
    let refused = refused.to_string();
    assert!(
        refused.contains("--allow-in-pod-template service-account"),
        "{refused}"
    );
}

#[test]
fn a_limited_drain_shortens_the_grace_period_of_processors() {
    let oauth = json!({"serviceAccountToken": {"audience": "kafka"}});
    let grace = |processor: Value| {
        let pods = pods(&plan(&oauth, &processor));
        pods.map(|pod| pod["terminationGracePeriodSeconds"].clone())
    };
    assert_eq!(grace(json!({})), [json!(630), json!(330), json!(90)]);
    assert_eq!(
        grace(json!({"drainSeconds": 25})),
        [json!(30), json!(330), json!(90)]
    );
}
