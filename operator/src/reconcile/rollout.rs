//! Whether a rolling update makes progress. Pure.

use std::time::Duration;

use crate::decide::{Moment, Workload};
use crate::observe::workload::WorkloadProblem;

/// Time without progress of a rolling update before it is reported. A draining pod may take its grace period.
pub(super) const STALLED_AFTER: Duration = Duration::from_secs(900);

/// An incomplete rolling update, if any: the number of pods with the new template, and since when it is unchanged.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct RolloutProgress(Option<(u32, Moment)>);

impl RolloutProgress {
    /// Records the current workload.
    pub(super) fn record(&mut self, workload: &Workload, now: Moment) {
        let updated = workload.status.map_or(0, |status| status.updated);
        self.0 = workload.is_rolling().then_some(match self.0 {
            Some((before, since)) if before == updated => (before, since),
            _ => (updated, now),
        });
    }

    /// Whether an update is incomplete.
    pub(super) fn is_in_progress(self) -> bool {
        self.0.is_some()
    }

    /// The problem to report after [`STALLED_AFTER`] without progress.
    pub(super) fn problem(self, now: Moment) -> Option<WorkloadProblem> {
        let (updated, since) = self.0?;
        let message = format!(
            "a rolling update has made no progress for {} minutes ({updated} pods have the new template); no worker is \
             removed until it is complete; fix: correct the pool's image or podTemplate, or apply its last working \
             version (kubectl rollout undo alone is reverted, because the pool defines the template)",
            STALLED_AFTER.as_secs() / 60
        );
        (now.since(since) >= STALLED_AFTER).then(|| WorkloadProblem::new("RolloutStalled", Some(&message)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::PodStatus;

    #[test]
    fn an_update_without_progress_is_reported_after_a_quarter_of_an_hour() {
        let mut progress = RolloutProgress::default();
        let mut now = Moment::default();
        let mut stalled_after = |minutes: u64, updated: u32| {
            let workload = Workload {
                replicas: 8,
                pods: Vec::new(),
                status: Some(PodStatus {
                    observed: true,
                    replicas: 8,
                    updated,
                }),
            };
            now = now + Duration::from_secs(60 * minutes);
            progress.record(&workload, now);
            progress.problem(now).map(|problem| problem.reason.to_string())
        };
        let stalled = Some("RolloutStalled".to_owned());
        assert_eq!(stalled_after(0, 2), None);
        assert_eq!(stalled_after(14, 2), None);
        assert_eq!(stalled_after(1, 2), stalled);
        assert_eq!(stalled_after(1, 4), None, "it makes progress");
        assert_eq!(stalled_after(15, 4), stalled);
        assert_eq!(stalled_after(1, 8), None, "it is complete");
    }
}
