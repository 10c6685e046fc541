//! Retries a step while its failures are transient.

use std::time::{Duration, Instant};

use separation_contract::backoff::Backoff;

use super::{HoldableStep, WorkContext, WorkError};
use crate::error::ErrorClass;

/// Pauses before a step is retried: a dependency that is available again is used within the longest one.
const BACKOFF: Backoff = Backoff {
    first: Duration::from_millis(250),
    longest: Duration::from_secs(10),
};

/// Runs a step that needs the object store or the shared volume until it succeeds or fails permanently.
///
/// While a dependency refuses or fails, the work is on hold: the step is retried without limit, and that time does not
/// count against the task's deadline. Other transient failures are retried for half of the time that is left.
///
/// `name` is the step's name in logs and metrics.
///
/// # Errors
/// The last failure, a cancellation or a timeout; never [`ErrorClass::Dependency`].
pub async fn retry_transient<T, F>(
    context: &WorkContext,
    name: &'static str,
    mut step: impl FnMut() -> F,
) -> Result<T, WorkError>
where
    F: Future<Output = Result<T, WorkError>>,
{
    let mut left = context.deadline().saturating_duration_since(Instant::now()) / 2;
    let mut failures = 0;
    loop {
        let begin = Instant::now();
        let error = match retry_while_held(context, name, || context.dependent_stage(name, step())).await {
            Ok(done) => return Ok(done),
            Err(error) => error,
        };
        failures += 1;
        let pause = BACKOFF.after(failures);
        left = left.saturating_sub(begin.elapsed() + pause);
        if error.class() != ErrorClass::Transient || left.is_zero() {
            return Err(error);
        }
        tracing::warn!(step = name, %error, pause_ms = pause.as_millis() as u64, "Step failed; retrying");
        context.pause(pause).await?;
    }
}

/// Runs `step` again while it fails because of a dependency; see [`retry_transient`].
///
/// # Errors
/// The last failure, a cancellation or a timeout; never [`ErrorClass::Dependency`].
pub async fn retry_while_held<T, F>(
    context: &WorkContext,
    name: &'static str,
    mut step: impl FnMut() -> F,
) -> Result<T, WorkError>
where
    F: Future<Output = Result<T, WorkError>>,
{
    let mut holdable = HoldableStep::new(context.metrics().holds(), name);
    let mut failures = 0;
    loop {
        let begin = Instant::now();
        let error = match step().await {
            Err(error) if error.class() == ErrorClass::Dependency => error,
            done => return done,
        };
        let now = Instant::now();
        holdable.failed(&error, now);
        failures += 1;
        let pause = BACKOFF.after(failures);
        context.extend(now.duration_since(begin) + pause);
        context.pause(pause).await?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::{Metrics, TraceContext};
    use crate::work::{Dependency, WorkSupervisor};

    const TASK_TIME: Duration = Duration::from_secs(600);

    fn context(metrics: &Metrics) -> (WorkContext, WorkSupervisor) {
        WorkContext::new(Instant::now() + TASK_TIME, TraceContext::start(), metrics.clone())
    }

    fn refused() -> WorkError {
        WorkError::held(Dependency::new("s3", "403", "grant it"), "refused")
    }

    #[tokio::test(start_paused = true)]
    async fn only_transient_errors_are_retried() {
        for (class, tries) in [
            (ErrorClass::Transient, 3),
            (ErrorClass::Permanent, 1),
            (ErrorClass::Bug, 1),
        ] {
            let (context, _work) = context(&Metrics::new());
            let mut tried = 0;
            let done = retry_transient(&context, "test", || {
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
    async fn a_step_is_retried_while_a_dependency_refuses_and_extends_the_deadline() {
        let (context, _work) = context(&Metrics::new());
        let deadline = context.deadline();
        let mut tried = 0;
        // Ten seconds each: far longer than the task's own time.
        let held = retry_transient(&context, "test", || {
            tried += 1;
            let result = if tried < 500 { Err(refused()) } else { Ok(()) };
            async move { result }
        });
        held.await.expect("the dependency is available in the end");
        assert_eq!(tried, 500);
        let added = context.deadline().duration_since(deadline);
        assert!(added > Duration::from_secs(490 * 10), "{added:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_dependency_that_does_not_respond_does_not_fail_the_task() {
        let (context, _work) = context(&Metrics::new());
        let mut tried = 0;
        let done = retry_transient(&context, "test", || {
            tried += 1;
            let hangs = tried < 3;
            async move {
                if hangs {
                    std::future::pending::<()>().await;
                }
                Ok(())
            }
        });
        done.await.expect("the third try responds");
    }

    #[tokio::test(start_paused = true)]
    async fn a_hold_ends_when_the_message_is_lost() {
        let metrics = Metrics::new();
        let (context, work) = context(&metrics);
        let held = retry_transient::<(), _>(&context, "test", || async { Err(refused()) });
        let (held, ()) = tokio::join!(held, async { work.cancel() });
        assert_eq!(held.expect_err("canceled").class(), ErrorClass::Interrupted);
        assert!(metrics.holds().list().is_empty());
    }
}
