//! The messages of the lag: queued ones by the time of their arrival, running ones by the rest of their tasks, in
//! milliseconds.

use std::collections::BTreeSet;
use std::time::Duration;

use super::observation::{
    GroupReading, LagByPartition, MemberWork, Moment, Observation, PartitionQueue, PodName, RunningTask,
};

/// Progress below this is too coarse to estimate the rest of a task.
const MIN_PERCENT: u8 = 5;

/// The messages of the lag: queued ones and running ones.
#[derive(Default)]
pub(super) struct Messages {
    /// Queued messages by the time of their arrival, oldest first.
    pub(super) arrivals: Vec<(Moment, u128)>,
    /// Rests of the tasks of workers that do not drain or whose partitions are unknown, shortest first.
    pub(super) tasks: Vec<u64>,
    /// Tasks of workers that drain, as far as their partitions are known.
    pub(super) draining_tasks: u32,
}

impl Messages {
    /// Messages whose times of arrival are unknown count as arrived when the lag was read. `task` is the usual longest
    /// time of a task.
    pub(super) fn new(observation: &Observation, lag: &LagByPartition, task: u64, now: Moment) -> Self {
        let mut found = Self::default();
        let read_at = observation.lag.at;
        let draining = partitions_of_draining(observation);
        let mut unknown = lag.messages();
        for queue in observation.queue.iter().flat_map(|queue| &queue.partitions) {
            let messages = lag.messages_in(queue.partition).unwrap_or(0);
            if messages == 0 {
                continue;
            }
            unknown = unknown.saturating_sub(messages.into());
            found.add_queued(queue, messages, read_at);
            match queue.running {
                Some(_) if draining.contains(&queue.partition) => found.draining_tasks += 1,
                Some(running) => found.tasks.push(rest(running, task, read_at, now)),
                None => {}
            }
        }
        if unknown > 0 {
            found.arrivals.push((read_at, unknown));
        }
        found.tasks.sort_unstable();
        found.arrivals.sort_unstable();
        found.arrivals.dedup_by(|next, kept| {
            let is_same = next.0 == kept.0;
            if is_same {
                kept.1 = kept.1.saturating_add(next.1);
            }
            is_same
        });
        found
    }

    fn add_queued(&mut self, queue: &PartitionQueue, messages: u64, read_at: Moment) {
        let counts = queue.arrivals.iter().map(|(_, count)| *count);
        let known = counts.fold(0, u64::saturating_add);
        // Of more arrivals than lag, the oldest are committed; of fewer, the newest are unknown.
        let committed = known.saturating_sub(messages);
        let unknown = (read_at, messages.saturating_sub(known));
        let mut skipped = committed.saturating_add(u64::from(queue.running.is_some()));
        for (arrival, count) in queue.arrivals.iter().copied().chain([unknown]) {
            let left = count.saturating_sub(skipped);
            skipped = skipped.saturating_sub(count);
            if left > 0 {
                self.arrivals.push((arrival, left.into()));
            }
        }
    }
}

/// Partitions of members whose pods are terminating; empty while members are unknown, or report tasks without
/// partitions.
fn partitions_of_draining(observation: &Observation) -> BTreeSet<i32> {
    let GroupReading::Stable { members, .. } = &observation.group else {
        return BTreeSet::new();
    };
    let pods = observation.workload.pods.iter();
    let draining: BTreeSet<&PodName> = pods
        .filter(|pod| !pod.state.is_live())
        .map(|pod| &pod.name)
        .collect();
    if draining.is_empty() {
        return BTreeSet::new();
    }
    let members = members.iter().filter(|member| draining.contains(&member.pod));
    let partitions = members.filter_map(|member| match &member.work {
        MemberWork::Partitions(partitions) => Some(partitions),
        MemberWork::Task | MemberWork::NoTask => None,
    });
    partitions.flatten().copied().collect()
}

/// The rest of a task, from its progress if that is known. It depends on the time of the last reading, so that its end
/// stays the same until the next one.
fn rest(task: RunningTask, usual: u64, read_at: Moment, now: Moment) -> u64 {
    let elapsed = millis(read_at.since(task.since));
    let total = match task.percent {
        Some(percent) if percent >= MIN_PERCENT => elapsed.saturating_mul(100) / u64::from(percent),
        // A task that has taken more than half of it is expected to take as long again.
        _ => usual.max(elapsed.saturating_mul(2)),
    };
    total.saturating_sub(millis(now.since(task.since)))
}

pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
