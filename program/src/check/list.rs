//! Lists the pools that the caller may read.

use std::collections::BTreeSet;
use std::sync::Arc;

use anyhow::anyhow;
use kube::api::ListParams;
use kube::core::DeserializeGuard;
use kube::{Api, Client};
use separation_operator::crd::SeparationPool;
use separation_operator::lease::api_error_text;
use separation_operator::plan::PoolId;
use separation_operator::settings::Namespaces;
use separation_operator::watch::cache::PoolSnapshot;
use separation_operator::watch::pool_snapshot;

/// Pools, and where they were listed.
#[derive(Debug)]
pub(super) struct ListedPools {
    pub(super) pools: Vec<(Arc<PoolId>, PoolSnapshot)>,
    namespaces: Namespaces,
}

impl ListedPools {
    /// The listed namespaces, for messages.
    pub(super) fn place(&self) -> String {
        match &self.namespaces {
            Namespaces::All => "all namespaces".to_owned(),
            Namespaces::These(names) => names.iter().map(String::as_str).collect::<Vec<_>>().join(", "),
        }
    }

    /// The namespaces in which the operator needs its rights; `None` stands for all.
    pub(super) fn namespaces_of_operator(&self, has_identity: bool) -> BTreeSet<Option<&str>> {
        match &self.namespaces {
            // A caller with another identity does not know which namespaces the operator watches.
            _ if !has_identity => {
                let pools = self.pools.iter();
                pools.map(|(id, _)| Some(id.namespace.as_str())).collect()
            }
            Namespaces::All => BTreeSet::from([None]),
            Namespaces::These(names) => names.iter().map(|name| Some(name.as_str())).collect(),
        }
    }
}

/// Lists the pools of the namespaces. If the caller may not list those of all namespaces, those of `default_namespace`.
/// `None` if the CRD is not installed.
///
/// # Errors
/// If pools cannot be read.
pub(super) async fn list(
    client: &Client,
    namespaces: Namespaces,
    default_namespace: &str,
    params: &ListParams,
) -> anyhow::Result<Option<ListedPools>> {
    let names = match namespaces {
        Namespaces::These(names) => names,
        Namespaces::All => match read(&Api::all(client.clone()), params).await {
            Err(kube::Error::Api(status)) if status.code == 403 => [default_namespace.to_owned()].into(),
            read => return listed(read, "all namespaces").map(|pools| pools_of(pools, Namespaces::All)),
        },
    };
    let mut pools = Vec::new();
    for name in &names {
        let read = read(&Api::namespaced(client.clone(), name), params).await;
        let Some(found) = listed(read, &format!("namespace {name}"))? else {
            return Ok(None);
        };
        pools.extend(found);
    }
    Ok(pools_of(Some(pools), Namespaces::These(names)))
}

type Pools = Vec<DeserializeGuard<SeparationPool>>;

async fn read(
    pools: &Api<DeserializeGuard<SeparationPool>>,
    params: &ListParams,
) -> Result<Pools, kube::Error> {
    Ok(pools.list(params).await?.items)
}

fn listed(read: Result<Pools, kube::Error>, place: &str) -> anyhow::Result<Option<Pools>> {
    match read {
        Ok(pools) => Ok(Some(pools)),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(None),
        Err(error) => {
            let why = api_error_text(&error);
            Err(anyhow!("pools of {place} cannot be read: {why}"))
        }
    }
}

fn pools_of(pools: Option<Pools>, namespaces: Namespaces) -> Option<ListedPools> {
    Some(ListedPools {
        pools: pools?.iter().map(pool_snapshot).collect(),
        namespaces,
    })
}
