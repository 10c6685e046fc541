//! The work on one message: its deadline, cancellation, progress, and the ownership of its partition.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::{Dependency, WorkError};
use crate::engine::{CancelToken, Control};
use crate::error::ErrorClass;
use crate::faults;
use crate::telemetry::{Metrics, TraceContext};

/// Asks the service loop to confirm the partition ownership with the broker; answered with whether it is confirmed.
pub type OwnershipRequest = oneshot::Sender<bool>;

/// Minimum time limit of one try of a step with a dependency, whatever is left of the task's time: one request to the
/// object store takes up to 120 s. A longer try counts as a failure of the dependency.
const STEP_LIMIT: Duration = Duration::from_secs(150);

/// The work's side: deadline, cancellation, progress and ownership of one message.
#[derive(Debug, Clone)]
pub struct WorkContext {
    /// The message's trace.
    pub trace: TraceContext,
    deadlines: Arc<Mutex<Deadlines>>,
    metrics: Metrics,
    cancel: CancelToken,
    canceled: CancellationToken,
    requests: mpsc::Sender<OwnershipRequest>,
    progress: watch::Sender<u8>,
}

/// Deadlines of the work and of its running step.
#[derive(Debug)]
struct Deadlines {
    /// Deadline of the work; time on hold is added to it.
    deadline: Instant,
    /// Deadline of the running step with a dependency.
    step: Option<Instant>,
}

/// The service loop's side of a [`WorkContext`]. Dropping it cancels the work: also what runs on another thread.
#[derive(Debug)]
pub struct WorkSupervisor {
    /// Requests of the work; each must be answered.
    pub requests: mpsc::Receiver<OwnershipRequest>,
    /// Progress of the work, 0 to 100.
    pub progress: watch::Receiver<u8>,
    cancel: CancelToken,
    canceled: CancellationToken,
}

impl WorkContext {
    /// The two sides, for work on one message.
    pub fn new(deadline: Instant, trace: TraceContext, metrics: Metrics) -> (Self, WorkSupervisor) {
        // The work sends one request at a time.
        let (sender, requests) = mpsc::channel(1);
        let (progress, reported) = watch::channel(0);
        let (cancel, canceled) = (CancelToken::new(), CancellationToken::new());
        let context = Self {
            trace,
            deadlines: Arc::new(Mutex::new(Deadlines { deadline, step: None })),
            metrics,
            cancel: cancel.clone(),
            canceled: canceled.clone(),
            requests: sender,
            progress,
        };
        let work = WorkSupervisor {
            requests,
            progress: reported,
            cancel,
            canceled,
        };
        (context, work)
    }

    /// Deadline of the work. Moves later while the work is on hold.
    pub fn deadline(&self) -> Instant {
        self.deadlines().deadline
    }

    /// The latest time at which the work ends by itself.
    pub fn ends_at(&self) -> Instant {
        let deadlines = self.deadlines();
        deadlines
            .step
            .map_or(deadlines.deadline, |step| deadlines.deadline.max(step))
    }

    /// Adds time that the work spent on hold.
    pub(super) fn extend(&self, held: Duration) {
        self.deadlines().deadline += held;
    }

    /// The worker's metrics.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    fn deadlines(&self) -> MutexGuard<'_, Deadlines> {
        self.deadlines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Deadline and cancellation for the separation engine.
    pub fn control(&self) -> Control {
        Control {
            cancel: self.cancel.clone(),
            deadline: Some(self.deadline()),
        }
    }

    /// Reports the progress of the work, 0 to 100. May be called from any thread, as often as it changes.
    pub fn report_progress(&self, percent: u8) {
        self.progress
            .send_if_modified(|reported| std::mem::replace(reported, percent) != percent);
    }

    /// Waits until the work is canceled: its partition was lost, or the work is overdue.
    pub async fn canceled(&self) {
        self.canceled.cancelled().await;
    }

    /// Checks whether the work may continue at `now`.
    ///
    /// # Errors
    /// [`ErrorClass::Interrupted`] when it was canceled, [`ErrorClass::TimedOut`] after the deadline.
    pub fn check(&self, now: Instant) -> Result<(), WorkError> {
        self.control().check(now).map_err(|stopped| {
            let class = match stopped {
                crate::engine::Stopped::Canceled => ErrorClass::Interrupted,
                crate::engine::Stopped::DeadlineExceeded => ErrorClass::TimedOut,
            };
            WorkError::new(class, stopped)
        })
    }

    /// Makes sure that this member still owns the message's partition. Call it right before anything is published.
    ///
    /// # Errors
    /// [`ErrorClass::Interrupted`] when the partition was reassigned; nothing may be published.
    pub async fn confirm(&self) -> Result<(), WorkError> {
        let (sender, answer) = oneshot::channel();
        let lost = || {
            WorkError::new(
                ErrorClass::Interrupted,
                "this worker no longer owns the partition",
            )
        };
        self.requests.send(sender).await.map_err(|_| lost())?;
        tokio::select! {
            answer = answer => match answer {
                Ok(true) => self.check(Instant::now()),
                Ok(false) | Err(_) => Err(lost()),
            },
            () = self.canceled() => Err(lost()),
        }
    }

    /// A fault-injection point between two stages: does nothing, except in tests that kill or hold the process there.
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

    /// Runs one stage of the work and records its duration.
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

    /// Runs one try of a step with a dependency and records its duration. The task's own deadline does not end it.
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
        self.deadlines().step = Some(limit);
        let done = tokio::select! {
            done = step => done,
            () = self.canceled() => Err(interrupted()),
            () = tokio::time::sleep_until(limit.into()) => {
                let storage = Dependency::new("storage", "timeout", "make the storage respond in time");
                Err(WorkError::held(storage, format!("the step {name} got no response in time")))
            }
        };
        self.deadlines().step = None;
        self.metrics.stage(name, begin.elapsed());
        done
    }

    /// Waits before the next try.
    ///
    /// # Errors
    /// [`ErrorClass::Interrupted`] when the work was canceled.
    pub(super) async fn pause(&self, pause: Duration) -> Result<(), WorkError> {
        tokio::select! {
            () = tokio::time::sleep(pause) => Ok(()),
            () = self.canceled() => Err(interrupted()),
        }
    }

    /// Runs one step of the work until the deadline or cancellation.
    ///
    /// # Errors
    /// The step's own, [`ErrorClass::Interrupted`] or [`ErrorClass::TimedOut`].
    pub async fn run<T>(&self, step: impl Future<Output = Result<T, WorkError>>) -> Result<T, WorkError> {
        tokio::select! {
            done = step => done,
            () = self.canceled() => Err(interrupted()),
            () = tokio::time::sleep_until(self.deadline().into()) => {
                Err(WorkError::new(ErrorClass::TimedOut, "not done by the deadline"))
            }
        }
    }
}

fn interrupted() -> WorkError {
    WorkError::new(ErrorClass::Interrupted, "the work was interrupted")
}

impl WorkSupervisor {
    /// Cancels the work.
    pub fn cancel(&self) {
        self.cancel.cancel();
        self.canceled.cancel();
    }
}

impl Drop for WorkSupervisor {
    fn drop(&mut self) {
        self.cancel();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn context() -> (WorkContext, WorkSupervisor) {
        WorkContext::new(
            Instant::now() + Duration::from_secs(60),
            TraceContext::start(),
            Metrics::new(),
        )
    }

    #[tokio::test]
    async fn ownership_is_confirmed_only_if_the_service_loop_confirms_it() {
        for answer in [true, false] {
            let (context, mut work) = context();
            let (confirmed, ()) = tokio::join!(context.confirm(), async {
                let request = work.requests.recv().await.expect("a request");
                request.send(answer).expect("the work waits");
            });
            assert_eq!(confirmed.map_err(|error| error.class()).is_ok(), answer);
        }
    }

    #[tokio::test]
    async fn a_canceled_context_ends_work_and_ownership_requests() {
        let (context, work) = context();
        work.cancel();
        let ended = context.run(std::future::pending::<Result<(), WorkError>>()).await;
        assert_eq!(ended.expect_err("canceled").class(), ErrorClass::Interrupted);
        assert_eq!(
            context.confirm().await.expect_err("canceled").class(),
            ErrorClass::Interrupted
        );
        drop(work);
        assert_eq!(
            context.confirm().await.expect_err("no receiver").class(),
            ErrorClass::Interrupted
        );
    }

    #[test]
    fn a_separation_stops_when_the_service_loop_drops_its_task() {
        let (context, work) = context();
        let control = context.control();
        assert!(control.check(Instant::now()).is_ok());
        drop(work);
        assert!(control.check(Instant::now()).is_err());
    }
}
