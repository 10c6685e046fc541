//! The cache of pools, their Deployments and pods, and the objects of their APIs. Pure; updated by watches and by the
//! responses to the operator's own writes, whichever arrives first.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{OwnerReference, Time};

use super::mirror::{Change, Mirror, Version, Versioned};
use crate::crd::SeparationPoolStatus;
use crate::decide::PodName;
use crate::observe::api::{ApiObject, ApiSnapshot, KnownApi};
use crate::observe::workload::{DeploymentSnapshot, PodSnapshot};
use crate::plan::{PoolId, PoolPlan, Problems, Role};

/// The parts of a pool that are used.
#[derive(Debug, Clone)]
pub struct PoolSnapshot {
    /// Its resourceVersion.
    pub version: Version,
    /// Its uid; another uid under the same name means that the pool was recreated.
    pub uid: Arc<str>,
    /// The generation of its spec.
    pub generation: Option<i64>,
    /// Its creation time.
    pub created: Option<Time>,
    /// Whether it is being deleted, so that its objects are left to the garbage collector.
    pub is_being_deleted: bool,
    /// The owner reference of its Deployments.
    pub owner: Option<OwnerReference>,
    /// The plan of its spec, or why the spec is invalid.
    pub plan: Result<Arc<PoolPlan>, Problems>,
    /// Its status.
    pub status: Option<Arc<SeparationPoolStatus>>,
}

/// A role of a pool.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RoleKey {
    /// The pool.
    pub pool: Arc<PoolId>,
    /// The role.
    pub role: Role,
}

impl fmt::Display for RoleKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.pool, self.role)
    }
}

/// A pod of a role.
pub type PodKey = (RoleKey, PodName);

/// A pod of a pool's API.
pub type ApiPodKey = (Arc<PoolId>, PodName);

/// An event of one of the watches.
#[derive(Debug, Clone)]
pub enum WatchEvent {
    /// Of the pools.
    Pool(Change<Arc<PoolId>, PoolSnapshot>),
    /// Of the Deployments.
    Deployment(Change<RoleKey, DeploymentSnapshot>),
    /// Of the pods.
    Pod(Change<PodKey, PodSnapshot>),
    /// Of the Deployments of APIs.
    Api(Change<Arc<PoolId>, ApiSnapshot>),
    /// Of the Services of APIs.
    ApiService(Change<Arc<PoolId>, ApiObject>),
    /// Of the service accounts of APIs.
    ApiAccount(Change<Arc<PoolId>, ApiObject>),
    /// Of the pods of APIs.
    ApiPod(Change<ApiPodKey, PodSnapshot>),
}

/// The scope of a watch: a namespace, or all namespaces.
pub type Scope = Option<Arc<str>>;

/// The caches of all scopes.
#[derive(Debug)]
pub struct Cache {
    scopes: BTreeMap<Scope, Objects>,
}

#[derive(Debug, Default)]
struct Objects {
    pools: Mirror<Arc<PoolId>, PoolSnapshot>,
    deployments: Mirror<RoleKey, DeploymentSnapshot>,
    pods: Mirror<PodKey, PodSnapshot>,
    apis: Mirror<Arc<PoolId>, ApiSnapshot>,
    api_services: Mirror<Arc<PoolId>, ApiObject>,
    api_accounts: Mirror<Arc<PoolId>, ApiObject>,
    api_pods: Mirror<ApiPodKey, PodSnapshot>,
}

impl Cache {
    /// Empty caches for these scopes.
    pub fn new(scopes: impl IntoIterator<Item = Scope>) -> Self {
        Self {
            scopes: scopes
                .into_iter()
                .map(|scope| (scope, Objects::default()))
                .collect(),
        }
    }

    /// Applies a watch event and returns the pools it may affect.
    pub fn apply(&mut self, scope: &Scope, event: WatchEvent) -> BTreeSet<Arc<PoolId>> {
        let Some(objects) = self.scopes.get_mut(scope) else {
            return BTreeSet::new();
        };
        match event {
            WatchEvent::Pool(change) => objects.pools.apply(change).into_iter().collect(),
            WatchEvent::Api(change) => objects.apis.apply(change).into_iter().collect(),
            WatchEvent::ApiService(change) => objects.api_services.apply(change).into_iter().collect(),
            WatchEvent::ApiAccount(change) => objects.api_accounts.apply(change).into_iter().collect(),
            WatchEvent::ApiPod(change) => {
                let keys = objects.api_pods.apply(change).into_iter();
                keys.map(|(pool, _)| pool).collect()
            }
            WatchEvent::Deployment(change) => {
                let keys = objects.deployments.apply(change).into_iter();
                keys.map(|key| key.pool).collect()
            }
            WatchEvent::Pod(change) => {
                let keys = objects.pods.apply(change).into_iter();
                keys.map(|(key, _)| key.pool).collect()
            }
        }
    }

    /// Applies the response to one of the operator's own writes, and returns the pools it may affect.
    pub fn apply_response(&mut self, pool: &PoolId, event: WatchEvent) -> BTreeSet<Arc<PoolId>> {
        let scope = self.scope_of(pool);
        self.apply(&scope, event)
    }

    /// Whether all kinds in all scopes were listed at least once.
    pub fn is_listed(&self) -> bool {
        self.scopes.values().all(|objects| {
            let of_apis = objects.apis.is_listed()
                && objects.api_services.is_listed()
                && objects.api_accounts.is_listed()
                && objects.api_pods.is_listed();
            objects.pools.is_listed()
                && objects.deployments.is_listed()
                && objects.pods.is_listed()
                && of_apis
        })
    }

    /// All pools.
    pub fn pools(&self) -> impl Iterator<Item = (&Arc<PoolId>, &PoolSnapshot)> {
        self.scopes.values().flat_map(|objects| objects.pools.objects())
    }

    /// A pool.
    pub fn pool(&self, id: &PoolId) -> Option<&PoolSnapshot> {
        self.objects_of(id)?.pools.objects().get(id)
    }

    /// A role's Deployment.
    pub fn deployment(&self, key: &RoleKey) -> Option<&DeploymentSnapshot> {
        self.objects_of(&key.pool)?.deployments.objects().get(key)
    }

    /// The Deployment of a pool's API.
    pub fn api(&self, id: &PoolId) -> Option<&ApiSnapshot> {
        self.objects_of(id)?.apis.objects().get(id)
    }

    /// The objects of a pool's API.
    pub fn api_objects(&self, id: &PoolId) -> KnownApi<'_> {
        self.objects_of(id)
            .map_or_else(KnownApi::default, |objects| KnownApi {
                deployment: objects.apis.objects().get(id),
                service: objects.api_services.objects().get(id),
                account: objects.api_accounts.objects().get(id),
            })
    }

    /// The pods of a pool's API.
    pub fn api_pods<'a>(&'a self, id: &'a Arc<PoolId>) -> impl Iterator<Item = &'a PodSnapshot> {
        let objects = self.objects_of(id).map(|objects| objects.api_pods.objects());
        let first = (Arc::clone(id), PodName::from(""));
        let pods = objects.map(|pods| pods.range(first..).take_while(move |((pool, _), _)| pool == id));
        pods.into_iter().flatten().map(|(_, pod)| pod)
    }

    /// A role's pods, by name.
    pub fn pods<'a>(&'a self, key: &'a RoleKey) -> impl Iterator<Item = (&'a PodName, &'a PodSnapshot)> {
        let objects = self.objects_of(&key.pool).map(|objects| objects.pods.objects());
        let first = (key.clone(), PodName::from(""));
        let role_pods = objects.map(|pods| pods.range(first..).take_while(move |((role, _), _)| role == key));
        role_pods
            .into_iter()
            .flatten()
            .map(|((_, name), pod)| (name, pod))
    }

    fn scope_of(&self, pool: &PoolId) -> Scope {
        if self.scopes.contains_key(&None) {
            None
        } else {
            Some(pool.namespace.as_str().into())
        }
    }

    fn objects_of(&self, pool: &PoolId) -> Option<&Objects> {
        self.scopes.get(&self.scope_of(pool))
    }
}

impl Versioned for PoolSnapshot {
    fn version(&self) -> Version {
        self.version
    }
}

impl Versioned for DeploymentSnapshot {
    fn version(&self) -> Version {
        Version::parse(Some(&self.resource_version))
    }
}

impl Versioned for ApiObject {
    fn version(&self) -> Version {
        Version::parse(Some(&self.resource_version))
    }
}

impl Versioned for ApiSnapshot {
    fn version(&self) -> Version {
        self.object.version()
    }
}

impl Versioned for PodSnapshot {
    fn version(&self) -> Version {
        Version::parse(Some(&self.resource_version))
    }
}
