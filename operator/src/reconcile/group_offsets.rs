//! The committed offsets of a role's group: whether they are initialized, and what to commit next so that they are neither
//! lost nor overwritten. Pure.
//!
//! It goes by the group's members, never by pods: pods that end belong to another group, and pods that wait for a node to
//! none.

use std::sync::Arc;
use std::time::Duration;

use super::conflicts::GroupUse;
use crate::apply::offsets::{Commits, Steady, recalled, to_adopt, to_remember, to_restore};
use crate::crd::AdoptionStatus;
use crate::decide::{GroupReading, Lag, Moment, Workload};
use crate::kafka::TopicIdentity;
use crate::observe::poller::Polled;
use crate::observe::{Adoption, LagFound, Relation, TopicOffsets, lag_of};
use crate::plan::RolePlan;
use crate::watch::world::RoleKey;

/// Within how long after a group lost its last member, or after the operator's start, its offsets are committed again for
/// the first time, each group at a time of its own: one that is started anew every day keeps them too, and a thousand
/// groups are not committed all together.
const FIRST_KEEP: Duration = Duration::from_secs(600);

/// How a group's offsets are taken over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Adopt {
    /// What is committed; nothing where the group has what it needs.
    pub(super) commits: Commits,
    /// The topic.
    pub(super) topic: TopicIdentity,
    /// How many partitions it has.
    pub(super) partitions: usize,
}

/// Whether a group has members, by what was read last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Membership {
    /// It has none.
    Empty,
    /// It has some.
    Members,
    /// That was not read, or could not be.
    Unknown,
}

/// What is known of a group's committed offsets.
#[derive(Debug, Default)]
pub(super) struct GroupOffsets {
    adoption: Option<AdoptionStatus>,
    /// Whether readings in a row agree on what is committed.
    steady: Steady,
    /// The topic, as it was last described.
    topic: Option<TopicIdentity>,
    /// The last reading in which every partition was read, with offsets as the brokers have them.
    read: Option<TopicOffsets>,
    /// The same with remembered offsets, where all of the group's offsets are gone.
    recalled: Option<TopicOffsets>,
    membership: Option<Membership>,
    /// When offsets were last written, by us, since the group lost its last member.
    kept_at: Option<Moment>,
    /// Since when they could have been.
    keep_from: Moment,
    /// The role's own part, from 0 to 1, of the time within which that is done first.
    share: f64,
    /// The cluster that last answered the pool's own credentials about the group.
    used_in: Option<Arc<str>>,
}

impl GroupOffsets {
    /// Nothing is known but what the status says.
    pub(super) fn new(adoption: Option<&AdoptionStatus>, now: Moment) -> Self {
        Self {
            adoption: adoption.cloned(),
            keep_from: now,
            share: fastrand::f64(),
            used_in: adoption.and_then(|adoption| known(&adoption.cluster_id)),
            ..Self::default()
        }
    }

    /// How offsets were taken over, as the status is to say it.
    pub(super) fn adoption(&self) -> Option<&AdoptionStatus> {
        self.adoption.as_ref()
    }

    /// What a reading must know of the adoption.
    pub(super) fn adoption_of(&self, plan: &RolePlan) -> Adoption {
        // What was recorded of another group says nothing about this one.
        let of_group = self
            .adoption
            .as_ref()
            .filter(|adoption| adoption.consumer_group.is_empty() || adoption.consumer_group == plan.group);
        Adoption {
            initialized_for: of_group.map(|adoption| TopicIdentity {
                cluster_id: known(&adoption.cluster_id),
                topic_id: known(&adoption.topic_id),
            }),
            policy: plan.adoption,
        }
    }

    /// Whether offsets were initialized, once, for whatever topic.
    pub(super) fn is_initialized(&self, plan: &RolePlan) -> bool {
        self.adoption_of(plan).initialized_for.is_some()
    }

    /// Where the pool was seen to be able to use its group: in the cluster that its own credentials read it in last, or that
    /// its status names.
    pub(super) fn group_use(&self, plan: &RolePlan) -> Option<GroupUse> {
        let cluster_id = self.used_in.clone()?;
        let adopted_in = self
            .adoption_of(plan)
            .initialized_for
            .and_then(|topic| topic.cluster_id);
        Some(GroupUse {
            is_adopted: adopted_in.as_ref() == Some(&cluster_id),
            cluster_id,
        })
    }

    /// Takes in a reading, and gives the lag to decide on: counted from remembered offsets where all of the group's are gone.
    pub(super) fn read(&mut self, polled: &Polled<RoleKey>, plan: &RolePlan) -> LagFound {
        self.read_members(polled);
        let found = polled.found.offsets.as_ref();
        if let Some(found) = found {
            self.topic = Some(found.identity.clone());
            let mut partitions = found.partitions.iter();
            if partitions.any(|partition| partition.committed.is_ok()) && found.identity.cluster_id.is_some()
            {
                self.used_in.clone_from(&found.identity.cluster_id);
            }
        }
        self.read = found
            .filter(|_| matches!(polled.found.lag.lag, Lag::Known(_)))
            .cloned();
        self.steady.note(self.read.as_ref(), polled.at);
        self.learn_ids(plan);
        self.recalled = self.recall(plan);
        match &self.recalled {
            Some(recalled) => lag_of(recalled, &self.adoption_of(plan)),
            None => polled.found.lag.clone(),
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
            // What they commit expires again once they have left.
            self.kept_at = None;
            self.keep_from = polled.at;
        }
        self.membership = Some(membership);
    }

    /// Completes an adoption of a version that recorded less.
    fn learn_ids(&mut self, plan: &RolePlan) {
        let relation = self.relation(plan);
        let (Some(adoption), Some(topic)) = (&mut self.adoption, &self.topic) else {
            return;
        };
        if relation != Some(Relation::Same) {
            return;
        }
        for (recorded, found) in [
            (&mut adoption.cluster_id, &topic.cluster_id),
            (&mut adoption.topic_id, &topic.topic_id),
        ] {
            if let (None, Some(found)) = (known(recorded), found) {
                *recorded = found.to_string();
                // They may have been of another topic.
                adoption.offsets.clear();
            }
        }
        if adoption.consumer_group.is_empty() {
            adoption.consumer_group.clone_from(&plan.group);
        }
    }

    fn recall(&self, plan: &RolePlan) -> Option<TopicOffsets> {
        let (adoption, read) = (self.adoption.as_ref()?, self.read.as_ref()?);
        // Only what is certainly this topic: neither id may be unknown.
        let ids = self.adoption_of(plan).initialized_for?;
        let is_same = ids.cluster_id.is_some() && ids.topic_id.is_some() && ids == read.identity;
        let is_left = self.membership != Some(Membership::Members);
        (is_same && is_left)
            .then(|| recalled(read, &adoption.offsets))
            .flatten()
    }

    /// How the topic as it was read last is related to the one that offsets were initialized for.
    pub(super) fn relation(&self, plan: &RolePlan) -> Option<Relation> {
        Some(self.adoption_of(plan).relation(self.topic.as_ref()?))
    }

    /// Whether offsets must be committed before the first worker starts. A group with members cannot be helped any more:
    /// it goes on from what it has.
    pub(super) fn is_unready(&self, plan: &RolePlan) -> bool {
        let other_topic = !matches!(self.relation(plan), Some(Relation::Same) | None);
        (other_topic || self.recalled.is_some()) && self.membership != Some(Membership::Members)
    }

    /// Whether members must be read now because offsets may have to be committed.
    pub(super) fn needs_members(&self, plan: &RolePlan, keep_after: Duration, now: Moment) -> bool {
        let is_known = matches!(self.membership, Some(Membership::Empty | Membership::Members));
        !is_known
            || !self.is_initialized(plan)
            || self.is_unready(plan)
            || self.is_keeping_due(keep_after, now)
    }

    /// How to initialize offsets now; none where they are, and where it is not known well enough what the group has.
    pub(super) fn adopt(&self, plan: &RolePlan) -> Option<Adopt> {
        let read = self.read.as_ref()?;
        let adoption = self.adoption_of(plan);
        if adoption.relation(&read.identity) == Relation::Same {
            return None;
        }
        let commits = match self.membership? {
            Membership::Unknown => return None,
            // A group with members takes no offsets but theirs; it starts new partitions at their first message.
            Membership::Members => Commits::new(),
            Membership::Empty => to_adopt(read, &adoption).ok()?,
        };
        (commits.is_empty() || self.steady.is_long_enough()).then(|| Adopt {
            commits,
            topic: read.identity.clone(),
            partitions: read.partitions.len(),
        })
    }

    /// Remembered offsets to commit, where all of the group's are gone.
    pub(super) fn restore(&self) -> Option<Commits> {
        let recalled = self.recalled.as_ref()?;
        (self.membership == Some(Membership::Empty) && self.steady.is_long_enough())
            .then(|| to_restore(recalled))
    }

    /// Partitions whose offsets are to be committed again now, so that the broker does not forget them.
    pub(super) fn keep(&self, plan: &RolePlan, keep_after: Duration, now: Moment) -> Option<Vec<i32>> {
        let read = self.read.as_ref()?;
        let is_idle = self.membership == Some(Membership::Empty) && self.recalled.is_none();
        if !is_idle || self.relation(plan) != Some(Relation::Same) || !self.is_keeping_due(keep_after, now) {
            return None;
        }
        let committed = read
            .partitions
            .iter()
            .filter(|partition| matches!(partition.committed, Ok(Some(_))));
        let partitions: Vec<i32> = committed.map(|partition| partition.partition).collect();
        (!partitions.is_empty()).then_some(partitions)
    }

    fn is_keeping_due(&self, keep_after: Duration, now: Moment) -> bool {
        match self.kept_at {
            Some(at) => now.since(at) >= keep_after,
            None => now.since(self.keep_from) >= FIRST_KEEP.min(keep_after).mul_f64(self.share),
        }
    }

    /// Remembers what is committed, where no worker runs that changes it.
    pub(super) fn remember(&mut self, plan: &RolePlan, workload: &Workload) {
        let is_left = workload.replicas == 0 && self.membership == Some(Membership::Empty);
        if !is_left || self.relation(plan) != Some(Relation::Same) {
            return;
        }
        let committed = self.read.as_ref().and_then(to_remember);
        if let (Some(adoption), Some(committed)) = (&mut self.adoption, committed) {
            adoption.offsets = remembered(committed, &adoption.offsets);
        }
    }

    /// Whether another leader would know of the adoption: the status says so.
    pub(super) fn is_written(&self, written: Option<&AdoptionStatus>) -> bool {
        let event = |adoption: &AdoptionStatus| {
            let AdoptionStatus {
                partitions,
                policy,
                at,
                ..
            } = adoption;
            (*partitions, policy.clone(), at.clone())
        };
        self.adoption.is_some() && self.adoption.as_ref().map(event) == written.map(event)
    }

    /// Offsets were initialized.
    pub(super) fn adopted(&mut self, adoption: AdoptionStatus, now: Moment) {
        self.adoption = Some(adoption);
        self.kept_at = Some(now);
        self.forget_offsets();
    }

    /// Offsets were committed again.
    pub(super) fn kept(&mut self, now: Moment) {
        self.kept_at = Some(now);
    }

    /// Remembered offsets were committed.
    pub(super) fn restored(&mut self, now: Moment) {
        self.kept_at = Some(now);
        self.forget_offsets();
    }

    /// What was read says nothing any more: other brokers are asked.
    pub(super) fn forget_reading(&mut self) {
        self.forget_offsets();
        self.membership = None;
    }

    /// Offsets were written since they were read.
    fn forget_offsets(&mut self) {
        self.topic = None;
        self.read = None;
        self.recalled = None;
        self.steady = Steady::default();
    }
}

/// What is committed now, with what was remembered before where a partition has no offset: brokers may lose the offsets of a
/// group one after the other.
fn remembered(mut committed: Vec<i64>, before: &[i64]) -> Vec<i64> {
    for (now, before) in committed.iter_mut().zip(before) {
        if *now < 0 {
            *now = *before;
        }
    }
    committed
}

/// An id, unless it is unknown: empty, or the zeros that a version recorded for a topic without one.
fn known(id: &str) -> Option<Arc<str>> {
    let is_nil = id.bytes().all(|letter| letter == b'A');
    (!is_nil).then(|| id.into())
}

#[cfg(test)]
pub(super) mod tests;
