//! Learns how long a role's tasks take and its pods take to start. Pure.

use std::collections::BTreeMap;

use crate::decide::{
    DeclaredEstimates, Estimates, GroupReading, LearnedSummary, LearnedTimes, Moment, PodName, PodState,
    Workload,
};
use crate::observe::FinishedTask;

/// The learned times of a role, and the pods that are starting.
#[derive(Debug, Default)]
pub(super) struct Learning {
    times: LearnedTimes,
    /// The pods of the last workload; none before the first one.
    pods: Option<BTreeMap<PodName, PodStart>>,
}

/// The start-up of a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PodStart {
    /// It was created then, or no node had room for it until then, and it was not a member of the group yet.
    Since(Moment),
    /// It is over, or its begin or end is unknown. A container that restarts does not begin another one.
    Over,
}

impl Learning {
    /// Continues with the times that another leader learned.
    pub(super) fn restored(before: LearnedSummary) -> Self {
        Self {
            times: LearnedTimes::restored(before),
            pods: None,
        }
    }

    /// Records the tasks that a reading shows as completed.
    pub(super) fn record_tasks(&mut self, finished: &[FinishedTask]) {
        for task in finished {
            self.times.task_finished(task.took);
        }
    }

    /// Records the pods, and which of them have become members of the group. A start-up ends with the first reading in
    /// which the pod is a member: which partitions it has then depends on the tasks of other members. Pods that exist
    /// at the first call may have been members before, and do not count.
    pub(super) fn record_pods(&mut self, workload: &Workload, workers: &GroupReading, now: Moment) {
        let before = self.pods.take();
        let pods = workload.pods.iter().map(|pod| {
            let start = match &before {
                Some(before) => before.get(&pod.name).copied(),
                None => Some(PodStart::Over),
            };
            let start = match start.unwrap_or_else(|| PodStart::Since(pod.created.unwrap_or(now))) {
                PodStart::Since(_) if pod.state == PodState::Unschedulable => PodStart::Since(now),
                PodStart::Since(begun) if pod.state.is_live() => match joined(workers, &pod.name) {
                    Some(at) => {
                        self.times.worker_started(at.since(begun));
                        PodStart::Over
                    }
                    None => PodStart::Since(begun),
                },
                PodStart::Since(_) | PodStart::Over => PodStart::Over,
            };
            (pod.name.clone(), start)
        });
        self.pods = Some(pods.collect());
    }

    /// The times to expect.
    pub(super) fn estimates(&self, declared: DeclaredEstimates) -> Estimates {
        self.times.estimates(declared)
    }

    /// What was learned so far, for the status.
    pub(super) fn summary(&self) -> LearnedSummary {
        self.times.summary()
    }
}

/// When the group was read, if the pod is a member.
fn joined(workers: &GroupReading, pod: &PodName) -> Option<Moment> {
    let GroupReading::Stable { at, members } = workers else {
        return None;
    };
    let is_member = members.iter().any(|member| member.pod == *pod);
    is_member.then_some(*at)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::decide::{CostAnnotation, Member, MemberWork, Pod};

    /// A role whose pods and members change.
    struct Fixture {
        learning: Learning,
        now: Moment,
        workload: Workload,
    }

    impl Fixture {
        /// A leader that has not observed any pods yet.
        fn new() -> Self {
            Self {
                learning: Learning::default(),
                now: Moment::from_millis(10_000_000),
                workload: Workload::default(),
            }
        }

        /// A pod that was created some seconds ago.
        fn create(&mut self, name: &str, seconds: u64) {
            let created = Moment::from_millis(self.now.as_millis() - 1_000 * seconds);
            self.workload.pods.push(Pod {
                name: name.into(),
                state: PodState::NotReady,
                cost_annotation: CostAnnotation::Absent,
                replica_set: "set-1".into(),
                created: Some(created),
            });
        }

        /// Records the pods some seconds later, with these members.
        fn read<const N: usize>(&mut self, seconds: u64, members: [&str; N]) {
            self.now = self.now + Duration::from_secs(seconds);
            let members = members.map(|name| Member {
                pod: name.into(),
                work: MemberWork::Partitions(vec![0]),
            });
            let workers = GroupReading::Stable {
                at: self.now,
                members: members.into(),
            };
            self.learning.record_pods(&self.workload, &workers, self.now);
        }

        /// The start-ups that were learned, and their median in seconds.
        fn starts(&self) -> (u64, u64) {
            let summary = self.learning.summary();
            (summary.starts, summary.startup_seconds)
        }
    }

    #[test]
    fn a_start_up_lasts_from_the_creation_of_a_pod_until_it_is_a_member() {
        let mut fixture = Fixture::new();
        fixture.read(0, []);
        fixture.create("p0", 1);
        fixture.read(20, []);
        let rebalancing = GroupReading::Rebalancing { at: fixture.now };
        let pods = fixture.workload.clone();
        fixture.learning.record_pods(&pods, &rebalancing, fixture.now);
        assert_eq!(fixture.starts(), (0, 0));
        fixture.read(30, ["p0"]);
        assert_eq!(fixture.starts(), (1, 51));
        fixture.read(30, ["p0"]);
        assert_eq!(fixture.starts(), (1, 51), "each pod counts once");
    }

    #[test]
    fn a_start_up_begins_when_a_node_has_room() {
        let mut fixture = Fixture::new();
        fixture.read(0, []);
        fixture.create("p0", 0);
        fixture.workload.pods[0].state = PodState::Unschedulable;
        fixture.read(10, []);
        fixture.read(600, []);
        fixture.workload.pods[0].state = PodState::NotReady;
        fixture.read(20, []);
        fixture.read(20, ["p0"]);
        assert_eq!(fixture.starts(), (1, 40));
    }

    #[test]
    fn a_restart_of_a_container_is_no_start_up() {
        let mut fixture = Fixture::new();
        fixture.read(0, []);
        fixture.create("p0", 0);
        fixture.read(10, ["p0"]);
        fixture.read(10, []);
        fixture.read(600, ["p0"]);
        assert_eq!(fixture.starts(), (1, 10));
    }

    #[test]
    fn pods_of_an_earlier_leader_do_not_count() {
        let mut fixture = Fixture::new();
        fixture.create("old", 3_600);
        fixture.read(0, []);
        fixture.create("new", 0);
        fixture.read(40, ["old", "new"]);
        assert_eq!(fixture.starts(), (1, 40));
    }

    #[test]
    fn a_pod_that_never_joins_does_not_count_and_is_forgotten() {
        let mut fixture = Fixture::new();
        fixture.read(0, []);
        fixture.create("terminated", 0);
        fixture.create("deleted", 0);
        fixture.workload.pods[0].state = PodState::Draining;
        fixture.read(5, []);
        fixture.read(5, ["terminated"]);
        fixture.workload.pods.clear();
        fixture.read(5, ["deleted"]);
        assert_eq!(fixture.starts(), (0, 0));
        assert_eq!(fixture.learning.pods, Some(BTreeMap::new()));
    }

    #[test]
    fn completed_tasks_and_restored_times_are_learned() {
        let before = LearnedSummary {
            starts: 3,
            startup_seconds: 50,
            ..LearnedSummary::default()
        };
        let mut learning = Learning::restored(before);
        let task = |partition, seconds| FinishedTask {
            partition,
            next: 7,
            took: Duration::from_secs(seconds),
        };
        learning.record_tasks(&[task(0, 20), task(1, 40), task(2, 30)]);
        let expected = LearnedSummary {
            tasks: 3,
            task_seconds: 30,
            task_tail_seconds: 40,
            ..before
        };
        assert_eq!(learning.summary(), expected);
    }
}
