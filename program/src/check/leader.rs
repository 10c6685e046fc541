//! Whether a replica of the operator leads.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use k8s_openapi::api::coordination::v1::Lease;
use kube::{Api, Client};
use separation_contract::check::Finding;
use separation_operator::settings::LeaseName;
use tokio::time::{Instant, sleep};

/// Time between two reads of the lease; the leader writes it every two seconds.
const POLL_INTERVAL: Duration = Duration::from_millis(500);

/// Finds the replica that renews the lease within `limit`.
pub(super) async fn check(client: &Client, lease: &LeaseName, limit: Duration) -> Finding {
    let LeaseName {
        lease_name,
        lease_namespace,
    } = lease;
    let leases = Api::namespaced(client.clone(), lease_namespace);
    let lease = format!("lease {lease_namespace}/{lease_name}");
    match leader(&leases, lease_name, limit).await {
        Ok(leader) => Finding::ok("leader", format!("{leader} leads")),
        Err(error) if is_forbidden(&error) => Finding::warning(
            "leader",
            format!("you may not read {lease}; fix: read it as a user who may get leases, or run helm test"),
        ),
        Err(error) => Finding::problem("leader", format!("no operator leads: {lease}: {error:#}")),
    }
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
            (Err(error), _) if is_forbidden(error) => return now.map(|lease| lease.holder),
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
        holder: holder
            .context("the lease has no holder; fix: look at the operator's pods")?
            .into(),
        version: lease.metadata.resource_version,
    })
}

fn is_forbidden(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(kube::Error::Api(status)) if status.code == 403)
}
