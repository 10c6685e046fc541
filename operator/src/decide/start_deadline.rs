//! The target `StartDeadline`: the fewest workers that begin every queued message in time.
//!
//! The rule is list scheduling, oldest message first (R. L. Graham, *Bounds on Multiprocessing Timing Anomalies*,
//! 1969): each message in turn is begun by the worker that is free first. An idle worker is free now, a busy one after
//! the rest of its task, a starting one after the rest of its start-up, and a new one after a start-up. Every task
//! counts as equally long, so that the times at which n workers can begin tasks do not depend on the order of the
//! messages. Counting is therefore enough: n workers begin every message in time if, for each message, they can begin
//! at least as many tasks by its limit as there are messages with that limit or an earlier one.
//!
//! The limit of a message is its deadline or, if that is later, the time at which one more worker would be ready: it
//! would not begin the message sooner. As starting workers count with the rest of their start-up, whether they are among
//! the n or not, deciding again while they start gives the same number. More messages, older messages and longer rests
//! only lower the number of tasks that can begin by a limit, or raise the number of messages that must: they never mean
//! fewer replicas.
//!
//! A task may take several times the median, but seldom do several in a row. So if the deadline is long enough for
//! several tasks, one of them counts as long and the others as usual ([`counted_task`]).

use std::time::Duration;

use super::messages::{Messages, millis};
use super::observation::{Estimates, LagByPartition, Moment, Observation, PodState};
use super::policy::Policy;
use super::reason::StartForecast;

/// Standard deviations from the median to the 95th percentile of a normal distribution.
const TAIL_DEVIATIONS: f64 = 1.645;

/// The same to the 97th percentile: a task as long as that is rare enough to be in time.
const LONG_DEVIATIONS: f64 = 1.881;

/// The time of every task, in milliseconds: that of a long task or, if at least two long tasks fit into the deadline,
/// the average of a long one and of others as long as the mean. The mean and the time of a long task, the 97th
/// percentile, are those of the log-normal distribution with the expected median and 95th percentile. It depends on
/// neither the time nor the backlog. A longer tail, and tasks that are longer by a factor, never make it shorter.
pub(super) fn counted_task(estimates: Estimates, deadline: Duration) -> u64 {
    let median = (millis(estimates.task) as f64).max(1.0);
    let spread = (millis(estimates.task_tail) as f64 / median).max(1.0).ln() / TAIL_DEVIATIONS;
    let long = median * (LONG_DEVIATIONS * spread).exp();
    // The mean of a distribution with a very heavy tail is longer than nearly all tasks.
    let mean = (median * (spread * spread / 2.0).exp()).min(long);
    let fitting = millis(deadline) as f64 / long;
    let in_a_row = if fitting < 2.0 { 1.0 } else { fitting };
    (mean + (long - mean) / in_a_row).round() as u64
}

/// Reported waits are multiples of this, in milliseconds, so that the status does not change with every reading.
const WAIT_STEP: u64 = 10_000;

/// The most entries of a list in an explanation.
const MAX_LISTED: usize = 10;

/// Queued messages and workers of a pool. Times are in milliseconds from now.
pub(super) struct Schedule {
    now: Moment,
    deadline: Duration,
    /// Queued messages by the time of their arrival, oldest first.
    arrivals: Vec<(Moment, u128)>,
    /// Whether it is known which messages run.
    running_is_known: bool,
    workers: Workers,
    /// Tasks of workers that drain.
    draining_tasks: u32,
    /// The most replicas that `maxReplicas` and the partitions with messages allow.
    most: u32,
}

impl Schedule {
    pub(super) fn new(
        policy: &Policy,
        observation: &Observation,
        lag: &LagByPartition,
        deadline: Duration,
        now: Moment,
    ) -> Self {
        let task = counted_task(observation.estimates, deadline);
        let messages = Messages::new(observation, lag, task, now);
        Self {
            now,
            deadline,
            arrivals: messages.arrivals,
            running_is_known: observation.queue.is_some(),
            draining_tasks: messages.draining_tasks,
            most: policy.limits.max().min(lag.partitions_with_work()),
            workers: Workers::new(observation, messages.tasks, task, now),
        }
    }

    /// Workers that the backlog needs beside draining ones, each of which finishes one message; one more than the
    /// limits allow if those are too few.
    pub(super) fn need(&self, draining: u32) -> u32 {
        let unknown = if self.running_is_known { 0 } else { draining };
        let due = self.due(unknown);
        // Enough workers stay enough if there are more, so that the smallest number can be searched in halves.
        let mut too_few_below = if draining == 0 {
            self.workers.tasks.saturating_add(self.draining_tasks)
        } else {
            // Draining workers whose partitions are unknown may run some of the other tasks.
            let of_unknown = draining.saturating_sub(self.draining_tasks);
            self.workers.tasks.saturating_sub(of_unknown)
        };
        let mut enough = self.most.max(too_few_below).saturating_add(1);
        while too_few_below < enough {
            let middle = too_few_below + (enough - too_few_below) / 2;
            if self.workers.shortfall(middle, &due).is_none() {
                enough = middle;
            } else {
                too_few_below = middle + 1;
            }
        }
        enough
    }

    /// When `replicas` workers begin the last message.
    pub(super) fn forecast(&self, replicas: u32) -> StartForecast {
        let queued = self.queued();
        let newest = self.arrivals.last().map_or(self.now, |(at, _)| *at);
        // The wait is counted from the arrival: it does not change while time passes as expected.
        let begins = self.workers.begins_last(replicas, queued);
        let wait = begins.map(|begins| begins.saturating_add(millis(self.now.since(newest))));
        StartForecast {
            queued,
            replicas,
            wait: wait.map(|wait| Duration::from_millis(wait.div_ceil(WAIT_STEP).saturating_mul(WAIT_STEP))),
            deadline: self.deadline,
            startup: Duration::from_millis(self.workers.startup),
        }
    }

    fn queued(&self) -> u128 {
        let add = |sum: u128, (_, count): &(Moment, u128)| sum.saturating_add(*count);
        self.arrivals.iter().fold(0, add)
    }

    /// Deadlines with the number of messages that must begin by them, without this many of the oldest messages.
    fn due(&self, finished: u32) -> Vec<Due> {
        let mut finished = u128::from(finished);
        let mut due: Vec<Due> = Vec::with_capacity(self.arrivals.len());
        let mut messages = 0_u128;
        for (arrival, count) in &self.arrivals {
            messages = messages.saturating_add(count.saturating_sub(finished));
            finished = finished.saturating_sub(*count);
            let deadline = millis((*arrival + self.deadline).since(self.now));
            match due.last_mut() {
                Some(last) if last.deadline == deadline => last.messages = messages,
                _ => due.push(Due { deadline, messages }),
            }
        }
        due
    }

    /// The schedule, step by step.
    pub(super) fn explain(&self) -> Vec<String> {
        let (workers, due, queued) = (&self.workers, self.due(0), self.queued());
        let ages = self.arrivals.iter().map(|(arrival, count)| {
            let age = self.now.since(*arrival).as_secs();
            format!("{count} for {age} s")
        });
        let mut lines = vec![
            format!(
                "deadline {} s, start-up {} s; a task counts as {} s",
                self.deadline.as_secs(),
                seconds(workers.startup),
                seconds(workers.task)
            ),
            workers.describe(),
            format!("queued messages: {queued}{}", listed(ages)),
        ];
        let (busy, need) = (workers.tasks.saturating_add(self.draining_tasks), self.need(0));
        // Fewer workers begin fewer messages: the greatest numbers are enough to show.
        let first = need.saturating_sub(count(MAX_LISTED)).max(busy);
        for replicas in first..need {
            if let Some(late) = workers.shortfall(replicas, &due) {
                let (begun, messages, limit) = (late.begun, late.messages, seconds(late.limit));
                lines.push(format!(
                    "{replicas} replicas begin {begun} of the {messages} messages that are due within {limit} s"
                ));
            }
        }
        let replicas = need.min(self.most.max(busy));
        let verdict = if need > replicas {
            "are the most that maxReplicas and the partitions with messages allow"
        } else {
            "are enough"
        };
        let begins = workers.begins_last(replicas, queued).map(seconds);
        let last = begins.map(|begins| format!("; the last message begins in {begins} s"));
        lines.push(format!(
            "{replicas} replicas {verdict}{}",
            last.unwrap_or_default()
        ));
        lines
    }
}

/// A deadline, and the number of messages that have it or an earlier one.
struct Due {
    deadline: u64,
    messages: u128,
}

/// Too few tasks that workers can begin by the limit of some messages.
struct Shortfall {
    limit: u64,
    begun: u128,
    messages: u128,
}

/// Workers in the order in which they stay: busy, idle, starting, new ones.
struct Workers {
    /// Number of running tasks.
    tasks: u32,
    /// Rests of the tasks of workers that have a pod.
    busy: Vec<u64>,
    idle: u32,
    /// Rests of start-ups, shortest first.
    starting: Vec<u64>,
    startup: u64,
    task: u64,
}

impl Workers {
    /// Workers whose tasks have these rests, shortest first.
    fn new(observation: &Observation, mut busy: Vec<u64>, task: u64, now: Moment) -> Self {
        let startup = millis(observation.estimates.startup);
        let (mut ready, mut starting) = (0_u32, Vec::new());
        for pod in observation.workload.live() {
            let elapsed = match pod.state {
                PodState::Ready => {
                    ready = ready.saturating_add(1);
                    continue;
                }
                // Its start-up begins when a node has room.
                PodState::Unschedulable => 0,
                _ => pod.created.map_or(0, |created| millis(now.since(created))),
            };
            starting.push(startup.saturating_sub(elapsed));
        }
        starting.sort_unstable();
        let tasks = count(busy.len());
        // A worker whose pod is unknown may be gone after its task. The longest rests stay: the safer assumption.
        let pods = index(ready).saturating_add(starting.len());
        busy.drain(..busy.len().saturating_sub(pods));
        let with_pod = count(busy.len());
        // Pods beyond `replicas` are about to be deleted: first those that are not ready, then idle ones.
        let left = observation.workload.replicas.saturating_sub(with_pod);
        let idle = ready.saturating_sub(with_pod).min(left);
        let busy_but_not_ready = index(with_pod.saturating_sub(ready));
        starting.drain(..busy_but_not_ready);
        starting.truncate(index(left - idle));
        Self {
            tasks,
            busy,
            idle,
            starting,
            startup,
            task,
        }
    }

    /// The first deadline for which this many workers are too few; none if they are enough.
    fn shortfall(&self, replicas: u32, due: &[Due]) -> Option<Shortfall> {
        let next = self.next_ready(replicas);
        due.iter().find_map(|due| {
            let (limit, messages) = (due.deadline.max(next), due.messages);
            let begun = self.begun(replicas, limit);
            (begun < messages).then_some(Shortfall {
                limit,
                begun,
                messages,
            })
        })
    }

    /// When the first starting or new worker beyond this many would be ready. Idle workers begin what they can: messages
    /// that are queued beside them are on partitions of other workers.
    fn next_ready(&self, replicas: u32) -> u64 {
        let starting = replicas.saturating_sub(count(self.busy.len()).saturating_add(self.idle));
        let ready = self.starting.get(index(starting));
        ready.copied().unwrap_or(self.startup)
    }

    /// Number of tasks that this many workers can begin by `limit`.
    fn begun(&self, replicas: u32, limit: u64) -> u128 {
        let begun = |free: u64| {
            let left = limit.checked_sub(free);
            left.map_or(0, |left| 1 + u128::from(left / self.task))
        };
        let of_busy: u128 = self.busy.iter().map(|free| begun(*free)).sum();
        let left = replicas.saturating_sub(count(self.busy.len()));
        let idle = left.min(self.idle);
        let starting = (left - idle).min(count(self.starting.len()));
        let new = left - idle - starting;
        let starting = self.starting[..index(starting)].iter();
        let of_starting: u128 = starting.map(|free| begun(*free)).sum();
        of_busy + u128::from(idle) * begun(0) + of_starting + u128::from(new) * begun(self.startup)
    }

    /// When this many workers begin the last of `messages` messages; none without workers or messages.
    fn begins_last(&self, replicas: u32, messages: u128) -> Option<u64> {
        let workers = u128::from(replicas).max(self.busy.len() as u128);
        if messages == 0 || workers == 0 {
            return None;
        }
        let rounds = u64::try_from(messages.div_ceil(workers)).unwrap_or(u64::MAX);
        let all_free = self.busy.iter().copied().fold(self.startup, u64::max);
        let (mut too_early_below, mut by) = (0, all_free.saturating_add(rounds.saturating_mul(self.task)));
        while too_early_below < by {
            let middle = too_early_below + (by - too_early_below) / 2;
            if self.begun(replicas, middle) >= messages {
                by = middle;
            } else {
                too_early_below = middle + 1;
            }
        }
        Some(by)
    }

    fn describe(&self) -> String {
        let times = |free: &[u64]| listed(free.iter().map(|free| format!("{} s", seconds(*free))));
        format!(
            "workers by the time until they are free: {} busy{}, {} idle, {} starting{}",
            self.busy.len(),
            times(&self.busy),
            self.idle,
            self.starting.len(),
            times(&self.starting)
        )
    }
}

/// Entries in brackets, the first of them if there are many; empty without entries.
fn listed(entries: impl ExactSizeIterator<Item = String>) -> String {
    let more = entries.len().saturating_sub(MAX_LISTED);
    let mut listed: Vec<String> = entries.take(MAX_LISTED).collect();
    if more > 0 {
        listed.push(format!("{more} more"));
    }
    if listed.is_empty() {
        return String::new();
    }
    format!(" ({})", listed.join(", "))
}

fn seconds(millis: u64) -> u64 {
    millis.div_ceil(1_000)
}

fn count(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

fn index(count: u32) -> usize {
    usize::try_from(count).unwrap_or(usize::MAX)
}
