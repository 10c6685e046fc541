//! The remaining steps of a result, given the final manifest of earlier attempts.

use crate::storage::{FinalManifest, FinalStatus, WebhookState};

/// The remaining steps of a result.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(clippy::large_enum_variant, reason = "there is one for each result")]
pub(super) enum RemainingSteps {
    /// Upload the stems, write the manifest, call the webhook.
    Everything,
    /// Call the webhook with the content of this manifest.
    Webhook(FinalManifest),
    /// The task is complete.
    Nothing,
}

/// How the task of a message ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending<'m> {
    /// Both stems are staged.
    Success,
    /// It failed, or its result cannot be processed.
    Failure {
        /// Position of the message that failed, if known.
        message: Option<&'m str>,
    },
}

/// The remaining steps for a task that ended with `ending`, given its final manifest.
///
/// A success outranks a failure, whichever came first: a failed task may be posted again and succeed, and a late
/// failure from a worker that the group had removed does not undo a success. A task that fails again after it was
/// posted again is a failure of another message: its webhook is called again.
pub(super) fn remaining_steps(manifest: Option<FinalManifest>, ending: Ending<'_>) -> RemainingSteps {
    let Some(manifest) = manifest else {
        return RemainingSteps::Everything;
    };
    let is_new = manifest.status == FinalStatus::Failed
        && match ending {
            Ending::Success => true,
            Ending::Failure { message } => {
                let failed = manifest.failed_message.as_deref();
                failed
                    .zip(message)
                    .is_some_and(|(failed, message)| failed != message)
            }
        };
    if is_new {
        RemainingSteps::Everything
    } else if manifest.webhook == WebhookState::Pending {
        RemainingSteps::Webhook(manifest)
    } else {
        RemainingSteps::Nothing
    }
}

#[cfg(test)]
mod tests {
    use separation_contract::message::TaskId;

    use super::*;

    use FinalStatus::{Failed, Success};
    use WebhookState::{Delivered, None as NotRequested, Pending};

    const FAILURE: Ending<'_> = Ending::Failure {
        message: Some("tasks/0@1"),
    };
    const REPOSTED: Ending<'_> = Ending::Failure {
        message: Some("tasks/0@2"),
    };
    const UNKNOWN: Ending<'_> = Ending::Failure { message: None };

    fn check(manifest: Option<(FinalStatus, WebhookState)>, ending: Ending<'_>, expected: &str) {
        let task = TaskId::parse("t1").unwrap();
        let manifest = manifest.map(|(status, webhook)| {
            let mut manifest = FinalManifest::failed(&task, "no", Some("tasks/0@1"), webhook, 1);
            manifest.status = status;
            manifest
        });
        let found = match remaining_steps(manifest.clone(), ending) {
            RemainingSteps::Everything => "everything",
            RemainingSteps::Webhook(reported) => {
                assert_eq!(Some(reported), manifest, "the webhook reports the manifest");
                "webhook"
            }
            RemainingSteps::Nothing => "nothing",
        };
        assert_eq!(found, expected, "{manifest:?} {ending:?}");
    }

    #[test]
    fn finished_steps_are_not_repeated_and_a_success_outranks_a_failure() {
        for (status, ending) in [(Success, Ending::Success), (Failed, FAILURE), (Failed, UNKNOWN)] {
            check(None, ending, "everything");
            check(Some((status, Pending)), ending, "webhook");
            for state in [Delivered, WebhookState::Failed, NotRequested] {
                check(Some((status, state)), ending, "nothing");
            }
        }
        check(Some((Failed, Pending)), Ending::Success, "everything");
        check(Some((Failed, Delivered)), Ending::Success, "everything");
        check(Some((Success, Pending)), FAILURE, "webhook");
        check(Some((Success, Delivered)), FAILURE, "nothing");
    }

    #[test]
    fn a_reposted_task_that_fails_again_calls_its_webhook_again() {
        check(Some((Failed, Delivered)), REPOSTED, "everything");
        check(Some((Failed, Pending)), REPOSTED, "everything");
        check(Some((Success, Delivered)), REPOSTED, "nothing");
    }
}
