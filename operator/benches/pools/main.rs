//! Measures the operator with a real API server and real brokers; prints one JSON object.
//!
//! For `cargo xtask bench`, which builds the operator and records the output. There is no controller manager: only a
//! Deployment's replicas are measured, and no pods are needed.

mod faults;
mod reaction;
mod takeover;
mod thousand;

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::{Parser, Subcommand};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, DynamicObject, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::{ApiResource, ObjectMeta};
use kube::{Client, Config};
use separation_operator::crd::SeparationPool;
use separation_testbed::{
    ControlPlane, ControlPlaneOptions, Kafka, KafkaOptions, Process, TempDirectory, eventually,
};
use serde_json::{Value, json};

/// Timeout of every wait.
const TIMEOUT: Duration = Duration::from_secs(180);

const NAMESPACE: &str = "media";

#[derive(Debug, Parser)]
struct Arguments {
    /// The operator to measure
    #[arg(long)]
    operator: PathBuf,
    /// Given by `cargo bench`
    #[arg(long, hide = true, global = true)]
    bench: bool,
    #[command(subcommand)]
    scenario: Scenario,
}

#[derive(Debug, Subcommand)]
enum Scenario {
    /// From messages at zero replicas to the replicas the backlog needs
    Reaction {
        #[arg(long, default_value = "15")]
        rounds: usize,
        #[arg(long, default_value = "2")]
        poll_seconds: u32,
    },
    /// A thousand pools: first reconciliation, idle, and all busy at the same time
    Thousand {
        #[arg(long, default_value = "1000")]
        pools: usize,
        #[arg(long, default_value = "60")]
        idle_seconds: u64,
    },
    /// From the leader's crash to its standby's first write
    Takeover {
        #[arg(long, default_value = "3")]
        rounds: usize,
    },
    /// Unreachable brokers, and pools on other brokers meanwhile
    Faults {
        #[arg(long, default_value = "60")]
        away_seconds: u64,
    },
}

/// Fixture of every scenario.
struct Bench {
    operator: PathBuf,
    plane: ControlPlane,
    client: Client,
    kafka: Kafka,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let runtime = tokio::runtime::Runtime::new()?;
    let report = runtime.block_on(async {
        let options = ControlPlaneOptions {
            controllers: false,
            ..ControlPlaneOptions::default()
        };
        let (plane, kafka) = tokio::join!(
            ControlPlane::start(options),
            Kafka::start(KafkaOptions::default())
        );
        let plane = plane?;
        let bench = Bench {
            operator: arguments.operator,
            client: client(&plane).await?,
            plane,
            kafka: kafka?,
        };
        bench.install().await?;
        match arguments.scenario {
            Scenario::Reaction { rounds, poll_seconds } => {
                reaction::measure(&bench, rounds, poll_seconds).await
            }
            Scenario::Thousand { pools, idle_seconds } => {
                thousand::measure(&bench, pools, Duration::from_secs(idle_seconds)).await
            }
            Scenario::Takeover { rounds } => takeover::measure(&bench, rounds).await,
            Scenario::Faults { away_seconds } => {
                faults::measure(&bench, Duration::from_secs(away_seconds)).await
            }
        }
    })?;
    #[expect(clippy::print_stdout, reason = "the one thing that this program prints")]
    {
        println!("{report}");
    }
    Ok(())
}

async fn client(plane: &ControlPlane) -> Result<Client> {
    let kubeconfig = Kubeconfig::from_yaml(&plane.kubeconfig(plane.admin_token()))?;
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    Ok(Client::try_from(config)?)
}

/// A running operator with the default settings.
struct Operator {
    process: Process,
    _directory: TempDirectory,
}

impl Bench {
    async fn install(&self) -> Result<()> {
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        let namespace = Namespace {
            metadata: ObjectMeta {
                name: Some(NAMESPACE.to_owned()),
                ..ObjectMeta::default()
            },
            ..Namespace::default()
        };
        namespaces.create(&PostParams::default(), &namespace).await?;
        let crds: Api<CustomResourceDefinition> = Api::all(self.client.clone());
        let crd = separation_operator::crd::crd();
        crds.create(&PostParams::default(), &crd).await?;
        let pools: Api<SeparationPool> = Api::namespaced(self.client.clone(), NAMESPACE);
        eventually("CRD", TIMEOUT, async || {
            pools.list(&kube::api::ListParams::default()).await?;
            anyhow::Ok(true)
        })
        .await;
        Ok(())
    }

    fn start(&self, lease: &str) -> Result<Operator> {
        let directory = TempDirectory::new()?;
        let kubeconfig = directory.path().join("kubeconfig");
        std::fs::write(&kubeconfig, self.plane.kubeconfig(self.plane.admin_token()))?;
        let mut command = Command::new(&self.operator);
        command
            .args(["run", "--worker-image", "separation-worker:bench"])
            .args(["--lease-namespace", NAMESPACE, "--lease-name", lease])
            .args(["--health-address", "127.0.0.1:0"])
            .env("KUBECONFIG", kubeconfig);
        // Kept with the control plane's files, for debugging.
        let log = self.plane.directory().path().join("operator.log");
        let process = Process::start("separation-operator", &command, &log, &log)?;
        Ok(Operator {
            process,
            _directory: directory,
        })
    }

    fn deployments(&self) -> Api<Deployment> {
        Api::namespaced(self.client.clone(), NAMESPACE)
    }

    async fn apply(&self, pool: &Value) -> Result<()> {
        let resource = ApiResource::erase::<SeparationPool>(&());
        let pools: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), NAMESPACE, &resource);
        let name = pool["metadata"]["name"].as_str().context("a name")?;
        let params = PatchParams::apply("bench").force();
        pools.patch(name, &params, &Patch::Apply(pool)).await?;
        Ok(())
    }

    /// Waits until a pool's status shows that its offsets were initialized.
    async fn until_adopted(&self, name: &str) {
        let pools: Api<SeparationPool> = Api::namespaced(self.client.clone(), NAMESPACE);
        eventually("adoption", TIMEOUT, async || {
            let status = pools.get(name).await?.status.unwrap_or_default();
            let adopted = |role: Option<separation_operator::crd::RoleStatus>| {
                role.is_some_and(|role| role.offsets.is_some())
            };
            anyhow::Ok(adopted(status.processor) && adopted(status.uploader))
        })
        .await;
    }

    async fn replicas(&self, pool: &str) -> Result<Option<i32>> {
        let found = self.deployments().get_opt(&format!("{pool}-processor")).await?;
        Ok(found.and_then(|found| found.spec.replicas))
    }
}

/// A pool on these brokers, with a topic and groups of its own.
fn pool(name: &str, servers: &str, scaling: &Value) -> Value {
    json!({
        "apiVersion": "separation.dev/v1beta1",
        "kind": "SeparationPool",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {
            "kafka": {"bootstrapServers": servers},
            "storage": {"stems": {"bucket": "stems"}, "staging": {"s3": {}}},
            "processor": {
                "topic": format!("tasks-{name}"),
                "consumerGroup": format!("processors-{name}"),
                "scaling": scaling,
            },
            // One topic for all: uploaders differ only in their groups.
            "uploader": {"topic": "results", "consumerGroup": format!("uploaders-{name}")},
        },
    })
}
