//! `check --in-cluster`: runs `separation-worker check` in a Job with the pod template of a role's Deployment, so with its
//! image, credentials, network, volumes and GPU, and reads its findings from the log.
//!
//! The pod has none of the labels by which the operator and the Deployment select workers.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::batch::v1::{Job, JobSpec};
use k8s_openapi::api::core::v1::{Pod, PodTemplateSpec};
use kube::api::{DeleteParams, ListParams, LogParams, ObjectMeta, PostParams};
use kube::{Api, Client};
use separation_contract::check::Finding;
use separation_operator::apply::{CONTAINER, deployment_name};
use separation_operator::lease::api_error_text;
use separation_operator::names::OWN_PREFIX;
use separation_operator::plan::{PoolId, Role};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::outcome::{JOB, has_ended, has_log, outcome};

/// Time between two reads of the pod.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// Label that Prometheus and users select workers by, and its value here.
const MANAGED_BY: (&str, &str) = ("app.kubernetes.io/managed-by", "separation-operator-check");

/// Time after its end until Kubernetes deletes a Job that this process did not delete because it was killed.
const TTL_SECONDS: i32 = 300;

/// Runs checks in Jobs. A Job is deleted even if the caller of [`Self::check`] is dropped.
#[derive(Debug, Default)]
pub(super) struct Jobs {
    interrupted: CancellationToken,
    running: TaskTracker,
}

impl Jobs {
    /// Runs the check of a role and returns its findings; waits at most `limit` for its pod.
    pub(super) async fn check(
        &self,
        client: &Client,
        pool: &PoolId,
        role: Role,
        limit: Duration,
    ) -> Vec<Finding> {
        let (client, pool, interrupted) = (client.clone(), pool.clone(), self.interrupted.clone());
        let running = self
            .running
            .spawn(async move { run(&client, &pool, role, limit, &interrupted).await });
        let error = match running.await {
            Ok(Ok(findings)) => return findings,
            Ok(Err(error)) => error,
            Err(panicked) => panicked.into(),
        };
        vec![Finding::problem(JOB, format!("{error:#}"))]
    }

    /// Ends the running check, and returns once its Job is deleted.
    pub(super) async fn interrupt(&self) {
        self.interrupted.cancel();
        self.running.close();
        self.running.wait().await;
    }
}

async fn run(
    client: &Client,
    pool: &PoolId,
    role: Role,
    limit: Duration,
    interrupted: &CancellationToken,
) -> anyhow::Result<Vec<Finding>> {
    let namespace = &pool.namespace;
    let name = deployment_name(pool, role);
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), namespace);
    let found = deployments.get_opt(&name).await;
    let found = found.map_err(|error| api_error(&error, &format!("Deployment {name} cannot be read")))?;
    let deployment = found.with_context(|| {
        format!("Deployment {name}, whose pod template is used, does not exist; fix: see the findings of the operator")
    })?;
    let template = deployment.spec.template;
    let jobs: Api<Job> = Api::namespaced(client.clone(), namespace);
    let created = jobs
        .create(&PostParams::default(), &job(&name, role, template, limit))
        .await;
    let created = created.map_err(|error| api_error(&error, "the Job cannot be created"))?;
    let job = created.metadata.name.context("the Job has no name")?;
    let ended = interrupted.run_until_cancelled(until_ended(client, namespace, &job, limit));
    let mut findings = ended.await.unwrap_or_default();
    if let Err(error) = jobs.delete(&job, &DeleteParams::background()).await {
        let why = api_error_text(&error);
        let text = format!(
            "Job {job} was not deleted: {why}; fix: kubectl delete job {job} --namespace {namespace}"
        );
        findings.push(Finding::warning(JOB, text));
    }
    Ok(findings)
}

fn api_error(error: &kube::Error, context: &str) -> anyhow::Error {
    anyhow!("{context}: {}", api_error_text(error))
}

/// The Job for a role. Only the worker's container runs: another one might never end.
fn job(deployment: &str, role: Role, template: PodTemplateSpec, limit: Duration) -> Job {
    let metadata = template.metadata.unwrap_or_default();
    let mut labels = without_own(metadata.labels);
    let (name, value) = MANAGED_BY;
    labels.insert(name.to_owned(), value.to_owned());
    let mut pod = template.spec.unwrap_or_default();
    pod.containers.retain(|container| container.name == CONTAINER);
    for container in &mut pod.containers {
        container.args = Some(vec!["check".to_owned(), role.name().to_owned()]);
        container.lifecycle = None;
        container.startup_probe = None;
        container.liveness_probe = None;
        container.readiness_probe = None;
    }
    pod.restart_policy = Some("Never".to_owned());
    pod.termination_grace_period_seconds = Some(5);
    let seconds = i64::try_from(limit.as_secs()).unwrap_or(i64::MAX);
    Job {
        metadata: ObjectMeta {
            generate_name: Some(format!("{deployment}-check-")),
            labels: Some(labels.clone()),
            ..ObjectMeta::default()
        },
        spec: Some(JobSpec {
            backoff_limit: Some(0),
            // If this process is killed: it deletes the Job at `limit`.
            active_deadline_seconds: Some(seconds.saturating_add(TTL_SECONDS.into())),
            ttl_seconds_after_finished: Some(TTL_SECONDS),
            template: PodTemplateSpec {
                metadata: Some(ObjectMeta {
                    labels: Some(labels),
                    annotations: Some(without_own(metadata.annotations)),
                    ..ObjectMeta::default()
                }),
                spec: Some(pod),
            },
            ..JobSpec::default()
        }),
        status: None,
    }
}

fn without_own(names: Option<BTreeMap<String, String>>) -> BTreeMap<String, String> {
    let names = names.unwrap_or_default().into_iter();
    names.filter(|(name, _)| !name.starts_with(OWN_PREFIX)).collect()
}

/// The findings of the Job's pod, once it has ended or `limit` has passed.
async fn until_ended(client: &Client, namespace: &str, job: &str, limit: Duration) -> Vec<Finding> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let selector = ListParams::default().labels(&format!("batch.kubernetes.io/job-name={job}"));
    let deadline = Instant::now() + limit;
    loop {
        let is_last = Instant::now() >= deadline;
        match pods.list(&selector).await {
            Ok(listed) => {
                let pod = listed.items.first();
                if is_last || pod.is_some_and(has_ended) {
                    let log = read_log(&pods, pod).await;
                    return outcome(pod, log.as_deref().map_err(String::as_str), limit);
                }
            }
            Err(error) if is_last || is_forbidden(&error) => {
                let why = api_error_text(&error);
                return vec![Finding::problem(
                    JOB,
                    format!("the Job's pod cannot be read: {why}"),
                )];
            }
            // The API server may be restarting.
            Err(_) => {}
        }
        sleep(POLL_INTERVAL).await;
    }
}

fn is_forbidden(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 403)
}

/// The log of a pod's container, empty before it starts, or the reason why it cannot be read.
async fn read_log(pods: &Api<Pod>, pod: Option<&Pod>) -> Result<String, String> {
    let Some(pod) = pod.filter(|pod| has_log(pod)) else {
        return Ok(String::new());
    };
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let container = LogParams {
        container: Some(CONTAINER.to_owned()),
        ..LogParams::default()
    };
    let log = pods.logs(name, &container).await;
    log.map_err(|error| api_error_text(&error))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::Arc;

    use separation_operator::apply::Manifest;
    use separation_operator::crd::from_yaml;
    use separation_operator::plan::{Model, PoolPlan};
    use separation_operator::settings::WorkerSettings;

    use super::*;

    const POOL: &str = "
apiVersion: separation.dev/v1beta1
kind: SeparationPool
metadata: {name: vocals, namespace: media}
spec:
  kafka: {bootstrapServers: 'k:1'}
  storage: {stems: {bucket: stems}, staging: {s3: {}}}
  processor:
    resources: {limits: {nvidia.com/gpu: 1}}
    podTemplate: {spec: {containers: [{name: proxy, image: proxy}]}}
";

    #[test]
    fn a_job_runs_the_workers_container_without_the_labels_of_workers() {
        let plan = Arc::new(PoolPlan::from_pool(&from_yaml(POOL).unwrap()).unwrap());
        let settings = WorkerSettings {
            image: "worker:1".to_owned(),
            image_pull_secrets: vec!["registry".to_owned()],
            model: Model::named("builtin"),
            allowed: BTreeSet::new(),
            audiences: BTreeSet::new(),
        };
        let deployment = Manifest::new(plan, Role::Processor, Arc::new(settings)).deployment(1);
        let template = deployment.unwrap().spec.template;
        let worker = template.spec.clone().unwrap();
        let job = job(
            "vocals-processor",
            Role::Processor,
            template,
            Duration::from_secs(60),
        );
        let spec = job.spec.unwrap();
        let metadata = spec.template.metadata.unwrap();
        let mut names = metadata.labels.iter().chain(&metadata.annotations).flatten();
        assert!(names.all(|(name, _)| !name.starts_with(OWN_PREFIX)));
        let labels = metadata.labels.as_ref().unwrap();
        // Network policies select workers by it; PodMonitors by this and the other label.
        assert_eq!(labels["app.kubernetes.io/name"], "separation-worker");
        assert_ne!(labels[MANAGED_BY.0], "separation-operator");
        let pod = spec.template.spec.unwrap();
        let [container] = &pod.containers[..] else {
            panic!("{:?}", pod.containers)
        };
        let expected = worker
            .containers
            .iter()
            .find(|container| container.name == CONTAINER);
        let expected = expected.unwrap();
        assert_eq!(
            container.args,
            Some(vec!["check".to_owned(), "processor".to_owned()])
        );
        assert_eq!(
            (&container.env, &container.resources, &container.volume_mounts),
            (&expected.env, &expected.resources, &expected.volume_mounts)
        );
        assert_eq!(container.liveness_probe, None);
        assert_eq!(
            (&pod.volumes, &pod.image_pull_secrets, &pod.security_context),
            (
                &worker.volumes,
                &worker.image_pull_secrets,
                &worker.security_context
            )
        );
        assert_eq!(pod.restart_policy.as_deref(), Some("Never"));
    }
}
