//! The interface of a role.

use separation_contract::api_task::{ApiTask, FailureCode};
use separation_contract::message::{Malformed, TaskId, TaskResult};

use super::{WorkContext, WorkError};

/// Result of finished work, of this attempt or an earlier one.
#[derive(Debug, Clone, PartialEq)]
pub struct Finished {
    /// The result to publish before the message is committed.
    pub publish: Option<TaskResult>,
    /// Whether the work succeeded. A reported failure counts as finished, too.
    pub success: bool,
}

impl Finished {
    /// Finished work with nothing to publish.
    pub const fn unpublished(success: bool) -> Self {
        let publish = None;
        Self { publish, success }
    }
}

/// A message that is given up: its task, webhook and reason.
#[derive(Debug, Clone, Copy)]
pub struct FailureReport<'a> {
    /// The task.
    pub task_uuid: &'a TaskId,
    /// URL of its webhook, if any.
    pub hook_url: Option<&'a str>,
    /// Its client and output if it was posted to the HTTP API v1.
    pub v1: Option<&'a ApiTask>,
    /// The reason, as the webhook reports it.
    pub reason: &'a str,
    /// The reason's code.
    pub code: FailureCode,
    /// Position of the message, as `topic/partition@offset`.
    pub message: &'a str,
}

/// The steps of a role. The service loop calls them in this order.
pub trait Role: Send + Sync + 'static {
    /// A parsed message.
    type Message: Send + Sync + 'static;

    /// The log line for a received message.
    const RECEIVED: &'static str;

    /// Name of this role in logs and metrics.
    const NAME: &'static str;

    /// Whether a failed message is also sent to the dead-letter topic, because it refers to finished stems.
    const DEAD_LETTERS_FAILURES: bool;

    /// Parses a message's value.
    ///
    /// # Errors
    /// When it is not a valid message of this role.
    fn parse(&self, value: Option<&[u8]>) -> Result<Self::Message, Malformed>;

    /// The task of a message, and the URL of its webhook.
    fn task<'m>(&self, message: &'m Self::Message) -> (&'m TaskId, Option<&'m str>);

    /// Client and output of a message's task, if it was posted to the HTTP API v1.
    fn api_task<'m>(&self, message: &'m Self::Message) -> Option<&'m ApiTask>;

    /// Returns the result if an earlier attempt completed the work.
    ///
    /// # Errors
    /// When this cannot be determined.
    fn find_completed(
        &self,
        message: &Self::Message,
    ) -> impl Future<Output = Result<Option<Finished>, WorkError>> + Send;

    /// Does the work. The future is dropped when the work is canceled or overdue and does not end by itself.
    ///
    /// # Errors
    /// When the work failed; the error's class decides what happens to the message.
    fn work(
        &self,
        message: &Self::Message,
        context: &WorkContext,
    ) -> impl Future<Output = Result<Finished, WorkError>> + Send;

    /// Reports the failure of a message that is given up: by webhook, or by a result for another role to report.
    ///
    /// # Errors
    /// When reporting failed; the class decides whether it is retried.
    fn report_failure(
        &self,
        failure: FailureReport<'_>,
        context: &WorkContext,
    ) -> impl Future<Output = Result<Finished, WorkError>> + Send;

    /// Deletes files that are no longer needed, after the message is committed. Failures are logged, not returned.
    fn clean_up(&self, message: &Self::Message, finished: &Finished) -> impl Future<Output = ()> + Send;
}
