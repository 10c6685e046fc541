//! What one decision must know of earlier ones. Empty after a restart, which makes the next decisions more careful.

use super::Write;
use super::observation::{Moment, PodName};

/// What one decision must know of earlier ones.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct History {
    /// When replicas were last changed.
    pub(super) last_change: Option<Moment>,
    /// Since when the group has been sharing out its partitions.
    pub(super) rebalancing_since: Option<Moment>,
    /// How far a scale-in has come.
    pub(super) scale_in: ScaleIn,
    /// Pods that were idle in the last reading, by name.
    pub(super) idle: Vec<IdlePod>,
    /// The readings (of lag, of the group) that `idle` knows.
    pub(super) counted: Option<(Moment, Moment)>,
    /// When deletion-cost annotations were last written in this scale-down.
    pub(super) marked_at: Option<Moment>,
}

/// How far a scale-in has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum ScaleIn {
    /// All workers are needed.
    #[default]
    None,
    /// Fewer would do, for a while now.
    Stabilising {
        /// Since when.
        since: Moment,
        /// The most that would have done since.
        highest: u32,
    },
    /// Idle pods go until so many are left.
    Executing {
        /// So many.
        goal: u32,
    },
}

/// A pod that was idle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct IdlePod {
    /// Its name.
    pub(super) name: PodName,
    /// In how many readings in a row; counted no further than [`READINGS_TO_BE_IDLE`].
    pub(super) readings: u8,
}

/// In how many readings in a row a pod must be idle before it may go: one may fall between a task's commit and the
/// next one's fetch.
pub(super) const READINGS_TO_BE_IDLE: u8 = 2;

impl History {
    /// In how many readings in a row a pod was idle.
    pub(super) fn idle_readings(&self, pod: &PodName) -> u8 {
        let found = self.idle.binary_search_by(|idle| idle.name.cmp(pod));
        found.map_or(0, |index| self.idle[index].readings)
    }

    /// Records that a write of a plan was carried out, or may have been, by `at`.
    pub fn executed(&mut self, write: &Write, at: Moment) {
        match write {
            Write::SetReplicas(_) => self.last_change = Some(at),
            Write::Annotate(_) | Write::Unannotate(_) if self.scale_in != ScaleIn::None => {
                self.marked_at = Some(at);
            }
            Write::Annotate(_) | Write::Unannotate(_) => {}
        }
    }

    /// When replicas were last changed by a decision.
    pub fn last_change(&self) -> Option<Moment> {
        self.last_change
    }
}
