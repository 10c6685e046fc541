//! Metrics of roles: plain numbers per role, converted into series only when they are scraped, because a thousand pools
//! have thirty thousand series.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use prometheus::proto::{Counter, Gauge, LabelPair, Metric, MetricFamily, MetricType};
use prometheus::{Encoder as _, TextEncoder};

use crate::decide::{Activity, Estimates, Explanation, Lag, Reason, Target, completion_time};
use crate::plan::{PoolId, Role};

type Key = (Arc<PoolId>, Role);

/// The numbers of all roles; cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct Roles(Arc<Mutex<BTreeMap<Key, RoleEntry>>>);

#[derive(Debug, Default)]
struct RoleEntry {
    /// Handles: a pool that is recreated while its old handle still exists must not lose its series.
    handles: usize,
    numbers: Numbers,
}

/// Numbers of one role. An unknown value has no series.
#[derive(Debug, Clone, Default)]
struct Numbers {
    /// None before the first decision.
    decided: Option<Decided>,
    /// The times that the last decision expected.
    estimates: Option<Estimates>,
    /// Decisions, by reason.
    decisions: BTreeMap<Reason, u64>,
    /// Writes of replicas, by direction: `down` or `up`.
    writes: BTreeMap<&'static str, u64>,
}

/// Inputs and result of the last decision.
#[derive(Debug, Clone, Copy)]
struct Decided {
    lag: Option<f64>,
    lag_known: bool,
    lag_age: Option<Duration>,
    oldest_age: Option<Duration>,
    target: Option<Duration>,
    drain: Option<Duration>,
    partitions_with_work: Option<u32>,
    desired: u32,
    ready: u32,
    busy: Option<u32>,
    idle: Option<u32>,
    draining: u32,
    unschedulable: u32,
    non_members: u32,
}

/// Values of a role at a decision, besides the decision's explanation.
#[derive(Debug, Clone, Copy)]
pub struct RoleSample<'a> {
    /// The lag that the decision is based on.
    pub lag: &'a Lag,
    /// Time since all partitions were last read.
    pub lag_age: Option<Duration>,
    /// Time since the oldest message that is not committed arrived, or with a start deadline the oldest one that does
    /// not run; zero without one, none while unknown.
    pub oldest_age: Option<Duration>,
    /// Ready workers that have not been members of the consumer group for a session timeout.
    pub non_members: u32,
    /// The target of the spec.
    pub target: Target,
    /// Expected time of a task.
    pub task: Option<Duration>,
}

/// A metric family with one series per role, or several that differ by one label.
struct Family {
    name: &'static str,
    help: &'static str,
    values: Values,
}

enum Values {
    /// A value of the last decision.
    Gauge(fn(&Decided) -> Option<f64>),
    /// A time that the last decision expected.
    Estimate(fn(&Estimates) -> Duration),
    /// By reason.
    Decisions,
    /// By direction.
    Writes,
}

const FAMILIES: [Family; 19] = [
    Family {
        name: "separation_pool_lag_messages",
        help: "Messages not yet committed; a lower bound while lag_known is 0, and no series while lag is unknown",
        values: Values::Gauge(|decided| decided.lag),
    },
    Family {
        name: "separation_pool_lag_known",
        help: "1 while the lag of every partition is known",
        values: Values::Gauge(|decided| Some(f64::from(u8::from(decided.lag_known)))),
    },
    Family {
        name: "separation_pool_lag_age_seconds",
        help: "Time since all partitions were last read; no series before the first time, and while they are not read",
        values: Values::Gauge(|decided| Some(decided.lag_age?.as_secs_f64())),
    },
    Family {
        name: "separation_pool_oldest_message_age_seconds",
        help: "Time since the oldest message not yet committed was first observed, with StartDeadline the oldest one that \
               does not run; 0 without one, no series while unknown",
        values: Values::Gauge(|decided| Some(decided.oldest_age?.as_secs_f64())),
    },
    Family {
        name: "separation_pool_drain_seconds",
        help: "Expected time for the lag with the desired workers; no series while unknown",
        values: Values::Gauge(|decided| Some(decided.drain?.as_secs_f64())),
    },
    Family {
        name: "separation_pool_target_seconds",
        help: "Time within which the target completes, or with StartDeadline begins, all tasks; no series without one",
        values: Values::Gauge(|decided| Some(decided.target?.as_secs_f64())),
    },
    Family {
        name: "separation_pool_partitions_with_work",
        help: "Partitions with messages not yet committed; no series while unknown",
        values: Values::Gauge(|decided| decided.partitions_with_work.map(f64::from)),
    },
    Family {
        name: "separation_pool_replicas_desired",
        help: "Desired workers",
        values: Values::Gauge(|decided| Some(decided.desired.into())),
    },
    Family {
        name: "separation_pool_replicas_ready",
        help: "Workers that are ready",
        values: Values::Gauge(|decided| Some(decided.ready.into())),
    },
    Family {
        name: "separation_pool_replicas_busy",
        help: "Workers that hold a task or may hold one; no series while unknown",
        values: Values::Gauge(|decided| decided.busy.map(f64::from)),
    },
    Family {
        name: "separation_pool_replicas_idle",
        help: "Workers that hold no task; no series while unknown",
        values: Values::Gauge(|decided| decided.idle.map(f64::from)),
    },
    Family {
        name: "separation_pool_replicas_draining",
        help: "Terminating workers that finish their last task",
        values: Values::Gauge(|decided| Some(decided.draining.into())),
    },
    Family {
        name: "separation_pool_replicas_unschedulable",
        help: "Workers that cannot be scheduled because no node has room",
        values: Values::Gauge(|decided| Some(decided.unschedulable.into())),
    },
    Family {
        name: "separation_pool_replicas_not_members",
        help: "Ready workers that have not been members of the consumer group for a session timeout",
        values: Values::Gauge(|decided| Some(decided.non_members.into())),
    },
    Family {
        name: "separation_pool_estimated_task_seconds",
        help: "Expected time of a task, the median: from the spec, learned, or the default",
        values: Values::Estimate(|estimates| estimates.task),
    },
    Family {
        name: "separation_pool_estimated_task_tail_seconds",
        help: "Expected time of a long task, the 95th percentile",
        values: Values::Estimate(|estimates| estimates.task_tail),
    },
    Family {
        name: "separation_pool_estimated_startup_seconds",
        help: "Expected start-up time of a worker: from the spec, learned, or the default",
        values: Values::Estimate(|estimates| estimates.startup),
    },
    Family {
        name: "separation_pool_decisions_total",
        help: "Decisions, by reason",
        values: Values::Decisions,
    },
    Family {
        name: "separation_pool_replica_writes_total",
        help: "Writes of a Deployment's replicas, by direction: up or down",
        values: Values::Writes,
    },
];

/// All metric families of roles.
pub(super) fn descriptions() -> impl Iterator<Item = separation_daemon::Family> {
    FAMILIES.iter().map(|family| {
        let own_label = match family.values {
            Values::Gauge(_) | Values::Estimate(_) => None,
            Values::Decisions => Some("reason"),
            Values::Writes => Some("direction"),
        };
        let labels = ["namespace", "pool", "role"].into_iter().chain(own_label);
        separation_daemon::Family {
            name: family.name.to_owned(),
            kind: family.kind(),
            labels: labels.map(str::to_owned).collect(),
            help: family.help.to_owned(),
        }
    })
}

impl Roles {
    pub(super) fn role(&self, pool: &PoolId, role: Role) -> RoleMetrics {
        let key = (Arc::new(pool.clone()), role);
        self.lock().entry(key.clone()).or_default().handles += 1;
        RoleMetrics {
            roles: self.clone(),
            key,
        }
    }

    /// Appends all series in the Prometheus text format, one family at a time.
    pub(super) fn encode(&self, text: &mut Vec<u8>) {
        for family in &FAMILIES {
            // The lock is held for one family at a time, so that decisions do not wait longer.
            let series: Vec<Metric> = {
                let roles = self.lock();
                let series = roles
                    .iter()
                    .flat_map(|(key, entry)| family.series(key, &entry.numbers));
                series.collect()
            };
            if series.is_empty() {
                continue;
            }
            let mut encoded = MetricFamily::default();
            encoded.set_name(family.name.to_owned());
            encoded.set_help(family.help.to_owned());
            encoded.set_field_type(family.kind());
            encoded.set_metric(series);
            // Only a broken pipe could fail, and this is memory.
            let _ = TextEncoder::new().encode(&[encoded], text);
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Key, RoleEntry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Family {
    fn kind(&self) -> MetricType {
        match self.values {
            Values::Gauge(_) | Values::Estimate(_) => MetricType::GAUGE,
            Values::Decisions | Values::Writes => MetricType::COUNTER,
        }
    }

    fn series(&self, key: &Key, numbers: &Numbers) -> Vec<Metric> {
        let counted = |label: &'static str, (value, count): (&'static str, &u64)| {
            let mut counter = Counter::default();
            // Beyond 2^53 the value is rounded.
            counter.set_value(*count as f64);
            let mut metric = Metric::from_label(labels(key, Some((label, value))));
            metric.set_counter(counter);
            metric
        };
        let gauge = |value: Option<f64>| -> Vec<Metric> {
            let series = value.map(|value| {
                let mut gauge = Gauge::default();
                gauge.set_value(value);
                let mut metric = Metric::from_label(labels(key, None));
                metric.set_gauge(gauge);
                metric
            });
            series.into_iter().collect()
        };
        match self.values {
            Values::Gauge(read) => gauge(numbers.decided.as_ref().and_then(read)),
            Values::Estimate(read) => {
                let time = numbers.estimates.as_ref().map(read);
                gauge(time.map(|time| time.as_secs_f64()))
            }
            Values::Decisions => {
                let decisions = numbers.decisions.iter();
                let named = decisions.map(|(reason, count)| (reason.name(), count));
                named.map(|count| counted("reason", count)).collect()
            }
            Values::Writes => {
                let writes = numbers.writes.iter();
                writes
                    .map(|(to, count)| counted("direction", (*to, count)))
                    .collect()
            }
        }
    }
}

/// Labels in alphabetical order.
fn labels((pool, role): &Key, more: Option<(&str, &str)>) -> Vec<LabelPair> {
    let of_role = [
        ("namespace", pool.namespace.as_str()),
        ("pool", pool.name.as_str()),
        ("role", role.name()),
    ];
    let mut all: Vec<_> = of_role.into_iter().chain(more).collect();
    all.sort_unstable();
    let pairs = all.into_iter().map(|(name, value)| {
        let mut pair = LabelPair::default();
        pair.set_name(name.to_owned());
        pair.set_value(value.to_owned());
        pair
    });
    pairs.collect()
}

/// Metrics of one role of a pool. Its series are removed when the last handle is dropped.
#[derive(Debug)]
pub struct RoleMetrics {
    roles: Roles,
    key: Key,
}

impl RoleMetrics {
    /// Records a decision.
    pub fn decided(&mut self, explanation: &Explanation, sample: &RoleSample<'_>) {
        let messages = match sample.lag {
            Lag::Known(lag) | Lag::Partial { known: lag, .. } => Some(lag.messages()),
            Lag::Unknown { .. } => None,
        };
        let (pods, summary) = (explanation.pods, explanation.lag);
        let drain = summary
            .zip(sample.task)
            .map(|(lag, task)| completion_time(task, lag.messages, explanation.desired));
        let decided = Decided {
            // Beyond 2^53 the value is rounded.
            lag: messages.map(|messages| messages as f64),
            lag_known: matches!(sample.lag, Lag::Known(_)),
            lag_age: sample.lag_age,
            oldest_age: sample.oldest_age,
            target: match sample.target {
                Target::DrainDeadline { within_seconds, .. } => {
                    Some(Duration::from_secs(within_seconds.get().into()))
                }
                Target::StartDeadline { deadline } => Some(deadline),
                Target::TasksPerReplica(_) => None,
            },
            drain,
            partitions_with_work: summary.map(|lag| lag.partitions_with_work),
            desired: explanation.desired,
            ready: pods.ready,
            busy: pods.activity.map(Activity::possibly_busy),
            idle: pods.activity.map(|activity| activity.idle),
            draining: pods.draining,
            unschedulable: pods.unschedulable,
            non_members: sample.non_members,
        };
        self.change(|numbers| {
            numbers.decided = Some(decided);
            *numbers.decisions.entry(explanation.reason).or_default() += 1;
        });
    }

    /// Records that Kafka is not read for the role: until the next decision, values of readings are unknown.
    pub fn not_read(&self) {
        self.change(|numbers| {
            numbers.decided = numbers.decided.map(|decided| Decided {
                lag: None,
                lag_known: false,
                lag_age: None,
                oldest_age: None,
                drain: None,
                partitions_with_work: None,
                busy: None,
                idle: None,
                non_members: 0,
                ..decided
            });
        });
    }

    /// Records the times that a decision expected.
    pub fn estimated(&self, estimates: Estimates) {
        self.change(|numbers| numbers.estimates = Some(estimates));
    }

    /// Counts a write of replicas.
    pub fn wrote_replicas(&self, from: u32, to: u32) {
        let direction = if to < from { "down" } else { "up" };
        self.change(|numbers| *numbers.writes.entry(direction).or_default() += 1);
    }

    fn change(&self, change: impl FnOnce(&mut Numbers)) {
        if let Some(entry) = self.roles.lock().get_mut(&self.key) {
            change(&mut entry.numbers);
        }
    }
}

impl Drop for RoleMetrics {
    fn drop(&mut self) {
        let mut roles = self.roles.lock();
        if let Some(entry) = roles.get_mut(&self.key) {
            entry.handles -= 1;
            if entry.handles == 0 {
                roles.remove(&self.key);
            }
        }
    }
}
