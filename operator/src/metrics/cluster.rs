//! Metrics of one Kafka cluster.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use prometheus::{Histogram, HistogramVec, IntCounterVec, IntGauge, IntGaugeVec};

use super::handles::Handles;

/// Clusters with their own series, about twenty each. Further clusters share one label.
const MAX_CLUSTERS: usize = 100;

/// Label of further clusters.
const OTHER_CLUSTERS: &str = "others";

/// Longest label: a host name and its port.
const MAX_LABEL_CHARS: usize = 262;

/// Why a reading of Kafka failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KafkaFailure {
    /// No broker could be reached or answered in time.
    Unreachable,
    /// Authentication failed, or the request is not authorized.
    Refused,
    /// Some partitions, topics or groups could not be read.
    Partial,
    /// Any other failure.
    Other,
}

impl KafkaFailure {
    /// Every class.
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

/// Metric families with one series per cluster.
#[derive(Debug, Clone)]
pub(super) struct ClusterFamilies {
    handles: Handles,
    read_seconds: HistogramVec,
    errors: IntCounterVec,
    connections: IntGaugeVec,
}

impl ClusterFamilies {
    pub(super) fn new(families: &mut separation_daemon::Families, seconds: &[f64]) -> Self {
        Self {
            handles: Handles::default(),
            read_seconds: families.durations(
                "separation_operator_kafka_read_seconds",
                "Duration of one reading of lag, by cluster",
                &["cluster"],
                seconds,
            ),
            errors: families.counters(
                "separation_operator_kafka_errors_total",
                "Readings of Kafka that failed partly or completely, by cluster and kind of failure",
                &["cluster", "class"],
            ),
            connections: families.gauges(
                "separation_operator_kafka_connections",
                "Open connections to brokers, by cluster",
                &["cluster"],
            ),
        }
    }

    pub(super) fn cluster(&self, bootstrap_servers: &str) -> ClusterMetrics {
        let label = label(bootstrap_servers);
        let label = self.handles.add(label, MAX_CLUSTERS, OTHER_CLUSTERS);
        // increase() counts the first failure only if its series began with 0.
        for failure in KafkaFailure::ALL {
            self.errors.with_label_values(&[&label, failure.name()]);
        }
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

/// Metrics of one Kafka cluster. Its series are removed when the last handle is dropped.
#[derive(Debug)]
pub struct ClusterMetrics {
    families: ClusterFamilies,
    label: String,
    read_seconds: Histogram,
    connections: IntGauge,
    /// Connections that this handle added to the gauge.
    open: AtomicI64,
}

impl ClusterMetrics {
    /// Records a reading of lag, successful or not.
    pub fn read(&self, duration: Duration) {
        self.read_seconds.observe(duration.as_secs_f64());
    }

    /// Counts a reading that failed partly or completely.
    pub fn failed(&self, failure: KafkaFailure) {
        self.families
            .errors
            .with_label_values(&[&self.label, failure.name()])
            .inc();
    }

    /// Sets the number of open connections. Clusters that share a label share the gauge, so it changes by the
    /// difference.
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
            .handles
            .remove(&self.label, || self.families.remove(&self.label));
    }
}

/// The first bootstrap server: readable, and the same after a restart.
fn label(bootstrap_servers: &str) -> String {
    let first = bootstrap_servers.split(',').next().unwrap_or_default().trim();
    first.chars().take(MAX_LABEL_CHARS).collect()
}
