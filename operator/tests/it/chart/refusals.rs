//! Wrong values are refused before anything is installed, in words that say where and what.

use serde_json::{Value, json};

use super::{refusal, with_api};

fn check(values: &Value, says: &[&str]) {
    let said = refusal(values);
    for part in says {
        assert!(
            said.contains(part),
            "`{part}` is not in what {values} gives:\n{said}"
        );
    }
}

#[test]
fn what_is_misspelt_is_named() {
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
fn what_is_no_value_is_named_with_what_would_be_one() {
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
fn an_api_that_lacks_something_says_all_of_it_with_the_fix() {
    check(
        &json!({"api": {"enabled": true}}),
        &[
            "api.kafka.bootstrapServers is empty; fix: ",
            "api.storage.s3.bucket is empty; fix: ",
            "api.storage.work: songs wait in one place; fix: ",
            "api.auth.secretRef.name is empty, and anybody could post songs; fix: ",
        ],
    );
}

#[test]
fn what_does_not_go_together_is_refused() {
    check(
        &with_api(&json!({"api": {"storage": {"work": {"persistentVolumeClaim": {"claimName": "w"}}}}})),
        &["set exactly one of s3Prefix and persistentVolumeClaim"],
    );
    check(
        &with_api(&json!({"api": {"kafka": {"sasl": {"mechanism": "PLAIN", "secretRef": {"name": "k"}}}}})),
        &["PLAIN sends the password as it is"],
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
