//! Metrics of one role of a pool.

use std::time::Duration;

use prometheus::core::{Collector, MetricVec, MetricVecBuilder};
use prometheus::{Gauge, GaugeVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts};

use super::{Making, Users};
use crate::decide::{Explanation, Lag, Reason};
use crate::plan::{PoolId, Role};

const LABELS: [&str; 3] = ["namespace", "pool", "role"];

/// Namespace, pool, role.
type Labels = [String; 3];

/// The families that every role has a series in.
#[derive(Debug, Clone)]
pub(super) struct Families {
    users: Users<Labels>,
    lag: GaugeVec,
    lag_known: IntGaugeVec,
    lag_age: GaugeVec,
    partitions_with_work: IntGaugeVec,
    desired: IntGaugeVec,
    ready: IntGaugeVec,
    busy: IntGaugeVec,
    idle: IntGaugeVec,
    draining: IntGaugeVec,
    unschedulable: IntGaugeVec,
    decisions: IntCounterVec,
    writes: IntCounterVec,
}

impl Families {
    pub(super) fn new(made: Making<'_>) -> Self {
        let gauges = |name: &str, help: &str| made.gauges(&format!("separation_pool_{name}"), help, &LABELS);
        let numbers = |name: &str, help: &str| {
            let options = Opts::new(format!("separation_pool_{name}"), help);
            made.registered(GaugeVec::new(options, &LABELS))
        };
        Self {
            users: Users::none(),
            lag: numbers(
                "lag_messages",
                "Messages not yet committed; at least so many while lag_known is 0, and no series while nothing is known",
            ),
            lag_known: gauges("lag_known", "1 while the lag of every partition is known"),
            lag_age: numbers(
                "lag_age_seconds",
                "Time since lag was last read whole; no series before the first time",
            ),
            partitions_with_work: gauges(
                "partitions_with_work",
                "Partitions with messages not yet committed; no series while that is not known",
            ),
            desired: gauges("replicas_desired", "Workers asked for"),
            ready: gauges("replicas_ready", "Workers that are ready"),
            busy: gauges(
                "replicas_busy",
                "Workers that hold a task, or may; no series while that is not known",
            ),
            idle: gauges(
                "replicas_idle",
                "Workers that hold no task; no series while that is not known",
            ),
            draining: gauges("replicas_draining", "Workers that finish their last task"),
            unschedulable: gauges("replicas_unschedulable", "Workers that no node has room for"),
            decisions: made.counters(
                "separation_pool_decisions_total",
                "Decisions, by reason",
                &[LABELS[0], LABELS[1], LABELS[2], "reason"],
            ),
            writes: made.counters(
                "separation_pool_replica_writes_total",
                "Numbers of workers that were written, by direction",
                &[LABELS[0], LABELS[1], LABELS[2], "direction"],
            ),
        }
    }

    pub(super) fn of(&self, pool: &PoolId, role: Role) -> RoleMetrics {
        let labels = [pool.namespace.clone(), pool.name.clone(), role.name().to_owned()];
        // Pools are as many as there are; each has two.
        let labels = self.users.join(labels.clone(), usize::MAX, labels);
        RoleMetrics {
            lag_known: self.lag_known.with_label_values(&labels),
            desired: self.desired.with_label_values(&labels),
            ready: self.ready.with_label_values(&labels),
            draining: self.draining.with_label_values(&labels),
            unschedulable: self.unschedulable.with_label_values(&labels),
            lag: None,
            lag_age: None,
            partitions_with_work: None,
            busy: None,
            idle: None,
            decisions: [const { None }; Reason::ALL.len()],
            families: self.clone(),
            labels,
        }
    }

    fn remove(&self, labels: &Labels) {
        // What was never known has no series to remove.
        let gauges = [
            &self.lag_known,
            &self.partitions_with_work,
            &self.desired,
            &self.ready,
            &self.busy,
            &self.idle,
            &self.draining,
            &self.unschedulable,
        ];
        for gauge in gauges {
            let _ = gauge.remove_label_values(labels);
        }
        for gauge in [&self.lag, &self.lag_age] {
            let _ = gauge.remove_label_values(labels);
        }
        let [namespace, pool, role] = labels;
        for reason in Reason::ALL {
            let _ = self
                .decisions
                .remove_label_values(&[namespace, pool, role, reason.name()]);
        }
        for direction in [OUT, IN] {
            let _ = self
                .writes
                .remove_label_values(&[namespace, pool, role, direction]);
        }
    }
}

const OUT: &str = "out";
const IN: &str = "in";

/// Metrics of one role of a pool: handles, so that setting them looks up nothing. Its series go with it.
#[derive(Debug)]
pub struct RoleMetrics {
    families: Families,
    labels: Labels,
    lag_known: IntGauge,
    desired: IntGauge,
    ready: IntGauge,
    draining: IntGauge,
    unschedulable: IntGauge,
    lag: Option<Gauge>,
    lag_age: Option<Gauge>,
    partitions_with_work: Option<IntGauge>,
    busy: Option<IntGauge>,
    idle: Option<IntGauge>,
    /// By [`Reason`]; most roles only ever have a few.
    decisions: [Option<IntCounter>; Reason::ALL.len()],
}

impl RoleMetrics {
    /// A decision was made. `lag_age` is the time since lag was last read whole.
    pub fn decided(&mut self, explanation: &Explanation, lag: &Lag, lag_age: Option<Duration>) {
        let families = &self.families;
        let labels = &self.labels;
        let messages = match lag {
            Lag::Known(work) | Lag::Partial { known: work, .. } => Some(work.messages()),
            Lag::Unknown { .. } => None,
        };
        self.lag_known.set(i64::from(matches!(lag, Lag::Known(_))));
        // Beyond 2^53 the nearest number will do.
        let messages = messages.map(|messages| messages as f64);
        set(&mut self.lag, &families.lag, labels, messages, Gauge::set);
        let age = lag_age.map(|age| age.as_secs_f64());
        set(&mut self.lag_age, &families.lag_age, labels, age, Gauge::set);
        let partitions = explanation.work.map(|work| i64::from(work.partitions_with_work));
        let slot = &mut self.partitions_with_work;
        set(
            slot,
            &families.partitions_with_work,
            labels,
            partitions,
            IntGauge::set,
        );
        let pods = explanation.pods;
        self.desired.set(explanation.desired.into());
        self.ready.set(pods.ready.into());
        self.draining.set(pods.draining.into());
        self.unschedulable.set(pods.unschedulable.into());
        // As in status: who cannot be told may hold a task.
        let busy = pods
            .activity
            .map(|activity| i64::from(activity.busy) + i64::from(activity.untold));
        set(&mut self.busy, &families.busy, labels, busy, IntGauge::set);
        let idle = pods.activity.map(|activity| i64::from(activity.idle));
        set(&mut self.idle, &families.idle, labels, idle, IntGauge::set);
        self.count(explanation.reason);
    }

    /// A number of workers was written.
    pub fn wrote_replicas(&self, from: u32, to: u32) {
        let direction = if to > from { OUT } else { IN };
        let [namespace, pool, role] = &self.labels;
        self.families
            .writes
            .with_label_values(&[namespace, pool, role, direction])
            .inc();
    }

    fn count(&mut self, reason: Reason) {
        let Some(index) = Reason::ALL.iter().position(|other| *other == reason) else {
            return;
        };
        let [namespace, pool, role] = &self.labels;
        self.decisions[index]
            .get_or_insert_with(|| {
                self.families
                    .decisions
                    .with_label_values(&[namespace, pool, role, reason.name()])
            })
            .inc();
    }
}

impl Drop for RoleMetrics {
    fn drop(&mut self) {
        self.families
            .users
            .leave(&self.labels, || self.families.remove(&self.labels));
    }
}

/// Sets a series to what is known, and takes it away where nothing is.
fn set<B: MetricVecBuilder, V>(
    slot: &mut Option<B::M>,
    family: &MetricVec<B>,
    labels: &Labels,
    value: Option<V>,
    set: impl FnOnce(&B::M, V),
) where
    MetricVec<B>: Collector,
{
    match value {
        Some(value) => set(
            slot.get_or_insert_with(|| family.with_label_values(labels)),
            value,
        ),
        None => {
            if slot.take().is_some() {
                let _ = family.remove_label_values(labels);
            }
        }
    }
}
