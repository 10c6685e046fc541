//! Pods joined to members and to their partitions' work: who is busy, who is idle, who cannot be told.

use std::collections::HashMap;

use foldhash::fast::RandomState;

use super::history::{History, IdlePod, READINGS_TO_BE_IDLE};
use super::observation::{
    GroupReading, Holds, Lag, Marked, Moment, Observation, Pod, PodState, Work, Workload,
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
    /// Replicas that have no pod yet.
    pub(super) missing: u32,
    /// Pods beyond the replicas: Kubernetes has yet to choose who goes, or knows and has not told us.
    pub(super) leaving: u32,
    /// A pod that may hold a task is not ready: Kubernetes would delete it before ready ones, whatever they are marked.
    pub(super) busy_would_go_first: bool,
}

/// Most of a decision about many pods is this look-up; its keys are not chosen to collide by whoever joins a group, for the
/// hash is seeded in each process.
type HoldsByName<'a> = HashMap<&'a str, &'a Holds, RandomState>;

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
            counts: counts(workload),
            idle: Vec::new(),
            missing: 0,
            leaving: 0,
            busy_would_go_first: false,
        };
        let standing = u32::try_from(live(workload).count()).unwrap_or(u32::MAX);
        fleet.missing = workload.replicas.saturating_sub(standing);
        fleet.leaving = standing.saturating_sub(workload.replicas);
        if standing == 0 {
            // Nobody is neither busy nor idle, whether members were read or not: else what is said of an idle pool would
            // change with every reading of members.
            fleet.counts.activity = Some(Activity::default());
        } else if let (GroupReading::Stable { members, .. }, Some(work)) = (&observation.group, work) {
            let holds: HoldsByName<'_> = members.iter().map(|m| (m.pod.as_str(), &m.holds)).collect();
            fleet.tell(workload, &holds, work);
        }
        fleet
    }

    /// Pods that may go: idle in enough readings in a row, this one included; the least useful first.
    pub(super) fn candidates<'h>(&'h self, history: &'h History) -> impl Iterator<Item = &'a Pod> + 'h {
        let long_enough = |pod: &&Pod| history.idle_readings(&pod.name) >= READINGS_TO_BE_IDLE;
        self.idle.iter().copied().filter(long_enough)
    }

    fn tell(&mut self, workload: &'a Workload, holds: &HoldsByName<'_>, work: &Work) {
        let mut activity = Activity::default();
        for pod in live(workload) {
            match doing(pod, holds, work) {
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
}

/// Pods that are not being deleted.
pub(super) fn live(workload: &Workload) -> impl Iterator<Item = &Pod> {
    workload.pods.iter().filter(|pod| pod.state != PodState::Draining)
}

/// Pods that carry our mark.
pub(super) fn marked(workload: &Workload) -> impl Iterator<Item = &Pod> {
    live(workload).filter(|pod| pod.marked == Marked::Yes)
}

fn counts(workload: &Workload) -> PodCounts {
    let mut counts = PodCounts::default();
    for pod in &workload.pods {
        match pod.state {
            PodState::Unschedulable => counts.unschedulable += 1,
            PodState::NotReady => {}
            PodState::Ready => counts.ready += 1,
            PodState::Draining => counts.draining += 1,
        }
    }
    counts
}

fn doing(pod: &Pod, holds: &HoldsByName<'_>, work: &Work) -> Doing {
    match holds.get(pod.name.as_str()) {
        Some(Holds::Task) => Doing::Busy,
        Some(Holds::NoTask) => Doing::Idle,
        // A partition that was not read may have work.
        Some(Holds::Partitions(partitions)) => {
            if partitions
                .iter()
                .any(|partition| work.of_partition(*partition) != Some(0))
            {
                Doing::Busy
            } else {
                Doing::Idle
            }
        }
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
