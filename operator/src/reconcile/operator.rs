//! What the operator runs with.

use std::time::Duration;

use kube::Client;

use crate::events::EventWriter;
use crate::health::{Heartbeat, Readiness};
use crate::lease::Leadership;
use crate::metrics::Metrics;
use crate::settings::{IdentitySettings, Refresh, WorkerSettings};
use crate::watch::cache::Scope;

/// The operator's dependencies and settings.
pub struct Operator {
    /// A client whose writes are refused once the lease's deadline has passed.
    pub client: Client,
    /// The leader election's result.
    pub leadership: Leadership,
    /// The watched namespaces, or all of them.
    pub scopes: Vec<Scope>,
    /// Settings that apply to the workers of every pool.
    pub workers: WorkerSettings,
    /// Time for writes in flight to finish at shutdown.
    pub last_writes: Duration,
    /// Time after which the offsets of an idle group are committed again.
    pub keep_offsets_after: Duration,
    /// Refresh intervals.
    pub refresh: Refresh,
    /// Identities that it may use for Kafka.
    pub identity: IdentitySettings,
    /// Writes Kubernetes events.
    pub events: EventWriter,
    /// The operator's metrics.
    pub metrics: Metrics,
    /// Beats on each turn of the main loop.
    pub heartbeat: Heartbeat,
    /// Set once all kinds were listed.
    pub readiness: Readiness,
}
