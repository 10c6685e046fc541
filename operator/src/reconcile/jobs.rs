//! What is being done, and what came of it: one job at a time for a role, and one for a pool's status.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Instant;

use futures_util::FutureExt as _;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use tokio::task::JoinSet;

use super::carry_out::{Annotated, Deployed, Failure, Hands};
use super::clusters::Opened;
use super::group_offsets::Adopt;
use super::pool::Manifest;
use super::secrets::SecretName;
use crate::apply::offsets::Commits;
use crate::crd::{AdoptionStatus, SeparationPoolStatus};
use crate::decide::{Marked, PodName};
use crate::metrics::{Metrics, Outcome};
use crate::plan::{PoolId, RolePlan};
use crate::watch::world::{PoolSeen, RoleKey};

/// What came of a job.
#[derive(Debug)]
pub(super) enum Done {
    Deployed(RoleKey, Result<Deployed, Failure>),
    Annotated(RoleKey, Annotated),
    Adopted(RoleKey, Result<AdoptionStatus, Failure>),
    Kept(RoleKey, Result<(), Failure>),
    Restored(RoleKey, Result<(), Failure>),
    Said(Arc<PoolId>, Result<Box<PoolSeen>, Failure>),
    SecretRead(SecretName, Result<Option<Box<Secret>>, Failure>),
}

/// Uid of the pool that a job is done for; none for what no single pool asked for.
pub(super) type For = Option<Arc<str>>;

/// Jobs that run. They end with this.
pub(super) struct Jobs {
    hands: Hands,
    metrics: Metrics,
    running: JoinSet<(For, Done)>,
    /// Jobs that were begun for a pool so far.
    begun_for_pools: u64,
}

impl Done {
    /// The pool that it is about; none for a secret, which several may share.
    pub(super) fn pool(&self) -> Option<&Arc<PoolId>> {
        match self {
            Self::Deployed(key, _) => Some(&key.pool),
            Self::Annotated(key, _) => Some(&key.pool),
            Self::Adopted(key, _) => Some(&key.pool),
            Self::Kept(key, _) | Self::Restored(key, _) => Some(&key.pool),
            Self::Said(id, _) => Some(id),
            Self::SecretRead(..) => None,
        }
    }

    /// How the reconciliation that began the job ended; none for a secret, which belongs to no reconciliation.
    fn outcome(&self) -> Option<Outcome> {
        let is_written = match self {
            Self::Deployed(_, result) => matches!(result, Ok(Deployed::Written(_))),
            Self::Annotated(_, annotated) => annotated.failure.is_none(),
            Self::Adopted(_, result) => result.is_ok(),
            Self::Kept(_, result) | Self::Restored(_, result) => result.is_ok(),
            Self::Said(_, result) => result.is_ok(),
            Self::SecretRead(..) => return None,
        };
        Some(if is_written {
            Outcome::Written
        } else {
            Outcome::Failed
        })
    }
}

impl Jobs {
    pub(super) fn new(hands: Hands, metrics: Metrics) -> Self {
        Self {
            hands,
            metrics,
            running: JoinSet::new(),
            begun_for_pools: 0,
        }
    }

    /// How many jobs were begun for a pool so far.
    pub(super) fn begun_for_pools(&self) -> u64 {
        self.begun_for_pools
    }

    /// What the next job that ends came to, and for whom; never, while none runs.
    pub(super) async fn next(&mut self) -> (For, Done) {
        loop {
            match self.running.join_next().await {
                Some(Ok(done)) => return done,
                // Only the end of the process cuts a job off.
                Some(Err(error)) => tracing::error!(%error, "A job was cut off"),
                None => return std::future::pending().await,
            }
        }
    }

    /// Begins a job. One that panics has failed, and is tried again.
    fn begin<T: Send + 'static>(
        &mut self,
        of: For,
        job: impl Future<Output = Result<T, Failure>> + Send + 'static,
        done: impl FnOnce(Result<T, Failure>) -> Done + Send + 'static,
    ) {
        self.begun_for_pools += u64::from(of.is_some());
        let (started, metrics) = (Instant::now(), self.metrics.clone());
        self.running.spawn(async move {
            let result = AssertUnwindSafe(job).catch_unwind().await;
            let result = result.unwrap_or_else(|_| Err(Failure::passing("a bug: the job panicked")));
            let done = done(result);
            if let Some(outcome) = done.outcome() {
                metrics.reconciled(outcome, started.elapsed());
            }
            (of, done)
        });
    }

    /// Waits for the jobs that run.
    pub(super) async fn finish(mut self) {
        while self.running.join_next().await.is_some() {}
    }

    pub(super) fn deploy(
        &mut self,
        key: RoleKey,
        uid: Arc<str>,
        manifest: Manifest,
        replicas: u32,
        known: Option<Arc<str>>,
    ) {
        let (hands, of) = (self.hands.clone(), key.clone());
        self.begin(
            Some(uid),
            async move { hands.deploy(&of, &manifest, replicas, known.as_deref()).await },
            |result| Done::Deployed(key, result),
        );
    }

    pub(super) fn annotate(&mut self, key: RoleKey, uid: Arc<str>, pods: Vec<PodName>, marked: Marked) {
        let (hands, of) = (self.hands.clone(), key.clone());
        self.begin(
            Some(uid),
            async move { Ok(hands.annotate(&of, &pods, marked).await) },
            |result| Done::Annotated(key, result.unwrap_or_else(Annotated::failed)),
        );
    }

    pub(super) fn adopt(
        &mut self,
        key: RoleKey,
        uid: Arc<str>,
        opened: Arc<Opened>,
        plan: &RolePlan,
        adopt: Adopt,
        time: Time,
    ) {
        let id = |id: &Option<Arc<str>>| id.as_deref().unwrap_or_default().to_owned();
        let adoption = AdoptionStatus {
            topic_id: id(&adopt.topic.topic_id),
            cluster_id: id(&adopt.topic.cluster_id),
            consumer_group: plan.group.clone(),
            offsets: Vec::new(),
            partitions: i32::try_from(adopt.partitions).unwrap_or(i32::MAX),
            policy: plan.adoption.name().to_owned(),
            at: time,
        };
        let commit = self.commit(opened, plan, adopt.commits);
        self.begin(
            Some(uid),
            async move { commit.await.map(|()| adoption) },
            |result| Done::Adopted(key, result),
        );
    }

    pub(super) fn keep(
        &mut self,
        key: RoleKey,
        uid: Arc<str>,
        opened: Arc<Opened>,
        plan: &RolePlan,
        partitions: Vec<i32>,
    ) {
        let (hands, group, topic) = (self.hands.clone(), plan.group.clone(), plan.topic.clone());
        let keep = async move {
            hands
                .commit_again(&opened.cluster, &group, &topic, &partitions)
                .await
        };
        self.begin(Some(uid), keep, |result| Done::Kept(key, result));
    }

    pub(super) fn restore(
        &mut self,
        key: RoleKey,
        uid: Arc<str>,
        opened: Arc<Opened>,
        plan: &RolePlan,
        commits: Commits,
    ) {
        let commit = self.commit(opened, plan, commits);
        self.begin(Some(uid), commit, |result| Done::Restored(key, result));
    }

    pub(super) fn say(&mut self, pool: Arc<PoolId>, uid: Arc<str>, status: SeparationPoolStatus) {
        let (hands, of) = (self.hands.clone(), Arc::clone(&pool));
        let said_of = Some(Arc::clone(&uid));
        self.begin(
            said_of,
            async move { hands.say(&of, &uid, &status).await },
            |result| Done::Said(pool, result.map(Box::new)),
        );
    }

    pub(super) fn read_secret(&mut self, name: SecretName) {
        let (hands, of) = (self.hands.clone(), name.clone());
        self.begin(
            None,
            async move { hands.secret(&of.namespace, &of.name).await },
            |result| Done::SecretRead(name, result.map(|secret| secret.map(Box::new))),
        );
    }

    fn commit(
        &self,
        opened: Arc<Opened>,
        plan: &RolePlan,
        commits: Commits,
    ) -> impl Future<Output = Result<(), Failure>> + Send + use<> {
        let (hands, group, topic) = (self.hands.clone(), plan.group.clone(), plan.topic.clone());
        async move { hands.commit(&opened.cluster, &group, &topic, &commits).await }
    }
}
