//! Work on hold: a dependency of the worker refuses or fails, and the work is retried until it succeeds.

use std::time::{Duration, Instant};

use super::WorkError;
use crate::telemetry::Holds;

/// Failures of a dependency are reported as a hold once they have lasted this long; most pass sooner.
const REPORT_AFTER: Duration = Duration::from_secs(2);

/// Interval between log lines about the same hold.
const LOG_PERIOD: Duration = Duration::from_secs(60);

/// A step that may be on hold. Reports the hold in logs, metrics, `/ready` and the offset metadata; progress, and
/// dropping it, end the hold.
#[derive(Debug)]
pub(crate) struct HoldableStep<'h> {
    holds: &'h Holds,
    name: &'static str,
    /// Time of its first failure.
    failing_since: Option<Instant>,
    /// The reported dependency, and when it was last logged.
    reported: Option<(String, Instant)>,
}

impl<'h> HoldableStep<'h> {
    /// A step that has not failed; `name` is its name in logs.
    pub(crate) fn new(holds: &'h Holds, name: &'static str) -> Self {
        Self {
            holds,
            name,
            failing_since: None,
            reported: None,
        }
    }

    /// Records that the step failed at `now` because of a dependency and is retried.
    pub(crate) fn failed(&mut self, error: &WorkError, now: Instant) {
        let lasted = now.duration_since(*self.failing_since.get_or_insert(now));
        let Some(dependency) = error.dependency().filter(|_| lasted >= REPORT_AFTER) else {
            tracing::warn!(step = self.name, %error, "Step failed; retrying");
            return;
        };
        let logged_at = match &self.reported {
            Some((name, logged_at)) if *name == dependency.name => Some(*logged_at),
            Some((name, _)) => {
                self.holds.clear(name);
                None
            }
            None => None,
        };
        self.holds.set(&dependency.name, dependency.fix);
        let is_due = logged_at.is_none_or(|at| now.duration_since(at) >= LOG_PERIOD);
        if is_due {
            tracing::error!(
                step = self.name,
                dependency = dependency.name,
                lasts_s = lasted.as_secs(),
                %error,
                fix = dependency.fix,
                "On hold: a dependency refuses or fails; the message is kept and the step is retried"
            );
        } else {
            tracing::debug!(step = self.name, %error, "Still on hold");
        }
        let logged_at = logged_at.filter(|_| !is_due).unwrap_or(now);
        self.reported = Some((dependency.name.clone(), logged_at));
    }

    /// Records that the dependency no longer refuses or fails, although the step takes longer.
    pub(crate) fn progressed(&mut self) {
        self.failing_since = None;
        if let Some((dependency, _)) = self.reported.take() {
            self.holds.clear(&dependency);
            tracing::info!(step = self.name, dependency, "No longer on hold");
        }
    }
}

impl Drop for HoldableStep<'_> {
    fn drop(&mut self) {
        self.progressed();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::Metrics;
    use crate::work::Dependency;

    fn refusal(code: &str) -> WorkError {
        WorkError::held(Dependency::new("s3", code, "grant it"), "refused")
    }

    #[test]
    fn a_lasting_failure_is_reported_until_the_step_ends() {
        let metrics = Metrics::new();
        let names = || -> Vec<String> {
            let holds = metrics.holds().list();
            holds.iter().map(|hold| hold.dependency().to_owned()).collect()
        };
        let begin = Instant::now();
        let mut step = HoldableStep::new(metrics.holds(), "upload");
        step.failed(&refusal("403"), begin);
        step.failed(&refusal("403"), begin + REPORT_AFTER / 2);
        assert!(names().is_empty(), "most failures pass");
        step.failed(&refusal("403"), begin + REPORT_AFTER);
        assert_eq!(names(), ["s3:403"]);
        step.failed(&refusal("NoSuchBucket"), begin + REPORT_AFTER * 2);
        assert_eq!(names(), ["s3:NoSuchBucket"]);
        step.progressed();
        assert!(names().is_empty());
        let later = begin + REPORT_AFTER * 9;
        step.failed(&refusal("403"), later);
        assert!(names().is_empty(), "it failed only once since");
        step.failed(&refusal("403"), later + REPORT_AFTER);
        assert_eq!(names(), ["s3:403"]);
        drop(step);
        assert!(names().is_empty());
    }
}
