//! One role on this machine: a loop that reads lag, decides, and starts and stops processes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use anyhow::bail;
use separation_contract::backoff::Backoff;
use separation_operator::apply;
use separation_operator::clock::Clock;
use separation_operator::decide::{History, Lag, LearnedTimes, Observation, PodName, Write, decide};
use separation_operator::plan::{PoolPlan, Role, RolePlan};
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::access::ApiAccess;
use super::display::Display;
use super::environment::{self, Directories};
use super::fleet;
use super::lag::{GroupOffsets, LagSource};
use super::manifest::Secrets;
use super::worker::{Program, Worker};

/// The run fails after this many consecutive workers ended at their start.
const MAX_START_FAILURES: u32 = 3;

/// Waits before a worker that ended by itself is restarted.
const BACKOFF: Backoff = Backoff {
    first: Duration::from_secs(1),
    longest: Duration::from_secs(30),
};

/// Interval of messages about workers that are still finishing a task.
const WAITING_MESSAGE_INTERVAL: Duration = Duration::from_secs(10);

/// The phase of a role. Later variants override earlier ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum RolePhase {
    /// Run the workers that the backlog needs.
    Scale,
    /// The same, until lag is 0.
    Finish,
    /// Workers finish their tasks and start no others.
    Drain,
    /// All processes end immediately.
    Abort,
}

/// State that the roles share.
pub(super) struct PoolContext {
    pub(super) plan: PoolPlan,
    pub(super) access: ApiAccess,
    pub(super) program: Program,
    pub(super) directories: Directories,
    pub(super) secrets: Secrets,
    /// Environment variables that every worker gets in addition to those of its pod.
    pub(super) extra_variables: BTreeMap<String, String>,
    pub(super) display: Arc<Display>,
    pub(super) clock: Clock,
}

/// A role, with its workers.
pub(super) struct RolePool {
    context: Arc<PoolContext>,
    role: Role,
    lag: LagSource,
    workers: Vec<Worker>,
    replicas: u32,
    candidates: BTreeSet<PodName>,
    history: History,
    learned: LearnedTimes,
    started: u32,
    /// Consecutive workers that ended by themselves.
    failures: u32,
    /// Whether a worker was ever ready for tasks.
    was_ready: bool,
    not_before: Option<Instant>,
}

impl PoolContext {
    /// The environment of a role's worker.
    pub(super) fn environment(&self, role: Role, name: &PodName) -> anyhow::Result<BTreeMap<String, String>> {
        let variables = apply::variables(
            &self.plan,
            self.plan.role(role),
            &environment::default_model(),
            None,
        );
        let mut environment = environment::process_environment(
            variables,
            &self.access,
            name,
            &self.directories,
            &self.secrets,
        )?;
        environment.extend(self.extra_variables.clone());
        Ok(environment)
    }
}

impl RolePool {
    pub(super) fn new(context: Arc<PoolContext>, role: Role, lag: LagSource) -> Self {
        Self {
            context,
            role,
            lag,
            workers: Vec::new(),
            replicas: 0,
            candidates: BTreeSet::new(),
            history: History::default(),
            learned: LearnedTimes::default(),
            started: 0,
            failures: 0,
            was_ready: false,
            not_before: None,
        }
    }

    pub(super) fn role(&self) -> Role {
        self.role
    }

    /// Runs until the phase ends it. Even after an error, running tasks are finished first.
    ///
    /// # Errors
    /// When workers cannot be started.
    pub(super) async fn run(mut self, mut phases: watch::Receiver<RolePhase>) -> anyhow::Result<()> {
        let scaled = self.scale(&mut phases).await;
        self.end(&mut phases).await;
        scaled
    }

    async fn scale(&mut self, phases: &mut watch::Receiver<RolePhase>) -> anyhow::Result<()> {
        let mut readings = interval(self.plan().lag_check_period);
        readings.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let phase = *phases.borrow_and_update();
            if phase >= RolePhase::Drain {
                return Ok(());
            }
            tokio::select! {
                _ = readings.tick() => {
                    let lag = self.poll_and_scale().await?;
                    if phase == RolePhase::Finish && lag == Some(0) {
                        return Ok(());
                    }
                }
                // The sender is dropped only at the end of the process.
                _ = phases.changed() => {}
            }
        }
    }

    fn plan(&self) -> &RolePlan {
        self.context.plan.role(self.role)
    }

    /// Reads, decides and acts once; returns the lag if it is known.
    async fn poll_and_scale(&mut self) -> anyhow::Result<Option<u128>> {
        self.poll_workers().await?;
        let now = self.context.clock.now();
        let GroupOffsets { lag, queue, finished } = self.lag.read(now).await;
        for task in finished {
            self.learned.task_finished(task.took);
        }
        let estimates = self.learned.estimates(self.plan().declared);
        let snapshots: Vec<_> = self.workers.iter().map(Worker::snapshot).collect();
        let observation = Observation {
            lag,
            group: fleet::group(&snapshots, now),
            workload: fleet::workload(&snapshots, self.replicas, &self.candidates),
            conflict: None,
            refusal: None,
            estimates,
            queue,
        };
        let policy = self.plan().policy_with(estimates);
        let history = std::mem::take(&mut self.history);
        let mut decision = decide(&policy, &observation, history, now);
        while decision
            .execute_next(now, |write| self.apply_write(write))
            .is_some()
        {}
        self.history = decision.history;
        self.start_and_drain()?;
        self.context.display.show_role(self.role, &decision.explanation);
        Ok(match &observation.lag.lag {
            Lag::Known(work) => Some(work.messages()),
            Lag::Partial { .. } | Lag::Unknown { .. } => None,
        })
    }

    /// Polls every worker, and removes those that ended.
    async fn poll_workers(&mut self) -> anyhow::Result<()> {
        let mut remaining = Vec::with_capacity(self.workers.len());
        for mut worker in std::mem::take(&mut self.workers) {
            let before = worker.snapshot().activity;
            let Some(status) = worker.poll().await else {
                if matches!(
                    worker.snapshot().activity,
                    fleet::WorkerActivity::Idle | fleet::WorkerActivity::Busy
                ) {
                    self.was_ready = true;
                    self.failures = 0;
                    if before == fleet::WorkerActivity::Starting {
                        let now = self.context.clock.now();
                        self.learned.worker_started(now.since(worker.created));
                    }
                }
                remaining.push(worker);
                continue;
            };
            self.candidates.remove(&worker.name);
            if worker.snapshot().activity == fleet::WorkerActivity::Draining && status.success() {
                continue;
            }
            self.failures += 1;
            let wait = BACKOFF.after(self.failures);
            self.not_before = Some(Instant::now() + wait);
            let message = format!("{} ended ({status}): {}", worker.name, worker.last_error());
            if !self.was_ready && self.failures >= MAX_START_FAILURES {
                bail!("{} workers keep ending at start: {message}", self.role);
            }
            self.context
                .display
                .print_line(&format!("{message}; the next one starts in {} s", wait.as_secs()));
        }
        self.workers = remaining;
        Ok(())
    }

    fn apply_write(&mut self, write: &Write) {
        match write {
            Write::Annotate(names) => self.candidates.extend(names.iter().cloned()),
            Write::Unannotate(names) => self.candidates.retain(|name| !names.contains(name)),
            Write::SetReplicas(replicas) => self.replicas = *replicas,
        }
    }

    /// Starts missing workers, and drains those beyond the replicas.
    fn start_and_drain(&mut self) -> anyhow::Result<()> {
        let snapshots: Vec<_> = self.workers.iter().map(Worker::snapshot).collect();
        let surplus = fleet::workload(&snapshots, self.replicas, &self.candidates).surplus_pods();
        for worker in &mut self.workers {
            if surplus.contains(&worker.name) {
                worker.drain();
            }
        }
        if self.not_before.is_some_and(|at| Instant::now() < at) {
            return Ok(());
        }
        let running = snapshots
            .iter()
            .filter(|worker| worker.activity != fleet::WorkerActivity::Draining);
        let running = u32::try_from(running.count()).unwrap_or(u32::MAX);
        for _ in running..self.replicas {
            self.start()?;
        }
        Ok(())
    }

    fn start(&mut self) -> anyhow::Result<()> {
        self.started += 1;
        let name = format!(
            "{}-{}",
            apply::deployment_name(&self.context.plan.id, self.role),
            self.started
        );
        let name = PodName::from(name.as_str());
        let environment = self.context.environment(self.role, &name)?;
        let worker = self.context.program.start(
            self.role.name(),
            name,
            &environment,
            &self.context.directories.logs,
            self.context.clock.now(),
        )?;
        self.workers.push(worker);
        Ok(())
    }

    /// Waits until every worker has finished its task; on [`RolePhase::Abort`] stops them.
    async fn end(&mut self, phases: &mut watch::Receiver<RolePhase>) {
        for worker in &mut self.workers {
            worker.drain();
        }
        let mut last_message = Instant::now();
        for worker in &mut self.workers {
            loop {
                tokio::select! {
                    () = worker.ended() => break,
                    () = wait_for_at_least(phases, RolePhase::Abort) => {
                        worker.abort().await;
                        break;
                    }
                    () = tokio::time::sleep_until(last_message + WAITING_MESSAGE_INTERVAL) => {
                        last_message = Instant::now();
                        self.context.display.print_line(&format!("waiting for {} to finish its task", worker.name));
                    }
                }
            }
        }
        self.workers.clear();
    }
}

/// Waits until the value is at least `minimum`; forever if the sender was dropped.
pub(super) async fn wait_for_at_least<T: PartialOrd>(receiver: &mut watch::Receiver<T>, minimum: T) {
    if receiver.wait_for(|value| *value >= minimum).await.is_err() {
        std::future::pending::<()>().await;
    }
}
