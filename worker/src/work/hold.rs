//! Work on hold: a dependency of the worker refuses or fails, and the message waits for it.

use std::time::{Duration, Instant};

use super::WorkError;
use crate::telemetry::Holds;

/// Failures of a dependency are reported as a hold once they have lasted this long; most pass sooner.
const REPORT_AFTER: Duration = Duration::from_secs(2);

/// How often a hold that goes on is logged.
const LOG_PERIOD: Duration = Duration::from_secs(60);

/// A dependency that refuses or fails.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dependency {
    /// The dependency and its code, such as `s3:403`, `volume:EACCES`, `kafka:29`.
    pub name: String,
    /// What makes it available again.
    pub fix: &'static str,
}

impl Dependency {
    /// A dependency, its code, and what makes it available again.
    pub fn new(kind: &str, code: &str, fix: &'static str) -> Self {
        Self {
            name: format!("{kind}:{code}"),
            fix,
        }
    }
}

/// A step that may be put on hold. Reports the hold in log, metrics, `/ready` and the record beside the offset; dropped,
/// the hold is over.
#[derive(Debug)]
pub(crate) struct HoldableStep<'h> {
    holds: &'h Holds,
    name: &'static str,
    /// When it failed first.
    failing_since: Option<Instant>,
    /// The dependency that is reported, and when it was logged last.
    reported: Option<(String, Instant)>,
}

impl<'h> HoldableStep<'h> {
    /// A step that has not failed; `name` is what logs call it.
    pub(crate) fn new(holds: &'h Holds, name: &'static str) -> Self {
        Self {
            holds,
            name,
            failing_since: None,
            reported: None,
        }
    }

    /// The step failed because of a dependency, at `now`, and is tried again.
    pub(crate) fn failed(&mut self, error: &WorkError, now: Instant) {
        let lasted = now.duration_since(*self.failing_since.get_or_insert(now));
        let Some(dependency) = error.dependency().filter(|_| lasted >= REPORT_AFTER) else {
            tracing::warn!(step = self.name, %error, "Trying again");
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
                "On hold: a dependency refuses or fails; the message is kept and tried again"
            );
        } else {
            tracing::debug!(step = self.name, %error, "Still on hold");
        }
        let logged_at = logged_at.filter(|_| !is_due).unwrap_or(now);
        self.reported = Some((dependency.name.clone(), logged_at));
    }
}

impl Drop for HoldableStep<'_> {
    fn drop(&mut self) {
        if let Some((dependency, _)) = &self.reported {
            self.holds.clear(dependency);
            tracing::info!(step = self.name, dependency, "No longer on hold");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::Metrics;

    fn refusal(code: &str) -> WorkError {
        WorkError::held(Dependency::new("s3", code, "grant it"), "refused")
    }

    #[test]
    fn a_failure_that_lasts_is_reported_until_the_step_ends() {
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
        drop(step);
        assert!(names().is_empty());
    }
}
