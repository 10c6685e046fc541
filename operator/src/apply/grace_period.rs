//! Grace period of a worker's pod, and the limits of clusters on it.

use std::time::Duration;

use k8s_openapi::api::apps::v1::Deployment;
use separation_contract::kafka::CLOSE_MARGIN;

use crate::plan::RolePlan;

/// Time beyond the drain of a task, to release it and close: with `drainSeconds: 25` the grace period is the notice of
/// a spot node, 30 s.
const RELEASE_MARGIN: Duration = Duration::from_secs(5);

/// Default of the cluster autoscaler's `--max-graceful-termination-sec`.
const AUTOSCALER_SECONDS: i64 = 600;

/// Time after which an upgrade of an EKS managed node group fails, or with force removes the node.
const EKS_UPGRADE_SECONDS: i64 = 15 * 60;

/// Grace period of a pod, to finish or release its task and shut down: the drain, else `max.poll.interval.ms` rounded
/// up to seconds, and a margin.
pub(super) fn grace_period(role: &RolePlan) -> Duration {
    match role.drain {
        Some(drain) => drain + RELEASE_MARGIN,
        None => {
            let seconds = role.timings.max_poll_interval.as_millis().div_ceil(1_000);
            Duration::from_secs(u64::try_from(seconds).unwrap_or(u64::MAX)) + CLOSE_MARGIN
        }
    }
}

/// The limits of clusters that the grace period of a Deployment's pods exceeds, with what happens then, and the fix.
pub fn grace_period_warning(deployment: &Deployment) -> Option<String> {
    warning(
        deployment
            .spec
            .template
            .spec
            .as_ref()?
            .termination_grace_period_seconds?,
    )
}

fn warning(grace_seconds: i64) -> Option<String> {
    if grace_seconds <= AUTOSCALER_SECONDS {
        return None;
    }
    let upgrades = if grace_seconds > EKS_UPGRADE_SECONDS {
        ", and an upgrade of an EKS managed node group 15 minutes"
    } else {
        ""
    };
    Some(format!(
        "pods have {grace_seconds} s to finish a task when their node is drained, but the cluster autoscaler gives pods \
         {AUTOSCALER_SECONDS} s{upgrades}; another worker starts the task of a pod that is killed. The annotation \
         safe-to-evict keeps the autoscaler from draining nodes with workers while it is set; fix: lower drainSeconds \
         (of processors) or consumer.maxPollIntervalMs, or raise the autoscaler's --max-graceful-termination-sec"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grace_period_above_a_limit_of_clusters_is_named_with_the_limit_and_the_fix() {
        assert_eq!(warning(600), None);
        let above_one = warning(630).expect("a warning");
        for part in ["630 s", "600 s", "safe-to-evict", "fix: lower drainSeconds"] {
            assert!(above_one.contains(part), "{above_one}");
        }
        assert!(!above_one.contains("15 minutes"), "{above_one}");
        let above_both = warning(901).expect("a warning");
        assert!(above_both.contains("15 minutes"), "{above_both}");
    }
}
