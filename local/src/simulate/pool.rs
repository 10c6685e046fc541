//! The model of a cluster: pods that start, join, work and drain, and the messages of their partitions.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use separation_operator::decide::{
    CostAnnotation, Estimates, GroupReading, Lag, LagByPartition, LagReading, LearnedTimes, Member,
    MemberWork, Moment, Observation, PartitionQueue, Pod, PodName, PodState, Queue, RunningTask, Workload,
    Write,
};

use super::group::{Group, WorkerId};
use super::outcome::Outcome;
use super::random::Rng;
use super::scenario::{EstimateSource, Placement, Scenario};
use super::trace::Arrival;

/// The state of the simulated pool.
pub(super) struct SimulatedPool<'a> {
    scenario: &'a Scenario,
    arrivals_taken: usize,
    partitions: Vec<Partition>,
    group: Group,
    workers: BTreeMap<WorkerId, SimulatedWorker>,
    replicas: u32,
    next_worker: WorkerId,
    queued: u64,
    running: u64,
    /// Number of messages that were placed: equal candidates take turns.
    turn: usize,
    hashes: Rng,
    start_ups: Rng,
    learned: LearnedTimes,
    now: Moment,
    outcome: Outcome,
}

#[derive(Default)]
struct Partition {
    /// Indexes in the trace.
    queue: VecDeque<usize>,
    running: Option<Work>,
}

struct SimulatedWorker {
    name: PodName,
    since: Moment,
    phase: WorkerPhase,
    stop: StopState,
    cost_annotation: CostAnnotation,
    /// Whether its start-up was observed.
    has_started: bool,
    /// The partition that precedes the others with equally old messages; it rotates, so that no partition starves.
    first: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum WorkerPhase {
    Starting { until: Moment },
    Idle,
    Working(Work),
}

/// A task that a worker runs.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Work {
    /// Its index in the trace.
    task: usize,
    partition: usize,
    since: Moment,
    until: Moment,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum StopState {
    Running,
    Draining,
}

impl<'a> SimulatedPool<'a> {
    pub(super) fn new(scenario: &'a Scenario) -> Self {
        // Start-up times and hashes do not depend on each other: every policy meets the same ones.
        let mut seeds = Rng::new(scenario.seed);
        let mut seed = || Rng::new(seeds.index(usize::MAX) as u64);
        Self {
            scenario,
            arrivals_taken: 0,
            partitions: (0..scenario.partitions).map(|_| Partition::default()).collect(),
            group: Group::new(scenario.partitions, scenario.rebalance),
            workers: BTreeMap::new(),
            replicas: 0,
            next_worker: 0,
            queued: 0,
            running: 0,
            turn: 0,
            hashes: seed(),
            start_ups: seed(),
            learned: LearnedTimes::default(),
            now: Moment::default(),
            outcome: Outcome::new(&scenario.trace),
        }
    }

    /// Processes all events until `now`, in order; returns whether there was one.
    pub(super) fn advance(&mut self, now: Moment) -> bool {
        let mut has_changed = false;
        while let Some(next) = self.next_event().filter(|next| *next <= now) {
            self.now = self.now.max(next);
            self.process_events();
            has_changed = true;
        }
        self.now = now;
        has_changed
    }

    /// When the pool changes next, if its replicas stay.
    pub(super) fn next_event(&self) -> Option<Moment> {
        let trace = &self.scenario.trace;
        let arrival = trace.arrivals.get(self.arrivals_taken).map(|arrival| arrival.at);
        let workers = self.workers.values().filter_map(|worker| match worker.phase {
            WorkerPhase::Starting { until } | WorkerPhase::Working(Work { until, .. }) => Some(until),
            WorkerPhase::Idle => None,
        });
        let outages = trace.outages.iter().flat_map(|(from, until)| [*from, *until]);
        workers
            .chain(arrival)
            .chain(self.group.next_event())
            .chain(outages.filter(|at| *at > self.now))
            .min()
    }

    /// Whether no task is due, queued or running, and no worker is draining.
    pub(super) fn finished(&self, now: Moment) -> bool {
        let is_draining = |worker: &SimulatedWorker| worker.stop == StopState::Draining;
        self.arrivals_taken == self.scenario.trace.arrivals.len()
            && now >= self.scenario.trace.end()
            && self.lag() == 0
            && !self.workers.values().any(is_draining)
    }

    /// Messages that no worker has started.
    pub(super) fn queued(&self) -> u64 {
        self.queued
    }

    /// Messages that are not committed.
    pub(super) fn lag(&self) -> u64 {
        self.queued + self.running
    }

    pub(super) fn replicas(&self) -> u32 {
        self.replicas
    }

    /// Whether Kafka cannot be read.
    pub(super) fn is_unreachable(&self, now: Moment) -> bool {
        let outages = &self.scenario.trace.outages;
        outages.iter().any(|(from, until)| (*from..*until).contains(&now))
    }

    /// The result, if the simulation ends now.
    pub(super) fn finish(mut self, now: Moment) -> Outcome {
        let living: Duration = self.workers.values().map(|worker| now.since(worker.since)).sum();
        self.outcome.pod_time += living;
        self.outcome
    }

    /// Processes the events at `self.now`.
    fn process_events(&mut self) {
        self.finish_tasks();
        self.leave();
        self.join();
        self.end_rebalances();
        self.arrive();
        self.start_tasks();
        let (lag, pods) = (self.lag(), self.workers.len() as u64);
        self.outcome.timeline.set(self.now, lag, pods);
    }

    fn finish_tasks(&mut self) {
        for (id, worker) in &mut self.workers {
            if let WorkerPhase::Working(work) = worker.phase
                && work.until <= self.now
            {
                self.partitions[work.partition].running = None;
                worker.phase = WorkerPhase::Idle;
                self.running -= 1;
                self.outcome.completed += 1;
                self.learned.task_finished(self.now.since(work.since));
                self.group.task_ended(*id, self.now);
            }
        }
    }

    /// Removes workers that were asked to stop and have no task.
    fn leave(&mut self) {
        let has_finished = |worker: &SimulatedWorker| {
            worker.stop == StopState::Draining && !matches!(worker.phase, WorkerPhase::Working(_))
        };
        let finished = self.workers.iter().filter(|(_, worker)| has_finished(worker));
        let finished: Vec<WorkerId> = finished.map(|(id, _)| *id).collect();
        for id in finished {
            self.remove(id);
        }
    }

    /// Removes a pod; a task that it runs is queued again.
    fn remove(&mut self, id: WorkerId) {
        let Some(worker) = self.workers.remove(&id) else {
            return;
        };
        self.outcome.pod_time += self.now.since(worker.since);
        if let WorkerPhase::Working(work) = worker.phase {
            self.outcome.lost += self.now.since(work.since);
            let partition = &mut self.partitions[work.partition];
            partition.running = None;
            partition.queue.push_front(work.task);
            self.running -= 1;
            self.queued += 1;
        }
        self.group.leave(id, self.now);
    }

    fn join(&mut self) {
        for (id, worker) in &mut self.workers {
            if matches!(worker.phase, WorkerPhase::Starting { until } if until <= self.now) {
                worker.phase = WorkerPhase::Idle;
                self.group.join(*id, self.now);
            }
        }
    }

    fn end_rebalances(&mut self) {
        let workers = &self.workers;
        let running = |id: WorkerId| match workers.get(&id).map(|worker| worker.phase) {
            Some(WorkerPhase::Working(work)) => Some(work.partition),
            _ => None,
        };
        self.group.advance(self.now, running);
        if self.group.is_rebalancing() {
            return;
        }
        // As the operator observes it: a pod has started once it is a member of a stable group.
        for worker in self.workers.values_mut() {
            if !worker.has_started && !matches!(worker.phase, WorkerPhase::Starting { .. }) {
                worker.has_started = true;
                self.learned.worker_started(self.now.since(worker.since));
            }
        }
    }

    fn arrive(&mut self) {
        let arrivals = &self.scenario.trace.arrivals;
        while let Some(Arrival { at, .. }) = arrivals.get(self.arrivals_taken)
            && *at <= self.now
        {
            let partition = match self.scenario.placement {
                Placement::Placed => self.place(),
                Placement::Hashed => self.hashes.index(self.partitions.len()),
            };
            self.partitions[partition].queue.push_back(self.arrivals_taken);
            self.arrivals_taken += 1;
            self.queued += 1;
        }
    }

    /// The partition that the API chooses: one of an idle member, else of the one that is expected to begin the message
    /// first, else the emptiest. Unlike here, its reading is up to a second old.
    fn place(&mut self) -> usize {
        self.turn = self.turn.wrapping_add(1);
        let median = self.estimates().task;
        let members = self.group.members();
        let assigned = members.map(|id| self.group.assigned(id).collect::<Vec<usize>>());
        let members: Vec<Vec<usize>> = assigned.filter(|partitions| !partitions.is_empty()).collect();
        let best = members.iter().enumerate().min_by_key(|(index, partitions)| {
            let messages: u64 = partitions.iter().map(|partition| self.messages(*partition)).sum();
            let waits = partitions.iter().map(|partition| self.wait(*partition, median));
            let wait = waits.fold(Duration::ZERO, Duration::saturating_add);
            (messages > 0, wait, self.turns_until(*index, members.len()))
        });
        match best {
            Some((_, partitions)) => self.emptiest(partitions.iter().copied()),
            None => self.emptiest(0..self.partitions.len()),
        }
    }

    fn emptiest(&self, partitions: impl ExactSizeIterator<Item = usize>) -> usize {
        let count = partitions.len();
        let fewest = partitions
            .enumerate()
            .min_by_key(|(index, partition)| (self.messages(*partition), self.turns_until(*index, count)));
        fewest.map_or(0, |(_, partition)| partition)
    }

    fn messages(&self, partition: usize) -> u64 {
        let partition = &self.partitions[partition];
        partition.queue.len() as u64 + u64::from(partition.running.is_some())
    }

    /// Expected time of a partition's messages. A task that already takes longer than the median is expected to take as
    /// long again.
    fn wait(&self, partition: usize, median: Duration) -> Duration {
        let Partition { queue, running } = &self.partitions[partition];
        let rest = running.map_or(Duration::ZERO, |work| {
            let elapsed = self.now.since(work.since);
            median.saturating_sub(elapsed).max(elapsed)
        });
        rest + median * u32::try_from(queue.len()).unwrap_or(u32::MAX)
    }

    /// Number of turns until that of one of `count` candidates.
    fn turns_until(&self, index: usize, count: usize) -> usize {
        (index + count - self.turn % count) % count
    }

    /// Each idle worker takes the oldest of the first messages of its partitions, and equally old ones in turn.
    fn start_tasks(&mut self) {
        if self.queued == 0 {
            return;
        }
        for (id, worker) in &mut self.workers {
            if worker.phase != WorkerPhase::Idle || worker.stop == StopState::Draining {
                continue;
            }
            let held = self.group.held(*id);
            let (before, from) = held.split_at(held.partition_point(|partition| *partition < worker.first));
            let in_turn = from.iter().chain(before).copied();
            let firsts = in_turn.filter_map(|number| Some((*self.partitions[number].queue.front()?, number)));
            let oldest = firsts.min_by_key(|(task, _)| self.scenario.trace.arrivals[*task].at);
            let Some((_, number)) = oldest else {
                continue;
            };
            let partition = &mut self.partitions[number];
            let Some(task) = partition.queue.pop_front() else {
                continue;
            };
            let arrival = self.scenario.trace.arrivals[task];
            let work = Work {
                task,
                partition: number,
                since: self.now,
                until: self.now + arrival.task,
            };
            partition.running = Some(work);
            worker.phase = WorkerPhase::Working(work);
            worker.first = number + 1;
            self.queued -= 1;
            self.running += 1;
            self.outcome.begun(task, arrival.at, self.now);
        }
    }

    fn start(&mut self) {
        let id = self.next_worker;
        self.next_worker += 1;
        self.outcome.starts += 1;
        let factor = self.start_ups.log_normal(self.scenario.start_up_spread);
        let worker = SimulatedWorker {
            name: format!("worker-{id}").as_str().into(),
            since: self.now,
            phase: WorkerPhase::Starting {
                until: self.now + self.scenario.start_up.mul_f64(factor),
            },
            stop: StopState::Running,
            cost_annotation: CostAnnotation::Absent,
            has_started: false,
            first: 0,
        };
        self.workers.insert(id, worker);
    }

    fn estimates(&self) -> Estimates {
        match self.scenario.estimates {
            EstimateSource::Given(estimates) => estimates,
            EstimateSource::Learned => self.learned.estimates(self.scenario.role.declared),
        }
    }
}

/// As the operator and Kubernetes see and change the pool.
impl SimulatedPool<'_> {
    pub(super) fn observe(&self, now: Moment) -> Observation {
        let is_unreachable = self.is_unreachable(now);
        let lag = if is_unreachable {
            Lag::Unknown {
                why: "Kafka is unreachable".into(),
            }
        } else {
            let partitions = 0..self.partitions.len();
            Lag::Known(LagByPartition::from_messages(
                partitions.map(|partition| self.messages(partition)),
            ))
        };
        let group = if is_unreachable {
            GroupReading::Unknown {
                at: now,
                why: "Kafka is unreachable".into(),
            }
        } else if self.group.is_rebalancing() {
            GroupReading::Rebalancing { at: now }
        } else {
            GroupReading::Stable {
                at: now,
                members: self.group.members().filter_map(|id| self.member(id)).collect(),
            }
        };
        Observation {
            lag: LagReading { at: now, lag },
            group,
            workload: self.workload(),
            conflict: None,
            refusal: None,
            estimates: self.estimates(),
            queue: (!is_unreachable).then(|| self.queue()),
        }
    }

    pub(super) fn apply(&mut self, write: &Write) {
        match write {
            Write::Annotate(names) => self.annotate(names, CostAnnotation::Present),
            Write::Unannotate(names) => self.annotate(names, CostAnnotation::Absent),
            Write::SetReplicas(replicas) => self.set_replicas(*replicas),
        }
    }

    /// Sets replicas. Surplus pods finish their task and leave, in the order in which Kubernetes deletes them.
    fn set_replicas(&mut self, replicas: u32) {
        self.start_missing(replicas);
        let surplus = self.workload().surplus_pods();
        for worker in self.workers.values_mut() {
            if surplus.contains(&worker.name) {
                worker.stop = StopState::Draining;
            }
        }
        self.process_events();
    }

    /// Sets replicas for a controller that does not choose the pods that are deleted: those that are not ready, the
    /// newest first, then any; their tasks are lost.
    pub(super) fn set_replicas_without_choice(&mut self, replicas: u32, rng: &mut Rng) {
        self.start_missing(replicas);
        let remaining = usize::try_from(replicas).unwrap_or(usize::MAX);
        while self.workers.len() > remaining {
            let is_starting = |worker: &SimulatedWorker| matches!(worker.phase, WorkerPhase::Starting { .. });
            let starting = self.workers.iter().rfind(|(_, worker)| is_starting(worker));
            let any = || self.workers.keys().nth(rng.index(self.workers.len()));
            let Some(victim) = starting.map(|(id, _)| id).or_else(any).copied() else {
                break;
            };
            self.remove(victim);
        }
        self.process_events();
    }

    fn start_missing(&mut self, replicas: u32) {
        self.replicas = replicas;
        let workers = self.workers.values();
        let live = workers.filter(|worker| worker.stop == StopState::Running).count();
        for _ in live..usize::try_from(replicas).unwrap_or(usize::MAX) {
            self.start();
        }
    }

    fn annotate(&mut self, names: &[PodName], cost_annotation: CostAnnotation) {
        let workers = self.workers.values_mut();
        let named = workers.filter(|worker| names.contains(&worker.name));
        named.for_each(|worker| worker.cost_annotation = cost_annotation);
    }

    fn workload(&self) -> Workload {
        Workload {
            replicas: self.replicas,
            pods: self.workers.values().map(SimulatedWorker::pod).collect(),
            status: None,
        }
    }

    fn member(&self, id: WorkerId) -> Option<Member> {
        let held = self.group.held(id).iter().copied();
        Some(Member {
            pod: self.workers.get(&id)?.name.clone(),
            work: MemberWork::Partitions(held.map(partition_number).collect()),
        })
    }

    fn queue(&self) -> Queue {
        let partitions = self.partitions.iter().enumerate();
        let with_messages = partitions.filter(|(number, _)| self.messages(*number) > 0);
        Queue {
            partitions: with_messages
                .map(|(number, partition)| PartitionQueue {
                    partition: partition_number(number),
                    arrivals: self.arrivals(partition),
                    running: partition.running.map(|work| RunningTask {
                        since: work.since,
                        percent: None,
                    }),
                })
                .collect(),
        }
    }

    /// The operator notices a message at its first reading after it.
    fn arrivals(&self, partition: &Partition) -> Vec<(Moment, u64)> {
        let period = self.scenario.lag_check_ms();
        let running = partition.running.map(|work| work.task);
        let mut arrivals: Vec<(Moment, u64)> = Vec::new();
        for task in running.iter().chain(&partition.queue) {
            let at = self.scenario.trace.arrivals[*task].at.as_millis();
            let read_at = Moment::from_millis(at.div_ceil(period).saturating_mul(period));
            match arrivals.last_mut() {
                Some((last, count)) if *last == read_at => *count += 1,
                _ => arrivals.push((read_at, 1)),
            }
        }
        arrivals
    }
}

/// A topic has at most 10,000 partitions here.
fn partition_number(index: usize) -> i32 {
    i32::try_from(index).unwrap_or(i32::MAX)
}

impl SimulatedWorker {
    fn pod(&self) -> Pod {
        Pod {
            name: self.name.clone(),
            state: match (self.stop, self.phase) {
                (StopState::Draining, _) => PodState::Draining,
                (StopState::Running, WorkerPhase::Starting { .. }) => PodState::NotReady,
                (StopState::Running, _) => PodState::Ready,
            },
            cost_annotation: self.cost_annotation,
            replica_set: "simulated".into(),
            created: Some(self.since),
        }
    }
}
