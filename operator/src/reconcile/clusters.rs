//! Kafka clusters that pools share.
//!
//! Pools with equal connection settings, including credentials, share one cluster, even across namespaces.

use std::sync::{Arc, Weak};

use separation_kafka::{Cluster, ClusterSettings, ReadError};
use tokio::sync::mpsc;

use super::secrets::{SecretCache, SecretName, SecretState};
use crate::clock::Clock;
use crate::metrics::Metrics;
use crate::observe::poller::{Polled, Poller};
use crate::observe::{LagReader, cluster_settings};
use crate::plan::{KafkaPlan, PoolId};
use crate::settings::Refresh;
use crate::watch::cache::RoleKey;

/// A cluster, and the task that reads it.
#[derive(Debug)]
pub(super) struct OpenCluster {
    settings: ClusterSettings,
    pub(super) cluster: Arc<Cluster>,
    pub(super) poller: Poller<RoleKey>,
}

impl OpenCluster {
    /// The bootstrap servers.
    pub(super) fn servers(&self) -> &str {
        &self.settings.bootstrap_servers
    }
}

/// Clusters that are being read, and the Secrets with their credentials.
#[derive(Debug)]
pub(super) struct Clusters {
    refresh: Refresh,
    clusters: Vec<Weak<OpenCluster>>,
    pub(super) secrets: SecretCache,
}

/// The connection settings of a pool, as far as they are known.
pub(super) enum SettingsLookup {
    /// Secrets are still being read.
    Pending,
    /// A Secret or a Secret key is missing or unreadable.
    Missing(ReadError),
    /// All Secrets were read.
    Ready(ClusterSettings),
}

impl Clusters {
    pub(super) fn new(refresh: Refresh) -> Self {
        Self {
            refresh,
            clusters: Vec::new(),
            secrets: SecretCache::new(refresh.secrets),
        }
    }

    /// The settings for a plan, as far as its Secrets are known.
    pub(super) fn settings(&self, plan: &KafkaPlan, pool: &PoolId) -> SettingsLookup {
        let mut is_pending = false;
        for key in plan.secret_keys() {
            match self.secrets.state(&SecretName::of(pool, key)) {
                SecretState::NotYet => is_pending = true,
                SecretState::Failed(why) => return SettingsLookup::Missing(ReadError::new(why)),
                SecretState::Done => {}
            }
        }
        if is_pending {
            return SettingsLookup::Pending;
        }
        match cluster_settings(plan, pool, |key| self.secrets.text(pool, key)) {
            Ok(settings) => SettingsLookup::Ready(settings),
            Err(why) => SettingsLookup::Missing(why),
        }
    }

    /// The cluster with these settings: an open one, or a new one.
    ///
    /// # Errors
    /// When a certificate or a private key cannot be used.
    pub(super) fn open(
        &mut self,
        settings: ClusterSettings,
        current: Option<&Arc<OpenCluster>>,
        clock: Clock,
        polled: &mpsc::Sender<Vec<Polled<RoleKey>>>,
        metrics: &Metrics,
    ) -> Result<Arc<OpenCluster>, ReadError> {
        if let Some(current) = current
            && current.settings == settings
        {
            return Ok(Arc::clone(current));
        }
        self.clusters
            .retain(|open_cluster| open_cluster.strong_count() > 0);
        let mut known = self.clusters.iter().filter_map(Weak::upgrade);
        if let Some(known) = known.find(|open_cluster| open_cluster.settings == settings) {
            return Ok(known);
        }
        let cluster = Arc::new(Cluster::new(&settings)?);
        let open_cluster = Arc::new(OpenCluster {
            poller: Poller::start(
                LagReader::new(Arc::clone(&cluster), self.refresh.offsets),
                clock,
                polled.clone(),
                metrics.cluster(&settings.bootstrap_servers),
            ),
            settings,
            cluster,
        });
        self.clusters.push(Arc::downgrade(&open_cluster));
        Ok(open_cluster)
    }
}
