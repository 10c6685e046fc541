//! `separation-operator simulate`: a policy, a trace, and what comes of them.

use std::fs;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, anyhow, ensure};
use clap::{Args, ValueEnum};

use super::print;
use crate::crd;
use crate::decide::{Bounds, Policy, Target};
use crate::plan::{PoolPlan, Role, RolePlan};
use crate::simulate::{Scenario, Synthetic, Trace, simulate};

/// Duration of a task where neither the arguments nor the pool give one.
const TASK_SECONDS: NonZeroU32 = NonZeroU32::new(90).expect("90 is not 0");

/// A pool with defaults only, for whoever brings none.
const DEFAULT_POOL: &str = "
apiVersion: separation.dev/v1alpha1
kind: SeparationPool
metadata: {name: simulated}
spec:
  kafka: {bootstrapServers: 'kafka:9092'}
  storage: {s3: {bucket: stems}, work: {s3Prefix: staging/}}
";

const EXAMPLES: &str = "\
Examples:
  separation-operator simulate
      eight hours of bursts under the defaults of a SeparationPool
  separation-operator simulate --pool pool.yaml --trace monday.jsonl
      what pool.yaml would have made of a recorded day
  separation-operator simulate --drain-within 600 --task-seconds 90 --max 16 --json
      a time target, as JSON for other programs

A trace has one JSON object a line:
  {\"at_seconds\": 0, \"tasks\": 24}                           24 tasks arrive at once
  {\"at_seconds\": 90.5, \"tasks\": 1, \"task_seconds\": 400}    one that takes long
  {\"at_seconds\": 600, \"kafka_away_seconds\": 60}            lag cannot be read for a minute";

/// Arguments of `simulate`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct SimulateArguments {
    /// A SeparationPool whose policy is tried [default: one with defaults only]
    #[arg(long, short = 'f', value_name = "POOL.yaml", help_heading = "Policy")]
    pool: Option<PathBuf>,
    /// Which of the pool's roles
    #[arg(long, value_enum, default_value_t = RoleName::Processor, help_heading = "Policy")]
    role: RoleName,
    /// The fewest workers, in place of the pool's
    #[arg(long, value_name = "COUNT", help_heading = "Policy")]
    min: Option<u32>,
    /// The most workers, in place of the pool's
    #[arg(long, value_name = "COUNT", help_heading = "Policy")]
    max: Option<u32>,
    /// One worker for this many tasks, in place of the pool's target
    #[arg(
        long,
        value_name = "COUNT",
        conflicts_with = "drain_within",
        help_heading = "Policy"
    )]
    tasks_per_replica: Option<NonZeroU32>,
    /// As many workers as finish everything within this time, in place of the pool's target; a task takes --task-seconds
    #[arg(long, value_name = "SECONDS", help_heading = "Policy")]
    drain_within: Option<NonZeroU32>,
    /// How long fewer workers must have been enough, in place of the pool's
    #[arg(long, value_name = "SECONDS", help_heading = "Policy")]
    stabilization: Option<u32>,
    /// A recorded trace, JSON lines [default: one that is made up]
    #[arg(long, value_name = "FILE", help_heading = "Work")]
    trace: Option<PathBuf>,
    /// Duration of a task whose trace line does not give it; made-up ones take from half to one and a half of it [default:
    /// the pool's expectedTaskSeconds, else 90]
    #[arg(long, value_name = "SECONDS", help_heading = "Work")]
    task_seconds: Option<NonZeroU32>,
    /// How long made-up tasks arrive
    #[arg(long, value_name = "HOURS", default_value = "8", help_heading = "Work")]
    hours: u32,
    /// How many tasks arrive in an hour, at random moments
    #[arg(long, value_name = "COUNT", default_value = "30", help_heading = "Work")]
    tasks_per_hour: u32,
    /// How many tasks arrive together in a burst; 0 for no bursts
    #[arg(long, value_name = "COUNT", default_value = "24", help_heading = "Work")]
    burst: u32,
    /// Time between two bursts
    #[arg(long, value_name = "MINUTES", default_value = "120", help_heading = "Work")]
    burst_every: u32,
    /// What chance starts from: the same seed gives the same trace
    #[arg(long, value_name = "NUMBER", default_value = "1", help_heading = "Work")]
    seed: u64,
    /// Partitions of the topic
    #[arg(long, value_name = "COUNT", default_value = "24", help_heading = "Cluster",
          value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=10_000))]
    partitions: usize,
    /// From a pod's creation until it takes tasks
    #[arg(long, value_name = "SECONDS", default_value = "20", help_heading = "Cluster")]
    start_up: u32,
    /// How long the group takes to share out its partitions
    #[arg(long, value_name = "SECONDS", default_value = "3", help_heading = "Cluster")]
    rebalance: u32,
    /// Print JSON, with every change and every sample
    #[arg(long)]
    json: bool,
}

/// A role, as it is typed.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum RoleName {
    /// Workers that take tasks
    Processor,
    /// Workers that take results
    Uploader,
}

/// Runs the command.
pub(super) fn run(arguments: &SimulateArguments) -> anyhow::Result<()> {
    let report = simulate(&arguments.scenario()?)?;
    if arguments.json {
        let json = serde_json::to_string_pretty(&report).context("cannot write the report as JSON")?;
        print(&format!("{json}\n"))
    } else {
        print(&report.to_string())
    }
}

impl SimulateArguments {
    fn scenario(&self) -> anyhow::Result<Scenario> {
        let role = self.role_plan()?;
        let task_seconds = self.task_seconds(&role.policy);
        Ok(Scenario {
            policy: self.policy(role.policy, task_seconds)?,
            poll_interval: role.poll_interval,
            partitions: self.partitions,
            start_up: Duration::from_secs(self.start_up.into()),
            rebalance: Duration::from_secs(self.rebalance.into()),
            trace: self.trace(task_seconds)?,
        })
    }

    /// Duration of a task that does not give its own.
    fn task_seconds(&self, of_pool: &Policy) -> NonZeroU32 {
        let expected = match of_pool.target {
            Target::DrainWithin { task_seconds, .. } => Some(task_seconds),
            Target::TasksPerReplica(_) => None,
        };
        self.task_seconds.or(expected).unwrap_or(TASK_SECONDS)
    }

    fn role_plan(&self) -> anyhow::Result<RolePlan> {
        let (name, text) = match &self.pool {
            None => ("the default pool".to_owned(), DEFAULT_POOL.to_owned()),
            Some(path) => {
                let text =
                    fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
                (path.display().to_string(), text)
            }
        };
        let pool = crd::from_yaml(&text).with_context(|| format!("{name} is no SeparationPool"))?;
        let plan = PoolPlan::of(&pool).with_context(|| format!("{name} cannot be done"))?;
        let role = plan.role(match self.role {
            RoleName::Processor => Role::Processor,
            RoleName::Uploader => Role::Uploader,
        });
        ensure!(
            role.enabled,
            "{name} has no {role}s: spec.{role}.enabled is false; fix: choose the other --role, or enable it",
            role = role.role
        );
        Ok(role.clone())
    }

    fn policy(&self, of_pool: Policy, task_seconds: NonZeroU32) -> anyhow::Result<Policy> {
        let min = self.min.unwrap_or(of_pool.bounds.min());
        let max = self.max.unwrap_or(of_pool.bounds.max());
        let bounds = Bounds::new(min..=max).ok_or_else(|| {
            anyhow!("{min} to {max} workers is no range; fix: --min up to --max, and --max at least 1")
        })?;
        let target = match (self.tasks_per_replica, self.drain_within) {
            (Some(tasks), _) => Target::TasksPerReplica(tasks),
            (None, Some(within_seconds)) => Target::DrainWithin {
                within_seconds,
                task_seconds,
            },
            (None, None) => of_pool.target,
        };
        let stabilisation = self
            .stabilization
            .map(|seconds| Duration::from_secs(seconds.into()));
        Ok(Policy {
            bounds,
            target,
            stabilisation: stabilisation.unwrap_or(of_pool.stabilisation),
            ..of_pool
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
        Trace::parse(&text, task).with_context(|| format!("{} is no trace", path.display()))
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
        let folder = tempfile::tempdir()?;
        let file = folder.path().join("pool.yaml");
        let pool =
            format!("{DEFAULT_POOL}  processor: {{scaling: {scaling}}}\n  uploader: {{enabled: false}}\n");
        fs::write(&file, pool)?;
        let pool = ["simulate", "--pool", file.to_str().context("a path")?];
        let command = Command::parse_from(pool.iter().chain(arguments));
        command.arguments.scenario()
    }

    /// Milliseconds that the one task of a trace takes, and seconds that the target counts for a task.
    fn task(scaling: &str, arguments: &[&str]) -> (u128, Option<u32>) {
        let folder = tempfile::tempdir().expect("a folder");
        let trace = folder.path().join("trace.jsonl");
        fs::write(&trace, r#"{"at_seconds": 0, "tasks": 1}"#).expect("a file");
        let trace = ["--trace", trace.to_str().expect("a path")];
        let arguments: Vec<&str> = trace.iter().chain(arguments).copied().collect();
        let scenario = scenario(scaling, &arguments).expect("a scenario");
        let counted = match scenario.policy.target {
            Target::DrainWithin { task_seconds, .. } => Some(task_seconds.get()),
            Target::TasksPerReplica(_) => None,
        };
        (scenario.trace.arrivals[0].task.as_millis(), counted)
    }

    #[test]
    fn tasks_take_as_long_as_the_pool_expects_unless_the_arguments_say_otherwise() {
        let pool = "{target: {drainWithinSeconds: 600, expectedTaskSeconds: 300}}";
        assert_eq!(task(pool, &[]), (300_000, Some(300)));
        assert_eq!(task(pool, &["--task-seconds", "40"]), (40_000, Some(300)));
        assert_eq!(task(pool, &["--drain-within", "60"]), (300_000, Some(300)));
        assert_eq!(
            task(pool, &["--drain-within", "60", "--task-seconds", "40"]),
            (40_000, Some(40))
        );
        assert_eq!(task("{}", &[]), (90_000, None));
        assert_eq!(task("{}", &["--drain-within", "60"]), (90_000, Some(90)));
    }

    #[test]
    fn a_role_that_the_pool_does_not_have_is_not_simulated() {
        let error = scenario("{}", &["--role", "uploader"])
            .map(drop)
            .expect_err("refused");
        assert!(
            error.to_string().contains("spec.uploader.enabled is false"),
            "{error}"
        );
    }
}
