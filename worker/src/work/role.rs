//! What a role does with its messages.

use separation_contract::message::{Malformed, TaskId, TaskResult};

use super::{Claim, WorkError};

/// A message's work, done: now, or by an earlier attempt.
#[derive(Debug, Clone, PartialEq)]
pub struct Finished {
    /// What to publish before the message is committed.
    pub publish: Option<TaskResult>,
    /// Whether the work succeeded; a failure that was reported is finished as well.
    pub success: bool,
}

/// A message that is given up: who is told, and why.
#[derive(Debug, Clone, Copy)]
pub struct Refusal<'a> {
    /// The task.
    pub task_uuid: &'a TaskId,
    /// Its caller, if any.
    pub hook_url: Option<&'a str>,
    /// Why, for the caller.
    pub reason: &'a str,
    /// Position of the message, as `topic/partition@offset`.
    pub message: &'a str,
}

/// What a role does with its messages. The service loop calls the steps in the order in which they stand here.
pub trait Role: Send + Sync + 'static {
    /// A message that can be worked on.
    type Message: Send + Sync + 'static;

    /// What the log says of a message that was taken.
    const RECEIVED: &'static str;

    /// The word for this role in logs and metrics.
    const NAME: &'static str;

    /// Whether a message that failed is also kept as a dead letter, because what it stands for is of value.
    const KEEPS_FAILURES: bool;

    /// Reads a message's value.
    ///
    /// # Errors
    /// When it is none of this role's.
    fn parse(&self, value: Option<&[u8]>) -> Result<Self::Message, Malformed>;

    /// The task that a message belongs to, and who is told if it is given up.
    fn task<'m>(&self, message: &'m Self::Message) -> (&'m TaskId, Option<&'m str>);

    /// Finds work that an earlier attempt finished.
    ///
    /// # Errors
    /// When that cannot be told.
    fn recognise(
        &self,
        message: &Self::Message,
    ) -> impl Future<Output = Result<Option<Finished>, WorkError>> + Send;

    /// Does the work. Dropped when the claim is cancelled or its deadline passes and the work does not end by itself.
    ///
    /// # Errors
    /// When it failed; its class decides what becomes of the message.
    fn work(
        &self,
        message: &Self::Message,
        claim: &Claim,
    ) -> impl Future<Output = Result<Finished, WorkError>> + Send;

    /// Tells the caller of a message that is given up, or gives what to publish so that another role tells.
    ///
    /// # Errors
    /// When that failed, and may succeed later.
    fn refuse(
        &self,
        refusal: Refusal<'_>,
        claim: &Claim,
    ) -> impl Future<Output = Result<Finished, WorkError>> + Send;

    /// Removes what is not needed any more, once the message is committed. Failures are logged, not returned.
    fn clean_up(&self, message: &Self::Message, finished: &Finished) -> impl Future<Output = ()> + Send;
}
