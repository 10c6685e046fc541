//! Kafka clusters that pools share.
//!
//! Pools with equal connection settings, including credentials, share one cluster, even across namespaces. Settings for
//! tokens of a service account identify the account, so equal settings have the same tokens.

use std::sync::{Arc, Weak};

use separation_kafka::{Cluster, ClusterSettings, ReadError, TokenCache};
use tokio::sync::mpsc;

use super::account_tokens::AccountTokenFetcher;
use super::api_writer::ApiWriter;
use super::identity::{AccountTokens, GroupProof, Identity};
use super::secrets::{SecretCache, SecretName, SecretState};
use crate::clock::Clock;
use crate::metrics::Metrics;
use crate::observe::poller::{Polled, Poller};
use crate::observe::{LagReader, cluster_settings};
use crate::plan::{PoolPlan, SecretKey};
use crate::settings::{IdentitySettings, Refresh};
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
pub(super) struct Clusters {
    refresh: Refresh,
    identity: IdentitySettings,
    writer: ApiWriter,
    clusters: Vec<Weak<OpenCluster>>,
    pub(super) secrets: SecretCache,
}

/// How to connect to a cluster.
pub(super) struct Connection {
    settings: ClusterSettings,
    /// Tokens to request, which the settings identify.
    tokens: Option<AccountTokens>,
}

/// The connection settings of a pool, as far as they are known.
pub(super) enum SettingsLookup {
    /// Secrets are still being read.
    Pending,
    /// A Secret or a Secret key is missing or unreadable, or the operator must not use the identity that the pool needs.
    Missing(ReadError),
    /// All Secrets were read.
    Ready(Box<Connection>),
}

impl Clusters {
    pub(super) fn new(refresh: Refresh, identity: IdentitySettings, writer: ApiWriter) -> Self {
        Self {
            refresh,
            identity,
            writer,
            clusters: Vec::new(),
            secrets: SecretCache::new(refresh.secrets),
        }
    }

    /// The proof that a pool uses its groups.
    pub(super) fn group_proof(&self, plan: &PoolPlan) -> GroupProof {
        GroupProof::for_pool(plan, &self.identity)
    }

    /// The settings for a plan, as far as its Secrets are known.
    pub(super) fn settings(&self, plan: &PoolPlan) -> SettingsLookup {
        let identity = match Identity::of_pool(plan, &self.identity) {
            Ok(identity) => identity,
            Err(why) => return SettingsLookup::Missing(why),
        };
        let PoolPlan { id: pool, kafka, .. } = plan;
        let mut is_pending = false;
        for key in kafka.secret_keys() {
            match self.secrets.state(&SecretName::of(pool, key)) {
                SecretState::NotYet => is_pending = true,
                SecretState::Failed(why) => return SettingsLookup::Missing(ReadError::new(why)),
                SecretState::Done => {}
            }
        }
        if is_pending {
            return SettingsLookup::Pending;
        }
        let secret = |key: &SecretKey| self.secrets.text(pool, key);
        match cluster_settings(kafka, pool, secret, &identity.workload_tokens()) {
            Ok(settings) => SettingsLookup::Ready(Box::new(Connection {
                settings,
                tokens: identity.into_account_tokens(),
            })),
            Err(why) => SettingsLookup::Missing(why),
        }
    }

    /// The cluster of a connection: an open one, or a new one.
    ///
    /// # Errors
    /// When a certificate or a private key cannot be used.
    pub(super) fn open(
        &mut self,
        Connection { settings, tokens }: Connection,
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
        let cluster = match tokens {
            Some(tokens) => {
                let fetcher = AccountTokenFetcher::new(self.writer.clone(), tokens);
                Cluster::with_cache(&settings, TokenCache::new(Arc::new(fetcher)))?
            }
            None => Cluster::new(&settings)?,
        };
        let cluster = Arc::new(cluster);
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
