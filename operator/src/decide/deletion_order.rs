//! The pods that Kubernetes deletes at a scale-down: a model for pools without it.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use super::observation::{CostAnnotation, Pod, PodName, Workload};

impl Workload {
    /// The pods that Kubernetes deletes so that `replicas` remain, if `pods` has the oldest first. The Deployment
    /// controller splits the surplus over the ReplicaSets by their size. A ReplicaSet deletes pods that are not ready
    /// first, then those with our annotation, then the others; the newest first.
    pub fn surplus_pods(&self) -> Vec<PodName> {
        let mut sets: BTreeMap<&str, Vec<&Pod>> = BTreeMap::new();
        for pod in self.live() {
            sets.entry(&pod.replica_set).or_default().push(pod);
        }
        let live: usize = sets.values().map(Vec::len).sum();
        let surplus = live.saturating_sub(usize::try_from(self.replicas).unwrap_or(usize::MAX));
        let mut sets: Vec<Vec<&Pod>> = sets.into_values().collect();
        sets.sort_by_key(|set| Reverse(set.len()));
        let mut deleted = Vec::new();
        for mut set in sets {
            let share = (surplus * set.len()).div_ceil(live);
            let count = share.min(surplus - deleted.len());
            set.reverse();
            set.sort_by_key(|pod| (pod.state, pod.cost_annotation == CostAnnotation::Absent));
            deleted.extend(set.into_iter().take(count).map(|pod| pod.name.clone()));
        }
        deleted
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::PodState;

    /// Pods `a`, `b`, … of the given states and ReplicaSets.
    fn check(pods: &[(PodState, &str)], annotated: &[&str], replicas: u32, expected: &[&str]) {
        let named = ('a'..).map(String::from).zip(pods);
        let pods = named.map(|(name, (state, set))| Pod {
            cost_annotation: if annotated.contains(&name.as_str()) {
                CostAnnotation::Present
            } else {
                CostAnnotation::Absent
            },
            name: name.as_str().into(),
            state: *state,
            replica_set: (*set).into(),
            created: None,
        });
        let workload = Workload {
            replicas,
            pods: pods.collect(),
            status: None,
        };
        let surplus = workload.surplus_pods();
        let names: Vec<_> = surplus.iter().map(PodName::as_str).collect();
        assert_eq!(names, expected, "{annotated:?}, {replicas} replicas");
    }

    #[test]
    fn pods_are_deleted_by_readiness_then_annotation_then_age() {
        let pods = [
            (PodState::Ready, "set"),
            (PodState::Ready, "set"),
            (PodState::Ready, "set"),
            (PodState::NotReady, "set"),
            (PodState::Draining, "set"),
            (PodState::Unschedulable, "set"),
            (PodState::Overdue, "set"),
        ];
        check(&pods, &[], 5, &[]);
        check(&pods, &["a"], 9, &[]);
        check(&pods, &["a"], 4, &["f"]);
        check(&pods, &["a"], 3, &["f", "d"]);
        check(&pods, &["a"], 2, &["f", "d", "a"]);
        check(&pods, &["a", "b"], 0, &["f", "d", "b", "a", "c"]);
        check(&pods[..3], &[], 1, &["c", "b"]);
        check(&[], &[], 0, &[]);
    }

    #[test]
    fn a_surplus_is_split_over_the_replica_sets_by_their_size() {
        let pods = [
            (PodState::Ready, "new"),
            (PodState::Ready, "old"),
            (PodState::Ready, "old"),
            (PodState::Ready, "old"),
        ];
        check(&pods, &["a"], 3, &["d"]);
        check(&pods, &["a"], 1, &["d", "c", "b"]);
        check(&pods, &["b"], 2, &["b", "d"]);
    }
}
