//! The operator's Prometheus metrics.
//!
//! Label values come from fixed sets, except a pool's name and a cluster's first server, whose series are removed with
//! the pool or with the last pool on the cluster. An unknown value has no series: it is never zero.

mod cluster;
mod handles;
mod role;

#[cfg(test)]
mod tests;

use std::time::Duration;

use prometheus::{HistogramVec, IntCounterVec, IntGauge};
use separation_daemon::{Families, Family};

pub use cluster::{ClusterMetrics, KafkaFailure};
pub use role::{RoleMetrics, RoleSample};

/// Buckets from a millisecond to half a minute, the longest deadline of a reading.
const SECONDS: [f64; 12] = [
    0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0,
];

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
    families: Families,
    roles: role::Roles,
    clusters: cluster::ClusterFamilies,
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
        let mut families = Families::of_process(env!("CARGO_PKG_VERSION"));
        families.add(role::descriptions());
        Self {
            roles: role::Roles::default(),
            clusters: cluster::ClusterFamilies::new(&mut families, &SECONDS),
            api_errors: families.counters(
                "separation_operator_api_errors_total",
                "Requests to the API server that failed, by verb, resource and kind of failure",
                &["verb", "resource", "class"],
            ),
            watch_restarts: families.counters(
                "separation_operator_watch_restarts_total",
                "Watches that broke and were restarted, by resource",
                &["resource"],
            ),
            reconcile_seconds: families.durations(
                "separation_operator_reconcile_seconds",
                "Duration of one reconciliation of a pool, including its writes, by outcome",
                &["outcome"],
                &SECONDS,
            ),
            events_dropped: families
                .counters(
                    "separation_operator_events_dropped_total",
                    "Kubernetes events that were not written: too many were queued, or the API server refused them",
                    &[],
                )
                .with_label_values::<&str>(&[]),
            leader: families
                .gauges("separation_operator_leader", "1 while this replica leads, else 0", &[])
                .with_label_values::<&str>(&[]),
            families,
        }
    }

    /// All metric families, including those without a series.
    pub fn families(&self) -> &[Family] {
        self.families.all()
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
    pub fn api_failed(&self, verb: &'static str, resource: &'static str, class: &'static str) {
        self.api_errors.with_label_values(&[verb, resource, class]).inc();
    }

    /// Counts a watch that broke and is restarted. `resource` is a plural.
    pub fn watch_restarted(&self, resource: &'static str) {
        self.watch_restarts.with_label_values(&[resource]).inc();
    }

    /// Records one reconciliation of a pool, including its writes: `unchanged`, `written` or `failed`.
    pub fn reconciled(&self, outcome: &'static str, duration: Duration) {
        self.reconcile_seconds
            .with_label_values(&[outcome])
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
        let mut text = self.families.text();
        self.roles.encode(&mut text);
        text
    }
}
