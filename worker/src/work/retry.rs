//! Trying a step again while its failures may pass.

use std::time::{Duration, Instant};

use super::{Claim, HoldableStep, WorkError};
use crate::error::ErrorClass;

/// The first pause.
const FIRST_PAUSE: Duration = Duration::from_millis(250);

/// The longest pause. A dependency that is available again is noticed within it.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// Runs a step that needs the object store or the shared volume until it succeeds or fails for good.
///
/// As long as a dependency refuses or fails, the work is on hold: it is tried without end, and that time is not counted
/// against the task's deadline. Other failures that may pass are tried again for half of the time that is left.
///
/// `name` is what logs and metrics call the step.
///
/// # Errors
/// The last failure, or the claim's end; never [`ErrorClass::Dependency`].
pub async fn retrying<T, F>(
    claim: &Claim,
    name: &'static str,
    mut step: impl FnMut() -> F,
) -> Result<T, WorkError>
where
    F: Future<Output = Result<T, WorkError>>,
{
    let mut left = claim.deadline().saturating_duration_since(Instant::now()) / 2;
    let mut pause = FIRST_PAUSE;
    loop {
        let begin = Instant::now();
        let error = match holding(claim, name, || claim.dependent_stage(name, step())).await {
            Ok(done) => return Ok(done),
            Err(error) => error,
        };
        left = left.saturating_sub(begin.elapsed() + pause);
        if error.class() != ErrorClass::Transient || left.is_zero() {
            return Err(error);
        }
        tracing::warn!(step = name, %error, pause_ms = pause.as_millis() as u64, "Trying again");
        claim.pause(pause).await?;
        pause = next(pause);
    }
}

/// Runs `step` until its failure is not one of a dependency; see [`retrying`].
///
/// # Errors
/// The last failure, or the claim's end; never [`ErrorClass::Dependency`].
pub async fn holding<T, F>(
    claim: &Claim,
    name: &'static str,
    mut step: impl FnMut() -> F,
) -> Result<T, WorkError>
where
    F: Future<Output = Result<T, WorkError>>,
{
    let mut holdable = HoldableStep::new(claim.metrics().holds(), name);
    let mut pause = FIRST_PAUSE;
    loop {
        let begin = Instant::now();
        let error = match step().await {
            Err(error) if error.class() == ErrorClass::Dependency => error,
            done => return done,
        };
        let now = Instant::now();
        holdable.failed(&error, now);
        claim.extend(now.duration_since(begin) + pause);
        claim.pause(pause).await?;
        pause = next(pause);
    }
}

fn next(pause: Duration) -> Duration {
    (pause * 2).min(LONGEST_PAUSE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::{Metrics, TraceContext};
    use crate::work::{ClaimedWork, Dependency};

    const TASK_TIME: Duration = Duration::from_secs(600);

    fn claim(metrics: &Metrics) -> (Claim, ClaimedWork) {
        Claim::new(Instant::now() + TASK_TIME, TraceContext::start(), metrics.clone())
    }

    fn refused() -> WorkError {
        WorkError::held(Dependency::new("s3", "403", "grant it"), "refused")
    }

    #[tokio::test(start_paused = true)]
    async fn only_what_may_pass_is_tried_again() {
        for (class, tries) in [
            (ErrorClass::Transient, 3),
            (ErrorClass::Permanent, 1),
            (ErrorClass::Bug, 1),
        ] {
            let (claim, _work) = claim(&Metrics::new());
            let mut tried = 0;
            let done = retrying(&claim, "test", || {
                tried += 1;
                let result = if tried < 3 {
                    Err(WorkError::new(class, "no"))
                } else {
                    Ok(())
                };
                async move { result }
            })
            .await;
            assert_eq!((tried, done.is_ok()), (tries, class == ErrorClass::Transient));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_step_is_tried_as_long_as_a_dependency_refuses_and_keeps_the_tasks_time() {
        let (claim, _work) = claim(&Metrics::new());
        let deadline = claim.deadline();
        let mut tried = 0;
        // Ten seconds each: far longer than the task's own time.
        let held = retrying(&claim, "test", || {
            tried += 1;
            let result = if tried < 500 { Err(refused()) } else { Ok(()) };
            async move { result }
        });
        held.await.expect("the dependency is available in the end");
        assert_eq!(tried, 500);
        let added = claim.deadline().duration_since(deadline);
        assert!(added > Duration::from_secs(490 * 10), "{added:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_dependency_that_does_not_answer_is_no_fault_of_the_task() {
        let (claim, _work) = claim(&Metrics::new());
        let mut tried = 0;
        let done = retrying(&claim, "test", || {
            tried += 1;
            let hangs = tried < 3;
            async move {
                if hangs {
                    std::future::pending::<()>().await;
                }
                Ok(())
            }
        });
        done.await.expect("it answers at last");
    }

    #[tokio::test(start_paused = true)]
    async fn a_hold_ends_when_the_message_is_lost() {
        let metrics = Metrics::new();
        let (claim, work) = claim(&metrics);
        let held = retrying::<(), _>(&claim, "test", || async { Err(refused()) });
        let (held, ()) = tokio::join!(held, async { work.cancel() });
        assert_eq!(held.expect_err("cancelled").class(), ErrorClass::Interrupted);
        assert!(metrics.holds().list().is_empty());
    }
}
