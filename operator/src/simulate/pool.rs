//! The model of a cluster: pods that start, join, work and drain; partitions that are shared out among them.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::Scenario;
use super::trace::Arrival;
use crate::decide::{
    GroupReading, Holds, Lag, LagReading, Marked, Member, Moment, Observation, Pod, PodName, PodState, Work,
    Workload, Write,
};

/// A pool at a moment.
pub(super) struct Pool<'a> {
    scenario: &'a Scenario,
    arrived: usize,
    partitions: Vec<Partition>,
    workers: BTreeMap<u64, Worker>,
    replicas: u32,
    next_worker: u64,
    next_partition: usize,
    rebalancing_until: Option<Moment>,
    now: Moment,
    /// What is over: waiting times of tasks that were started, in milliseconds.
    pub(super) waited: Vec<u64>,
    /// Time that pods have lived, and time that they have worked.
    pub(super) lived: Duration,
    pub(super) worked: Duration,
}

#[derive(Default)]
struct Partition {
    waiting: VecDeque<Arrival>,
    running: bool,
    owner: Option<u64>,
}

struct Worker {
    name: PodName,
    since: Moment,
    phase: Phase,
    stop: Stop,
    marked: Marked,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Starting { until: Moment },
    Waiting,
    Working { partition: usize, until: Moment },
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stop {
    NotAsked,
    Asked,
}

impl<'a> Pool<'a> {
    pub(super) fn new(scenario: &'a Scenario) -> Self {
        Self {
            scenario,
            arrived: 0,
            partitions: (0..scenario.partitions).map(|_| Partition::default()).collect(),
            workers: BTreeMap::new(),
            replicas: 0,
            next_worker: 0,
            next_partition: 0,
            rebalancing_until: None,
            now: Moment::default(),
            waited: Vec::new(),
            lived: Duration::ZERO,
            worked: Duration::ZERO,
        }
    }

    /// Lets everything happen that happens until `now`, in order.
    pub(super) fn advance(&mut self, now: Moment) {
        while let Some(next) = self.next_event().filter(|next| *next <= now) {
            self.now = self.now.max(next);
            self.happen();
        }
        self.now = now;
    }

    pub(super) fn observe(&self, now: Moment) -> Observation {
        let away = self
            .scenario
            .trace
            .outages
            .iter()
            .any(|(from, until)| (*from..*until).contains(&now));
        let lag = if away {
            Lag::Unknown {
                why: "Kafka is away".into(),
            }
        } else {
            let messages =
                |partition: &Partition| partition.waiting.len() as u64 + u64::from(partition.running);
            Lag::Known(Work::of(self.partitions.iter().map(messages)))
        };
        let group = if away {
            GroupReading::Unknown {
                at: now,
                why: "Kafka is away".into(),
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
            workload: Workload {
                replicas: self.replicas,
                pods: self.workers.values().map(Worker::pod).collect(),
                status: None,
            },
            conflict: None,
            held: None,
        }
    }

    pub(super) fn carry_out(&mut self, write: &Write, now: Moment) {
        match write {
            Write::Annotate(names) => self.annotate(names, Marked::Yes),
            Write::Unannotate(names) => self.annotate(names, Marked::No),
            Write::SetReplicas(replicas) => self.set_replicas(*replicas, now),
        }
    }

    fn annotate(&mut self, names: &[PodName], marked: Marked) {
        let named = self
            .workers
            .values_mut()
            .filter(|worker| names.contains(&worker.name));
        named.for_each(|worker| worker.marked = marked);
    }

    fn set_replicas(&mut self, replicas: u32, now: Moment) {
        self.replicas = replicas;
        let standing = self
            .workers
            .values()
            .filter(|worker| worker.stop == Stop::NotAsked)
            .count();
        let replicas = usize::try_from(replicas).unwrap_or(usize::MAX);
        for _ in standing..replicas {
            self.start(now);
        }
        self.stop(standing.saturating_sub(replicas));
        self.happen();
    }

    /// Nothing is left to come, to do, or to drain.
    pub(super) fn finished(&self, now: Moment) -> bool {
        let idle = |partition: &Partition| partition.waiting.is_empty() && !partition.running;
        let draining = self.workers.values().any(|worker| worker.stop == Stop::Asked);
        self.arrived == self.scenario.trace.arrivals.len()
            && now >= self.scenario.trace.end()
            && self.partitions.iter().all(idle)
            && !draining
    }

    /// Adds the time of pods that still live.
    pub(super) fn lived_until(&self, now: Moment) -> Duration {
        let living: Duration = self.workers.values().map(|worker| now.since(worker.since)).sum();
        self.lived + living
    }

    /// Tasks that nobody has started.
    pub(super) fn unstarted(&self) -> u64 {
        self.partitions
            .iter()
            .map(|partition| partition.waiting.len() as u64)
            .sum()
    }

    fn next_event(&self) -> Option<Moment> {
        let arrival = self
            .scenario
            .trace
            .arrivals
            .get(self.arrived)
            .map(|arrival| arrival.at);
        let workers = self.workers.values().filter_map(|worker| match worker.phase {
            Phase::Starting { until } | Phase::Working { until, .. } => Some(until),
            Phase::Waiting => None,
        });
        workers.chain(arrival).chain(self.rebalancing_until).min()
    }

    /// All that happens at `self.now`.
    fn happen(&mut self) {
        self.arrive();
        self.finish_tasks();
        self.join();
        self.leave();
        if self.rebalancing_until.is_some_and(|until| until <= self.now) {
            self.rebalancing_until = None;
            self.share_out();
        }
        self.take_tasks();
    }

    fn arrive(&mut self) {
        while let Some(arrival) = self
            .scenario
            .trace
            .arrivals
            .get(self.arrived)
            .filter(|next| next.at <= self.now)
        {
            // Keys are random, so that partitions fill evenly.
            self.partitions[self.next_partition].waiting.push_back(*arrival);
            self.next_partition = (self.next_partition + 1) % self.partitions.len();
            self.arrived += 1;
        }
    }

    fn finish_tasks(&mut self) {
        for worker in self.workers.values_mut() {
            if let Phase::Working { partition, until } = worker.phase
                && until <= self.now
            {
                self.partitions[partition].running = false;
                worker.phase = Phase::Waiting;
            }
        }
    }

    fn join(&mut self) {
        let mut joined = false;
        for worker in self.workers.values_mut() {
            if matches!(worker.phase, Phase::Starting { until } if until <= self.now) {
                worker.phase = Phase::Waiting;
                joined = true;
            }
        }
        if joined {
            self.rebalance();
        }
    }

    /// Those who were asked to stop and hold nothing go.
    fn leave(&mut self) {
        let leaves =
            |worker: &Worker| worker.stop == Stop::Asked && !matches!(worker.phase, Phase::Working { .. });
        let leaving: Vec<u64> = self
            .workers
            .iter()
            .filter(|(_, worker)| leaves(worker))
            .map(|(id, _)| *id)
            .collect();
        for id in &leaving {
            if let Some(worker) = self.workers.remove(id) {
                self.lived += self.now.since(worker.since);
            }
            let owned = self
                .partitions
                .iter_mut()
                .filter(|partition| partition.owner == Some(*id));
            owned.for_each(|partition| partition.owner = None);
        }
        if !leaving.is_empty() {
            self.rebalance();
        }
    }

    fn rebalance(&mut self) {
        self.rebalancing_until = Some(self.now + self.scenario.rebalance);
    }

    /// Members keep what they have, up to an even share; what is left over goes to those who have least.
    fn share_out(&mut self) {
        let joined = |worker: &Worker| {
            worker.stop == Stop::NotAsked && !matches!(worker.phase, Phase::Starting { .. })
        };
        let mut shares: BTreeMap<u64, usize> = self
            .workers
            .iter()
            .filter(|(_, worker)| joined(worker))
            .map(|(id, _)| (*id, 0))
            .collect();
        if shares.is_empty() {
            return;
        }
        let most = self.partitions.len().div_ceil(shares.len());
        // Running tasks stay where they are; a first pass over them keeps their owners' shares honest.
        for running_first in [true, false] {
            for partition in self
                .partitions
                .iter_mut()
                .filter(|partition| partition.running == running_first)
            {
                let share = partition.owner.and_then(|owner| shares.get_mut(&owner));
                match share {
                    Some(share) if running_first || *share < most => *share += 1,
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
            let least = shares.iter_mut().min_by_key(|(id, share)| (**share, **id));
            if let Some((id, share)) = least {
                partition.owner = Some(*id);
                *share += 1;
            }
        }
    }

    /// Whoever has nothing to do takes the oldest task of its partitions.
    fn take_tasks(&mut self) {
        for (id, worker) in &mut self.workers {
            if worker.phase != Phase::Waiting || worker.stop == Stop::Asked {
                continue;
            }
            let owned = self
                .partitions
                .iter()
                .enumerate()
                .filter(|(_, partition)| partition.owner == Some(*id));
            let oldest = owned
                .filter_map(|(number, partition)| Some((partition.waiting.front()?.at, number)))
                .min();
            let Some((_, number)) = oldest else { continue };
            let partition = &mut self.partitions[number];
            if let (false, Some(task)) = (partition.running, partition.waiting.pop_front()) {
                partition.running = true;
                self.waited.push(self.now.as_millis() - task.at.as_millis());
                self.worked += task.task;
                worker.phase = Phase::Working {
                    partition: number,
                    until: self.now + task.task,
                };
            }
        }
    }

    fn start(&mut self, now: Moment) {
        let id = self.next_worker;
        self.next_worker += 1;
        let worker = Worker {
            name: format!("worker-{id}").as_str().into(),
            since: now,
            phase: Phase::Starting {
                until: now + self.scenario.start_up,
            },
            stop: Stop::NotAsked,
            marked: Marked::No,
        };
        self.workers.insert(id, worker);
    }

    /// Kubernetes' order: those that are not ready, then those that are marked.
    fn stop(&mut self, count: usize) {
        let mut order: Vec<(u8, u64)> = self
            .workers
            .iter()
            .filter(|(_, worker)| worker.stop == Stop::NotAsked)
            .map(|(id, worker)| match (worker.phase, worker.marked) {
                (Phase::Starting { .. }, _) => (0, *id),
                (_, Marked::Yes) => (1, *id),
                (_, Marked::No) => (2, *id),
            })
            .collect();
        order.sort_unstable();
        for (_, id) in order.into_iter().take(count) {
            if let Some(worker) = self.workers.get_mut(&id) {
                worker.stop = Stop::Asked;
            }
        }
    }

    fn member(&self, id: u64, worker: &Worker) -> Option<Member> {
        if matches!(worker.phase, Phase::Starting { .. }) {
            return None;
        }
        let owned = self
            .partitions
            .iter()
            .zip(0..)
            .filter(|(partition, _)| partition.owner == Some(id));
        Some(Member {
            pod: worker.name.clone(),
            holds: Holds::Partitions(owned.map(|(_, number)| number).collect()),
        })
    }
}

impl Worker {
    fn pod(&self) -> Pod {
        Pod {
            name: self.name.clone(),
            state: match (self.stop, self.phase) {
                (Stop::Asked, _) => PodState::Draining,
                (Stop::NotAsked, Phase::Starting { .. }) => PodState::NotReady,
                (Stop::NotAsked, _) => PodState::Ready,
            },
            marked: self.marked,
            replica_set: "simulated".into(),
        }
    }
}
