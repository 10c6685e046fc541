//! Arguments of `separation-operator simulate`.

use std::fmt::Display;
use std::fs;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, anyhow, ensure};
use clap::{Args, ValueEnum};
use separation_operator::crd;
use separation_operator::decide::{Estimates, Moment, ReplicaLimits, Target};
use separation_operator::plan::{PoolPlan, Role, RolePlan, ScaleDownWindows};
use serde::Serialize;

use super::comparison::{ComparedPolicy, Comparison, PolicyRun, run_policies};
use super::explain::explain;
use super::generator::{Bursts, GenerativeRequests};
use super::plots::write_plots;
use super::report::report;
use super::scenario::{EstimateSource, Placement, Scenario};
use super::trace::Trace;
use crate::lag_check::parse_period;

/// Duration of a task if neither the arguments nor the pool give one.
const TASK_SECONDS: NonZeroU32 = NonZeroU32::new(90).expect("90 is not 0");

/// Time within which tasks should begin if no deadline is set and workers do not take longer to start.
const DEADLINE: Duration = Duration::from_secs(60);

/// Time within which a compared DrainDeadline completes all tasks if the pool's target is another one.
const DRAIN_SECONDS: NonZeroU32 = NonZeroU32::new(600).expect("600 is not 0");

/// The longest time of an argument, in seconds: a week.
const MAX_SECONDS: f64 = 7.0 * 86_400.0;

/// The largest spread, in percent: a time of one in a thousand is then e^9 times the median.
const MAX_SPREAD: f64 = 300.0;

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
  separation-operator simulate --synthetic genai --max 24 --partitions 48 --start-up 57 --start-deadline 60 \\
      --policies tasks-per-replica,start-deadline,keda,optimum --plots plots
      policies on 23 days of requests, with charts
  separation-operator simulate --start-deadline 60 --explain --at 7230
      how the decision at 7,230 s was made

A trace has one JSON object per line:
  {\"at_seconds\": 0, \"tasks\": 24}                           24 tasks arrive together
  {\"at_seconds\": 90.5, \"tasks\": 1, \"task_seconds\": 400}    one long task
  {\"at_seconds\": 600, \"kafka_away_seconds\": 60}            lag cannot be read for a minute
or is CSV with the header arrival_seconds,task_seconds and a line for each task.";

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
    #[arg(long, value_name = "COUNT", group = "target", help_heading = "Policy")]
    tasks_per_replica: Option<NonZeroU32>,
    /// Time within which the workers should complete all tasks, instead of the pool's target; a task takes
    /// --task-seconds
    #[arg(long, value_name = "SECONDS", group = "target", help_heading = "Policy")]
    drain_deadline: Option<NonZeroU32>,
    /// Time within which each task should begin, instead of the pool's target
    #[arg(long, value_name = "SECONDS", group = "target", value_parser = parse_seconds, help_heading = "Policy")]
    start_deadline: Option<Duration>,
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
    /// Learn the times of tasks and start-ups from nothing; otherwise they are known: those of the pool's estimates,
    /// else those of the trace and of --start-up
    #[arg(long, help_heading = "Policy")]
    learn: bool,
    /// Time that nearly all tasks stay below, if times are known [default: the 95th percentile of the trace]
    #[arg(long, value_name = "SECONDS", value_parser = parse_seconds, conflicts_with = "learn",
          help_heading = "Policy")]
    task_tail_seconds: Option<Duration>,
    /// Policies to compare, comma separated, with the time within which tasks should begin: --start-deadline, else the
    /// pool's, else 60 s or the start-up time if that is longer
    #[arg(
        long,
        value_name = "POLICY",
        value_enum,
        value_delimiter = ',',
        help_heading = "Policy"
    )]
    policies: Vec<PolicyName>,
    /// Recorded trace, JSON lines or CSV [default: a synthetic trace]
    #[arg(long, value_name = "FILE", help_heading = "Work")]
    trace: Option<PathBuf>,
    /// Kind of the synthetic trace
    #[arg(long, value_enum, default_value_t = SyntheticName::Bursts, conflicts_with = "trace",
          help_heading = "Work")]
    synthetic: SyntheticName,
    /// Duration of a task if its trace line has none; tasks of bursts take 0.5 to 1.5 times as long [default: the
    /// pool's estimates.taskSeconds, else 90]
    #[arg(long, value_name = "SECONDS", help_heading = "Work")]
    task_seconds: Option<NonZeroU32>,
    /// Spread of the durations of tasks around those of the trace: the standard deviation of the logarithm
    #[arg(long, value_name = "PERCENT", default_value = "0", value_parser = parse_spread, help_heading = "Work")]
    task_spread: f64,
    /// Length of a trace of kind genai
    #[arg(long, value_name = "DAYS", default_value = "23", help_heading = "Work",
          value_parser = clap::value_parser!(u32).range(1..=60))]
    days: u32,
    /// Length of a trace of kind bursts
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
    /// Seed of the random numbers: the same seed gives the same results
    #[arg(long, value_name = "NUMBER", default_value = "1", help_heading = "Work")]
    seed: u64,
    /// Partitions of the topic
    #[arg(long, value_name = "COUNT", default_value = "24", help_heading = "Cluster",
          value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=10_000))]
    partitions: usize,
    /// How messages are distributed over the partitions
    #[arg(long, value_enum, default_value_t = Placement::Placed, help_heading = "Cluster")]
    placement: Placement,
    /// Time from a pod's creation until it joins the consumer group
    #[arg(long, value_name = "SECONDS", default_value = "20", value_parser = parse_seconds, help_heading = "Cluster")]
    start_up: Duration,
    /// Spread of that time: the standard deviation of its logarithm
    #[arg(long, value_name = "PERCENT", default_value = "0", value_parser = parse_spread, help_heading = "Cluster")]
    start_up_spread: f64,
    /// Duration of a rebalance of the consumer group; partitions that move from another worker take two
    #[arg(long, value_name = "SECONDS", default_value = "3", value_parser = parse_seconds, help_heading = "Cluster")]
    rebalance: Duration,
    /// Print JSON, with every change and every sample
    #[arg(long)]
    json: bool,
    /// Write charts to this directory: lag.svg, replicas.svg, waits.svg, gpu-hours.svg
    #[arg(long, value_name = "DIRECTORY")]
    plots: Option<PathBuf>,
    /// Write the tasks of the trace to this file, as CSV, and simulate nothing
    #[arg(long, value_name = "FILE", conflicts_with_all = ["json", "plots", "policies", "explain"])]
    write_trace: Option<PathBuf>,
    /// Print how one decision was made, instead of a report
    #[arg(long, requires = "at", conflicts_with_all = ["json", "plots", "policies"])]
    explain: bool,
    /// Time of that decision, in seconds since the start
    #[arg(long, value_name = "SECONDS", requires = "explain", value_parser = parse_moment)]
    at: Option<Moment>,
}

/// A role, as an argument.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum RoleName {
    /// Workers that consume tasks
    Processor,
    /// Workers that consume results
    Uploader,
}

/// A policy to compare, as an argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum PolicyName {
    /// The target of the pool or of the arguments
    Pool,
    /// The same if it is of this type, else one task per worker
    TasksPerReplica,
    /// The same if it is of this type, else 600 s
    DrainDeadline,
    /// The time within which tasks should begin
    StartDeadline,
    /// A model of KEDA 2.20 and its HPA with their defaults, after their source
    Keda,
    /// The optimum in hindsight of a policy that lets no task wait
    Optimum,
}

/// A synthetic trace, as an argument.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum SyntheticName {
    /// Tasks at random times, and bursts
    Bursts,
    /// The statistics of 23 days of requests to GPUs: short bursts, busy days, empty nights
    Genai,
}

fn parse_seconds(text: &str) -> Result<Duration, String> {
    parse_within(text, MAX_SECONDS, "seconds").map(Duration::from_secs_f64)
}

fn parse_moment(text: &str) -> Result<Moment, String> {
    let seconds = parse_within(text, 100.0 * MAX_SECONDS, "seconds")?;
    Ok(Moment::default() + Duration::from_secs_f64(seconds))
}

/// The spread as a number.
fn parse_spread(text: &str) -> Result<f64, String> {
    parse_within(text, MAX_SPREAD, "percent").map(|percent| percent / 100.0)
}

fn parse_within(text: &str, max: f64, unit: &str) -> Result<f64, String> {
    let number = text
        .parse::<f64>()
        .ok()
        .filter(|number| (0.0..=max).contains(number));
    number.ok_or_else(|| format!("choose 0 to {max} {unit}"))
}

impl SimulateArguments {
    /// Runs the policy on the trace, or compares several; returns the report as text or JSON.
    ///
    /// # Errors
    /// When a file or an argument is invalid; the text has the fix.
    pub fn run(&self) -> anyhow::Result<String> {
        let scenario = self.scenario()?;
        if let Some(path) = &self.write_trace {
            fs::write(path, scenario.trace.csv())
                .with_context(|| format!("cannot write {}", path.display()))?;
            return Ok(format!("{} tasks\n", scenario.trace.arrivals.len()));
        }
        if let Some(at) = self.at.filter(|_| self.explain) {
            return explained(&scenario, at);
        }
        if self.policies.is_empty() {
            let (report, outcome) = report(&scenario)?;
            let policy = ComparedPolicy::Operator(scenario.role.policy.target);
            self.plot(&scenario, &[PolicyRun { policy, outcome }])?;
            return self.print(&report);
        }
        let runs = run_policies(&scenario, &self.compared(&scenario))?;
        self.plot(&scenario, &runs)?;
        self.print(&Comparison::new(&scenario, &runs))
    }

    fn print(&self, result: &(impl Display + Serialize)) -> anyhow::Result<String> {
        if self.json {
            let json = serde_json::to_string_pretty(result).context("cannot write the report as JSON")?;
            Ok(format!("{json}\n"))
        } else {
            Ok(result.to_string())
        }
    }

    fn plot(&self, scenario: &Scenario, runs: &[PolicyRun]) -> anyhow::Result<()> {
        let Some(directory) = &self.plots else {
            return Ok(());
        };
        write_plots(directory, scenario, runs)
    }

    fn compared(&self, scenario: &Scenario) -> Vec<ComparedPolicy> {
        let own = scenario.role.policy.target;
        let policy = |name: &PolicyName| match (name, own) {
            (PolicyName::Keda, _) => ComparedPolicy::Keda,
            (PolicyName::Optimum, _) => ComparedPolicy::Optimum,
            (PolicyName::Pool, _)
            | (PolicyName::TasksPerReplica, Target::TasksPerReplica(_))
            | (PolicyName::DrainDeadline, Target::DrainDeadline { .. }) => ComparedPolicy::Operator(own),
            (PolicyName::TasksPerReplica, _) => {
                ComparedPolicy::Operator(Target::TasksPerReplica(NonZeroU32::MIN))
            }
            (PolicyName::DrainDeadline, _) => ComparedPolicy::Operator(Target::DrainDeadline {
                within_seconds: DRAIN_SECONDS,
                task_seconds: whole_seconds(self.task(&scenario.role, &scenario.trace)),
            }),
            (PolicyName::StartDeadline, _) => ComparedPolicy::Operator(Target::StartDeadline {
                deadline: scenario.deadline,
            }),
        };
        self.policies.iter().map(policy).collect()
    }

    pub(super) fn scenario(&self) -> anyhow::Result<Scenario> {
        let mut role = self.role()?;
        if let Some(period) = self.lag_check_seconds {
            role.set_lag_check_period(period);
        }
        let declared = role.declared.task.map(whole_seconds);
        let task_seconds = self.task_seconds.or(declared).unwrap_or(TASK_SECONDS);
        role.policy.limits = self.limits(role.policy.limits)?;
        role.policy.target = self.target(role.policy.target, task_seconds);
        role.windows = self.windows(role.windows);
        let mut trace = self.trace(task_seconds)?;
        if self.task_spread > 0.0 {
            trace.spread_tasks(self.task_spread, self.seed);
        }
        Ok(Scenario {
            partitions: self.partitions,
            placement: self.placement,
            start_up: self.start_up,
            start_up_spread: self.start_up_spread,
            rebalance: self.rebalance,
            estimates: if self.learn {
                EstimateSource::Learned
            } else {
                EstimateSource::Given(self.estimates(&role, &trace))
            },
            deadline: match role.policy.target {
                Target::StartDeadline { deadline } => deadline,
                Target::TasksPerReplica(_) | Target::DrainDeadline { .. } => DEADLINE.max(self.start_up),
            },
            seed: self.seed,
            role,
            trace,
        })
    }

    fn role(&self) -> anyhow::Result<RolePlan> {
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

    fn limits(&self, of_pool: ReplicaLimits) -> anyhow::Result<ReplicaLimits> {
        let min = self.min.unwrap_or(of_pool.min());
        let max = self.max.unwrap_or(of_pool.max());
        ReplicaLimits::new(min..=max).ok_or_else(|| {
            anyhow!(
                "{min} to {max} workers is not a valid range; fix: --min at most --max, and --max at least 1"
            )
        })
    }

    fn target(&self, of_pool: Target, task_seconds: NonZeroU32) -> Target {
        let tasks = self.tasks_per_replica.map(Target::TasksPerReplica);
        let drain = self.drain_deadline.map(|within_seconds| Target::DrainDeadline {
            within_seconds,
            task_seconds,
        });
        let start = self
            .start_deadline
            .map(|deadline| Target::StartDeadline { deadline });
        tasks.or(drain).or(start).unwrap_or(of_pool)
    }

    fn windows(&self, of_pool: ScaleDownWindows) -> ScaleDownWindows {
        let seconds = |seconds: u32| Duration::from_secs(seconds.into());
        let window = self.stabilization_window;
        let last_window = self.last_replica_stabilization_window.or(window);
        ScaleDownWindows {
            others: window.map(seconds).or(of_pool.others),
            last_replica: last_window.map(seconds).or(of_pool.last_replica),
        }
    }

    /// The times that are expected without learning.
    fn estimates(&self, role: &RolePlan, trace: &Trace) -> Estimates {
        let task = self.task(role, trace);
        let tail = self.task_tail_seconds.or_else(|| trace.task_percentile(95));
        Estimates {
            startup: role.declared.startup.unwrap_or(self.start_up + self.rebalance),
            task,
            task_tail: tail.unwrap_or(task).max(task),
        }
    }

    /// The expected time of a task.
    fn task(&self, role: &RolePlan, trace: &Trace) -> Duration {
        let seconds = |seconds: NonZeroU32| Duration::from_secs(seconds.get().into());
        let known = self.task_seconds.map(seconds).or(role.declared.task);
        known
            .or_else(|| trace.task_percentile(50))
            .unwrap_or(seconds(TASK_SECONDS))
    }

    fn trace(&self, task_seconds: NonZeroU32) -> anyhow::Result<Trace> {
        let task = Duration::from_secs(task_seconds.get().into());
        let Some(path) = &self.trace else {
            return self.synthetic_trace(task);
        };
        let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        let is_csv = path
            .extension()
            .is_some_and(|extension| extension.eq_ignore_ascii_case("csv"));
        let trace = if is_csv {
            Trace::parse_csv(&text)
        } else {
            Trace::parse(&text, task)
        };
        trace.with_context(|| format!("{} is not a valid trace", path.display()))
    }

    fn synthetic_trace(&self, task: Duration) -> anyhow::Result<Trace> {
        let trace = match self.synthetic {
            SyntheticName::Bursts => Bursts {
                length: Duration::from_secs(3600) * self.hours,
                tasks_per_hour: self.tasks_per_hour,
                burst: self.burst,
                burst_every: Duration::from_secs(60) * self.burst_every,
                task,
                seed: self.seed,
            }
            .trace(),
            SyntheticName::Genai => GenerativeRequests {
                days: self.days,
                seed: self.seed,
            }
            .trace(),
        };
        Ok(trace?)
    }
}

/// The decision at a time of the simulation, step by step.
fn explained(scenario: &Scenario, at: Moment) -> anyhow::Result<String> {
    let target = scenario.role.policy.target;
    ensure!(
        matches!(target, Target::StartDeadline { .. }),
        "the target {target} has no schedule to explain; fix: --start-deadline 60"
    );
    let seconds = at.as_millis() / 1_000;
    explain(scenario, at)?.with_context(|| format!("the simulation ends before {seconds} s; fix: lower --at"))
}

/// A declared time in whole seconds, at least one.
fn whole_seconds(time: Duration) -> NonZeroU32 {
    let seconds = u32::try_from(time.as_secs()).unwrap_or(u32::MAX);
    NonZeroU32::new(seconds).unwrap_or(NonZeroU32::MIN)
}

#[cfg(test)]
mod tests;
