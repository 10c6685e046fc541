//! Watches of pools, their Deployments and their pods, kept small: of each object only what matters is sent on.
//!
//! An object that cannot be decoded is told as a pool that cannot be done; it stops nobody. A watch that breaks is taken
//! up again, for ever: what was told stands meanwhile.

pub mod mirror;
#[cfg(test)]
mod tests;
pub mod world;

use std::sync::Arc;
use std::time::Duration;

use futures_util::{Stream, StreamExt as _};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::core::{DeserializeGuard, NamespaceResourceScope};
use kube::runtime::utils::{Backoff, StreamBackoff};
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;

use crate::apply::{deployment_name, owner_reference};
use crate::crd::SeparationPool;
use crate::metrics::Metrics;
use crate::names::{POOL_LABEL, ROLE_LABEL};
use crate::observe::workload::{DeploymentSeen, PodSeen};
use crate::plan::{PoolId, PoolPlan, Problem, Problems, Role};
use mirror::{Change, Version};
use world::{PodKey, PoolSeen, RoleKey, Scope, Told};

/// Objects in one answer to a list: a thousand Deployments of 8 kB are 8 MB at once.
const PAGE: u32 = 250;

/// How long one watch lasts before the next one goes on where it ended.
pub const LONGEST_WATCH: Duration = Duration::from_secs(60);

/// The first pause before a watch is taken up again.
const FIRST_PAUSE: Duration = Duration::from_millis(200);

/// The longest pause before a watch is taken up again.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Follows everything in a scope until the receiver is gone.
pub async fn follow(client: Client, scope: Scope, told: mpsc::Sender<(Scope, Told)>, metrics: Metrics) {
    let seconds = u32::try_from(LONGEST_WATCH.as_secs()).unwrap_or(u32::MAX);
    let all = watcher::Config::default().page_size(PAGE).timeout(seconds);
    let ours = all.clone().labels(POOL_LABEL);
    let pools = changes(
        watcher(api::<DeserializeGuard<SeparationPool>>(&client, &scope), all),
        |pool| Some(pool_seen(pool)),
        "separationpools",
        &metrics,
    );
    let deployments = changes(
        watcher(api::<Deployment>(&client, &scope), ours.clone()),
        |deployment| {
            Some((
                deployment_key(&deployment.metadata)?,
                DeploymentSeen::of(deployment),
            ))
        },
        "deployments",
        &metrics,
    );
    let pods = changes(
        watcher(api::<Pod>(&client, &scope), ours),
        |pod| {
            let (name, seen) = PodSeen::of(pod)?;
            Some(((role_key(&pod.metadata)?, name), seen))
        },
        "pods",
        &metrics,
    );
    let changes = futures_util::stream_select!(
        pools.map(Told::Pool).boxed(),
        deployments.map(Told::Deployment).boxed(),
        pods.map(|change: Change<PodKey, PodSeen>| Told::Pod(change))
            .boxed()
    );
    tokio::pin!(changes);
    while let Some(change) = changes.next().await {
        if told.send((scope.clone(), change)).await.is_err() {
            return;
        }
    }
}

/// What is told of a pool.
pub fn pool_seen(pool: &DeserializeGuard<SeparationPool>) -> (Arc<PoolId>, PoolSeen) {
    let metadata = pool.meta();
    let id = PoolId {
        namespace: metadata.namespace.clone().unwrap_or_default(),
        name: metadata.name.clone().unwrap_or_default(),
    };
    let (plan, status, owner) = match &pool.0 {
        Ok(pool) => (
            PoolPlan::of(pool).map(Arc::new),
            pool.status.clone().map(Arc::new),
            owner_reference(pool),
        ),
        Err(invalid) => (Err(undecodable(&invalid.error)), None, None),
    };
    let seen = PoolSeen {
        version: Version::of(metadata.resource_version.as_deref()),
        uid: metadata.uid.as_deref().unwrap_or_default().into(),
        generation: metadata.generation,
        created: metadata.creation_timestamp.clone(),
        owner,
        plan,
        status,
    };
    (Arc::new(id), seen)
}

fn undecodable(error: &str) -> Problems {
    Problems(vec![Problem {
        field: "spec".to_owned(),
        problem: format!("cannot be read: {error}"),
        fix: "correct it, or apply the definition that belongs to this operator (separation-operator crd)"
            .to_owned(),
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

/// The role that an object belongs to; none for one that only looks like ours.
fn role_key(metadata: &ObjectMeta) -> Option<RoleKey> {
    let labels = metadata.labels.as_ref()?;
    let name = labels.get(POOL_LABEL)?;
    let role = labels.get(ROLE_LABEL)?;
    Some(RoleKey {
        pool: Arc::new(PoolId {
            namespace: metadata.namespace.clone()?,
            name: name.clone(),
        }),
        role: Role::ALL.into_iter().find(|known| known.name() == role)?,
    })
}

/// The role whose Deployment this is; none for a copy under another name, labels and all.
fn deployment_key(metadata: &ObjectMeta) -> Option<RoleKey> {
    let key = role_key(metadata)?;
    (metadata.name.as_deref() == Some(&*deployment_name(&key.pool, key.role))).then_some(key)
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
    let events = StreamBackoff::new(events, Pauses(FIRST_PAUSE));
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
                    "A watch broke and is taken up again"
                );
                None
            }
        };
        std::future::ready(change)
    })
}

/// Pauses before a watch is taken up again: twice as long each time.
struct Pauses(Duration);

impl Iterator for Pauses {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let pause = self.0;
        self.0 = (2 * pause).min(LONGEST_PAUSE);
        Some(pause)
    }
}

impl Backoff for Pauses {
    fn reset(&mut self) {
        self.0 = FIRST_PAUSE;
    }
}
