//! Running jobs and their results: at most one job per role, and one for a pool's status.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Instant;

use futures_util::FutureExt as _;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use tokio::task::JoinSet;

use super::api_objects::WrittenApi;
use super::api_writer::{AnnotateOutcome, ApiWriter, DeployOutcome, Failure, NewTopic};
use super::clusters::OpenCluster;
use super::group_offsets::Adopt;
use super::secrets::SecretName;
use crate::apply::ApiObjects;
use crate::apply::Manifest;
use crate::apply::offsets::Commits;
use crate::crd::{OffsetsStatus, SeparationPoolStatus};
use crate::decide::{CostAnnotation, PodName};
use crate::metrics::Metrics;
use crate::observe::workload::DeploymentSnapshot;
use crate::plan::{PoolId, RolePlan};
use crate::watch::cache::{PoolSnapshot, RoleKey};

/// The result of a job.
#[derive(Debug)]
pub(super) enum JobResult {
    Role(RoleKey, StepResult),
    Status(Arc<PoolId>, Result<Box<PoolSnapshot>, Failure>),
    /// The API's objects after a write; none if they were deleted.
    Api(Arc<PoolId>, Result<Option<Box<WrittenApi>>, Failure>),
    SecretRead(SecretName, Result<Option<Box<Secret>>, Failure>),
}

/// The result of a role's step.
#[derive(Debug)]
pub(super) enum StepResult {
    /// A write of the Deployment that had so many replicas before; none if it did not exist.
    Deployed(Option<u32>, Result<DeployOutcome, Failure>),
    Annotated(AnnotateOutcome),
    TopicCreated(Result<(), Failure>),
    Adopted(Result<OffsetsStatus, Failure>),
    Recommitted(Result<(), Failure>),
    Restored(Result<(), Failure>),
}

/// Uid of the pool that a job is for; `None` for Secrets, which several pools may share.
pub(super) type PoolUid = Option<Arc<str>>;

/// Running jobs. Dropping this aborts them.
pub(super) struct Jobs {
    writer: ApiWriter,
    metrics: Metrics,
    running: JoinSet<(PoolUid, JobResult)>,
    /// Number of jobs started for pools so far.
    started_for_pools: u64,
}

impl JobResult {
    /// The outcome of the reconciliation that started the job; `None` for a Secret, which belongs to no reconciliation.
    fn outcome(&self) -> Option<&'static str> {
        let is_written = match self {
            Self::Role(_, result) => result.is_written(),
            Self::Status(_, result) => result.is_ok(),
            Self::Api(_, result) => result.is_ok(),
            Self::SecretRead(..) => return None,
        };
        Some(if is_written { "written" } else { "failed" })
    }
}

impl StepResult {
    /// The log message of a failure.
    pub(super) fn failure_message(&self) -> &'static str {
        match self {
            Self::Deployed(..) => "Deployment could not be written",
            Self::Annotated(_) => "Pods could not be annotated",
            Self::TopicCreated(_) => "The topic could not be created",
            Self::Adopted(_) => "Offsets could not be initialized",
            Self::Recommitted(_) => "Offsets could not be committed again",
            Self::Restored(_) => "Offsets could not be restored",
        }
    }

    fn is_written(&self) -> bool {
        match self {
            Self::Deployed(_, result) => matches!(result, Ok(DeployOutcome::Written(_))),
            Self::Annotated(annotated) => annotated.failure.is_none(),
            Self::Adopted(result) => result.is_ok(),
            Self::TopicCreated(result) | Self::Recommitted(result) | Self::Restored(result) => result.is_ok(),
        }
    }
}

impl Jobs {
    pub(super) fn new(writer: ApiWriter, metrics: Metrics) -> Self {
        Self {
            writer,
            metrics,
            running: JoinSet::new(),
            started_for_pools: 0,
        }
    }

    /// Number of jobs started for pools so far.
    pub(super) fn started_for_pools(&self) -> u64 {
        self.started_for_pools
    }

    /// The next result; pending while no job runs.
    pub(super) async fn next(&mut self) -> (PoolUid, JobResult) {
        loop {
            match self.running.join_next().await {
                Some(Ok(result)) => return result,
                // Jobs are canceled only at the end of the process.
                Some(Err(error)) => tracing::error!(%error, "A job was canceled"),
                None => return std::future::pending().await,
            }
        }
    }

    /// Starts a job. A panic counts as a transient failure, and is retried.
    fn start<T: Send + 'static>(
        &mut self,
        pool_uid: PoolUid,
        job: impl Future<Output = Result<T, Failure>> + Send + 'static,
        to_job_result: impl FnOnce(Result<T, Failure>) -> JobResult + Send + 'static,
    ) {
        self.started_for_pools += u64::from(pool_uid.is_some());
        let (started, metrics) = (Instant::now(), self.metrics.clone());
        self.running.spawn(async move {
            let result = AssertUnwindSafe(job).catch_unwind().await;
            let result = result.unwrap_or_else(|_| Err(Failure::transient("a bug: the job panicked")));
            let job_result = to_job_result(result);
            if let Some(outcome) = job_result.outcome() {
                metrics.reconciled(outcome, started.elapsed());
            }
            (pool_uid, job_result)
        });
    }

    /// Waits for running jobs.
    pub(super) async fn finish(mut self) {
        while self.running.join_next().await.is_some() {}
    }

    pub(super) fn deploy(
        &mut self,
        key: RoleKey,
        uid: Arc<str>,
        manifest: Manifest,
        replicas: u32,
        current: Option<&DeploymentSnapshot>,
    ) {
        let from = current.map(|current| current.replicas);
        let known = current.map(|current| Arc::clone(&current.resource_version));
        let (writer, target) = (self.writer.clone(), key.clone());
        let deploy = async move {
            writer
                .deploy(&target, &manifest, replicas, known.as_deref())
                .await
        };
        self.start(Some(uid), deploy, move |result| {
            JobResult::Role(key, StepResult::Deployed(from, result))
        });
    }

    pub(super) fn annotate(
        &mut self,
        key: RoleKey,
        uid: Arc<str>,
        pods: Vec<PodName>,
        cost_annotation: CostAnnotation,
    ) {
        let (writer, target) = (self.writer.clone(), key.clone());
        let annotate = async move { Ok(writer.annotate(&target, &pods, cost_annotation).await) };
        self.start(Some(uid), annotate, |result| {
            let annotated = result.unwrap_or_else(AnnotateOutcome::failed);
            JobResult::Role(key, StepResult::Annotated(annotated))
        });
    }

    pub(super) fn create_topic(
        &mut self,
        key: RoleKey,
        uid: Arc<str>,
        open_cluster: Arc<OpenCluster>,
        topic: NewTopic,
    ) {
        let writer = self.writer.clone();
        let create = async move { writer.create_topic(&open_cluster.cluster, &topic).await };
        self.start(Some(uid), create, |result| {
            JobResult::Role(key, StepResult::TopicCreated(result))
        });
    }

    pub(super) fn adopt(
        &mut self,
        key: RoleKey,
        uid: Arc<str>,
        open_cluster: Arc<OpenCluster>,
        plan: &RolePlan,
        adopt: Adopt,
        time: Time,
    ) {
        let id = |id: &Option<Arc<str>>| id.as_deref().unwrap_or_default().to_owned();
        let adoption = OffsetsStatus {
            topic_id: id(&adopt.topic.topic_id),
            cluster_id: id(&adopt.topic.cluster_id),
            consumer_group: plan.group.clone(),
            committed: Vec::new(),
            workers_joined: false,
            partitions: i32::try_from(adopt.partitions).unwrap_or(i32::MAX),
            initial_offset: plan.initial_offset.into(),
            initialized_time: time,
        };
        let commit = self.commit(open_cluster, plan, adopt.commits);
        self.start(Some(uid), commit, |result| {
            JobResult::Role(key, StepResult::Adopted(result.map(|()| adoption)))
        });
    }

    pub(super) fn recommit(
        &mut self,
        key: RoleKey,
        uid: Arc<str>,
        open_cluster: Arc<OpenCluster>,
        plan: &RolePlan,
        partitions: Vec<i32>,
    ) {
        let (writer, group, topic) = (self.writer.clone(), plan.group.clone(), plan.topic.clone());
        let recommit = async move {
            writer
                .commit_again(&open_cluster.cluster, &group, &topic, &partitions)
                .await
        };
        self.start(Some(uid), recommit, |result| {
            JobResult::Role(key, StepResult::Recommitted(result))
        });
    }

    pub(super) fn restore(
        &mut self,
        key: RoleKey,
        uid: Arc<str>,
        open_cluster: Arc<OpenCluster>,
        plan: &RolePlan,
        commits: Commits,
    ) {
        let commit = self.commit(open_cluster, plan, commits);
        self.start(Some(uid), commit, |result| {
            JobResult::Role(key, StepResult::Restored(result))
        });
    }

    pub(super) fn update_status(&mut self, pool: Arc<PoolId>, uid: Arc<str>, status: SeparationPoolStatus) {
        let (writer, target) = (self.writer.clone(), Arc::clone(&pool));
        let pool_uid = Some(Arc::clone(&uid));
        let update = async move { writer.update_status(&target, &uid, &status).await };
        self.start(pool_uid, update, |result| {
            JobResult::Status(pool, result.map(Box::new))
        });
    }

    pub(super) fn apply_api(&mut self, pool: Arc<PoolId>, uid: Arc<str>, objects: Box<ApiObjects>) {
        let (writer, target, pool_uid) = (self.writer.clone(), Arc::clone(&pool), Arc::clone(&uid));
        let apply = async move { writer.apply_api(&target, &pool_uid, &objects).await };
        self.start(Some(uid), apply, |result| {
            JobResult::Api(pool, result.map(|written| Some(Box::new(written))))
        });
    }

    pub(super) fn delete_api(&mut self, pool: Arc<PoolId>, uid: Arc<str>) {
        let (writer, target, pool_uid) = (self.writer.clone(), Arc::clone(&pool), Arc::clone(&uid));
        let delete = async move { writer.delete_api(&target, &pool_uid).await };
        self.start(Some(uid), delete, |result| {
            JobResult::Api(pool, result.map(|()| None))
        });
    }

    pub(super) fn read_secret(&mut self, name: SecretName) {
        let (writer, target) = (self.writer.clone(), name.clone());
        let read = async move { writer.secret(&target.namespace, &target.name).await };
        self.start(None, read, |result| {
            JobResult::SecretRead(name, result.map(|secret| secret.map(Box::new)))
        });
    }

    fn commit(
        &self,
        open_cluster: Arc<OpenCluster>,
        plan: &RolePlan,
        commits: Commits,
    ) -> impl Future<Output = Result<(), Failure>> + Send + use<> {
        let (writer, group, topic) = (self.writer.clone(), plan.group.clone(), plan.topic.clone());
        async move {
            writer
                .commit(&open_cluster.cluster, &group, &topic, &commits)
                .await
        }
    }
}
