//! Whether a rolling update makes progress. Pure.

use std::time::Duration;

use crate::decide::{Moment, Workload};
use crate::observe::workload::Trouble;

/// How long a rolling update may make no progress before that is reported. A pod that drains may take its grace period.
const STALLED_AFTER: Duration = Duration::from_secs(900);

/// A rolling update that is not complete, if any: how many pods have the new template, and since when there are as many.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct RolloutProgress(Option<(u32, Moment)>);

impl RolloutProgress {
    /// Notes what the cluster runs now.
    pub(super) fn note(&mut self, workload: &Workload, now: Moment) {
        let updated = workload.status.map_or(0, |status| status.updated);
        self.0 = workload.is_rolling().then_some(match self.0 {
            Some((before, since)) if before == updated => (before, since),
            _ => (updated, now),
        });
    }

    /// What a person must know once an update has made no progress for long.
    pub(super) fn trouble(self, now: Moment) -> Option<Trouble> {
        let (updated, since) = self.0?;
        let message = format!(
            "a rolling update has made no progress for {} minutes ({updated} pods have the new template), and no worker is \
             removed before it is complete; fix: correct the image or the podOverrides of the pool, or apply its last \
             version that worked (kubectl rollout undo alone is reverted, for the pool decides the template)",
            STALLED_AFTER.as_secs() / 60
        );
        (now.since(since) >= STALLED_AFTER).then(|| Trouble::new("RolloutStalled", Some(&message)))
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
            progress.note(&workload, now);
            progress.trouble(now).map(|trouble| trouble.reason.to_string())
        };
        let stalled = Some("RolloutStalled".to_owned());
        assert_eq!(stalled_after(0, 2), None);
        assert_eq!(stalled_after(14, 2), None);
        assert_eq!(stalled_after(1, 2), stalled);
        assert_eq!(stalled_after(1, 4), None, "it goes on");
        assert_eq!(stalled_after(15, 4), stalled);
        assert_eq!(stalled_after(1, 8), None, "it is complete");
    }
}
