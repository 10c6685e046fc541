//! Validated scaling of a role: limits, target, estimated times, and stabilization windows.

use std::num::NonZeroU32;
use std::ops::RangeInclusive;
use std::time::Duration;

use separation_contract::kafka::Timings;

use super::checks::Checks;
use crate::crd::{ScaleDownSpec, ScalingMode, ScalingSpec, TargetKind, TargetSpec};
use crate::decide::{DeclaredEstimates, Estimates, Mode, Policy, ReplicaLimits, Target};

/// Default of both stabilization windows, unless the target is `StartDeadline`.
const STABILIZATION: Duration = Duration::from_secs(120);

/// The validated scaling of a role.
pub(super) struct Scaling {
    /// Without the times that depend on the lag check period.
    pub(super) policy: Policy,
    pub(super) declared: DeclaredEstimates,
    pub(super) windows: ScaleDownWindows,
}

impl Scaling {
    /// `section` is the field of `spec`, such as `processor.scaling`.
    pub(super) fn from_spec(
        section: &str,
        spec: &ScalingSpec,
        timings: Option<&Timings>,
        checks: &mut Checks,
    ) -> Option<Self> {
        let declared = declared(section, spec, checks);
        let limits = limits(section, spec, checks);
        let task = declared.and_then(|declared| declared.task);
        let target = target(&format!("{section}.target"), spec.target.as_ref(), task, checks);
        let windows =
            ScaleDownWindows::from_spec(&format!("{section}.scaleDown"), spec.scale_down.as_ref(), checks);
        let (declared, target, windows, timings) = (declared?, target?, windows?, timings?);
        let startup = declared.startup.unwrap_or(Estimates::default().startup);
        let [stabilization, last_replica_stabilization] = windows.complete(target, startup);
        Some(Self {
            policy: Policy {
                limits: limits?,
                target,
                mode: match spec.mode {
                    ScalingMode::Auto => Mode::Auto,
                    ScalingMode::DryRun => Mode::DryRun,
                    ScalingMode::Paused => Mode::Paused,
                },
                stabilization,
                last_replica_stabilization,
                // Set with the lag check period.
                cooldown: Duration::ZERO,
                stale_after: Duration::ZERO,
                // A cooperative rebalance has two rounds, and members learn of each with their next heartbeat; 5 s for
                // joining.
                rebalance_hold: 2 * timings.heartbeat_interval + Duration::from_secs(5),
            },
            declared,
            windows,
        })
    }
}

/// Stabilization windows that the spec sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ScaleDownWindows {
    /// `stabilizationWindowSeconds`.
    pub others: Option<Duration>,
    /// `lastReplicaStabilizationWindowSeconds`.
    pub last_replica: Option<Duration>,
}

impl ScaleDownWindows {
    fn from_spec(field: &str, spec: Option<&ScaleDownSpec>, checks: &mut Checks) -> Option<Self> {
        let mut window = |name: &str, seconds: Option<i32>| {
            let checked = checks.optional_integer(&format!("{field}.{name}"), seconds, 0..=86_400);
            checked.map(|seconds| seconds.map(Duration::from_secs))
        };
        let others = spec.and_then(|spec| spec.stabilization_window_seconds);
        let last_replica = spec.and_then(|spec| spec.last_replica_stabilization_window_seconds);
        let others = window("stabilizationWindowSeconds", others);
        let last_replica = window("lastReplicaStabilizationWindowSeconds", last_replica);
        Some(Self {
            others: others?,
            last_replica: last_replica?,
        })
    }

    /// The windows of the other replicas and of the last one. A window that the spec does not set is, for
    /// `StartDeadline`, about as long as it pays to keep an idle worker in place of starting one.
    pub(super) fn complete(self, target: Target, startup: Duration) -> [Duration; 2] {
        let [others, last_replica] = match target {
            Target::StartDeadline { .. } => [
                clamp_seconds(startup.saturating_mul(3), 60..=180),
                clamp_seconds(startup.saturating_mul(4), 120..=240),
            ],
            Target::TasksPerReplica(_) | Target::DrainDeadline { .. } => [STABILIZATION; 2],
        };
        [
            self.others.unwrap_or(others),
            self.last_replica.or(self.others).unwrap_or(last_replica),
        ]
    }
}

fn clamp_seconds(time: Duration, seconds: RangeInclusive<u64>) -> Duration {
    let (shortest, longest) = seconds.into_inner();
    time.clamp(Duration::from_secs(shortest), Duration::from_secs(longest))
}

fn limits(section: &str, spec: &ScalingSpec, checks: &mut Checks) -> Option<ReplicaLimits> {
    let field = |name: &str| format!("{section}.{name}");
    let min: Option<u32> = checks.integer(&field("minReplicas"), spec.min_replicas.into(), 0..=10_000);
    let max: Option<u32> = checks.integer(&field("maxReplicas"), spec.max_replicas.into(), 1..=10_000);
    let (min, max) = (min?, max?);
    ReplicaLimits::new(min..=max).or_else(|| {
        let problem = format!("{min} is above maxReplicas, {max}");
        let fix = "lower minReplicas or raise maxReplicas";
        checks.refuse(&field("minReplicas"), problem, fix)
    })
}

fn declared(section: &str, spec: &ScalingSpec, checks: &mut Checks) -> Option<DeclaredEstimates> {
    let mut estimate = |name: &str, seconds: Option<i32>| {
        let field = format!("{section}.estimates.{name}");
        let checked = checks.optional_integer(&field, seconds, 1..=86_400);
        checked.map(|seconds| seconds.map(Duration::from_secs))
    };
    let spec = spec.estimates.as_ref();
    let task = estimate("taskSeconds", spec.and_then(|spec| spec.task_seconds));
    let startup = estimate("startupSeconds", spec.and_then(|spec| spec.startup_seconds));
    Some(DeclaredEstimates {
        task: task?,
        startup: startup?,
    })
}

fn target(
    field: &str,
    spec: Option<&TargetSpec>,
    task: Option<Duration>,
    checks: &mut Checks,
) -> Option<Target> {
    let Some(TargetSpec {
        kind,
        tasks_per_replica,
        drain_deadline_seconds,
        start_deadline_seconds,
    }) = spec
    else {
        return Some(Target::TasksPerReplica(NonZeroU32::MIN));
    };
    match (
        kind,
        tasks_per_replica,
        drain_deadline_seconds,
        start_deadline_seconds,
    ) {
        (TargetKind::TasksPerReplica, tasks, None, None) => {
            let field = format!("{field}.tasksPerReplica");
            positive(checks, &field, tasks.unwrap_or(1), 1_000_000).map(Target::TasksPerReplica)
        }
        (TargetKind::DrainDeadline, None, Some(within), None) => {
            let within_seconds = positive(checks, &format!("{field}.drainDeadlineSeconds"), *within, 604_800);
            let Some(task) = task.and_then(whole_seconds) else {
                let problem = "a drain deadline needs the duration of a task";
                return checks.refuse(field, problem, "set scaling.estimates.taskSeconds");
            };
            Some(Target::DrainDeadline {
                within_seconds: within_seconds?,
                task_seconds: task,
            })
        }
        (TargetKind::StartDeadline, None, None, Some(deadline)) => {
            let deadline = positive(
                checks,
                &format!("{field}.startDeadlineSeconds"),
                *deadline,
                86_400,
            )?;
            Some(Target::StartDeadline {
                deadline: Duration::from_secs(deadline.get().into()),
            })
        }
        _ => {
            let own = match kind {
                TargetKind::TasksPerReplica => "tasksPerReplica",
                TargetKind::DrainDeadline => "drainDeadlineSeconds",
                TargetKind::StartDeadline => "startDeadlineSeconds",
            };
            let problem = format!("type {kind:?} takes {own} and no field of another type");
            checks.refuse(field, problem, format!("set {own} alone, or change type"))
        }
    }
}

fn positive(checks: &mut Checks, field: &str, value: i32, max: i64) -> Option<NonZeroU32> {
    let checked: Option<u32> = checks.integer(field, value.into(), 1..=max);
    checked.and_then(NonZeroU32::new)
}

fn whole_seconds(time: Duration) -> Option<NonZeroU32> {
    u32::try_from(time.as_secs()).ok().and_then(NonZeroU32::new)
}
