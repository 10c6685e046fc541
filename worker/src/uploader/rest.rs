//! What is left to do for a result, given how far earlier tries came.

use crate::storage::{FinalManifest, FinalStatus, WebhookState};

/// What is left to do for a result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Rest {
    /// Stems, manifest and webhook.
    Everything,
    /// The webhook, which tells what the manifest says.
    Webhook(FinalManifest),
    /// Nothing.
    Nothing,
}

/// How the task of a message ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending<'m> {
    /// Both stems are staged.
    Success,
    /// It failed, or its result cannot be worked on.
    Failure {
        /// Position of the message that failed, where it is known.
        message: Option<&'m str>,
    },
}

/// What is left to do for a task that ended so, when `manifest` is there.
///
/// A success outranks a failure, whichever came first: a task that failed may be posted again, and a late failure of
/// an attempt whose worker was taken for dead takes nothing back. A task that fails again after it was posted again is
/// a failure of another message, and its caller is told again.
pub(super) fn rest(manifest: Option<FinalManifest>, ending: Ending<'_>) -> Rest {
    let Some(manifest) = manifest else {
        return Rest::Everything;
    };
    let is_new = manifest.status == FinalStatus::Failed
        && match ending {
            Ending::Success => true,
            Ending::Failure { message } => {
                let told = manifest.failed_message.as_deref();
                told.zip(message).is_some_and(|(told, message)| told != message)
            }
        };
    if is_new {
        Rest::Everything
    } else if manifest.webhook == WebhookState::Pending {
        Rest::Webhook(manifest)
    } else {
        Rest::Nothing
    }
}

#[cfg(test)]
mod tests {
    use separation_contract::message::TaskId;

    use super::*;

    use FinalStatus::{Failed, Success};
    use WebhookState::{Delivered, None as Nobody, Pending};

    const FAILURE: Ending<'_> = Ending::Failure {
        message: Some("tasks/0@1"),
    };
    const POSTED_AGAIN: Ending<'_> = Ending::Failure {
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
        let found = match rest(manifest.clone(), ending) {
            Rest::Everything => "everything",
            Rest::Webhook(told) => {
                assert_eq!(Some(told), manifest, "the webhook tells what the manifest says");
                "webhook"
            }
            Rest::Nothing => "nothing",
        };
        assert_eq!(found, expected, "{manifest:?} {ending:?}");
    }

    #[test]
    fn finished_steps_are_not_done_again_and_a_success_outranks_a_failure() {
        for (status, ending) in [(Success, Ending::Success), (Failed, FAILURE), (Failed, UNKNOWN)] {
            check(None, ending, "everything");
            check(Some((status, Pending)), ending, "webhook");
            for told in [Delivered, WebhookState::Failed, Nobody] {
                check(Some((status, told)), ending, "nothing");
            }
        }
        check(Some((Failed, Pending)), Ending::Success, "everything");
        check(Some((Failed, Delivered)), Ending::Success, "everything");
        check(Some((Success, Pending)), FAILURE, "webhook");
        check(Some((Success, Delivered)), FAILURE, "nothing");
    }

    #[test]
    fn a_task_that_was_posted_again_and_fails_again_is_told_again() {
        check(Some((Failed, Delivered)), POSTED_AGAIN, "everything");
        check(Some((Failed, Pending)), POSTED_AGAIN, "everything");
        check(Some((Success, Delivered)), POSTED_AGAIN, "nothing");
    }
}
