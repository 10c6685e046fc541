//! The operator as a process, and a pool with its own topics, with their observable state.

use std::fs;
use std::net::SocketAddr;
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{ListParams, Patch, PatchParams};
use separation_operator::crd::{SeparationPool, SeparationPoolStatus};
use separation_operator::names::{client_id, pool_tag};
use separation_testbed::{ControlPlane, Kafka, Process, TempDirectory, eventually};
use serde_json::{Value, json};

use crate::manifests::system;
use crate::rig::{Rig, SOON, merged};

/// A running operator that manages one namespace.
pub(crate) struct OperatorProcess {
    pub(crate) process: Process,
    directory: TempDirectory,
}

/// A lease of a few seconds, for tests that do not depend on its duration.
pub(crate) const SHORT_LEASE: [&str; 3] = [
    "--lease-duration-seconds=5",
    "--lease-renew-deadline-seconds=3",
    "--lease-retry-period-seconds=0.5",
];

impl OperatorProcess {
    /// Starts one for the rig's namespace, with the permissions that the manifests grant.
    pub(crate) fn start(rig: &Rig) -> Self {
        Self::start_with(rig, &[])
    }

    /// As above, with more arguments.
    pub(crate) fn start_with(rig: &Rig, arguments: &[&str]) -> Self {
        Self::start_as(rig.plane, &rig.operator_token, &rig.namespace, arguments)
    }

    /// As above, with more environment variables too.
    pub(crate) fn start_in(rig: &Rig, arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        let watched = ["--watch-namespaces", &*rig.namespace];
        let arguments = [&watched[..], arguments].concat();
        let system = system(&rig.namespace);
        Self::launch_in(rig.plane, &rig.operator_token, &system, &arguments, environment)
    }

    /// As above, with a short lease.
    pub(crate) fn start_briefly_leading(rig: &Rig) -> Self {
        Self::start_as(rig.plane, &rig.operator_token, &rig.namespace, &SHORT_LEASE)
    }

    /// Starts one for a namespace, with a token and more arguments.
    pub(crate) fn start_as(plane: &ControlPlane, token: &str, namespace: &str, arguments: &[&str]) -> Self {
        let watched = ["--watch-namespaces", namespace];
        let arguments: Vec<&str> = watched.iter().chain(arguments).copied().collect();
        Self::launch(plane, token, &system(namespace), &arguments)
    }

    /// Starts one that runs in the namespace `system`; it manages all namespaces unless arguments name some.
    pub(crate) fn launch(plane: &ControlPlane, token: &str, system: &str, arguments: &[&str]) -> Self {
        Self::launch_in(plane, token, system, arguments, &[])
    }

    fn launch_in(
        plane: &ControlPlane,
        token: &str,
        system: &str,
        arguments: &[&str],
        environment: &[(&str, &str)],
    ) -> Self {
        let directory = TempDirectory::new().expect("a directory");
        let kubeconfig = directory.path().join("kubeconfig");
        fs::write(&kubeconfig, plane.kubeconfig(token)).expect("a file");
        let mut command = Command::new(env!("CARGO_BIN_EXE_separation-operator"));
        command
            .arg("run")
            .args(["--worker-image", "separation-worker:test"])
            .args(["--lease-namespace", system])
            .args(["--health-address", "127.0.0.1:0"])
            .args(arguments)
            .envs(environment.iter().copied())
            .env("KUBECONFIG", kubeconfig)
            .env("LOG_LEVEL", "info,separation_operator=debug");
        let log = directory.path().join("operator.log");
        let process = Process::start("separation-operator", &command, &log, &log).expect("a process");
        Self { process, directory }
    }

    /// Its complete log.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("operator.log")).unwrap_or_default()
    }

    /// The address of its endpoints, once it serves them.
    pub(crate) fn address(&self) -> anyhow::Result<SocketAddr> {
        let log = self.log();
        let address = log
            .lines()
            .find(|line| line.contains("Serving health and metrics"))
            .and_then(|line| line.split("address=").nth(1)?.split_whitespace().next())
            .ok_or_else(|| anyhow::anyhow!("no address yet"))?;
        Ok(address.parse()?)
    }

    /// The response of an endpoint.
    pub(crate) async fn get(&self, path: &str) -> anyhow::Result<(u16, String)> {
        let address = self.address()?;
        let response = reqwest::get(format!("http://{address}{path}")).await?;
        Ok((response.status().as_u16(), response.text().await?))
    }

    /// The sum of a metric's series; none if it has no series.
    pub(crate) async fn metric(&self, name: &str) -> anyhow::Result<Option<f64>> {
        let (_, text) = self.get("/metrics").await?;
        let series = text.lines().filter(|line| {
            line.strip_prefix(name)
                .is_some_and(|rest| rest.starts_with([' ', '{']))
        });
        let values = series.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
        Ok(values.reduce(|sum, value| sum + value))
    }

    /// Waits for this many further readings of Kafka.
    pub(crate) async fn until_read_again(&self, times: f64) {
        const READ: &str = "separation_operator_kafka_read_seconds_count";
        let read = async || anyhow::Ok(self.metric(READ).await?);
        let before = eventually("reading of Kafka", SOON, read).await;
        eventually("further readings of Kafka", SOON, async || {
            anyhow::Ok(read().await?.is_some_and(|now| now >= before + times))
        })
        .await;
    }

    /// Waits until it leads and has listed all objects.
    pub(crate) async fn until_it_leads(&self) {
        eventually("leading operator", SOON, async || self.leads()).await;
    }

    /// Whether it leads, by its log.
    pub(crate) fn leads(&self) -> bool {
        let log = self.log();
        let last = log.lines().rfind(|line| {
            line.contains(" Leading pools=") || line.contains("No longer leading: writes have stopped")
        });
        last.is_some_and(|line| line.contains(" Leading pools="))
    }

    /// Shuts it down with SIGTERM.
    pub(crate) async fn end(self) {
        self.process.sigterm().expect("it runs");
        let code = self.process.wait_exit(Duration::from_secs(15)).await;
        assert_eq!(code.expect("it ends"), 0, "{}", self.log());
    }
}

/// A pool with unique topics and groups.
pub(crate) struct PoolUnderTest<'a> {
    pub(crate) rig: &'a Rig,
    pub(crate) kafka: &'a Kafka,
    pub(crate) name: String,
    pub(crate) tag: String,
    /// The object's uid, after it was applied.
    uid: OnceLock<String>,
}

impl<'a> PoolUnderTest<'a> {
    /// Creates its topics; the task topic has this many partitions.
    pub(crate) async fn new(rig: &'a Rig, partitions: i32) -> Self {
        Self::named(rig, "vocals", partitions).await
    }

    /// As above, for a pool of another name.
    pub(crate) async fn named(rig: &'a Rig, name: &str, partitions: i32) -> Self {
        let kafka = Kafka::shared().await.expect("Kafka");
        Self::on(rig, kafka, name, partitions).await
    }

    /// As above, on the test's own Kafka or with another name.
    pub(crate) async fn on(rig: &'a Rig, kafka: &'a Kafka, name: &str, partitions: i32) -> Self {
        let pool = Self::without_tasks(rig, kafka, name).await;
        kafka
            .create_topic(&pool.tasks(), partitions)
            .await
            .expect("a topic");
        pool
    }

    /// A pool whose task topic does not exist yet.
    pub(crate) async fn without_tasks(rig: &'a Rig, kafka: &'a Kafka, name: &str) -> Self {
        let pool = Self {
            rig,
            kafka,
            name: name.to_owned(),
            tag: format!("{}-{name}", rig.namespace),
            uid: OnceLock::new(),
        };
        kafka.create_topic(&pool.results(), 1).await.expect("a topic");
        pool
    }

    pub(crate) fn tasks(&self) -> String {
        format!("tasks-{}", self.tag)
    }

    pub(crate) fn results(&self) -> String {
        format!("results-{}", self.tag)
    }

    pub(crate) fn group(&self) -> String {
        format!("processors-{}", self.tag)
    }

    /// The pool's object, with changes to its spec.
    pub(crate) fn object(&self, changes: &Value) -> Value {
        let spec = json!({
            "kafka": {"bootstrapServers": self.kafka.bootstrap()},
            "storage": {"stems": {"bucket": "stems"}, "staging": {"s3": {}}},
            "processor": {
                "topic": self.tasks(),
                "consumerGroup": self.group(),
                "scaling": {
                    "maxReplicas": 100,
                    "lagCheckPeriodSeconds": 1,
                    "scaleDown": {"stabilizationWindowSeconds": 1},
                },
            },
            "uploader": {
                "topic": self.results(),
                "consumerGroup": format!("uploaders-{}", self.tag),
                "scaling": {"lagCheckPeriodSeconds": 1},
            },
        });
        json!({
            "apiVersion": "separation.dev/v1beta1",
            "kind": "SeparationPool",
            "metadata": {"name": self.name, "namespace": self.rig.namespace},
            "spec": merged(spec, changes),
        })
    }

    /// Applies it as a user would.
    pub(crate) async fn apply(&self, changes: &Value) -> SeparationPool {
        let params = PatchParams::apply("a-person").force().validation_strict();
        let applied = self
            .pools()
            .patch(&self.name, &params, &Patch::Apply(self.object(changes)))
            .await
            .expect("the pool is accepted");
        let uid = applied.metadata.uid.clone().expect("a uid");
        let _ = self.uid.set(uid);
        applied
    }

    /// The Kafka client id that a worker in a pod of this pool has.
    pub(crate) fn client_id(&self, pod: &str) -> String {
        let is_worker = pod.starts_with(&self.deployment_name());
        match self.uid.get().filter(|_| is_worker) {
            Some(uid) => client_id(pod, &pool_tag(uid)),
            None => pod.to_owned(),
        }
    }

    pub(crate) fn pools(&self) -> Api<SeparationPool> {
        Api::namespaced(self.rig.admin.clone(), &self.rig.namespace)
    }

    pub(crate) fn deployments(&self) -> Api<Deployment> {
        Api::namespaced(self.rig.admin.clone(), &self.rig.namespace)
    }

    pub(crate) fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.rig.admin.clone(), &self.rig.namespace)
    }

    pub(crate) fn deployment_name(&self) -> String {
        format!("{}-processor", self.name)
    }

    /// The processor's Deployment, once it exists.
    pub(crate) async fn deployment(&self) -> Deployment {
        let name = self.deployment_name();
        eventually("Deployment", SOON, async || {
            self.deployments().get_opt(&name).await.map_err(Into::into)
        })
        .await
    }

    /// The Deployment's current `replicas`.
    pub(crate) async fn replicas(&self) -> Option<i32> {
        let found = self.deployments().get_opt(&self.deployment_name()).await;
        found.ok().flatten()?.spec.replicas
    }

    /// Waits until the Deployment has this many `replicas`.
    pub(crate) async fn until_replicas(&self, replicas: i32, within: Duration) {
        let what = format!("number of replicas of {replicas}");
        eventually(&what, within, async || {
            if self.replicas().await == Some(replicas) {
                return Ok(true);
            }
            let pool = self.pools().get(&self.name).await?;
            anyhow::bail!("the status is {}", serde_json::to_string(&pool.status)?)
        })
        .await;
    }

    /// The status, once a predicate is true for it.
    pub(crate) async fn until_status(
        &self,
        what: &str,
        within: Duration,
        predicate: impl Fn(&SeparationPoolStatus) -> bool,
    ) -> SeparationPoolStatus {
        eventually(
            what,
            within,
            async || -> anyhow::Result<Option<SeparationPoolStatus>> {
                let pool = self.pools().get(&self.name).await?;
                let status = pool.status.unwrap_or_default();
                if predicate(&status) {
                    return Ok(Some(status));
                }
                anyhow::bail!("the status is {}", serde_json::to_string(&status)?)
            },
        )
        .await
    }

    /// Waits until the offsets of both roles are initialized.
    pub(crate) async fn until_adopted(&self) -> SeparationPoolStatus {
        self.until_status("adoption", SOON, |status| {
            let adopted = |role: &Option<separation_operator::crd::RoleStatus>| {
                role.as_ref().is_some_and(|role| role.offsets.is_some())
            };
            adopted(&status.processor) && adopted(&status.uploader)
        })
        .await
    }

    /// Publishes one message.
    pub(crate) async fn publish(&self, partition: i32, value: &str) {
        self.kafka
            .publish_to(&self.tasks(), partition, "key", value)
            .await
            .expect("published");
    }

    /// Publishes one message to each of the partitions from 0.
    pub(crate) async fn publish_one_each(&self, partitions: i32) {
        for partition in 0..partitions {
            self.publish(partition, "{}").await;
        }
    }

    /// The processor's pods, by name.
    pub(crate) async fn pod_names(&self) -> Vec<String> {
        let selector = ListParams::default().labels(&format!(
            "separation.dev/pool={},separation.dev/role=processor",
            self.name
        ));
        let pods = self.pods().list(&selector).await.expect("pods");
        let alive = pods
            .items
            .into_iter()
            .filter(|pod| pod.metadata.deletion_timestamp.is_none());
        let mut names: Vec<_> = alive.filter_map(|pod| pod.metadata.name).collect();
        names.sort();
        names
    }
}
