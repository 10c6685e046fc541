//! Applying one pool over another: only the applied fields count, not what the API server stored before.

use kube::Api;
use kube::api::DeleteParams;
use separation_operator::crd::SeparationPool;
use serde_json::{Map, Value, json};

use super::FULL;
use super::samples::samples;
use crate::rig::{Rig, apply, get, merge_patch, merged, pool, post};

/// Annotation with the object that was last applied, without this annotation.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

const NAME: &str = "vocals";

/// The two ways of `kubectl apply`; Helm, Argo CD and Flux use the same ones.
#[derive(Debug, Clone, Copy)]
enum Method {
    ServerSide,
    ClientSide,
}

/// Changes from `live` to `new`, as kubectl's `CreateThreeWayJSONMergePatch` computes them: fields of `last` that `new`
/// does not have are removed, and other fields of `live` stay.
fn three_way_patch(last: &Value, new: &Value, live: &Value) -> Value {
    let mut patch = Map::new();
    for (name, value) in new.as_object().into_iter().flatten() {
        if value.is_object() && live[name].is_object() {
            let inner = three_way_patch(&last[name], value, &live[name]);
            if inner != json!({}) {
                patch.insert(name.clone(), inner);
            }
        } else if *value != live[name] {
            patch.insert(name.clone(), value.clone());
        }
    }
    for (name, _) in last.as_object().into_iter().flatten() {
        if new.get(name).is_none() {
            patch.insert(name.clone(), Value::Null);
        }
    }
    Value::Object(patch)
}

/// The stored pool, if it exists.
async fn stored(rig: &Rig) -> Option<Value> {
    match get(format!("{}/{NAME}", rig.pools())).try_send(&rig.admin).await {
        Ok(live) => Some(live),
        Err(kube::Error::Api(status)) if status.code == 404 => None,
        Err(error) => panic!("{error}"),
    }
}

impl Method {
    /// Applies a pool and returns the stored spec.
    async fn apply(self, rig: &Rig, pool: &Value, name: &str) -> Value {
        let strictly = "fieldManager=kubectl&fieldValidation=Strict";
        let path = format!("{}/{NAME}?{strictly}", rig.pools());
        let annotations = json!({LAST_APPLIED: pool.to_string()});
        let annotated = merged(pool.clone(), &json!({"metadata": {"annotations": annotations}}));
        let call = match (self, stored(rig).await) {
            (Self::ServerSide, _) => apply(path, pool),
            (Self::ClientSide, None) => post(format!("{}?{strictly}", rig.pools()), &annotated),
            (Self::ClientSide, Some(live)) => {
                let last = live["metadata"]["annotations"][LAST_APPLIED].as_str();
                let last: Value = serde_json::from_str(last.expect("an annotation")).expect("JSON");
                merge_patch(path, &three_way_patch(&last, &annotated, &live))
            }
        };
        let response = call.try_send(&rig.admin).await;
        let mut accepted = response.unwrap_or_else(|error| panic!("{name}: {error}"));
        accepted["spec"].take()
    }
}

async fn delete(rig: &Rig) {
    let pools: Api<SeparationPool> = Api::namespaced(rig.admin.clone(), &rig.namespace);
    let deleted = pools.delete(NAME, &DeleteParams::default()).await;
    deleted.expect("a pool");
}

/// The smallest pool, then the samples and the example with most fields: all with the same name.
fn pools() -> Vec<(String, Value)> {
    let full = serde_saphyr::from_str(FULL).expect("YAML");
    let mut pools = vec![("smallest".to_owned(), pool(NAME))];
    pools.extend(samples());
    pools.push(("full.yaml".to_owned(), full));
    for (_, pool) in &mut pools {
        pool["metadata"] = json!({"name": NAME});
    }
    pools
}

/// Changes the smallest pool to each sample, then to each other sample, then back.
async fn check(method: Method) {
    let rig = Rig::new().await;
    let pools = pools();
    let mut expected = Vec::new();
    for (name, pool) in &pools {
        expected.push(method.apply(&rig, pool, name).await);
        delete(&rig).await;
    }
    for first in 1..pools.len() {
        for second in (1..pools.len()).filter(|second| *second != first) {
            for (before, index) in [
                (None, 0),
                (Some(0), first),
                (Some(first), second),
                (Some(second), 0),
            ] {
                let (name, pool) = &pools[index];
                let before = before.map_or("nothing", |before| &pools[before].0);
                let change = format!("{name} over {before}");
                let spec = method.apply(&rig, pool, &change).await;
                assert_eq!(spec, expected[index], "{change}");
            }
            delete(&rig).await;
        }
    }
}

#[tokio::test]
async fn a_pool_applied_over_any_other_is_stored_as_if_it_were_new_by_server_side_apply() {
    check(Method::ServerSide).await;
}

#[tokio::test]
async fn a_pool_applied_over_any_other_is_stored_as_if_it_were_new_by_client_side_apply() {
    check(Method::ClientSide).await;
}

#[test]
fn a_three_way_patch_removes_only_fields_that_were_applied() {
    let last = json!({"topic": "a", "scaling": {"min": 1, "max": 2}});
    let new = json!({"scaling": {"max": 3}, "target": {"type": "b"}});
    let live = json!({"topic": "a", "scaling": {"min": 1, "max": 2, "period": 5}, "defaulted": true});
    assert_eq!(
        three_way_patch(&last, &new, &live),
        json!({"topic": null, "scaling": {"min": null, "max": 3}, "target": {"type": "b"}})
    );
}
