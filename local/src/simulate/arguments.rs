//! Arguments of `separation-operator simulate`.

use std::fs;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, anyhow, ensure};
use clap::{Args, ValueEnum};
use separation_operator::crd;
use separation_operator::decide::{Policy, ReplicaLimits, Target};
use separation_operator::plan::{PoolPlan, Role, RolePlan};

use super::{Scenario, Synthetic, Trace, simulate};
use crate::lag_check::parse_period;

/// Duration of a task if neither the arguments nor the pool give one.
const TASK_SECONDS: NonZeroU32 = NonZeroU32::new(90).expect("90 is not 0");

/// The pool that is simulated without `--pool`: defaults only.
const DEFAULT_POOL: &str = "
apiVersion: separation.dev/v1beta1
kind: SeparationPool
metadata: {name: simulated}
spec:
  kafka: {bootstrapServers: 'kafka:9092'}
  storage: {stems: {bucket: stems}, staging: {s3: {}}}
";

const EXAMPLES: &str = "\
Examples:
  separation-operator simulate
      eight hours of bursts with the defaults of a SeparationPool
  separation-operator simulate --pool pool.yaml --trace monday.jsonl
      the policy of pool.yaml on a recorded day
  separation-operator simulate --drain-deadline 600 --task-seconds 90 --max 16 --json
      a deadline as the target, as JSON for other programs

A trace has one JSON object per line:
  {\"at_seconds\": 0, \"tasks\": 24}                           24 tasks arrive together
  {\"at_seconds\": 90.5, \"tasks\": 1, \"task_seconds\": 400}    one long task
  {\"at_seconds\": 600, \"kafka_away_seconds\": 60}            lag cannot be read for a minute";

/// Arguments of `simulate`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct SimulateArguments {
    /// SeparationPool whose policy is simulated [default: a pool with defaults only]
    #[arg(long, short = 'f', value_name = "POOL.yaml", help_heading = "Policy")]
    pool: Option<PathBuf>,
    /// Role of the pool that is simulated
    #[arg(long, value_enum, default_value_t = RoleName::Processor, help_heading = "Policy")]
    role: RoleName,
    /// Minimum workers, instead of the pool's minReplicas
    #[arg(long, value_name = "COUNT", help_heading = "Policy")]
    min: Option<u32>,
    /// Maximum workers, instead of the pool's maxReplicas
    #[arg(long, value_name = "COUNT", help_heading = "Policy")]
    max: Option<u32>,
    /// Tasks per worker, instead of the pool's target
    #[arg(
        long,
        value_name = "COUNT",
        conflicts_with = "drain_deadline",
        help_heading = "Policy"
    )]
    tasks_per_replica: Option<NonZeroU32>,
    /// Time within which the workers should complete all tasks, instead of the pool's target; a task takes
    /// --task-seconds
    #[arg(long, value_name = "SECONDS", help_heading = "Policy")]
    drain_deadline: Option<NonZeroU32>,
    /// How long fewer workers must have been enough before a scale-down, instead of the pool's
    /// stabilizationWindowSeconds
    #[arg(long, value_name = "SECONDS", help_heading = "Policy")]
    stabilization_window: Option<u32>,
    /// The same for the last worker [default: --stabilization-window, else the pool's]
    #[arg(long, value_name = "SECONDS", help_heading = "Policy")]
    last_replica_stabilization_window: Option<u32>,
    /// Time between two readings of lag, instead of the pool's lagCheckPeriodSeconds; 0.1 to 300
    #[arg(long, value_name = "SECONDS", value_parser = parse_period, help_heading = "Policy")]
    lag_check_seconds: Option<Duration>,
    /// Recorded trace, JSON lines [default: a synthetic trace]
    #[arg(long, value_name = "FILE", help_heading = "Work")]
    trace: Option<PathBuf>,
    /// Duration of a task if its trace line has none; synthetic tasks take 0.5 to 1.5 times as long [default: the
    /// pool's estimates.taskSeconds, else 90]
    #[arg(long, value_name = "SECONDS", help_heading = "Work")]
    task_seconds: Option<NonZeroU32>,
    /// Length of the synthetic trace
    #[arg(long, value_name = "HOURS", default_value = "8", help_heading = "Work")]
    hours: u32,
    /// Tasks per hour that arrive at random times
    #[arg(long, value_name = "COUNT", default_value = "30", help_heading = "Work")]
    tasks_per_hour: u32,
    /// Tasks that arrive together in a burst; 0 for no bursts
    #[arg(long, value_name = "COUNT", default_value = "24", help_heading = "Work")]
    burst: u32,
    /// Time between two bursts
    #[arg(long, value_name = "MINUTES", default_value = "120", help_heading = "Work")]
    burst_every: u32,
    /// Seed of the random numbers: the same seed gives the same trace
    #[arg(long, value_name = "NUMBER", default_value = "1", help_heading = "Work")]
    seed: u64,
    /// Partitions of the topic
    #[arg(long, value_name = "COUNT", default_value = "24", help_heading = "Cluster",
          value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=10_000))]
    partitions: usize,
    /// Time from a pod's creation until it consumes tasks
    #[arg(long, value_name = "SECONDS", default_value = "20", help_heading = "Cluster")]
    start_up: u32,
    /// Duration of a rebalance of the consumer group
    #[arg(long, value_name = "SECONDS", default_value = "3", help_heading = "Cluster")]
    rebalance: u32,
    /// Print JSON, with every change and every sample
    #[arg(long)]
    json: bool,
}

/// A role, as an argument.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum RoleName {
    /// Workers that consume tasks
    Processor,
    /// Workers that consume results
    Uploader,
}

impl SimulateArguments {
    /// Runs the policy on the trace; returns the report as text or JSON.
    ///
    /// # Errors
    /// When a file or an argument is invalid; the text has the fix.
    pub fn run(&self) -> anyhow::Result<String> {
        let report = simulate(&self.scenario()?)?;
        if self.json {
            let json = serde_json::to_string_pretty(&report).context("cannot write the report as JSON")?;
            Ok(format!("{json}\n"))
        } else {
            Ok(report.to_string())
        }
    }

    fn scenario(&self) -> anyhow::Result<Scenario> {
        let (mut role, estimate) = self.role()?;
        if let Some(period) = self.lag_check_seconds {
            role.set_lag_check_period(period);
        }
        let task_seconds = self.task_seconds.or(estimate).unwrap_or(TASK_SECONDS);
        Ok(Scenario {
            policy: self.policy(role.policy, task_seconds)?,
            lag_check_period: role.lag_check_period,
            partitions: self.partitions,
            start_up: Duration::from_secs(self.start_up.into()),
            rebalance: Duration::from_secs(self.rebalance.into()),
            trace: self.trace(task_seconds)?,
        })
    }

    /// The role of the pool, and the pool's estimate of a task's duration.
    fn role(&self) -> anyhow::Result<(RolePlan, Option<NonZeroU32>)> {
        let (name, text) = match &self.pool {
            None => ("the default pool".to_owned(), DEFAULT_POOL.to_owned()),
            Some(path) => {
                let text =
                    fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
                (path.display().to_string(), text)
            }
        };
        let pool = crd::from_yaml(&text).with_context(|| format!("{name} is not a valid SeparationPool"))?;
        let plan = PoolPlan::from_pool(&pool).with_context(|| format!("{name} has an invalid spec"))?;
        let (role, spec) = match self.role {
            RoleName::Processor => (plan.role(Role::Processor), &pool.spec.processor.role),
            RoleName::Uploader => (plan.role(Role::Uploader), &pool.spec.uploader),
        };
        ensure!(
            role.enabled,
            "{name} has no {role}s: spec.{role}.enabled is false; fix: choose the other --role, or enable it",
            role = role.role
        );
        let estimates = spec.scaling.estimates.as_ref();
        let seconds = estimates.and_then(|estimates| estimates.task_seconds);
        let seconds = seconds.and_then(|seconds| u32::try_from(seconds).ok());
        Ok((role.clone(), seconds.and_then(NonZeroU32::new)))
    }

    fn policy(&self, pool_policy: Policy, task_seconds: NonZeroU32) -> anyhow::Result<Policy> {
        let min = self.min.unwrap_or(pool_policy.limits.min());
        let max = self.max.unwrap_or(pool_policy.limits.max());
        let limits = ReplicaLimits::new(min..=max).ok_or_else(|| {
            anyhow!(
                "{min} to {max} workers is not a valid range; fix: --min at most --max, and --max at least 1"
            )
        })?;
        let target = match (self.tasks_per_replica, self.drain_deadline) {
            (Some(tasks), _) => Target::TasksPerReplica(tasks),
            (None, Some(within_seconds)) => Target::DrainDeadline {
                within_seconds,
                task_seconds,
            },
            (None, None) => pool_policy.target,
        };
        let seconds = |seconds: u32| Duration::from_secs(seconds.into());
        let window = self.stabilization_window;
        let last_window = self.last_replica_stabilization_window.or(window);
        Ok(Policy {
            limits,
            target,
            stabilization: window.map_or(pool_policy.stabilization, seconds),
            last_replica_stabilization: last_window.map_or(pool_policy.last_replica_stabilization, seconds),
            ..pool_policy
        })
    }

    fn trace(&self, task_seconds: NonZeroU32) -> anyhow::Result<Trace> {
        let task = Duration::from_secs(task_seconds.get().into());
        let Some(path) = &self.trace else {
            let synthetic = Synthetic {
                length: Duration::from_secs(3600) * self.hours,
                tasks_per_hour: self.tasks_per_hour,
                burst: self.burst,
                burst_every: Duration::from_secs(60) * self.burst_every,
                task,
                seed: self.seed,
            };
            return Ok(synthetic.trace()?);
        };
        let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        Trace::parse(&text, task).with_context(|| format!("{} is not a valid trace", path.display()))
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Command {
        #[command(flatten)]
        arguments: SimulateArguments,
    }

    /// The scenario of arguments, with a pool whose scaling and uploader are these.
    fn scenario(scaling: &str, arguments: &[&str]) -> anyhow::Result<Scenario> {
        let directory = tempfile::tempdir()?;
        let file = directory.path().join("pool.yaml");
        let pool =
            format!("{DEFAULT_POOL}  processor: {{scaling: {scaling}}}\n  uploader: {{enabled: false}}\n");
        fs::write(&file, pool)?;
        let pool = ["simulate", "--pool", file.to_str().context("a path")?];
        let command = Command::parse_from(pool.iter().chain(arguments));
        command.arguments.scenario()
    }

    /// Duration in milliseconds of the one task of a trace, and the target's seconds per task.
    fn task(scaling: &str, arguments: &[&str]) -> (u128, Option<u32>) {
        let directory = tempfile::tempdir().expect("a directory");
        let trace = directory.path().join("trace.jsonl");
        fs::write(&trace, r#"{"at_seconds": 0, "tasks": 1}"#).expect("a file");
        let trace = ["--trace", trace.to_str().expect("a path")];
        let arguments: Vec<&str> = trace.iter().chain(arguments).copied().collect();
        let scenario = scenario(scaling, &arguments).expect("a scenario");
        let target_seconds = match scenario.policy.target {
            Target::DrainDeadline { task_seconds, .. } => Some(task_seconds.get()),
            Target::TasksPerReplica(_) => None,
        };
        (scenario.trace.arrivals[0].task.as_millis(), target_seconds)
    }

    #[test]
    fn task_time_is_the_pools_unless_the_arguments_set_it() {
        let pool =
            "{target: {type: DrainDeadline, drainDeadlineSeconds: 600}, estimates: {taskSeconds: 300}}";
        assert_eq!(task(pool, &[]), (300_000, Some(300)));
        assert_eq!(task(pool, &["--task-seconds", "40"]), (40_000, Some(300)));
        assert_eq!(task(pool, &["--drain-deadline", "60"]), (300_000, Some(300)));
        assert_eq!(
            task(pool, &["--drain-deadline", "60", "--task-seconds", "40"]),
            (40_000, Some(40))
        );
        assert_eq!(task("{estimates: {taskSeconds: 300}}", &[]), (300_000, None));
        assert_eq!(task("{}", &[]), (90_000, None));
        assert_eq!(task("{}", &["--drain-deadline", "60"]), (90_000, Some(90)));
    }

    /// Lag check period, time after which a reading is stale, and both stabilization windows.
    fn times(scaling: &str, arguments: &[&str]) -> [Duration; 4] {
        let scenario = scenario(scaling, arguments).expect("a scenario");
        let policy = scenario.policy;
        [
            scenario.lag_check_period,
            policy.stale_after,
            policy.stabilization,
            policy.last_replica_stabilization,
        ]
    }

    #[test]
    fn times_are_the_pools_unless_the_arguments_set_them() {
        let pool = "{lagCheckPeriodSeconds: 4, \
                    scaleDown: {stabilizationWindowSeconds: 60, lastReplicaStabilizationWindowSeconds: 600}}";
        let seconds = |times: [f64; 4]| times.map(Duration::from_secs_f64);
        assert_eq!(times(pool, &[]), seconds([4.0, 22.0, 60.0, 600.0]));
        assert_eq!(
            times(
                pool,
                &["--lag-check-seconds", "0.5", "--stabilization-window", "30"]
            ),
            seconds([0.5, 11.5, 30.0, 30.0])
        );
        assert_eq!(
            times(pool, &["--last-replica-stabilization-window", "900"]),
            seconds([4.0, 22.0, 60.0, 900.0])
        );
    }

    #[test]
    fn a_disabled_role_is_not_simulated() {
        let error = scenario("{}", &["--role", "uploader"])
            .map(drop)
            .expect_err("refused");
        assert!(
            error.to_string().contains("spec.uploader.enabled is false"),
            "{error}"
        );
    }
}
