//! Invalid values are refused before anything is installed, with the field and the problem.

use serde_json::{Value, json};

use super::{refusal, with_api};

fn check(values: &Value, expected: &[&str]) {
    let message = refusal(values);
    for part in expected {
        assert!(
            message.contains(part),
            "`{part}` is not in what {values} gives:\n{message}"
        );
    }
}

#[test]
fn unknown_values_are_named() {
    check(&json!({"replica": 2}), &["replica"]);
    check(&json!({"image": {"repo": "x"}}), &["/image", "repo"]);
    check(
        &json!({"settings": {"lease": {"seconds": 1}}}),
        &["/settings/lease", "seconds"],
    );
    check(
        &with_api(&json!({"api": {"storage": {"s3": {"buket": "x"}}}})),
        &["/api/storage/s3", "buket"],
    );
}

#[test]
fn invalid_values_are_named_with_the_allowed_ones() {
    check(&json!({"replicas": "two"}), &["/replicas", "integer"]);
    check(&json!({"replicas": -1}), &["/replicas", "0"]);
    check(
        &json!({"watchNamespaces": "media"}),
        &["/watchNamespaces", "array"],
    );
    check(
        &json!({"watchNamespaces": ["a.b"]}),
        &["/watchNamespaces/0", "a.b"],
    );
    check(&json!({"image": {"digest": "abc"}}), &["/image/digest", "sha256"]);
    check(
        &json!({"image": {"pullPolicy": "Sometimes"}}),
        &["/image/pullPolicy", "IfNotPresent"],
    );
    check(
        &json!({"worker": {"allowInOverrides": ["everything"]}}),
        &["/worker/allowInOverrides/0", "host-path"],
    );
    check(
        &json!({"settings": {"shutdownSeconds": 60}}),
        &["/settings/shutdownSeconds", "25"],
    );
    check(
        &json!({"settings": {"logFormat": "xml"}}),
        &["/settings/logFormat", "json"],
    );
    check(
        &with_api(&json!({"api": {"kafka": {"bootstrapServers": "kafka"}}})),
        &["/api/kafka/bootstrapServers"],
    );
    check(
        &with_api(&json!({"api": {"kafka": {"sasl": {"mechanism": "SCRAM-SHA-512"}}}})),
        &["/api/kafka/sasl", "secretRef"],
    );
}

#[test]
fn missing_values_of_the_api_are_all_reported_with_a_fix() {
    check(
        &json!({"api": {"enabled": true}}),
        &[
            "api.kafka.bootstrapServers is empty; fix: ",
            "api.storage.s3.bucket is empty; fix: ",
            "api.storage.work: songs are staged in one place; fix: ",
            "api.auth.secretRef.name is empty, so anyone could post songs; fix: ",
        ],
    );
}

#[test]
fn conflicting_values_are_refused() {
    check(
        &with_api(&json!({"api": {"storage": {"work": {"persistentVolumeClaim": {"claimName": "w"}}}}})),
        &["set exactly one of s3Prefix and persistentVolumeClaim"],
    );
    check(
        &with_api(&json!({"api": {"kafka": {"sasl": {"mechanism": "PLAIN", "secretRef": {"name": "k"}}}}})),
        &["PLAIN sends the password in clear text"],
    );
    check(
        &with_api(&json!({"api": {"ingress": {"enabled": true}}})),
        &["api.ingress.hosts is empty"],
    );
    check(
        &json!({"api": {"ingress": {"enabled": true, "hosts": [{"host": "h"}]}}}),
        &["set api.enabled too"],
    );
}
