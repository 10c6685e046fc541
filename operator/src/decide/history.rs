//! State that decisions pass on. Empty after a restart, which makes the next decisions more careful.

use super::observation::{Moment, PodName};
use super::write::Write;

/// State that decisions pass on.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct History {
    /// When replicas were last changed.
    pub(super) last_change: Option<Moment>,
    /// Since when the group has been rebalancing.
    pub(super) rebalancing_since: Option<Moment>,
    /// Progress of a scale-down.
    pub(super) scale_down: ScaleDown,
    /// Pods that were idle in the last reading, by name.
    pub(super) idle: Vec<IdlePod>,
    /// Times of the readings (of lag, of the group) that `idle` includes.
    pub(super) counted_at: Option<(Moment, Moment)>,
    /// When deletion-cost annotations were last written in this scale-down.
    pub(super) annotated_at: Option<Moment>,
    /// Since when fewer workers are enough, and the most that were needed since: for the removal of starting workers.
    pub(super) starting: Option<(Moment, u32)>,
}

/// Progress of a scale-down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum ScaleDown {
    /// All workers are needed.
    #[default]
    None,
    /// Fewer workers are enough, and have been for less than the stabilization time.
    Stabilizing {
        since: Moment,
        /// The most workers that were needed since.
        highest: u32,
    },
    /// Idle pods are removed until `goal` workers are left.
    Executing { goal: u32 },
}

/// A pod that was idle in the last reading.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct IdlePod {
    pub(super) name: PodName,
    /// Number of consecutive readings, at most [`READINGS_TO_BE_IDLE`].
    pub(super) readings: u8,
}

/// Consecutive readings in which a pod must be idle before it becomes a scale-down candidate: one reading may fall
/// between the commit of a task and the fetch of the next.
pub(super) const READINGS_TO_BE_IDLE: u8 = 2;

impl History {
    /// Number of consecutive readings in which a pod was idle.
    pub(super) fn idle_readings(&self, pod: &PodName) -> u8 {
        let found = self.idle.binary_search_by(|idle| idle.name.cmp(pod));
        found.map_or(0, |index| self.idle[index].readings)
    }

    /// Records that a write of a plan was executed, or may have been, by `at`.
    pub fn executed(&mut self, write: &Write, at: Moment) {
        match write {
            Write::SetReplicas(_) => self.last_change = Some(at),
            Write::Annotate(_) | Write::Unannotate(_) if self.scale_down != ScaleDown::None => {
                self.annotated_at = Some(at);
            }
            Write::Annotate(_) | Write::Unannotate(_) => {}
        }
    }

    /// When replicas were last changed by a decision.
    pub fn last_change(&self) -> Option<Moment> {
        self.last_change
    }
}
