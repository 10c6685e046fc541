//! One role on this machine: lag read, decided on, and carried out with processes, again and again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use anyhow::bail;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::display::Display;
use super::environment::{self, Places};
use super::fleet;
use super::lag::LagSource;
use super::manifest::Secrets;
use super::worker::{Program, Worker};
use crate::apply;
use crate::clock::Clock;
use crate::decide::{History, Lag, Observation, PodName, Write, decide};
use crate::plan::{PoolPlan, Role, RolePlan};

/// A role whose workers all end at their start, this often in a row, is not tried any longer.
const HOPELESS_AFTER: u32 = 3;

/// How often a person is told whom we wait for.
const SAID_EVERY: Duration = Duration::from_secs(10);

/// What is done now. Later ones count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Phase {
    /// As many workers as the work deserves.
    Scale,
    /// The same, until nothing waits.
    Finish,
    /// What runs is finished, and nothing else is begun.
    Drain,
    /// All processes end at once.
    Abort,
}

/// What all roles share.
pub(super) struct Site {
    pub(super) plan: PoolPlan,
    pub(super) program: Program,
    pub(super) places: Places,
    pub(super) secrets: Secrets,
    /// What every worker is told beyond its pod's environment.
    pub(super) extra: BTreeMap<String, String>,
    pub(super) display: Arc<Display>,
    pub(super) clock: Clock,
}

/// A role, with its workers.
pub(super) struct RolePool {
    site: Arc<Site>,
    role: Role,
    lag: LagSource,
    workers: Vec<Worker>,
    replicas: u32,
    marked: BTreeSet<PodName>,
    history: History,
    started: u32,
    /// Workers in a row that ended by themselves.
    failures: u32,
    /// Whether one ever took tasks.
    worked: bool,
    not_before: Option<Instant>,
}

impl Site {
    /// The environment of a worker in a role.
    pub(super) fn environment(&self, role: Role, name: &PodName) -> anyhow::Result<BTreeMap<String, String>> {
        let variables = apply::variables(&self.plan, self.plan.role(role), None);
        let mut told = environment::of_process(variables, name, &self.places, &self.secrets)?;
        told.extend(self.extra.clone());
        Ok(told)
    }
}

impl RolePool {
    pub(super) fn new(site: Arc<Site>, role: Role, lag: LagSource) -> Self {
        Self {
            site,
            role,
            lag,
            workers: Vec::new(),
            replicas: 0,
            marked: BTreeSet::new(),
            history: History::default(),
            started: 0,
            failures: 0,
            worked: false,
            not_before: None,
        }
    }

    pub(super) fn role(&self) -> Role {
        self.role
    }

    /// Runs until the phase asks for the end. Whatever happens, running tasks are finished first.
    ///
    /// # Errors
    /// When workers cannot be started.
    pub(super) async fn run(mut self, mut phases: watch::Receiver<Phase>) -> anyhow::Result<()> {
        let scaled = self.scale(&mut phases).await;
        self.end(&mut phases).await;
        scaled
    }

    async fn scale(&mut self, phases: &mut watch::Receiver<Phase>) -> anyhow::Result<()> {
        let mut readings = interval(self.plan().poll_interval);
        readings.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let phase = *phases.borrow_and_update();
            if phase >= Phase::Drain {
                return Ok(());
            }
            tokio::select! {
                _ = readings.tick() => {
                    let waiting = self.round().await?;
                    if phase == Phase::Finish && waiting == Some(0) {
                        return Ok(());
                    }
                }
                // Whoever tells the phase is gone only with this process.
                _ = phases.changed() => {}
            }
        }
    }

    fn plan(&self) -> &RolePlan {
        self.site.plan.role(self.role)
    }

    /// Looks, decides and acts once; gives what waits.
    async fn round(&mut self) -> anyhow::Result<Option<u128>> {
        self.look().await?;
        let now = self.site.clock.now();
        let seen: Vec<_> = self.workers.iter().map(Worker::seen).collect();
        let observation = Observation {
            lag: self.lag.read(now).await,
            group: fleet::group(&seen, now),
            workload: fleet::workload(&seen, self.replicas, &self.marked),
            conflict: None,
            held: None,
        };
        let policy = self.plan().policy;
        let history = std::mem::take(&mut self.history);
        let decision = decide(&policy, &observation, history, now);
        self.history = decision.history;
        for write in decision.plan {
            self.carry_out(&write);
            self.history.executed(&write, now);
        }
        self.start_and_drain()?;
        self.site.display.role(self.role, &decision.explanation);
        Ok(match &observation.lag.lag {
            Lag::Known(work) => Some(work.messages()),
            Lag::Partial { .. } | Lag::Unknown { .. } => None,
        })
    }

    /// Looks at every worker; those that ended are taken off.
    async fn look(&mut self) -> anyhow::Result<()> {
        let mut left = Vec::with_capacity(self.workers.len());
        for mut worker in std::mem::take(&mut self.workers) {
            let Some(status) = worker.look().await else {
                if matches!(worker.seen().doing, fleet::Doing::Idle | fleet::Doing::Busy) {
                    self.worked = true;
                    self.failures = 0;
                }
                left.push(worker);
                continue;
            };
            self.marked.remove(&worker.name);
            if worker.seen().doing == fleet::Doing::Draining && status.success() {
                continue;
            }
            self.failures += 1;
            let wait = fleet::back_off(self.failures);
            self.not_before = Some(Instant::now() + wait);
            let words = format!("{} ended ({status}): {}", worker.name, worker.last_words());
            if !self.worked && self.failures >= HOPELESS_AFTER {
                bail!("no {} stays: {words}", self.role);
            }
            self.site
                .display
                .say(&format!("{words}; another one in {} s", wait.as_secs()));
        }
        self.workers = left;
        Ok(())
    }

    fn carry_out(&mut self, write: &Write) {
        match write {
            Write::Annotate(names) => self.marked.extend(names.iter().cloned()),
            Write::Unannotate(names) => self.marked.retain(|name| !names.contains(name)),
            Write::SetReplicas(replicas) => self.replicas = *replicas,
        }
    }

    /// Starts what is missing, and drains what is beyond the replicas.
    fn start_and_drain(&mut self) -> anyhow::Result<()> {
        let seen: Vec<_> = self.workers.iter().map(Worker::seen).collect();
        let leaving = fleet::leaving(&seen, self.replicas, &self.marked);
        for worker in &mut self.workers {
            if leaving.contains(&worker.name) {
                worker.drain();
            }
        }
        if self.not_before.is_some_and(|at| Instant::now() < at) {
            return Ok(());
        }
        let standing = seen
            .iter()
            .filter(|worker| worker.doing != fleet::Doing::Draining);
        let standing = u32::try_from(standing.count()).unwrap_or(u32::MAX);
        for _ in standing..self.replicas {
            self.start()?;
        }
        Ok(())
    }

    fn start(&mut self) -> anyhow::Result<()> {
        self.started += 1;
        let name = format!(
            "{}-{}",
            apply::deployment_name(&self.site.plan.id, self.role),
            self.started
        );
        let name = PodName::from(name.as_str());
        let environment = self.site.environment(self.role, &name)?;
        let worker = self
            .site
            .program
            .start(self.role.name(), name, &environment, &self.site.places.logs)?;
        self.workers.push(worker);
        Ok(())
    }

    /// Lets every worker finish what it has; on [`Phase::Abort`] not even that.
    async fn end(&mut self, phases: &mut watch::Receiver<Phase>) {
        for worker in &mut self.workers {
            worker.drain();
        }
        let mut told = Instant::now();
        for worker in &mut self.workers {
            loop {
                tokio::select! {
                    () = worker.ended() => break,
                    () = reached(phases, Phase::Abort) => {
                        worker.abort().await;
                        break;
                    }
                    () = tokio::time::sleep_until(told + SAID_EVERY) => {
                        told = Instant::now();
                        self.site.display.say(&format!("waiting for {} to finish its task", worker.name));
                    }
                }
            }
        }
        self.workers.clear();
    }
}

/// Waits for something to be asked for; for ever, where whoever could ask is gone.
pub(super) async fn reached<T: PartialOrd>(asked: &mut watch::Receiver<T>, what: T) {
    if asked.wait_for(|asked| *asked >= what).await.is_err() {
        std::future::pending::<()>().await;
    }
}
