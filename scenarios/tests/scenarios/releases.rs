//! Installing, upgrading, rolling back and uninstalling the release keeps pools and their tasks.

use std::collections::BTreeSet;
use std::path::Path;

use separation_scenarios::{Outcome, Pool, PoolOptions, System};
use separation_testbed::{ClusterOptions, PodHistory, Release, TempDirectory, chart_with_crd};
use serde_json::{Value, json};

use crate::is_skipped;

/// The chart of the previous release; CONTRIBUTING.md describes how a release replaces it.
const PREVIOUS_CHART: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/previous-chart");

/// The CRD of SeparationPool.
const CRD_PATH: &str =
    "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/separationpools.separation.dev";

#[tokio::test]
async fn pools_keep_working_through_upgrade_rollback_and_uninstall() {
    if is_skipped() {
        return;
    }
    let system = System::without_release(ClusterOptions::default()).await.unwrap();
    let cluster = &system.cluster;
    let directory = TempDirectory::new().unwrap();
    let older = Release {
        chart: chart_with_crd(Path::new(PREVIOUS_CHART), &directory, without_max_crashes).unwrap(),
        ..Release::default()
    };
    older.install(cluster, &System::values()).await.unwrap();
    let options = || PoolOptions {
        processors: 1,
        held_at: Some("staged_in"),
        ..PoolOptions::default()
    };
    let first = Pool::create(&system, "first", options()).await.unwrap();
    let second = Pool::create(&system, "second", options()).await.unwrap();
    let pools = [&first, &second];
    let pods = pools.map(|pool| cluster.watch_pods(&pool.namespace));
    let mut tasks = [BTreeSet::new(), BTreeSet::new()];

    // Upgrade, from the previous chart and an older CRD with stored pools, and rollback to them, in the middle of tasks.
    let holds = pools.map(|pool| pool.hold().unwrap());
    let mut workers = [Vec::new(), Vec::new()];
    for (index, pool) in pools.into_iter().enumerate() {
        tasks[index].insert(pool.submit(1.0, 1).await.unwrap());
        workers[index] = pool.busy_processors(&pods[index], 1).await;
        workers[index].sort();
    }
    let check_workers = || {
        for (index, pool) in pools.into_iter().enumerate() {
            let remaining = remaining_processors(pool, &pods[index]);
            assert_eq!(remaining, workers[index], "workers are unchanged");
        }
    };
    let mut debug = System::values();
    debug["settings"] = json!({"logLevel": "debug"});
    let more = json!({"processor": {"maxCrashes": 5}});
    first.patch(&more).await.unwrap();
    assert_eq!(max_crashes(&first).await, json!(null));
    system.release.install(cluster, &debug).await.unwrap();
    assert_eq!(max_crashes(&first).await, json!(3));
    system.release.roll_back(cluster).await.unwrap();
    assert_eq!(max_crashes(&second).await, json!(null), "the older CRD");
    check_workers();
    system.release.install(cluster, &System::values()).await.unwrap();
    assert_eq!(max_crashes(&second).await, json!(3));
    check_workers();
    drop(holds);
    for (index, pool) in pools.into_iter().enumerate() {
        pool.wait_for_all_webhooks(&tasks[index]).await;
        pool.wait_until_no_pods(&pods[index]).await;
        let outcome = Outcome::read(pool, &tasks[index], &pods[index]).await.unwrap();
        assert_eq!(outcome, Outcome::default(), "{}", pool.log_text());
    }

    // Without an operator, a pool and its busy worker stay.
    let hold = first.hold().unwrap();
    tasks[0].insert(first.submit(1.0, 2).await.unwrap());
    let busy = first.busy_processors(&pods[0], 1).await;
    system.release.uninstall(cluster).await.unwrap();
    assert!(!cluster.get(CRD_PATH).await.unwrap().is_null(), "the CRD stays");
    assert!(!first.status().await.unwrap().is_null(), "pools stay");
    drop(hold);
    first.processors_with_log("Stems stored", 1).await;
    let processors = first.processors(&pods[0]);
    assert!(
        processors
            .iter()
            .any(|pod| pod.name() == busy[0] && !pod.is_terminating())
    );

    // The next release manages it: one that watches a single namespace, without rights in others.
    let scoped = Release {
        name: "scoped".to_owned(),
        ..Release::default()
    };
    let mut values = System::values();
    values["watchNamespaces"] = json!([first.namespace]);
    // The CRD that was kept belongs to the first release.
    values["crds"] = json!({"install": false});
    scoped.install(cluster, &values).await.unwrap();
    let output = scoped.test(cluster).await.unwrap();
    assert!(output.contains(&first.namespace), "{output}");
    first.wait_for_all_webhooks(&tasks[0]).await;
    first.wait_until_no_pods(&pods[0]).await;
    second.submit(1.0, 3).await.unwrap();
    tasks[0].insert(first.submit(1.0, 4).await.unwrap());
    first.wait_for_all_webhooks(&tasks[0]).await;
    first.wait_until_no_pods(&pods[0]).await;
    let outcome = Outcome::read(&first, &tasks[0], &pods[0]).await.unwrap();
    assert_eq!(outcome, Outcome::default(), "{}", first.log_text());
    assert!(
        pods[1].existing().is_empty(),
        "the other namespace is not managed"
    );
    check_rights_only_in(&system, &scoped, &first.namespace).await;
}

/// The names of the processors that are not terminating, sorted.
fn remaining_processors(pool: &Pool<'_>, pods: &PodHistory) -> Vec<String> {
    let mut processors = pool.processors(pods);
    processors.retain(|pod| !pod.is_terminating());
    let mut names: Vec<_> = processors.iter().map(|pod| pod.name().to_owned()).collect();
    names.sort();
    names
}

/// Makes a CRD without this field, so that the upgrade of the CRD shows.
fn without_max_crashes(crd: &mut Value) {
    let spec = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties";
    for role in ["processor", "uploader"] {
        for fields in ["default", "properties"] {
            let fields = crd.pointer_mut(&format!("{spec}/{role}/{fields}"));
            let fields = fields.and_then(Value::as_object_mut).unwrap();
            fields.remove("maxCrashes").unwrap();
        }
    }
}

/// The value that the API server returns.
async fn max_crashes(pool: &Pool<'_>) -> Value {
    pool.spec().await.unwrap()["processor"]["maxCrashes"].take()
}

/// Checks that a release's operator has its rights only in this namespace.
async fn check_rights_only_in(system: &System, release: &Release, namespace: &str) {
    let path = format!("/apis/apps/v1/namespaces/{}/deployments", release.namespace);
    let listed = system.cluster.get(&path).await.unwrap();
    let account = &listed["items"][0]["spec"]["template"]["spec"]["serviceAccountName"];
    let account = format!(
        "--as=system:serviceaccount:{}:{}",
        release.namespace,
        account.as_str().unwrap()
    );
    for (checked, answer) in [(namespace, "yes"), ("second", "no"), ("kube-system", "no")] {
        for (verb, what) in [
            ("patch", "deployments.apps"),
            ("list", "pods"),
            ("get", "secrets"),
        ] {
            let arguments = ["auth", "can-i", verb, what, "--namespace", checked, &account];
            // `kubectl auth can-i` exits with an error for "no".
            let output = system.cluster.kubectl(&arguments).await;
            let output = output.unwrap_or_else(|refused| format!("{refused:#}"));
            assert!(
                output.lines().any(|line| line.trim() == answer),
                "{arguments:?}: {output}"
            );
        }
    }
}
