//! What the operator counts and measures, in Prometheus' words.
//!
//! Labels come from fixed sets of words, but for a pool's name and a cluster's first server, whose series go when the pool
//! or the last pool on the cluster goes. What is not known has no series: it is never zero.

mod cluster;
mod role;

#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use prometheus::core::Collector;
use prometheus::{
    Encoder as _, HistogramOpts, HistogramVec, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    TextEncoder,
};

pub use cluster::{ClusterMetrics, KafkaFailure};
pub use role::RoleMetrics;

/// Buckets from a millisecond to half a minute, the longest deadline of a reading.
const SECONDS: [f64; 12] = [
    0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0,
];

/// What is asked of the API server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// Read one.
    Get,
    /// Read many.
    List,
    /// Follow changes.
    Watch,
    /// Make one.
    Create,
    /// Change one.
    Patch,
    /// Write one whole.
    Update,
    /// Delete one.
    Delete,
}

/// Why a request to the API server failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ApiFailure {
    /// This replica does not lead.
    Fenced,
    /// 401 or 403.
    Forbidden,
    /// 404.
    NotFound,
    /// 409.
    Conflict,
    /// 410: a watch must start with a list again.
    Gone,
    /// 429.
    Throttled,
    /// Another 4xx.
    Invalid,
    /// 5xx.
    Server,
    /// No connection, or one that broke.
    Network,
    /// It was given up before an answer came.
    Unanswered,
}

/// How a reconciliation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing had to be written.
    Unchanged,
    /// A write was made.
    Written,
    /// A write failed.
    Failed,
}

/// Whether this replica leads, as a gauge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leads {
    /// It does.
    Yes,
    /// It does not.
    No,
}

/// Everything that is counted and measured; cheap to clone.
#[derive(Debug, Clone)]
pub struct Metrics {
    registry: Registry,
    names: Arc<[String]>,
    roles: role::Roles,
    clusters: cluster::Families,
    api_errors: IntCounterVec,
    watch_restarts: IntCounterVec,
    reconcile_seconds: HistogramVec,
    events_dropped: prometheus::IntCounter,
    leader: IntGauge,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// Nothing counted yet.
    ///
    /// # Panics
    /// Never: names and labels are fixed and valid.
    pub fn new() -> Self {
        let registry = Registry::new();
        let names = RefCell::default();
        let made = Making {
            registry: &registry,
            names: &names,
        };
        let build = made.gauges(
            "separation_operator_build_info",
            "1, with the version as a label",
            &["version"],
        );
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        let clusters = cluster::Families::new(made);
        let mut metrics = Self {
            roles: role::Roles::default(),
            clusters,
            names: Arc::default(),
            api_errors: made.counters(
                "separation_operator_api_errors_total",
                "Requests to the API server that failed, by verb, resource and kind of failure",
                &["verb", "resource", "class"],
            ),
            watch_restarts: made.counters(
                "separation_operator_watch_restarts_total",
                "Watches that broke and were started again, by resource",
                &["resource"],
            ),
            reconcile_seconds: made.histograms(
                "separation_operator_reconcile_seconds",
                "Duration of one reconciliation of a pool, with the write that it led to, by outcome",
                &["outcome"],
            ),
            events_dropped: made
                .counters(
                    "separation_operator_events_dropped_total",
                    "Kubernetes events that were not written: too many were queued, or the API server refused them",
                    &[],
                )
                .with_label_values::<&str>(&[]),
            leader: made
                .gauges("separation_operator_leader", "1 while this replica leads", &[])
                .with_label_values::<&str>(&[]),
            registry: registry.clone(),
        };
        let of_roles = role::names().map(str::to_owned);
        metrics.names = names.into_inner().into_iter().chain(of_roles).collect();
        metrics
    }

    /// The names of all families, also of those without a series.
    pub fn families(&self) -> &[String] {
        &self.names
    }

    /// The metrics of one role of a pool; its series go with the last of them.
    pub fn role(&self, pool: &crate::plan::PoolId, role: crate::plan::Role) -> RoleMetrics {
        self.roles.of(pool, role)
    }

    /// The metrics of one Kafka cluster, named by its bootstrap servers; its series go with the last of them.
    pub fn cluster(&self, bootstrap_servers: &str) -> ClusterMetrics {
        self.clusters.of(bootstrap_servers)
    }

    /// A request to the API server failed. `resource` is a plural, as in `deployments`.
    pub fn api_failed(&self, verb: Verb, resource: &'static str, failure: ApiFailure) {
        self.api_errors
            .with_label_values(&[verb.name(), resource, failure.name()])
            .inc();
    }

    /// A watch broke and is started again. `resource` is a plural.
    pub fn watch_restarted(&self, resource: &'static str) {
        self.watch_restarts.with_label_values(&[resource]).inc();
    }

    /// One reconciliation of a pool ended, with the write that it led to.
    pub fn reconciled(&self, outcome: Outcome, took: Duration) {
        self.reconcile_seconds
            .with_label_values(&[outcome.name()])
            .observe(took.as_secs_f64());
    }

    /// A Kubernetes event was not written.
    pub fn event_dropped(&self) {
        self.events_dropped.inc();
    }

    /// Whether this replica leads.
    pub fn leads(&self, leads: Leads) {
        self.leader.set(i64::from(leads == Leads::Yes));
    }

    /// All of it, in Prometheus' text format.
    pub fn text(&self) -> Vec<u8> {
        let mut text = Vec::new();
        // Only a broken pipe could fail, and this is memory.
        let _ = TextEncoder::new().encode(&self.registry.gather(), &mut text);
        self.roles.encode(&mut text);
        text
    }
}

impl Verb {
    fn name(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::List => "list",
            Self::Watch => "watch",
            Self::Create => "create",
            Self::Patch => "patch",
            Self::Update => "update",
            Self::Delete => "delete",
        }
    }
}

impl Outcome {
    fn name(self) -> &'static str {
        match self {
            Self::Unchanged => "unchanged",
            Self::Written => "written",
            Self::Failed => "failed",
        }
    }
}

impl ApiFailure {
    fn name(self) -> &'static str {
        match self {
            Self::Fenced => "fenced",
            Self::Forbidden => "forbidden",
            Self::NotFound => "not_found",
            Self::Conflict => "conflict",
            Self::Gone => "gone",
            Self::Throttled => "throttled",
            Self::Invalid => "invalid",
            Self::Server => "server",
            Self::Network => "network",
            Self::Unanswered => "unanswered",
        }
    }
}

/// Makes families of metrics whose names are known to be valid and free.
#[derive(Clone, Copy)]
struct Making<'a> {
    registry: &'a Registry,
    names: &'a RefCell<Vec<String>>,
}

impl Making<'_> {
    fn counters(self, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
        self.registered(IntCounterVec::new(Opts::new(name, help), labels))
    }

    fn gauges(self, name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
        self.registered(IntGaugeVec::new(Opts::new(name, help), labels))
    }

    fn histograms(self, name: &str, help: &str, labels: &[&str]) -> HistogramVec {
        let options = HistogramOpts::new(name, help).buckets(SECONDS.to_vec());
        self.registered(HistogramVec::new(options, labels))
    }

    fn registered<C: Collector + Clone + 'static>(self, made: prometheus::Result<C>) -> C {
        let made = made.expect("the name and the labels are valid");
        let names = made.desc().into_iter().map(|desc| desc.fq_name.clone());
        self.names.borrow_mut().extend(names);
        self.registry
            .register(Box::new(made.clone()))
            .expect("the name is not taken");
        made
    }
}

/// Who uses which labels: one that comes again before its predecessor has gone must not lose its series to it.
#[derive(Debug)]
struct Users<K>(Arc<Mutex<HashMap<K, usize>>>);

impl<K> Clone for Users<K> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<K: Hash + Eq + Clone> Users<K> {
    fn none() -> Self {
        Self(Arc::default())
    }

    /// Notes one user more. Labels beyond `most` are not taken: `rest` stands for them.
    fn join(&self, key: K, most: usize, rest: K) -> K {
        let mut users = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let key = if users.len() < most || users.contains_key(&key) {
            key
        } else {
            rest
        };
        *users.entry(key.clone()).or_default() += 1;
        key
    }

    /// Notes one user less; `last` is called under the lock, so that nobody joins in between.
    fn leave(&self, key: &K, last: impl FnOnce()) {
        let mut users = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = users.get_mut(key) {
            *count -= 1;
            if *count == 0 {
                users.remove(key);
                last();
            }
        }
    }
}
