//! `separation-operator check`: whether the operator and its pools can work, with the caller's permissions. Writes nothing
//! except the Jobs of `--in-cluster`, and needs no shell, so that it can be a pod of `helm test`.

mod crd;
mod job;
mod kafka;
mod leader;
mod list;
mod outcome;
mod pool;
mod report;
mod rights;
mod secrets;

use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use kube::api::ListParams;
use kube::{Client, Config};
use separation_contract::check::{CheckResult, Finding};
use separation_operator::api::unfenced_client;
use separation_operator::plan::{PoolId, Role};
use separation_operator::settings::{LeaseName, Namespaces};
use separation_operator::watch::cache::PoolSnapshot;

use crate::output::{EXIT_FAILED, EXIT_INTERRUPTED};
use crd::{ExpectedCrd, INSTALL};
use job::Jobs;
use kafka::Reach;
use list::{ListedPools, list};
use report::{Format, Report};
use rights::OperatorAccount;

/// Timeout of one request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  separation-operator check                                    # all pools that the kubeconfig can read
  separation-operator check -n media --pool vocals --in-cluster
      also starts a Job for each role, which checks the object store, the model and the GPU, and is then deleted
  separation-operator check --json | jq 'select(.result != \"ok\")'
  separation-operator check --operator-only --wait-seconds 60  # as helm test does, in a pod of the operator

Exit code: 0 without problems (warnings are none), 1 with problems, 2 if nothing could be checked, 130 after Ctrl-C, which
deletes the running Job. --in-cluster needs the rights to get Deployments, to create and delete Jobs, and to list pods and
get their logs in the pools' namespaces. The pod of a Job requests what a worker requests: for a pool with GPUs one must be
free, or the result is a warning.")]
pub(super) struct CheckArguments {
    #[command(flatten)]
    lease: LeaseName,
    /// Name of the operator's service account, in the namespace of the Lease
    #[arg(
        long,
        env = "SERVICE_ACCOUNT",
        default_value = "separation-operator",
        value_name = "NAME"
    )]
    service_account: String,
    /// Time to wait for a leader; after a crash a standby leads within 20 s
    #[arg(long, default_value = "30", value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=3_600))]
    wait_seconds: u64,
    /// Namespaces whose pools are checked, comma separated [default: all that the caller may read]
    #[arg(
        short,
        long = "namespace",
        alias = "watch-namespaces",
        env = "WATCH_NAMESPACES",
        value_delimiter = ',',
        value_name = "NAMESPACE"
    )]
    namespaces: Vec<String>,
    /// Names of the pools that are checked, comma separated [default: all]
    #[arg(long = "pool", value_delimiter = ',', value_name = "NAME")]
    pools: Vec<String>,
    /// Check the operator only: that a replica leads, its rights, and that pools can be read
    #[arg(long, conflicts_with_all = ["pools", "in_cluster"])]
    operator_only: bool,
    /// Also run separation-worker check in a Job for each role, with the pod template of the role's Deployment
    #[arg(long)]
    in_cluster: bool,
    /// Time to wait for the pod of such a Job, which may need an image, a node or a large model
    #[arg(long, default_value = "300", value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    job_seconds: u64,
    /// Print a JSON object for each finding, one a line: object, check, result (ok, warning, problem), message, fix
    #[arg(long)]
    json: bool,
}

/// Runs the checks and prints the findings. Returns the exit code, if it is not success.
///
/// # Errors
/// If nothing can be checked.
pub(super) fn run(arguments: &CheckArguments) -> anyhow::Result<Option<u8>> {
    let namespaces = Namespaces::named(&arguments.namespaces)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start")?;
    let exit_code = runtime.block_on(exit_code(arguments, namespaces));
    // The resolution of a name may still block a thread.
    runtime.shutdown_background();
    exit_code
}

async fn exit_code(arguments: &CheckArguments, namespaces: Namespaces) -> anyhow::Result<Option<u8>> {
    let jobs = Jobs::default();
    tokio::select! {
        worst = check(arguments, namespaces, &jobs) => {
            Ok((worst? == CheckResult::Problem).then_some(EXIT_FAILED))
        }
        Ok(()) = tokio::signal::ctrl_c() => {
            jobs.interrupt().await;
            Ok(Some(EXIT_INTERRUPTED))
        }
    }
}

/// Returns the worst result.
async fn check(
    arguments: &CheckArguments,
    namespaces: Namespaces,
    jobs: &Jobs,
) -> anyhow::Result<CheckResult> {
    let mut config = Config::infer()
        .await
        .context("no Kubernetes cluster is configured: no kubeconfig and no service account found")?;
    config.connect_timeout = Some(REQUEST_TIMEOUT);
    config.read_timeout = Some(REQUEST_TIMEOUT);
    let default_namespace = config.default_namespace.clone();
    let client = unfenced_client(config).context("cannot use the cluster's configuration")?;
    let params = match arguments.operator_only {
        true => ListParams::default().limit(1),
        false => ListParams::default(),
    };
    let listed = list(&client, namespaces, &default_namespace, &params).await?;
    let mut report = Report::new(if arguments.json {
        Format::Json
    } else {
        Format::Text
    });
    check_operator(arguments, &client, listed.as_ref(), &mut report).await?;
    if let Some(listed) = listed.filter(|_| !arguments.operator_only) {
        let expected = ExpectedCrd::new();
        report.add(&expected.object(), &[expected.check(&client).await])?;
        check_pools(arguments, &client, jobs, &listed, &mut report).await?;
    }
    Ok(report.worst())
}

/// Checks that a replica leads, that pools can be read, and the operator's rights.
async fn check_operator(
    arguments: &CheckArguments,
    client: &Client,
    listed: Option<&ListedPools>,
    report: &mut Report,
) -> anyhow::Result<()> {
    let LeaseName {
        lease_name,
        lease_namespace,
    } = &arguments.lease;
    let object = format!("operator {lease_namespace}/{lease_name}");
    let limit = Duration::from_secs(arguments.wait_seconds);
    report.add(&object, &[leader::check(client, &arguments.lease, limit).await])?;
    let Some(listed) = listed else {
        let text = format!("the CRD of SeparationPool is not installed; fix: {INSTALL}");
        return report.add(&object, &[Finding::problem("crd", text)]);
    };
    let readable = format!("pools of {} can be read", listed.place());
    report.add(&object, &[Finding::ok("pools", readable)])?;
    let account = OperatorAccount::new(client, lease_namespace, &arguments.service_account).await;
    for namespace in listed.namespaces_of_operator(account.is_caller()) {
        report.add(&object, &[account.check(namespace).await])?;
    }
    Ok(())
}

async fn check_pools(
    arguments: &CheckArguments,
    client: &Client,
    jobs: &Jobs,
    listed: &ListedPools,
    report: &mut Report,
) -> anyhow::Result<()> {
    let is_selected = |name: &String| arguments.pools.is_empty() || arguments.pools.contains(name);
    for name in &arguments.pools {
        if !listed.pools.iter().any(|(id, _)| id.name == *name) {
            let place = listed.place();
            let text = format!(
                "it does not exist in {place}; fix: compare it with kubectl get separationpools --all-namespaces"
            );
            report.add(
                &format!("SeparationPool {name}"),
                &[Finding::problem("pool", text)],
            )?;
        }
    }
    for (id, pool) in listed.pools.iter().filter(|(id, _)| is_selected(&id.name)) {
        check_pool(arguments, client, jobs, id, pool, report).await?;
    }
    Ok(())
}

async fn check_pool(
    arguments: &CheckArguments,
    client: &Client,
    jobs: &Jobs,
    id: &PoolId,
    pool: &PoolSnapshot,
    report: &mut Report,
) -> anyhow::Result<()> {
    let object = format!("SeparationPool {id}");
    let (plan, findings) = pool::spec(pool);
    report.add(&object, &findings)?;
    report.add(&object, &pool::status(pool))?;
    let Some(plan) = plan else { return Ok(()) };
    let (texts, findings) = secrets::check(client, plan).await;
    report.add(&object, &findings)?;
    let reach = match arguments.in_cluster {
        true => Reach::Cluster,
        false => Reach::ThisProcess,
    };
    let findings = kafka::check(client, plan, &pool.uid, &texts, reach).await;
    report.add(&object, &findings)?;
    if !arguments.in_cluster {
        return Ok(());
    }
    let limit = Duration::from_secs(arguments.job_seconds);
    for role in Role::ALL.into_iter().filter(|role| plan.role(*role).enabled) {
        let findings = jobs.check(client, id, role, limit).await;
        report.add(&format!("{object}, in a pod of the {role}"), &findings)?;
    }
    Ok(())
}
