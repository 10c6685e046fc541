//! `separation-worker webhooks`: lists the webhooks of the HTTP API v1, and schedules them again.
//!
//! Reads and writes the task store. Delivers nothing: only the API has the secrets that sign webhooks.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Context as _;
use clap::{Args, Subcommand, ValueEnum};
use separation_contract::message::TaskId;
use serde::Serialize;

use super::failure::Failure;
use super::printing::{json_out, line_err, line_out};
use crate::clock::{rfc3339, unix_time};
use crate::settings::{S3Arguments, S3Settings};
use crate::storage::{S3, StorageError};
use crate::task_store::{
    Delivery, DeliveryState, EndState, StoredOutcome, StoredTask, TaskStore, WebhookReport,
};

const EXAMPLES: &str = "\
Examples:
  separation-worker webhooks list
  separation-worker webhooks list --state failed --json | jq -r .task_uuid
  separation-worker webhooks resend 0b6f1ac8-52a1-4b0c-9d4c-1a4a2a0ad1cf
  separation-worker webhooks resend --failed

The API delivers what is scheduled, with the same webhook-id as before, and retries for three days. Webhooks of tasks that
were posted to /generate or /tasks are not listed: the uploader delivers them before it commits the result.

Exit codes: 0 done, 1 a webhook was not scheduled, 2 invalid arguments.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct WebhooksArguments {
    #[command(subcommand)]
    command: WebhooksCommand,
}

#[derive(Debug, Subcommand)]
enum WebhooksCommand {
    /// List webhooks: state, attempts, the receiver's last status, the next attempt
    List(ListArguments),
    /// Schedule webhooks again, whether they were delivered or not
    Resend(ResendArguments),
}

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
struct ListArguments {
    /// List only webhooks in this state
    #[arg(long, value_enum, value_name = "STATE")]
    state: Option<StateChoice>,
    /// Print one JSON object per webhook
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    s3: S3Arguments,
}

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
struct ResendArguments {
    /// Tasks whose webhooks to schedule
    #[arg(value_name = "TASK", value_parser = TaskId::parse, required_unless_present = "failed")]
    tasks: Vec<TaskId>,
    /// Schedule all webhooks that failed
    #[arg(long, conflicts_with = "tasks")]
    failed: bool,
    /// Print one JSON object per task
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    s3: S3Arguments,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum StateChoice {
    /// Attempts follow
    Pending,
    /// The receiver accepted it
    Delivered,
    /// All attempts failed, or the receiver refused it
    Failed,
}

impl StateChoice {
    fn state(self) -> DeliveryState {
        match self {
            Self::Pending => DeliveryState::Pending,
            Self::Delivered => DeliveryState::Delivered,
            Self::Failed => DeliveryState::Failed,
        }
    }
}

/// A line of `list`.
#[derive(Debug, Serialize)]
struct WebhookRow {
    task_uuid: TaskId,
    state: DeliveryState,
    attempts: u32,
    last_attempt_at: Option<String>,
    /// HTTP status of the receiver's last response.
    status: Option<u16>,
    next_attempt_at: Option<String>,
}

/// A line of `resend`.
#[derive(Debug, Serialize)]
struct ResendReport<'t> {
    task_uuid: &'t TaskId,
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'static str>,
}

pub(super) fn run(arguments: &WebhooksArguments) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start a runtime")?;
    match &arguments.command {
        WebhooksCommand::List(arguments) => runtime.block_on(list(arguments)),
        WebhooksCommand::Resend(arguments) => runtime.block_on(resend(arguments)),
    }
}

/// The task store in the bucket of finished stems, which must be set.
async fn open(arguments: &S3Arguments) -> Result<TaskStore, Failure> {
    let settings: S3Settings = arguments.settings()?;
    settings.bucket()?;
    Ok(TaskStore::new(S3::connect(&settings).await, &settings)?)
}

async fn list(arguments: &ListArguments) -> Result<(), Failure> {
    let store = open(&arguments.s3).await?;
    let wanted = arguments.state.map(StateChoice::state);
    let print = |row: &WebhookRow| {
        if wanted.is_some_and(|state| state != row.state) {
            Ok(())
        } else if arguments.json {
            json_out(row)
        } else {
            line_out(&row.line())
        }
    };
    let cannot_list = "cannot list webhooks";
    if !arguments.json {
        line_out(&columns(HEADER)).context("cannot print")?;
    }
    let mut next_attempts = store.next_attempts().await.context(cannot_list)?;
    let mut pages = store.webhooks();
    while let Some(page) = pages.next_page().await.context(cannot_list)? {
        for (task, report) in page {
            let next = next_attempts.remove(&task);
            print(&WebhookRow::new(task, report, next)).context("cannot print")?;
        }
    }
    for (task, next) in next_attempts {
        print(&WebhookRow::new(task, NO_ATTEMPT, Some(next))).context("cannot print")?;
    }
    Ok(())
}

/// State of a webhook before its first attempt.
const NO_ATTEMPT: WebhookReport = WebhookReport {
    state: DeliveryState::Pending,
    attempts: 0,
    last_attempt_at: None,
    status: None,
};

const HEADER: [&str; 6] = [
    "TASK",
    "STATE",
    "ATTEMPTS",
    "LAST-ATTEMPT",
    "STATUS",
    "NEXT-ATTEMPT",
];

/// Columns of a line: UUIDs and times have these widths.
fn columns([task, state, attempts, last, status, next]: [&str; 6]) -> String {
    format!("{task:36}  {state:9}  {attempts:8}  {last:20}  {status:6}  {next}")
}

impl WebhookRow {
    fn new(task_uuid: TaskId, report: WebhookReport, next_attempt_at: Option<u64>) -> Self {
        Self {
            task_uuid,
            state: report.state,
            attempts: report.attempts,
            last_attempt_at: report.last_attempt_at.map(rfc3339),
            status: report.status,
            next_attempt_at: next_attempt_at.map(rfc3339),
        }
    }

    fn line(&self) -> String {
        let state = match self.state {
            DeliveryState::Pending => "pending",
            DeliveryState::Delivered => "delivered",
            DeliveryState::Failed => "failed",
        };
        let status = self.status.map(|status| status.to_string());
        columns([
            self.task_uuid.as_str(),
            state,
            &self.attempts.to_string(),
            self.last_attempt_at.as_deref().unwrap_or("-"),
            status.as_deref().unwrap_or("-"),
            self.next_attempt_at.as_deref().unwrap_or("-"),
        ])
    }
}

async fn resend(arguments: &ResendArguments) -> Result<(), Failure> {
    let store = open(&arguments.s3).await?;
    let ids = match arguments.failed {
        true => failed(&store).await.context("cannot list webhooks")?,
        false => arguments.tasks.iter().cloned().collect(),
    };
    let tasks = store.find_tasks(&ids).await.context("cannot find the tasks")?;
    let tasks: BTreeMap<&TaskId, &StoredTask> = tasks.iter().map(|task| (&task.id, task)).collect();
    let next_attempts = store.next_attempts().await.context("cannot list webhooks")?;
    let mut refused = 0;
    for id in &ids {
        let scheduled = match tasks.get(id) {
            None => Err("there is no record of this task"),
            Some(task) => schedule(&store, task, next_attempts.get(id).copied())
                .await
                .with_context(|| format!("cannot schedule the webhook of task {id}"))?,
        };
        let report = ResendReport {
            task_uuid: id,
            status: if scheduled.is_ok() { "scheduled" } else { "refused" },
            error: scheduled.err(),
        };
        refused += usize::from(report.error.is_some());
        report.print(arguments.json).context("cannot print")?;
    }
    line_err(&format!(
        "{} scheduled, {refused} refused; the API delivers them within a minute",
        ids.len() - refused
    ));
    match refused {
        0 => Ok(()),
        _ => Err(Failure::Reported),
    }
}

impl ResendReport<'_> {
    fn print(&self, json: bool) -> std::io::Result<()> {
        if json {
            return json_out(self);
        }
        let error = self.error.map(|error| format!(": {error}")).unwrap_or_default();
        line_out(&format!("{}  {}{error}", self.task_uuid, self.status))
    }
}

/// The tasks whose webhooks failed.
async fn failed(store: &TaskStore) -> Result<BTreeSet<TaskId>, StorageError> {
    let mut tasks = BTreeSet::new();
    let mut pages = store.webhooks();
    while let Some(page) = pages.next_page().await? {
        let failed = page
            .into_iter()
            .filter(|(_, report)| report.state == DeliveryState::Failed);
        tasks.extend(failed.map(|(task, _)| task));
    }
    Ok(tasks)
}

/// Schedules the webhook of a task now, as a new delivery in place of the one whose next attempt is at `next`.
async fn schedule(
    store: &TaskStore,
    task: &StoredTask,
    next: Option<u64>,
) -> Result<Result<(), &'static str>, StorageError> {
    let outcome = store.outcome(&task.id).await?;
    let url = match webhook_url(task, outcome.as_ref()) {
        Ok(url) => url,
        Err(reason) => return Ok(Err(reason)),
    };
    let report = store.webhook_report(&task.id).await?;
    // The state first: once the attempt is scheduled, an API may make it and report it.
    let pending = WebhookReport {
        state: DeliveryState::Pending,
        attempts: 0,
        ..report.unwrap_or(NO_ATTEMPT)
    };
    store.put_webhook_report(&task.id, &pending).await?;
    let now = unix_time().as_secs();
    let delivery = Delivery {
        id: task.id.clone(),
        client: task.client.clone(),
        url: url.to_owned(),
        attempts: 0,
        scheduled_at: now,
    };
    store.schedule_delivery(now, &delivery).await?;
    if let Some(replaced) = next.filter(|next| *next != now) {
        store.remove_delivery(replaced, &task.id).await?;
    }
    Ok(Ok(()))
}

/// The receiver of a task's webhook, or why it has none to send.
fn webhook_url<'t>(task: &'t StoredTask, outcome: Option<&StoredOutcome>) -> Result<&'t str, &'static str> {
    match outcome.map(|outcome| outcome.state) {
        None => return Err("the task has not ended; its webhook is delivered when it ends"),
        Some(EndState::Erased) => return Err("the task is erased"),
        Some(EndState::Succeeded | EndState::Failed | EndState::Cancelled) => {}
    }
    let url = task.webhook_url.as_deref();
    url.ok_or("the task was posted without webhook_url")
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use separation_contract::api_task::Output;

    use super::*;
    use crate::task_store::{InputSource, StoredInput, VERSION};

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        resend: ResendArguments,
    }

    fn task(webhook_url: Option<&str>) -> StoredTask {
        StoredTask {
            version: VERSION,
            id: TaskId::parse("a").unwrap(),
            client: "acme".to_owned(),
            fingerprint: String::new(),
            created_at: 1,
            input: StoredInput {
                source: InputSource::File,
                file_name: None,
                duration_seconds: None,
            },
            output: Output::default(),
            webhook_url: webhook_url.map(str::to_owned),
            metadata: BTreeMap::new(),
            traceparent: String::new(),
        }
    }

    fn outcome(state: EndState) -> StoredOutcome {
        StoredOutcome {
            version: VERSION,
            id: TaskId::parse("a").unwrap(),
            state,
            finished_at: 2,
            started_at: None,
            stems: Vec::new(),
            error: None,
        }
    }

    #[test]
    fn only_the_webhook_of_a_task_that_has_ended_is_sent_again() {
        let with = task(Some("https://example.com/hook"));
        for state in [EndState::Succeeded, EndState::Failed, EndState::Cancelled] {
            let found = webhook_url(&with, Some(&outcome(state)));
            assert_eq!(found, Ok("https://example.com/hook"));
        }
        webhook_url(&with, Some(&outcome(EndState::Erased))).unwrap_err();
        webhook_url(&with, None).unwrap_err();
        webhook_url(&task(None), Some(&outcome(EndState::Failed))).unwrap_err();
    }

    #[test]
    fn the_columns_of_the_list_are_aligned() {
        let task = TaskId::parse("0b6f1ac8-52a1-4b0c-9d4c-1a4a2a0ad1cf").unwrap();
        let report = WebhookReport {
            attempts: 3,
            last_attempt_at: Some(1_763_683_200),
            status: Some(503),
            ..NO_ATTEMPT
        };
        let row = WebhookRow::new(task, report, None);
        assert_eq!(
            [columns(HEADER), row.line()],
            [
                "TASK                                  STATE      ATTEMPTS  LAST-ATTEMPT          STATUS  NEXT-ATTEMPT",
                "0b6f1ac8-52a1-4b0c-9d4c-1a4a2a0ad1cf  pending    3         2025-11-21T00:00:00Z  503     -",
            ]
        );
    }

    #[test]
    fn tasks_or_all_failed_webhooks_are_resent() {
        let accepts = |options: &[&str]| Line::try_parse_from([&["resend"], options].concat()).is_ok();
        assert!(accepts(&["a", "b"]) && accepts(&["--failed"]));
        assert!(!accepts(&[]) && !accepts(&["a", "--failed"]) && !accepts(&["../a"]));
    }
}
