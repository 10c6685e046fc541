//! Metrics of one Kafka cluster.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use prometheus::{Histogram, HistogramVec, IntCounterVec, IntGauge, IntGaugeVec};

use super::{Making, Users};

/// Clusters with series of their own: each has about twenty. Those beyond share one label.
const MOST_CLUSTERS: usize = 100;

/// The label of the others.
const REST: &str = "others";

/// The longest label: a host name and its port.
const LONGEST_LABEL: usize = 262;

/// Why a reading of Kafka failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KafkaFailure {
    /// No broker could be reached, or none answered in time.
    Unreachable,
    /// The login was refused, or what was asked for is not allowed.
    Refused,
    /// Some partitions, topics or groups could not be read.
    Partial,
    /// Anything else.
    Other,
}

impl KafkaFailure {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Unreachable, Self::Refused, Self::Partial, Self::Other];

    fn name(self) -> &'static str {
        match self {
            Self::Unreachable => "unreachable",
            Self::Refused => "refused",
            Self::Partial => "partial",
            Self::Other => "other",
        }
    }
}

/// The families that every cluster has a series in.
#[derive(Debug, Clone)]
pub(super) struct Families {
    users: Users<String>,
    read_seconds: HistogramVec,
    errors: IntCounterVec,
    connections: IntGaugeVec,
}

impl Families {
    pub(super) fn new(made: Making<'_>) -> Self {
        Self {
            users: Users::none(),
            read_seconds: made.histograms(
                "separation_operator_kafka_read_seconds",
                "Duration of one reading of lag, by cluster",
                &["cluster"],
            ),
            errors: made.counters(
                "separation_operator_kafka_errors_total",
                "Rounds of reading Kafka that failed in part or in whole, by cluster and kind of failure",
                &["cluster", "class"],
            ),
            connections: made.gauges(
                "separation_operator_kafka_connections",
                "Open connections to brokers, by cluster",
                &["cluster"],
            ),
        }
    }

    pub(super) fn of(&self, bootstrap_servers: &str) -> ClusterMetrics {
        let label = self
            .users
            .join(label(bootstrap_servers), MOST_CLUSTERS, REST.to_owned());
        ClusterMetrics {
            read_seconds: self.read_seconds.with_label_values(&[&label]),
            connections: self.connections.with_label_values(&[&label]),
            open: AtomicI64::new(0),
            families: self.clone(),
            label,
        }
    }

    fn remove(&self, label: &str) {
        let _ = self.read_seconds.remove_label_values(&[label]);
        let _ = self.connections.remove_label_values(&[label]);
        for failure in KafkaFailure::ALL {
            let _ = self.errors.remove_label_values(&[label, failure.name()]);
        }
    }
}

/// Metrics of one Kafka cluster. Its series go with the last of them.
#[derive(Debug)]
pub struct ClusterMetrics {
    families: Families,
    label: String,
    read_seconds: Histogram,
    connections: IntGauge,
    /// What this one added to the gauge.
    open: AtomicI64,
}

impl ClusterMetrics {
    /// Lag was read, well or badly.
    pub fn read(&self, took: Duration) {
        self.read_seconds.observe(took.as_secs_f64());
    }

    /// A reading failed, whole or in part.
    pub fn failed(&self, failure: KafkaFailure) {
        self.families
            .errors
            .with_label_values(&[&self.label, failure.name()])
            .inc();
    }

    /// So many connections are open now. Clusters with one label share one gauge, so that it is changed by the difference.
    pub fn connections(&self, open: u64) {
        let open = i64::try_from(open).unwrap_or(i64::MAX);
        self.connections
            .add(open - self.open.swap(open, Ordering::Relaxed));
    }
}

impl Drop for ClusterMetrics {
    fn drop(&mut self) {
        self.connections(0);
        self.families
            .users
            .leave(&self.label, || self.families.remove(&self.label));
    }
}

/// The first server stands for its cluster: it says more than a number, and is the same after a restart.
fn label(bootstrap_servers: &str) -> String {
    let first = bootstrap_servers.split(',').next().unwrap_or_default().trim();
    first.chars().take(LONGEST_LABEL).collect()
}
