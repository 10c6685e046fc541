//! The right to work on one message: until when, until whom, and whether it still holds.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::{Dependency, WorkError};
use crate::engine::{CancelToken, Control};
use crate::error::ErrorClass;
use crate::faults;
use crate::telemetry::{Metrics, TraceContext};

/// Asks the service loop to confirm a claim with the broker; answered with whether it holds.
pub type ClaimRequest = oneshot::Sender<bool>;

/// The least time that one try of a step with a dependency has, whatever is left of the task's time: one request to the
/// object store takes up to 120 s. The dependency is to blame for a try that takes longer.
const STEP_LIMIT: Duration = Duration::from_secs(150);

/// The right to work on one message.
#[derive(Debug, Clone)]
pub struct Claim {
    /// The trace that the message belongs to.
    pub trace: TraceContext,
    time: Arc<Mutex<Time>>,
    metrics: Metrics,
    cancel: CancelToken,
    cancelled: CancellationToken,
    requests: mpsc::Sender<ClaimRequest>,
}

/// How long the work may take.
#[derive(Debug)]
struct Time {
    /// Ends the work; the time on hold is added to it.
    deadline: Instant,
    /// Ends the running step with a dependency, where that is later.
    step: Option<Instant>,
}

/// The other end of a [`Claim`], which the service loop holds.
#[derive(Debug)]
pub struct ClaimedWork {
    /// Asked for by the work; each is to be answered.
    pub requests: mpsc::Receiver<ClaimRequest>,
    cancel: CancelToken,
    cancelled: CancellationToken,
}

impl Claim {
    /// A claim and its other end.
    pub fn new(deadline: Instant, trace: TraceContext, metrics: Metrics) -> (Self, ClaimedWork) {
        // The work asks one question at a time.
        let (sender, requests) = mpsc::channel(1);
        let (cancel, cancelled) = (CancelToken::new(), CancellationToken::new());
        let claim = Self {
            trace,
            time: Arc::new(Mutex::new(Time { deadline, step: None })),
            metrics,
            cancel: cancel.clone(),
            cancelled: cancelled.clone(),
            requests: sender,
        };
        let work = ClaimedWork {
            requests,
            cancel,
            cancelled,
        };
        (claim, work)
    }

    /// When the work is over its time. Moves on while the work is on hold.
    pub fn deadline(&self) -> Instant {
        self.time().deadline
    }

    /// The latest moment at which the work ends by itself.
    pub fn ends_at(&self) -> Instant {
        let time = self.time();
        time.step.map_or(time.deadline, |step| time.deadline.max(step))
    }

    /// Adds time that the work spent on hold.
    pub(super) fn extend(&self, held: Duration) {
        self.time().deadline += held;
    }

    pub(super) fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    fn time(&self) -> MutexGuard<'_, Time> {
        self.time.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What ends a separation early.
    pub fn control(&self) -> Control {
        Control {
            cancel: self.cancel.clone(),
            deadline: Some(self.deadline()),
        }
    }

    /// Waits until the work is to be left: its message was lost, or the process is to end at once.
    pub async fn cancelled(&self) {
        self.cancelled.cancelled().await;
    }

    /// Whether the work may go on, at `now`.
    ///
    /// # Errors
    /// [`ErrorClass::Interrupted`] when it is to be left, [`ErrorClass::TimedOut`] when its time is over.
    pub fn check(&self, now: Instant) -> Result<(), WorkError> {
        self.control().check(now).map_err(|stopped| {
            let class = match stopped {
                crate::engine::Stopped::Cancelled => ErrorClass::Interrupted,
                crate::engine::Stopped::DeadlineExceeded => ErrorClass::TimedOut,
            };
            WorkError::new(class, stopped)
        })
    }

    /// Makes sure that the message is still ours. To be called right before anything becomes visible to others.
    ///
    /// # Errors
    /// [`ErrorClass::Interrupted`] when the message went to another worker; what was made must stay unseen.
    pub async fn confirm(&self) -> Result<(), WorkError> {
        let (sender, answer) = oneshot::channel();
        let lost = || WorkError::new(ErrorClass::Interrupted, "the message went to another worker");
        self.requests.send(sender).await.map_err(|_| lost())?;
        tokio::select! {
            answer = answer => match answer {
                Ok(true) => self.check(Instant::now()),
                Ok(false) | Err(_) => Err(lost()),
            },
            () = self.cancelled() => Err(lost()),
        }
    }

    /// A place between two stages: nothing, but for tests that end or hold the process there.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub async fn point(&self, name: &'static str) -> Result<(), WorkError> {
        self.run(async {
            faults::point(name).await;
            Ok(())
        })
        .await
    }

    /// Runs one stage of the work and counts how long it took.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub async fn stage<T>(
        &self,
        name: &'static str,
        step: impl Future<Output = Result<T, WorkError>>,
    ) -> Result<T, WorkError> {
        let begin = Instant::now();
        let done = self.run(step).await;
        self.metrics.stage(name, begin.elapsed());
        done
    }

    /// Runs one try of a step with a dependency and counts how long it took. The task's own deadline does not end it.
    ///
    /// # Errors
    /// The step's own, [`ErrorClass::Interrupted`], or [`ErrorClass::Dependency`] when it takes too long.
    pub(super) async fn dependent_stage<T>(
        &self,
        name: &'static str,
        step: impl Future<Output = Result<T, WorkError>>,
    ) -> Result<T, WorkError> {
        let begin = Instant::now();
        let limit = self.deadline().max(begin + STEP_LIMIT);
        self.time().step = Some(limit);
        let done = tokio::select! {
            done = step => done,
            () = self.cancelled() => Err(interrupted()),
            () = tokio::time::sleep_until(limit.into()) => {
                let storage = Dependency::new("storage", "timeout", "make the storage answer in time");
                Err(WorkError::held(storage, format!("the step {name} got no answer in time")))
            }
        };
        self.time().step = None;
        self.metrics.stage(name, begin.elapsed());
        done
    }

    /// Waits before the next try.
    ///
    /// # Errors
    /// [`ErrorClass::Interrupted`] when the work is to be left.
    pub(super) async fn pause(&self, pause: Duration) -> Result<(), WorkError> {
        tokio::select! {
            () = tokio::time::sleep(pause) => Ok(()),
            () = self.cancelled() => Err(interrupted()),
        }
    }

    /// Runs one step of the work, ended by the claim's deadline and cancellation.
    ///
    /// # Errors
    /// The step's own, [`ErrorClass::Interrupted`] or [`ErrorClass::TimedOut`].
    pub async fn run<T>(&self, step: impl Future<Output = Result<T, WorkError>>) -> Result<T, WorkError> {
        tokio::select! {
            done = step => done,
            () = self.cancelled() => Err(interrupted()),
            () = tokio::time::sleep_until(self.deadline().into()) => {
                Err(WorkError::new(ErrorClass::TimedOut, "not done by the deadline"))
            }
        }
    }
}

fn interrupted() -> WorkError {
    WorkError::new(ErrorClass::Interrupted, "the work was interrupted")
}

impl ClaimedWork {
    /// Has the work left where it is.
    pub fn cancel(&self) {
        self.cancel.cancel();
        self.cancelled.cancel();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim() -> (Claim, ClaimedWork) {
        Claim::new(
            Instant::now() + Duration::from_secs(60),
            TraceContext::start(),
            Metrics::new(),
        )
    }

    #[tokio::test]
    async fn a_claim_holds_as_long_as_the_loop_says_so() {
        for answer in [true, false] {
            let (claim, mut work) = claim();
            let (confirmed, ()) = tokio::join!(claim.confirm(), async {
                let request = work.requests.recv().await.expect("a question");
                request.send(answer).expect("somebody waits");
            });
            assert_eq!(confirmed.map_err(|error| error.class()).is_ok(), answer);
        }
    }

    #[tokio::test]
    async fn a_cancelled_claim_ends_work_and_questions() {
        let (claim, work) = claim();
        work.cancel();
        let ended = claim.run(std::future::pending::<Result<(), WorkError>>()).await;
        assert_eq!(ended.expect_err("cancelled").class(), ErrorClass::Interrupted);
        assert_eq!(
            claim.confirm().await.expect_err("cancelled").class(),
            ErrorClass::Interrupted
        );
        drop(work);
        assert_eq!(
            claim.confirm().await.expect_err("nobody").class(),
            ErrorClass::Interrupted
        );
    }
}
