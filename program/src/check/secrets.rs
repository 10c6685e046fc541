//! Whether the Secrets that a pool names exist with their keys, and their texts for the connection to Kafka.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client};
use separation_contract::check::Finding;
use separation_operator::lease::api_error_text;
use separation_operator::plan::{PoolPlan, Role, SecretKey};

/// Texts of Secret keys.
#[derive(Default)]
pub(super) struct SecretTexts(BTreeMap<SecretKey, String>);

impl SecretTexts {
    /// The text of a key, if it exists and was read.
    pub(super) fn get(&self, key: &SecretKey) -> Option<String> {
        self.0.get(key).cloned()
    }

    /// Whether all of these keys were read.
    pub(super) fn contain(&self, keys: &[&SecretKey]) -> bool {
        keys.iter().all(|key| self.0.contains_key(*key))
    }
}

/// Reads each Secret that the plan names.
pub(super) async fn check(client: &Client, plan: &PoolPlan) -> (SecretTexts, Vec<Finding>) {
    let secrets: Api<Secret> = Api::namespaced(client.clone(), &plan.id.namespace);
    let mut needed: BTreeMap<&str, BTreeSet<&SecretKey>> = BTreeMap::new();
    let of_roles = Role::ALL.into_iter().flat_map(|role| plan.secret_keys(role));
    for key in of_roles.chain(plan.api_secret_keys()) {
        needed.entry(&key.secret).or_default().insert(key);
    }
    let (mut texts, mut findings) = (SecretTexts::default(), Vec::new());
    for (name, keys) in needed {
        findings.push(match secrets.get_opt(name).await {
            Ok(Some(secret)) => with_keys(&plan.id.namespace, name, secret, &keys, &mut texts),
            Ok(None) => missing(&plan.id.namespace, name, &keys, "does not exist"),
            Err(error) => Finding::warning(
                "secrets",
                format!(
                    "Secret {name} cannot be read: {}; fix: run it as a user who may get Secrets of namespace {}, or use \
                     --in-cluster",
                    api_error_text(&error),
                    plan.id.namespace
                ),
            ),
        });
    }
    (texts, findings)
}

fn with_keys(
    namespace: &str,
    name: &str,
    secret: Secret,
    keys: &BTreeSet<&SecretKey>,
    texts: &mut SecretTexts,
) -> Finding {
    let mut data = secret.data.unwrap_or_default();
    let mut lacking = BTreeSet::new();
    for key in keys {
        let bytes = data.remove(&key.key).map(|bytes| bytes.0);
        if let Some(text) = bytes.and_then(|bytes| String::from_utf8(bytes).ok()) {
            texts.0.insert((*key).clone(), text);
        } else {
            lacking.insert(*key);
        }
    }
    if !lacking.is_empty() {
        return missing(namespace, name, &lacking, "lacks keys with text");
    }
    Finding::ok("secrets", format!("Secret {name} has {}", listed(keys)))
}

fn missing(namespace: &str, name: &str, keys: &BTreeSet<&SecretKey>, problem: &str) -> Finding {
    let files: String = keys
        .iter()
        .map(|key| format!(" --from-file={}=FILE", key.key))
        .collect();
    Finding::problem(
        "secrets",
        format!(
            "Secret {name} {problem}: {}; fix: kubectl create secret generic {name} --namespace {namespace}{files}",
            listed(keys)
        ),
    )
}

fn listed(keys: &BTreeSet<&SecretKey>) -> String {
    let keys: Vec<_> = keys.iter().map(|key| key.key.as_str()).collect();
    keys.join(", ")
}
