//! The operator's Prometheus metrics.
//!
//! Label values come from fixed sets, except a pool's name and a cluster's first server, whose series are removed with
//! the pool or with the last pool on the cluster. An unknown value has no series: it is never zero.

mod cluster;
mod family_builder;
mod handles;
mod role;

#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::sync::Arc;
use std::time::Duration;

use prometheus::{Encoder as _, HistogramVec, IntCounterVec, IntGauge, Registry, TextEncoder};

use family_builder::FamilyBuilder;

pub use cluster::{ClusterMetrics, KafkaFailure};
pub use role::RoleMetrics;

/// Verb of a request to the API server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// Read one object.
    Get,
    /// Read many objects.
    List,
    /// Follow changes.
    Watch,
    /// Create an object.
    Create,
    /// Change parts of an object.
    Patch,
    /// Replace an object.
    Update,
    /// Delete an object.
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
    /// 410: the watch must start again with a list.
    Gone,
    /// 429.
    Throttled,
    /// Another 4xx.
    Invalid,
    /// 5xx.
    Server,
    /// No connection, or it broke.
    Network,
    /// It was canceled before a response arrived.
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

/// Whether this replica leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leads {
    /// It leads.
    Yes,
    /// It does not lead.
    No,
}

/// All metrics of the operator; cheap to clone.
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
    /// Metrics with no observations.
    ///
    /// # Panics
    /// Never: names and labels are fixed and valid.
    pub fn new() -> Self {
        let registry = Registry::new();
        let names = RefCell::default();
        let builder = FamilyBuilder {
            registry: &registry,
            names: &names,
        };
        let build = builder.gauges(
            "separation_operator_build_info",
            "1, with the version as a label",
            &["version"],
        );
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        let clusters = cluster::Families::new(builder);
        let mut metrics = Self {
            roles: role::Roles::default(),
            clusters,
            names: Arc::default(),
            api_errors: builder.counters(
                "separation_operator_api_errors_total",
                "Requests to the API server that failed, by verb, resource and kind of failure",
                &["verb", "resource", "class"],
            ),
            watch_restarts: builder.counters(
                "separation_operator_watch_restarts_total",
                "Watches that broke and were restarted, by resource",
                &["resource"],
            ),
            reconcile_seconds: builder.histograms(
                "separation_operator_reconcile_seconds",
                "Duration of one reconciliation of a pool, including its writes, by outcome",
                &["outcome"],
            ),
            events_dropped: builder
                .counters(
                    "separation_operator_events_dropped_total",
                    "Kubernetes events that were not written: too many were queued, or the API server refused them",
                    &[],
                )
                .with_label_values::<&str>(&[]),
            leader: builder
                .gauges("separation_operator_leader", "1 while this replica leads, else 0", &[])
                .with_label_values::<&str>(&[]),
            registry: registry.clone(),
        };
        let of_roles = role::names().map(str::to_owned);
        metrics.names = names.into_inner().into_iter().chain(of_roles).collect();
        metrics
    }

    /// Names of all metric families, including those without a series.
    pub fn families(&self) -> &[String] {
        &self.names
    }

    /// The metrics of one role of a pool; its series are removed with the last handle.
    pub fn role(&self, pool: &crate::plan::PoolId, role: crate::plan::Role) -> RoleMetrics {
        self.roles.role(pool, role)
    }

    /// The metrics of one Kafka cluster, labeled by its first bootstrap server; its series are removed with the last
    /// handle.
    pub fn cluster(&self, bootstrap_servers: &str) -> ClusterMetrics {
        self.clusters.cluster(bootstrap_servers)
    }

    /// Counts a failed request to the API server. `resource` is a plural, such as `deployments`.
    pub fn api_failed(&self, verb: Verb, resource: &'static str, failure: ApiFailure) {
        self.api_errors
            .with_label_values(&[verb.name(), resource, failure.name()])
            .inc();
    }

    /// Counts a watch that broke and is restarted. `resource` is a plural.
    pub fn watch_restarted(&self, resource: &'static str) {
        self.watch_restarts.with_label_values(&[resource]).inc();
    }

    /// Records one reconciliation of a pool, including its writes.
    pub fn reconciled(&self, outcome: Outcome, duration: Duration) {
        self.reconcile_seconds
            .with_label_values(&[outcome.name()])
            .observe(duration.as_secs_f64());
    }

    /// Counts a Kubernetes event that was not written.
    pub fn event_dropped(&self) {
        self.events_dropped.inc();
    }

    /// Sets whether this replica leads.
    pub fn leads(&self, leads: Leads) {
        self.leader.set(i64::from(leads == Leads::Yes));
    }

    /// All metrics in the Prometheus text format.
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
