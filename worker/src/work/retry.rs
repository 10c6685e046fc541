//! Trying a step again while its failures may pass.

use std::time::{Duration, Instant};

use super::{Claim, WorkError};
use crate::error::ErrorClass;

/// The first pause.
const FIRST_PAUSE: Duration = Duration::from_millis(250);

/// The longest pause: 250 ms doubled six times.
const LONGEST_PAUSE: Duration = Duration::from_secs(16);

/// Runs `step` until it succeeds, fails for good, or half the time that the claim had left is used.
///
/// `name` is what logs and metrics call the step.
///
/// # Errors
/// The last failure, or the claim's end.
pub async fn retrying<T, F>(
    claim: &Claim,
    name: &'static str,
    mut step: impl FnMut() -> F,
) -> Result<T, WorkError>
where
    F: Future<Output = Result<T, WorkError>>,
{
    let begin = Instant::now();
    let give_up_at = begin + claim.deadline.saturating_duration_since(begin) / 2;
    let mut pause = FIRST_PAUSE;
    loop {
        let error = match claim.stage(name, step()).await {
            Ok(done) => return Ok(done),
            Err(error) => error,
        };
        if error.class() != ErrorClass::Transient || Instant::now() + pause > give_up_at {
            return Err(error);
        }
        tracing::warn!(step = name, error = %error, pause_ms = pause.as_millis() as u64, "Trying again");
        claim
            .run(async {
                tokio::time::sleep(pause).await;
                Ok(())
            })
            .await?;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::{Metrics, TraceContext};

    #[tokio::test(start_paused = true)]
    async fn only_what_may_pass_is_tried_again() {
        for (class, tries) in [
            (ErrorClass::Transient, 3),
            (ErrorClass::Permanent, 1),
            (ErrorClass::Bug, 1),
        ] {
            let (claim, _work) = Claim::new(
                Instant::now() + Duration::from_secs(600),
                TraceContext::start(),
                Metrics::new(),
            );
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
}
