//! Worker processes as pods for decisions, and the choice that Kubernetes would make of which to stop at a scale-down.
//! Pure.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use crate::decide::{
    CostAnnotation, GroupReading, Member, MemberWork, Moment, Pod, PodName, PodState, Workload,
};

/// The wait before a worker that ended by itself is restarted; it doubles with each, up to the longest.
const INITIAL_BACKOFF: Duration = Duration::from_secs(1);
const MAX_BACKOFF: Duration = Duration::from_secs(30);

/// A worker's process, as last observed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct WorkerSnapshot {
    pub(super) name: PodName,
    pub(super) activity: WorkerActivity,
}

/// The activity of a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum WorkerActivity {
    /// It loads its model, or joins the group.
    Starting,
    /// It has no task.
    Idle,
    /// It has a task.
    Busy,
    /// It takes no further tasks.
    Draining,
    /// It did not respond: it may have a task.
    Unknown,
}

/// A role's processes as a workload.
pub(super) fn workload(
    workers: &[WorkerSnapshot],
    replicas: u32,
    candidates: &BTreeSet<PodName>,
) -> Workload {
    let set: Arc<str> = "processes".into();
    let pods = workers.iter().map(|worker| Pod {
        name: worker.name.clone(),
        state: match worker.activity {
            WorkerActivity::Starting => PodState::NotReady,
            WorkerActivity::Idle | WorkerActivity::Busy | WorkerActivity::Unknown => PodState::Ready,
            WorkerActivity::Draining => PodState::Draining,
        },
        cost_annotation: if candidates.contains(&worker.name) {
            CostAnnotation::Present
        } else {
            CostAnnotation::Absent
        },
        // Processes have no ReplicaSets; only this process stops them.
        replica_set: Arc::clone(&set),
    });
    Workload {
        replicas,
        pods: pods.collect(),
        status: None,
    }
}

/// The workers as group members, with a task or not by their own status.
pub(super) fn group(workers: &[WorkerSnapshot], at: Moment) -> GroupReading {
    let members = workers.iter().filter_map(|worker| {
        Some(Member {
            pod: worker.name.clone(),
            work: match worker.activity {
                WorkerActivity::Busy => MemberWork::Task,
                WorkerActivity::Idle => MemberWork::NoTask,
                WorkerActivity::Starting | WorkerActivity::Draining | WorkerActivity::Unknown => return None,
            },
        })
    });
    GroupReading::Stable {
        at,
        members: members.collect(),
    }
}

/// The workers to stop so that `replicas` remain, as Kubernetes chooses: those that are not ready first, then
/// scale-down candidates, then the others; the newest first. `workers` has the oldest first.
pub(super) fn to_stop(
    workers: &[WorkerSnapshot],
    replicas: u32,
    candidates: &BTreeSet<PodName>,
) -> Vec<PodName> {
    let mut running: Vec<_> = workers
        .iter()
        .filter(|worker| worker.activity != WorkerActivity::Draining)
        .enumerate()
        .collect();
    let surplus = running
        .len()
        .saturating_sub(usize::try_from(replicas).unwrap_or(usize::MAX));
    running.sort_by_key(|(age, worker)| {
        let is_ready = worker.activity != WorkerActivity::Starting;
        (
            is_ready,
            !candidates.contains(&worker.name),
            std::cmp::Reverse(*age),
        )
    });
    let stopped = running.into_iter().take(surplus);
    stopped.map(|(_, worker)| worker.name.clone()).collect()
}

/// The wait before the next start, after `failures` consecutive workers that ended by themselves.
pub(super) fn backoff(failures: u32) -> Duration {
    match failures {
        0 => Duration::ZERO,
        // 2^5 times the first wait exceeds the longest.
        more => INITIAL_BACKOFF
            .saturating_mul(1 << (more - 1).min(5))
            .min(MAX_BACKOFF),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshots(workers: &[(&str, WorkerActivity)]) -> Vec<WorkerSnapshot> {
        let workers = workers.iter().map(|(name, activity)| WorkerSnapshot {
            name: (*name).into(),
            activity: *activity,
        });
        workers.collect()
    }

    fn check_to_stop(
        workers: &[(&str, WorkerActivity)],
        replicas: u32,
        candidates: &[&str],
        expected: &[&str],
    ) {
        let candidates = candidates.iter().map(|name| PodName::from(*name)).collect();
        let to_stop = to_stop(&snapshots(workers), replicas, &candidates);
        let names: Vec<_> = to_stop.iter().map(PodName::as_str).collect();
        assert_eq!(names, expected);
    }

    #[test]
    fn workers_to_stop_are_chosen_as_kubernetes_chooses() {
        let workers = [
            ("a", WorkerActivity::Idle),
            ("b", WorkerActivity::Busy),
            ("c", WorkerActivity::Idle),
            ("d", WorkerActivity::Starting),
            ("e", WorkerActivity::Draining),
        ];
        check_to_stop(&workers, 4, &[], &[]);
        check_to_stop(&workers, 3, &["a"], &["d"]);
        check_to_stop(&workers, 2, &["a"], &["d", "a"]);
        check_to_stop(&workers, 1, &["a", "c"], &["d", "c", "a"]);
        check_to_stop(&workers, 9, &["a"], &[]);
    }

    #[test]
    fn workers_that_do_not_respond_are_ready_with_unknown_activity() {
        let workers = snapshots(&[
            ("a", WorkerActivity::Unknown),
            ("b", WorkerActivity::Busy),
            ("c", WorkerActivity::Starting),
        ]);
        let at = Moment::from_millis(5);
        let GroupReading::Stable { members, .. } = group(&workers, at) else {
            panic!("members are known")
        };
        assert_eq!(members.len(), 1);
        assert_eq!(members[0].work, MemberWork::Task);
        let workload = workload(&workers, 3, &BTreeSet::from(["b".into()]));
        let states: Vec<_> = workload
            .pods
            .iter()
            .map(|pod| (pod.state, pod.cost_annotation))
            .collect();
        let expected = [
            (PodState::Ready, CostAnnotation::Absent),
            (PodState::Ready, CostAnnotation::Present),
            (PodState::NotReady, CostAnnotation::Absent),
        ];
        assert_eq!(states, expected);
    }

    #[test]
    fn the_backoff_of_worker_starts_grows_to_30_s() {
        let waits = [0, 1, 2, 5, 6, 7, u32::MAX].map(|failures| backoff(failures).as_secs());
        assert_eq!(waits, [0, 1, 2, 16, 30, 30, 30]);
    }
}
