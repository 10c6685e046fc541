//! Properties of the target `StartDeadline`, checked on random pools.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::iter::{repeat, repeat_n};
use std::time::Duration;

use proptest::prelude::*;

use super::Estimates;
use super::scene::{SECOND, Scene};
use super::start_deadline::counted_task;
use super::start_deadline_tests::pool;

/// A pool as the tests describe it, in seconds, with fewer messages than `maxReplicas`.
#[derive(Debug, Clone)]
struct RandomPool {
    busy: Vec<u64>,
    idle: usize,
    starting: Vec<u64>,
    queued: Vec<u64>,
    deadline: u32,
    startup: u32,
    task: u32,
}

prop_compose! {
    fn pools()(
        busy in prop::collection::vec(0_u64..200, 0..5),
        idle in 0_usize..4,
        starting in prop::collection::vec(0_u64..100, 0..5),
        queued in prop::collection::vec(0_u64..300, 0..9),
        deadline in 0_u32..300,
        startup in 0_u32..200,
        task in 1_u32..120,
    ) -> RandomPool {
        RandomPool { busy, idle, starting, queued, deadline, startup, task }
    }
}

impl RandomPool {
    fn scene(&self) -> Scene {
        let scene = pool(&self.busy, self.idle, &self.starting, &self.queued);
        scene
            .deadline(self.deadline * SECOND)
            .times(self.startup * SECOND, self.task * SECOND)
    }

    fn need(&self) -> u32 {
        need(&self.scene())
    }

    /// Milliseconds until the tasks end.
    fn rests(&self) -> impl Iterator<Item = u64> {
        let task = u64::from(self.task);
        self.busy
            .iter()
            .map(move |elapsed| 1_000 * (task.max(2 * elapsed) - elapsed))
    }

    /// Milliseconds until the starting workers are ready, shortest first.
    fn starting(&self) -> Vec<u64> {
        let startup = u64::from(self.startup);
        let rests = self
            .starting
            .iter()
            .map(|age| 1_000 * startup.saturating_sub(*age));
        let mut rests: Vec<u64> = rests.collect();
        rests.sort_unstable();
        rests
    }

    /// List scheduling as it is defined: each message in turn, the oldest first, is begun by the worker that is free
    /// first.
    fn begins_all_in_time(&self, replicas: usize) -> bool {
        let (startup, task) = (1_000 * u64::from(self.startup), 1_000 * u64::from(self.task));
        let starting = self.starting();
        let fresh = repeat_n(0, self.idle).chain(starting.iter().copied());
        let workers = self.rests().chain(fresh).chain(repeat(startup));
        let mut free: BinaryHeap<Reverse<u64>> = workers.take(replicas).map(Reverse).collect();
        let beyond = replicas.saturating_sub(self.busy.len() + self.idle);
        let next = starting.get(beyond).copied().unwrap_or(startup);
        let mut ages = self.queued.clone();
        ages.sort_unstable_by(|a, b| b.cmp(a));
        ages.into_iter().all(|age| {
            let deadline = 1_000 * u64::from(self.deadline).saturating_sub(age);
            let Some(Reverse(begins)) = free.pop() else {
                return false;
            };
            free.push(Reverse(begins + task));
            begins <= deadline.max(next)
        })
    }
}

fn need(scene: &Scene) -> u32 {
    scene.decision().explanation.need.expect("the lag is known")
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        cases: ProptestConfig::default().cases.max(2_000),
        ..ProptestConfig::default()
    })]

    #[test]
    fn the_need_is_the_first_number_of_workers_with_which_list_scheduling_is_in_time(pool in pools()) {
        let numbers = pool.busy.len()..=pool.busy.len() + pool.queued.len();
        let fewest = numbers.clone().find(|replicas| pool.begins_all_in_time(*replicas));
        prop_assert_eq!(Some(pool.need() as usize), fewest);
        // More workers are enough, too.
        let enough = numbers.map(|replicas| pool.begins_all_in_time(replicas));
        prop_assert!(enough.skip_while(|enough| !enough).all(|enough| enough));
    }

    #[test]
    fn more_and_older_messages_and_longer_tasks_never_need_fewer_workers(
        pool in pools(),
        age in 0_u64..300,
        oldest in any::<prop::sample::Index>(),
        longer in 0_u32..100,
        percent in 5_u8..=100,
        less in 0_u8..95,
    ) {
        let need_before = pool.need();
        let mut more = pool.clone();
        more.queued.push(age);
        prop_assert!(more.need() >= need_before);
        if !pool.queued.is_empty() {
            let mut older = pool.clone();
            *oldest.get_mut(&mut older.queued) += age;
            prop_assert!(older.need() >= need_before);
        }
        let slower = RandomPool { task: pool.task + longer, ..pool.clone() };
        prop_assert!(slower.need() >= need_before);
        let less = percent.saturating_sub(less).max(5);
        prop_assert!(need(&pool.scene().percent(less)) >= need(&pool.scene().percent(percent)));
    }

    #[test]
    fn a_longer_tail_and_tasks_that_are_longer_by_a_factor_never_count_as_shorter(
        median in 0_u32..10_000,
        tail in 0_u32..100_000,
        deadline in 0_u32..10_000,
        longer in 0_u32..10_000,
        factor in 1_u32..10,
    ) {
        let counted = |median: u32, tail: u32| {
            let (task, task_tail) = (median * SECOND, tail * SECOND);
            let estimates = Estimates { task, task_tail, ..Estimates::default() };
            counted_task(estimates, deadline * SECOND)
        };
        let before = counted(median, tail);
        prop_assert!(counted(median, tail + longer) >= before);
        prop_assert!(counted(median * factor, tail * factor) >= before);
        prop_assert!(before >= (1_000 * u64::from(median)).max(1));
    }

    #[test]
    fn deciding_again_changes_nothing_once_workers_were_created_and_while_nothing_happens(
        pool in pools(),
        later in any::<prop::sample::Index>(),
    ) {
        // Idle workers would begin messages.
        let pool = RandomPool { idle: 0, ..pool };
        let mut scene = pool.scene();
        scene.policy.stale_after = Duration::from_secs(3_600);
        let need_before = need(&scene);
        let (scene, decision) = scene.executed();
        let scene = scene.created();
        let again = scene.decision();
        prop_assert_eq!(&again.plan, &Vec::new());
        prop_assert_eq!(again.desired(), decision.desired());
        prop_assert_eq!(again.explanation.need, Some(need_before));
        // Until the first task should end or the first worker be ready.
        let startup = 1_000 * u64::from(pool.startup);
        let first = pool.rests().chain(pool.starting()).fold(startup, u64::min);
        if first > 1_000 {
            let seconds = later.index(usize::try_from(first / 1_000).unwrap()) as u64;
            prop_assert_eq!(need(&scene.without_reading(seconds)), need_before, "after {} s", seconds);
        }
    }
}
