//! A change of the staging storage, from the observed objects of one pool.

use std::collections::BTreeSet;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::core::DeserializeGuard;
use serde_json::{Value, json};

use super::*;
use crate::apply::owner_reference;
use crate::decide::PodName;
use crate::observe::api::ApiSnapshot;
use crate::observe::workload::DeploymentSnapshot;
use crate::plan::{Model, Staging};
use crate::watch::cache::WatchEvent;
use crate::watch::mirror::Change;
use crate::watch::pool_snapshot;

const NOW: Moment = Moment::from_millis(1_000);

/// A pool with this staging storage and an API of two pods.
fn object(staging: &Value) -> SeparationPool {
    let object = json!({
        "apiVersion": "separation.dev/v1beta1",
        "kind": "SeparationPool",
        "metadata": {"name": "vocals", "namespace": "media", "uid": "uid"},
        "spec": {
            "kafka": {"bootstrapServers": "kafka:9092"},
            "storage": {"stems": {"bucket": "stems"}, "staging": staging},
            "api": {"basicAuthSecretRef": {"name": "api"}},
        },
    });
    serde_json::from_value(object).expect("a pool")
}

fn plan(object: &SeparationPool) -> Arc<PoolPlan> {
    Arc::new(PoolPlan::from_pool(object).expect("a plan"))
}

fn settings() -> WorkerSettings {
    WorkerSettings {
        model: Model::named("builtin"),
        image: "worker".into(),
        image_pull_secrets: Vec::new(),
        allowed: BTreeSet::new(),
        audiences: BTreeSet::new(),
    }
}

/// A pool and its observed objects.
struct ObservedPool {
    state: PoolState,
    cache: Cache,
}

impl ObservedPool {
    fn new(object: SeparationPool) -> Self {
        let (id, snapshot) = pool_snapshot(&DeserializeGuard(Ok(object)));
        let mut state = PoolState::new(&id, &snapshot, NOW);
        state.plan(&snapshot, &Arc::new(settings()));
        Self {
            state,
            cache: Cache::new([None]),
        }
    }

    /// The processor's Deployment has the template of this plan.
    fn deploy(&mut self, plan: &Arc<PoolPlan>) {
        let snapshot = DeploymentSnapshot::from_deployment(&processor(plan));
        let key = self.state.key(Role::Processor);
        let change = WatchEvent::Deployment(Change::Applied(key, snapshot));
        self.cache.apply(&None, change);
    }

    /// Its pod has the template of this plan.
    fn start_pod(&mut self, plan: &Arc<PoolPlan>) {
        let template = serde_json::to_value(processor(plan).spec.template).expect("JSON");
        let owner = json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "vocals-processor-5c7", "uid": "1",
                           "controller": true});
        let mut pod = json!({"metadata": template["metadata"], "spec": template["spec"]});
        pod["metadata"]["name"] = json!("pod");
        pod["metadata"]["labels"]["pod-template-hash"] = json!("5c7");
        pod["metadata"]["ownerReferences"] = json!([owner]);
        let pod: Pod = serde_json::from_value(pod).expect("a pod");
        let (name, snapshot): (PodName, PodSnapshot) = PodSnapshot::from_pod(&pod).expect("a name");
        let key = (self.state.key(Role::Processor), name);
        let change = WatchEvent::Pod(Change::Applied(key, snapshot));
        self.cache.apply(&None, change);
    }

    /// The API has so many replicas.
    fn scale_api(&mut self, object: &SeparationPool, replicas: i32) {
        let (plan, owner) = (plan(object), owner_reference(object));
        let api = plan.api.as_ref().expect("an API");
        let objects = api_objects(&plan, api, owner.as_ref(), &settings(), None);
        let mut deployment = objects.expect("objects").deployment;
        deployment.spec.replicas = Some(replicas);
        let snapshot = ApiSnapshot::from_deployment(&deployment);
        let change = WatchEvent::Api(Change::Applied(Arc::clone(&self.state.id), snapshot));
        self.cache.apply(&None, change);
    }

    /// The location and the replicas of the API that are applied for this plan.
    fn applied(&mut self, plan: &Arc<PoolPlan>) -> (Staging, Option<u32>) {
        let current = self
            .state
            .with_current_staging(Arc::clone(plan), &self.cache, NOW);
        let replicas = current.api.as_ref().map(|api| api.replicas);
        (current.storage.staging.clone(), replicas)
    }
}

fn processor(plan: &Arc<PoolPlan>) -> Deployment {
    let manifest = Manifest::new(Arc::clone(plan), Role::Processor, Arc::new(settings()));
    manifest.deployment(1).expect("a Deployment")
}

#[test]
fn the_location_in_use_is_that_of_the_observed_deployments_and_pods() {
    let bucket = |bucket: &str| json!({"s3": {"bucket": bucket}});
    let claim = |directory: &str| {
        let claim = json!({"claimName": "songs", "inputSubPath": directory, "outputSubPath": "stems"});
        json!({"persistentVolumeClaim": claim})
    };
    for (before, after) in [
        (bucket("a"), bucket("b")),
        (bucket("a"), claim("in")),
        (claim("in"), claim("songs")),
    ] {
        let (before, after) = (object(&before), object(&after));
        let (old, new) = (plan(&before), plan(&after));
        let mut pool = ObservedPool::new(after.clone());
        pool.deploy(&old);
        pool.start_pod(&old);
        pool.scale_api(&before, 2);
        // No topic was read.
        let (old_location, new_location) = (old.storage.staging.clone(), new.storage.staging.clone());
        assert_eq!(pool.applied(&new), (old_location, Some(2)));
        pool.deploy(&new);
        pool.scale_api(&before, 0);
        assert_eq!(pool.applied(&new), (new_location.clone(), Some(0)));
        pool.start_pod(&new);
        assert_eq!(pool.applied(&new), (new_location, Some(2)));
    }
}

#[test]
fn a_volume_that_the_pod_template_replaces_is_no_change() {
    let claim = json!({"claimName": "songs", "inputSubPath": "in", "outputSubPath": "stems"});
    let mut object = object(&json!({"persistentVolumeClaim": claim}));
    let volume = json!({"name": "work", "persistentVolumeClaim": {"claimName": "others"}});
    let fields = json!({"podTemplate": {"spec": {"volumes": [volume]}}});
    object.spec.processor.role.pod = serde_json::from_value(fields).expect("fields of pods");
    let plan = plan(&object);
    let mut pool = ObservedPool::new(object.clone());
    pool.deploy(&plan);
    pool.start_pod(&plan);
    pool.scale_api(&object, 2);
    assert_eq!(pool.applied(&plan), (plan.storage.staging.clone(), Some(2)));
    assert!(!pool.state.staging.is_waiting());
}

#[test]
fn disabled_roles_are_not_waited_for() {
    let mut object = object(&json!({"s3": {"bucket": "a"}}));
    let old = plan(&object);
    object.spec.storage = serde_json::from_value(json!({
        "stems": {"bucket": "stems"}, "staging": {"s3": {"bucket": "b"}},
    }))
    .expect("storage");
    object.spec.processor.role.enabled = false;
    object.spec.uploader.enabled = false;
    let new = plan(&object);
    let mut pool = ObservedPool::new(object.clone());
    pool.deploy(&old);
    pool.scale_api(&object, 2);
    assert_eq!(pool.applied(&new), (new.storage.staging.clone(), Some(2)));
}
