//! Takes accepted tasks to the queue: has their songs fetched, and publishes the tasks.
//!
//! Any replica may take up any task, one at a time under a claim, and begins again after a kill: a song is staged under
//! its task's name, a task that is published twice is separated once, and the mark of the task in `incoming/` is removed
//! last, also that of an ended task. A failure of the store or of the brokers never ends a task.

use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use separation_contract::api_task::{ApiTask, FailureCode};
use separation_contract::backoff::Backoff;
use separation_contract::message::{Task, TaskId};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::super::slots::Slots;
use super::super::status::TaskRecord;
use super::super::traits::{QueueError, TaskFiles, TaskQueue};
use super::audio_check::UnacceptableSong;
use super::claims::{self, while_claimed};
use super::ending::{end, failed, remove_staged};
use super::fetching::{Fetcher, SongError};
use super::jobs::{Begin, Jobs};
use crate::clock::unix_time;
use crate::error::ErrorClass;
use crate::faults;
use crate::task_store::{EndState, Incoming, InputSource, StoredOutcome, StoredTask, TaskStore};
use crate::telemetry::TraceContext;
use crate::work::{WorkError, chain};

/// Pauses before a task is tried again.
const PAUSES: Backoff = Backoff {
    first: Duration::from_secs(1),
    longest: Duration::from_secs(30),
};

/// Pause before a task that another replica has claimed is looked at again.
const CLAIMED_PAUSE: Duration = Duration::from_secs(10);

/// Pause before a mark without a record is looked at again: its request is storing the record, or was interrupted.
const NO_RECORD_PAUSE: Duration = Duration::from_secs(30);

/// Age in seconds of a mark without a record after which its request counts as interrupted: a request stores both within
/// a minute.
const INTERRUPTED_AFTER: u64 = 60 * 60;

/// Time between two reads while a song is fetched, of whether its task has ended.
const END_INTERVAL: Duration = Duration::from_secs(5);

/// Takes accepted tasks to the queue; cheap to clone.
#[derive(Clone)]
pub(in crate::api) struct Queuer(Arc<Shared>);

/// The parts of the API that a [`Queuer`] uses.
pub(in crate::api) struct QueuerParts {
    pub(in crate::api) store: TaskStore,
    pub(in crate::api) queue: Arc<dyn TaskQueue>,
    pub(in crate::api) files: Arc<dyn TaskFiles>,
    pub(in crate::api) fetcher: Fetcher,
    /// Permissions to fetch a song.
    pub(in crate::api) slots: Slots,
    /// Name of this process in claims.
    pub(in crate::api) replica: String,
    /// Tracks the work that has to end before the process does.
    pub(in crate::api) unfinished: TaskTracker,
}

struct Shared {
    parts: QueuerParts,
    jobs: Mutex<Jobs>,
    stop: CancellationToken,
}

/// A task on its way to the queue.
struct Job {
    incoming: Incoming,
    /// Fetches are repeated until then; set by the first one.
    deadline: Option<Instant>,
    /// Whether an attempt has staged the song.
    is_staged: bool,
}

/// How far a task got.
enum Step {
    /// Nothing is left to do for this process.
    Done,
    /// It is to be looked at again after a pause.
    LookAgain(Duration),
    /// The same is to be tried again, for this reason.
    Retry(String),
}

impl Queuer {
    pub(in crate::api) fn new(parts: QueuerParts) -> Self {
        Self(Arc::new(Shared {
            parts,
            jobs: Mutex::default(),
            stop: CancellationToken::new(),
        }))
    }

    /// Takes a task whose record was stored just now to the queue, in the background. Without room for it, or after
    /// [`stop`](Self::stop), it stays in the store, where any replica finds it.
    pub(in crate::api) fn start(&self, incoming: Incoming) {
        if !self.0.stop.is_cancelled() && self.0.jobs().begin_accepted(&incoming) != Begin::No {
            self.spawn(incoming);
        }
    }

    /// Takes up those of the listed tasks that this process does not work on. Returns how many it did not know.
    pub(in crate::api) fn take_up(&self, listed: Vec<Incoming>) -> usize {
        if self.0.stop.is_cancelled() {
            return 0;
        }
        let mut new = 0;
        for incoming in listed {
            let begin = self.0.jobs().begin_listed(&incoming, Instant::now());
            if begin != Begin::No {
                self.spawn(incoming);
            }
            new += usize::from(begin == Begin::New);
        }
        new
    }

    /// Interrupts fetches and pauses; a task whose song is staged is still published. Starts no further task.
    pub(in crate::api) fn stop(&self) {
        self.0.stop.cancel();
    }

    fn spawn(&self, incoming: Incoming) {
        let shared = Arc::clone(&self.0);
        self.0.parts.unfinished.spawn(async move {
            loop {
                let pause = shared.run(&incoming).await;
                if !shared.jobs().end(&incoming, pause, Instant::now()) {
                    return;
                }
            }
        });
    }
}

impl Shared {
    fn jobs(&self) -> MutexGuard<'_, Jobs> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a task to the queue. Returns a pause if the task is to be looked at again after it.
    async fn run(&self, incoming: &Incoming) -> Option<Duration> {
        let task_uuid = &incoming.id;
        let mut job = Job {
            incoming: incoming.clone(),
            deadline: None,
            is_staged: false,
        };
        let mut failures = 0;
        loop {
            let reason = match self.attempt(&mut job).await {
                Ok(Step::Done) => return None,
                Ok(Step::LookAgain(pause)) => return Some(pause),
                Ok(Step::Retry(reason)) => reason,
                Err(error) => error.to_string(),
            };
            if self.stop.is_cancelled() {
                return None;
            }
            failures += 1;
            let pause = PAUSES.after(failures);
            let pause_ms = pause.as_millis() as u64;
            tracing::warn!(%task_uuid, error = reason, pause_ms, "Cannot queue a task yet; retrying");
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.stop.cancelled() => {}
            }
        }
    }

    async fn attempt(&self, job: &mut Job) -> Result<Step, WorkError> {
        let QueuerParts {
            store, files, slots, ..
        } = &self.parts;
        let Incoming { id, client, .. } = &job.incoming;
        let Some(task) = store.task(client, id).await? else {
            return self.abandon(&job.incoming).await;
        };
        let may_fetch = !job.is_staged && task.input.source != InputSource::File;
        let needs_fetch =
            may_fetch && store.outcome(id).await?.is_none() && files.record(id).await?.is_none();
        // Before the claim: a task that waits here may be taken up by another replica.
        let _slot = match needs_fetch {
            true => tokio::select! {
                slot = slots.acquire(client) => Some(slot),
                () = self.stop.cancelled() => return Ok(Step::Done),
            },
            false => None,
        };
        let claim = claims::of_incoming(id);
        self.claimed(&claim, self.complete(&task, job)).await
    }

    /// Does `work` under a claim. If something else has it, the task is looked at again later.
    async fn claimed(
        &self,
        claim: &str,
        work: impl Future<Output = Result<Step, WorkError>>,
    ) -> Result<Step, WorkError> {
        let QueuerParts { store, replica, .. } = &self.parts;
        let done = while_claimed(store, claim, replica, work).await?;
        done.unwrap_or(Ok(Step::LookAgain(CLAIMED_PAUSE)))
    }

    /// A mark without a record: its request is being accepted, was interrupted, or its task was erased.
    async fn abandon(&self, incoming: &Incoming) -> Result<Step, WorkError> {
        let age = unix_time().as_secs().saturating_sub(incoming.accepted_at);
        if age < INTERRUPTED_AFTER && self.parts.store.outcome(&incoming.id).await?.is_none() {
            return Ok(Step::LookAgain(NO_RECORD_PAUSE));
        }
        // No replica fetches the song, and no request stores the record.
        let (fetch, request) = (
            claims::of_incoming(&incoming.id),
            claims::of_request(&incoming.id),
        );
        let removal = self.claimed(&request, self.remove_interrupted(incoming));
        self.claimed(&fetch, removal).await
    }

    /// Removes what an interrupted request, or an erased task, left.
    async fn remove_interrupted(&self, incoming: &Incoming) -> Result<Step, WorkError> {
        let QueuerParts { store, files, .. } = &self.parts;
        let Incoming { id, client, .. } = incoming;
        if store.is_incoming(incoming).await? && store.task(client, id).await?.is_none() {
            files.erase(id).await?;
            store.close_open(client, id).await?;
            store.delete_incoming(incoming).await?;
        }
        Ok(Step::Done)
    }

    /// Takes a task to the queue, or removes what it left if it has ended, then removes its mark.
    async fn complete(&self, task: &StoredTask, job: &mut Job) -> Result<Step, WorkError> {
        let store = &self.parts.store;
        let step = self.advance(task, job).await?;
        if matches!(step, Step::Done) {
            if task.input.source == InputSource::Upload {
                store.delete_upload(&task.client, &task.id).await?;
            }
            // Not that of the task: an interrupted request with the same ID may have left another one.
            store.delete_incoming(&job.incoming).await?;
            faults::point("incoming_deleted").await;
        }
        Ok(step)
    }

    async fn advance(&self, task: &StoredTask, job: &mut Job) -> Result<Step, WorkError> {
        let QueuerParts { store, files, .. } = &self.parts;
        faults::point("incoming_claimed").await;
        if let Some(outcome) = store.outcome(&task.id).await? {
            return self.clean(task, &outcome).await;
        }
        let record = files.record(&task.id).await?;
        if record.as_deref().is_some_and(has_position) {
            return Ok(Step::Done);
        }
        // The record is staged after the song: an earlier attempt may have published the task already.
        if record.is_none() && !job.is_staged {
            let first_deadline = Instant::now() + self.parts.fetcher.limits.total;
            let deadline = *job.deadline.get_or_insert(first_deadline);
            let fetched = self.fetch(task, deadline).await;
            if let Some(outcome) = store.outcome(&task.id).await? {
                return self.clean(task, &outcome).await;
            }
            if let Err(error) = fetched {
                return self.judge(task, error, deadline).await;
            }
            job.is_staged = true;
        }
        faults::point("input_staged").await;
        self.publish(task, record.as_deref()).await
    }

    /// Stages the song of a task, until the task ends or this process is to stop.
    async fn fetch(&self, task: &StoredTask, deadline: Instant) -> Result<(), SongError> {
        let stop = self.stop.child_token();
        let mut staging = pin!(self.parts.fetcher.stage(task, deadline, &stop));
        tokio::select! {
            staged = &mut staging => return staged,
            () = self.wait_for_end(&task.id) => stop.cancel(),
        }
        // Discards what is stored of it.
        staging.await
    }

    async fn wait_for_end(&self, id: &TaskId) {
        loop {
            tokio::time::sleep(END_INTERVAL).await;
            // A store that fails now is asked again.
            if let Ok(Some(_)) = self.parts.store.outcome(id).await {
                return;
            }
        }
    }

    /// `staged` is the record of an earlier attempt. It may have published the task, so its partition stays: two workers
    /// could process two messages in different partitions simultaneously.
    async fn publish(&self, task: &StoredTask, staged: Option<&[u8]>) -> Result<Step, WorkError> {
        let QueuerParts {
            store, queue, files, ..
        } = &self.parts;
        let v1 = ApiTask {
            client: task.client.clone(),
            output: task.output.clone(),
        };
        let partition = match staged {
            Some(record) => TaskRecord::parse(record).and_then(|record| record.partition),
            None => queue.place().await,
        };
        let placed = TaskRecord::placed(task.created_at, partition);
        // Before the task is published: an uploader recognizes the task by it, whose processor ignores `v1`.
        files.put_record(&task.id, placed.to_json_of(&v1)).await?;
        let trace = TraceContext::from_header(Some(task.traceparent.as_bytes()));
        let audio_path = files.input_path(&task.id)?;
        let message = Task::new(task.id.clone(), audio_path, None, task.created_at).with_v1(v1.clone());
        let mut published = queue.publish(&message, partition, trace).await;
        if matches!(published, Err(QueueError::NoPartition(_))) {
            // Before the task is published elsewhere: a retry must not publish it to the missing partition, which may
            // exist by then.
            let unplaced = TaskRecord::placed(task.created_at, None);
            files.put_record(&task.id, unplaced.to_json_of(&v1)).await?;
            published = queue.publish(&message, None, trace).await;
        }
        let position = published.map_err(|error| WorkError::new(ErrorClass::Transient, error))?;
        faults::point("task_published").await;
        tracing::info!(
            task_uuid = %task.id,
            partition = position.partition,
            offset = position.offset,
            trace_id = trace.trace_id(),
            "Task queued"
        );
        let record = TaskRecord::new(task.created_at, Some(position));
        if let Err(error) = files.put_record(&task.id, record.to_json_of(&v1)).await {
            tracing::warn!(
                task_uuid = %task.id,
                %error,
                "Cannot store the task's partition and offset; its progress is not reported"
            );
        }
        faults::point("position_stored").await;
        // Whatever ended the task may have removed its staged files before the record was stored.
        match store.outcome(&task.id).await? {
            Some(outcome) => self.clean(task, &outcome).await,
            None => Ok(Step::Done),
        }
    }

    /// Removes what an ended task left here.
    async fn clean(&self, task: &StoredTask, outcome: &StoredOutcome) -> Result<Step, WorkError> {
        let QueuerParts { store, files, .. } = &self.parts;
        match outcome.state {
            EndState::Erased => files.erase(&task.id).await?,
            // The staged stems of others are removed, or kept, by the program that stored them.
            EndState::Succeeded | EndState::Failed | EndState::Cancelled => {
                remove_staged(&**files, &task.id).await?;
            }
        }
        store.close_open(&task.client, &task.id).await?;
        Ok(Step::Done)
    }

    /// Decides whether a song that was not staged is fetched again or ends its task.
    async fn judge(&self, task: &StoredTask, error: SongError, deadline: Instant) -> Result<Step, WorkError> {
        let text = chain(&error);
        let is_over = Instant::now() >= deadline;
        let code = match error {
            SongError::Stopped | SongError::Upload(_) => return Ok(Step::Retry(text)),
            SongError::Link(error) if error.class() == ErrorClass::Transient && !is_over => {
                return Ok(Step::Retry(text));
            }
            SongError::Staging(error) => return Err(error),
            SongError::Link(_) | SongError::NoUpload | SongError::LargeUpload(_) => {
                FailureCode::InputFetchFailed
            }
            SongError::Unacceptable(UnacceptableSong::NotAudio(_)) => FailureCode::InputUnreadable,
            SongError::Unacceptable(UnacceptableSong::TooLong { .. }) => FailureCode::InputTooLong,
        };
        tracing::info!(task_uuid = %task.id, error = text, "A task failed before it was queued");
        let outcome = end(&self.parts.store, task, failed(task, code, text)).await?;
        self.clean(task, &outcome).await
    }
}

/// Whether a staged record has the task's partition and offset: then the task is certainly in the queue, or was.
fn has_position(record: &[u8]) -> bool {
    TaskRecord::parse(record).is_some_and(|record| record.position().is_some())
}
