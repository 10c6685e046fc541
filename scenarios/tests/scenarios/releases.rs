//! The release comes, changes, goes back and goes, and pools and their work outlive all of it.

use std::collections::BTreeSet;

use separation_scenarios::{Outcome, Pool, PoolOptions, System};
use separation_testbed::{ClusterOptions, Folder, Release, chart_with_definition};
use serde_json::{Value, json};

use crate::is_left_out;

/// The definition of SeparationPool.
const DEFINITION: &str =
    "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/separationpools.separation.dev";

#[tokio::test]
async fn pools_work_on_through_upgrade_rollback_and_uninstall() {
    if is_left_out() {
        return;
    }
    let system = System::without_release(ClusterOptions::default()).await.unwrap();
    let cluster = &system.cluster;
    let folder = Folder::new().unwrap();
    let older = Release {
        chart: chart_with_definition(&folder, without_max_attempts).unwrap(),
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

    // Upgrade, from an older definition under which pools are stored, and rollback, in the middle of tasks.
    let holds = pools.map(|pool| pool.hold().unwrap());
    for (index, pool) in pools.into_iter().enumerate() {
        tasks[index].insert(pool.submit(1.0, 1).await.unwrap());
        pool.busy_processors(&pods[index], 1).await;
    }
    let mut debug = System::values();
    debug["settings"] = json!({"logLevel": "debug"});
    let more = json!({"processor": {"maxAttempts": 5}});
    first.patch(&more).await.unwrap();
    assert_eq!(max_attempts(&first).await, json!(null));
    system.release.install(cluster, &debug).await.unwrap();
    assert_eq!(max_attempts(&first).await, json!(3));
    system.release.install(cluster, &System::values()).await.unwrap();
    system.release.roll_back(cluster).await.unwrap();
    assert_eq!(max_attempts(&second).await, json!(3));
    for (index, pool) in pools.into_iter().enumerate() {
        let there = pool.processors(&pods[index]);
        assert!(
            there.iter().all(|pod| !pod.is_told_to_end()),
            "workers are left alone"
        );
    }
    drop(holds);
    for (index, pool) in pools.into_iter().enumerate() {
        pool.all_told(&tasks[index]).await;
        pool.no_pods(&pods[index]).await;
        let outcome = Outcome::read(pool, &tasks[index], &pods[index]).await.unwrap();
        assert_eq!(outcome, Outcome::default(), "{}", pool.log_text());
    }

    // Without an operator a pool and its busy worker stay.
    let hold = first.hold().unwrap();
    tasks[0].insert(first.submit(1.0, 2).await.unwrap());
    let busy = first.busy_processors(&pods[0], 1).await;
    system.release.uninstall(cluster).await.unwrap();
    assert!(
        !cluster.get(DEFINITION).await.unwrap().is_null(),
        "the definition stays"
    );
    assert!(!first.status().await.unwrap().is_null(), "pools stay");
    drop(hold);
    first.processors_saying("Stems stored", 1).await;
    let there = first.processors(&pods[0]);
    assert!(
        there
            .iter()
            .any(|pod| pod.name() == busy[0] && !pod.is_told_to_end())
    );

    // Whoever is installed next goes on with it: one that looks after a single namespace, with rights in no other.
    let scoped = Release {
        name: "scoped".to_owned(),
        ..Release::default()
    };
    let mut values = System::values();
    values["watchNamespaces"] = json!([first.namespace]);
    // The definition that was left behind is the first release's.
    values["crds"] = json!({"install": false});
    scoped.install(cluster, &values).await.unwrap();
    let said = scoped.test(cluster).await.unwrap();
    assert!(said.contains(&first.namespace), "{said}");
    first.all_told(&tasks[0]).await;
    first.no_pods(&pods[0]).await;
    second.submit(1.0, 3).await.unwrap();
    tasks[0].insert(first.submit(1.0, 4).await.unwrap());
    first.all_told(&tasks[0]).await;
    first.no_pods(&pods[0]).await;
    let outcome = Outcome::read(&first, &tasks[0], &pods[0]).await.unwrap();
    assert_eq!(outcome, Outcome::default(), "{}", first.log_text());
    assert!(
        pods[1].there().is_empty(),
        "the other namespace is not looked after"
    );
    may_only_in(&system, &scoped, &first.namespace).await;
}

/// Makes a definition one of which the field is not yet a part.
fn without_max_attempts(definition: &mut Value) {
    let spec = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties";
    for role in ["processor", "uploader"] {
        for fields in ["default", "properties"] {
            let fields = definition.pointer_mut(&format!("{spec}/{role}/{fields}"));
            let fields = fields.and_then(Value::as_object_mut).unwrap();
            fields.remove("maxAttempts").unwrap();
        }
    }
}

/// As the API server gives it.
async fn max_attempts(pool: &Pool<'_>) -> Value {
    pool.spec().await.unwrap()["processor"]["maxAttempts"].take()
}

/// What the operator of a release may do, and in other namespaces may not.
async fn may_only_in(system: &System, release: &Release, namespace: &str) {
    let path = format!("/apis/apps/v1/namespaces/{}/deployments", release.namespace);
    let listed = system.cluster.get(&path).await.unwrap();
    let account = &listed["items"][0]["spec"]["template"]["spec"]["serviceAccountName"];
    let account = format!(
        "--as=system:serviceaccount:{}:{}",
        release.namespace,
        account.as_str().unwrap()
    );
    for (place, answer) in [(namespace, "yes"), ("second", "no"), ("kube-system", "no")] {
        for (verb, what) in [
            ("patch", "deployments.apps"),
            ("list", "pods"),
            ("get", "secrets"),
        ] {
            let asked = ["auth", "can-i", verb, what, "--namespace", place, &account];
            // It fails with "no".
            let said = system.cluster.kubectl(&asked).await;
            let said = said.unwrap_or_else(|refused| format!("{refused:#}"));
            assert!(
                said.lines().any(|line| line.trim() == answer),
                "{asked:?}: {said}"
            );
        }
    }
}
