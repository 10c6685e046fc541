//! Watches pools, their Deployments and pods, and the objects of their APIs; only the parts of each object that are used
//! are sent on.
//!
//! A pool that cannot be decoded is sent as an invalid pool; it does not affect other pools. A watch that fails is
//! restarted without a limit, and the cache is kept meanwhile.

pub mod cache;
pub mod mirror;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use futures_util::{Stream, StreamExt as _};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Pod, Service, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::core::{DeserializeGuard, NamespaceResourceScope};
use kube::runtime::utils::{Backoff, StreamBackoff};
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client, Resource};
use separation_contract::backoff;
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;

use crate::apply::{api_name, deployment_name, owner_reference};
use crate::crd::SeparationPool;
use crate::metrics::Metrics;
use crate::names::{API_COMPONENT, POOL_LABEL, ROLE_LABEL};
use crate::observe::api::{ApiObject, ApiSnapshot};
use crate::observe::workload::{DeploymentSnapshot, PodSnapshot};
use crate::plan::{PoolId, PoolPlan, Problem, Problems, Role};
use cache::{PodKey, PoolSnapshot, RoleKey, Scope, WatchEvent};
use mirror::{Change, Version};

/// Objects in one page of a list: 250 Deployments of 8 kB are 2 MB.
const PAGE_SIZE: u32 = 250;

/// Duration of one watch request; the next one continues from its last event.
pub const WATCH_TIMEOUT: Duration = Duration::from_secs(60);

/// Pauses before a failed watch is restarted.
const BACKOFF: backoff::Backoff = backoff::Backoff {
    first: Duration::from_millis(200),
    longest: Duration::from_secs(5),
};

/// Watches pools and their objects in a scope until the receiver is dropped.
pub async fn follow(
    client: Client,
    scope: Scope,
    events: mpsc::Sender<(Scope, WatchEvent)>,
    metrics: Metrics,
) {
    let seconds = u32::try_from(WATCH_TIMEOUT.as_secs()).unwrap_or(u32::MAX);
    let all = watcher::Config::default().page_size(PAGE_SIZE).timeout(seconds);
    let of_roles = all
        .clone()
        .labels(&format!("{POOL_LABEL},{ROLE_LABEL}!={API_COMPONENT}"));
    let of_apis = all
        .clone()
        .labels(&format!("{POOL_LABEL},{ROLE_LABEL}={API_COMPONENT}"));
    let apis = api_changes(&client, &scope, &of_apis, &metrics);
    let pools = changes(
        watcher(api::<DeserializeGuard<SeparationPool>>(&client, &scope), all),
        |pool| Some(pool_snapshot(pool)),
        "separationpools",
        &metrics,
    );
    let deployments = changes(
        watcher(api::<Deployment>(&client, &scope), of_roles.clone()),
        |deployment| {
            Some((
                deployment_key(&deployment.metadata)?,
                DeploymentSnapshot::from_deployment(deployment),
            ))
        },
        "deployments",
        &metrics,
    );
    let pods = changes(
        watcher(api::<Pod>(&client, &scope), of_roles),
        |pod| {
            let (name, snapshot) = PodSnapshot::from_pod(pod)?;
            Some(((role_key(&pod.metadata)?, name), snapshot))
        },
        "pods",
        &metrics,
    );
    let changes = futures_util::stream_select!(
        pools.map(WatchEvent::Pool).boxed(),
        deployments.map(WatchEvent::Deployment).boxed(),
        apis.boxed(),
        pods.map(|change: Change<PodKey, PodSnapshot>| WatchEvent::Pod(change))
            .boxed()
    );
    tokio::pin!(changes);
    while let Some(change) = changes.next().await {
        if events.send((scope.clone(), change)).await.is_err() {
            return;
        }
    }
}

/// Changes of the objects of APIs, which `config` selects.
fn api_changes(
    client: &Client,
    scope: &Scope,
    config: &watcher::Config,
    metrics: &Metrics,
) -> impl Stream<Item = WatchEvent> + Send {
    let deployments = changes(
        watcher(api::<Deployment>(client, scope), config.clone()),
        |deployment| {
            Some((
                api_pool(&deployment.metadata)?,
                ApiSnapshot::from_deployment(deployment),
            ))
        },
        "deployments",
        metrics,
    );
    let services = changes(
        watcher(api::<Service>(client, scope), config.clone()),
        |service| api_object(&service.metadata),
        "services",
        metrics,
    );
    let accounts = changes(
        watcher(api::<ServiceAccount>(client, scope), config.clone()),
        |account| api_object(&account.metadata),
        "serviceaccounts",
        metrics,
    );
    let pods = changes(
        watcher(api::<Pod>(client, scope), config.clone()),
        |pod| {
            let (name, snapshot) = PodSnapshot::from_pod(pod)?;
            Some(((pool_of(&pod.metadata)?, name), snapshot))
        },
        "pods",
        metrics,
    );
    futures_util::stream_select!(
        deployments.map(WatchEvent::Api).boxed(),
        services.map(WatchEvent::ApiService).boxed(),
        accounts.map(WatchEvent::ApiAccount).boxed(),
        pods.map(WatchEvent::ApiPod).boxed()
    )
}

/// The key of a pool, and the parts of it that are used.
pub fn pool_snapshot(pool: &DeserializeGuard<SeparationPool>) -> (Arc<PoolId>, PoolSnapshot) {
    let metadata = pool.meta();
    let id = PoolId {
        namespace: metadata.namespace.clone().unwrap_or_default(),
        name: metadata.name.clone().unwrap_or_default(),
    };
    let (plan, status, owner) = match &pool.0 {
        Ok(pool) => (
            PoolPlan::from_pool(pool).map(Arc::new),
            pool.status.clone().map(Arc::new),
            owner_reference(pool),
        ),
        Err(invalid) => (Err(decode_problems(&invalid.error)), None, None),
    };
    let snapshot = PoolSnapshot {
        version: Version::parse(metadata.resource_version.as_deref()),
        uid: metadata.uid.as_deref().unwrap_or_default().into(),
        generation: metadata.generation,
        created: metadata.creation_timestamp.clone(),
        is_being_deleted: metadata.deletion_timestamp.is_some(),
        owner,
        plan,
        status,
    };
    (Arc::new(id), snapshot)
}

fn decode_problems(error: &str) -> Problems {
    Problems(vec![Problem {
        field: "spec".to_owned(),
        problem: format!("cannot be read: {error}"),
        fix: "correct it, or apply the CRD of this operator's version (separation-operator crd)".to_owned(),
    }])
}

fn api<K>(client: &Client, scope: &Scope) -> Api<K>
where
    K: Resource<Scope = NamespaceResourceScope>,
    K::DynamicType: Default,
{
    match scope {
        None => Api::all(client.clone()),
        Some(namespace) => Api::namespaced(client.clone(), namespace),
    }
}

/// The pool that an object belongs to, by its label.
fn pool_of(metadata: &ObjectMeta) -> Option<Arc<PoolId>> {
    Some(Arc::new(PoolId {
        namespace: metadata.namespace.clone()?,
        name: metadata.labels.as_ref()?.get(POOL_LABEL)?.clone(),
    }))
}

/// The role that an object belongs to, by its labels.
fn role_key(metadata: &ObjectMeta) -> Option<RoleKey> {
    let role = metadata.labels.as_ref()?.get(ROLE_LABEL)?;
    Some(RoleKey {
        pool: pool_of(metadata)?,
        role: Role::ALL.into_iter().find(|known| known.name() == role)?,
    })
}

/// The role whose Deployment this is; `None` for a copy with the same labels under another name.
fn deployment_key(metadata: &ObjectMeta) -> Option<RoleKey> {
    let key = role_key(metadata)?;
    (metadata.name.as_deref() == Some(&*deployment_name(&key.pool, key.role))).then_some(key)
}

/// The pool of an object of an API; `None` for a copy with the same labels under another name.
pub fn api_pool(metadata: &ObjectMeta) -> Option<Arc<PoolId>> {
    pool_of(metadata).filter(|pool| metadata.name.as_ref() == Some(&api_name(pool)))
}

fn api_object(metadata: &ObjectMeta) -> Option<(Arc<PoolId>, ApiObject)> {
    Some((api_pool(metadata)?, ApiObject::from_metadata(metadata)))
}

fn changes<T, K, V>(
    events: impl Stream<Item = watcher::Result<Event<T>>> + Send,
    keyed: impl Fn(&T) -> Option<(K, V)> + Send + Sync,
    resource: &'static str,
    metrics: &Metrics,
) -> impl Stream<Item = Change<K, V>> + Send
where
    T: Resource + Clone + DeserializeOwned + std::fmt::Debug + Send + 'static,
    K: Send,
    V: mirror::Versioned + Send,
{
    let metrics = metrics.clone();
    let events = StreamBackoff::new(events, Pauses(0));
    events.filter_map(move |event| {
        let change = match event {
            Ok(Event::Init) => Some(Change::Restarted),
            Ok(Event::InitApply(object)) => keyed(&object).map(|(key, value)| Change::Listed(key, value)),
            Ok(Event::InitDone) => Some(Change::ListedAll),
            Ok(Event::Apply(object)) => keyed(&object).map(|(key, value)| Change::Applied(key, value)),
            Ok(Event::Delete(object)) => {
                keyed(&object).map(|(key, value)| Change::Deleted(key, value.version()))
            }
            Err(error) => {
                metrics.watch_restarted(resource);
                tracing::warn!(
                    resource,
                    error = &error as &dyn std::error::Error,
                    "A watch failed and is restarted"
                );
                None
            }
        };
        std::future::ready(change)
    })
}

/// Pauses after a number of consecutive failures.
struct Pauses(u32);

impl Iterator for Pauses {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        self.0 = self.0.saturating_add(1);
        Some(BACKOFF.after(self.0))
    }
}

impl Backoff for Pauses {
    fn reset(&mut self) {
        self.0 = 0;
    }
}
