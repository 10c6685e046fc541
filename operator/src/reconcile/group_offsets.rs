//! The committed offsets of a role's group: whether they are initialized, and what to commit next so that they are
//! neither lost nor overwritten. Pure.
//!
//! An adoption is the initialization of a group's offsets for one topic of one cluster. It is recorded in the pool's
//! status with their ids.
//!
//! Whether a group is in use is decided by its members, never by pods: terminating pods may belong to another group,
//! and unscheduled pods belong to none.

use std::sync::Arc;
use std::time::Duration;

use separation_kafka::TopicIdentity;

use super::conflicts::GroupUse;
use super::identity::GroupProof;
use crate::apply::offsets::{
    Commits, StableOffsets, recalled, to_adopt, to_remember, to_replace, to_restore,
};
use crate::crd::OffsetsStatus;
use crate::decide::{GroupReading, Lag, Moment, Workload};
use crate::observe::poller::Polled;
use crate::observe::{Adoption, LagWithAnomalies, TopicOffsets, TopicRelation, compute_lag};
use crate::plan::RolePlan;
use crate::watch::cache::RoleKey;

/// Maximum time from a group's loss of its last member, or the operator's start, to the first repeated commit of its
/// offsets; each group waits a random part of it. Short, so that an operator that restarts every day keeps offsets too;
/// random, so that a thousand groups are not committed together.
const FIRST_RECOMMIT: Duration = Duration::from_secs(600);

/// How to initialize a group's offsets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Adopt {
    /// The offsets to commit; empty if the group's offsets are complete, or it has members.
    pub(super) commits: Commits,
    /// The topic's ids.
    pub(super) topic: TopicIdentity,
    /// The topic's number of partitions.
    pub(super) partitions: usize,
}

/// Whether a group has members, by the last reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Membership {
    /// It has no members.
    Empty,
    /// It has members, or is rebalancing.
    Members,
    /// Members could not be read.
    Unknown,
}

/// The state of a group's committed offsets.
#[derive(Debug, Default)]
pub(super) struct GroupOffsets {
    adoption: Option<OffsetsStatus>,
    /// Whether consecutive readings agree on the committed offsets.
    stable_offsets: StableOffsets,
    /// The topic's ids at the last reading.
    topic: Option<TopicIdentity>,
    /// The last reading, if every partition was read, with the brokers' offsets.
    read: Option<TopicOffsets>,
    /// `read` with the offsets recorded in the status, if the group has lost all of its offsets.
    recalled: Option<TopicOffsets>,
    membership: Option<Membership>,
    /// When the operator last committed the offsets, since the group lost its last member.
    recommitted_at: Option<Moment>,
    /// When the group lost its last member, or the operator started.
    idle_since: Moment,
    /// Random part of [`FIRST_RECOMMIT`], from 0 to 1, after which offsets are committed again for the first time.
    random_part: f64,
    /// The cluster that last accepted credentials for the group.
    used_in: Option<Arc<str>>,
}

impl GroupOffsets {
    /// `adoption` is from the pool's status.
    pub(super) fn new(adoption: Option<&OffsetsStatus>, now: Moment) -> Self {
        Self {
            adoption: adoption.cloned(),
            idle_since: now,
            random_part: fastrand::f64(),
            used_in: adoption.and_then(|adoption| known(&adoption.cluster_id)),
            ..Self::default()
        }
    }

    /// The adoption for the pool's status.
    pub(super) fn adoption(&self) -> Option<&OffsetsStatus> {
        self.adoption.as_ref()
    }

    /// The adoption, unless it was recorded for another group.
    fn adoption_for_group(&self, plan: &RolePlan) -> Option<&OffsetsStatus> {
        self.adoption
            .as_ref()
            .filter(|adoption| adoption.consumer_group.is_empty() || adoption.consumer_group == plan.group)
    }

    /// The adoption for a query.
    pub(super) fn adoption_of(&self, plan: &RolePlan) -> Adoption {
        Adoption {
            initialized_for: self.adoption_for_group(plan).map(|adoption| TopicIdentity {
                cluster_id: known(&adoption.cluster_id),
                topic_id: known(&adoption.topic_id),
            }),
            policy: plan.initial_offset,
        }
    }

    /// Whether offsets were ever initialized, for this or another topic.
    pub(super) fn is_initialized(&self, plan: &RolePlan) -> bool {
        self.adoption_of(plan).initialized_for.is_some()
    }

    /// The cluster in which the pool uses its group: the one that last accepted credentials for it, or that its status
    /// names.
    pub(super) fn group_use(&self, plan: &RolePlan, proof: GroupProof) -> Option<GroupUse> {
        let cluster_id = self.used_in.clone()?;
        let adoption = self
            .adoption_for_group(plan)
            .filter(|adoption| *adoption.cluster_id == *cluster_id);
        Some(GroupUse {
            is_adopted: adoption.is_some(),
            is_proven: match proof {
                GroupProof::Credentials => true,
                GroupProof::Members => adoption.is_some_and(|adoption| adoption.workers_joined),
            },
            cluster_id,
        })
    }

    /// Records that workers of the pool are members of the group.
    pub(super) fn workers_joined(&mut self, plan: &RolePlan) {
        let is_same = self.relation(plan) == Some(TopicRelation::Same);
        if let Some(adoption) = self.adoption.as_mut().filter(|_| is_same) {
            adoption.workers_joined = true;
        }
    }

    /// Applies a reading, and returns the lag to decide on, which is counted from the offsets recorded in the status if
    /// the group has lost all of its own.
    pub(super) fn read(&mut self, polled: &Polled<RoleKey>, plan: &RolePlan) -> LagWithAnomalies {
        self.read_members(polled);
        let found = polled.result.offsets.as_ref();
        if let Some(found) = found {
            self.topic = Some(found.identity.clone());
            let mut partitions = found.partitions.iter();
            if partitions.any(|partition| partition.committed.is_ok()) && found.identity.cluster_id.is_some()
            {
                self.used_in.clone_from(&found.identity.cluster_id);
            }
        }
        self.read = found
            .filter(|_| matches!(polled.result.lag.lag, Lag::Known(_)))
            .cloned();
        self.stable_offsets.record(self.read.as_ref(), polled.at);
        self.complete_ids(plan);
        self.recalled = self.recall(plan);
        match &self.recalled {
            Some(recalled) => compute_lag(recalled, &self.adoption_of(plan)),
            None => polled.result.lag.clone(),
        }
    }

    fn read_members(&mut self, polled: &Polled<RoleKey>) {
        let membership = match &polled.group {
            GroupReading::NotRead => return,
            GroupReading::Unknown { .. } => Membership::Unknown,
            GroupReading::Rebalancing { .. } => Membership::Members,
            GroupReading::Stable { members, .. } if members.is_empty() => Membership::Empty,
            GroupReading::Stable { .. } => Membership::Members,
        };
        if membership == Membership::Members {
            // Members commit without a retention time, so their offsets expire again once they have left.
            self.recommitted_at = None;
            self.idle_since = polled.at;
        }
        self.membership = Some(membership);
    }

    /// Completes an adoption that an earlier version recorded without ids or group.
    fn complete_ids(&mut self, plan: &RolePlan) {
        let relation = self.relation(plan);
        let (Some(adoption), Some(topic)) = (&mut self.adoption, &self.topic) else {
            return;
        };
        if relation != Some(TopicRelation::Same) {
            return;
        }
        for (recorded, found) in [
            (&mut adoption.cluster_id, &topic.cluster_id),
            (&mut adoption.topic_id, &topic.topic_id),
        ] {
            if let (None, Some(found)) = (known(recorded), found) {
                *recorded = found.to_string();
                // The recorded offsets may be of another topic.
                adoption.committed.clear();
            }
        }
        if adoption.consumer_group.is_empty() {
            adoption.consumer_group.clone_from(&plan.group);
        }
    }

    fn recall(&self, plan: &RolePlan) -> Option<TopicOffsets> {
        let (adoption, read) = (self.adoption.as_ref()?, self.read.as_ref()?);
        // Only if it is certainly this topic: both ids must be known.
        let ids = self.adoption_of(plan).initialized_for?;
        let is_same = ids.cluster_id.is_some() && ids.topic_id.is_some() && ids == read.identity;
        let is_unused = self.membership != Some(Membership::Members);
        (is_same && is_unused)
            .then(|| recalled(read, &adoption.committed))
            .flatten()
    }

    /// How the topic of the last reading is related to the one that offsets were initialized for.
    pub(super) fn relation(&self, plan: &RolePlan) -> Option<TopicRelation> {
        Some(self.adoption_of(plan).relation(self.topic.as_ref()?))
    }

    /// Whether offsets must be committed before the first worker starts. For a group with members it is too late: they
    /// continue from their own offsets.
    pub(super) fn is_unready(&self, plan: &RolePlan) -> bool {
        let other_topic = !matches!(self.relation(plan), Some(TopicRelation::Same) | None);
        let is_incomplete = other_topic || self.recalled.is_some();
        (is_incomplete && self.membership != Some(Membership::Members)) || self.beyond_end(plan).is_some()
    }

    /// Whether members must be read now because offsets may have to be committed.
    pub(super) fn needs_members(&self, plan: &RolePlan, recommit_after: Duration, now: Moment) -> bool {
        let is_known = matches!(self.membership, Some(Membership::Empty | Membership::Members));
        !is_known
            || !self.is_initialized(plan)
            || self.is_unready(plan)
            || self.is_recommit_due(recommit_after, now)
    }

    /// How to initialize offsets now; `None` if they are initialized, or if the group's offsets are not known reliably
    /// yet.
    pub(super) fn adopt(&self, plan: &RolePlan) -> Option<Adopt> {
        let read = self.read.as_ref()?;
        let adoption = self.adoption_of(plan);
        if adoption.relation(&read.identity) == TopicRelation::Same {
            return None;
        }
        let commits = match self.membership? {
            Membership::Unknown => return None,
            // A group with members accepts commits only from them; they start new partitions at their first message.
            Membership::Members => Commits::new(),
            Membership::Empty => to_adopt(read, &adoption).ok()?,
        };
        (commits.is_empty() || self.stable_offsets.are_stable()).then(|| Adopt {
            commits,
            topic: read.identity.clone(),
            partitions: read.partitions.len(),
        })
    }

    /// The offsets recorded in the status, to commit if the group has lost all of its own.
    pub(super) fn restore(&self) -> Option<Commits> {
        let recalled = self.recalled.as_ref()?;
        (self.membership == Some(Membership::Empty) && self.stable_offsets.are_stable())
            .then(|| to_restore(recalled))
    }

    /// Offsets to commit in place of those that are beyond the end of a topic without an id, if the group has no
    /// members.
    fn beyond_end(&self, plan: &RolePlan) -> Option<Commits> {
        let is_unused = self.membership == Some(Membership::Empty);
        if !is_unused || self.relation(plan) != Some(TopicRelation::Same) {
            return None;
        }
        self.read
            .as_ref()
            .map(to_replace)
            .filter(|commits| !commits.is_empty())
    }

    /// Offsets to commit now in place of those that are beyond the end of a topic without an id.
    pub(super) fn replace(&self, plan: &RolePlan) -> Option<Commits> {
        self.beyond_end(plan).filter(|_| self.stable_offsets.are_stable())
    }

    /// Partitions whose offsets must be committed again now, so that they do not expire.
    pub(super) fn recommit(
        &self,
        plan: &RolePlan,
        recommit_after: Duration,
        now: Moment,
    ) -> Option<Vec<i32>> {
        let read = self.read.as_ref()?;
        let is_idle = self.membership == Some(Membership::Empty) && self.recalled.is_none();
        if !is_idle
            || self.relation(plan) != Some(TopicRelation::Same)
            || !self.is_recommit_due(recommit_after, now)
        {
            return None;
        }
        let committed = read
            .partitions
            .iter()
            .filter(|partition| matches!(partition.committed, Ok(Some(_))));
        let partitions: Vec<i32> = committed.map(|partition| partition.partition).collect();
        (!partitions.is_empty()).then_some(partitions)
    }

    fn is_recommit_due(&self, recommit_after: Duration, now: Moment) -> bool {
        match self.recommitted_at {
            Some(at) => now.since(at) >= recommit_after,
            None => {
                now.since(self.idle_since) >= FIRST_RECOMMIT.min(recommit_after).mul_f64(self.random_part)
            }
        }
    }

    /// Records the committed offsets for the status, if no worker can change them.
    pub(super) fn record_committed(&mut self, plan: &RolePlan, workload: &Workload) {
        let is_unused = workload.replicas == 0 && self.membership == Some(Membership::Empty);
        if !is_unused || self.relation(plan) != Some(TopicRelation::Same) {
            return;
        }
        let committed = self.read.as_ref().and_then(to_remember);
        if let (Some(adoption), Some(committed)) = (&mut self.adoption, committed) {
            adoption.committed = merge_recorded(committed, &adoption.committed);
        }
    }

    /// Whether the adoption is in the pool's status, where another leader finds it.
    pub(super) fn is_written(&self, written: Option<&OffsetsStatus>) -> bool {
        let adoption = self.adoption.as_ref().map(OffsetsStatus::event);
        adoption.is_some() && adoption == written.map(OffsetsStatus::event)
    }

    /// Offsets were initialized.
    pub(super) fn adopted(&mut self, mut adoption: OffsetsStatus, now: Moment) {
        // The group of a recreated topic is the same.
        adoption.workers_joined = self.adoption.as_ref().is_some_and(|before| {
            let is_same = (&before.cluster_id, &before.consumer_group)
                == (&adoption.cluster_id, &adoption.consumer_group);
            is_same && before.workers_joined
        });
        self.adoption = Some(adoption);
        self.restored(now);
    }

    /// Offsets were committed again.
    pub(super) fn recommitted(&mut self, now: Moment) {
        self.recommitted_at = Some(now);
    }

    /// Offsets were restored or replaced.
    pub(super) fn restored(&mut self, now: Moment) {
        self.recommitted(now);
        self.forget_offsets();
    }

    /// Discards all readings, because the pool now uses other brokers.
    pub(super) fn forget_reading(&mut self) {
        self.forget_offsets();
        self.membership = None;
    }

    /// Discards readings of offsets, which have been written since.
    fn forget_offsets(&mut self) {
        self.topic = None;
        self.read = None;
        self.recalled = None;
        self.stable_offsets = StableOffsets::default();
    }
}

/// The committed offsets, with the recorded ones for partitions without an offset: brokers may lose a group's offsets
/// one after another.
fn merge_recorded(mut committed: Vec<i64>, before: &[i64]) -> Vec<i64> {
    for (now, before) in committed.iter_mut().zip(before) {
        if *now < 0 {
            *now = *before;
        }
    }
    committed
}

/// An id, unless it is unknown: empty, or the nil id that an earlier version recorded for a topic without an id.
fn known(id: &str) -> Option<Arc<str>> {
    let is_nil = id.bytes().all(|letter| letter == b'A');
    (!is_nil).then(|| id.into())
}

#[cfg(test)]
pub(super) mod tests;
