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

/// What is left to do for a result that says `status`, when `manifest` is there.
///
/// A success outranks a failure, whichever came first: a task that failed may be posted again, and a late failure of
/// a try that was taken for dead takes nothing back.
pub(super) fn rest(manifest: Option<FinalManifest>, status: FinalStatus) -> Rest {
    match manifest {
        None => Rest::Everything,
        Some(manifest) if manifest.status == FinalStatus::Failed && status == FinalStatus::Success => {
            Rest::Everything
        }
        Some(manifest) if manifest.webhook == WebhookState::Pending => Rest::Webhook(manifest),
        Some(_) => Rest::Nothing,
    }
}

#[cfg(test)]
mod tests {
    use separation_contract::message::TaskId;

    use super::*;

    fn check(manifest: Option<(FinalStatus, WebhookState)>, message: FinalStatus, expected: &str) {
        let task = TaskId::parse("t1").unwrap();
        let manifest = manifest.map(|(status, webhook)| {
            let mut manifest = FinalManifest::failed(&task, "no", webhook, 1);
            manifest.status = status;
            manifest
        });
        let found = match rest(manifest.clone(), message) {
            Rest::Everything => "everything",
            Rest::Webhook(told) => {
                assert_eq!(Some(told), manifest, "the webhook tells what the manifest says");
                "webhook"
            }
            Rest::Nothing => "nothing",
        };
        assert_eq!(found, expected, "{manifest:?} {message:?}");
    }

    #[test]
    fn finished_steps_are_not_done_again_and_a_success_outranks_a_failure() {
        use FinalStatus::{Failed, Success};
        use WebhookState::{Delivered, None as Nobody, Pending};
        for status in [Success, Failed] {
            check(None, status, "everything");
            check(Some((status, Pending)), status, "webhook");
            for told in [Delivered, WebhookState::Failed, Nobody] {
                check(Some((status, told)), status, "nothing");
            }
        }
        check(Some((Failed, Pending)), Success, "everything");
        check(Some((Failed, Delivered)), Success, "everything");
        check(Some((Success, Pending)), Failed, "webhook");
        check(Some((Success, Delivered)), Failed, "nothing");
    }
}
