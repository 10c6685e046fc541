//! Pods joined to members and to their partitions' work: who is busy, who is idle, who cannot be told.

use std::collections::HashMap;
use std::sync::Arc;

use foldhash::fast::RandomState;

use super::history::{History, IdlePod, READINGS_TO_BE_IDLE};
use super::observation::{
    GroupReading, Holds, Lag, Marked, Member, Moment, Observation, Pod, PodName, PodState, Work, Workload,
};

/// Workers by what they do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PodCounts {
    /// Pods that are ready.
    pub ready: u32,
    /// Pods that finish their last task.
    pub draining: u32,
    /// Pods that no node has room for.
    pub unschedulable: u32,
    /// Who is busy, where that could be told.
    pub activity: Option<Activity>,
}

/// Pods, draining ones aside, by whether they hold a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Activity {
    /// They hold one.
    pub busy: u32,
    /// They hold none.
    pub idle: u32,
    /// They are ready but not members of the group: they may hold one.
    pub untold: u32,
}

/// What the pods are doing, for one decision.
#[derive(Debug)]
pub(super) struct Fleet<'a> {
    pub(super) counts: PodCounts,
    /// Idle pods in the order in which they should go; with no activity known, none.
    idle: Vec<&'a Pod>,
    /// Replicas that have neither a pod nor a member yet.
    pub(super) missing: u32,
    /// Pods beyond the replicas: Kubernetes has yet to choose who goes, or knows and has not told us.
    pub(super) leaving: u32,
    /// A pod that may hold a task is not ready: Kubernetes would delete it before ready ones, whatever they are marked.
    pub(super) busy_would_go_first: bool,
    /// Members that no known pod carries: the view of the pods is behind, or a worker died without leaving the group.
    pub(super) hidden: Vec<&'a PodName>,
}

/// Most of a decision about many pods is this look-up; its keys are not chosen to collide by whoever joins a group, for the
/// hash is seeded in each process.
type MembersByName<'a> = HashMap<&'a str, Joined<'a>, RandomState>;

/// All members with one name.
struct Joined<'a> {
    name: &'a PodName,
    /// One of them may hold a task.
    busy: bool,
    /// A pod has that name.
    has_pod: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Doing {
    Busy,
    Idle,
    Untold,
}

impl<'a> Fleet<'a> {
    pub(super) fn of(observation: &'a Observation, work: Option<&Work>) -> Self {
        let workload = &observation.workload;
        let mut fleet = Self {
            counts: counts(observation),
            idle: Vec::new(),
            missing: 0,
            leaving: 0,
            busy_would_go_first: false,
            hidden: Vec::new(),
        };
        let mut members = MembersByName::default();
        if let GroupReading::Stable { members: joined, .. } = &observation.group {
            members = by_name(joined, work);
            for pod in &workload.pods {
                if let Some(member) = members.get_mut(pod.name.as_str()) {
                    member.has_pod = true;
                }
            }
            let hidden = members.values().filter(|member| !member.has_pod);
            fleet.hidden = hidden.map(|member| member.name).collect();
            fleet.hidden.sort_unstable();
        }
        let live = workload.live().count();
        let standing = u32::try_from(live + fleet.hidden.len()).unwrap_or(u32::MAX);
        fleet.missing = workload.replicas.saturating_sub(standing);
        fleet.leaving = u32::try_from(live)
            .unwrap_or(u32::MAX)
            .saturating_sub(workload.replicas);
        if live == 0 {
            // Nobody is neither busy nor idle, whether members were read or not: else what is said of an idle pool would
            // change with every reading of members.
            fleet.counts.activity = Some(Activity::default());
        } else if let (GroupReading::Stable { .. }, Some(_)) = (&observation.group, work) {
            fleet.tell(workload, &members);
        }
        fleet
    }

    /// Pods that may go: idle in enough readings in a row, this one included; the least useful first.
    pub(super) fn candidates<'h>(&'h self, history: &'h History) -> impl Iterator<Item = &'a Pod> + 'h {
        let long_enough = |pod: &&Pod| history.idle_readings(&pod.name) >= READINGS_TO_BE_IDLE;
        self.idle.iter().copied().filter(long_enough)
    }

    fn tell(&mut self, workload: &'a Workload, members: &MembersByName<'_>) {
        let mut activity = Activity::default();
        for pod in workload.live() {
            match doing(pod, members) {
                Doing::Idle => {
                    activity.idle += 1;
                    self.idle.push(pod);
                }
                told => {
                    *(match told {
                        Doing::Busy => &mut activity.busy,
                        _ => &mut activity.untold,
                    }) += 1;
                    self.busy_would_go_first |= pod.state != PodState::Ready;
                }
            }
        }
        self.idle
            .sort_unstable_by(|a, b| (a.state, &a.name).cmp(&(b.state, &b.name)));
        self.counts.activity = Some(activity);
    }

    /// Why it is not known which pods exist, if it is not.
    pub(super) fn unknown_pods(&self, workload: &Workload) -> Option<Arc<str>> {
        if let Some(first) = self.hidden.first() {
            return Some(match self.hidden.len() - 1 {
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

/// Pods that carry our mark.
pub(super) fn marked(workload: &Workload) -> impl Iterator<Item = &Pod> {
    workload.live().filter(|pod| pod.marked == Marked::Yes)
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

/// Two members may have one name, as when a worker that lost its session joins again: what either holds counts.
fn by_name<'a>(members: &'a [Member], work: Option<&Work>) -> MembersByName<'a> {
    let mut by_name = MembersByName::with_capacity_and_hasher(members.len(), RandomState::default());
    for member in members {
        let joined = by_name.entry(member.pod.as_str()).or_insert(Joined {
            name: &member.pod,
            busy: false,
            has_pod: false,
        });
        joined.busy |= may_hold_task(&member.holds, work);
    }
    by_name
}

fn may_hold_task(holds: &Holds, work: Option<&Work>) -> bool {
    match holds {
        Holds::Task => true,
        Holds::NoTask => false,
        // A partition that was not read may have work.
        Holds::Partitions(partitions) => partitions
            .iter()
            .any(|partition| work.and_then(|work| work.of_partition(*partition)) != Some(0)),
    }
}

fn doing(pod: &Pod, members: &MembersByName<'_>) -> Doing {
    match members.get(pod.name.as_str()) {
        Some(member) if member.busy => Doing::Busy,
        Some(_) => Doing::Idle,
        // Who has not joined yet has taken nothing; who is ready and not a member may finish a task of partitions that
        // it has lost.
        None if pod.state == PodState::Ready => Doing::Untold,
        None => Doing::Idle,
    }
}

/// Counts in how many readings in a row each pod was idle. A reading counts once, however often it is decided on.
pub(super) fn count_idle(history: &mut History, observation: &Observation, fleet: &Fleet<'_>) {
    let (Lag::Known(_), GroupReading::Stable { at: group_at, .. }) =
        (&observation.lag.lag, &observation.group)
    else {
        // Not counting a reading that says nothing would make two that lie apart into consecutive ones.
        if !matches!(observation.group, GroupReading::NotRead)
            || !matches!(observation.lag.lag, Lag::Known(_))
        {
            history.idle.clear();
        }
        return;
    };
    let newer = |last: (Moment, Moment)| observation.lag.at > last.0 && *group_at > last.1;
    if !history.counted.is_none_or(newer) {
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
    history.counted = Some((observation.lag.at, *group_at));
}
