//! The findings of a check's pod: those that it printed, and one if it did not complete the check. Sends no request.

use std::time::Duration;

use k8s_openapi::api::core::v1::{ContainerState, ContainerStateTerminated, Pod, PodCondition};
use separation_contract::check::{CheckResult, Finding};
use separation_operator::apply::CONTAINER;

/// Name of the check that fails if a Job does not complete its check.
pub(super) const JOB: &str = "job";

/// Lines of the log in a message.
const LOG_LINES: usize = 5;

/// The fix if Kubernetes reports that the container exceeded its memory limit.
const RAISE_MEMORY: &str = "raise the memory limit of the role (resources.limits.memory)";

/// The fix of other failures whose log has none.
const READ_LAST_LINES: &str = concat!(
    "correct the settings, image or driver that the last lines name; images of workers have this check since version ",
    env!("CARGO_PKG_VERSION")
);

/// The findings of a Job whose pod has ended, or has not ended within `limit`. `log` is the output of its container, empty
/// before it starts, or the reason why it cannot be read.
pub(super) fn outcome(pod: Option<&Pod>, log: Result<&str, &str>, limit: Duration) -> Vec<Finding> {
    let seconds = limit.as_secs();
    let Some(pod) = pod else {
        let text = format!(
            "the Job has no pod after {seconds} s; fix: look for a quota or an admission webhook that refuses it, with \
             kubectl get events"
        );
        return vec![Finding::problem(JOB, text)];
    };
    let state = state(pod);
    if unscheduled(pod).is_some() {
        // The workers of a healthy pool may use every GPU.
        let text = format!(
            "could not be checked, because the pod was not scheduled within {seconds} s: {state}; fix: repeat the check \
             while a node has free what a worker of this role requests, GPU included, or wait longer with --job-seconds"
        );
        return vec![Finding::warning(JOB, text)];
    }
    let (mut findings, others) = parse(log.unwrap_or_default());
    if is_complete(pod, &findings) {
        return findings;
    }
    let problem = match has_ended(pod) {
        true => "the check was not completed".to_owned(),
        false => format!("the check has not ended after {seconds} s"),
    };
    let last = others[others.len().saturating_sub(LOG_LINES)..].join(" ");
    let log = match log {
        Err(why) => format!("; the log cannot be read: {why}"),
        Ok(_) if last.is_empty() => String::new(),
        Ok(_) => format!("; last lines of its log: {last}"),
    };
    let finding = Finding::problem(JOB, format!("{problem}; state of the pod: {state}{log}"));
    // An error in the log has its own fix.
    let fix = finding.fix.or_else(|| Some(fix(pod).to_owned()));
    findings.push(Finding { fix, ..finding });
    findings
}

/// Whether the pod's container has ended, or will not start.
pub(super) fn has_ended(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    terminated(pod).is_some() || matches!(phase, Some("Succeeded" | "Failed"))
}

/// Whether the pod's container has started.
pub(super) fn has_log(pod: &Pod) -> bool {
    container(pod).is_some_and(|state| state.running.is_some() || state.terminated.is_some())
}

/// The state of the worker's container.
fn container(pod: &Pod) -> Option<&ContainerState> {
    let statuses = pod.status.as_ref()?.container_statuses.as_ref()?;
    let worker = statuses.iter().find(|status| status.name == CONTAINER)?;
    worker.state.as_ref()
}

fn terminated(pod: &Pod) -> Option<&ContainerStateTerminated> {
    container(pod)?.terminated.as_ref()
}

fn unscheduled(pod: &Pod) -> Option<&PodCondition> {
    let mut conditions = pod.status.as_ref()?.conditions.iter().flatten();
    conditions.find(|condition| condition.type_ == "PodScheduled" && condition.status == "False")
}

/// Whether findings explain how the check ended. `separation-worker check` exits 0 without a problem, 1 with one, and
/// otherwise only if it could not check.
fn is_complete(pod: &Pod, findings: &[Finding]) -> bool {
    match terminated(pod).map(|terminated| terminated.exit_code) {
        Some(0) => !findings.is_empty(),
        Some(1) => findings
            .iter()
            .any(|finding| finding.result == CheckResult::Problem),
        _ => false,
    }
}

fn fix(pod: &Pod) -> &'static str {
    match terminated(pod) {
        Some(terminated) if terminated.reason.as_deref() == Some("OOMKilled") => RAISE_MEMORY,
        Some(_) => READ_LAST_LINES,
        None if has_ended(pod) => "correct the reason that the pod reports, and repeat the check",
        None => "correct the reason that the pod reports, or wait longer with --job-seconds",
    }
}

/// The phase of a pod, its exit code, and the reasons and messages of the pod and of its container.
fn state(pod: &Pod) -> String {
    let status = pod.status.as_ref();
    let phase = status.and_then(|status| status.phase.as_deref());
    let mut state = phase.unwrap_or("Unknown").to_owned();
    if let Some(terminated) = terminated(pod) {
        state += &format!(", exit code {}", terminated.exit_code);
    }
    let waiting = container(pod).and_then(|state| state.waiting.as_ref());
    let reports = [
        status.map(|status| [&status.reason, &status.message]),
        unscheduled(pod).map(|condition| [&condition.reason, &condition.message]),
        waiting.map(|waiting| [&waiting.reason, &waiting.message]),
        terminated(pod).map(|terminated| [&terminated.reason, &terminated.message]),
    ];
    for text in reports.into_iter().flatten().flatten().flatten() {
        state += ", ";
        state += text;
    }
    state
}

/// The findings in a log, and its other lines.
fn parse(log: &str) -> (Vec<Finding>, Vec<&str>) {
    let (mut findings, mut others) = (Vec::new(), Vec::new());
    for line in log.lines().filter(|line| !line.trim().is_empty()) {
        match serde_json::from_str(line) {
            Ok(finding) => findings.push(finding),
            Err(_) => others.push(line),
        }
    }
    (findings, others)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const LIMIT: Duration = Duration::from_secs(300);

    fn pod(status: &Value) -> Pod {
        serde_json::from_value(json!({"metadata": {}, "status": status})).unwrap()
    }

    /// A pod whose container has this state.
    fn with_container(phase: &str, state: &Value) -> Pod {
        pod(&json!({"phase": phase, "containerStatuses": [{"name": CONTAINER, "state": state}]}))
    }

    fn ended(exit_code: i32, reason: &str) -> Pod {
        let phase = if exit_code == 0 { "Succeeded" } else { "Failed" };
        let terminated = json!({"terminated": {"exitCode": exit_code, "reason": reason}});
        with_container(phase, &terminated)
    }

    fn log_of(findings: &[Finding]) -> String {
        let lines = findings.iter();
        lines
            .map(|finding| serde_json::to_string(finding).unwrap() + "\n")
            .collect()
    }

    /// The finding about the Job, which follows those that the check printed.
    #[track_caller]
    fn about_job(found: &[Finding], printed: &[Finding]) -> Finding {
        let (last, before) = found.split_last().unwrap();
        assert_eq!((before, &*last.check), (printed, JOB), "{found:?}");
        last.clone()
    }

    /// The same, with its result and with parts of its message and fix.
    #[track_caller]
    fn assert_job(finding: &Finding, result: CheckResult, in_message: &[&str], in_fix: &str) {
        assert_eq!(finding.result, result, "{finding:?}");
        for part in in_message {
            assert!(finding.message.contains(part), "{finding:?}");
        }
        assert!(
            finding.fix.as_deref().unwrap_or_default().contains(in_fix),
            "{finding:?}"
        );
    }

    #[test]
    fn a_killed_check_is_a_problem_beside_its_findings() {
        let printed = [Finding::ok("store", "it works")];
        let log = log_of(&printed);
        let killed = outcome(Some(&ended(137, "OOMKilled")), Ok(&log), LIMIT);
        let parts = ["exit code 137", "OOMKilled"];
        assert_job(
            &about_job(&killed, &printed),
            CheckResult::Problem,
            &parts,
            "resources.limits.memory",
        );
        let log = log + "terminate called after throwing an instance\n";
        let crashed = outcome(Some(&ended(139, "Error")), Ok(&log), LIMIT);
        let parts = ["exit code 139", "terminate called"];
        assert_job(
            &about_job(&crashed, &printed),
            CheckResult::Problem,
            &parts,
            "last lines",
        );
    }

    #[test]
    fn exit_codes_0_and_1_are_problems_unless_findings_explain_them() {
        let works = [Finding::ok("store", "it works")];
        let fails = [Finding::problem("gpu", "no driver; fix: install it")];
        let cases: [(i32, &[Finding], bool); 4] = [
            (0, &works, true),
            (1, &fails, true),
            (0, &[], false),
            (1, &works, false),
        ];
        for (exit_code, printed, is_explained) in cases {
            let found = outcome(Some(&ended(exit_code, "")), Ok(&log_of(printed)), LIMIT);
            if is_explained {
                assert_eq!(found, printed);
            } else {
                about_job(&found, printed);
            }
        }
    }

    #[test]
    fn other_lines_are_ignored_unless_the_check_failed() {
        let printed = [Finding::ok("store", "it works")];
        let log = format!("a warning\n\n{}", log_of(&printed));
        assert_eq!(outcome(Some(&ended(0, "Completed")), Ok(&log), LIMIT), printed);
        for (log, message, fix) in [
            (
                "error: unrecognized subcommand 'check'\n",
                "unrecognized subcommand",
                env!("CARGO_PKG_VERSION"),
            ),
            (
                "error: S3_BUCKET_NAME is missing; fix: set it\n",
                "S3_BUCKET_NAME is missing",
                "set it",
            ),
        ] {
            let found = outcome(Some(&ended(2, "Error")), Ok(log), LIMIT);
            let finding = about_job(&found, &[]);
            assert_job(&finding, CheckResult::Problem, &["exit code 2", message], fix);
        }
    }

    #[test]
    fn a_pod_without_a_free_gpu_is_a_warning() {
        let message = "0/3 nodes are available: 3 Insufficient nvidia.com/gpu.";
        let pending = pod(&json!({"phase": "Pending", "conditions": [
            {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message},
        ]}));
        let finding = about_job(&outcome(Some(&pending), Ok(""), LIMIT), &[]);
        let parts = ["could not be checked", message, "300 s"];
        assert_job(&finding, CheckResult::Warning, &parts, "GPU");
    }

    #[test]
    fn a_check_that_has_not_ended_keeps_its_findings() {
        let printed = [
            Finding::ok("kafka", "it works"),
            Finding::problem("store", "no bucket"),
        ];
        let running = with_container("Running", &json!({"running": {}}));
        let found = outcome(Some(&running), Ok(&log_of(&printed)), LIMIT);
        let parts = ["has not ended after 300 s", "Running"];
        assert_job(
            &about_job(&found, &printed),
            CheckResult::Problem,
            &parts,
            "--job-seconds",
        );
        let waiting = json!({"waiting": {"reason": "ImagePullBackOff", "message": "not found"}});
        let waiting = with_container("Pending", &waiting);
        let finding = about_job(&outcome(Some(&waiting), Ok(""), LIMIT), &[]);
        let parts = ["has not ended", "Pending", "ImagePullBackOff", "not found"];
        assert_job(&finding, CheckResult::Problem, &parts, "--job-seconds");
        let absent = about_job(&outcome(None, Ok(""), LIMIT), &[]);
        assert_job(
            &absent,
            CheckResult::Problem,
            &["no pod after 300 s"],
            "kubectl get events",
        );
    }

    #[test]
    fn an_unreadable_log_is_a_problem_with_the_state_of_the_pod() {
        let evicted = pod(&json!({
            "phase": "Failed", "reason": "Evicted", "message": "The node was low on resource: memory.",
            "containerStatuses": [{"name": CONTAINER, "state": {"terminated": {"exitCode": 0, "reason": "Completed"}}}],
        }));
        let finding = about_job(&outcome(Some(&evicted), Err("no route to host"), LIMIT), &[]);
        let parts = [
            "no route to host",
            "Failed",
            "exit code 0",
            "Evicted",
            "low on resource",
        ];
        assert_job(&finding, CheckResult::Problem, &parts, "");
    }

    #[test]
    fn a_pod_has_a_log_once_its_container_started_and_ends_with_it() {
        let running = with_container("Running", &json!({"running": {}}));
        let waiting = with_container("Pending", &json!({"waiting": {}}));
        let refused = pod(&json!({"phase": "Failed", "reason": "UnexpectedAdmissionError"}));
        for (pod, expected) in [
            (running, (true, false)),
            (waiting, (false, false)),
            (refused, (false, true)),
            (ended(1, "Error"), (true, true)),
        ] {
            assert_eq!((has_log(&pod), has_ended(&pod)), expected, "{pod:?}");
        }
    }
}
