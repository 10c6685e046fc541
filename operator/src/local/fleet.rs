//! Worker processes as decisions see pods, and what Kubernetes would do with them: who goes when there are to be fewer.
//! Pure.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use crate::decide::{GroupReading, Holds, Marked, Member, Moment, Pod, PodName, PodState, Workload};

/// The wait before a worker that ended by itself is started anew; it doubles with each, up to the longest.
const FIRST_BACK_OFF: Duration = Duration::from_secs(1);
const LONGEST_BACK_OFF: Duration = Duration::from_secs(30);

/// A worker's process, as it was last seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) name: PodName,
    pub(super) doing: Doing,
}

/// What a worker is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Doing {
    /// It loads its model, or joins the group.
    Starting,
    /// It waits for a task.
    Idle,
    /// It has one.
    Busy,
    /// It takes no other one.
    Draining,
    /// It did not answer: it may have one.
    Untold,
}

/// What runs for a role.
pub(super) fn workload(seen: &[Seen], replicas: u32, marked: &BTreeSet<PodName>) -> Workload {
    let set: Arc<str> = "processes".into();
    let pods = seen.iter().map(|worker| Pod {
        name: worker.name.clone(),
        state: match worker.doing {
            Doing::Starting => PodState::NotReady,
            Doing::Idle | Doing::Busy | Doing::Untold => PodState::Ready,
            Doing::Draining => PodState::Draining,
        },
        marked: if marked.contains(&worker.name) {
            Marked::Yes
        } else {
            Marked::No
        },
        // Processes have no ReplicaSets: nothing but us ends them.
        replica_set: Arc::clone(&set),
    });
    Workload {
        replicas,
        pods: pods.collect(),
        status: None,
    }
}

/// Who has a task, as the workers say themselves.
pub(super) fn group(seen: &[Seen], at: Moment) -> GroupReading {
    let members = seen.iter().filter_map(|worker| {
        Some(Member {
            pod: worker.name.clone(),
            holds: match worker.doing {
                Doing::Busy => Holds::Task,
                Doing::Idle => Holds::NoTask,
                Doing::Starting | Doing::Draining | Doing::Untold => return None,
            },
        })
    });
    GroupReading::Stable {
        at,
        members: members.collect(),
    }
}

/// Who goes so that `replicas` stay: as Kubernetes chooses, those that are not ready first, then marked ones, then the
/// others; the newest first. `seen` has the oldest first.
pub(super) fn leaving(seen: &[Seen], replicas: u32, marked: &BTreeSet<PodName>) -> Vec<PodName> {
    let mut standing: Vec<_> = seen
        .iter()
        .filter(|worker| worker.doing != Doing::Draining)
        .enumerate()
        .collect();
    let surplus = standing
        .len()
        .saturating_sub(usize::try_from(replicas).unwrap_or(usize::MAX));
    standing.sort_by_key(|(age, worker)| {
        let is_ready = worker.doing != Doing::Starting;
        (is_ready, !marked.contains(&worker.name), std::cmp::Reverse(*age))
    });
    let going = standing.into_iter().take(surplus);
    going.map(|(_, worker)| worker.name.clone()).collect()
}

/// The wait before the next start, after so many workers in a row that ended by themselves.
pub(super) fn back_off(failures: u32) -> Duration {
    match failures {
        0 => Duration::ZERO,
        // 2^5 times the first is longer than the longest.
        more => FIRST_BACK_OFF
            .saturating_mul(1 << (more - 1).min(5))
            .min(LONGEST_BACK_OFF),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(workers: &[(&str, Doing)]) -> Vec<Seen> {
        let seen = workers.iter().map(|(name, doing)| Seen {
            name: (*name).into(),
            doing: *doing,
        });
        seen.collect()
    }

    fn check_leaving(workers: &[(&str, Doing)], replicas: u32, marked: &[&str], expected: &[&str]) {
        let marked = marked.iter().map(|name| PodName::from(*name)).collect();
        let leaving = leaving(&seen(workers), replicas, &marked);
        let names: Vec<_> = leaving.iter().map(PodName::as_str).collect();
        assert_eq!(names, expected);
    }

    #[test]
    fn who_goes_is_chosen_as_kubernetes_chooses() {
        let workers = [
            ("a", Doing::Idle),
            ("b", Doing::Busy),
            ("c", Doing::Idle),
            ("d", Doing::Starting),
            ("e", Doing::Draining),
        ];
        check_leaving(&workers, 4, &[], &[]);
        check_leaving(&workers, 3, &["a"], &["d"]);
        check_leaving(&workers, 2, &["a"], &["d", "a"]);
        check_leaving(&workers, 1, &["a", "c"], &["d", "c", "a"]);
        check_leaving(&workers, 9, &["a"], &[]);
    }

    #[test]
    fn workers_that_do_not_answer_are_ready_and_untold() {
        let seen = seen(&[("a", Doing::Untold), ("b", Doing::Busy), ("c", Doing::Starting)]);
        let at = Moment::from_millis(5);
        let GroupReading::Stable { members, .. } = group(&seen, at) else {
            panic!("members are known")
        };
        assert_eq!(members.len(), 1);
        assert_eq!(members[0].holds, Holds::Task);
        let workload = workload(&seen, 3, &BTreeSet::from(["b".into()]));
        let states: Vec<_> = workload.pods.iter().map(|pod| (pod.state, pod.marked)).collect();
        let expected = [
            (PodState::Ready, Marked::No),
            (PodState::Ready, Marked::Yes),
            (PodState::NotReady, Marked::No),
        ];
        assert_eq!(states, expected);
    }

    #[test]
    fn the_wait_for_a_new_worker_grows_to_half_a_minute() {
        let waits = [0, 1, 2, 5, 6, 7, u32::MAX].map(|failures| back_off(failures).as_secs());
        assert_eq!(waits, [0, 1, 2, 16, 30, 30, 30]);
    }
}
