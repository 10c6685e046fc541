//! Invalid values are refused before anything is installed, with the field and the problem.

use serde_json::{Value, json};

use super::refusal;

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
        &json!({"worker": {"image": {"pullPolicy": "Always"}}}),
        &["/worker/image", "pullPolicy"],
    );
    // The API of a pool is part of its spec.
    check(&json!({"api": {"enabled": true}}), &["api"]);
}

#[test]
fn images_of_the_placeholder_registry_are_named_with_the_values_to_set() {
    for (values, image) in [
        (
            json!({"image": {"repository": "registry.example/songs/o"}}),
            "registry.example/songs/o",
        ),
        (
            json!({"worker": {"image": {"repository": "registry.example/w"}}}),
            "registry.example/w",
        ),
    ] {
        let message = format!("{image}: registry.example is a placeholder, not a registry; fix: ");
        check(
            &values,
            &[&message, "image.repository and worker.image.repository"],
        );
    }
    let digest = format!("sha256:{}", "0123456789abcdef".repeat(4));
    let by_digest = json!({"image": {"repository": "registry.example/o", "digest": digest}});
    check(&by_digest, &["registry.example is a placeholder"]);
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
        &json!({"worker": {"allowInPodTemplate": ["everything"]}}),
        &["/worker/allowInPodTemplate/0", "host-path"],
    );
    let secret = json!({"name": "registry"});
    check(
        &json!({"imagePullSecrets": [secret, secret]}),
        &["/imagePullSecrets", "equal"],
    );
    // The operator refuses it too.
    check(
        &json!({"imagePullSecrets": [{"name": "a..b"}]}),
        &["/imagePullSecrets/0/name", "a..b"],
    );
    check(
        &json!({"worker": {"model": "/models/a.onnx"}}),
        &["/worker/model"],
    );
    check(
        &json!({"settings": {"shutdownSeconds": 60}}),
        &["/settings/shutdownSeconds", "25"],
    );
    check(
        &json!({"settings": {"logFormat": "xml"}}),
        &["/settings/logFormat", "json"],
    );
}
