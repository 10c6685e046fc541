//! The operator's identity at brokers: its settings, and permissions for tokens of the named service accounts only.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{NAME, Rendered, refusal, rendered};
use crate::manifests::settings;

/// All values that allow an identity.
fn values() -> Value {
    json!({"identity": {
        "allowedBrokers": [
            {"host": "*.msk.example", "namespaces": ["media", "podcasts"]},
            {"host": "kafka.svc", "namespaces": ["*"]},
        ],
        "audiences": ["kafka"],
        "serviceAccounts": [
            {"namespace": "media", "name": "vocals"},
            {"namespace": "media", "name": "default"},
            {"namespace": "podcasts", "name": "voices"},
        ],
    }})
}

/// For each namespace, the service accounts whose tokens the operator may request.
fn token_accounts(objects: &Rendered) -> BTreeMap<String, Value> {
    let roles = [objects.all("Role"), objects.all("ClusterRole")].concat();
    let each = roles.iter().flat_map(|role| {
        let rules = role["rules"].as_array().into_iter().flatten();
        let of_tokens = rules.filter(|rule| rule["resources"].to_string().contains("serviceaccounts/token"));
        let namespace = role["metadata"]["namespace"].as_str().unwrap_or("all");
        of_tokens.map(move |rule| {
            assert_eq!(rule["verbs"], json!(["create"]));
            (namespace.to_owned(), rule["resourceNames"].clone())
        })
    });
    each.collect()
}

#[test]
fn every_identity_reaches_the_operator() {
    let all = settings(&rendered(&values()).pod().containers[0]);
    assert_eq!(all.workers.audiences, ["kafka".to_owned()].into());
    let identity = all.identity;
    let brokers: Vec<_> = identity.brokers.iter().map(ToString::to_string).collect();
    assert_eq!(
        brokers,
        ["*.msk.example@media", "*.msk.example@podcasts", "kafka.svc"]
    );
    assert_eq!(identity.audiences, ["kafka".to_owned()].into());
    let accounts: Vec<_> = identity.token_accounts.iter().map(ToString::to_string).collect();
    assert_eq!(accounts, ["media/default", "media/vocals", "podcasts/voices"]);
    let account = json!({"serviceAccount": {"name": "songs"}});
    let own = settings(&rendered(&account).pod().containers[0]).identity.own;
    assert_eq!(own.to_string(), "separation-system/songs");
}

#[test]
fn tokens_are_granted_by_name_in_the_namespaces_of_the_values_only() {
    assert!(token_accounts(&rendered(&json!({}))).is_empty());
    let brokers = json!({"identity": {"allowedBrokers": [{"host": "kafka.svc", "namespaces": ["*"]}]}});
    assert!(token_accounts(&rendered(&brokers)).is_empty());
    let objects = rendered(&values());
    let expected = [
        ("media", json!(["vocals", "default"])),
        ("podcasts", json!(["voices"])),
        ("separation-system", json!([NAME])),
    ];
    let expected = expected.map(|(namespace, names)| (namespace.to_owned(), names));
    assert_eq!(token_accounts(&objects), expected.into());
    let bindings = objects.all("RoleBinding");
    let bindings = bindings
        .iter()
        .filter(|binding| binding["roleRef"]["name"] == "separation-operator-tokens");
    for binding in bindings.clone() {
        let subject = json!([{"kind": "ServiceAccount", "name": NAME, "namespace": "separation-system"}]);
        assert_eq!(binding["subjects"], subject);
    }
    assert_eq!(bindings.count(), 3);
}

#[test]
fn invalid_identities_are_named() {
    for (identity, expected) in [
        (
            json!({"allowedBrokers": [{"host": "kafka:9092", "namespaces": ["*"]}]}),
            "host",
        ),
        (
            json!({"allowedBrokers": [{"host": "*", "namespaces": ["*"]}]}),
            "host",
        ),
        // Not all namespaces by omission.
        (json!({"allowedBrokers": [{"host": "kafka"}]}), "namespaces"),
        (
            json!({"allowedBrokers": [{"host": "kafka", "namespaces": []}]}),
            "namespaces",
        ),
        (
            json!({"allowedBrokers": [{"host": "kafka", "namespaces": ["a.b"]}]}),
            "namespaces",
        ),
        (json!({"audiences": ["a,b"]}), "audiences"),
        (json!({"serviceAccounts": [{"name": "vocals"}]}), "namespace"),
    ] {
        let message = refusal(&json!({"identity": identity}));
        assert!(
            message.contains("/identity/") && message.contains(expected),
            "{message}"
        );
    }
}
