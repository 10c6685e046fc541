//! Kafka clusters that pools share.
//!
//! Pools with the same servers and the same login share one cluster, in whichever namespaces they are: nothing else tells
//! them apart.

use std::sync::{Arc, Weak};

use tokio::sync::mpsc;

use super::Refresh;
use super::secrets::{Read, SecretName, Secrets};
use crate::clock::Clock;
use crate::kafka::{Cluster, ClusterSettings, Unread};
use crate::metrics::Metrics;
use crate::observe::LagReader;
use crate::observe::poller::{Polled, Poller};
use crate::plan::{KafkaPlan, PoolId};
use crate::watch::world::RoleKey;

/// A cluster that is being read.
#[derive(Debug)]
pub(super) struct Opened {
    settings: ClusterSettings,
    pub(super) cluster: Arc<Cluster>,
    pub(super) poller: Poller<RoleKey>,
}

impl Opened {
    /// The brokers that are asked first.
    pub(super) fn servers(&self) -> &str {
        &self.settings.bootstrap_servers
    }
}

/// Clusters that are being read, and the Secrets that open them.
#[derive(Debug)]
pub(super) struct Clusters {
    refresh: Refresh,
    open: Vec<Weak<Opened>>,
    pub(super) secrets: Secrets,
}

/// What opening a cluster came to.
pub(super) enum Opening {
    /// Secrets must be read first.
    Waiting,
    /// A secret is missing, or does not fit.
    Missing(Unread),
    /// With these settings.
    Ready(ClusterSettings),
}

impl Clusters {
    /// Nothing is known.
    pub(super) fn new(refresh: Refresh) -> Self {
        Self {
            refresh,
            open: Vec::new(),
            secrets: Secrets::new(refresh.secrets),
        }
    }

    /// The settings for a plan, as far as its Secrets are known.
    pub(super) fn settings(&self, plan: &KafkaPlan, pool: &PoolId) -> Opening {
        let mut waiting = false;
        for key in plan.secret_keys() {
            match self.secrets.state(&SecretName::of(pool, key)) {
                Read::NotYet => waiting = true,
                Read::Failed(why) => return Opening::Missing(Unread::new(why)),
                Read::Done => {}
            }
        }
        if waiting {
            return Opening::Waiting;
        }
        match ClusterSettings::of(plan, pool, |key| self.secrets.text(pool, key)) {
            Ok(settings) => Opening::Ready(settings),
            Err(why) => Opening::Missing(why),
        }
    }

    /// The cluster with these settings: the one that is being read already, or a new one.
    ///
    /// # Errors
    /// When a certificate or a key cannot be used.
    pub(super) fn open(
        &mut self,
        settings: ClusterSettings,
        current: Option<&Arc<Opened>>,
        clock: Clock,
        polled: &mpsc::Sender<Vec<Polled<RoleKey>>>,
        metrics: &Metrics,
    ) -> Result<Arc<Opened>, Unread> {
        if let Some(current) = current
            && current.settings == settings
        {
            return Ok(Arc::clone(current));
        }
        self.open.retain(|opened| opened.strong_count() > 0);
        let mut known = self.open.iter().filter_map(Weak::upgrade);
        if let Some(known) = known.find(|opened| opened.settings == settings) {
            return Ok(known);
        }
        let cluster = Arc::new(Cluster::new(&settings)?);
        let opened = Arc::new(Opened {
            poller: Poller::start(
                LagReader::new(Arc::clone(&cluster), self.refresh.offsets),
                clock,
                polled.clone(),
                metrics.cluster(&settings.bootstrap_servers),
            ),
            settings,
            cluster,
        });
        self.open.push(Arc::downgrade(&opened));
        Ok(opened)
    }
}
