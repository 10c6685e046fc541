//! The model of a consumer group with the assignor `cooperative-sticky`: which member holds which partition.
//!
//! A rebalance takes a fixed time, in which members learn of it and join again; they consume what they hold meanwhile.
//! When it ends, partitions without a holder are assigned, and members with more than an even share revoke the rest. A
//! member whose running task's partition is among these retains all of them until the task ends, other members release
//! them immediately. A second rebalance assigns what was released. No rebalance ends while a member retains partitions,
//! because that member joins again only then.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::time::Duration;

use separation_operator::decide::Moment;

/// Identifies a worker; later ones have higher numbers.
pub(super) type WorkerId = u64;

/// A consumer group in one topic.
#[derive(Debug)]
pub(super) struct Group {
    rebalance: Duration,
    holders: Vec<Option<WorkerId>>,
    members: BTreeMap<WorkerId, Member>,
    /// When the rebalance in progress ends, at the earliest.
    rebalance_end: Option<Moment>,
}

/// A member's partitions, ascending.
#[derive(Debug, Default)]
struct Member {
    held: Vec<usize>,
    /// Those of `held` that are revoked.
    retained: Vec<usize>,
}

impl Group {
    pub(super) fn new(partitions: usize, rebalance: Duration) -> Self {
        Self {
            rebalance,
            holders: vec![None; partitions],
            members: BTreeMap::new(),
            rebalance_end: None,
        }
    }

    pub(super) fn join(&mut self, id: WorkerId, now: Moment) {
        self.members.insert(id, Member::default());
        self.begin_rebalance(now);
    }

    pub(super) fn leave(&mut self, id: WorkerId, now: Moment) {
        if let Some(member) = self.members.remove(&id) {
            self.release(&member.held);
            self.begin_rebalance(now);
        }
    }

    /// A member's task ended: it releases what it retained.
    pub(super) fn task_ended(&mut self, id: WorkerId, now: Moment) {
        let Some(member) = self.members.get_mut(&id) else {
            return;
        };
        let retained = std::mem::take(&mut member.retained);
        if !retained.is_empty() {
            member.held.retain(|partition| !retained.contains(partition));
            self.release(&retained);
            self.begin_rebalance(now);
        }
    }

    /// Ends the rebalances that are due. `running` is the partition of a member's running task.
    pub(super) fn advance(&mut self, now: Moment, running: impl Fn(WorkerId) -> Option<usize>) {
        while self.next_event().is_some_and(|end| end <= now) {
            self.rebalance_end = None;
            self.assign_free();
            self.revoke_surplus(now, &running);
        }
    }

    /// When the rebalance in progress ends; none if there is none, or a member must finish its task first.
    pub(super) fn next_event(&self) -> Option<Moment> {
        let retains = |member: &Member| !member.retained.is_empty();
        self.rebalance_end.filter(|_| !self.members.values().any(retains))
    }

    pub(super) fn is_rebalancing(&self) -> bool {
        self.rebalance_end.is_some()
    }

    pub(super) fn members(&self) -> impl Iterator<Item = WorkerId> {
        self.members.keys().copied()
    }

    /// The partitions that a member holds, ascending; empty if it is no member.
    pub(super) fn held(&self, id: WorkerId) -> &[usize] {
        self.members.get(&id).map_or(&[], |member| member.held.as_slice())
    }

    /// Those of [`Self::held`] that are assigned to the member, and not revoked.
    pub(super) fn assigned(&self, id: WorkerId) -> impl Iterator<Item = usize> {
        let retained: &[usize] = self
            .members
            .get(&id)
            .map_or(&[], |member| member.retained.as_slice());
        let held = self.held(id).iter().copied();
        held.filter(move |partition| !retained.contains(partition))
    }

    fn begin_rebalance(&mut self, now: Moment) {
        self.rebalance_end.get_or_insert(now + self.rebalance);
    }

    fn release(&mut self, partitions: &[usize]) {
        for partition in partitions {
            self.holders[*partition] = None;
        }
    }

    /// Assigns partitions without a holder, each to the member with the fewest.
    fn assign_free(&mut self) {
        let sizes = self
            .members
            .iter()
            .map(|(id, member)| Reverse((member.held.len(), *id)));
        let mut smallest: BinaryHeap<_> = sizes.collect();
        for partition in 0..self.holders.len() {
            if self.holders[partition].is_some() {
                continue;
            }
            let Some(Reverse((size, id))) = smallest.pop() else {
                return;
            };
            smallest.push(Reverse((size + 1, id)));
            self.holders[partition] = Some(id);
            if let Some(member) = self.members.get_mut(&id) {
                let place = member.held.partition_point(|held| *held < partition);
                member.held.insert(place, partition);
            }
        }
    }

    /// Members with more than an even share revoke their first partitions.
    fn revoke_surplus(&mut self, now: Moment, running: &impl Fn(WorkerId) -> Option<usize>) {
        let Some(share) = self.holders.len().checked_div(self.members.len()) else {
            return;
        };
        // The members that have the most keep one more than the share, as far as the partitions suffice.
        let mut larger = self.holders.len() % self.members.len();
        let mut by_size: Vec<(Reverse<usize>, WorkerId)> = self
            .members
            .iter()
            .map(|(id, member)| (Reverse(member.held.len()), *id))
            .collect();
        by_size.sort_unstable();
        for (Reverse(size), id) in by_size {
            let keeps = share + usize::from(larger > 0);
            larger = larger.saturating_sub(1);
            let Some(surplus) = size.checked_sub(keeps).filter(|surplus| *surplus > 0) else {
                continue;
            };
            let Some(member) = self.members.get_mut(&id) else {
                continue;
            };
            let revoked = member.held[..surplus].to_vec();
            if running(id).is_some_and(|partition| revoked.contains(&partition)) {
                member.retained = revoked;
            } else {
                member.held.drain(..surplus);
                self.release(&revoked);
                self.begin_rebalance(now);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REBALANCE: Duration = Duration::from_secs(3);

    fn at(seconds: u64) -> Moment {
        Moment::from_millis(1_000 * seconds)
    }

    /// A group of 4 partitions whose member 1 holds all of them.
    fn one_member() -> Group {
        let mut group = Group::new(4, REBALANCE);
        group.join(1, at(0));
        assert!(group.held(1).is_empty());
        group.advance(at(3), |_| None);
        assert_eq!(group.held(1), [0, 1, 2, 3]);
        group
    }

    #[test]
    fn partitions_move_in_a_second_rebalance() {
        let mut group = one_member();
        group.join(2, at(10));
        group.advance(at(13), |_| Some(3));
        assert_eq!(group.held(1), [2, 3]);
        assert!(group.held(2).is_empty());
        assert_eq!(group.next_event(), Some(at(16)));
        group.advance(at(16), |_| Some(3));
        assert_eq!(group.held(1), [2, 3]);
        assert_eq!(group.held(2), [0, 1]);
        assert!(!group.is_rebalancing());
    }

    #[test]
    fn a_revoked_set_with_the_running_task_is_retained_until_it_ends_and_delays_all_joiners() {
        let mut group = one_member();
        group.join(2, at(10));
        group.advance(at(13), |id| (id == 1).then_some(1));
        assert_eq!(group.held(1), [0, 1, 2, 3]);
        assert!(group.assigned(1).eq([2, 3]));
        assert!(!group.is_rebalancing());
        group.join(3, at(20));
        assert_eq!(group.next_event(), None);
        group.task_ended(1, at(60));
        assert_eq!(group.next_event(), Some(at(23)));
        group.advance(at(60), |_| None);
        assert_eq!(group.held(1), [2, 3]);
        assert_eq!(group.held(2), [0]);
        assert_eq!(group.held(3), [1]);
    }

    #[test]
    fn partitions_of_a_member_that_leaves_are_assigned_to_the_smallest() {
        let mut group = Group::new(7, Duration::ZERO);
        for id in 1..=3 {
            group.join(id, at(0));
        }
        group.advance(at(0), |_| None);
        let sizes = |group: &Group| (1..=3).map(|id| group.held(id).len()).collect::<Vec<_>>();
        assert_eq!(sizes(&group), [3, 2, 2]);
        group.leave(2, at(5));
        group.advance(at(5), |_| None);
        assert_eq!(sizes(&group), [4, 0, 3]);
        for id in [1, 3] {
            group.leave(id, at(6));
        }
        group.advance(at(6), |_| None);
        assert!(group.members().next().is_none() && !group.is_rebalancing());
    }
}
