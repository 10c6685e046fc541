//! The model of a cluster: pods that start, join, work and drain, and partitions that are assigned to them.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use separation_operator::decide::{
    CostAnnotation, GroupReading, Lag, LagByPartition, LagReading, Member, MemberWork, Moment, Observation,
    Pod, PodName, PodState, Workload, Write,
};

use super::scenario::Scenario;
use super::trace::Arrival;

/// The state of the simulated pool.
pub(super) struct SimulatedPool<'a> {
    scenario: &'a Scenario,
    arrivals_taken: usize,
    partitions: Vec<Partition>,
    workers: BTreeMap<u64, SimulatedWorker>,
    replicas: u32,
    next_worker: u64,
    next_partition: usize,
    rebalancing_until: Option<Moment>,
    now: Moment,
    /// Waiting times of started tasks, in milliseconds.
    pub(super) waiting_ms: Vec<u64>,
    /// Total lifetime of deleted pods.
    pub(super) pod_time: Duration,
    /// Total time of started tasks.
    pub(super) task_time: Duration,
}

#[derive(Default)]
struct Partition {
    queue: VecDeque<Arrival>,
    running: bool,
    owner: Option<u64>,
}

struct SimulatedWorker {
    name: PodName,
    since: Moment,
    phase: WorkerPhase,
    stop: StopState,
    cost_annotation: CostAnnotation,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum WorkerPhase {
    Starting { until: Moment },
    Idle,
    Working { partition: usize, until: Moment },
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum StopState {
    Running,
    Draining,
}

impl<'a> SimulatedPool<'a> {
    pub(super) fn new(scenario: &'a Scenario) -> Self {
        Self {
            scenario,
            arrivals_taken: 0,
            partitions: (0..scenario.partitions).map(|_| Partition::default()).collect(),
            workers: BTreeMap::new(),
            replicas: 0,
            next_worker: 0,
            next_partition: 0,
            rebalancing_until: None,
            now: Moment::default(),
            waiting_ms: Vec::new(),
            pod_time: Duration::ZERO,
            task_time: Duration::ZERO,
        }
    }

    /// Processes all events until `now`, in order.
    pub(super) fn advance(&mut self, now: Moment) {
        while let Some(next) = self.next_event().filter(|next| *next <= now) {
            self.now = self.now.max(next);
            self.process_events();
        }
        self.now = now;
    }

    pub(super) fn observe(&self, now: Moment) -> Observation {
        let unreachable = self
            .scenario
            .trace
            .outages
            .iter()
            .any(|(from, until)| (*from..*until).contains(&now));
        let lag = if unreachable {
            Lag::Unknown {
                why: "Kafka is unreachable".into(),
            }
        } else {
            let messages =
                |partition: &Partition| partition.queue.len() as u64 + u64::from(partition.running);
            Lag::Known(LagByPartition::from_messages(
                self.partitions.iter().map(messages),
            ))
        };
        let group = if unreachable {
            GroupReading::Unknown {
                at: now,
                why: "Kafka is unreachable".into(),
            }
        } else if self.rebalancing_until.is_some() {
            GroupReading::Rebalancing { at: now }
        } else {
            GroupReading::Stable {
                at: now,
                members: self
                    .workers
                    .iter()
                    .filter_map(|(id, worker)| self.member(*id, worker))
                    .collect(),
            }
        };
        Observation {
            lag: LagReading { at: now, lag },
            group,
            workload: self.workload(),
            conflict: None,
            refusal: None,
        }
    }

    fn workload(&self) -> Workload {
        Workload {
            replicas: self.replicas,
            pods: self.workers.values().map(SimulatedWorker::pod).collect(),
            status: None,
        }
    }

    pub(super) fn apply(&mut self, write: &Write, now: Moment) {
        match write {
            Write::Annotate(names) => self.annotate(names, CostAnnotation::Present),
            Write::Unannotate(names) => self.annotate(names, CostAnnotation::Absent),
            Write::SetReplicas(replicas) => self.set_replicas(*replicas, now),
        }
    }

    fn annotate(&mut self, names: &[PodName], cost_annotation: CostAnnotation) {
        let named = self
            .workers
            .values_mut()
            .filter(|worker| names.contains(&worker.name));
        named.for_each(|worker| worker.cost_annotation = cost_annotation);
    }

    fn set_replicas(&mut self, replicas: u32, now: Moment) {
        self.replicas = replicas;
        let running_workers = self
            .workers
            .values()
            .filter(|worker| worker.stop == StopState::Running)
            .count();
        let replicas = usize::try_from(replicas).unwrap_or(usize::MAX);
        for _ in running_workers..replicas {
            self.start(now);
        }
        let surplus = self.workload().surplus_pods();
        for worker in self.workers.values_mut() {
            if surplus.contains(&worker.name) {
                worker.stop = StopState::Draining;
            }
        }
        self.process_events();
    }

    /// Whether no task is due, queued or running, and no worker is draining.
    pub(super) fn finished(&self, now: Moment) -> bool {
        let idle = |partition: &Partition| partition.queue.is_empty() && !partition.running;
        let draining = self
            .workers
            .values()
            .any(|worker| worker.stop == StopState::Draining);
        self.arrivals_taken == self.scenario.trace.arrivals.len()
            && now >= self.scenario.trace.end()
            && self.partitions.iter().all(idle)
            && !draining
    }

    /// Total lifetime of all pods until `now`.
    pub(super) fn pod_time_until(&self, now: Moment) -> Duration {
        let living: Duration = self.workers.values().map(|worker| now.since(worker.since)).sum();
        self.pod_time + living
    }

    /// Tasks that no worker has started.
    pub(super) fn unstarted(&self) -> u64 {
        self.partitions
            .iter()
            .map(|partition| partition.queue.len() as u64)
            .sum()
    }

    fn next_event(&self) -> Option<Moment> {
        let arrival = self
            .scenario
            .trace
            .arrivals
            .get(self.arrivals_taken)
            .map(|arrival| arrival.at);
        let workers = self.workers.values().filter_map(|worker| match worker.phase {
            WorkerPhase::Starting { until } | WorkerPhase::Working { until, .. } => Some(until),
            WorkerPhase::Idle => None,
        });
        workers.chain(arrival).chain(self.rebalancing_until).min()
    }

    /// Processes the events at `self.now`.
    fn process_events(&mut self) {
        self.arrive();
        self.finish_tasks();
        self.join();
        self.leave();
        if self.rebalancing_until.is_some_and(|until| until <= self.now) {
            self.rebalancing_until = None;
            self.assign_partitions();
        }
        self.start_tasks();
    }

    fn arrive(&mut self) {
        while let Some(arrival) = self
            .scenario
            .trace
            .arrivals
            .get(self.arrivals_taken)
            .filter(|next| next.at <= self.now)
        {
            // Message keys are random, so partitions fill evenly.
            self.partitions[self.next_partition].queue.push_back(*arrival);
            self.next_partition = (self.next_partition + 1) % self.partitions.len();
            self.arrivals_taken += 1;
        }
    }

    fn finish_tasks(&mut self) {
        for worker in self.workers.values_mut() {
            if let WorkerPhase::Working { partition, until } = worker.phase
                && until <= self.now
            {
                self.partitions[partition].running = false;
                worker.phase = WorkerPhase::Idle;
            }
        }
    }

    fn join(&mut self) {
        let mut has_joined = false;
        for worker in self.workers.values_mut() {
            if matches!(worker.phase, WorkerPhase::Starting { until } if until <= self.now) {
                worker.phase = WorkerPhase::Idle;
                has_joined = true;
            }
        }
        if has_joined {
            self.rebalance();
        }
    }

    /// Removes workers that were asked to stop and have no task.
    fn leave(&mut self) {
        let is_finished = |worker: &SimulatedWorker| {
            worker.stop == StopState::Draining && !matches!(worker.phase, WorkerPhase::Working { .. })
        };
        let finished_workers: Vec<u64> = self
            .workers
            .iter()
            .filter(|(_, worker)| is_finished(worker))
            .map(|(id, _)| *id)
            .collect();
        for id in &finished_workers {
            if let Some(worker) = self.workers.remove(id) {
                self.pod_time += self.now.since(worker.since);
            }
            let owned = self
                .partitions
                .iter_mut()
                .filter(|partition| partition.owner == Some(*id));
            owned.for_each(|partition| partition.owner = None);
        }
        if !finished_workers.is_empty() {
            self.rebalance();
        }
    }

    fn rebalance(&mut self) {
        self.rebalancing_until = Some(self.now + self.scenario.rebalance);
    }

    /// Assigns partitions: members keep theirs up to an even share; the rest is assigned to the members with the
    /// fewest.
    fn assign_partitions(&mut self) {
        let has_joined = |worker: &SimulatedWorker| {
            worker.stop == StopState::Running && !matches!(worker.phase, WorkerPhase::Starting { .. })
        };
        let mut shares: BTreeMap<u64, usize> = self
            .workers
            .iter()
            .filter(|(_, worker)| has_joined(worker))
            .map(|(id, _)| (*id, 0))
            .collect();
        if shares.is_empty() {
            return;
        }
        let even_share = self.partitions.len().div_ceil(shares.len());
        // Partitions with a running task keep their owner; a first pass counts them in their owners' shares.
        for running_first in [true, false] {
            for partition in self
                .partitions
                .iter_mut()
                .filter(|partition| partition.running == running_first)
            {
                let share = partition.owner.and_then(|owner| shares.get_mut(&owner));
                match share {
                    Some(share) if running_first || *share < even_share => *share += 1,
                    _ if running_first => {}
                    _ => partition.owner = None,
                }
            }
        }
        for partition in self
            .partitions
            .iter_mut()
            .filter(|partition| partition.owner.is_none())
        {
            let smallest = shares.iter_mut().min_by_key(|(id, share)| (**share, **id));
            if let Some((id, share)) = smallest {
                partition.owner = Some(*id);
                *share += 1;
            }
        }
    }

    /// Each idle worker takes the oldest task of its partitions.
    fn start_tasks(&mut self) {
        for (id, worker) in &mut self.workers {
            if worker.phase != WorkerPhase::Idle || worker.stop == StopState::Draining {
                continue;
            }
            let owned = self
                .partitions
                .iter()
                .enumerate()
                .filter(|(_, partition)| partition.owner == Some(*id));
            let oldest = owned
                .filter_map(|(number, partition)| Some((partition.queue.front()?.at, number)))
                .min();
            let Some((_, number)) = oldest else { continue };
            let partition = &mut self.partitions[number];
            if let (false, Some(task)) = (partition.running, partition.queue.pop_front()) {
                partition.running = true;
                self.waiting_ms.push(self.now.as_millis() - task.at.as_millis());
                self.task_time += task.task;
                worker.phase = WorkerPhase::Working {
                    partition: number,
                    until: self.now + task.task,
                };
            }
        }
    }

    fn start(&mut self, now: Moment) {
        let id = self.next_worker;
        self.next_worker += 1;
        let worker = SimulatedWorker {
            name: format!("worker-{id}").as_str().into(),
            since: now,
            phase: WorkerPhase::Starting {
                until: now + self.scenario.start_up,
            },
            stop: StopState::Running,
            cost_annotation: CostAnnotation::Absent,
        };
        self.workers.insert(id, worker);
    }

    fn member(&self, id: u64, worker: &SimulatedWorker) -> Option<Member> {
        if matches!(worker.phase, WorkerPhase::Starting { .. }) {
            return None;
        }
        let owned = self
            .partitions
            .iter()
            .zip(0..)
            .filter(|(partition, _)| partition.owner == Some(id));
        Some(Member {
            pod: worker.name.clone(),
            work: MemberWork::Partitions(owned.map(|(_, number)| number).collect()),
        })
    }
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
        }
    }
}
