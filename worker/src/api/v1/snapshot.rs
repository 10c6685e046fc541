//! Reads what is known about a task, for its view.

use separation_contract::message::TaskId;

use super::super::app::App;
use super::super::status::{TaskEvidence, TaskRecord};
use super::problem::Problem;
use super::state::V1;
use super::view::{TaskSources, TaskView, ViewContext};
use crate::clock::unix_time;
use crate::task_store::{EndState, StoredOutcome, StoredTask, WebhookReport};

/// The stored state of a task that is not erased.
pub(super) struct Snapshot {
    pub(super) task: StoredTask,
    pub(super) outcome: Option<StoredOutcome>,
    webhook: Option<WebhookReport>,
    evidence: TaskEvidence,
}

impl Snapshot {
    /// Reads the task with this ID.
    ///
    /// # Errors
    /// 404 if the client has no such task, or erased it; 503 if it cannot be read now.
    pub(super) async fn read(app: &App, v1: &V1, client: &str, id: &str) -> Result<Self, Problem> {
        let id = TaskId::parse(id).map_err(|_| Problem::not_found())?;
        let (task, outcome) = tokio::try_join!(v1.store.task(client, &id), v1.store.outcome(&id))?;
        let task = task.ok_or_else(Problem::not_found)?;
        Self::complete(app, v1, task, outcome).await
    }

    /// Reads the rest about a stored task.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub(super) async fn of(app: &App, v1: &V1, task: StoredTask) -> Result<Self, Problem> {
        let outcome = v1.store.outcome(&task.id).await?;
        Self::complete(app, v1, task, outcome).await
    }

    /// A task that was accepted just now.
    pub(super) fn of_new(task: StoredTask) -> Self {
        Self {
            task,
            outcome: None,
            webhook: None,
            evidence: TaskEvidence::default(),
        }
    }

    async fn complete(
        app: &App,
        v1: &V1,
        task: StoredTask,
        mut outcome: Option<StoredOutcome>,
    ) -> Result<Self, Problem> {
        let mut evidence = TaskEvidence::default();
        if outcome.is_none() {
            evidence = read_evidence(app, &task.id).await?;
            // It may have ended between the first read and that of the offset.
            outcome = v1.store.outcome(&task.id).await?;
        }
        if outcome
            .as_ref()
            .is_some_and(|outcome| outcome.state == EndState::Erased)
        {
            return Err(Problem::not_found());
        }
        let webhook = match task.webhook_url {
            Some(_) => v1.store.webhook_report(&task.id).await?,
            None => None,
        };
        Ok(Self {
            task,
            outcome,
            webhook,
            evidence,
        })
    }

    /// The view of the task.
    ///
    /// # Errors
    /// 404 if it was erased.
    pub(super) fn view(&self, v1: &V1) -> Result<TaskView, Problem> {
        let sources = TaskSources {
            task: &self.task,
            outcome: self.outcome.as_ref(),
            webhook: self.webhook.as_ref(),
            evidence: &self.evidence,
        };
        TaskView::new(sources, context(v1)).ok_or_else(Problem::not_found)
    }
}

/// The settings and the time that decide how tasks are shown.
pub(super) fn context(v1: &V1) -> ViewContext<'_> {
    ViewContext {
        now: unix_time().as_secs(),
        stems_retention: v1.settings.stems_retention,
        public_url: v1.settings.public_url.as_ref(),
    }
}

/// Reads where a task without an outcome is.
async fn read_evidence(app: &App, id: &TaskId) -> Result<TaskEvidence, Problem> {
    let (record, separated) = tokio::try_join!(app.files.record(id), app.files.is_separated(id))?;
    let record = record.as_deref().and_then(TaskRecord::parse);
    let position = record.and_then(|record| record.position());
    let progress = match position {
        Some(position) if !separated => app.queue.progress(position.partition).await,
        _ => None,
    };
    Ok(TaskEvidence {
        finished: None,
        separated,
        record,
        progress,
    })
}
