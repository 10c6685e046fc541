//! Joins pods with group members and the lag of their partitions: which pods are busy, idle, or unknown.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use foldhash::fast::RandomState;

use super::history::{History, IdlePod, READINGS_TO_BE_IDLE};
use super::observation::{
    CostAnnotation, GroupReading, Lag, LagByPartition, Member, MemberWork, Moment, Observation, Pod, PodName,
    PodState, Workload,
};

/// Number of pods by state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PodCounts {
    /// Ready pods.
    pub ready: u32,
    /// Terminating pods that finish their last task.
    pub draining: u32,
    /// Pods that no node has room for.
    pub unschedulable: u32,
    /// Busy and idle pods; none if unknown.
    pub activity: Option<Activity>,
}

/// Pods that are not terminating, by whether they hold a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Activity {
    /// Pods with a task.
    pub busy: u32,
    /// Pods without a task.
    pub idle: u32,
    /// Ready pods that are not members of the group: they may hold a task.
    pub unknown: u32,
}

impl Activity {
    /// Pods that hold a task or may hold one.
    pub fn possibly_busy(self) -> u32 {
        self.busy.saturating_add(self.unknown)
    }
}

/// State and activity of the pods, for one decision.
#[derive(Debug)]
pub(super) struct Fleet<'a> {
    pub(super) counts: PodCounts,
    /// Idle pods in the order in which they should be removed; empty if activity is unknown.
    idle: Vec<&'a Pod>,
    /// Idle pods that are not ready, although they are members of the group.
    not_ready_members: BTreeSet<&'a PodName>,
    /// Replicas that have neither a pod nor a member yet.
    pub(super) missing: u32,
    /// Pods beyond `replicas`: Kubernetes has not yet chosen which to delete, or our view of the pods is behind.
    pub(super) excess: u32,
    /// A pod that may hold a task is not ready: Kubernetes would delete it before ready ones, whatever their deletion
    /// cost.
    pub(super) busy_would_be_deleted_first: bool,
    /// Members without a known pod: the view of the pods is behind, or a worker died without leaving the group.
    pub(super) members_without_pod: Vec<&'a PodName>,
}

/// This look-up dominates decisions about many pods, hence the fast hash. It is seeded in each process, so that a
/// client that joins the group cannot choose colliding names.
type MembersByName<'a> = HashMap<&'a str, MembersOfPod<'a>, RandomState>;

/// All members with one name.
struct MembersOfPod<'a> {
    name: &'a PodName,
    /// Whether one of them may hold a task.
    busy: bool,
    /// Whether a pod has that name.
    has_pod: bool,
}

impl<'a> Fleet<'a> {
    pub(super) fn new(observation: &'a Observation, lag: Option<&LagByPartition>) -> Self {
        let workload = &observation.workload;
        let mut fleet = Self {
            counts: counts(observation),
            idle: Vec::new(),
            not_ready_members: BTreeSet::new(),
            missing: 0,
            excess: 0,
            busy_would_be_deleted_first: false,
            members_without_pod: Vec::new(),
        };
        let mut members = match &observation.group {
            GroupReading::Stable { members, .. } => Some(by_name(members, lag)),
            _ => None,
        };
        // With no live pods, activity is known to be zero; otherwise the status of an idle pool would flap with each
        // member reading.
        let is_known = members.is_some() && lag.is_some();
        let mut activity = Activity::default();
        let mut live: u32 = 0;
        for pod in &workload.pods {
            // One look-up for each pod: they are most of a decision about many.
            let member = members
                .as_mut()
                .and_then(|members| members.get_mut(pod.name.as_str()));
            let busy = member.map(|member| {
                member.has_pod = true;
                member.busy
            });
            if pod.state.is_live() {
                live = live.saturating_add(1);
                if is_known {
                    fleet.count_activity(pod, busy, &mut activity);
                }
            }
        }
        fleet.counts.activity = (is_known || live == 0).then_some(activity);
        // Of the pods that start, the newest has the longest start-up left.
        let created = |pod: &Pod| pod.created.map_or(u64::MAX, Moment::as_millis);
        fleet.idle.sort_unstable_by(|a, b| {
            let newest_first = created(b).cmp(&created(a));
            a.state
                .cmp(&b.state)
                .then(newest_first)
                .then_with(|| a.name.cmp(&b.name))
        });
        let without_pod = members
            .iter()
            .flat_map(MembersByName::values)
            .filter(|member| !member.has_pod);
        fleet.members_without_pod = without_pod.map(|member| member.name).collect();
        fleet.members_without_pod.sort_unstable();
        let hidden = u32::try_from(fleet.members_without_pod.len()).unwrap_or(u32::MAX);
        fleet.missing = workload.replicas.saturating_sub(live.saturating_add(hidden));
        fleet.excess = live.saturating_sub(workload.replicas);
        fleet
    }

    /// Scale-down candidates: pods that were idle in enough consecutive readings, this one included; least useful
    /// first.
    pub(super) fn candidates<'h>(&'h self, history: &'h History) -> impl Iterator<Item = &'a Pod> + 'h {
        let long_enough = |pod: &&Pod| history.idle_readings(&pod.name) >= READINGS_TO_BE_IDLE;
        self.idle.iter().copied().filter(long_enough)
    }

    /// The scale-down candidates among the `surplus` last replicas to start: neither ready nor members. Replicas without
    /// a pod are the last of all.
    pub(super) fn starting_candidates<'h>(
        &'h self,
        surplus: u32,
        history: &'h History,
    ) -> impl Iterator<Item = &'a Pod> + 'h {
        let pods = usize::try_from(surplus.saturating_sub(self.missing)).unwrap_or(usize::MAX);
        let starting = self.idle.iter().copied().filter(move |pod| self.is_starting(pod));
        let long_enough = move |pod: &&Pod| history.idle_readings(&pod.name) >= READINGS_TO_BE_IDLE;
        starting.take(pods).filter(long_enough)
    }

    /// Number of replicas that start, with a pod or without one.
    pub(super) fn starting(&self) -> u32 {
        let pods = self.idle.iter().filter(|pod| self.is_starting(pod)).count();
        u32::try_from(pods)
            .unwrap_or(u32::MAX)
            .saturating_add(self.missing)
    }

    fn is_starting(&self, idle: &Pod) -> bool {
        idle.state != PodState::Ready && !self.not_ready_members.contains(&idle.name)
    }

    /// Counts a live pod; `busy` is whether its members may hold a task, none if it has no member.
    fn count_activity(&mut self, pod: &'a Pod, busy: Option<bool>, activity: &mut Activity) {
        match busy {
            Some(true) => activity.busy += 1,
            // A ready pod that is not a member may be finishing a task of partitions that it has lost.
            None if pod.state == PodState::Ready => activity.unknown += 1,
            // A pod that is not ready and has not joined has no task.
            Some(false) | None => {
                if busy.is_some() && pod.state != PodState::Ready {
                    self.not_ready_members.insert(&pod.name);
                }
                activity.idle += 1;
                self.idle.push(pod);
                return;
            }
        }
        self.busy_would_be_deleted_first |= pod.state != PodState::Ready;
    }

    /// Why it is unknown which pods exist; none if it is known.
    pub(super) fn unknown_pods(&self, workload: &Workload) -> Option<Arc<str>> {
        if let Some(first) = self.members_without_pod.first() {
            return Some(match self.members_without_pod.len() - 1 {
                0 => format!("group member {first} has no known pod").into(),
                more => format!("group member {first} and {more} more have no known pod").into(),
            });
        }
        let status = workload.status?;
        let live = workload.live().count();
        (usize::try_from(status.replicas) != Ok(live)).then(|| {
            let reported = status.replicas;
            format!("the Deployment reports {reported} pods, and {live} are known").into()
        })
    }
}

/// Pods with our deletion-cost annotation.
pub(super) fn annotated(workload: &Workload) -> impl Iterator<Item = &Pod> {
    workload
        .live()
        .filter(|pod| pod.cost_annotation == CostAnnotation::Present)
}

fn counts(observation: &Observation) -> PodCounts {
    let workload = &observation.workload;
    let mut counts = PodCounts {
        draining: workload.draining(&observation.group),
        ..PodCounts::default()
    };
    for pod in &workload.pods {
        match pod.state {
            PodState::Unschedulable => counts.unschedulable += 1,
            PodState::Ready => counts.ready += 1,
            PodState::NotReady | PodState::Draining | PodState::Overdue => {}
        }
    }
    counts
}

/// Two members may have one name, as when a worker that lost its session joins again: the tasks of both count.
fn by_name<'a>(members: &'a [Member], lag: Option<&LagByPartition>) -> MembersByName<'a> {
    let mut by_name = MembersByName::with_capacity_and_hasher(members.len(), RandomState::default());
    for member in members {
        let joined = by_name.entry(member.pod.as_str()).or_insert(MembersOfPod {
            name: &member.pod,
            busy: false,
            has_pod: false,
        });
        joined.busy |= may_hold_task(&member.work, lag);
    }
    by_name
}

fn may_hold_task(work: &MemberWork, lag: Option<&LagByPartition>) -> bool {
    match work {
        MemberWork::Task => true,
        MemberWork::NoTask => false,
        // A partition that was not read may have messages.
        MemberWork::Partitions(partitions) => partitions
            .iter()
            .any(|partition| lag.and_then(|lag| lag.messages_in(*partition)) != Some(0)),
    }
}

/// Counts the consecutive readings in which each pod was idle. A reading counts once, however many decisions use it.
pub(super) fn count_idle(history: &mut History, observation: &Observation, fleet: &Fleet<'_>) {
    let (Lag::Known(_), GroupReading::Stable { at: group_at, .. }) =
        (&observation.lag.lag, &observation.group)
    else {
        // After a reading without a result, earlier and later readings are not consecutive.
        if !matches!(observation.group, GroupReading::NotRead)
            || !matches!(observation.lag.lag, Lag::Known(_))
        {
            history.idle.clear();
        }
        return;
    };
    let newer = |last: (Moment, Moment)| observation.lag.at > last.0 && *group_at > last.1;
    if !history.counted_at.is_none_or(newer) {
        return;
    }
    let mut idle: Vec<IdlePod> = fleet
        .idle
        .iter()
        .map(|pod| IdlePod {
            name: pod.name.clone(),
            readings: (history.idle_readings(&pod.name) + 1).min(READINGS_TO_BE_IDLE),
        })
        .collect();
    idle.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    history.idle = idle;
    history.counted_at = Some((observation.lag.at, *group_at));
}
