//! `separation-operator check`: whether a replica leads, and whether pools can be read with the caller's permissions.
//! Writes nothing, and needs no shell, so that it can be a pod of `helm test`.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Args;
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::ListParams;
use kube::{Api, Config};
use separation_operator::api::unfenced_client;
use separation_operator::crd::SeparationPool;
use separation_operator::settings::{LeaseName, Namespaces};
use tokio::time::{Instant, sleep};

use super::output::print;

/// Time between two reads of the lease; the leader writes it every two seconds.
const POLL_INTERVAL: Duration = Duration::from_millis(500);

/// Timeout of one request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  separation-operator check                                   # in a pod of the operator's namespace, or with a kubeconfig
  separation-operator check --lease-namespace media --watch-namespaces media --wait-seconds 60")]
pub(super) struct CheckArguments {
    #[command(flatten)]
    lease: LeaseName,
    /// Namespaces whose pools are reconciled, comma separated [default: all]
    #[arg(
        long,
        env = "WATCH_NAMESPACES",
        value_delimiter = ',',
        value_name = "NAMESPACE"
    )]
    watch_namespaces: Vec<String>,
    /// Time to wait for a leader; after a crash a standby leads within 20 s
    #[arg(long, default_value = "30", value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=3_600))]
    wait_seconds: u64,
}

/// Runs the check and prints the result.
pub(super) fn run(arguments: &CheckArguments) -> anyhow::Result<()> {
    let namespaces = Namespaces::named(&arguments.watch_namespaces)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start")?;
    runtime.block_on(check(arguments, &namespaces))
}

async fn check(arguments: &CheckArguments, namespaces: &Namespaces) -> anyhow::Result<()> {
    let mut config = Config::infer()
        .await
        .context("no Kubernetes cluster is configured: no kubeconfig and no service account found")?;
    config.connect_timeout = Some(REQUEST_TIMEOUT);
    config.read_timeout = Some(REQUEST_TIMEOUT);
    let client = unfenced_client(config).context("cannot use the cluster's configuration")?;
    let LeaseName {
        lease_name,
        lease_namespace,
    } = &arguments.lease;
    let leases = Api::namespaced(client.clone(), lease_namespace);
    let limit = Duration::from_secs(arguments.wait_seconds);
    let leader = leader(&leases, lease_name, limit).await;
    let leader =
        leader.with_context(|| format!("no operator leads: lease {lease_namespace}/{lease_name}"))?;
    print(&format!("{leader} leads\n"))?;
    let readable = match namespaces {
        Namespaces::All => {
            read_pools(&Api::all(client)).await?;
            "all namespaces".to_owned()
        }
        Namespaces::These(names) => {
            for name in names {
                read_pools(&Api::namespaced(client.clone(), name))
                    .await
                    .with_context(|| format!("namespace {name}"))?;
            }
            names.iter().map(String::as_str).collect::<Vec<_>>().join(", ")
        }
    };
    print(&format!("pools of {readable} can be read\n"))
}

/// The replica that renews the lease within `limit`. A renewal shows as a new resource version: times in the lease,
/// from another machine's clock, are not read.
async fn leader(leases: &Api<Lease>, name: &str, limit: Duration) -> anyhow::Result<Arc<str>> {
    let deadline = Instant::now() + limit;
    let mut first: Option<HeldLease> = None;
    loop {
        let now = read_held_lease(leases, name).await;
        match (&now, &first) {
            (Ok(now), Some(first)) if now.holder == first.holder && now.version != first.version => {
                return Ok(Arc::clone(&now.holder));
            }
            (Ok(now), Some(first)) if now.holder == first.holder => {}
            (Ok(now), _) => first = Some(now.clone()),
            // A replica may acquire it soon.
            (Err(_), _) => {}
        }
        if Instant::now() >= deadline {
            let holder = now?.holder;
            bail!("{holder} has not renewed the lease for {} s", limit.as_secs());
        }
        sleep(POLL_INTERVAL).await;
    }
}

/// A lease with a holder.
#[derive(Debug, Clone)]
struct HeldLease {
    holder: Arc<str>,
    version: Option<String>,
}

async fn read_held_lease(leases: &Api<Lease>, name: &str) -> anyhow::Result<HeldLease> {
    let lease = leases
        .get_opt(name)
        .await?
        .context("the lease does not exist, so no operator has started; fix: look at the operator's pods")?;
    let holder = lease.spec.and_then(|spec| spec.holder_identity);
    let holder = holder.filter(|holder| !holder.is_empty());
    Ok(HeldLease {
        holder: holder.context("the lease has no holder")?.into(),
        version: lease.metadata.resource_version,
    })
}

async fn read_pools(pools: &Api<SeparationPool>) -> anyhow::Result<()> {
    let one = ListParams::default().limit(1);
    match pools.list_metadata(&one).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 404 => bail!(
            "the CRD of SeparationPool is not installed; fix: `separation-operator crd | kubectl apply -f -`"
        ),
        Err(error) => Err(error).context("pools cannot be read"),
    }
}
