//! The spec and the status of a pool.

use std::sync::Arc;

use separation_contract::check::Finding;
use separation_operator::crd::condition_types;
use separation_operator::plan::PoolPlan;
use separation_operator::watch::cache::PoolSnapshot;

/// Conditions and the status in which they report a problem.
const PROBLEMS: [(&str, &str); 5] = [
    (condition_types::STALLED, "True"),
    (condition_types::LAG_KNOWN, "False"),
    (condition_types::DEGRADED, "True"),
    (condition_types::DEPENDENCIES_AVAILABLE, "False"),
    (condition_types::GROUP_CONFLICT, "True"),
];

/// The plan of a valid spec, and the findings about the spec.
pub(super) fn spec(pool: &PoolSnapshot) -> (Option<&Arc<PoolPlan>>, Vec<Finding>) {
    match &pool.plan {
        Ok(plan) => (Some(plan), vec![Finding::ok("spec", "the spec is valid")]),
        Err(problems) => {
            let problems = problems.0.iter();
            let findings = problems.map(|problem| Finding::problem("spec", problem.to_string()));
            (None, findings.collect())
        }
    }
}

/// What the operator reports about the pool.
pub(super) fn status(pool: &PoolSnapshot) -> Vec<Finding> {
    let conditions = pool.status.iter().flat_map(|status| &status.conditions);
    if conditions.clone().next().is_none() {
        let text = "no operator has reconciled the pool; fix: start one that watches its namespace (watchNamespaces of the \
                    chart, --watch-namespaces)";
        return vec![Finding::problem("status", text)];
    }
    let observed = pool.status.as_ref().and_then(|status| status.observed_generation);
    let mut findings = Vec::new();
    if observed != pool.generation {
        let text = "the operator has not yet read the last change of the spec; fix: repeat the check in a few seconds";
        findings.push(Finding::warning("status", text));
    }
    let problems = conditions.filter(|condition| {
        let mut problems = PROBLEMS.iter();
        problems.any(|(type_, status)| condition.type_ == *type_ && condition.status == *status)
    });
    findings.extend(problems.map(|condition| {
        let type_and_status = format!("{} {}", condition.type_, condition.status);
        let text = format!("{type_and_status} {}: {}", condition.reason, condition.message);
        Finding::problem("status", text)
    }));
    if findings.is_empty() {
        findings.push(Finding::ok("status", "the operator reports no problem"));
    }
    findings
}
