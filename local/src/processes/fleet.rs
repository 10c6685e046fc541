//! Worker processes as pods for decisions. Pure.

use std::collections::BTreeSet;
use std::sync::Arc;

use separation_operator::decide::{
    CostAnnotation, GroupReading, Member, MemberWork, Moment, Pod, PodName, PodState, Workload,
};

/// A worker's process, as last observed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct WorkerSnapshot {
    pub(super) name: PodName,
    pub(super) activity: WorkerActivity,
    pub(super) created: Moment,
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
        created: Some(worker.created),
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

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshots(workers: &[(&str, WorkerActivity)]) -> Vec<WorkerSnapshot> {
        let workers = workers.iter().map(|(name, activity)| WorkerSnapshot {
            name: (*name).into(),
            activity: *activity,
            created: Moment::default(),
        });
        workers.collect()
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
}
