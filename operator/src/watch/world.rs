//! What the API server last told: pools, their Deployments and their pods. Pure; filled by watches and by the answers to
//! our own writes, whichever comes first.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{OwnerReference, Time};

use super::mirror::{Change, Mirror, Version, Versioned};
use crate::crd::SeparationPoolStatus;
use crate::decide::PodName;
use crate::observe::workload::{DeploymentSeen, PodSeen};
use crate::plan::{PoolId, PoolPlan, Problems, Role};

/// A pool, as it was read.
#[derive(Debug, Clone)]
pub struct PoolSeen {
    /// Its version.
    pub version: Version,
    /// Which object of that name: another uid means that it was made anew.
    pub uid: Arc<str>,
    /// The generation of its spec.
    pub generation: Option<i64>,
    /// When it was made.
    pub created: Option<Time>,
    /// What makes it the owner of its Deployments.
    pub owner: Option<OwnerReference>,
    /// What it asks for, or what of that cannot be done.
    pub plan: Result<Arc<PoolPlan>, Problems>,
    /// What is said about it.
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

/// What one watch says.
#[derive(Debug, Clone)]
pub enum Told {
    /// About pools.
    Pool(Change<Arc<PoolId>, PoolSeen>),
    /// About Deployments.
    Deployment(Change<RoleKey, DeploymentSeen>),
    /// About pods.
    Pod(Change<PodKey, PodSeen>),
}

/// Where a watch looks: a namespace, or all of them.
pub type Scope = Option<Arc<str>>;

/// Everything that was told.
#[derive(Debug)]
pub struct World {
    scopes: BTreeMap<Scope, Objects>,
}

#[derive(Debug, Default)]
struct Objects {
    pools: Mirror<Arc<PoolId>, PoolSeen>,
    deployments: Mirror<RoleKey, DeploymentSeen>,
    pods: Mirror<PodKey, PodSeen>,
}

impl World {
    /// Nothing was told yet.
    pub fn new(scopes: impl IntoIterator<Item = Scope>) -> Self {
        Self {
            scopes: scopes
                .into_iter()
                .map(|scope| (scope, Objects::default()))
                .collect(),
        }
    }

    /// Takes in what was told, and gives the pools of which something may be different now.
    pub fn take(&mut self, scope: &Scope, told: Told) -> BTreeSet<Arc<PoolId>> {
        let Some(objects) = self.scopes.get_mut(scope) else {
            return BTreeSet::new();
        };
        match told {
            Told::Pool(change) => objects.pools.take(change).into_iter().collect(),
            Told::Deployment(change) => objects
                .deployments
                .take(change)
                .into_iter()
                .map(|key| key.pool)
                .collect(),
            Told::Pod(change) => objects
                .pods
                .take(change)
                .into_iter()
                .map(|(key, _)| key.pool)
                .collect(),
        }
    }

    /// Takes in the answer to a write of ours.
    pub fn answered(&mut self, pool: &PoolId, told: Told) -> BTreeSet<Arc<PoolId>> {
        let scope = self.scope_of(pool);
        self.take(&scope, told)
    }

    /// Whether everything was told at least once.
    pub fn is_whole(&self) -> bool {
        self.scopes.values().all(|objects| {
            objects.pools.is_whole() && objects.deployments.is_whole() && objects.pods.is_whole()
        })
    }

    /// All pools.
    pub fn pools(&self) -> impl Iterator<Item = (&Arc<PoolId>, &PoolSeen)> {
        self.scopes.values().flat_map(|objects| objects.pools.objects())
    }

    /// A pool.
    pub fn pool(&self, id: &PoolId) -> Option<&PoolSeen> {
        self.of(id)?.pools.objects().get(id)
    }

    /// A role's Deployment.
    pub fn deployment(&self, key: &RoleKey) -> Option<&DeploymentSeen> {
        self.of(&key.pool)?.deployments.objects().get(key)
    }

    /// A role's pods, by name.
    pub fn pods<'a>(&'a self, key: &'a RoleKey) -> impl Iterator<Item = (&'a PodName, &'a PodSeen)> {
        let objects = self.of(&key.pool).map(|objects| objects.pods.objects());
        let first = (key.clone(), PodName::from(""));
        let of_role = objects.map(|pods| pods.range(first..).take_while(move |((role, _), _)| role == key));
        of_role.into_iter().flatten().map(|((_, name), pod)| (name, pod))
    }

    fn scope_of(&self, pool: &PoolId) -> Scope {
        if self.scopes.contains_key(&None) {
            None
        } else {
            Some(pool.namespace.as_str().into())
        }
    }

    fn of(&self, pool: &PoolId) -> Option<&Objects> {
        self.scopes.get(&self.scope_of(pool))
    }
}

impl Versioned for PoolSeen {
    fn version(&self) -> Version {
        self.version
    }
}

impl Versioned for DeploymentSeen {
    fn version(&self) -> Version {
        Version::of(Some(&self.resource_version))
    }
}

impl Versioned for PodSeen {
    fn version(&self) -> Version {
        Version::of(Some(&self.resource_version))
    }
}
