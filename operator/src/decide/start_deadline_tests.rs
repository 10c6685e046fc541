//! Tests of the target `StartDeadline`: which workers begin which messages, and when.

use std::time::Duration;

use super::scene::{SECOND, Scene, pod};
use super::start_deadline::counted_task;
use super::*;

/// A pool of up to 24 workers with a deadline and a start-up of 60 s, and tasks of 80 s. Workers have run a task for
/// `busy` seconds, are idle, or were created `starting` seconds ago; messages were queued `queued` seconds ago. Each
/// message has its own partition.
pub(super) fn pool(busy: &[u64], idle: usize, starting: &[u64], queued: &[u64]) -> Scene {
    let mut scene = Scene::new().limits(0..=24);
    scene.policy.target = Target::StartDeadline {
        deadline: 60 * SECOND,
    };
    let observation = &mut scene.observation;
    observation.estimates = Estimates {
        startup: 60 * SECOND,
        task: 80 * SECOND,
        task_tail: 80 * SECOND,
    };
    let now = scene.now;
    let ready = (0..busy.len() + idle).map(|_| (PodState::Ready, None));
    let starting = starting
        .iter()
        .map(|seconds| (PodState::NotReady, Some(before(now, *seconds))));
    let pods = (0..)
        .zip(ready.chain(starting))
        .map(|(number, (state, created))| Pod {
            created,
            ..pod(number, state)
        });
    observation.workload.pods = pods.collect();
    observation.workload.replicas = u32::try_from(observation.workload.pods.len()).expect("a few");
    let running = busy.iter().map(|seconds| {
        let since = before(now, *seconds);
        let task = RunningTask { since, percent: None };
        (since, Some(task))
    });
    let queued = queued.iter().map(|seconds| (before(now, *seconds), None));
    let partitions = (0..)
        .zip(running.chain(queued))
        .map(|(partition, (arrival, running))| PartitionQueue {
            partition,
            arrivals: vec![(arrival, 1)],
            running,
        });
    let partitions: Vec<PartitionQueue> = partitions.collect();
    observation.lag.lag = Lag::Known(LagByPartition::from_messages(partitions.iter().map(|_| 1)));
    observation.queue = Some(Queue { partitions });
    scene.members()
}

fn before(now: Moment, seconds: u64) -> Moment {
    Moment::from_millis(now.as_millis() - 1_000 * seconds)
}

impl Scene {
    pub(super) fn deadline(mut self, deadline: Duration) -> Self {
        self.policy.target = Target::StartDeadline { deadline };
        self
    }

    /// Tasks are equally long.
    pub(super) fn times(self, startup: Duration, task: Duration) -> Self {
        self.estimates(startup, task, task)
    }

    fn estimates(mut self, startup: Duration, task: Duration, task_tail: Duration) -> Self {
        self.observation.estimates = Estimates {
            startup,
            task,
            task_tail,
        };
        self
    }

    pub(super) fn percent(mut self, percent: u8) -> Self {
        let queue = self.observation.queue.iter_mut();
        let running = queue
            .flat_map(|queue| &mut queue.partitions)
            .filter_map(|queue| queue.running.as_mut());
        running.for_each(|task| task.percent = Some(percent));
        self
    }

    /// Time passes, and nothing is read.
    pub(super) fn without_reading(mut self, seconds: u64) -> Self {
        self.now = self.now + Duration::from_secs(seconds);
        self
    }

    /// Pods were created for the replicas that have none.
    pub(super) fn created(mut self) -> Self {
        let workload = &mut self.observation.workload;
        let pods = u32::try_from(workload.pods.len()).expect("a few");
        workload.pods.extend((pods..workload.replicas).map(|number| Pod {
            created: Some(self.now),
            ..pod(number, PodState::NotReady)
        }));
        self
    }

    #[track_caller]
    fn needs(&self, replicas: u32) {
        let explanation = self.decision().explanation;
        assert_eq!(
            explanation.need,
            Some(replicas),
            "{explanation}\n{}",
            explain(&self.policy, &self.observation, self.now).join("\n")
        );
    }

    #[track_caller]
    fn annotates(self, expected: &[&str]) -> Self {
        let (scene, decision) = self.executed();
        let expected = expected.iter().map(|name| (*name).into()).collect();
        assert_eq!(
            decision.plan,
            [Write::Annotate(expected)],
            "{}",
            decision.explanation
        );
        scene
    }
}

/// Seconds that queued messages are old, idle workers, rests of busy ones, rests of starting ones, expected replicas.
type Case<'a> = (&'a [u64], usize, &'a [u64], &'a [u64], u32);

#[test]
fn the_need_is_the_fewest_workers_that_begin_each_message_in_time() {
    let cases: [Case<'_>; 20] = [
        // No worker, or only idle ones.
        (&[], 0, &[], &[], 0),
        (&[], 3, &[], &[], 0),
        (&[], 0, &[], &[0], 1),
        (&[], 0, &[], &[0; 7], 7),
        (&[], 0, &[], &[500], 1),
        (&[], 1, &[], &[0], 1),
        (&[], 1, &[], &[0, 0], 2),
        // Busy workers are needed. One begins a message if its task ends by the deadline,
        (&[30, 30, 70], 2, &[], &[], 3),
        (&[30], 0, &[], &[0], 1),
        (&[10], 0, &[], &[0], 2),
        (&[30], 0, &[], &[0, 0], 2),
        (&[30, 30], 0, &[], &[0, 0], 2),
        // or before a new worker would be ready,
        (&[20], 0, &[], &[20], 1),
        (&[19], 0, &[], &[20], 2),
        // or before one that already starts.
        (&[30], 0, &[20], &[20], 2),
        // A task that runs for long is expected to run as long again.
        (&[200], 0, &[], &[0], 2),
        // Starting workers begin what is queued, as soon as they are ready.
        (&[], 0, &[20], &[0], 1),
        (&[], 0, &[20], &[300], 1),
        (&[], 0, &[100], &[300], 1),
        (&[10], 0, &[20], &[0, 0], 3),
    ];
    for (busy, idle, starting, queued, need) in cases {
        pool(busy, idle, starting, queued).needs(need);
    }
}

#[test]
fn a_burst_starts_as_many_workers_as_the_limits_allow() {
    let burst = pool(&[], 0, &[], &[0; 500]);
    burst.needs(25);
    burst.expect(Reason::LimitedByMaxReplicas, 24);
    let mut one_partition = pool(&[], 0, &[], &[]);
    one_partition.observation.lag.lag = Lag::Known(LagByPartition::from_messages([9, 0]));
    one_partition.expect(Reason::LimitedByPartitions, 1);
}

#[test]
fn reported_progress_replaces_the_usual_time_of_a_task() {
    pool(&[200], 0, &[], &[0]).percent(90).needs(1);
    pool(&[5], 0, &[], &[0]).percent(10).needs(1);
    pool(&[5], 0, &[], &[0]).needs(2);
    // Less than 5 % is too coarse.
    pool(&[2], 0, &[], &[0]).percent(4).needs(2);
    pool(&[30], 0, &[], &[0]).percent(0).needs(1);
}

#[test]
fn one_worker_begins_several_messages_if_their_deadline_allows_it() {
    let three = pool(&[], 1, &[], &[0; 3]).deadline(180 * SECOND);
    three.needs(1);
    pool(&[], 1, &[], &[0; 4]).deadline(180 * SECOND).needs(2);
    pool(&[], 1, &[], &[0, 0, 30]).deadline(180 * SECOND).needs(1);
    pool(&[], 1, &[], &[30; 3]).deadline(180 * SECOND).needs(2);
}

/// From the definition, with a calculator: of a median of 23 s and a 95th percentile of 70 s, the mean is 28.9 s and the
/// 97th percentile 82.1 s; of 30 s and 90 s, 37.5 s and 105.4 s.
#[test]
fn of_several_tasks_that_fit_into_the_deadline_one_counts_as_long() {
    let cases: [(u32, u32, u32, u64); 10] = [
        (23, 70, 60, 82),
        (23, 70, 164, 82),
        (23, 70, 165, 55),
        (23, 70, 180, 53),
        (23, 70, 3_600, 30),
        (30, 90, 60, 105),
        (30, 90, 300, 61),
        // Equally long ones; an impossible tail does not count.
        (80, 80, 180, 80),
        (80, 20, 180, 80),
        // A mean of 2,981 s would be beyond the 97th percentile.
        (1, 720, 3_600, 1_850),
    ];
    for (median, tail, deadline, expected) in cases {
        let estimates = Estimates {
            task: median * SECOND,
            task_tail: tail * SECOND,
            ..Estimates::default()
        };
        let found = counted_task(estimates, deadline * SECOND) as f64 / 1_000.0;
        assert!(
            (found - expected as f64).abs() < 0.6,
            "{median} s, {tail} s, {deadline} s: {found} s"
        );
    }
    let scene = |queued: &[u64]| {
        let scene = pool(&[], 1, &[], queued).deadline(180 * SECOND);
        scene.estimates(180 * SECOND, 23 * SECOND, 70 * SECOND)
    };
    scene(&[0; 4]).needs(1);
    scene(&[0; 5]).needs(2);
}

#[test]
fn a_deadline_shorter_than_a_start_up_does_not_start_workers_that_come_too_late() {
    pool(&[20], 0, &[], &[0]).deadline(10 * SECOND).needs(1);
    pool(&[19], 0, &[], &[0]).deadline(10 * SECOND).needs(2);
    pool(&[], 0, &[30], &[30]).deadline(10 * SECOND).needs(1);
}

#[test]
fn estimates_of_zero_are_valid() {
    let zero = |queued: &[u64]| pool(&[], 0, &[], queued).times(Duration::ZERO, Duration::ZERO);
    zero(&[0; 500]).needs(1);
    zero(&[0; 3]).deadline(Duration::ZERO).needs(3);
    zero(&[]).needs(0);
}

#[test]
fn messages_of_unknown_age_count_as_queued_since_the_reading() {
    let mut scene = pool(&[], 1, &[], &[0, 0]).times(30 * SECOND, 55 * SECOND);
    scene.observation.queue = None;
    scene.needs(1);
    scene.without_reading(20).needs(2);
}

#[test]
fn arrivals_and_lag_of_different_times_are_reconciled() {
    let with_lag = |messages: u64| {
        let mut scene = pool(&[25], 0, &[], &[0]);
        let queue = scene.observation.queue.as_mut().expect("a queue");
        queue.partitions[1].arrivals = vec![(before(scene.now, 100), 2), (scene.now, 1)];
        scene.observation.lag.lag = Lag::Known(LagByPartition::from_messages([1, messages]));
        scene
    };
    // The two older messages were committed since,
    with_lag(1).needs(1);
    // or one of them was,
    with_lag(2).needs(2);
    // or messages arrived since.
    assert_eq!(
        with_lag(9).decision().explanation.start.map(|start| start.queued),
        Some(9)
    );
    // Arrivals of a partition without lag do not count.
    with_lag(0).needs(1);
}

#[test]
fn deciding_again_while_workers_start_gives_the_same_number_and_the_same_message() {
    for task in [20, 80] {
        let burst = pool(&[], 0, &[], &[0; 11]).times(60 * SECOND, task * SECOND);
        let scene = burst.expect(Reason::BacklogCovered, 11).created();
        let message = scene.decision().explanation.to_string();
        for second in 1..60 {
            let decision = scene.clone().after(second).decision();
            assert_eq!(
                (decision.desired(), decision.plan),
                (11, vec![]),
                "after {second} s"
            );
            assert_eq!(decision.explanation.to_string(), message, "after {second} s");
        }
    }
}

#[test]
fn a_message_that_arrives_while_workers_start_adds_no_more_than_one() {
    let scene = |task: u32, queued: &[u64]| pool(&[], 0, &[30; 11], queued).times(60 * SECOND, task * SECOND);
    let mut ages = vec![30; 11];
    scene(80, &ages).needs(11);
    ages.push(0);
    scene(80, &ages).needs(12);
    // A short task ends in time for it.
    scene(20, &ages).needs(11);
}

#[test]
fn starting_workers_that_are_not_needed_for_15_s_are_removed_the_newest_first() {
    let scene = pool(&[], 0, &[3, 2, 1], &[0]);
    let scene = scene.expect(Reason::Stabilizing, 3).after(14);
    let scene = scene.expect(Reason::Stabilizing, 3).after(1);
    let scene = scene.annotates(&["p2", "p1"]).after(2);
    let scene = scene.expect(Reason::ScalingDown, 1);
    let left: Vec<_> = scene
        .observation
        .workload
        .live()
        .map(|pod| pod.name.as_str())
        .collect();
    assert_eq!(left, ["p0"]);
}

#[test]
fn a_starting_worker_that_was_needed_within_15_s_stays() {
    let scene = pool(&[], 0, &[3, 2, 1], &[0]).expect(Reason::Stabilizing, 3);
    let mut two = scene.after(10);
    let queue = pool(&[], 0, &[], &[0, 0]).observation;
    (two.observation.queue, two.observation.lag.lag) = (queue.queue, queue.lag.lag);
    let mut one = two.expect(Reason::Stabilizing, 3).after(2);
    let queue = pool(&[], 0, &[], &[0]).observation;
    (one.observation.queue, one.observation.lag.lag) = (queue.queue, queue.lag.lag);
    let scene = one.expect(Reason::Stabilizing, 3).after(3);
    scene.annotates(&["p2"]).after(2).expect(Reason::ScalingDown, 2);
}

#[test]
fn of_starting_workers_the_last_one_members_and_ready_pods_stay() {
    let last = pool(&[], 0, &[2, 1], &[])
        .expect(Reason::Stabilizing, 2)
        .after(14);
    let last = last.expect(Reason::Stabilizing, 2).after(1).annotates(&["p1"]);
    let last = last.after(2).expect(Reason::ScalingDown, 1).after(60);
    last.expect(Reason::Stabilizing, 1);

    let ready = pool(&[], 2, &[], &[]).expect(Reason::Stabilizing, 2).after(60);
    ready.expect(Reason::Stabilizing, 2);

    let mut joined = pool(&[], 0, &[2, 1], &[0]);
    joined.observation.group = GroupReading::Stable {
        at: joined.now,
        members: vec![Member {
            pod: "p1".into(),
            work: MemberWork::Partitions(Vec::new()),
        }],
    };
    let joined = joined.expect(Reason::Stabilizing, 2).after(14);
    joined.expect(Reason::Stabilizing, 2).after(1).annotates(&["p0"]);
}

#[test]
fn starting_workers_stay_for_the_stabilization_window_with_other_targets() {
    let mut scene = pool(&[], 0, &[3, 2, 1], &[0]);
    scene.policy.target = Target::TasksPerReplica(std::num::NonZeroU32::MIN);
    let scene = scene.expect(Reason::Stabilizing, 3).after(60);
    scene.expect(Reason::Stabilizing, 3);
}

#[test]
fn partial_lag_raises_replicas_and_never_lowers_them() {
    let partial = |mut scene: Scene, known: &[u64]| {
        scene.observation.lag.lag = Lag::Partial {
            known: LagByPartition::from_messages(known.iter().copied()),
            missing: 1,
            why: "broker 2 did not answer".into(),
        };
        scene
    };
    partial(pool(&[], 0, &[], &[0, 0, 0]), &[1, 1]).expect(Reason::BacklogCovered, 2);
    let starting = partial(pool(&[], 0, &[3, 2, 1], &[0]), &[1]);
    let starting = starting.expect(Reason::HeldPartialLag, 3).after(600);
    starting.expect(Reason::HeldPartialLag, 3);
}

#[test]
fn a_draining_worker_finishes_its_task_and_begins_no_other() {
    let mut scene = pool(&[30], 0, &[], &[0]).state(0..1, PodState::Draining);
    scene.observation.workload.replicas = 0;
    scene.needs(1);
    scene.clone().expect(Reason::BacklogCovered, 1);
    // Its task alone needs no new worker.
    let mut alone = pool(&[30], 0, &[], &[]).state(0..1, PodState::Draining);
    alone.observation.workload.replicas = 0;
    alone.expect(Reason::BacklogCovered, 0);
}

#[test]
fn the_task_of_a_draining_worker_needs_no_other_worker_while_its_partition_is_unknown() {
    let mut scene = pool(&[30, 30], 0, &[], &[]).state(1..2, PodState::Draining);
    scene.observation.workload.replicas = 1;
    let GroupReading::Stable { members, .. } = &mut scene.observation.group else {
        panic!("members are known");
    };
    for member in members {
        member.work = MemberWork::Task;
    }
    scene.clone().expect(Reason::BacklogCovered, 1);
    scene.observation.group = GroupReading::Unknown {
        at: scene.now,
        why: "no broker answered within 5 s".into(),
    };
    scene.expect(Reason::BacklogCovered, 1);
}

#[test]
fn the_message_and_the_explanation_state_the_numbers() {
    let scene = pool(&[30, 10], 0, &[20], &[5, 0]);
    assert_eq!(
        scene.decision().explanation.to_string(),
        "4 messages on 4 of 4 partitions (2 queued) need 3 replicas; 3 replicas begin the last within 50 s of its \
         arrival (deadline 60 s, start-up 60 s): 3 replicas"
    );
    let explained = |scene: &Scene| explain(&scene.policy, &scene.observation, scene.now);
    assert_eq!(
        explained(&scene),
        [
            "deadline 60 s, start-up 60 s; a task counts as 80 s",
            "workers by the time until they are free: 2 busy (50 s, 70 s), 0 idle, 1 starting (40 s)",
            "queued messages: 2 (1 for 5 s, 1 for 0 s)",
            "2 replicas begin 1 of the 2 messages that are due within 60 s",
            "3 replicas are enough; the last message begins in 50 s",
        ]
    );
    let burst = pool(&[], 0, &[], &[0; 500]);
    assert_eq!(
        burst.decision().explanation.to_string(),
        "500 messages on 500 of 500 partitions (500 queued) need more than 24 replicas; 24 replicas begin the last \
         within 1660 s of its arrival (deadline 60 s, start-up 60 s); limited by maxReplicas (24)"
    );
    let last = "24 replicas are the most that maxReplicas and the partitions with messages allow; the last message \
                begins in 1660 s";
    assert_eq!(explained(&burst).last().map(String::as_str), Some(last));
    assert_eq!(explained(&pool(&[], 0, &[], &[]).unknown()), [""; 0]);
    let other = Scene::new().lag([1]);
    assert_eq!(explained(&other), [""; 0]);
}
