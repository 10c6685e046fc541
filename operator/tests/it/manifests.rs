//! The published manifests: exactly the permissions that are used, and settings that the operator accepts.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{CommandFactory as _, Parser};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Container;
use separation_operator::apply::{Manifest, api_objects};
use separation_operator::crd::{SeparationPool, from_value};
use separation_operator::plan::{Model, PoolPlan, Role};
use separation_operator::settings::{Allowance, RunArguments, RunSettings, WorkerSettings};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

#[derive(Debug, Parser)]
pub(crate) struct Run {
    #[command(flatten)]
    run: RunArguments,
}

/// Every object below `deploy/operator`, by its file.
pub(crate) fn objects() -> Vec<(PathBuf, Value)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/operator");
    let mut found = Vec::new();
    let mut directories = vec![root];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory).expect("a directory") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                directories.push(path);
                continue;
            }
            let text = fs::read_to_string(&path).expect("text");
            let parts: Vec<Value> = serde_saphyr::from_multiple(&text).expect("YAML");
            found.extend(parts.into_iter().map(|part| (path.clone(), part)));
        }
    }
    found
}

fn of_kind(kind: &str) -> Vec<Value> {
    let objects = objects().into_iter().map(|(_, object)| object);
    objects.filter(|object| object["kind"] == kind).collect()
}

pub(crate) fn read<T: DeserializeOwned>(object: &Value) -> T {
    serde_json::from_value(object.clone()).expect("it has the type of its kind")
}

fn strings(list: &Value) -> BTreeSet<String> {
    let list = list.as_array().into_iter().flatten();
    list.map(|string| string.as_str().expect("a word").to_owned())
        .collect()
}

/// Group, resource and verb of every permission.
fn permissions(role: &Value) -> BTreeSet<String> {
    let mut permissions = BTreeSet::new();
    for rule in role["rules"].as_array().expect("rules") {
        for group in strings(&rule["apiGroups"]) {
            for resource in strings(&rule["resources"]) {
                let verbs = strings(&rule["verbs"]);
                permissions.extend(verbs.iter().map(|verb| format!("{group}/{resource} {verb}")));
            }
        }
    }
    permissions
}

fn expected(permissions: &[(&str, &str)]) -> BTreeSet<String> {
    let each = permissions.iter().flat_map(|(resource, verbs)| {
        let verbs = verbs.split_whitespace();
        verbs.map(move |verb| format!("{resource} {verb}"))
    });
    each.collect()
}

#[test]
fn permissions_are_exactly_those_used_in_all_namespaces_or_in_one() {
    let used = expected(&[
        ("separation.dev/separationpools", "list watch"),
        ("separation.dev/separationpools/status", "patch"),
        ("apps/deployments", "get list watch create patch delete"),
        ("/services", "get list watch create patch delete"),
        ("/serviceaccounts", "get list watch create patch delete"),
        ("/pods", "list watch patch"),
        ("/secrets", "get"),
        ("events.k8s.io/events", "create"),
    ]);
    let everywhere = of_kind("ClusterRole");
    assert_eq!(everywhere.len(), 1);
    assert_eq!(permissions(&everywhere[0]), used);
    let roles = of_kind("Role");
    let named = |name: &str| {
        let mut found = roles.iter().filter(|role| role["metadata"]["name"] == name);
        found.next().expect("a role")
    };
    assert_eq!(permissions(named("separation-operator")), used);
    assert_eq!(named("separation-operator")["rules"], everywhere[0]["rules"]);
    assert_eq!(
        permissions(named("separation-operator-lease")),
        expected(&[("coordination.k8s.io/leases", "get create update")])
    );
}

#[test]
fn no_permission_has_a_wildcard() {
    for (path, object) in objects() {
        for rule in object["rules"].as_array().into_iter().flatten() {
            for list in ["apiGroups", "resources", "verbs", "resourceNames"] {
                let has_wildcard = strings(&rule[list]).iter().any(|string| string.contains('*'));
                assert!(!has_wildcard, "{}: {rule}", path.display());
            }
        }
    }
}

#[test]
fn permissions_are_bound_to_the_operators_service_account() {
    let accounts = of_kind("ServiceAccount");
    assert_eq!(accounts.len(), 1);
    let account = &accounts[0]["metadata"];
    let subject =
        json!([{"kind": "ServiceAccount", "name": account["name"], "namespace": account["namespace"]}]);
    let bindings = [of_kind("ClusterRoleBinding"), of_kind("RoleBinding")].concat();
    assert_eq!(bindings.len(), 3);
    for binding in bindings {
        assert_eq!(binding["subjects"], subject);
        let kind = binding["roleRef"]["kind"].as_str().expect("a kind");
        let role = of_kind(kind)
            .into_iter()
            .find(|role| role["metadata"] == binding["metadata"]);
        assert_eq!(
            role.expect("its role")["metadata"]["name"],
            binding["roleRef"]["name"]
        );
    }
    let deployment: Deployment = read(&of_kind("Deployment")[0]);
    let pod = deployment.spec.template.spec.expect("a pod");
    assert_eq!(pod.service_account_name.as_deref(), account["name"].as_str());
}

/// The operator's settings from a container's environment.
pub(crate) fn settings(container: &Container) -> RunSettings {
    let command = Run::command();
    let known: BTreeSet<&str> = command
        .get_arguments()
        .filter_map(|argument| argument.get_env()?.to_str())
        .collect();
    let variables = container.env.iter().flatten();
    let mut arguments = vec!["operator".to_owned()];
    for variable in variables {
        assert!(known.contains(variable.name.as_str()), "{}", variable.name);
        if let Some(value) = &variable.value {
            let option = variable.name.to_lowercase().replace('_', "-");
            arguments.push(format!("--{option}={value}"));
        }
    }
    let run = Run::try_parse_from(arguments).expect("arguments").run;
    run.settings().expect("settings").0
}

#[test]
fn the_operator_parses_the_settings_of_its_deployment() {
    let deployment: Deployment = read(&of_kind("Deployment")[0]);
    let pod = deployment.spec.template.spec.expect("a pod");
    let container = &pod.containers[0];
    assert_eq!(container.args.as_deref(), Some(&["run".to_owned()][..]));
    let settings = settings(container);
    let port = container
        .ports
        .iter()
        .flatten()
        .next()
        .expect("a port")
        .container_port;
    assert_eq!(i32::from(settings.health_address.port()), port);
    let grace = pod.termination_grace_period_seconds.expect("a grace period");
    assert!(i64::try_from(settings.shutdown.as_secs()).expect("small") + 5 <= grace);
    // The permission for the lease is restricted to its name.
    let rules = of_kind("Role");
    let named = rules
        .iter()
        .flat_map(|role| role["rules"].as_array().into_iter().flatten())
        .find(|rule| rule["resources"] == json!(["leases"]) && !rule["resourceNames"].is_null());
    assert_eq!(
        named.expect("a rule")["resourceNames"],
        json!([settings.lease.name])
    );
}

/// Checks that the operator accepts a pool and builds all its objects, with these privileges of pods.
pub(crate) fn check_pool(place: &str, pool: &SeparationPool, allowed: &[Allowance]) {
    let workers = Arc::new(WorkerSettings {
        image: "separation-worker:test".to_owned(),
        image_pull_secrets: Vec::new(),
        model: Model::named("builtin"),
        allowed: allowed.iter().copied().collect(),
        audiences: BTreeSet::new(),
    });
    let plan = PoolPlan::from_pool(pool).unwrap_or_else(|error| panic!("{place}: {error}"));
    let plan = Arc::new(plan);
    for role in [Role::Processor, Role::Uploader] {
        let built = Manifest::new(Arc::clone(&plan), role, Arc::clone(&workers)).deployment(0);
        assert!(built.is_ok(), "{place}: {}", built.expect_err("refused"));
    }
    if let Some(api) = &plan.api {
        let built = api_objects(&plan, api, None, &workers, None);
        assert!(built.is_ok(), "{place}: {built:?}");
    }
}

/// The sample pools for a cluster and that of the quickstart, each with the path of its file.
fn sample_pools() -> Vec<(String, SeparationPool)> {
    let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy");
    let samples = fs::read_dir(deploy.join("samples")).expect("samples");
    let samples = samples.map(|entry| entry.expect("an entry").path());
    let mut pools = Vec::new();
    for path in samples.chain([deploy.join("trial.yaml")]) {
        let text = fs::read_to_string(&path).expect("text");
        let documents: Vec<Value> = serde_saphyr::from_multiple(&text).expect("YAML");
        // Without Kafka it is only for `separation-operator local`.
        let written = documents
            .into_iter()
            .filter(|object| object["kind"] == "SeparationPool" && !object["spec"]["kafka"].is_null());
        for pool in written {
            let path = path.display().to_string();
            let pool = from_value(pool).unwrap_or_else(|error| panic!("{path}: {error}"));
            pools.push((path, pool));
        }
    }
    assert!(!pools.is_empty());
    pools
}

#[test]
fn sample_pools_are_valid() {
    for (path, pool) in sample_pools() {
        // No additional privileges, except for pools that name a service account: their files describe it.
        let account = pool.spec.processor.role.pod.service_account_name.as_ref();
        let allowed = account.map(|_| Allowance::ServiceAccount);
        check_pool(&path, &pool, allowed.as_slice());
    }
}
